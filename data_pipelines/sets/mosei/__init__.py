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

from data_pipelines.sets._sequences import opinions

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

load = MOSEI.load
prepare = MOSEI.prepare
