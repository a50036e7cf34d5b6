"""NVGesture: 1,532 clips of RGB, depth and optical flow, 25 hand gestures.

python launch.py --config=configs/nvgesture.py:lb --config.data.raw=FOLDER

FOLDER holds Video_data and the two lists; data_pipelines/sets/nvgesture
describes how they are prepared (2 GB, once, an hour on two cores). The paper
reports 84.36 % accuracy and 84.68 % macro-F1 for Ours-LB, 83.24 % and 83.87 %
for Ours-H (Table 2), but no details. Optimiser, batch size and encoders follow
the later code of the same group (IGM, AMSS). The learning rate falls at
plateaus, as it does for the audio-video data sets; that code lowers it at epoch
80. IGM starts from an I3D trained on Kinetics
(``--config.encoders.rgb.pretrained=FOLDER``, likewise for depth and flow); AMSS
and this file train from scratch. The paper trains on all 1,050 clips of the
train list, this file on 755, so expect lower scores.

Cost: 1.6 TFLOP per training sample, hence 124 PFLOP for 100 epochs, three
quarters of an hour at 50 TFLOP/s; ``--config.precision=bf16`` uses faster
matrix units. The backward pass recomputes activations instead of storing them
(``remat`` of each encoder); switch this off if there is enough memory. On a
CPU, ``lb,batch_size=1`` runs steps of full size: a minute and 9.5 GiB per step,
half an hour and 15.5 GiB per update of α (two busy cores). ``quick=true`` is
for a laptop: 16 frames of 56 × 56 pixels, which small networks see as separate
pictures.
"""

from data_pipelines.sets import nvgesture
from dmg_jax.config import compose

MODALITIES = ("rgb", "depth", "flow")


def _quick():
  """Fields that ``quick=true`` changes."""
  small = compose.encoder("small.ConvNet", widths=(16, 32, 64))
  return {
    "data.step": 5,
    "data.reduce": 4,
    "data.window": 13,
    "data.image_size": 56,
    **{f"encoders.{m}": small for m in MODALITIES},
    "optimiser.name": "adam",
    "optimiser.learning_rate": 1e-3,
    "optimiser.schedule": "cosine",
    "train.epochs": 30,
    "train.batch_size": 16,
    "train.outer_batch_size": 16,
    "eval.batch_size": 32,
  }


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  config = compose.base(arg)
  config.data.update(compose.options(nvgesture.load), name="nvgesture")
  config.encoders = {
    m: compose.encoder("i3d.I3D", remat=True) for m in MODALITIES
  }
  config.optimiser.update(
    name="sgd", learning_rate=0.01, weight_decay=1e-4, schedule="plateau"
  )
  config.train.update(epochs=100, batch_size=6, outer_batch_size=6)
  config.eval.batch_size = 4
  return compose.with_recipe(config, arg, quick=_quick())
