"""The models that both sides train: shapes, widths, batches, optimisers."""

from __future__ import annotations

import dataclasses

import numpy as np

CLASSES = 6
FEATURES = 64  # Of the small encoders.
WORDS, LENGTH = 1000, 8  # Of the vocabulary, and of a text.


@dataclasses.dataclass(frozen=True)
class Model:
  """Encoders under a linear head on their features, side by side.

  Attributes:
    encoders: {modality: kind}, ``conv`` (``small.ConvNet``), ``words``
      (``small.WordBag``), ``mlp`` (``small.MLP``), ``wave``
      (``small.ConvNet1D``) or ``resnet`` (``resnet.ResNet``, depth 18).
    shapes: {modality: shape of a sample}.
    size: of a batch.
    optimiser: ``adam``, or ``sgd`` with momentum .9 and weight decay 1e-4.
  """

  encoders: dict[str, str]
  shapes: dict[str, tuple[int, ...]]
  size: int
  optimiser: str

  def batch(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs, channels last, and labels [b]: noise, always the same."""
    rng = np.random.default_rng(0)
    inputs = {}
    for m, shape in self.shapes.items():
      whole = (self.size, *shape)
      if self.encoders[m] == "words":
        inputs[m] = rng.integers(1, WORDS, whole).astype(np.int32)
      else:
        inputs[m] = rng.normal(size=whole).astype(np.float32)
    return inputs, rng.integers(0, CLASSES, self.size).astype(np.int32)


# ``emoji``: as configs/openmoji.py. ``resnet-18 pair``: as configs/crema_d.py
# with one frame a clip.
MODELS = {
  "emoji": Model(
    {"image": "conv", "text": "words"},
    {"image": (24, 24, 3), "text": (LENGTH,)},
    64,
    "adam",
  ),
  "digits": Model(
    {"audio": "conv", "wave": "wave"},
    {"audio": (64, 64, 1), "wave": (4000,)},
    64,
    "adam",
  ),
  "arrays": Model(
    {"a": "mlp", "b": "mlp", "c": "mlp"},
    {"a": (20,), "b": (59,), "c": (40,)},
    64,
    "adam",
  ),
  "resnet-18 pair": Model(
    {"video": "resnet", "audio": "resnet"},
    {"video": (224, 224, 3), "audio": (257, 299, 1)},
    8,
    "sgd",
  ),
}
