"""Which packages of pyproject.toml are not installed: one line, or nothing.

``--names`` prints names alone, for ``pip install``.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

# Of the extra that the tests need; the demo is the main job's data.
_EXTRAS = ("demo",)
_TESTS = ("pytest", "beartype")
_BESIDE = ("jax", "numpy")  # Bound to the card's drivers: never from wheels.


def missing() -> list[str]:
  """Requirements whose package is not there, as pyproject.toml has them."""
  file = Path(__file__).resolve().parents[2] / "pyproject.toml"
  project = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
  optional = project["optional-dependencies"]
  wanted = list(project["dependencies"])
  for extra in _EXTRAS:
    wanted += optional[extra]
  wanted += [r for r in optional["test"] if _name(r) in _TESTS]
  return [r for r in wanted if not _there(_name(r))]


def _name(requirement: str) -> str:
  return re.split(r"[\s<>=!~\[;]", requirement, maxsplit=1)[0]


def _there(name: str) -> bool:
  try:
    importlib.metadata.version(name)
  except importlib.metadata.PackageNotFoundError:
    return False
  return True


def line() -> str:
  """What is missing and what to do; empty if nothing is."""
  found = missing()
  if not found:
    return ""
  return (
    f"missing: {', '.join(found)}: give a folder of wheels (--wheels=FOLDER) "
    "or install them; stages that need them fail"
  )


def main(argv: list[str]) -> int:
  """Prints the line, or the names that wheels are wanted of."""
  if "--names" in argv:
    names = [r for r in missing() if _name(r) not in _BESIDE]
    print(*names, sep="\n", end="\n" if names else "")
  elif line():
    print(line())
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
