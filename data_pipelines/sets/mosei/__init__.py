"""CMU-MOSEI: sentiment of 22,856 opinions in videos, as sequences of features.

The features of Zadeh et al., "Multimodal Language Analysis in the Wild:
CMU-MOSEI Dataset and Interpretable Dynamic Fusion Graph", ACL 2018. ``raw`` is
the folder of a download, or the pickle itself:

==========  ===================================================================
aligned     ``aligned_50.pkl`` of MMSA or ``mosei_senti_data.pkl`` of MulT: a
            step a word
unaligned   ``unaligned_50.pkl`` of MMSA or ``mosei_senti_data_noalign.pkl``
==========  ===================================================================

Pickles are read without running what they name, see ``_sequences``.

============  =================================================================
text          [t d] float32: features of words, BERT's (768) or GloVe's (300)
audio         [t d] float32
vision        [t d] float32
label         by ``labels``
train         16,326, of which ``outer`` has 10 %
val, test     1,871, 4,659
============  =================================================================

What the classes are is ``labels``:

============  =================================================================
nonnegative   negative, non_negative: what BalanceBenchmark trains; the default
sign          negative, positive; samples of sentiment 0 are left out
three         negative, neutral, positive, as MMSA annotates
seven         -3 to 3, rounded
============  =================================================================

Deviations are numbered in ``_sequences.opinions``.
"""

from __future__ import annotations

import os

from data_pipelines import core
from data_pipelines.sets._sequences import opinions


def load(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  form: str = "aligned",
  labels: str = "nonnegative",
  text: str = "features",
  tokenizer: str = "",
  max_words: int = 64,
  standardise: bool = True,
  held_out: float = 0.1,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be.

  Args:
    data_dir: folder of all prepared data.
    raw: the download's folder, or the pickle; not needed once the data are
      prepared.
    form: aligned or unaligned; unaligned sequences are without padding.
    labels: nonnegative, sign, three or seven.
    text: features, or raw: the words themselves, if the pickle has them.
    tokenizer: of raw texts: Hugging Face name or folder; none: the words of the
      training texts.
    max_words: words or word pieces kept of a raw text.
    standardise: bring each number of an array to mean 0 and deviation 1 over
      the training samples.
    held_out: share of each class of train that is ``outer``.

  Raises:
    ValueError: an option out of its range, or no download is named.
    core.DataError: there is no pickle, it cannot be read or names something
      that is not admitted; or the prepared data are damaged.
  """
  options = opinions.Options(form, labels, text, standardise, held_out)
  return opinions.load(MOSEI, data_dir, options, raw, tokenizer, max_words)


def prepare(
  data_dir: str | os.PathLike,
  *,
  raw: str = "",
  form: str = "aligned",
  labels: str = "nonnegative",
  text: str = "features",
  standardise: bool = True,
  held_out: float = 0.1,
) -> core.PreparedSummary:
  """Reads the pickle and stores its samples; arguments as ``load``'s.

  Intact data are left alone, damaged data replaced. What is left out is in the
  report, and in full in ``problems.csv`` beside the data.

  Raises:
    ValueError: as ``load``.
    core.DataError: as ``load``.
  """
  options = opinions.Options(form, labels, text, standardise, held_out)
  return opinions.prepare(MOSEI, data_dir, options, raw)


MOSEI = opinions.Opinions(
  name="mosei",
  version="1.0.0",
  files={
    "aligned": "mosei_senti_data.pkl",
    "unaligned": "mosei_senti_data_noalign.pkl",
  },
  other="mosi",
  expected={"train": 16326, "val": 1871, "test": 4659},
)
