"""A ResNet in torch by the published architecture, in torchvision names."""

import torch
from torch import nn


def _unit(inside, out, size, stride):
  conv = nn.Conv2d(inside, out, size, stride, size // 2, bias=False)
  return conv, nn.BatchNorm2d(out)


class Block(nn.Module):
  """Two 3×3 convolutions, or 1×1, 3×3 (with the stride) and 1×1."""

  def __init__(self, inside, out, stride, bottleneck):
    super().__init__()
    inner = out // 4 if bottleneck else out
    layout = [(inside, inner, 3, stride), (inner, out, 3, 1)]
    if bottleneck:
      layout = [
        (inside, inner, 1, 1),
        (inner, inner, 3, stride),
        (inner, out, 1, 1),
      ]
    self.count = len(layout)
    for i, one in enumerate(layout, 1):
      conv, norm = _unit(*one)
      self.add_module(f"conv{i}", conv)
      self.add_module(f"bn{i}", norm)
    self.downsample = None
    if stride != 1 or inside != out:
      self.downsample = nn.Sequential(*_unit(inside, out, 1, stride))

  def forward(self, x):
    y = x
    for i in range(1, self.count + 1):
      y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
      y = torch.relu(y) if i < self.count else y
    return torch.relu(
      y + (x if self.downsample is None else self.downsample(x))
    )


class ResNet(nn.Module):
  """Features [b d], or logits with ``classes``, of pictures [b c h w]."""

  def __init__(
    self, blocks, widths, bottleneck, width=64, channels=3, classes=0
  ):
    super().__init__()
    self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
    self.bn1 = nn.BatchNorm2d(width)
    self.layers = len(blocks)
    inside = width
    for i, (count, out) in enumerate(zip(blocks, widths, strict=True)):
      layer = []
      for j in range(count):
        stride = 2 if i and not j else 1
        layer.append(Block(inside, out, stride, bottleneck))
        inside = out
      self.add_module(f"layer{i + 1}", nn.Sequential(*layer))
    self.fc = nn.Linear(inside, classes) if classes else nn.Identity()

  def forward(self, x):
    x = torch.relu(self.bn1(self.conv1(x)))
    x = nn.functional.max_pool2d(x, 3, 2, 1)
    for i in range(self.layers):
      x = getattr(self, f"layer{i + 1}")(x)
    return self.fc(x.mean(dim=(2, 3)))


def random_statistics(net, seed=0):
  """Weights and statistics that a trained net could have."""
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, value in net.state_dict().items():
      if value.is_floating_point():
        noise = torch.rand(value.shape, generator=generator, dtype=value.dtype)
        if "running_var" in name or (value.ndim == 1 and "weight" in name):
          value.copy_(noise + 0.5)
        elif value.ndim == 1:
          value.copy_(noise - 0.5)
        else:
          size = value[0].numel()
          value.copy_((noise - 0.5) * (12 / size) ** 0.5)
  return net


def arrays(net):
  """The state dictionary as numpy arrays."""
  return {k: v.detach().numpy() for k, v in net.state_dict().items()}
