"""VGGSound: sound and video of 309 classes.

python launch.py --config=configs/vggsound.py:lb --config.data.raw=FOLDER

FOLDER holds the clips and vggsound.csv; data_pipelines/sets/vggsound describes
it, and ``--mode=prepare`` prepares it without training (76 GB for a whole copy;
clips that are gone are counted). Settings of the field: two ResNet-18 trained
from scratch, three frames, SGD with momentum 0.9, learning rate 0.001, weight
decay 1e-4, batch size 64 and 100 epochs, as in the released code of OGM-GE and
of TCMax (scripts/VGGSound.sh). OGM-GE reports 49.1 % accuracy for concat and
50.6 % with its method; this project has not trained at full size. Cost: 90
GFLOP per training sample, hence 1,300 PFLOP for 100 epochs, seven hours at 50
TFLOP/s, and little more for lb. To check the setup on a laptop's CPU:

python launch.py --config=configs/vggsound.py:lb,quick=true ...

This takes small pictures, narrow networks and 3 epochs; its scores mean
nothing. It still reads all clips: point it at a folder with some of them.

Deviations from OGM-GE and TCMax:

1. The learning rate is divided by ten at plateaus of the validation loss, as
   for the other sets of sound and video, not once at epoch 70.
2. TCMax takes four frames (``--config.data.frames=4``).
3. The data; see data_pipelines/sets/vggsound.
"""

from data_pipelines.sets import vggsound
from dmg_jax.config import audio_video


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return audio_video.get_config(
    "vggsound",
    vggsound.load,
    arg,
    quick_seconds=2.0,
    usual={"optimiser.learning_rate": 1e-3, "train.epochs": 100},
  )
