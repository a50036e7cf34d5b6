"""What a work directory says of its run: config, data, versions."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_pipelines.disk import locks
from data_pipelines.disk.faults import writing
from dmg_jax.config import identity
from dmg_jax.errors import BusyError, InputError
from dmg_jax.tracking.logging import write_json

FILE = "config.json"
# A locked ConfigDict; checkers cannot know its fields.
Config = Any
_VERSIONS = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "numpy",
  "dmg_jax",
)


def check_config(config: Config, workdir: Path) -> None:
  """Refuses to continue a run of another config; see ``config.identity``.

  Raises:
    ValueError: fields differ that decide what a run computes, or the folder
      holds other files than those of a run.
  """
  path = workdir / FILE
  if not path.exists():
    data = Path(config.data.dir).resolve()  # It may lie in the run's folder.
    others = workdir.iterdir() if workdir.is_dir() else ()
    if any(
      p.suffix != ".part" and p.name != locks.FILE and p.resolve() != data
      for p in others
    ):
      raise InputError(
        f"{workdir} is not empty and holds no run: choose another --workdir"
      )
    return
  there = json.loads(path.read_text(encoding="utf-8"))["config"]
  other = identity.differences(config, there)
  if other:
    shown = ", ".join(
      f"{k} ({str(v)[:80]} there)" for k, v in list(other.items())[:4]
    )
    raise InputError(
      f"{workdir} holds a run of another config, which differs in {shown}: "
      "choose another --workdir or delete that one"
    )


def lock(held: locks.Locks, workdirs: Iterable[Path]) -> None:
  """Locks those of the folders that exist.

  Args:
    held: the locks of this process, released by its context.
    workdirs: of runs.

  Raises:
    BusyError: another process works in one of them.
    WriteError: one of them cannot be written to.
  """
  for workdir in workdirs:
    if workdir.is_dir():
      with writing(workdir, locks.FILE, "--workdir"):
        held.take(workdir)


def make(held: locks.Locks, workdirs: Iterable[Path]) -> None:
  """Makes the folders and locks them; arguments as for ``lock``.

  Raises:
    BusyError: another process was faster in making one of them.
    WriteError: one of them cannot be made.
  """
  for workdir in workdirs:
    with writing(workdir, "the run's files", "--workdir"):
      workdir.mkdir(parents=True, exist_ok=True)
      if held.take(workdir) and (workdir / FILE).exists():
        raise BusyError(
          f"another process has begun the run in {workdir} meanwhile: run the "
          "same command again to go on from there"
        )


def fingerprint(workdir: Path) -> str:
  """Fingerprint of the run's data; empty if it is not known."""
  path = workdir / FILE
  if not path.exists():
    return ""
  return json.loads(path.read_text()).get("data", {}).get("fingerprint", "")


def data_place(workdir: Path) -> str:
  """Where the run's prepared data were when it began; empty if not known."""
  return _stored(workdir).get("data", {}).get("folder", "")


def configured_dir(workdir: Path) -> str:
  """The run's own ``data.dir``."""
  return _stored(workdir)["config"].get("data", {}).get("dir", "")


def _stored(workdir: Path) -> dict[str, Any]:
  return json.loads((workdir / FILE).read_text(encoding="utf-8"))


def check_data(now: str, workdir: Path) -> None:
  """Refuses other data than those of the run in ``workdir``.

  Args:
    now: fingerprint of the data; nothing is checked if it is empty.
    workdir: of a run, or of one that has not begun.

  Raises:
    ValueError: the data differ; with both fingerprints and the fix.
  """
  there = fingerprint(workdir)
  if there and now and there != now:
    raise InputError(
      f"the data have changed since the run in {workdir} began: fingerprint "
      f"{there[:8]} in {workdir / FILE}, now {now[:8]}. Choose another "
      "--workdir for the new data, or restore the old ones (rows and files "
      'of a manifest, raw data); if the change does not matter, delete "data" '
      f"from {FILE}"
    )


def write_config(
  config: Config, workdir: Path, command: str | None, setup: Any
) -> None:
  """Writes ``config.json`` once: enough to repeat the run and to read it.

  Args:
    config: as given.
    workdir: of the run, which exists.
    command: the command line.
    setup: of ``config``. For encoders with pretrained weights it has the
      options that come from the weights; they are kept, too.
  """
  path = workdir / FILE
  if not path.exists():
    versions = {p: importlib.metadata.version(p) for p in _VERSIONS}
    content = {
      "config": config.to_dict(),
      "versions": versions,
      "git": revision(),
      "command": command,
      "diagnostics": setup.method.diagnostics,
    }
    if setup.dataset.fingerprint:
      content["data"] = {
        "fingerprint": setup.dataset.fingerprint,
        "folder": str(Path(config.data.dir).resolve()),
      }
    loaded = {m: o for m, o in setup.encoders.items() if o.get("pretrained")}
    if loaded:
      content["encoders"] = loaded
    write_json(path, content, "--workdir")


def data_name(config: Any) -> str:
  """The name of the data set; that of folder and file for a manifest."""
  manifest = config.data.get("manifest", "")
  if not manifest:
    return config.data.name
  path = Path(manifest).expanduser().resolve()
  return f"{path.parent.name}-{path.stem}".lstrip("-")


def revision() -> str | None:
  """The git revision of the source, ``None`` outside a checkout."""
  command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
  folder = Path(__file__).parent
  try:
    done = subprocess.run(
      command, cwd=folder, capture_output=True, text=True, check=True
    )
  except (OSError, subprocess.CalledProcessError):
    return None
  return done.stdout.strip()
