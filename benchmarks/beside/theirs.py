"""The same models and steps in PyTorch, tuned for a CPU.

Maps are channels last, optimisers fused; ``torch.compile`` needs a compiler of
C++, which a user's machine may not have, and is left out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.beside import models

_LAST = torch.channels_last


class Conv(nn.Module):
  """As ``small.ConvNet``: 3×3 convolutions, GroupNorm, ReLU, max pooling."""

  def __init__(self, channels: int, widths=(16, 32, 64)):
    super().__init__()
    sizes = [channels, *widths]
    self.convs = nn.ModuleList(
      nn.Conv2d(a, b, 3, padding=1, bias=False)
      for a, b in zip(sizes[:-1], widths, strict=True)
    )
    self.norms = nn.ModuleList(nn.GroupNorm(8, w) for w in widths)
    self.end = nn.Linear(widths[-1], models.FEATURES)

  def forward(self, x):
    for conv, norm in zip(self.convs, self.norms, strict=True):
      x = F.max_pool2d(F.relu(norm(conv(x))), 2, ceil_mode=True)
    return self.end(x.mean(dim=(2, 3)))


class Wave(nn.Module):
  """Convolutions of nine taps, stride 4; as ``small.ConvNet1D``."""

  def __init__(self, widths=(16, 32, 64, 64), kernel=9, stride=4):
    super().__init__()
    sizes = [1, *widths]
    self.convs = nn.ModuleList(
      nn.Conv1d(a, b, kernel, stride, bias=False)
      for a, b in zip(sizes[:-1], widths, strict=True)
    )
    self.norms = nn.ModuleList(nn.GroupNorm(8, w) for w in widths)
    self.end = nn.Linear(widths[-1], models.FEATURES)
    self.kernel, self.stride = kernel, stride

  def forward(self, x):
    x = x[:, None]
    for conv, norm in zip(self.convs, self.norms, strict=True):
      more = max(self.kernel - 1 - (x.shape[-1] - 1) % self.stride, 0)
      x = F.pad(x, (more // 2, more - more // 2))  # As ``SAME`` of Flax.
      x = F.relu(norm(conv(x)))
    return self.end(x.mean(dim=2))


class Words(nn.Module):
  """The mean embedding and a hidden layer; as ``small.WordBag``."""

  def __init__(self, words=models.WORDS, width=128):
    super().__init__()
    self.table = nn.Embedding(words, width)
    self.hidden = nn.Linear(width, width)
    self.end = nn.Linear(width, models.FEATURES)

  def forward(self, x):
    real = (x > 0).float()[..., None]
    mean = (self.table(x) * real).sum(1) / real.sum(1).clamp(min=1)
    return self.end(F.relu(self.hidden(mean)))


class Block(nn.Module):
  """Two 3×3 convolutions with BatchNorm and a shortcut."""

  def __init__(self, inside: int, out: int, stride: int):
    super().__init__()
    self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
    self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
    self.bn1, self.bn2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
    self.short = nn.Identity()
    if stride != 1 or inside != out:
      conv = nn.Conv2d(inside, out, 1, stride, bias=False)
      self.short = nn.Sequential(conv, nn.BatchNorm2d(out))

  def forward(self, x):
    y = F.relu(self.bn1(self.conv1(x)), inplace=True)
    y = self.bn2(self.conv2(y))
    return F.relu(y.add_(self.short(x)), inplace=True)


class ResNet(nn.Module):
  """ResNet-18 without its head."""

  def __init__(self, channels: int):
    super().__init__()
    self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(64)
    sizes = [(64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)]
    blocks = []
    for inside, out, stride in sizes:
      blocks += [Block(inside, out, stride), Block(out, out, 1)]
    self.blocks = nn.Sequential(*blocks)

  def forward(self, x):
    x = F.relu(self.bn1(self.conv1(x)), inplace=True)
    return self.blocks(F.max_pool2d(x, 3, 2, 1)).mean(dim=(2, 3))


class Classifier(nn.Module):
  """Encoders and a linear head on what they give, side by side."""

  def __init__(self, known: models.Model):
    super().__init__()
    self.encoders = nn.ModuleDict()
    width = 0
    for m, kind in known.encoders.items():
      channels = known.shapes[m][-1]
      made = {
        "conv": lambda c: Conv(c),
        "words": lambda _: Words(),
        "wave": lambda _: Wave(),
        "resnet": lambda c: ResNet(c),
        "mlp": lambda c: nn.Sequential(
          nn.Linear(c, 128), nn.ReLU(), nn.Linear(128, models.FEATURES)
        ),
      }
      self.encoders[m] = made[kind](channels)
      width += 512 if kind == "resnet" else models.FEATURES
    self.head = nn.Linear(width, models.CLASSES)

  def forward(self, inputs):
    made = [encoder(inputs[m]) for m, encoder in self.encoders.items()]
    return self.head(torch.cat(made, 1))


def make(name: str) -> Callable[[int], float]:
  """A function that takes so many steps and returns the last loss."""
  torch.manual_seed(0)
  known = models.MODELS[name]
  inputs, labels = known.batch()
  given = {}
  for m, x in inputs.items():
    tensor = torch.from_numpy(x)
    given[m] = tensor.permute(0, 3, 1, 2) if tensor.ndim == 4 else tensor
  net = Classifier(known).to(memory_format=_LAST).train()
  own = {"lr": 1e-3, "fused": True}
  if known.optimiser == "sgd":
    own |= {"momentum": 0.9, "weight_decay": 1e-4}
    optimiser = torch.optim.SGD(net.parameters(), **own)
  else:
    optimiser = torch.optim.Adam(net.parameters(), **own)
  y = torch.from_numpy(labels).long()
  return functools.partial(_taken, net, optimiser, given, y)


def _taken(net, optimiser, inputs, labels, count: int) -> float:
  for _ in range(count):
    optimiser.zero_grad(set_to_none=True)
    loss = F.cross_entropy(net(inputs), labels)
    loss.backward()
    optimiser.step()
  return loss.item()
