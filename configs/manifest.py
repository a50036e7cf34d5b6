"""Your own data: a table with one row a sample, any modalities.

python launch.py --config=configs/manifest.py:lb --config.data.manifest=a.csv

See data_pipelines/manifest.py for the table. An encoder is looked up by the
modality's name, then by its kind; pictures and spectrograms are small enough
for a laptop's CPU.
"""

from data_pipelines import manifest
from dmg_jax.config import compose


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  config = compose.base(arg)
  config.data.update(compose.options(manifest.load), name="manifest")
  config.data.update(nperseg=256, noverlap=0)
  conv = {"widths": (16, 32, 64)}
  config.encoders = {
    "image": compose.encoder("small.ConvNet", **conv),
    "audio": compose.encoder("small.ConvNet", **conv),
    "video": compose.encoder("small.ConvNet", **conv),
    "text": compose.encoder("small.WordBag", dropout=0.2),
    "array": compose.encoder("small.MLP"),
  }
  config.optimiser.schedule = "cosine"
  config.train.batch_size = 16
  return compose.with_recipe(config, arg)
