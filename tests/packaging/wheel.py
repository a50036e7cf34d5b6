"""Builds the wheel, installs it alone, and uses it from an empty folder.

python tests/packaging/wheel.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).with_name("probe.py")
# What a build reads, and what must not come along.
SOURCES = ("dmg_jax", "data_pipelines", "configs", "tests", "benchmarks")
FILES = ("pyproject.toml", "README.md", "LICENSE", "launch.py")
PACKAGES = {"dmg_jax", "data_pipelines"}


def build(folder: Path) -> Path:
  """The wheel of a copy of the tree, so that the checkout stays clean."""
  copy = folder / "source"
  copy.mkdir()
  ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
  for name in SOURCES:
    shutil.copytree(ROOT / name, copy / name, ignore=ignore)
  for name in FILES:
    shutil.copy(ROOT / name, copy / name)
  run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", ".",
      "--wheel-dir", str(folder), cwd=copy)  # fmt: skip
  (wheel,) = folder.glob("*.whl")
  return wheel


def top_level(wheel: Path) -> set[str]:
  """The packages and modules that a wheel installs."""
  with zipfile.ZipFile(wheel) as file:
    names = {name.partition("/")[0] for name in file.namelist()}
  return {name for name in names if not name.endswith(".dist-info")}


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> None:
  """A command that has to succeed."""
  subprocess.run(command, cwd=cwd, env=env, check=True)


def main() -> None:
  """Ends with an error where anything is not as it should be."""
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    wheel = build(folder)
    found = top_level(wheel)
    if found != PACKAGES:
      sys.exit(f"{wheel.name} installs {sorted(found)}, not {sorted(PACKAGES)}")
    env = folder / "env"
    run(sys.executable, "-m", "venv", str(env), cwd=folder)
    python = str(env / "bin" / "python")
    run(python, "-m", "pip", "install", "--quiet", str(wheel), cwd=folder)
    empty = folder / "empty"
    empty.mkdir()
    bare = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    for command in ([python, "-m", "dmg_jax"], [str(env / "bin" / "dmg-jax")]):
      run(*command, "--help", cwd=empty, env=bare)
    run(python, "-I", str(PROBE), cwd=empty, env=bare)
    if left := list(empty.iterdir()):
      sys.exit(f"fit without workdir left {left} behind")
    sys.stdout.write(f"{wheel.name}: as it should be\n")


if __name__ == "__main__":
  main()
