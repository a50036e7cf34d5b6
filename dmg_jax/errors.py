"""Every error class, and the one ``unknown``.

Those that data pipelines raise, too, are defined there; see
``data_pipelines.errors`` for the family.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data_pipelines.errors import (
  BusyError,
  DamagedError,
  DataError,
  InputError,
  ListedDataError,
  MissingFileError,
  MissingPackageError,
  UserError,
  WriteError,
  close_to,
  nearest,
  unknown,
)

__all__ = [
  "BusyError",
  "DamagedError",
  "DataError",
  "DivergedError",
  "InputError",
  "ListedDataError",
  "MissingFileError",
  "MissingPackageError",
  "NotPicklableError",
  "UnsuitableError",
  "UserError",
  "WriteError",
  "close_to",
  "memory_advice",
  "nearest",
  "one_line",
  "out_of_memory",
  "unknown",
]

_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory")
# "allocating 123 bytes", "to allocate 1.5GiB", "Unable to allocate 2. GiB".
_ASKED = re.compile(r"allocat(?:e|ing) ([\d.]+) ?([KMGT]?i?B|bytes)", re.I)
# "Used 20.5G of 15.48G hbm", as a compiler for TPUs has it.
_USED = re.compile(r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT])")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# {field: value that takes less memory}
_LESS = {
  "remat": "true",
  "precision": "bf16",
  "sharding": "fsdp",
  "loader.resident": "off",
}


class UnsuitableError(InputError):
  """A method that does not work with such data, whatever else is configured."""


class NotPicklableError(UserError, TypeError):
  """Something that pickle cannot keep; the message says what does."""


class DivergedError(UserError, RuntimeError):
  """A loss term or the weights became NaN or infinite.

  Attributes:
    workdir: the run's folder, if it has one.
  """

  def __init__(self, text: str, workdir: Path | None = None):
    super().__init__(text)
    self.workdir = workdir


def out_of_memory(error: BaseException) -> bool:
  """Whether a device, or the host, ran out of memory."""
  if isinstance(error, MemoryError):
    return True
  return type(error).__name__ == "JaxRuntimeError" and any(
    word in str(error) for word in _MEMORY
  )


def memory_asked(error: BaseException) -> tuple[float, float | None]:
  """Bytes that were asked for, 0 if not known, and those there are, if said."""
  text = str(error)
  if used := _USED.search(text):
    asked, unit, there, of = used.groups()
    return float(asked) * _UNITS[unit], float(there) * _UNITS[of]
  found = _ASKED.search(text)
  if found is None:
    return 0.0, None
  size, unit = found.groups()
  scale = "" if unit.lower() == "bytes" else unit[0].upper().replace("B", "")
  return float(size.rstrip(".")) * _UNITS[scale], None


def memory_free() -> float | None:
  """Bytes that the first device has left, ``None`` if it does not say."""
  import jax

  stats = jax.local_devices()[0].memory_stats() or {}
  if "bytes_limit" not in stats:
    return None
  return max(stats["bytes_limit"] - stats.get("bytes_in_use", 0), 0)


def memory_advice(
  error: BaseException, config: Any = None, free: float | None = None
) -> str:
  """What to lower and by how much, in a line.

  The memory of a step grows with its batch, so that the share of what was asked
  for that is free is the share of the batch that fits.

  Args:
    error: for which ``out_of_memory``.
    config: of the run, if there is one.
    free: bytes that are free; by default what the message or device says.
  """
  asked, there = memory_asked(error)
  free = there if free is None else free
  free = memory_free() if free is None else free
  parts, said = 2, ""
  if asked and free is not None:
    parts = 1
    while parts * free < asked and parts < 1024:
      parts *= 2
    parts = max(parts, 2)
    said = f" ({_size(asked)} asked for, {_size(free)} free)"
  whole = _field(config, "train.batch_size")
  size = max(whole // parts, 1) if whole else 16
  by = f" from {whole} to {size}" if whole else ""
  divided = parts * (_field(config, "train.accumulate") or 1)
  less = " ".join(
    f"--config.{name}={value}"
    for name, value in _LESS.items()
    if str(_field(config, name)).lower() != value
  )
  return (
    f"out of memory{said}: lower batch_size{by} (after the recipe, as in "
    f"lb,batch_size={size}; the batches for α and for evaluation follow), or "
    f"keep it in parts, --config.train.accumulate={divided}; less is taken by "
    f"{less or 'nothing else'} and smaller inputs, e.g. "
    "--config.data.image_size (docs/howto/memory.md)"
  )


def _field(config: Any, path: str) -> Any:
  """A field of a config, ``None`` if it has none; tables have no batch."""
  for name in path.split("."):
    config = None if config is None else config.get(name)
  return config


def _size(count: float) -> str:
  unit = [u for u, size in _UNITS.items() if count >= size or not u][-1]
  return f"{count / _UNITS[unit]:.3g} {unit + 'iB' if unit else 'bytes'}"


def one_line(error: BaseException) -> str:
  """The message of an error without line breaks; its type if it has none."""
  return " ".join(str(error).split()) or type(error).__name__
