"""Large pieces of memory stay with the process."""

import json
import subprocess
import sys

import pytest

# Faults of a page at the second use of as much memory as the first.
_PROGRAM = """
import json, resource, sys
from dmg_jax.cli import memory
kept = memory.keep() if sys.argv[1] == "keep" else False
import numpy as np
def use():
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.ones(2**27, np.uint8)
  return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(json.dumps({"kept": kept, "faults": [use(), use()]}))
"""


def _faults(how):
  command = [sys.executable, "-c", _PROGRAM, how]
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  return json.loads(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc")
def test_the_second_use_of_as_much_memory_faults_no_page():
  kept, usual = _faults("keep"), _faults("leave")
  if not kept["kept"]:
    pytest.skip("no glibc here")
  assert usual["faults"][1] > 100
  assert kept["faults"][1] < usual["faults"][1] / 10


def test_other_systems_are_left_as_they_are(monkeypatch):
  from dmg_jax.cli import memory

  monkeypatch.setattr(sys, "platform", "darwin")
  assert not memory.keep()
