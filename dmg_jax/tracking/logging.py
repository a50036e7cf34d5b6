"""Logs of a run: ``metrics.jsonl``, TensorBoard events and the terminal.

JSON has no NaN or infinity: they are written as the strings ``"NaN"``,
``"Infinity"`` and ``"-Infinity"`` (which ``float`` accepts), and
``read_metrics`` returns floats. All other floats survive the round trip
bit for bit.
"""

from __future__ import annotations

import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import TextIOBase
from pathlib import Path
from typing import Any

from data_pipelines.disk.faults import replace, writing
from dmg_jax.errors import InputError
from dmg_jax.tracking.events import Events

METRICS = "metrics.jsonl"
_PLACE = ("step", "epoch", "split")  # Where a line belongs: not metrics.
_SPECIAL = {str(x): float(x) for x in ("NaN", "Infinity", "-Infinity")}
_SCORES = {
  "accuracy": "accuracy",
  "balanced_accuracy": "balanced acc.",
  "map": "mAP",
  "macro_f1": "macro-F1",
}
_UNSHOWN = ("loss", "alpha", "weight_norm")


def to_json(value: Any) -> Any:
  """``value`` in JSON types; numpy and JAX numbers and arrays are converted.

  Raises:
    TypeError: something in ``value`` has no JSON form.
  """
  if isinstance(value, float):
    return float(value) if math.isfinite(value) else json.dumps(float(value))
  if value is None or isinstance(value, (str, bool, int)):
    return value
  if isinstance(value, Mapping):
    return {str(k): to_json(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [to_json(v) for v in value]
  if hasattr(value, "tolist"):
    return to_json(value.tolist())
  raise TypeError(f"no JSON form for {type(value).__name__}: {value!r}")


def write_json(path: str | Path, value: Any, flag: str = "") -> None:
  """Writes ``value`` atomically: readers see the whole old or new file.

  Raises:
    WriteError: it cannot be written; ``flag`` names another folder.
  """
  text = json.dumps(to_json(value), indent=2, allow_nan=False)
  replace(Path(path), f"{text}\n".encode(), flag)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
  """The lines of a ``metrics.jsonl``; an incomplete last line is skipped.

  Raises:
    ValueError: another line is not JSON; the message gives its number.
  """
  found = []
  rows = Path(path).read_bytes().split(b"\n")
  for number, row in enumerate(rows, 1):
    try:
      line = json.loads(row) if row.strip() else None
    except ValueError as error:
      if number == len(rows):
        break  # No newline at the end: the writer was killed.
      raise InputError(
        f"{path}, line {number}, is not JSON: correct or delete it"
      ) from error
    if line is not None:
      found.append(
        {
          k: v if k in _PLACE or not isinstance(v, str) else _SPECIAL.get(v, v)
          for k, v in line.items()
        }
      )
  return found


class MetricsFile:
  """``metrics.jsonl`` and TensorBoard's ``events.*`` of one run.

  A line is ``{"step", "epoch", "split", **values}``; the events have the tags
  ``<split>/<value>``. Lines are flushed before ``write`` returns: a process
  that is killed loses at most the line it is writing.
  """

  def __init__(self, workdir: str | Path):
    """Opens the file for appending; creates ``workdir`` if necessary.

    Raises:
      WriteError: that is not possible, here and in the other methods.
    """
    self._folder = Path(workdir)
    self._path = self._folder / METRICS
    self._file: Any = None
    self._events: Events | None = None
    self._purge: int | None = None
    with self._writing():
      self._folder.mkdir(parents=True, exist_ok=True)
    self._keep(lambda line: True)

  def write(self, line: Mapping[str, Any]) -> None:
    """Appends a line; its numbers go to the events too."""
    line = to_json(line)
    text = json.dumps(line, allow_nan=False).encode() + b"\n"
    with self._writing():
      self._check_there()
      while text:  # A disk that is almost full takes a part.
        text = text[self._file.write(text) :]
    numbers = {}
    for name, value in line.items():
      number = _SPECIAL.get(value, value) if isinstance(value, str) else value
      if name not in _PLACE and isinstance(number, (int, float)):
        numbers[f"{line['split']}/{name}"] = number
    with self._writing("events"):
      if self._events is None:
        self._events = Events(self._folder, self._purge)
      self._events.write(numbers, line["step"])

  def lines(self) -> list[dict[str, Any]]:
    """All lines so far."""
    return read_metrics(self._path)

  def truncate_after(self, step: int) -> None:
    """Drops lines and events later than the restored ``step``."""
    self._keep(lambda line: line["step"] <= step)
    self._purge = step + 1
    self._close_events()

  def close(self) -> None:
    """Closes both files; pending events are written first."""
    self._file.close()
    self._close_events()

  def _writing(self, what: str = METRICS):
    return writing(self._folder, what, "--workdir")

  def _check_there(self) -> None:
    """A file that was removed takes what is written, and nobody sees it."""
    there, own = os.stat(self._path), os.fstat(self._file.fileno())
    if not os.path.samestat(there, own):
      raise FileNotFoundError(errno.ENOENT, "another file", str(self._path))

  def _close_events(self):
    events, self._events = self._events, None
    if events is not None:
      with self._writing("events"):
        events.close()

  def _keep(self, wanted: Callable[[dict], bool]) -> None:
    """Rewrites the file with complete, wanted lines only; opens it again."""
    if self._file is not None:
      self._file.close()
    old = self._path.read_bytes() if self._path.exists() else b""
    lines = [x for x in self.lines() if wanted(x)] if old else []
    text = "".join(f"{json.dumps(to_json(x))}\n" for x in lines).encode()
    if text != old:
      replace(self._path, text, "--workdir")
    with self._writing():
      # Unbuffered: what could not be written is not tried again at the end.
      self._file = self._path.open("ab", buffering=0)


class Console:
  """The terminal: tables and a progress bar, or plain lines without a TTY."""

  def __init__(self, quiet: bool = False, file: TextIOBase | None = None):
    """``quiet`` prints nothing; ``file`` defaults to standard output."""
    self._quiet = quiet
    self._file: Any = file or sys.stdout
    self._live = self._file.isatty() and os.environ.get("TERM") != "dumb"
    self._bar: Any = None
    self._epochs = self._values = ""
    self._began = time.monotonic()

  def note(self, what: Any) -> None:
    """Prints one line, or a table of the package rich."""
    self._print(what)

  def announce(self, facts: Mapping[str, Any]) -> None:
    """Prints what a run is about to do, one line per non-empty fact."""
    from rich.table import Column, Table

    table = Table.grid("", Column(overflow="fold"), padding=(0, 2))
    for name, value in facts.items():
      if value not in ({}, None, ""):
        table.add_row(name.replace("_", " "), _words(value))
    self._epochs = f"/{facts['epochs']}" if "epochs" in facts else ""
    self._print(table)

  @contextmanager
  def progress(self, total: int, first: int = 0) -> Iterator[None]:
    """A progress bar of ``total`` steps, of which ``first`` are done."""
    self._began = time.monotonic()
    if self._quiet or not self._live:
      yield
      return
    from rich import progress as parts
    from rich.table import Column

    rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
      parts.TextColumn("{task.description}"),
      parts.BarColumn(bar_width=12),
      parts.MofNCompleteColumn(),
      parts.TimeRemainingColumn(),
      parts.TextColumn("{task.fields[values]}", table_column=rest),
    )
    bar = parts.Progress(*columns, console=self._rich(), expand=True)
    with bar as self._bar:
      bar.add_task("training", total=total, completed=first, values="")
      try:
        yield
      finally:
        self._bar.refresh()
        self._bar = None

  def advance(self, step: int, values: Mapping[str, float]) -> None:
    """Shows the loss terms and α after step ``step``."""
    terms = [k for k in values if k not in _UNSHOWN][:3]
    shown = [k for k in ("loss", "alpha", *terms) if k in values]
    self._values = "  ".join(f"{k} {values[k]:.3f}" for k in shown)
    self._update(completed=step)

  def epoch(self, epoch: int, values: Mapping[str, float]) -> None:
    """Prints epoch ``epoch`` (from 1) and the flat metrics of ``val``."""
    scores = [
      f"{name.removesuffix('/accuracy')} {100 * value:.1f}"
      for name, value in values.items()
      if name.endswith("/accuracy") and not name.startswith("missing/")
    ]
    name = f"epoch {epoch}{self._epochs}"
    seconds = f"{time.monotonic() - self._began:.0f} s"
    parts = (name, self._values, f"val {'  '.join(scores)}", seconds)
    self._update(description=name)
    self._print(" | ".join(filter(None, parts)))

  def results(self, results: Mapping[str, Any]) -> None:
    """Prints the contents of ``results.json``: one run, or mean ± std."""
    runs = results.get("runs", [results])
    last = "test" if "test" in runs[0] else "val"
    title = f"{results['recipe']} on {results['dataset']}, {last}, %"
    if len(runs) > 1:
      title += f" (mean ± standard deviation of {len(runs)} seeds)"
    self._scores_table(title, [r[last] for r in runs], runs[0]["readout"])

  def evaluation(self, split: str, metrics: Mapping[str, Any]) -> None:
    """Prints the metrics of one split."""
    self._scores_table(f"{split}, %", [metrics], "")

  def _scores_table(self, title, runs, readout):
    from rich.table import Column, Table

    # A run of an older version has fewer scores.
    scores = [s for s in _SCORES if all(s in r["fused"] for r in runs)]
    columns = [Column(_SCORES[s], justify="right") for s in scores]
    table = Table("read-out", *columns, title=title, title_justify="left")
    named = f" ({readout})" if readout else ""
    for head in (h for h in runs[0] if h not in ("gap", "missing")):
      row = [mean_std([r[head][s] for r in runs]) for s in scores]
      table.add_row(head if head == "fused" else f"{head}{named}", *row)
    table.add_section()
    gaps = [r["gap"]["accuracy"] for r in runs]
    table.add_row("gap between modalities", mean_std(gaps))
    for pattern in runs[0].get("missing", {}):
      found = [r["missing"][pattern] for r in runs if pattern in r["missing"]]
      row = [mean_std([f[s] for f in found]) for s in scores]
      lacking = "nothing" if pattern == "none" else pattern
      table.add_row(f"fused, {lacking} missing", *row)
    self._print(table)

  def _update(self, **changes):
    if self._bar is not None:
      self._bar.update(self._bar.task_ids[0], values=self._values, **changes)

  def _rich(self):
    from rich.console import Console as Rich

    # Without a terminal, nothing is wrapped, coloured or redrawn.
    plain = {} if self._live else {"width": 200, "color_system": None}
    common = {"markup": False, "highlight": False, "emoji": False}
    return Rich(file=self._file, force_terminal=self._live, **common, **plain)

  def _print(self, what: Any) -> None:
    if not self._quiet:
      console = self._bar.console if self._bar else self._rich()
      console.print(what)


def mean_std(values: Sequence[float | str]) -> str:
  """Percent with one decimal, e.g. ``66.4`` or ``66.4 ± 0.8``.

  The standard deviation divides by n - 1. ``"NaN"`` is accepted, as
  ``write_json`` writes it.
  """
  values = [float(v) for v in values]
  mean = sum(values) / len(values)
  if len(values) < 2:
    return f"{100 * mean:.1f}"
  square = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
  return f"{100 * mean:.1f} ± {100 * math.sqrt(square):.1f}"


def _words(value: Any) -> str:
  if isinstance(value, Mapping):
    return ", ".join(f"{k} {_words(v)}" for k, v in value.items())
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    return str(value)
  return f"{value:,}" if isinstance(value, int) else f"{value:g}"
