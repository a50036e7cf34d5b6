"""From a checked table to prepared data."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from data_pipelines.core import storage, summary
from data_pipelines.core.progress import progress
from data_pipelines.errors import DataError, InputError, unknown
from data_pipelines.manifest import (
  faults,
  labels,
  leaks,
  media,
  rows,
  sources,
  table,
)
from data_pipelines.manifest.findings import notes as findings
from data_pipelines.transforms import image, video

VERSION = "1.1.0"  # of the prepared data: any change of them raises it
# Beside the records: {modality: what loading needs}, and the options.
FILE, OPTIONS = "modalities.json", "options.json"
LENGTHS = "lengths.json"  # {split: {ragged modality: steps of each sample}}
# Of a record: the modalities that it lacks. Only where some record does.
MISSING = "missing"
_MODES = ("allow", "refuse")
PREFIX = "manifest_"
_SHOWN = 10  # columns that are not used
_KEY = re.compile(r"[0-9a-f]{16}")


@dataclasses.dataclass(frozen=True)
class Options:
  """What a manifest is prepared with; see ``manifest.prepare``."""

  settings: media.Settings
  held_out: float
  skip_bad: bool
  missing: str = "refuse"

  def __post_init__(self):
    if not 0 < self.held_out <= 0.4:
      raise InputError(f"held_out must lie in (0, 0.4], got {self.held_out!r}")
    if self.missing not in _MODES:
      raise unknown("value of data.missing", self.missing, _MODES)

  def hashed(self, name: str):
    """A hash that has taken in the options and a table's name."""
    options = (repr(self.settings), self.held_out, self.skip_bad)
    options += ("missing",) * self.optional
    limit = self.settings.max_pixels
    options += (("max_pixels", limit),) * (limit != image.MAX_PIXELS)
    return hashlib.sha256(repr((name, *options)).encode())

  def to_json(self) -> dict[str, Any]:
    """All options, {name: value}."""
    own = ("held_out", "skip_bad", "missing")
    return {
      **dataclasses.asdict(self.settings),
      **{name: getattr(self, name) for name in own},
    }

  @property
  def optional(self) -> bool:
    """Whether rows may lack modalities."""
    return self.missing == "allow"


def folder_of(data_dir: str | os.PathLike, key: str) -> pathlib.Path:
  """The folder of prepared data with a key."""
  return storage.folder_of(data_dir, f"{PREFIX}{key}", VERSION)


def known_folder(
  data_dir: str | os.PathLike, key: str, options: Options
) -> pathlib.Path:
  """The folder of data that were prepared earlier.

  Raises:
    core.DataError: no data have that key, they are damaged, or they were
      prepared with other options.
  """
  folder = folder_of(data_dir, key)
  if not _KEY.fullmatch(key) or not folder.exists():
    found = sorted(pathlib.Path(data_dir).glob(f"{PREFIX}*/{VERSION}"))
    keys = ", ".join(p.parent.name.removeprefix(PREFIX) for p in found)
    raise DataError(
      f"no prepared data {key!r} in {data_dir} (there are {keys or 'none'}): "
      "prepare them first, or name their folder with --config.data.dir"
    )
  storage.check(folder)
  path = folder / OPTIONS
  made = json.loads(path.read_text("utf-8")) if path.exists() else {}
  for name, value in options.to_json().items():
    if made.get(name, value) != value:
      raise DataError(
        f"the prepared data {key!r} were made with {name}={made[name]!r}, not "
        f"{value!r}: use that value, or prepare the data again"
      )
  return folder


