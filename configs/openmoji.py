"""OpenMoji: 1,629 emoji, picture and name, 8 categories (embedded default).

python launch.py --config=configs/openmoji.py:lb

Trains from scratch in about a minute on two CPU cores. The text is the name
alone; image is the weak modality.
"""

from configs import common


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  config = common.base()
  config.data.update(name="openmoji", image_size=32, max_words=12)
  config.encoders = {
    "image": common.encoder("small.ConvNet"),
    "text": common.encoder("small.WordBag"),
  }
  return common.with_recipe(config, arg)
