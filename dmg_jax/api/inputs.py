"""Data in memory as columns of a manifest: kinds, lengths, labels.

Data are a pandas DataFrame or a dictionary {name: one entry per sample}. The
columns ``split``, ``label`` and ``id`` mean what they mean in a manifest. Any
other is a modality, called ``name:kind``; where the kind is left out it follows
from the entries:

=================================================  =======
uint8 [h w], [h w 1] or [h w 3]; PIL's pictures    image
uint8 [t h w 3]                                    video
other numbers, of any shape                        array
strings                                            text
strings that all name existing files; ``Path``     by the files' endings
=================================================  =======

A DataFrame without any ``name:kind`` whose columns are all single numbers is
one modality: an array called ``x``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.core import KINDS
from data_pipelines.manifest.cells import is_empty
from dmg_jax.errors import InputError

OTHERS = ("split", "label", "id")
TABLE = "x"  # What a plain table of numbers is called.

_ENDINGS = {
  "image": "bmp gif jpeg jpg png tif tiff webp",
  "audio": "aac aif aiff au caf flac m4a mka mp3 oga ogg opus wav wma",
  "video": "3gp avi flv m4v mkv mov mp4 mpeg mpg ts webm wmv",
  "array": "npy",
}
_BY_ENDING = {f".{e}": k for k, ends in _ENDINGS.items() for e in ends.split()}
# A column is a list or an array.
Column = Any
Columns = dict[str, Column]


class Modalities:
  """Samples of several modalities that scikit-learn can take rows of.

  A plain dictionary is enough for ``fit`` and ``predict``. Functions that split
  the samples (``cross_val_score``, ``GridSearchCV``, ``train_test_split``) need
  to know how many there are and to pick some: wrap the dictionary then.

  Args:
    columns: {modality or "name:kind": one entry per sample}.

  Raises:
    ValueError: the entries differ in number.

  Example:

    >>> import dmg_jax, numpy as np
    >>> x = dmg_jax.Modalities({"sensor": np.eye(4), "note": list("abcd")})
    >>> len(x), x.shape
    (4, (4, 2))
    >>> x[[0, 3]]["note"]
    ['a', 'd']
  """

  def __init__(self, columns: Mapping[str, Any]):
    self._columns = {str(k): _sequence(k, v) for k, v in columns.items()}
    check_lengths(self._columns)

  @property
  def shape(self) -> tuple[int, int]:
    """Numbers of samples and of modalities."""
    first = next(iter(self._columns.values()), ())
    return len(first), len(self._columns)

  def __len__(self) -> int:
    return self.shape[0]

  def keys(self) -> Iterator[str]:
    """Names of the modalities."""
    return iter(self._columns)

  def __getitem__(self, rows: Any) -> Any:
    """A modality by its name; or the samples of an index, mask or slice."""
    if isinstance(rows, str):
      return self._columns[rows]
    if isinstance(rows, tuple):  # scikit-learn asks for [rows, ...].
      rows = rows[0]
    chosen = np.arange(len(self))[rows]
    return Modalities({k: _take(v, chosen) for k, v in self._columns.items()})

  def __repr__(self) -> str:
    return f"Modalities of {len(self)} samples: {', '.join(self._columns)}"


def is_frame(data: Any) -> bool:
  """Whether it is a DataFrame, without loading pandas."""
  return hasattr(data, "columns") and hasattr(data, "iloc")


def columns(data: Any) -> Columns:
  """The columns of a DataFrame, dictionary or ``Modalities``, as they are.

  Raises:
    ValueError: it is none of them, or the entries differ in number.
  """
  _check_dense("data", data)
  if not is_frame(data) and not hasattr(data, "keys"):
    raise InputError(
      "data must be the path of a manifest, a DataFrame or a dictionary "
      f"{{modality: one entry per sample}}, got {type(data).__name__}"
    )
  if is_frame(data):
    repeated = [str(c) for c in data.columns[data.columns.duplicated()]]
    if repeated:
      raise InputError(f"column {repeated[0]!r} occurs twice")
  found = {str(k): _sequence(k, data[k]) for k in _names(data)}
  check_lengths(found)
  return _as_table(found) if is_frame(data) else found


def with_kinds(found: Mapping[str, Column]) -> Columns:
  """The columns of modalities called ``name:kind``, the others as they are.

  Raises:
    ValueError: a kind that does not follow from the entries.
  """
  made: Columns = {}
  for name, cells in found.items():
    if name in OTHERS:
      made[name] = cells
      continue
    header = name if ":" in name else f"{name}:{infer(name, cells)}"
    made[header] = entries(header.rpartition(":")[2].strip(), cells)
  return made


def table(data: Any, y: Any = None) -> Columns:
  """The columns of a manifest, labels among them.

  Args:
    data: as ``columns``.
    y: the labels, if the data have no column of them.

  Raises:
    ValueError: as ``columns``, ``with_kinds`` and ``labels``; or labels are
      given twice or not at all.
  """
  found = columns(data)
  if y is None and "label" not in found:
    raise InputError("there are no labels: give y, or a column 'label'")
  if y is not None and "label" in found:
    raise InputError(
      "labels are given twice, as y and as column 'label': drop one of them"
    )
  found["label"] = labels(found["label"] if y is None else y)
  check_lengths(found)
  return with_kinds(found)


def new_samples(data: Any, modalities: Mapping[str, str]) -> Columns:
  """{modality, ``id`` or ``label``: entries} of samples for a run.

  Args:
    data: as ``columns``.
    modalities: {name: kind} of the run.

  Raises:
    ValueError: as ``columns``; or a modality is given as of another kind.
  """
  made: Columns = {}
  for header, cells in columns(data).items():
    name, colon, kind = (part.strip() for part in header.rpartition(":"))
    name = name if colon else kind
    if header == "split":
      continue
    if header in OTHERS:
      made[header] = cells
    elif name in modalities or not is_frame(data):
      if colon and modalities.get(name, kind) != kind:
        raise InputError(
          f"the run's modality {name!r} is {modalities[name]}, got {header!r}"
        )
      made[name] = entries(modalities.get(name, ""), cells)
  return made


def check_lengths(found: Mapping[str, Column]) -> None:
  """All columns have an entry for each sample.

  Raises:
    ValueError: they do not, with their lengths.
  """
  lengths = {name: len(cells) for name, cells in found.items()}
  if len(set(lengths.values())) > 1:
    shown = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
    raise InputError(f"all columns must have as many rows: {shown}")


def labels(y: Any) -> list[str | int | None]:
  """Classes as a manifest has them: texts and whole numbers, or ``None``.

  ``0.5`` and ``True`` become texts, ``1.0`` a whole number; ``None`` stands
  where a label is missing.

  Raises:
    ValueError: not one label per sample, or one that is neither.
  """
  if getattr(y, "ndim", 1) != 1:
    raise InputError(
      "labels must be one per sample, [n]; got an array of shape "
      f"{tuple(y.shape)}"
    )
  return [_label(i, value) for i, value in enumerate(_sequence("label", y))]


def _label(i: int, value: Any) -> str | int | None:
  plain = value.item() if isinstance(value, np.generic) else value
  if missing(plain):
    return None
  if isinstance(plain, float) and plain.is_integer():
    return int(plain)
  if isinstance(plain, bool | float):
    return str(value)
  if isinstance(plain, str | int):
    return plain
  raise InputError(
    f"label {i} is {value!r}, neither a text nor a number: classes are named "
    "by one of these"
  )


def infer(name: str, cells: Column) -> str:
  """The kind that follows from the entries.

  Raises:
    ValueError: none or several kinds do; the message asks for ``name:kind``.
  """
  filled = [cell for cell in cells if not is_empty(cell)]
  found = {_guess(cell) for cell in filled}
  if found == {"path"}:
    suffixes = {Path(cell).suffix.lower() for cell in filled}
    found = {
      _BY_ENDING.get(s, f"files {s or 'without ending'}") for s in suffixes
    }
  if len(found) == 1 and (kind := next(iter(found))) in KINDS:
    return kind
  what = " and ".join(sorted(found)) or "nothing"
  raise InputError(
    f"the kind of {name!r} does not follow from its entries ({what}): call it "
    f"'{name}:KIND', with one of {', '.join(KINDS)}"
  )


def entries(kind: str, cells: Column) -> Column:
  """Cells as preprocessing takes them: RGB pictures, arrays of one axis.

  Empty ones are ``None``.
  """
  make = {"image": _rgb, "array": _axis}.get(kind)
  if make is None:
    return cells
  return [None if is_empty(cell) else make(cell) for cell in cells]


def missing(value: Any) -> bool:
  """Whether an entry is absent: None, NaN or pandas' NA."""
  if value is None or type(value).__name__ in ("NAType", "NaTType"):
    return True
  return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _guess(cell: Any) -> str:
  """The kind of one entry; ``path`` of a file's, else what it is in words."""
  if isinstance(cell, Image.Image):
    return "image"
  if isinstance(cell, os.PathLike):
    return "path"
  if isinstance(cell, str):
    return "path" if _is_file(cell) else "text"
  array = np.asarray(cell)
  if array.dtype.kind not in "fiub":
    return type(cell).__name__
  if array.dtype != np.uint8 or array.ndim < 2:
    return "array"
  channels = array.shape[-1]
  if array.ndim == 2 or (array.ndim == 3 and channels in (1, 3)):
    return "image"
  if array.ndim == 4 and channels == 3:
    return "video"
  return f"uint8 of shape {array.shape}"


