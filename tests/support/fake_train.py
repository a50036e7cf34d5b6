"""``train.run`` without training: a run's files with made-up results."""

from __future__ import annotations

import json

from dmg_jax.errors import DivergedError, UnsuitableError
from dmg_jax.tables import grid
from dmg_jax.training import runner
from fake_runs import metrics


class FakeTrain:
  """Stands for ``train.run``.

  Attributes:
    calls: ``<row>/<folder>`` of each run that was begun, in order.
    tested: whether each of them was to read test.
    faults: {``<row>/<folder>``: "diverged", "unsuitable", "error", "stop",
      "interrupt" or "killed"}.
    accuracy: fused accuracy of a config, on val and test.
  """

  def __init__(self, accuracy, modalities=("image", "text")):
    self.calls, self.tested, self.faults = [], [], {}
    self.roots = []
    self.accuracy, self.modalities = accuracy, modalities

  def run(self, config, folder, console=None, command=None):
    """As ``train.run``, to its files."""
    del console, command
    name = f"{folder.parent.name}/{folder.name}"
    self.calls.append(name)
    self.tested.append(config.eval.test)
    fault = self.faults.get(name)
    if fault == "unsuitable":
      raise UnsuitableError("this method compares two modalities, got 3")
    if fault == "error":
      raise ValueError("this fusion\ncannot | work_here")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "config.json", {"config": config.to_dict()})
    if fault == "stop":
      return None
    if fault == "diverged":
      raise DivergedError("loss is nan at step 3")
    if fault == "interrupt":
      raise KeyboardInterrupt
    return self._finish(config, folder, fault)

  def stand_in(self, monkeypatch):
    """Takes the place of training, of its data and of its reports."""
    monkeypatch.setattr(runner, "run_jobs", self.run_jobs)
    monkeypatch.setattr(grid.report, "write_report", _page)
    monkeypatch.setattr(grid, "_data", lambda config, cell: None)
    monkeypatch.setattr(grid.catalog, "hide", lambda dataset, options: dataset)
    monkeypatch.setattr(grid, "_forget", lambda: None)

  def run_jobs(self, jobs, root, console, command=None, *, done, dataset):
    """As ``train.run_jobs``, one after another."""
    self.roots.append(root)
    del dataset
    outcomes = []
    for config, folder in jobs:
      try:
        outcome = runner.finished(config, folder)
        outcome = outcome or self.run(config, folder, console, command)
      except DivergedError as error:
        outcome = error
      if outcome is None:
        return None
      done(folder, outcome)
      outcomes.append(outcome)
    return outcomes

  def _finish(self, config, folder, fault):
    scores = {"fused": self.accuracy(config)}
    scores |= {m: 0.3 + 0.1 * i for i, m in enumerate(self.modalities)}
    tree = metrics(scores)
    results = {"readout": "R1 split head", "val": tree}
    if config.eval.test:
      results["test"] = tree
    write(folder / "results.json", results)
    if fault == "killed":  # After the results, before the report.
      raise KeyboardInterrupt
    return results


def _page(folder):
  (folder / "report").mkdir(exist_ok=True)
  (folder / "report" / "report.html").write_text("page")


def write(path, content):
  path.write_text(json.dumps(content))
