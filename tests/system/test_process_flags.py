"""The command line of one of several processes: mistakes are one line."""

import re

import pytest


@pytest.mark.parametrize("mode", ["predict", "export", "report", "prepare"])
def test_what_one_process_does(command, tmp_path, mode):
  code, _, errors = command(
    "--config=configs/openmoji.py:joint",
    f"--mode={mode}",
    f"--workdir={tmp_path}",
    "--coordinator_address=127.0.0.1:1",
    "--process_count=2",
    "--process_index=0",
  )
  assert code == 1
  assert re.fullmatch(
    rf"error: --mode={mode} is done by one process.*\n", errors
  )


def test_incomplete_flags_are_one_line(command, tmp_path):
  code, _, errors = command(
    "--config=configs/openmoji.py:joint",
    f"--workdir={tmp_path}",
    "--process_count=2",
  )
  assert code == 1
  assert errors.startswith("error: --coordinator_address, --process_index")
  assert errors.count("\n") == 1


def test_no_launcher_is_one_line(command, tmp_path, monkeypatch):
  for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "MASTER_ADDR"):
    monkeypatch.delenv(name, raising=False)
  code, _, errors = command(
    "--config=configs/openmoji.py:joint",
    f"--workdir={tmp_path}",
    "--distributed=auto",
  )
  assert code == 1
  assert errors.startswith("error: --distributed=auto found no launcher")
  assert errors.count("\n") == 1
