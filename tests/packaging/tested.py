"""Prints the versions of all that the project needs, as they are here, for pip.

Run it where the suite has passed:

    python tests/packaging/tested.py > requirements/tested-py311.txt

``pip install -c requirements/tested-py311.txt .`` then installs these versions.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = "dmg_jax[test]"


def needed(line: str) -> Iterator[tuple[str, str]]:
  """Name and version of each package that a requirement leads to, once."""
  seen: set[tuple[str, str]] = set()
  names: dict[str, str] = {}
  waiting = [Requirement(line)]
  while waiting:
    wanted = waiting.pop()
    for extra in ("", *wanted.extras):
      key = canonicalize_name(wanted.name), extra
      if key in seen:
        continue
      seen.add(key)
      found = metadata.distribution(wanted.name)
      names[key[0]] = found.version
      rest = [Requirement(x) for x in found.requires or ()]
      waiting += [
        x
        for x in rest
        if x.marker is None or x.marker.evaluate({"extra": extra})
      ]
  yield from names.items()


def lines() -> list[str]:
  """``name==version`` of each, without the project itself."""
  own = canonicalize_name(Requirement(ROOT).name)
  return sorted(
    f"{name}=={re.sub(r'[+].*', '', version)}"
    for name, version in needed(ROOT)
    if name != own
  )


if __name__ == "__main__":
  version = ".".join(map(str, sys.version_info[:2]))
  sys.stdout.write(
    f"# Versions that the tests last passed with, on Python {version}. Made\n"
    "# by tests/packaging/tested.py; use: pip install -c THIS_FILE .\n"
  )
  sys.stdout.write("\n".join(lines()) + "\n")
