"""Sarcasm: tweets with pictures, sarcastic or not (MMSD, Cai et al. 2019).

python launch.py --config=configs/sarcasm.py:lb --config.data.raw=FOLDER

FOLDER is the download, see data_pipelines/sets/sarcasm. Settings of the paper,
section 4.1: ResNet-50 and BERT-base, Adam with learning rate 1e-4, batch size
128, pictures of 224 × 224 pixels, texts of at most 128 word pieces. The paper
gives no number of epochs. The learning rate falls at plateaus, as in the paper
for the audio-video data sets; the only augmentation is horizontal flipping.

Expected (paper, Table 1; test accuracy and macro-F1): concat 82.86 and 82.43,
h 84.12 and 83.98, lb 84.97 and 84.57. With encoders=clip (Table 5; accuracy):
concat 83.11, lb 85.42.

Cost: 155 steps per epoch of 11.7 TFLOP each (CLIP: 5.7); we estimate seven
seconds per epoch on an H200 at 35 % of its bfloat16 peak, and 7 % more for lb.
On a CPU, lb,batch_size=4 runs steps of full size in 14 GiB.

Keys after the recipe: encoders=clip uses both towers of CLIP ViT-B/32;
quick=true uses small encoders for a laptop and downloads none.
"""

from data_pipelines.sets import sarcasm
from dmg_jax.config import tweets


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return tweets.get_config("sarcasm", sarcasm.load, arg, epochs=20)
