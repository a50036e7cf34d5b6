"""A manifest on its way to prepared data."""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib

from data_pipelines.core import report, storage
from data_pipelines.errors import InputError
from data_pipelines.manifest import media, rows, table
from data_pipelines.transforms import video

VERSION = "1.1.0"  # of the prepared data: any change of them raises it
FILE = "modalities.json"  # beside the records: {modality: what loading needs}


class Manifest:
  """A manifest with options, and the folder of its prepared data."""

  def __init__(
    self,
    data_dir: str | os.PathLike,
    manifest: str,
    settings: media.Settings,
    held_out: float,
    skip_bad: bool,
  ):
    if not manifest:
      raise InputError(
        "no manifest is named: add --config.data.manifest=FILE, one of .csv, "
        ".tsv, .jsonl, .parquet with the columns split, label and name:kind"
      )
    if not 0 < held_out <= 0.4:
      raise InputError(f"held_out must lie in (0, 0.4], got {held_out!r}")
    self.path = pathlib.Path(manifest).expanduser()
    self._table = table.read(self.path)
    self._settings, self._held_out = settings, held_out
    self._skip_bad = skip_bad
    self._media = media.Media(self.path.parent, settings)
    self._key = self._hash()
    self.folder = storage.folder_of(
      data_dir, f"manifest_{self._key[:16]}", VERSION
    )

  def _hash(self) -> str:
    """Of all that the prepared data follow from."""
    options = (repr(self._settings), self._held_out, self._skip_bad)
    key = hashlib.sha256(repr((self.path.name, *options)).encode())
    key.update(self.path.read_bytes())
    files = {
      line.cells[c.header]
      for c in self._table.columns
      if c.kind != "text"
      for line in self._table.lines
    }
    for name in sorted(files - {""}):
      try:
        stat = self._media.path(name).stat()
        key.update(repr((name, stat.st_size, stat.st_mtime_ns)).encode())
      except (OSError, ValueError):
        key.update(repr((name, None)).encode())
    return key.hexdigest()

  def prepare(self) -> report.Report:
    """Checks, splits, stores."""
    columns = self._table.columns
    if any(c.kind == "video" for c in columns):
      video.require()
    kept, problems = self._checked()
    try:
      splits, notes = rows.carve(kept, self._held_out)
    except ValueError as error:
      raise table.failure(
        self.path, [table.Problem(0, "split", str(error))]
      ) from error
    notes += rows.shared(splits, columns) + self._unused()
    modalities = [
      media.Modality(c, self._media, self._settings, splits["train"])
      for c in columns
    ]
    for modality in modalities:
      notes += modality.notes(kept)
    made = report.Report(
      self.path.name,
      str(self.folder),
      {
        s: dict(collections.Counter(r.label for r in splits[s])) for s in splits
      },
      tuple(problems),
      {"key": self._key[:16]},
      tuple(notes),
    )
    self._write(splits, modalities, made)
    return made

  def _checked(self) -> tuple[list[rows.Row], list[str]]:
    """The rows to keep, and a sentence for each that is left out."""
    found, problems = rows.check(self._table)
    problems += media.check(found, self._table.columns, self._media)
    if self._skip_bad:
      bad = {p.row for p in problems}
      found = [row for row in found if row.number not in bad]
    problems += rows.strangers(found)
    fatal = rows.whole(found)
    if fatal or (problems and not self._skip_bad):
      raise table.failure(self.path, [*fatal, *problems])
    bad = {p.row for p in problems}
    problems.sort(key=lambda p: p.row)
    left_out = [f"left out {problem}" for problem in problems]
    if bad:
      left_out.insert(
        0, f"{len(bad)} of {len(self._table.lines)} rows left out"
      )
    return [row for row in found if row.number not in bad], left_out

  def _unused(self) -> list[str]:
    known = {*table.NEEDED, *table.OPTIONAL}
    known |= {c.header for c in self._table.columns}
    return [
      f"column {c!r} is not used: a modality's is called name:kind"
      for c in self._table.header
      if c not in known
    ]

  def _write(
    self,
    splits: dict[str, list[rows.Row]],
    modalities: list[media.Modality],
    made: report.Report,
  ) -> None:
    import tensorflow_datasets as tfds

    features = {
      "id": tfds.features.Text(),
      "label": tfds.features.Text(),
      **{f"input_{m.name}": m.feature() for m in modalities},
    }

    def examples(members: list[rows.Row], split: str):
      for row in report.progress(members, f"storing {split}", len(members)):
        inputs = {
          f"input_{m.name}": m.make(row.cells[m.name]) for m in modalities
        }
        yield row.id, {"id": row.id, "label": row.label, **inputs}

    described = {m.name: m.to_json() for m in modalities}
    storage.write(
      self.folder,
      features,
      {split: examples(members, split) for split, members in splits.items()},
      made,
      {FILE: json.dumps(described, ensure_ascii=False)},
    )
