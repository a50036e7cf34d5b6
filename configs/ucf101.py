"""UCF-101: RGB and optical flow of 101 human actions.

python launch.py --config=configs/ucf101.py:lb --config.data.raw=FOLDER

FOLDER holds the videos and the lists, and perhaps optical flow;
data_pipelines/sets/ucf101 describes it, and ``--mode=prepare`` prepares it
without training. ``--config.data.split=2`` is the second official split.
Settings of the field: two ResNet-18 trained from scratch, three frames, SGD
with momentum 0.9, learning rate 0.001, weight decay 1e-4, batch size 32 and 400
epochs, as in the released code of TCMax (scripts/UCF101.sh). The page of OGM-GE
cites 82.3 % accuracy for joint training and 84.0 % with OGM-GE from a paper
whose settings differ; from scratch expect less. This project has not trained
at full size. Cost: 65 GFLOP per training sample, hence 200 PFLOP for 400
epochs, an hour and a quarter at 50 TFLOP/s, and little more for lb. To check
the setup on a laptop's CPU:

python launch.py --config=configs/ucf101.py:lb,quick=true ...

This takes small pictures, narrow networks and 3 epochs; its scores mean
nothing.

Deviations from TCMax:

1. The learning rate is divided by ten at plateaus of the validation loss, as
   for the sets of sound and video, not once at epoch 300.
2. Three pairs of flow pictures (BalanceBenchmark), each a picture of two
   channels, not ten pairs as the channels of one.
3. The data; see data_pipelines/sets/ucf101.
"""

from data_pipelines.sets import ucf101
from dmg_jax.config import compose

MODALITIES = ("rgb", "flow")


def _quick():
  """Fields that ``quick=true`` changes."""
  small = compose.encoder("small.ConvNet", widths=(8, 16))
  return {
    "data.image_size": 32,
    **{f"encoders.{m}": small for m in MODALITIES},
    "train.epochs": 3,
    "train.batch_size": 16,
    "train.outer_batch_size": 64,
    "eval.batch_size": 16,
  }


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  config = compose.base(arg)
  config.data.update(compose.options(ucf101.load), name="ucf101")
  config.encoders = {
    m: compose.encoder("resnet.ResNet", depth=18) for m in MODALITIES
  }
  config.optimiser.update(
    name="sgd", learning_rate=1e-3, weight_decay=1e-4, schedule="plateau"
  )
  config.train.update(epochs=400, batch_size=32, inner_batch_size=16)
  config.eval.batch_size = 64
  return compose.with_recipe(config, arg, _quick())
