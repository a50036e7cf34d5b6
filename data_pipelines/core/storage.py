"""Prepared data on disk: ArrayRecord files, written whole or not at all.

``write`` builds a temporary folder and renames it at the end, so a folder with
the final name was complete once. File sizes and checksums beside the data show
whether it still is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import logging

from data_pipelines.core.fingerprint import Example, Fingerprint
from data_pipelines.core.progress import is_quiet
from data_pipelines.core.summary import FILE, PreparedSummary, damaged
from data_pipelines.disk import faults, locks
from data_pipelines.errors import DataError

# Checksums are read back for data up to this size, sizes always.
_CHECKSUM_BYTES = 64 * 2**20
_BULK_BYTES = 16 * 2**20  # records read at once
_PART = ".part-"  # temporary folders
_STALE_SECONDS = 7 * 24 * 3600


def folder_of(
  data_dir: str | os.PathLike, name: str, version: str
) -> pathlib.Path:
  """The folder of a data set's prepared data."""
  return pathlib.Path(data_dir) / name / version


def write(
  folder: pathlib.Path,
  features: Mapping[str, Any],
  examples: Mapping[str, Iterable[Example]],
  summary: PreparedSummary,
  extra: Mapping[str, str] | None = None,
) -> None:
  """Writes splits of examples, then moves them to ``folder``, atomically.

  Args:
    folder: ``<data_dir>/<name>/<version>``; damaged data there are replaced.
    features: {field: feature of tensorflow_datasets}.
    examples: {split: (key, {field: value}) pairs}; keys are unique and order is
      kept. Pictures are encoded bytes or paths.
    summary: written beside the data, with a fingerprint of the examples.
    extra: {file name: text} of further files.

  Raises:
    DataError: the folder cannot be written to.
  """
  root = folder.parent.parent
  with (
    faults.writing(root, "prepared data", "--config.data.dir"),
    _temporary(root) as part,
  ):
    taken = Fingerprint()
    passing = {s: taken.passing(s, pairs) for s, pairs in examples.items()}
    made = _write_records(part, folder, features, passing)
    fingerprint = taken.text(summary.classes)
    summary = dataclasses.replace(summary, fingerprint=fingerprint)
    for name, text in (extra or {}).items():
      (made / name).write_text(text, encoding="utf-8")
    _write_summary(made, summary)
    try:
      folder.parent.mkdir(exist_ok=True)
      if folder.exists():
        os.replace(folder, part / "replaced")
      os.replace(made, folder)
    except OSError:
      # Another process may have been faster: its data are as good.
      if problem_of(folder) is not None:
        raise


def once(
  folder: pathlib.Path, make: Callable[[], PreparedSummary]
) -> PreparedSummary:
  """Makes data, or waits while another process makes the same.

  Args:
    folder: of the prepared data.
    make: writes them there.

  Returns:
    What ``make`` returns, or what is there if it was not called.
  """
  lock = folder.parent / f".{folder.name}.lock"
  with locks.waiting(lock, lambda: _say(folder)):
    if problem_of(folder) is None:
      return PreparedSummary.read(folder)
    return make()


def _say(folder: pathlib.Path) -> None:
  if not is_quiet():
    sys.stderr.write(f"another process is preparing {folder}: waiting for it\n")


def find(data_dir: str | os.PathLike, fingerprint: str) -> pathlib.Path | None:
  """The folder of prepared data with a fingerprint."""
  for path in sorted(pathlib.Path(data_dir).glob(f"*/*/{FILE}")):
    try:
      stored = json.loads(path.read_text(encoding="utf-8"))
      if stored["fingerprint"] == fingerprint:
        return path.parent
    except (OSError, ValueError, KeyError, TypeError):
      continue  # Damaged data, which their own run reports.
  return None


def problem_of(folder: pathlib.Path) -> str | None:
  """What is wrong with the data in ``folder``; ``None`` if they are intact."""
  try:
    stored = json.loads((folder / FILE).read_text(encoding="utf-8"))
    files = stored["files"]
    total = sum(size for size, _ in files.values())
    for name, (size, checksum) in files.items():
      path = folder / name
      if not path.is_file():
        return f"{name} is missing"
      if path.stat().st_size != size:
        return f"{name} has {path.stat().st_size} bytes instead of {size}"
      if total <= _CHECKSUM_BYTES and _checksum(path) != checksum:
        return f"{name} has changed"
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    return f"{FILE}: {error}"
  return None


def check(folder: pathlib.Path) -> None:
  """Raises ``DataError`` if the data in ``folder`` are damaged."""
  problem = problem_of(folder)
  if problem is not None:
    raise DataError(damaged(folder, problem))


def read(
  folder: pathlib.Path, split: str, undecoded: Sequence[str] = ()
) -> Records:
  """The records of a split, in the order written.

  Fields in ``undecoded`` stay as stored, e.g. the encoded bytes of a picture.
  """
  column = functools.partial(_source, folder, split, ())
  return Records(folder, _source(folder, split, undecoded), column)


def read_fields(folder: pathlib.Path, split: str) -> Fields:
  """The records of a split whose fields are texts, or arrays kept as bytes."""
  return Fields(folder, _source(folder, split).data_source)


