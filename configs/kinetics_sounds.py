"""Kinetics-Sounds: sound and video of 31 actions.

python launch.py --config=configs/kinetics_sounds.py:lb --config.data.raw=FOLDER

data_pipelines/sets/kinetics_sounds describes FOLDER. Settings of the paper: two
ResNet-18 trained from scratch, SGD with momentum 0.9 and learning rate 0.01.
The paper reports 72.53 % accuracy and 78.38 % mAP for Ours-LB, 64.55 % and
71.31 % for concat; this project has not reproduced these numbers. Cost: 90
GFLOP per training sample, hence 250 PFLOP for 200 epochs, an hour and a half at
50 TFLOP/s, and little more for lb. To check the setup on a laptop's CPU:

python launch.py --config=configs/kinetics_sounds.py:lb,quick=true ...

This takes small pictures, narrow networks and 3 epochs; its scores mean
nothing. Steps of full size also fit a CPU: with ``lb,batch_size=2``, 25 steps
and an update of α took 5.6 GiB.

Deviations from the paper:

1. Batch size 64, weight decay 1e-4 and 200 epochs are those of the released
   code; the paper states 256 and 1e-1, which we have not tried, and no
   number of epochs.
2. "A plateau in loss reduction" is read as 10 epochs in which the validation
   loss has not fallen, the default of torch; the paper specifies neither.
"""

from data_pipelines.sets import kinetics_sounds
from dmg_jax.config import audio_video


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return audio_video.get_config(
    "kinetics_sounds", kinetics_sounds.load, arg, quick_seconds=2.0
  )
