"""Checkpoints that are damaged: found, told, set aside.

A power cut leaves files that are short or empty, a bad disk changes bits.
Checksums show both. Checkpoints of versions that wrote none are read.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from data_pipelines.disk import checksums
from data_pipelines.disk.faults import writing
from dmg_jax import processes
from dmg_jax.errors import DamagedError, one_line
from dmg_jax.evaluation import selection
from dmg_jax.tracking.logging import METRICS, read_metrics

FOLDER = "checkpoints"
ASIDE = "aside-"  # The name of a damaged checkpoint, before its step.


def saved(workdir: Path) -> set[int]:
  """Steps of a run's complete checkpoints; empty without a folder."""
  folder = Path(workdir) / FOLDER
  if not folder.is_dir():
    return set()
  return {int(p.name) for p in folder.iterdir() if p.name.isdigit()}


def mend(
  workdir: Path,
  score: str | None,
  keep: Iterable[int],
  note: Callable[[str], None],
) -> None:
  """Sets damaged checkpoints aside, so that a run goes on from a whole one.

  If one of them may have been the best, or is one to keep, those after it are
  set aside as well: the run makes them again, with the same bits.

  Args:
    workdir: of the run.
    score: by which one is the best; ``None`` if the run ends with its last.
    keep: steps whose checkpoints are kept.
    note: called with a line for each damaged checkpoint.

  Raises:
    DamagedError: no whole one is left of those that were there.
  """
  folder, steps = Path(workdir) / FOLDER, saved(workdir)
  bad = {s: p for s in steps if (p := problem(folder / str(s))) is not None}
  if not bad:
    return
  whole = steps - bad.keys()
  if not whole:
    raise _none_left(workdir, bad)
  needed = {s for s in bad if s in keep}
  if score is not None:
    needed |= {s for s in bad if _may_be_best(workdir, s, score)}
  first = min(needed, default=math.inf)
  after = {s for s in whole if s > first}
  left = max(whole - after, default=0)
  for step in sorted({*bad, *after}):
    _set_aside(folder, step)
  for step, why in sorted(bad.items()):
    goes_on = f"from checkpoint {left}" if left else "from the start"
    note(
      f"warning: checkpoint {step} of {workdir} is damaged ({why}): set aside "
      f"as {ASIDE}{step}, training goes on {goes_on}"
    )


def problem(path: Path) -> str | None:
  """What is wrong with the checkpoint in a folder; ``None`` if it is whole.

  One of an older version has no checksums: it is read.

  Args:
    path: of the checkpoint, named by its step.

  Raises:
    OSError: a file is there and cannot be read.
  """
  if checksums.known(path):
    return checksums.problem(path)
  try:
    why = _problem_of_metrics(path)
    if why is None and not processes.several():  # Orbax waits for all of them.
      _read_bytes(path.absolute() / "default")
      arrays(path.absolute() / "default")
  except PermissionError:
    raise
  # Readers raise anything about a damaged file.
  except Exception as error:
    return one_line(error)[:200]
  return why


def _read_bytes(path: Path) -> None:
  """Reads what arrays are stored as; raises if some of it is not there.

  Before ``arrays``, whose first error leaves other reads behind: each of them
  would say on the screen that nobody waits for it.
  """
  import tensorstore

  spec = {"driver": "ocdbt", "base": path.as_uri() + "/"}
  store = tensorstore.KvStore.open(spec).result()
  names = store.list().result()
  if not names:
    raise FileNotFoundError("default/manifest.ocdbt is missing")
  for name in names:
    store.read(name).result()


def _problem_of_metrics(path: Path) -> str | None:
  if checksums.known(path):
    return checksums.problem(path, "metrics")
  metrics = path / "metrics" / "metrics"
  try:
    if metrics.parent.exists():
      dict(json.loads(metrics.read_text(encoding="utf-8")))
  except FileNotFoundError:
    return "metrics/metrics is missing"
  except (ValueError, TypeError) as error:
    return f"metrics/metrics is unreadable ({one_line(error)})"
  return None


def check_metrics(folder: Path) -> None:
  """Raises ``DamagedError`` if those of a checkpoint are unreadable."""
  for step in sorted(saved(folder.parent)):
    path = folder / str(step)
    if why := _problem_of_metrics(path):
      raise DamagedError(damaged(path, why))


def arrays(path: Path) -> Any:
  """The arrays of a checkpoint's ``default``, in NumPy, a nested dictionary.

  Wherever they were when it was made.
  """
  with ocp.PyTreeCheckpointer() as reader:
    about: Any = reader.metadata(path)
    tree = getattr(about, "item_metadata", about)
    plain = ocp.RestoreArgs(restore_type=np.ndarray)
    kinds = jax.tree.map(lambda _: plain, getattr(tree, "tree", tree))
    return reader.restore(path, restore_args=kinds)


def _none_left(workdir: Path, bad: Mapping[int, str]) -> DamagedError:
  shown = "; ".join(f"{step}: {why}" for step, why in sorted(bad.items()))
  return DamagedError(
    f"no whole checkpoint is left in {Path(workdir) / FOLDER} ({shown}): put "
    "them back from a copy, or delete that folder to train from the start"
  )


def _may_be_best(workdir: Path, step: int, score: str) -> bool:
  """Whether no whole checkpoint of another step is known to be better."""
  path = Path(workdir) / METRICS
  if not path.exists():
    return True
  key = selection.key(score)
  found = {
    line["step"]: selection.goodness(score, line[key])
    for line in read_metrics(path)
    if line["split"] == "val" and key in line
  }
  if step not in found:
    return False  # In mid-epoch.
  # Those without metrics were written before the method was ready.
  others = [
    (found[s], s)
    for s in saved(workdir) - {step}
    if s in found and (Path(workdir) / FOLDER / str(s) / "metrics").is_dir()
  ]
  return max(others, default=(-math.inf, 0)) < (found[step], step)


def _set_aside(folder: Path, step: int) -> None:
  with writing(folder, "a damaged checkpoint's new name", "--workdir"):
    aside = folder / f"{ASIDE}{step}"
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder / str(step), aside)


def damaged(path: Path, why: str) -> str:
  """The sentence about a damaged checkpoint that is asked for by its step."""
  return (
    f"checkpoint {path.name} in {path.parent} is damaged ({why}) and not used: "
    "put it back from a copy; or run the training command again, without "
    "results.json if the run had ended: it goes on from a whole one"
  )