def _is_file(text: str) -> bool:
  try:
    return Path(text).is_file()
  except (OSError, ValueError):  # Too long for a name, or a zero byte.
    return False


def _rgb(cell: Any) -> Any:
  """Grey arrays with three channels; paths and PIL's pictures stay."""
  if isinstance(cell, Image.Image):
    return cell
  if hasattr(cell, "__array__"):
    array = np.asarray(cell)
    array = array[..., None] if array.ndim == 2 else array
    return np.repeat(array, 3, axis=-1) if array.shape[-1:] == (1,) else array
  return cell


def _axis(cell: Any) -> Any:
  """A single number as an array of one."""
  if isinstance(cell, str | os.PathLike):
    return cell
  array = np.asarray(cell)
  return array[None] if array.ndim == 0 else array


def _names(data: Any) -> list[Any]:
  return list(data.columns) if is_frame(data) else list(data.keys())


def _sequence(name: Any, values: Any) -> Column:
  """A list or array of the entries.

  Raises:
    ValueError: it is no sequence.
  """
  _check_dense(name, values)
  if hasattr(values, "to_numpy"):  # A Series; categories become their values.
    values = values.to_numpy()
  elif hasattr(values, "__array__") and not isinstance(values, Image.Image):
    values = np.asarray(values)
  if isinstance(values, str | bytes | os.PathLike) or not hasattr(
    values, "__getitem__"
  ):
    raise InputError(f"{name} must be a list with one entry per sample")
  if getattr(values, "ndim", 1) == 0:
    raise InputError(f"{name} must be a list with one entry per sample")
  return values


def _check_dense(name: Any, values: Any) -> None:
  if hasattr(values, "tocsr"):
    raise InputError(
      f"{name}: sparse matrices are not supported; pass its toarray()"
    )


def _take(values: Column, rows: np.ndarray) -> Column:
  if isinstance(values, np.ndarray):
    return values[rows]
  return [values[i] for i in np.atleast_1d(rows)]


def _as_table(found: Columns) -> Columns:
  """A frame of nothing but single numbers is one modality."""
  names = [n for n in found if n not in OTHERS]
  numbers = [
    ":" not in n and getattr(found[n], "dtype", np.dtype("O")).kind in "fiub"
    for n in names
  ]
  if not names or not all(numbers):
    return found
  table = np.stack([np.asarray(found[n], float) for n in names], axis=-1)
  return {**{n: v for n, v in found.items() if n in OTHERS}, TABLE: table}
