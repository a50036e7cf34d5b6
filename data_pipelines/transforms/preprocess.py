"""The one way from a user's cell to the array that the model sees.

Preparation, prediction and serving all use a ``Preprocessor``. Its settings are
a dictionary of JSON types (``Dataset.preprocessing[modality]``), stored beside
prepared data and in ``predictor.json``. Keys by kind:

==========  ===================================================================
image       size; fit: ``pad`` (into a white square) or ``squash``; stored: side
            of the JPEG that prepared data hold, 0 if they hold pixels
video       size, frames; of_clip: squashed, held as JPEGs of side stored
audio       sample_rate, length (samples), nperseg, noverlap; of_clip: held as
            16-bit numbers, cut to length
waveform    sample_rate, length (samples)
text        length; words (the vocabulary, numbered from 2) or tokenizer (its
            name)
array       mean, scale: nested lists, or null where nothing is standardised;
            ragged: they are those of each feature d of sequences [t d]
==========  ===================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from data_pipelines import core
from data_pipelines.errors import InputError, UserError, reason
from data_pipelines.transforms import kinds
from data_pipelines.transforms.files import signatures

Settings = Mapping[str, Any]
T = TypeVar("T")


class Preprocessor:
  """The preprocessing of one modality.

  Attributes:
    spec: of the array that the model sees.
    settings: see the module.
    step: what does the work, see ``kinds``.
  """

  def __init__(self, spec: core.ModalitySpec, settings: Settings):
    """Reads the tokenizer, if there is one.

    Raises:
      core.DataError: there is no such tokenizer.
    """
    self.spec, self.settings = spec, dict(settings)
    self.step = kinds.step(spec.kind, settings)

  def store(self, value: Any) -> Any:
    """The stored form of a file, a text or a value.

    Raises:
      ValueError, OSError: the value cannot be used.
    """
    return self.step.pack(self.step.read(value))

  def decode(self, stored: Any) -> np.ndarray:
    """The array that the model sees in evaluation, from the stored form."""
    return np.asarray(self.step.decode(stored))

  def __call__(self, value: Any) -> np.ndarray:
    """``decode(store(value))``, checked.

    Args:
      value: path of a file; or a text; or what a file would hold: a picture
        (uint8 [h w 3] or [h w], or of PIL), frames uint8 [t h w 3], a wave
        [samples] at the run's sample rate, numbers.

    Raises:
      ValueError: the value cannot be used; the message names it.
      ModuleNotFoundError: a package of the extra ``video`` is missing.
    """
    made = using(self.spec.kind, self.step, value, self._made)
    if not self.spec.fits(made.shape):
      raise InputError(
        f"{name_of(self.spec.kind, value)} makes an array of shape "
        f"{made.shape}, the run's have {shown_shape(self.spec)}"
      )
    return made.astype(self.spec.dtype)

  def _made(self, value: Any) -> np.ndarray:
    return self.decode(self.store(value))

  @classmethod
  def from_json(
    cls, stored: Mapping[str, Any], optional: bool = False
  ) -> Preprocessor:
    """The preprocessor that ``describe`` described.

    Args:
      stored: as described.
      optional: whether samples may lack the modality.
    """
    if stored["preprocessing"] is None:
      raise InputError("how new samples are preprocessed is not known")
    fields = [stored[k] for k in ("kind", "shape", "dtype", "vocab_size")]
    buckets = stored.get("buckets", ())
    spec = core.ModalitySpec(*fields, optional=optional, buckets=buckets)
    return cls(spec, stored["preprocessing"])


def using(
  kind: str,
  step: Any,
  value: Any,
  make: Callable[[Any], T],
  name: str = "",
) -> T:
  """``make(value)``; any fault of the value becomes a ``ValueError``.

  Args:
    kind: of the modality.
    step: its preprocessing.
    value: a path, a text, or what a file would hold.
    make: of ``step``.
    name: of the value, for messages.

  Raises:
    ValueError: the value cannot be used; the message names it.
    ModuleNotFoundError: a package of the extra ``video`` is missing.
  """
  name = name or name_of(kind, value)
  there = os.path.exists if hasattr(step, "folders") else os.path.isfile
  if _is_path(kind, value) and not there(value):
    raise InputError(f"{name}: there is no such file")
  try:
    return make(value)
  except (ImportError, MemoryError):
    raise
  # A decoder may raise anything about a damaged file.
  except Exception as error:
    known = error
    if _is_path(kind, value) and not isinstance(error, UserError):
      known = signatures.unreadable(kind, value, reason(error))
    raise InputError(
      f"{name} cannot be used as {kind}: {reason(known)}"
    ) from error


def name_of(kind: str, value: Any) -> str:
  """A path, or ``this ndarray``."""
  if _is_path(kind, value):
    return os.fspath(value)
  return f"this {type(value).__name__}"


def _is_path(kind: str, value: Any) -> bool:
  return kind != "text" and isinstance(value, str | os.PathLike)


def shown_shape(spec: core.ModalitySpec) -> str:
  """The shape of a sample; ``(t, 3)`` if t differs."""
  if not spec.ragged:
    return str(spec.shape)
  return f"({', '.join(['t', *map(str, spec.shape[1:])])})"


def describe(
  spec: core.ModalitySpec, settings: Settings | None
) -> dict[str, Any]:
  """A modality in JSON's types; ``settings`` are ``None`` if not known."""
  made = {
    "kind": spec.kind,
    "shape": list(spec.shape),
    "dtype": str(spec.dtype),
    "vocab_size": spec.vocab_size,
    "preprocessing": None if settings is None else dict(settings),
  }
  return {**made, "buckets": list(spec.buckets)} if spec.ragged else made


def of(dataset: core.Dataset) -> dict[str, Preprocessor]:
  """{modality: preprocessor} of a data set.

  Raises:
    ValueError: the data set does not say how new samples are preprocessed.
  """
  missing = [
    m for m in dataset.spec.modalities if m not in dataset.preprocessing
  ]
  if missing:
    raise InputError(
      f"data set {dataset.spec.name!r} does not say how new samples are "
      f"preprocessed ({', '.join(missing)}): put them into its own splits, or "
      "train on a manifest (configs/manifest.py)"
    )
  return {
    m: Preprocessor(spec, dataset.preprocessing[m])
    for m, spec in dataset.spec.modalities.items()
  }
