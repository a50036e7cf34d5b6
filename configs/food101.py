"""UPMC Food-101: pictures of 101 dishes with the titles of their pages.

python launch.py --config=configs/food101.py:lb --config.data.raw=FOLDER

FOLDER is the download, see data_pipelines/sets/food101. The encoders are
ResNet-50 and BERT-base as for the tweets of the paper, whose learning rate,
batch size and schedule are taken, too; titles have at most 40 word pieces, as
in BalanceBenchmark. Its loader turns pictures by up to 30 degrees; here the
only augmentation is horizontal flipping. The paper has no results on this
data set, and none of ours exist.

Cost: about 425 steps per epoch; the first run reads 90,704 pictures.

Keys after the recipe: encoders=clip uses both towers of CLIP ViT-B/32;
quick=true uses small encoders for a laptop and downloads none.
"""

from data_pipelines.sets import food101
from dmg_jax.config import tweets


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return tweets.get_config(
    "food101", food101.load, arg, epochs=20, max_words=40
  )
