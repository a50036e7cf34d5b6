"""OpenMoji: 1,629 emoji with picture and name, 8 categories.

python launch.py --config=configs/openmoji.py:lb

The data set comes with the repository. A run trains from scratch in about a
minute on two CPU cores. The text is only the name; the image is the weak
modality.
"""

from data_pipelines.sets import openmoji
from dmg_jax.config import compose


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  config = compose.base(arg)
  config.data.update(compose.options(openmoji.load), name="openmoji")
  config.data.image_size = 24
  config.encoders = {
    "image": compose.encoder("small.ConvNet", widths=(16, 32, 64)),
    "text": compose.encoder("small.WordBag", dropout=0.2),
  }
  config.optimiser.schedule = "cosine"
  return compose.with_recipe(config, arg)
