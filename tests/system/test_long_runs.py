"""150 short epochs: memory, open files, threads and work a step stay level."""

import gc
import os
from pathlib import Path

import numpy as np
import pytest

import helpers
from configs import manifest
from dmg_jax.tracking.logging import Console
from dmg_jax.training import checkpoint, runner
from dmg_jax.training.loop import Trainer

PROC = Path("/proc/self")
EPOCHS, WARM = 150, 50
GROWTH = 16  # MiB from the epoch ``WARM`` on


def _resident():
  """MiB of this process in memory."""
  pages = int((PROC / "statm").read_text().split()[1])
  return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.fixture
def watched(monkeypatch):
  """What stands at the end of each epoch; every second one is written."""
  found, original = [], Trainer._end_epoch

  def end_epoch(self, state, epoch):
    state = original(self, state, epoch)
    for replica in self.replicas:
      replica.checkpoints._manager.wait_until_finished()
    if epoch % 10 == 9:
      gc.collect()
    programs = (self.programs.train, self.programs.outer)
    found.append(
      {
        "files": len(list((PROC / "fd").iterdir())),
        "threads": len(list((PROC / "task").iterdir())),
        "resident": _resident(),
        "compiled": sum(p._cache_size() for p in programs if p is not None),
        "step": self.step,
      }
    )
    return state

  monkeypatch.setattr(Trainer, "_end_epoch", end_epoch)
  monkeypatch.setattr(Trainer, "_due", lambda self: self.step % 4 == 0)
  return found


@pytest.mark.slow
@pytest.mark.skipif(not PROC.exists(), reason="what is counted is in /proc")
@pytest.mark.parametrize("recipe", ["lb", "joint,seeds=2,vmap_seeds=on"])
def test_level(quick, unrendered, watched, tmp_path, recipe):
  del quick, unrendered
  columns = ("sensor:array", "caption:text")
  table = helpers.write_manifest(tmp_path / "m", 60, columns)
  config = manifest.get_config(f"{recipe},epochs={EPOCHS},batch_size=16")
  config.update_from_flattened_dict(
    {
      "data.manifest": str(table),
      "data.dir": str(tmp_path / "data"),
      "encoders.array.widths": (8,),
      "encoders.text.width": 8,
    }
  )
  results = runner.run(config, tmp_path / "work", Console(quiet=True))
  assert results is not None and len(watched) == EPOCHS
  per_epoch = watched[0]["step"]
  assert [x["step"] for x in watched] == [
    per_epoch * (i + 1) for i in range(EPOCHS)
  ]
  # Threads of libraries come and go.
  for name, more in (("files", 0), ("threads", 3), ("compiled", 0)):
    found = [x[name] for x in watched[WARM:]]
    assert max(found[-50:]) <= max(found[:50]) + more, (name, found)
  early = np.median([x["resident"] for x in watched[WARM : WARM + 20]])
  late = np.median([x["resident"] for x in watched[-20:]])
  assert late - early < GROWTH, (early, late)
  folders = list((tmp_path / "work").rglob(checkpoint.FOLDER))
  assert folders and all(len(list(f.iterdir())) <= 5 for f in folders)
