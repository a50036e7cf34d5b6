"""AVE: sound and video of 28 events.

python launch.py --config=configs/ave.py:lb --config.data.raw=FOLDER

FOLDER holds the videos and the three lists; data_pipelines/sets/ave describes
it, and ``--mode=prepare`` prepares it without training. Settings of the field:
two ResNet-18 trained from scratch, three frames, SGD with momentum 0.9,
learning rate 0.001, weight decay 1e-4, batch size 32 and 200 epochs, as in the
released code of TCMax (scripts/AVE.sh), which follows OGM-GE. This project has
not trained at full size and knows no score under exactly these settings. Cost:
90 GFLOP per training sample, hence 54 PFLOP for 200 epochs, twenty minutes at
50 TFLOP/s, and little more for lb. To check the setup on a laptop's CPU:

python launch.py --config=configs/ave.py:lb,quick=true ...

This takes small pictures, narrow networks and 3 epochs; its scores mean
nothing.

Deviations from TCMax:

1. The learning rate is divided by ten at plateaus of the validation loss, as
   for the other sets of sound and video, not once at epoch 150.
2. The data; see data_pipelines/sets/ave.
"""

from data_pipelines.sets import ave
from dmg_jax.config import audio_video


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return audio_video.get_config(
    "ave",
    ave.load,
    arg,
    quick_seconds=2.0,
    usual={"optimiser.learning_rate": 1e-3, "train.batch_size": 32},
  )