def _source(
  folder: pathlib.Path,
  split: str,
  undecoded: Sequence[str] = (),
  only: str = "",
) -> Any:
  """The records of a split; with ``only``, decoded in that field alone."""
  import tensorflow_datasets as tfds

  try:
    with _quiet(tfds):
      builder: Any = tfds.builder_from_directory(folder)
      source = builder.as_data_source
      if only:
        undecoded = [field for field in builder.info.features if field != only]
      decoders = {field: tfds.decode.SkipDecoding() for field in undecoded}
      return source(split=split, decoders=decoders)
  except (RuntimeError, ValueError, OSError) as error:
    raise DataError(damaged(folder, str(error))) from error


class Records:
  """Random access to stored records; errors name the folder."""

  def __init__(
    self,
    folder: pathlib.Path,
    source: Sequence[dict[str, Any]],
    alone: Callable[[str], Sequence[dict[str, Any]]] | None = None,
  ):
    """``alone`` gives the records with a single field decoded."""
    self._folder, self._source, self._alone = folder, source, alone

  def __len__(self) -> int:
    return len(self._source)

  def __iter__(self) -> Iterator[dict[str, Any]]:
    return (self[i] for i in range(len(self)))

  def column(self, field: str) -> Iterator[Any]:
    """One field of every record; the others are not decoded."""
    source = self._source if self._alone is None else self._alone(field)
    return (record[field] for record in Records(self._folder, source))

  def __getitem__(self, index: int, /) -> dict[str, Any]:
    try:
      return self._source[index]
    except (RuntimeError, ValueError, OSError) as error:
      message = damaged(self._folder, f"record {index}: {error}")
      raise DataError(message) from error


class Fields:
  """Random access to records as {field: bytes}, many at once when iterated."""

  def __init__(self, folder: pathlib.Path, source: Any):
    self._folder, self._source = folder, source

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int, /) -> dict[str, bytes]:
    return self._some([index])[0]

  def __iter__(self) -> Iterator[dict[str, bytes]]:
    start = 0
    while start < len(self):
      first = self._some([start])
      yield from first
      bulk = sum(map(len, first[0].values())) + 1
      stop = min(start + 1 + _BULK_BYTES // bulk, len(self))
      yield from self._some(range(start + 1, stop))
      start = stop

  def column(self, field: str) -> Iterator[bytes]:
    """One field of every record."""
    return (record[field] for record in self)

  def _some(self, indices: Sequence[int]) -> list[dict[str, bytes]]:
    from tensorflow_datasets.proto import tf_example_pb2

    if not indices:
      return []
    messages: Any = tf_example_pb2
    parse = messages.Example.FromString
    try:
      return [
        {
          name: field.bytes_list.value[0]
          for name, field in parse(raw).features.feature.items()
        }
        for raw in self._source.__getitems__(indices)
      ]
    # The parser's own errors are of a class that it does not show.
    except Exception as error:
      first = f"records from {indices[0]} on: {error}"
      raise DataError(damaged(self._folder, first)) from error


def _write_records(
  part: pathlib.Path,
  folder: pathlib.Path,
  features: Mapping[str, Any],
  examples: Mapping[str, Iterable[Example]],
) -> pathlib.Path:
  """Writes examples as they come: no split has to fit into memory."""
  import tensorflow_datasets as tfds

  made = part / folder.parent.name / folder.name
  made.mkdir(parents=True)
  identity = tfds.core.DatasetIdentity(
    name=folder.parent.name,
    version=tfds.core.Version(folder.name),
    data_dir=os.fspath(made),
    module_name=__name__,
  )
  with _quiet(tfds):
    info = tfds.core.DatasetInfo(
      builder=identity,
      features=tfds.features.FeaturesDict(dict(features)),
      disable_shuffling=True,
    )
    # One file a split; how large it gets is not known before.
    writer = tfds.core.SequentialWriter(
      info, sys.maxsize, file_format="array_record"
    )
    writer.initialize_splits(list(examples))
    for split, pairs in examples.items():
      rows: Any = (fields for _, fields in pairs)
      writer.add_examples({split: rows})
      writer.close_splits([split])
  return made


@contextlib.contextmanager
def _quiet(tfds) -> Iterator[None]:
  """No progress bars, and no messages about downloads that never happen."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(min(verbosity, logging.WARNING))
  tfds.display_progress_bar(False)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.display_progress_bar(True)
    logging.set_verbosity(verbosity)


def _write_summary(folder: pathlib.Path, summary: PreparedSummary) -> None:
  files = {
    path.relative_to(folder).as_posix(): (path.stat().st_size, _checksum(path))
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }
  text = json.dumps({**summary.to_json(), "files": files}, indent=1)
  (folder / FILE).write_text(text, encoding="utf-8")


def _checksum(path: pathlib.Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _temporary(root: pathlib.Path) -> Iterator[pathlib.Path]:
  """A new folder in ``root``, gone afterwards."""
  root.mkdir(parents=True, exist_ok=True)
  _clear_old(root)
  part = pathlib.Path(tempfile.mkdtemp(prefix=_PART, dir=root))
  try:
    yield part
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _clear_old(root: pathlib.Path) -> None:
  """Removes what killed processes left behind, after a week."""
  for path in root.glob(f"{_PART}*"):
    with contextlib.suppress(OSError):
      if path.stat().st_mtime < time.time() - _STALE_SECONDS:
        shutil.rmtree(path, ignore_errors=True)
