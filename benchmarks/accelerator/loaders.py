"""Samples a second of the loaders and of data on the device.

python -m benchmarks.accelerator.loaders [--quick]

``benchmarks/throughput.py`` as it is: pictures of 224 pixels and sounds of 3 s,
torch's loader beside them if it is there.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import throughput
from benchmarks.accelerator.says import say


def main(argv: list[str]) -> int:
  """Measures and tells."""
  for entry in throughput.run("--quick" in argv, [], Path()):
    values = entry.values
    say(
      entry.name,
      seconds=values["seconds"]["median"],
      samples_per_second=values["samples_per_second"],
    )
  return 0


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
