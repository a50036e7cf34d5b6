"""The formats of a manifest: CSV, TSV, JSON lines and Parquet."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.errors import DataError, InputError, MissingPackageError
from data_pipelines.manifest import delimited, foreign
from data_pipelines.manifest.cells import shown
from data_pipelines.manifest.delimited import Raw
from data_pipelines.manifest.faults import Fault

_LINES = "pd.read_json({!r}).to_json({!r}, orient='records', lines=True)"
_SHOWN = 40


def read(path: pathlib.Path, is_used: Callable[[str], bool], field: str) -> Raw:
  """Reads a table; the file's ending is its format.

  Args:
    path: of the table.
    is_used: whether a column is of any use; others may hold anything.
    field: the config field that names the table.

  Raises:
    DataError: no such file, or not a table.
    ModuleNotFoundError: a Parquet file without pyarrow.
  """
  known = ", ".join(_READERS)
  if path.suffix.lower() not in _READERS:
    raise DataError(f"{path}: the name of a manifest ends in one of {known}")
  try:
    foreign.check(path)
    return _READERS[path.suffix.lower()](path, is_used)
  except FileNotFoundError as error:
    raise DataError(
      f"no manifest {path}: name one with --config.{field} ({known})"
    ) from error
  except UnicodeDecodeError as error:
    raise foreign.not_utf8(path) from error
  except OSError as error:
    raise DataError(f"{path} cannot be read: {error.strerror}") from error


def _delimited(path: pathlib.Path, is_used: Callable[[str], bool]) -> Raw:
  del is_used  # Cells are texts, whatever they stand for.
  return delimited.read(path)


def _json_lines(path: pathlib.Path, is_used: Callable[[str], bool]) -> Raw:
  """JSON lines, with or without a byte order mark.

  Raises:
    DataError: it is JSON of another form.
  """
  rows: list[dict[str, Any] | None] = []
  problems: list[Fault] = []
  header: dict[str, None] = {}
  with path.open(encoding="utf-8-sig") as file:
    for line in file:
      row: dict[str, Any] = {}
      text = line.strip().lstrip("\ufeff")
      try:
        row = _object(text) if text else {}
      except ValueError as error:
        problems.append(Fault(len(rows) + 1, "", str(error)))
      header |= dict.fromkeys(row := {k.strip(): v for k, v in row.items()})
      filled = any(v is not None and v != "" for v in row.values())
      rows.append(row if filled else None)
  found = [row for row in rows if row]
  if not found or _is_table(found, is_used) or _starts_as_list(path):
    _check_form(path, found)
  return Raw(tuple(header), rows, problems, [])


def _object(text: str) -> dict[str, Any]:
  """The object of a line.

  Raises:
    ValueError: it holds something else.
  """
  try:
    value = json.loads(text)
  except json.JSONDecodeError as error:
    after = text[error.pos :].lstrip()
    if error.msg == "Extra data" and after.startswith(","):
      reason = "a comma follows the object: leave it out"
    else:
      reason = f"{error.msg} at character {error.pos + 1}"
    raise InputError(f"the line is no JSON object: {reason}") from error
  except RecursionError:
    raise InputError("the line is no JSON object: too many brackets") from None
  if not isinstance(value, dict):
    raise InputError(f"the line is no JSON object: {shown(value)}")
  return value


def _is_table(
  found: list[dict[str, Any]], is_used: Callable[[str], bool]
) -> bool:
  """Whether the only object holds columns, not cells."""
  values = [v for row in found[:2] for k, v in row.items() if is_used(k)]
  return len(found) == 1 and all(isinstance(v, dict | list) for v in values)


def _starts_as_list(path: pathlib.Path) -> bool:
  with path.open(encoding="utf-8-sig") as file:
    return file.read(4096).lstrip()[:1] == "["


def _check_form(path: pathlib.Path, found: list[dict[str, Any]]) -> None:
  """Raises ``DataError`` for one array, one object, and what is no JSON."""
  text = path.read_text(encoding="utf-8-sig").strip()
  fix = _LINES.format(path.name, f"{path.stem}.jsonl")
  fix = f"write one object per line, as {fix} does"
  try:
    value = json.loads(text)
  except (ValueError, RecursionError):
    value = None
  if isinstance(value, list):
    raise DataError(f"{path} is one JSON array of {len(value)} entries: {fix}")
  if isinstance(value, dict) and value:
    raise DataError(
      f"{path} is one JSON object: write one object per line, each a row (in "
      "pandas, to_json with orient='records' and lines=True)"
    )
  if text[:1] == "[" and not text.startswith("[]"):
    raise DataError(f"{path} begins as a JSON array: {fix}")
  if text[:1] not in ("{", "[") and not found:
    first = shown(text.splitlines()[0])
    raise DataError(
      f"{path} holds no JSON, its first line is {first}: if it is a CSV file, "
      "let its name end in .csv"
    )
  if not found:
    raise DataError(
      f"{path}: no line is a JSON object with values; write each object, a "
      "row, on one line"
    )


def _parquet(path: pathlib.Path, is_used: Callable[[str], bool]) -> Raw:
  """Parquet; only columns of use are read.

  Raises:
    DataError: it is no Parquet file, or a column of use cannot be read.
    ModuleNotFoundError: pyarrow is missing.
  """
  try:
    from pyarrow import ArrowException, parquet
  except ModuleNotFoundError as error:
    raise MissingPackageError(
      f"a Parquet manifest needs pyarrow ({error}): pip install -e '.[parquet]'"
    ) from error
  try:
    with path.open("rb") as file:
      source = parquet.ParquetFile(file)
      names = source.schema_arrow.names
      used = [name for name in names if is_used(name.strip())]
      table = source.read(columns=used)
  except ArrowException as error:
    raise DataError(f"{path} is no Parquet file: {error}") from error
  header = tuple(name.strip() for name in names)
  read_in = [name.strip() for name in table.column_names]
  columns = [
    _values(path, name, column)
    for name, column in zip(read_in, table.columns, strict=True)
  ]
  rows: list[dict[str, Any] | None] = []
  for values in zip(*columns, strict=True):
    filled = len(used) < len(names) or any(
      v is not None and v != "" for v in values
    )
    rows.append(dict(zip(read_in, values, strict=True)) if filled else None)
  return Raw(header, rows, [], [])


def _values(path: pathlib.Path, name: str, column: Any) -> list[Any]:
  """The cells of a column of Parquet.

  Raises:
    DataError: Python has no such values.
  """
  try:
    values = column.to_pylist()
  # Dates that Python does not have, unknown time zones, and the like.
  except Exception as error:
    raise DataError(
      f"{path}, column {name!r} of type {column.type} cannot be read: {error}"
    ) from error
  if str(column.type) in ("float", "halffloat"):
    # With as many digits as the type has.
    exact = np.float32 if str(column.type) == "float" else np.float16
    return [None if v is None else exact(v) for v in values]
  return values


_READERS: dict[str, Callable[[pathlib.Path, Callable[[str], bool]], Raw]] = {
  ".csv": _delimited,
  ".tsv": _delimited,
  ".jsonl": _json_lines,
  ".ndjson": _json_lines,
  ".parquet": _parquet,
}
