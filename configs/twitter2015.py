"""Twitter2015: sentiment towards a target in a tweet with picture (TomBERT).

python launch.py --config=configs/twitter2015.py:lb --config.data.raw=FOLDER

FOLDER is the download, see data_pipelines/sets/twitter2015. Settings of the
paper, section 4.1: ResNet-50 and BERT-base, Adam with learning rate 1e-4, batch
size 128, pictures of 224 × 224 pixels, texts of at most 128 word pieces. The
paper gives no number of epochs. The learning rate falls at plateaus, as in the
paper for the audio-video data sets; the only augmentation is horizontal
flipping. The paper does not say how the text marks the target: here the text
shows only its position, as in the data loaders of the same group.

Expected (paper, Table 1; test accuracy and macro-F1): concat 70.11 and 63.86,
h 73.87 and 69.17, lb 75.01 and 70.57. With encoders=clip (Table 5; accuracy):
concat 72.52, lb 74.43.

Cost: 22 steps per epoch of 11.7 TFLOP each (CLIP: 5.7); we estimate a second
per epoch on an H200 at 35 % of its bfloat16 peak, and 50 % more for lb. On a
CPU, lb,batch_size=4 runs steps of full size in 14 GiB.

Keys after the recipe: encoders=clip uses both towers of CLIP ViT-B/32;
quick=true uses small encoders for a laptop and downloads none.
"""

from data_pipelines.sets import twitter2015
from dmg_jax.config import tweets


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return tweets.get_config("twitter2015", twitter2015.load, arg, epochs=20)
