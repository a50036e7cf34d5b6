"""GeWu-Lab/OGM-GE_CVPR2022: ``train_epoch`` of its script on our tensors.

Used of the checkout: ``train_epoch`` of ``main.py``, ``ConcatFusion`` of
``models/fusion_modules.py``, ``weight_init`` of ``utils/utils.py``. Its data
sets and residual networks are not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from benchmarks.peers import checkout, towers
from benchmarks.peers.arrays import Arrays

SOURCE = "GeWu-Lab/OGM-GE_CVPR2022"
FILES = ("main.py", "models/fusion_modules.py", "utils/utils.py")
_FAITHFUL = {"alpha": 0.8, "faithful": True}
ROWS = {
  "Normal": ("concat", {}, "joint", {}),
  "OGM": ("concat", {}, "ogm_ge", {**_FAITHFUL, "noise": False}),
  "OGM_GE": ("concat", {}, "ogm_ge", _FAITHFUL),
}
STUBBED = (
  "dataset", "dataset.CramedDataset", "dataset.VGGSoundDataset",
  "dataset.dataset", "models.basic_model", "torch.utils.tensorboard",
)  # fmt: skip


class Model(nn.Module):
  """Two encoders and their fusion, by the names that the script looks for."""

  def __init__(self, encoders: dict[str, nn.Module], fusion: nn.Module):
    super().__init__()
    self.fusion_module = fusion
    self.audio_net, self.visual_net = encoders["audio"], encoders["visual"]

  def forward(self, audio, visual):
    return self.fusion_module(self.audio_net(audio), self.visual_net(visual))


class Wrapped(nn.Module):
  """In the place of ``DataParallel``: the model is its ``module``."""

  def __init__(self, module: nn.Module):
    super().__init__()
    self.module = module

  def forward(self, *inputs):
    return self.module(*inputs)


class Peer:
  """A row of this peer: epochs of training and predictions."""

  def __init__(self, root: Path, row: str, arrays: Arrays, steps: int):
    self._script = checkout.load("main")
    self._script.print = lambda *_: None
    fusion = checkout.load("models.fusion_modules").ConcatFusion(
      2 * towers.FEATURES, arrays.classes
    )
    inside = Model(towers.encoders(arrays), fusion)
    inside.apply(checkout.load("utils.utils").weight_init)
    self.model = Wrapped(inside)
    self._optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3)
    towers.decaying(self._optimiser, steps)
    self._args = argparse.Namespace(
      modulation=row,
      fusion_method="concat",
      alpha=0.8,
      modulation_starts=0,
      modulation_ends=50,
      use_tensorboard=False,
    )

  def epoch(self, number: int, batches: towers.Batches) -> None:
    self._script.train_epoch(
      self._args,
      number,
      self.model,
      torch.device("cpu"),
      batches,
      self._optimiser,
      checkout.Anything(),
    )

  def predict(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
    self.model.eval()
    with torch.no_grad():
      return self.model(data["audio"], data["visual"])[2].argmax(dim=1)
