"""Your own data: a table with one row per sample, for any modalities.

python launch.py --config=configs/manifest.py:lb --config.data.manifest=a.csv

data_pipelines/manifest describes the table, and dmg_jax/config/own_data.py sets
the defaults, which can be changed here.
"""

from dmg_jax.config import compose, own_data


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  config = own_data.base(arg)
  # For example: config.train.batch_size = 32
  return compose.with_recipe(config, arg)
