"""Kinetics-Sounds: sound and video of 31 actions.

python launch.py --config=configs/kinetics_sounds.py:lb --config.data.raw=FOLDER

See data_pipelines/sets/kinetics_sounds for the folder. The paper's setting: two
ResNet-18 from scratch, SGD of momentum 0.9, rate 0.01. The paper reports for
Ours-LB 72.53 % accuracy and 78.38 % mAP, for concat 64.55 % and 71.31 %; this
project has not repeated that. Cost: 90 GFLOP a training sample, so 250 PFLOP
for the 200 epochs, an hour and a half at 50 TFLOP/s, little more for lb. That
all works on a laptop's CPU shows

python launch.py --config=configs/kinetics_sounds.py:lb,quick=true ...

which takes small pictures, narrow nets and 3 epochs; its scores mean nothing.
Steps of the real size fit a CPU, too: with ``lb,batch_size=2``, 25 steps and an
update of α took 5.6 GiB.

Deviations from the paper:

1. Batch 64, weight decay 1e-4 and 200 epochs are those of the released
   code; the paper writes 256 and 1e-1, which we have not tried, and no
   number of epochs.
2. "A plateau in loss reduction" is read as 10 epochs in which the loss on
   val has not fallen, torch's default; the paper names neither.
"""

from data_pipelines.sets import kinetics_sounds
from dmg_jax.config import audio_video


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return audio_video.get_config(
    "kinetics_sounds", kinetics_sounds.load, arg, quick_seconds=2.0
  )
