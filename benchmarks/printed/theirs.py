"""TMC as its authors released it, out of a checkout that the user has."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

from benchmarks.printed.sets import Part
from data_pipelines.errors import DataError

MODEL = Path("TMC ICLR") / "model.py"


def load(checkout: Path) -> ModuleType:
  """Their module of the model; ``Tensor.cuda`` becomes the identity.

  Raises:
    DataError: the checkout has no such file.
  """
  import torch

  path = checkout / MODEL
  if not path.is_file():
    raise DataError(
      f"{path} is missing: --checkout names a clone of hanmenghan/TMC"
    )
  spec = importlib.util.spec_from_file_location("released_tmc", path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[assignment]
  return module


def accuracy(
  module: ModuleType,
  train: Part,
  test: Part,
  *,
  rate: float,
  seed: int,
  epochs: int,
  batch: int,
  anneal: int,
  every: int = 0,
) -> tuple[float, float]:
  """As ``ours.accuracy``, by the loop of their script."""
  import torch

  torch.set_num_threads(1)  # Faster than two for layers this small.
  torch.manual_seed(seed)
  classes = int(train.labels.max()) + 1
  dims = [[x.shape[1]] for x in train.views.values()]
  model = module.TMC(classes, len(dims), dims, anneal)
  adam = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=1e-5)
  (inputs, labels), (unseen, truth) = _tensors(train), _tensors(test)
  scores = []
  for epoch in range(1, epochs + 1):
    for rows in torch.randperm(len(train)).split(batch):
      adam.zero_grad()
      own = {v: x[rows] for v, x in inputs.items()}
      model(own, labels[rows], epoch)[2].backward()
      adam.step()
    if epoch == epochs or (every and epoch % every == 0):
      with torch.no_grad():
        evidence = model(unseen, truth, epoch)[1]
      right = (evidence.argmax(1) == truth).numpy()
      scores.append(100 * float(np.mean(right)))
  return scores[-1], max(scores)


def _tensors(part: Part):
  import torch

  views = {v: torch.from_numpy(x) for v, x in enumerate(part.views.values())}
  return views, torch.from_numpy(part.labels.astype(np.int64))
