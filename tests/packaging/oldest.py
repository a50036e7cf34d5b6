"""Prints the oldest JAX libraries that ``pyproject.toml`` allows, for pip.

``pip install -c <(python tests/packaging/oldest.py) .`` installs them.
"""

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
FAMILY = ("jax", "flax", "optax", "orbax-checkpoint", "jaxtyping")


def pins() -> list[str]:
  """``name==version`` of each, from its ``>=``."""
  project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
  found = {}
  for line in project["dependencies"]:
    match = re.fullmatch(r"([\w.-]+)>=([\w.]+)", line)
    if match:
      found[match[1]] = match[2]
  return [f"{name}=={found[name]}" for name in FAMILY]


if __name__ == "__main__":
  sys.stdout.write("\n".join(pins()) + "\n")
