"""CMU-MOSI: sentiment of 2,199 opinions in videos, as sequences of features.

The features of Zadeh et al., "MOSI: Multimodal Corpus of Sentiment Intensity
and Subjectivity Analysis in Online Opinion Videos", 2016. ``raw`` is
the folder of a download, or the pickle itself:

==========  ===================================================================
aligned     ``aligned_50.pkl`` of MMSA or ``mosi_data.pkl`` of MulT: a step a
            word
unaligned   ``unaligned_50.pkl`` of MMSA or ``mosi_data_noalign.pkl``
==========  ===================================================================

Pickles are read without running what they name, see ``_sequences``.

============  =================================================================
text          [t d] float32: features of words, BERT's (768) or GloVe's (300)
audio         [t d] float32
vision        [t d] float32
label         by ``labels``
train         1,284, of which ``outer`` has 10 %
val, test     229, 686
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

MOSI = opinions.Opinions(
  name="mosi",
  version="1.0.0",
  files={"aligned": "mosi_data.pkl", "unaligned": "mosi_data_noalign.pkl"},
  other="mosei",
  expected={"train": 1284, "val": 229, "test": 686},
)

load = MOSI.load
prepare = MOSI.prepare
