"""What a data set holds, without its samples."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from data_pipelines.errors import InputError, unknown

SPLITS = ("train", "outer", "val", "test")
KINDS = ("image", "text", "audio", "video", "array", "waveform")


@dataclasses.dataclass(frozen=True)
class ModalitySpec:
  """One modality of a sample, as the batch holds it.

  Attributes:
    kind: one of ``KINDS``.
    shape: of one sample: image [h w c], video [t h w c], text [t],
      waveform [t].
    dtype: image, video ``uint8``, text ``int32`` word numbers.
    vocab_size: text only: number of different word numbers, special ones too.
    optional: whether samples may lack the modality, see ``Batch.present``.
    buckets: of a *ragged* modality, whose samples [t ...] differ in t: lengths
      that batches are padded to, see ``sequences``. ``shape`` begins with the
      largest.
    steps: ragged only: mean t of a sample.
  """

  kind: str
  shape: tuple[int, ...]
  dtype: npt.DTypeLike
  vocab_size: int | None = None
  optional: bool = False
  buckets: tuple[int, ...] = ()
  steps: float = 0.0

  def __post_init__(self):
    if self.kind not in KINDS:
      raise unknown("kind of modality", self.kind, KINDS)
    object.__setattr__(self, "buckets", tuple(self.buckets))
    if self.buckets and (
      list(self.buckets) != sorted(self.buckets)
      or not self.shape
      or self.shape[0] != self.buckets[-1]
    ):
      raise InputError(
        f"buckets {self.buckets} must rise to the first number of the shape "
        f"{tuple(self.shape)}"
      )
    object.__setattr__(self, "dtype", np.dtype(self.dtype))
    object.__setattr__(self, "shape", tuple(self.shape))

  @property
  def nbytes(self) -> int:
    """Bytes of one sample, of a mean one if they differ in length."""
    steps = [self.steps or self.shape[0]] if self.buckets else self.shape[:1]
    size = np.prod([*steps, *self.shape[1:]], dtype=np.float64)
    return int(size) * np.dtype(self.dtype).itemsize

  @property
  def ragged(self) -> bool:
    """Whether samples differ in length."""
    return bool(self.buckets)

  def fits(self, shape: tuple[int, ...]) -> bool:
    """Whether a sample may have this shape."""
    if self.ragged:
      return len(shape) > 0 and shape[1:] == self.shape[1:]
    return shape == self.shape


@dataclasses.dataclass(frozen=True)
class Spec:
  """A data set without its samples.

  Attributes:
    name: of the data set.
    modalities: {name: spec}.
    classes: names; a label is a position in them.
    sizes: {split: samples}.
  """

  name: str
  modalities: dict[str, ModalitySpec]
  classes: tuple[str, ...]
  sizes: dict[str, int]
