"""What ``prepare`` made: counts, problems, and the message for damage."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any

from data_pipelines.core.progress import is_quiet
from data_pipelines.errors import DataError

FILE = "prepare_report.json"  # beside the prepared data


def sorted_classes(names: Iterable[str]) -> tuple[str, ...]:
  """Distinct names, in numerical order if all are whole numbers."""
  names = set(names)
  if all(re.fullmatch(r"[+-]?[0-9]+", name) for name in names):
    return tuple(sorted(names, key=lambda name: (int(name), name)))
  return tuple(sorted(names))


@dataclasses.dataclass(frozen=True)
class PreparedSummary:
  """What ``prepare`` made.

  Attributes:
    name: of the data set.
    folder: where the prepared data lie.
    counts: {split: {class: samples}}.
    problems: one sentence each; empty if all is as expected.
    versions: {package or source: version} that the data were made from.
    notes: one sentence each: decisions that the user should know about.
    fingerprint: hash of the stored data; empty if none was computed.
  """

  name: str
  folder: str
  counts: dict[str, dict[str, int]]
  problems: tuple[str, ...] = ()
  versions: dict[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  fingerprint: str = dataclasses.field(default="", compare=False)

  @property
  def classes(self) -> tuple[str, ...]:
    """All class names, sorted."""
    return sorted_classes(c for n in self.counts.values() for c in n)

  def lines(self) -> list[str]:
    """A plain-text table of counts, then notes and problems."""
    width = max(map(len, [*self.classes, "total"]))
    rows: list[tuple[str, list[Any]]] = [("", [*self.counts, "total"])]
    for c in self.classes:
      row = [counts.get(c, 0) for counts in self.counts.values()]
      rows.append((c, [*row, sum(row)]))
    row = [sum(counts.values()) for counts in self.counts.values()]
    rows.append(("total", [*row, sum(row)]))
    made_from = ", ".join(f"{k} {v}" for k, v in self.versions.items())
    table = [
      f"{name:<{width}}" + "".join(f"{v:>8}" for v in values)
      for name, values in rows
    ]
    problems = [f"problem: {p}" for p in self.problems] or ["no problems"]
    head = f"{self.name} in {self.folder}"
    notes = [f"note: {n}" for n in self.notes]
    head = f"{head} ({made_from})" if made_from else head
    return [head, *table, *notes, *problems]

  def summary(self) -> str:
    """``lines`` as one text."""
    return "\n".join(self.lines())

  def announce(self) -> None:
    """Writes notes, and whether there are problems, to standard error."""
    if is_quiet():
      return
    lines = [f"note: {n}" for n in self.notes]
    if self.problems:
      more = f" (and {len(self.problems) - 1} more)"
      lines.append(
        f"problem: {self.problems[0]}{more * (len(self.problems) > 1)}; "
        "--mode=prepare lists all"
      )
    sys.stderr.write("".join(f"{line}\n" for line in lines))

  def to_json(self) -> dict[str, Any]:
    """Everything except the folder, which may move."""
    data = dataclasses.asdict(self)
    del data["folder"]
    return data

  @classmethod
  def read(cls, folder: str | os.PathLike) -> PreparedSummary:
    """The summary stored beside prepared data.

    Raises:
      DataError: there is none, or it cannot be read.
    """
    path = pathlib.Path(folder) / FILE
    try:
      data = json.loads(path.read_text(encoding="utf-8"))
      known = {f.name for f in dataclasses.fields(cls)} - {"folder"}
      data = {k: v for k, v in data.items() if k in known}
      data["problems"] = tuple(data["problems"])
      data["notes"] = tuple(data.get("notes", ()))
      return cls(folder=str(folder), **data)
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise DataError(damaged(folder, f"{FILE}: {error}")) from error


def damaged(folder: str | os.PathLike, reason: str) -> str:
  """Message for damaged prepared data."""
  return (
    f"the prepared data in {folder} are damaged ({reason}). Delete that folder "
    "or run with --mode=prepare, which rebuilds it."
  )
