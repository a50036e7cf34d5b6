"""Twitter2015: the mood about a target in a tweet with picture (TomBERT).

python launch.py --config=configs/twitter2015.py:lb --config.data.raw=FOLDER

FOLDER is the download, see data_pipelines/sets/twitter2015. Settings of the
paper, section 4.1: ResNet-50 and BERT-base, Adam with rate 1e-4, batches of
128, pictures of 224 × 224, texts of at most 128 word pieces. It names no
epochs; the rate falls at plateaus, as the paper has it for sound and video;
augmentation is mirroring alone. It does not say what the text tells of the
target: here its place, as in the loaders of its group.

Expected (paper, Table 1; test accuracy and macro-F1): concat 70.11 and 63.86,
h 73.87 and 69.17, lb 75.01 and 70.57. With encoders=clip (Table 5; accuracy):
concat 72.52, lb 74.43.

Cost: 22 steps an epoch, 11.7 TFLOP each (CLIP 5.7); by this estimate about a
second an epoch on an H200 at 35 % of its bfloat16 peak, and half as much again
for lb. On a CPU lb,batch_size=4 makes real-size steps in 14 GiB.

Keys behind the recipe: encoders=clip takes both towers of CLIP ViT-B/32;
quick=true small encoders for a laptop, no download but the data.
"""

from data_pipelines.sets import twitter2015
from dmg_jax.config import tweets


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return tweets.get_config("twitter2015", twitter2015.load, arg, epochs=20)
