"""njustkmg/NeurIPS24-LFM: its script's functions on our tensors.

Used of the checkout: ``train_audio_video`` and ``getAlpha_Learnable`` (or
``getAlpha_Learnable_Fitted``) of ``Crema_epoch_learnable.py``, ``weight_init``
of ``utils/tools.py``. Its ``AVClassifier`` is rebuilt here: two encoders, two
heads, all five results. The 16 held-out samples are the first of outer.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.peers import checkout, towers
from benchmarks.peers.arrays import Arrays

SOURCE = "njustkmg/NeurIPS24-LFM"
FILES = ("Crema_epoch_learnable.py", "utils/tools.py")
# {row: (our fusion, its options, our method, its options)}
ROWS = {
  "learned": ("sum", {"mean": True}, "lfm_code", {}),
  "fitted": ("sum", {"mean": True}, "lfm_code", {"fitted": True}),
}
STUBBED = ("dataset.CREMA", "model.AudioVideo")


class Model(nn.Module):
  """Own heads; the sum of their logits first."""

  def __init__(self, encoders: dict[str, nn.Module], classes: int):
    super().__init__()
    self.audio_encoder, self.video_encoder = (
      encoders["audio"],
      encoders["visual"],
    )
    self.cls_a = nn.Linear(towers.FEATURES, classes)
    self.cls_v = nn.Linear(towers.FEATURES, classes)

  def forward(self, audio, video):
    a, v = self.audio_encoder(audio), self.video_encoder(video)
    one, two = self.cls_a(a), self.cls_v(v)
    return one + two, one, two, a, v


class Peer:
  """A row of this peer: epochs of training and predictions."""

  def __init__(self, root: Path, row: str, arrays: Arrays, steps: int):
    self._script = checkout.load("Crema_epoch_learnable")
    self._script.tqdm = lambda batches: batches
    self._script.print = lambda *_: None
    self._row, self._k, self._rate = row, [0.05, 0.95], 1e-4
    self.model = Model(towers.encoders(arrays), arrays.classes)
    self.model.apply(checkout.load("utils.tools").weight_init)
    self._optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3)
    towers.decaying(self._optimiser, steps)
    outer = towers.tensors(arrays, "outer")
    self._held = towers.triple({m: x[:16] for m, x in outer.items()})
    self._log = logging.getLogger("lfm")

  def epoch(self, number: int, batches: towers.Batches) -> None:
    script: Any = self._script
    if self._row == "fitted":
      self._k = script.getAlpha_Learnable_Fitted(number)
    else:
      self._k, self._rate = script.getAlpha_Learnable(
        number, self._held, self.model, self._k, self._rate
      )
    script.train_audio_video(
      number, batches, self.model, self._optimiser, self._log, self._k
    )

  def predict(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
    self.model.eval()
    with torch.no_grad():
      return self.model(data["audio"], data["visual"])[0].argmax(dim=1)
