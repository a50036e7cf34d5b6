"""Your own data: a table with one row a sample, any modalities.

python launch.py --config=configs/manifest.py:lb --config.data.manifest=a.csv

See data_pipelines/manifest for the table and dmg_jax/config/own_data.py for the
defaults. Change them here.
"""

from dmg_jax.config import compose, own_data


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  config = own_data.base(arg)
  # For example: config.train.batch_size = 32
  return compose.with_recipe(config, arg)
