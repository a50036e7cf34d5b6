"""Encoders in torch of this project's architecture, and batches for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.beside import theirs
from benchmarks.peers.arrays import Arrays

FEATURES = 64
SLOTS = ("audio", "visual")  # What peers call their two modalities.


class Words(nn.Module):
  """A bag of words from what a peer made of the numbers of words."""

  def __init__(self, words: int):
    super().__init__()
    self.bag = theirs.Words(words)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    return self.bag(x.reshape(len(x), -1).long())


def encoders(arrays: Arrays) -> dict[str, nn.Module]:
  """{slot: encoder}; the slots stand for the modalities in their order."""
  made: dict[str, nn.Module] = {}
  for slot, (m, kind) in zip(SLOTS, arrays.kinds.items(), strict=True):
    if kind == "words":
      made[slot] = Words(arrays.words)
    else:
      channels = arrays.inputs["train"][m].shape[-1]
      made[slot] = theirs.Conv(channels)
      for norm in made[slot].norms:  # type: ignore[union-attr]
        norm.eps = 1e-6  # As ours.
    made[slot].apply(_as_ours)
  return made


def _as_ours(module: nn.Module) -> None:
  """The initial weights of Flax's layers, which a peer's script may replace."""
  if isinstance(module, nn.Linear | nn.Conv2d):
    std = module.weight[0].numel() ** -0.5 / 0.87962566  # Of a cut normal.
    nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
    if module.bias is not None:
      nn.init.zeros_(module.bias)
  elif isinstance(module, nn.Embedding):
    nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)


def tensors(arrays: Arrays, split: str) -> dict[str, torch.Tensor]:
  """{slot: [n c h w] or [n t]} and ``label``."""
  made = {}
  for slot, (m, kind) in zip(SLOTS, arrays.kinds.items(), strict=True):
    x = torch.from_numpy(arrays.inputs[split][m])
    if kind == "picture":
      x = x.permute(0, 3, 1, 2).contiguous()
    made[slot] = x
  made["label"] = torch.from_numpy(arrays.labels[split])
  return made


class Batches:
  """The batches of an epoch in a new order; the last, smaller one is left out.

  ``several``: as (audio, visual, label), the audio without its one channel,
  which peers add; otherwise dictionaries.
  """

  def __init__(self, data: dict[str, torch.Tensor], size: int, seed: int):
    self._data, self._size = data, size
    self._rng = np.random.default_rng(seed)
    self.several = True

  def __len__(self) -> int:
    return len(self._data["label"]) // self._size

  def __iter__(self) -> Iterator:
    order = self._rng.permutation(len(self._data["label"]))
    for k in range(len(self)):
      rows = torch.from_numpy(order[k * self._size : (k + 1) * self._size])
      batch = {name: x[rows] for name, x in self._data.items()}
      yield triple(batch) if self.several else batch


def triple(batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
  """A batch as peers' data sets give it: sound, picture, label."""
  sound = batch["audio"]
  if sound.ndim == 4:
    sound = sound.squeeze(1)
  return sound, batch["visual"], batch["label"]


def decaying(optimiser: torch.optim.Optimizer, steps: int) -> None:
  """The learning rate falls to zero by a cosine, after every step."""
  schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
  optimiser.register_step_post_hook(lambda *_: schedule.step())


class Run:
  """A run of a peer's row: epochs of training, their seconds, and accuracy."""

  def __init__(
    self, make: Callable[[], Any], arrays: Arrays, seed: int, size: int
  ):
    torch.manual_seed(seed)
    self._peer, self._arrays = make(), arrays
    self._batches = Batches(tensors(arrays, "train"), size, seed)

  def epoch(self, number: int) -> float:
    """Trains an epoch; its seconds."""
    start = time.perf_counter()
    self._peer.model.train()
    self._peer.epoch(number, self._batches)
    return time.perf_counter() - start

  def accuracy(self, split: str) -> float:
    """Of the weights now, in %."""
    data = tensors(self._arrays, split)
    right = (self._peer.predict(data) == data["label"]).numpy()
    return 100 * float(right.mean())
