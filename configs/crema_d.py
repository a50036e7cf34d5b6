"""CREMA-D: sound and video of spoken sentences, 6 emotions.

python launch.py --config=configs/crema_d.py:lb --config.data.raw=FOLDER

data_pipelines/sets/crema_d describes FOLDER. Settings of the paper: two
ResNet-18 trained from scratch, SGD with momentum 0.9 and learning rate 0.01.
The paper reports 83.62 % accuracy and 90.06 % mAP for Ours-LB, 63.31 % and
68.41 % for concat; this project has not reproduced these numbers. Cost: 45
GFLOP per training sample, hence 48 PFLOP for 200 epochs, a quarter of an hour
at 50 TFLOP/s, and 4 % more for lb. To check the setup on a laptop's CPU:

python launch.py --config=configs/crema_d.py:lb,quick=true ...

This takes small pictures, narrow networks and 3 epochs; its scores mean
nothing. Steps of full size also fit a CPU: ``lb,batch_size=4`` took 5.4 GiB and
ten seconds per step, plus minutes for compilation and for an update of α.

Deviations from the paper:

1. Batch size 64, weight decay 1e-4 and 200 epochs are those of the released
   code; the paper states 256 and 1e-1, which we have not tried, and no
   number of epochs.
2. "A plateau in loss reduction" is read as 10 epochs in which the validation
   loss has not fallen, the default of torch; the paper specifies neither.
"""

from data_pipelines.sets import crema_d
from dmg_jax.config import audio_video


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return audio_video.get_config("crema_d", crema_d.load, arg, quick_seconds=1.0)
