"""From a raw download to examples: in parallel, resumable, nothing lost.

Worker processes decode each sample's media once. Results are kept as work files
until the data set is complete, so an interrupted ``prepare`` resumes where it
stopped. Samples that are missing, cannot be decoded or are left out on purpose
are listed in ``problems.csv`` beside the data.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import csv
import dataclasses
import hashlib
import io
import multiprocessing
import os
import pathlib
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from data_pipelines.core.progress import progress
from data_pipelines.disk import faults
from data_pipelines.errors import DataError, InputError, reason

FILE = "problems.csv"
MISSING, UNDECODABLE, SKIPPED = "missing", "cannot be decoded", "skipped"
TWICE = "found twice, and kept once"

Fields = Mapping[str, np.ndarray]
T = TypeVar("T")


class Skip(Exception):  # noqa: N818
  """Raised for a sample that is left out.

  Args:
    text: why.
    sample: its id, where the catcher does not know it.
  """

  def __init__(self, text: str, sample: str = ""):
    super().__init__(text)
    self.sample = sample


@dataclasses.dataclass(frozen=True)
class Defect:
  """Why a sample is not among the prepared data, or not in full.

  Attributes:
    sample: its id; for a line or file without one, its place or name.
    kind: ``MISSING``, ``UNDECODABLE``, ``SKIPPED`` or ``TWICE``.
    reason: one sentence that names file or value.
  """

  sample: str
  kind: str
  reason: str


def summary(
  problems: Sequence[Defect], file: str | os.PathLike = FILE
) -> list[str]:
  """One sentence a kind: how many, the first, and where all are listed."""
  kinds = collections.defaultdict(list)
  for problem in problems:
    kinds[problem.kind].append(problem)
  return [
    f"{len(found)} samples {kind}, the first: {found[0].reason} "
    f"(all are listed in {os.fspath(file)})"
    for kind, found in kinds.items()
  ]


def table(problems: Sequence[Defect]) -> str:
  """All problems as CSV, with a header."""
  file = io.StringIO()
  rows = csv.writer(file, lineterminator="\n")
  rows.writerow(("sample", "kind", "reason"))
  rows.writerows((p.sample, p.kind, p.reason) for p in problems)
  return file.getvalue()


@contextlib.contextmanager
def named(path: str | os.PathLike) -> Iterator[None]:
  """Puts a file's name before its decoder's error message.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: any other error inside, except for missing packages and memory.
  """
  name = os.fspath(path)
  if not os.path.exists(name):
    raise FileNotFoundError(2, "missing", name)
  try:
    yield
  except (ImportError, MemoryError, FileNotFoundError):
    raise
  # A decoder may raise anything about a damaged file.
  except Exception as error:
    text = reason(error).replace(f" {name!r}", "")
    raise InputError(f"{name}: {text}") from error


@dataclasses.dataclass(frozen=True)
class Decoding(Generic[T]):
  """Decodes the media of samples, at most once each.

  Attributes:
    make: sample -> {field: array}; runs in a worker process, so a function of
      a module or a ``functools.partial`` of one. ``FileNotFoundError`` means
      that a file is missing, ``Skip`` that the sample is left out, any other
      ``Exception`` that a file cannot be decoded.
    folder: of work files; ``clear`` deletes it when the data are complete.
    settings: everything besides the sample that ``make`` depends on.
    workers: processes; 0 decodes in this one.
  """

  make: Callable[[T], Fields]
  folder: pathlib.Path
  settings: str = ""
  workers: int = 0

  def path(self, sample_id: str) -> pathlib.Path:
    """The work file of a sample."""
    key = hashlib.sha256(f"{self.settings}\0{sample_id}".encode())
    return self.folder / f"{key.hexdigest()[:32]}.npz"

  def decode(
    self, samples: Mapping[str, T], description: str
  ) -> tuple[list[str], list[Defect]]:
    """Decodes all samples that have no work file yet.

    Args:
      samples: {id: sample}.
      description: of the progress bar.

    Returns:
      The ids of decoded samples, in order, and the defects of the others.

    Raises:
      WriteError: they cannot be written.
    """
    with faults.writing(self.folder, "decoded samples", "--config.data.dir"):
      self.folder.mkdir(parents=True, exist_ok=True)
      todo = {i: s for i, s in samples.items() if not self.path(i).exists()}
      found = progress(self._run(todo), description, len(todo))
      problems = [problem for problem in found if problem is not None]
    bad = {problem.sample for problem in problems}
    return [i for i in samples if i not in bad], problems

  def read(self, sample_id: str) -> dict[str, np.ndarray]:
    """What ``make`` made of a decoded sample."""
    with np.load(self.path(sample_id), allow_pickle=False) as fields:
      return dict(fields)

  def clear(self) -> None:
    """Deletes the work files, and a list that ``too_little`` wrote."""
    shutil.rmtree(self.folder, ignore_errors=True)
    with contextlib.suppress(OSError):
      (self.folder.parent / FILE).unlink(missing_ok=True)

  def require(
    self,
    splits: Mapping[str, Sequence],
    where: str,
    problems: Sequence[Defect],
  ) -> None:
    """Raises ``too_little`` if a split has no samples.

    Args:
      splits: {split: its samples}.
      where: what they are part of.
      problems: why there are no more.
    """
    empty = ", ".join(s for s, members in splits.items() if not members)
    if empty:
      text = f"no sample of {empty} in {where} can be used"
      raise self.too_little(text, problems)

  def too_little(self, message: str, problems: Sequence[Defect]) -> DataError:
    """The error for too few samples; a file lists why.

    Args:
      message: what is missing.
      problems: why.
    """
    path = self.folder.parent / FILE
    if not problems:
      return DataError(f"{message}: there are too few samples")
    with faults.writing(path.parent, path.name, "--config.data.dir"):
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(table(problems), encoding="utf-8")
    return DataError(f"{message}: {'; '.join(summary(problems, path))}")

  def _run(self, todo: Mapping[str, T]) -> Iterator[Defect | None]:
    jobs = [(self.make, i, s, self.path(i)) for i, s in todo.items()]
    if self.workers == 0 or len(jobs) < 2:
      yield from map(_decode, jobs)
      return
    # A fork would copy the threads' locks of libraries in use.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
      min(self.workers, len(jobs)), context, initializer=_end_with_parent
    ) as pool:
      with _uninterrupted():
        found = pool.map(_decode, jobs, chunksize=4)
      yield from found


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
  """Processes started in here ignore Ctrl-C, which this process handles.

  They inherit the signal mask; here the signal arrives afterwards.
  """
  if not hasattr(signal, "pthread_sigmask"):
    yield
    return
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
  """Ends this process when its parent is gone, for example killed."""

  def wait() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
      parent.join()
      os._exit(1)

  threading.Thread(target=wait, daemon=True).start()


def _decode(job: tuple[Callable, str, Any, pathlib.Path]) -> Defect | None:
  make, sample_id, sample, path = job
  try:
    fields = make(sample)
  except FileNotFoundError as error:
    name = error.filename or error
    return Defect(sample_id, MISSING, f"there is no file {name}")
  except Skip as error:
    return Defect(sample_id, SKIPPED, str(error))
  except (ImportError, MemoryError):
    raise
  # A decoder may raise anything about a damaged file.
  except Exception as error:
    text = " ".join(str(error).split()) or type(error).__name__
    return Defect(sample_id, UNDECODABLE, text)
  arrays: dict[str, Any] = {k: np.asarray(v) for k, v in fields.items()}
  with faults.whole(path) as part, part.open("wb") as file:
    np.savez(file, **arrays)
  return None
