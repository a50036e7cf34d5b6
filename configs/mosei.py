"""CMU-MOSEI: opinions, 22,856 sequences of words, sound and video.

python launch.py --config=configs/mosei.py:lb --config.data.raw=FOLDER

FOLDER holds the pickle of MMSA or MulT, see data_pipelines/sets/mosei; it is
read without running anything in it. Two classes, negative or not, as
BalanceBenchmark trains CMU-MOSEI; --config.data.labels has sign, three and
seven, too. Sequences are aligned, of 50 steps. Adam with learning rate 1e-3
that falls at plateaus, as in MulT; 20 epochs, half of MulT's default; batches
of 32, where MulT has 24. Each modality has a Transformer of its own, of two
layers and width 64; MulT's attend to each other.
--config.data.form=unaligned takes sequences of any length.

This project has not trained on the official data. Cost: about 460 steps an
epoch.

Keys after the recipe: quick=true takes narrow networks and 5 epochs.
--config.data.text=raw reads the words themselves, if the pickle has them.
"""

from data_pipelines.sets import mosei
from dmg_jax.config import opinions


def get_config(arg=None):
  """The config of ``<recipe>[,key=value...]``."""
  return opinions.get_config("mosei", mosei.load, arg, epochs=20)
