"""Whether a work directory holds the run that is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = "config.json"
# A locked ConfigDict; checkers cannot know its fields.
Config = Any


def check_config(config: Config, workdir: Path) -> None:
  """Refuses to go on with a run of another config.

  Raises:
    ValueError: the fields that differ; or other files than those of a run.
  """
  path = workdir / FILE
  if not path.exists():
    if workdir.is_dir() and any(p.suffix != ".part" for p in workdir.iterdir()):
      raise ValueError(
        f"{workdir} is not empty and holds no run: choose another --workdir"
      )
    return
  old = _flat(json.loads(path.read_text())["config"])
  new = _flat(json.loads(json.dumps(config.to_dict())))
  free = (
    "variant",
    "eval.",
    "data.dir",
    "track",
    "train.keep",
  )  # Change nothing that is learned.
  other = sorted(
    k for k in old | new if old.get(k) != new.get(k) and not k.startswith(free)
  )
  if other:
    shown = ", ".join(f"{k} ({old.get(k)} there)" for k in other[:4])
    raise ValueError(
      f"{workdir} holds a run of another config, which differs in {shown}: "
      "choose another --workdir or delete that one"
    )


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
  if not isinstance(tree, dict):
    return {path: tree}
  parts = (_flat(v, f"{path}.{k}".lstrip(".")) for k, v in tree.items())
  return {k: v for part in parts for k, v in part.items()}


def fingerprint(workdir: Path) -> str:
  """Of the data that the run is on; empty if it is not known."""
  path = workdir / FILE
  if not path.exists():
    return ""
  return json.loads(path.read_text()).get("data", {}).get("fingerprint", "")


def check_data(now: str, workdir: Path) -> None:
  """Refuses data that are not those of the run in ``workdir``.

  Args:
    now: fingerprint of the data; nothing is checked if it is empty.
    workdir: of a run, or not yet.

  Raises:
    ValueError: the data differ; with both fingerprints and the fix.
  """
  there = fingerprint(workdir)
  if there and now and there != now:
    raise ValueError(
      f"the data have changed since the run in {workdir} began: fingerprint "
      f"{there[:8]} in {workdir / FILE}, now {now[:8]}. Choose another "
      "--workdir for the new data, or bring back the old ones (rows and files "
      'of a manifest, raw data); if the change is of no account, delete "data" '
      f"from {FILE}"
    )
