"""Flags and variables that say which of several processes this one is."""

import re

import pytest

from dmg_jax.processes import Position, position_of

TORCHRUN = {
  "MASTER_ADDR": "node1",
  "MASTER_PORT": "29500",
  "WORLD_SIZE": "16",
  "RANK": "9",
  "LOCAL_RANK": "1",
}


def test_without_flags_there_is_one_process():
  assert position_of(None, None, None) is None


def test_variables_alone_change_nothing():
  """Jobs of an array run beside each other, whatever their launcher sets."""
  assert position_of(None, None, None, "off", TORCHRUN) is None


def test_torchrun():
  found = position_of(None, None, None, "auto", TORCHRUN)
  assert found == Position("node1:29501", 16, 9, 1)  # 29500 is the launcher's.


def test_a_launcher_of_one_process_a_machine():
  variables = {k: v for k, v in TORCHRUN.items() if k != "LOCAL_RANK"}
  assert position_of(None, None, None, "auto", variables).device is None


def test_flags_win_over_variables():
  found = position_of("10.0.0.1:1234", 2, 0, "auto", TORCHRUN)
  assert found == Position("10.0.0.1:1234", 2, 0)


def test_auto_without_variables_is_for_jax():
  assert position_of(None, None, None, "auto", {"SLURM_JOB_ID": "1"}) is None


@pytest.mark.parametrize(("flags", "message"), [
  (("10.0.0.1:1234", 2, None), r"--process_index missing.*needs? all of"),
  ((None, 2, 1), "--coordinator_address missing"),
  (("10.0.0.1", 2, 1), r"=10.0.0.1 must be HOST:PORT"),
  ((":1234", 2, 1), r"=:1234 must be HOST:PORT"),
  (("host:http", 2, 1), "must be HOST:PORT"),
  (("host:1", 0, 0), "--process_count must be at least 1, got 0"),
  (("host:1", 2, 2), r"--process_index must lie in \[0, 2\), got 2"),
  (("host:1", 2, -1), r"got -1"),
])  # fmt: skip
def test_flags_that_cannot_be(flags, message):
  with pytest.raises(ValueError, match=re.compile(message)):
    position_of(*flags)
