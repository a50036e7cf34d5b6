"""Tests on the device, tallied as they end.

python -m benchmarks.accelerator.selected [--quick]
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from benchmarks.accelerator.says import say

# The ladder of the hypergradient first. Left out: what counts FLOPs, which
# compilers for accelerators do not tell, and what trains in torch on a CPU.
_FILES = ("tests/bilevel", "tests/parity")
_LEFT_OUT = ("tests/bilevel/test_cost.py", "tests/parity/test_beside.py")
_QUICK = ("tests/bilevel/test_solvers.py", "tests/parity/test_golden_losses.py")
_AT_ONCE = 4  # Processes that share an accelerator.


class Tally:
  """Counts outcomes and keeps what failed."""

  def __init__(self):
    self.counts = {"passed": 0, "failed": 0, "skipped": 0}
    self.failures: list[dict[str, str]] = []

  def pytest_runtest_logreport(self, report) -> None:
    """A test's set-up, call or end."""
    told = report.when == "call" or report.outcome != "passed"
    if not told:
      return
    self.counts[report.outcome] += 1
    if report.failed:
      crash = getattr(report.longrepr, "reprcrash", None)
      why = crash.message if crash else str(report.longrepr)
      first = " ".join(why.split())[:300]
      self.failures.append({"test": report.nodeid, "why": first})
    self.tell()

  def tell(self) -> None:
    """Says how things stand."""
    say("tests", **self.counts, failures=self.failures)


def main(argv: list[str]) -> int:
  """Runs them and returns pytest's exit code."""
  import pytest

  root = Path(__file__).resolve().parents[2]
  os.chdir(root)
  if "--quick" in argv:
    arguments = list(_QUICK)
  else:
    arguments = [*_FILES, *(f"--ignore={f}" for f in _LEFT_OUT)]
    if importlib.util.find_spec("xdist") is not None:
      arguments += ["-n", str(_AT_ONCE)]
  options = ["-q", "--tb=short", "-p", "no:cacheprovider"]
  return int(pytest.main([*options, *arguments], plugins=[Tally()]))


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
