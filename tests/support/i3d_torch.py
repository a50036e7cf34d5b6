"""The published I3D in torch, for parity."""

import torch

nn, F = torch.nn, torch.nn.functional

# The table of the paper's figure 3, as numbers of channels at width 64.
BLOCKS = {
  "3b": [192, 64, 96, 128, 16, 32, 32],
  "3c": [256, 128, 128, 192, 32, 96, 64],
  "4b": [480, 192, 96, 208, 16, 48, 64],
  "4c": [512, 160, 112, 224, 24, 64, 64],
  "4d": [512, 128, 128, 256, 24, 64, 64],
  "4e": [512, 112, 144, 288, 32, 64, 64],
  "4f": [528, 256, 160, 320, 32, 128, 128],
  "5b": [832, 256, 160, 320, 32, 128, 128],
  "5c": [832, 384, 192, 384, 48, 128, 128],
}


def same(x, kernel, stride):
  """TensorFlow's padding with zeros."""
  pads = []
  for n, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
    total = max((-(-n // s) - 1) * s + k - n, 0)
    pads += [total // 2, total - total // 2]
  return F.pad(x, pads)


def pool(x, kernel, stride):
  return F.max_pool3d(same(x, kernel, stride), kernel, stride)


class Unit(nn.Module):
  def __init__(self, i, o, kernel=1, stride=1):
    super().__init__()
    self.conv3d = nn.Conv3d(i, o, kernel, stride, bias=False)
    self.bn = nn.BatchNorm3d(o, eps=1e-3, momentum=0.01)

  def forward(self, x):
    x = same(x, self.conv3d.kernel_size, self.conv3d.stride)
    return F.relu(self.bn(self.conv3d(x)))


class Block(nn.Module):
  def __init__(self, i, a, b, c, d, e, f):
    super().__init__()
    self.b0, self.b1a, self.b1b = Unit(i, a), Unit(i, b), Unit(b, c, 3)
    self.b2a, self.b2b, self.b3b = Unit(i, d), Unit(d, e, 3), Unit(i, f)

  def forward(self, x):
    pooled = pool(x, (3, 3, 3), (1, 1, 1))
    three, five = self.b1b(self.b1a(x)), self.b2b(self.b2a(x))
    return torch.cat([self.b0(x), three, five, self.b3b(pooled)], 1)


class Reference(nn.Module):
  def __init__(self, channels=3, width=64):
    super().__init__()
    w = width / 64
    self.Conv3d_1a_7x7 = Unit(channels, int(64 * w), 7, 2)
    self.Conv3d_2b_1x1 = Unit(int(64 * w), int(64 * w))
    self.Conv3d_2c_3x3 = Unit(int(64 * w), int(192 * w), 3)
    for name, sizes in BLOCKS.items():
      setattr(self, f"Mixed_{name}", Block(*(int(n * w) for n in sizes)))

  def forward(self, x):
    x = pool(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
    x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x))
    x = pool(x, (1, 3, 3), (1, 2, 2))
    for name in BLOCKS:
      if name == "4b":
        x = pool(x, (3, 3, 3), (2, 2, 2))
      if name == "5b":
        x = pool(x, (2, 2, 2), (2, 2, 2))
      x = getattr(self, f"Mixed_{name}")(x)
    return x.mean((2, 3, 4))


def reference(channels, width, seed=0):
  """In float64, with statistics and weights of BatchNorm that do something."""
  torch.manual_seed(seed)
  net = Reference(channels, width).double()
  with torch.no_grad():
    for name, value in (*net.named_parameters(), *net.named_buffers()):
      if ".bn.weight" in name or "running_var" in name:
        value.uniform_(0.5, 1.5)
      elif ".bn.bias" in name or "running_mean" in name:
        value.uniform_(-0.2, 0.2)
  return net


def tensors_of(net):
  return {k: v.numpy().copy() for k, v in net.state_dict().items()}