class Manifest:
  """A table with options, and the folder of its prepared data.

  Attributes:
    name: of the data set.
    folder: of the prepared data.
  """

  def __init__(
    self,
    data_dir: str | os.PathLike,
    name: str,
    read: Callable[[], table.Table],
    key: str,
    origin: sources.Sources,
    options: Options,
    needed: tuple[str, ...] = rows.NEEDED,
    *,
    folder: pathlib.Path | None = None,
    problems: Sequence[str] = (),
  ):
    """``key`` names the prepared data, unless their ``folder`` is given.

    ``read`` returns the table, ``origin`` is what it was made from, and
    ``needed`` are the splits that must have rows. ``problems`` are known
    already.
    """
    self.name, self._read, self._key = name, read, key[:16]
    self._options, self._needed, self._origin = options, needed, origin
    self._media = media.CellReader(origin.base, options.settings)
    self.folder = folder or folder_of(data_dir, self._key)
    self._known = tuple(problems)

  @functools.cached_property
  def _table(self) -> table.Table:
    return self._read()

  def prepare(self) -> summary.PreparedSummary:
    """Checks, splits and stores the samples; intact data are left alone."""
    return storage.once(self.folder, self._prepare)

  def _prepare(self) -> summary.PreparedSummary:
    columns = self._table.columns
    if any(c.kind == "video" for c in columns):
      video.require()
    kept, problems = self._checked()
    try:
      splits, notes = rows.carve(kept, self._options.held_out)
    except ValueError as error:
      raise self._failure([faults.Fault(0, "split", str(error))]) from error
    if absent := rows.unknown_in_train(splits["train"], columns):
      raise self._failure(absent)
    lacking = findings.of_missing(columns, splits)
    notes = [*self._table.notes, *lacking, *notes, *self._labels(kept)]
    notes += leaks.notes(splits, columns, self._table.folder) + self._unused()
    splits = {s: m for s, m in splits.items() if m or s in self._needed}
    modalities = [
      media.Modality(
        c, self._media, self._options.settings, splits["train"], kept
      )
      for c in columns
    ]
    media.bucket(modalities, splits["train"])
    for modality in modalities:
      notes += modality.notes(kept)
    made = summary.PreparedSummary(
      self.name,
      str(self.folder),
      {
        s: dict(collections.Counter(r.label for r in splits[s])) for s in splits
      },
      (*self._known, *problems),
      {"key": self._key},
      tuple(notes),
    )
    self._write(splits, modalities, made)
    sources.note(self.folder, self._origin)
    return made

  def _checked(self) -> tuple[list[rows.Row], list[str]]:
    """Rows to keep, and a sentence for each row left out."""
    skip_bad = self._options.skip_bad
    found, problems = rows.check(self._table, self._options.optional)
    problems += media.check(
      found, self._table.columns, self._media, by_row=skip_bad
    )
    if skip_bad:
      bad = {p.row for p in problems}
      found = [row for row in found if row.number not in bad]
    problems += rows.strangers(found)
    fatal = rows.whole(found, self._needed)
    if fatal or (problems and not skip_bad):
      raise self._failure([*fatal, *problems])
    bad = {p.row for p in problems}
    problems.sort(key=lambda p: p.row)
    left_out = [f"left out {problem}" for problem in problems]
    if bad:
      left_out.insert(
        0, f"{len(bad)} of {len(self._table.lines)} rows left out"
      )
    return [row for row in found if row.number not in bad], left_out

  def _failure(self, problems: list[faults.Fault]) -> DataError:
    content, advice = self._table, faults.SKIP
    headers = {c.header for c in content.columns}
    if any(p.text == faults.EMPTY and p.column in headers for p in problems):
      advice = f"{advice}\n{faults.ALLOW}"
    return faults.failure(content.title, problems, advice, content.counted)

  def _labels(self, kept: list[rows.Row]) -> list[str]:
    """Notes on labels in several forms."""
    given = {
      line.number: str(line.cells["label"]) for line in self._table.lines
    }
    counts = collections.Counter(row.label for row in kept)
    pairs = ((given[row.number], row.label) for row in kept)
    return [*labels.rewritten(pairs), *labels.alike(counts)]

  def _unused(self) -> list[str]:
    """Notes on columns that nothing is read from."""
    names = [c for c in self._table.header if c and not table.is_used(c)]
    notes = [
      f"column {faults.cut(c, 60)!r} is not used: a modality's is called "
      "name:kind"
      for c in dict.fromkeys(names[:_SHOWN])
    ]
    if len(names) > _SHOWN:
      notes.append(f"{len(names) - _SHOWN} more columns are not used")
    return notes

  def _write(
    self,
    splits: dict[str, list[rows.Row]],
    modalities: list[media.Modality],
    made: summary.PreparedSummary,
  ) -> None:
    import tensorflow_datasets as tfds

    features = {
      "id": tfds.features.Text(),
      "label": tfds.features.Text(),
      **{f"input_{m.name}": m.feature() for m in modalities},
    }
    optional = [m.name for m in modalities if m.optional]
    if optional:
      features[MISSING] = tfds.features.Text()

    def examples(members: list[rows.Row], split: str):
      for row in progress(members, f"storing {split}", len(members)):
        inputs = {
          f"input_{m.name}": m.store(row.cells[m.name]) for m in modalities
        }
        if optional:
          gone = [m for m in optional if not row.cells[m]]
          inputs[MISSING] = ",".join(gone)
        yield row.id, {"id": row.id, "label": row.label, **inputs}

    described = {m.name: m.to_json() for m in modalities}
    storage.write(
      self.folder,
      features,
      {split: examples(members, split) for split, members in splits.items()},
      made,
      {
        FILE: json.dumps(described, ensure_ascii=False),
        OPTIONS: json.dumps(self._options.to_json()),
        **_lengths(splits, modalities),
      },
    )


def _lengths(
  splits: dict[str, list[rows.Row]], modalities: Sequence[media.Modality]
) -> dict[str, str]:
  """{file: text} of the lengths of ragged modalities, if there are any."""
  ragged = [m for m in modalities if m.buckets]
  found = {
    split: {m.name: [m.lengths.get(r.number, 0) for r in rs] for m in ragged}
    for split, rs in splits.items()
  }
  return {LENGTHS: json.dumps(found)} if ragged else {}
