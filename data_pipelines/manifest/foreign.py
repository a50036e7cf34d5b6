"""Files that are not what their ending says."""

from __future__ import annotations

import codecs
import pathlib

from data_pipelines.errors import DataError

_READ = 4096  # bytes from the beginning
_AS_CSV = "save it as CSV (UTF-8)"
_STARTS = {
  b"version https://git-lfs": "a pointer of Git LFS, not the table itself: run "
  "git lfs pull",
  codecs.BOM_UTF32_LE: "UTF-32, not UTF-8: save it as UTF-8",
  codecs.BOM_UTF32_BE: "UTF-32, not UTF-8: save it as UTF-8",
  codecs.BOM_UTF16_LE: "UTF-16, not UTF-8: save it as UTF-8",
  codecs.BOM_UTF16_BE: "UTF-16, not UTF-8: save it as UTF-8",
  b"PK\x03\x04": f"an Excel workbook or a ZIP file: {_AS_CSV}, or unpack it",
  b"\xd0\xcf\x11\xe0": f"an Excel workbook: {_AS_CSV}",
  b"\x1f\x8b": "packed by gzip: unpack it",
  b"BZh": "packed by bzip2: unpack it",
  b"\xfd7zXZ": "packed by xz: unpack it",
  b"\x28\xb5\x2f\xfd": "packed by zstd: unpack it",
  b"PAR1": "a Parquet file: call it .parquet",
  b"ARROW1": "an Arrow file: save it as Parquet",
  b"SQLite format 3": f"an SQLite database: {_AS_CSV}",
  b"\x93NUMPY": "a NumPy array: a manifest is a table with a header",
  b"%PDF": f"a PDF file: {_AS_CSV}",
}
_PAGES = (b"<!doctype html", b"<html", b"<?xml")
_TEXTS = (".csv", ".tsv", ".jsonl", ".ndjson")


def check(path: pathlib.Path) -> None:
  """Refuses a file that is none of a table's formats.

  Raises:
    DataError: it is empty, a folder, or something else; with the fix.
    OSError: it cannot be opened.
  """
  ending = path.suffix.lower()
  if path.is_dir():
    raise DataError(_folder(path))
  with path.open("rb") as file:
    start = file.read(_READ)
  for magic, what in _STARTS.items():
    if start.startswith(magic) and not (magic == b"PAR1" and _parquet(ending)):
      raise DataError(f"{path} is {what}")
  if _parquet(ending):
    return
  text = start.removeprefix(codecs.BOM_UTF8).strip()
  if not text:
    raise DataError(
      f"{path} is empty: a manifest names its columns (split, label and "
      "name:kind) and has a row a sample"
    )
  if b"\x00" in text:
    raise DataError(f"{path} is {_zeros(start)}")
  if text.lower().startswith(_PAGES):
    raise DataError(f"{path} is a web page, not a table: download it again")
  if text[:1] in (b"{", b"[") and ending in (".csv", ".tsv"):
    raise DataError(f"{path} is JSON: write one object per line into a .jsonl")


def _parquet(ending: str) -> bool:
  return ending not in _TEXTS


def _zeros(start: bytes) -> str:
  """What a text file with zero bytes is, in words."""
  if not start.strip(b"\x00"):
    return "damaged: it holds nothing but zero bytes; write it again"
  if start[::2].count(0) > len(start) // 3:
    return "UTF-16 or UTF-32, not UTF-8: save it as UTF-8"
  if start[1::2].count(0) > len(start) // 3:
    return "UTF-16 or UTF-32, not UTF-8: save it as UTF-8"
  return f"no text: it holds zero bytes; {_AS_CSV}"


def _folder(path: pathlib.Path) -> str:
  """The message for a folder in place of a file."""
  ending = path.suffix.lower()
  files = sorted(p for p in path.rglob(f"*{ending}") if p.is_file())
  if not files:
    files = sorted(p for p in path.rglob("part-*") if p.is_file())
  if not files:
    return f"{path} is a folder, not a file: name the table in it"
  if ending == ".parquet":
    return (
      f"{path} is a folder, a data set in {len(files)} parts: write it as one "
      f"file, pd.read_parquet({str(path)!r}).to_parquet('one.parquet')"
    )
  return (
    f"{path} is a folder with {len(files)} parts of a table, the first "
    f"{files[0].name}: write them as one file"
  )


def not_utf8(path: pathlib.Path) -> DataError:
  """The error for a text of another encoding, with the first bad line."""
  content = path.read_bytes()
  try:
    content.decode()
  except UnicodeDecodeError as error:
    line = content.count(b"\n", 0, error.start) + 1
    found = f"line {line} holds the byte 0x{content[error.start]:02x}"
    return DataError(
      f"{path} is not UTF-8 ({found}; Latin-1 or Windows-1252?): save it as "
      "UTF-8"
    )
  return DataError(f"{path} changed while it was read: try again")
