"""How a stage tells its results: lines of JSON on its standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

_MARK = "#result "


def say(name: str, **values: Any) -> None:
  """Writes a result at once; a later one of the same name replaces it."""
  sys.stdout.write(f"\n{_MARK}{json.dumps({'name': name, **values})}\n")
  sys.stdout.flush()


def heard(lines: Iterable[str]) -> list[dict[str, Any]]:
  """The results among the lines of a stage, half-written ones left out."""
  found: dict[str, dict[str, Any]] = {}
  for line in lines:
    if not line.startswith(_MARK) or not line.endswith("\n"):
      continue
    entry = json.loads(line.removeprefix(_MARK))
    found[entry["name"]] = entry
  return list(found.values())
