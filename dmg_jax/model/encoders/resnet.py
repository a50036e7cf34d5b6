r"""Residual networks for pictures, clips, spectrograms and flow.

A 7×7 convolution, a max pool and four layers of residual blocks,

.. math:: x \leftarrow \mathrm{ReLU}(F(x) + S(x)),

F two 3×3 convolutions (``depth`` 18, 34) or 1×1, 3×3, 1×1 (50 and deeper), S
the identity, or a 1×1 convolution where size or channels change; then the mean
over time and place. Names and sizes are those of torchvision's and timm's
state dictionaries, so that weights go both ways (``_resnet_tensors.py``).

Input is [b h w c] or [b t h w c], any number of channels. ``uint8`` pictures x
become (x/255 - ``mean``)/``std`` a channel if these have as many entries as x
channels, otherwise (x/255 - ½)/½; floating-point input is taken as it is.

Deviations from He et al.:
1. The 3×3 convolution of a bottleneck has the stride, not the first 1×1 one,
   as in torchvision and timm ("v1.5").
2. Frames of a clip are pictures of their own in the batch; BatchNorm's
   statistics are over all frames of all samples.
3. With ``dtype="bfloat16"`` convolutions are computed in bfloat16; weights,
   statistics, the final mean and the features stay float32.

Reference: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition",
CVPR 2016.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from dmg_jax.errors import InputError, unknown
from dmg_jax.model.encoders import _resnet_tensors as tensors_of
from dmg_jax.model.encoders._batch_norm import BatchNorm

# Depth -> residual blocks of each layer.
LAYOUTS = {
  18: (2, 2, 2, 2),
  34: (3, 4, 6, 3),
  50: (3, 4, 6, 3),
  101: (3, 4, 23, 3),
  152: (3, 8, 36, 3),
}
NORMS = ("batch", "group", "none")
# ``None`` is the dtype of input and weights.
DTYPES = {"float32": None, "bfloat16": jnp.bfloat16}
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class ResNet(nn.Module):
  """ResNet-18, -34, -50, -101 or -152.

  Attributes:
    depth: of ``LAYOUTS``; 50 and deeper have bottlenecks.
    features: size ``d`` of the output, by a linear layer (the weights' ``fc``
      if it has that size); 0 is the last layer's channels (512, or 2048 with
      bottlenecks).
    norm: ``batch``, ``group`` (32 groups, or as many as divide) or ``none``.
    pretrained: Hugging Face name or folder of weights; see ``pretrained.py``.
    width: channels of the first convolution and, times 1, 2, 4, 8 (times four
      with bottlenecks), of the layers.
    blocks: residual blocks of each layer; empty is as ``depth`` says.
    widths: channels of each layer's maps; empty is as ``width`` says.
    mean, std: of the pretraining's pictures, per channel, in [0, 1].
    dtype: ``float32`` or ``bfloat16``, of convolutions.
  """

  kinds = ("image", "audio", "video", "array")
  axes = 3  # Of a sample, at least: [h w c].
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
    """Number of layers: each returns maps."""
    return len(self.blocks or LAYOUTS[self.depth])

  @property
  def channels(self) -> tuple[int, ...]:
    """Channels of each layer's maps."""
    most = self.width * (4 if self.depth >= 50 else 1)
    return tuple(self.widths) or tuple(most * 2**i for i in range(self.stages))

  @property
  def first_kernel(self) -> tuple[str, ...]:
    """Where the weights that meet the input's channels are."""
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
    pad: Any = ((1, 1), (1, 1))  # With -inf; typed as a string.
    return nn.max_pool(x, (3, 3), (2, 2), pad)

  def _layer(self, i: int, x: Array, train: bool) -> Array:
    for j in range((self.blocks or LAYOUTS[self.depth])[i]):
      x = _Block(
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
    """Options that follow from a ``config.json``; see ``Pretrained``."""
    return tensors_of.options_of(config, LAYOUTS)

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variables from timm's, torchvision's or transformers' names."""
    return tensors_of.read(self, tensors)

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors and ``config.json`` under timm's (torchvision's) names."""
    return tensors_of.write(self, variables)


def _conv(like, features: int, size: int, stride: int, name: str) -> nn.Conv:
  return nn.Conv(
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
    return _GroupNorm(name=name)
  return lambda x: x


class _GroupNorm(nn.Module):
  """32 groups, or as many of them as divide the channels."""

  @nn.compact
  def __call__(self, x: Array) -> Array:
    norm = nn.GroupNorm(math.gcd(32, x.shape[-1]), epsilon=1e-5)
    nn.share_scope(self, norm)
    return norm(x).astype(x.dtype)


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
