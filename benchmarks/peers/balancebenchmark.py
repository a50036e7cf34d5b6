"""GeWu-Lab/BalanceBenchmark: its trainers and model on our tensors.

Used of the checkout: ``train_loop`` of ``baselineTrainer`` and ``OGMTrainer``,
``BaseClassifierModel`` with its fusion ``concat``. Encoders are ours, by way of
its name ``Transformer``, which hands inputs on as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import checkout, towers
from benchmarks.peers.arrays import Arrays

SOURCE = "GeWu-Lab/BalanceBenchmark"
_TRAINERS = "balancemm/trainer"
FILES = (
  "balancemm/models/avclassify_model.py",
  f"{_TRAINERS}/base_trainer.py",
  f"{_TRAINERS}/baseline_trainer.py",
  f"{_TRAINERS}/OGM_trainer.py",
)
ROWS = {
  "baseline": ("concat", {}, "joint", {}),
  # Its default settings of OGM, but for the first modulated epoch, 10 there.
  "OGM": ("concat", {}, "ogm_ge", {"alpha": 0.3, "end": 80}),
}
STUBBED = ("balancemm.evaluation.complex", "balancemm.evaluation.modalitys")
PACKAGES = tuple(
  f"balancemm{part}"
  for part in ("", ".models", ".encoders", ".evaluation", ".trainer", ".utils")
)


class Peer:
  """A row of this peer: epochs of training and predictions."""

  def __init__(self, root: Path, row: str, arrays: Arrays, steps: int):
    import sys

    encoders: Any = sys.modules["balancemm.encoders"]
    encoders.create_encoders = lambda _: towers.encoders(arrays)
    models: Any = checkout.load("balancemm.models.avclassify_model")
    self.model = models.BaseClassifierModel(
      {
        "n_classes": arrays.classes,
        "fusion": "concat",
        "encoders": {m: {"name": "Transformer"} for m in towers.SLOTS},
        "device": " ",
        "modality_size": dict.fromkeys(towers.SLOTS, towers.FEATURES),
      }
    )
    self._optimiser = torch.optim.Adam(self.model.parameters(), lr=1e-3)
    towers.decaying(self._optimiser, steps)
    name = {"baseline": "baseline", "OGM": "OGM"}[row]
    module = checkout.load(f"balancemm.trainer.{name}_trainer")
    settings = {
      "alpha": 0.3,
      "method": "OGM_GE",
      "modulation_starts": 0,
      "modulation_ends": 80,
      "modality": list(towers.SLOTS),
    }
    self._trainer: Any = getattr(module, f"{name}Trainer")(
      checkout.Anything(), settings, {"max_epochs": None}
    )
    self._trainer.progbar_wrapper = lambda batches, **_: batches
    self._trainer._format_iterable = lambda *_: None

  def epoch(self, number: int, batches: towers.Batches) -> None:
    batches.several = False
    self._trainer.current_epoch = number
    self._trainer.train_loop(self.model, self._optimiser, batches)

  def predict(self, data: dict[str, torch.Tensor]) -> torch.Tensor:
    self.model.eval()
    with torch.no_grad():
      self.model(data)
    return self.model.unimodal_result["output"].argmax(dim=1)
