r"""Residual networks for pictures, clips, spectrograms and optical flow.

A 7×7 convolution, a max pool and four layers of residual blocks,

.. math:: x \leftarrow \mathrm{ReLU}(F(x) + S(x)),

where F is two 3×3 convolutions (``depth`` 18, 34) or 1×1, 3×3, 1×1 (50 and
deeper), and S is the identity, or a 1×1 convolution where size or channels
change. The mean over time and space follows. Names and sizes match the state
dictionaries of torchvision and timm, so weights convert in both directions
(``_tensors/resnet.py``).

Input is [b h w c] or [b t h w c] with any number of channels. ``uint8``
pictures x become (x/255 - ``mean``)/``std`` per channel if these have one entry
per channel, otherwise (x/255 - ½)/½. Floating-point input is used as it is.

Deviations from He et al.:
1. In a bottleneck, the 3×3 convolution has the stride rather than the first
   1×1 convolution, as in torchvision and timm ("v1.5").
2. Frames of a clip are separate pictures in the batch; BatchNorm's statistics
   are over all frames of all samples.
3. With ``dtype="bfloat16"``, convolutions are computed in bfloat16; weights,
   statistics, the final mean and the features stay float32.

Reference: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition",
CVPR 2016.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from dmg_jax.errors import InputError, unknown
from dmg_jax.model.encoders._batch_norm import BatchNorm
from dmg_jax.model.encoders._layers.conv import Conv
from dmg_jax.model.encoders._layers.group_norm import GroupNorm
from dmg_jax.model.encoders._layers.pooling import max_pool_threes
from dmg_jax.model.encoders._tensors import resnet as tensors_of
from dmg_jax.model.encoders._transformer import remat

# {depth: number of residual blocks of each layer}
LAYOUTS = {
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}
NORMS = ("batch", "group", "none")
# ``None`` means the dtype of input and weights.
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet(nn.Module):
  """ResNet-18, -34, -50, -101 or -152.

  Attributes:
    depth: one of ``LAYOUTS``; 50 and deeper have bottlenecks.
    features: size ``d`` of the output, by a linear layer (the pretrained ``fc``
      if it has that size); 0 means the channels of the last layer (512, or 2048
      with bottlenecks), without a linear layer.
    norm: ``batch``, ``group`` (32 groups, or as many as divide the channels) or
      ``none``.
    pretrained: Hugging Face name or folder of weights; see ``pretrained.py``.
    width: channels of the first convolution; the layers have 1, 2, 4 and 8
      times as many (four times that with bottlenecks).
    blocks: number of residual blocks of each layer; empty means as ``depth``.
    widths: channels of the maps of each layer; empty means as ``width``.
    mean, std: mean and standard deviation per channel of the pretraining
      pictures, scaled to [0, 1].
    dtype: dtype of convolutions, ``float32`` or ``bfloat16``.
    remat: compute the activations of blocks anew for the gradient, which takes
      less memory and more time.
  """

  kinds = ("image", "audio", "video", "array")
  axes = 3  # A sample has at least [h w c].
  depth: int = 18
  features: int = 0
  norm: str = "batch"
  pretrained: str = ""
  width: int = 64
  blocks: Sequence[int] = ()
  widths: Sequence[int] = ()
  mean: Sequence[float] = IMAGENET_MEAN
  std: Sequence[float] = IMAGENET_STD
  dtype: str = "float32"
  remat: bool = False

  def __post_init__(self):
    for name, choices in (
      ("depth", LAYOUTS),
      ("norm", NORMS),
      ("dtype", DTYPES),
    ):
      if getattr(self, name) not in choices:
        raise unknown(name, getattr(self, name), choices)
    if self.widths and len(self.widths) != self.stages:
      raise InputError(
        f"ResNet needs as many widths as layers ({self.stages}), got "
        f"{tuple(self.widths)}"
      )
    super().__post_init__()

  @property
  def stages(self) -> int:
    """Number of stages that return maps: the layers."""
    return len(self.blocks or LAYOUTS[self.depth])

  @property
  def channels(self) -> tuple[int, ...]:
    """Channels of the maps of each layer."""
    most = self.width * (4 if self.depth >= 50 else 1)
    return tuple(self.widths) or tuple(most * 2**i for i in range(self.stages))

  @property
  def first_kernel(self) -> tuple[str, ...]:
    """Path of the kernel that reads the input channels."""
    return ("conv1", "kernel")

  @nn.compact
  def __call__(
    self,
    x: UInt8[Array, "b ... h w c"] | Float[Array, "b ... h w c"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    last = self.stages + 1 if last is None else last
    before = x.shape[:-3]
    if first < self.stages:
      x = x.reshape(-1, *x.shape[-3:])
      if first == 0:
        x = self._stem(self._scaled(x), train)
      for i in range(first, min(last, self.stages)):
        x = self._layer(i, x, train)
      x = x.reshape(*before, *x.shape[1:])
    if last <= self.stages:
      return x
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x.mean(axis=tuple(range(1, x.ndim - 1)))
    return nn.Dense(self.features, name="project")(x) if self.features else x

  def _scaled(self, x: Array) -> Array:
    if jnp.issubdtype(x.dtype, jnp.floating):
      return x
    c, mean, std = x.shape[-1], self.mean, self.std
    if len(mean) != c or len(std) != c:
      mean, std = (0.5,) * c, (0.5,) * c
    shape = (1,) * (x.ndim - 1) + (c,)
    m, s = (jnp.array(v, jnp.float32).reshape(shape) for v in (mean, std))
    return (x.astype(jnp.float32) / 255.0 - m) / s

  def _stem(self, x: Array, train: bool) -> Array:
    x = _conv(self, self.width, 7, 2, "conv1")(x)
    x = nn.relu(_norm(self, train, "bn1")(x))
    return max_pool_threes(x)

  def _layer(self, i: int, x: Array, train: bool) -> Array:
    kind = remat(_Block, 2) if self.remat else _Block
    for j in range((self.blocks or LAYOUTS[self.depth])[i]):
      x = kind(
        self.channels[i],
        stride=2 if i > 0 and j == 0 else 1,
        bottleneck=self.depth >= 50,
        norm=self.norm,
        dtype=self.dtype,
        name=f"layer{i + 1}_{j}",
      )(x, train)
    return x

  @classmethod
  def options_of(cls, config: dict[str, Any]) -> dict[str, Any]:
    """The options that follow from a ``config.json``; see ``Pretrained``."""
    return tensors_of.options_of(config, LAYOUTS)

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variables from tensors of timm, torchvision or transformers."""
    return tensors_of.read(self, tensors)

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and ``config.json`` in the naming of timm and torchvision."""
    return tensors_of.write(self, variables)


def _conv(like, features: int, size: int, stride: int, name: str) -> Conv:
  return Conv(
    features,
    (size, size),
    (stride, stride),
    padding=[(size // 2, size // 2)] * 2,
    use_bias=like.norm == "none",
    dtype=DTYPES[like.dtype],
    kernel_init=_INIT,
    name=name,
  )


def _norm(like, train: bool, name: str):
  if like.norm == "batch":
    return BatchNorm(train, name=name)
  if like.norm == "group":
    return functools.partial(_group_norm, name=name)
  return lambda x: x


def _group_norm(x: Array, name: str) -> Array:
  groups = math.gcd(32, x.shape[-1])
  return GroupNorm(groups, epsilon=1e-5, dtype=x.dtype, name=name)(x)


class _Block(nn.Module):
  """A residual block of two convolutions, or three with a bottleneck."""

  channels: int
  stride: int
  bottleneck: bool
  norm: str
  dtype: str

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    inner = self.channels // 4 if self.bottleneck else self.channels
    # Channels, size and stride of each convolution.
    layout = [(inner, 3, self.stride), (self.channels, 3, 1)]
    if self.bottleneck:
      layout = [(inner, 1, 1), layout[0], (self.channels, 1, 1)]
    y = x
    for i, (features, size, stride) in enumerate(layout, 1):
      y = _conv(self, features, size, stride, f"conv{i}")(y)
      y = _norm(self, train, f"bn{i}")(y)
      y = nn.relu(y) if i < len(layout) else y
    if self.stride != 1 or x.shape[-1] != self.channels:
      x = _conv(self, self.channels, 1, self.stride, "downsample_0")(x)
      x = _norm(self, train, "downsample_1")(x)
    return nn.relu(x.astype(y.dtype) + y)
