r"""Swin transformers as transformers and timm write them.

Patches become tokens on a grid; each stage but the first begins by merging 2×2
tokens into one of twice the width. Layers attend within windows of w×w tokens,
with a learned bias for each offset between two tokens and head,

.. math:: \mathrm{softmax}\big(q k^\top / \sqrt{d} + B\big)\, v.

Every other layer of a stage shifts the windows by w//2; tokens that only the
cyclic shift made neighbours do not see each other. Where the grid is not larger
than a window there is one window of its size and no shift. LayerNorm comes
first. Features are the mean over the last, normalised map.

The stages are those of the network, with maps [b h w c]. Pictures may have any
size: pixels and tokens are padded with zeros at the right and below, as in
transformers.

Names of transformers' ``swin`` and of timm's ``swin_*`` are read
(``_tensors/swin.py``), the latter with or without config.json: all sizes follow
from the shapes. ``classifier`` or ``head`` becomes ``project`` if it has
``features`` classes. Swin V2 is another network and refused.

Reference: Liu et al., "Swin transformer", ICCV 2021. Code:
huggingface/transformers, timm, microsoft/Swin-Transformer.

Deviation: a grid smaller than a window uses the part of its bias table that it
needs; transformers refuses such pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from dmg_jax.errors import InputError, unknown
from dmg_jax.model.encoders import _transformer as transformer
from dmg_jax.model.encoders._layers import patches
from dmg_jax.model.encoders._tensors import swin as tensors_of
from dmg_jax.model.encoders._tensors import transformer as tensors_
from dmg_jax.model.encoders.resnet import IMAGENET_MEAN, IMAGENET_STD

_EMBEDDINGS = ("patch_embedding", "patch_norm")
_INIT = nn.initializers.normal(0.02)
_EPSILON = 1e-5  # Of the norms of patches and mergings.


class Swin(nn.Module):
  """Pictures to features; the defaults are Swin-T.

  uint8 pictures x become (x/255 - ``mean``)/``std``; others are used as they
  are. Frames of a clip are separate pictures until the final mean.

  Attributes:
    features: size ``d`` of the output, by a linear layer ``project``; 0 means
      the width of the last stage, without that layer.
    patch: side of patches in pixels.
    width: of tokens in the first stage; it doubles with each.
    depths: number of layers of each stage.
    heads: number of attention heads of each stage.
    windows: side of windows of each stage, in tokens.
    ratio: size of the hidden layer of each MLP, in widths.
    bias: queries, keys and values have a bias.
    dropout: dropout rate of the embeddings and of the output of each part of a
      layer.
    attention_dropout: dropout rate of attention weights.
    drop_path: chance to leave out a part of the last layer for a sample in
      training; it grows with depth from 0.
    epsilon: epsilon of LayerNorm in layers and at the end.
    activation: ``gelu``, ``gelu_new``, ``relu``, ...
    mean, std: of the pretraining pictures, per channel, scaled to [0, 1].
    pretrained: Hugging Face name or folder of the initial weights.
    dtype: dtype of the computation, ``float32`` or ``bfloat16``; weights and
      features are float32.
    remat: compute the activations of layers anew for the gradient, which takes
      less memory and more time.
  """

  kinds = ("image", "video")
  axes = 3  # A sample has at least [h w c].
  features: int = 0
  patch: int = 4
  width: int = 96
  depths: Sequence[int] = (2, 2, 6, 2)
  heads: Sequence[int] = (3, 6, 12, 24)
  windows: Sequence[int] = (7, 7, 7, 7)
  ratio: float = 4.0
  bias: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  drop_path: float = 0.1
  epsilon: float = 1e-5
  activation: str = "gelu"
  mean: Sequence[float] = IMAGENET_MEAN
  std: Sequence[float] = IMAGENET_STD
  pretrained: str = ""
  dtype: str = "float32"
  remat: bool = False

  @property
  def stages(self) -> int:
    """Number of stages that return maps."""
    return len(self.depths)

  @property
  def first_kernel(self) -> tuple[str, ...]:
    """Path of the kernel that reads the input channels."""
    return ("patch_embedding", "kernel")

  def layers_above(self, path: tuple[str, ...]) -> int:
    """Layers from a weight to the features, see ``fine_tuning``.

    Merging patches counts as part of the layer that follows.
    """
    if path[0].startswith("merge_"):
      stage = int(path[0].removeprefix("merge_"))
      return sum(self.depths[stage:])
    return transformer.layers_above(path, sum(self.depths), _EMBEDDINGS)

  @nn.compact
  def __call__(
    self,
    x: UInt8[Array, "b ... h w c"] | Float[Array, "b ... h w c"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    self._check()
    last = self.stages + 1 if last is None else last
    before = x.shape[:-3]
    if first < self.stages:
      x = x.reshape(-1, *x.shape[-3:])
      if first == 0:
        x = self._embed(x, train)
      for i in range(first, min(last, self.stages)):
        x = self._stage(i, x, train)
      x = x.reshape(*before, *x.shape[1:])
    if last <= self.stages:
      return x
    x = transformer.norm(self.epsilon, self.dtype, "last_norm")(x)
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    x = x.mean(axis=tuple(range(1, x.ndim - 1)))
    return transformer.project(self, x)

  def _check(self) -> None:
    for name, known in (
      ("activation", transformer.ACTIVATIONS),
      ("dtype", transformer.DTYPES),
    ):
      if getattr(self, name) not in known:
        raise unknown(name, getattr(self, name), known)
    if not len(self.depths) == len(self.heads) == len(self.windows):
      raise InputError(
        "depths, heads and windows need one number for each stage, got "
        f"{len(self.depths)}, {len(self.heads)} and {len(self.windows)}"
      )
    for i, heads in enumerate(self.heads):
      if heads < 1 or self.width * 2**i % heads:
        raise InputError(
          f"width {self.width * 2**i} of stage {i} must be a multiple of its "
          f"heads, got {heads}"
        )
    for name in ("dropout", "attention_dropout", "drop_path"):
      if not 0 <= getattr(self, name) < 1:
        value = getattr(self, name)
        raise InputError(f"{name} must lie in [0, 1), got {value!r}")

  def _embed(self, x: Array, train: bool) -> Float[Array, "n h w c"]:
    x = patches.normalised(x, self.mean, self.std)
    size = (self.patch, self.patch)
    x = patches.convolution(self.width, size, size, self.dtype)(
      _padded(x, self.patch)
    )
    x = transformer.norm(_EPSILON, self.dtype, "patch_norm")(x)
    return nn.Dropout(self.dropout, deterministic=not train)(x)

  def _stage(self, i: int, x: Array, train: bool) -> Array:
    if i:
      x = _Merge(self.dtype, name=f"merge_{i}")(x)
    kind = transformer.remat(_Layer, 2) if self.remat else _Layer
    for j in range(self.depths[i]):
      number = sum(self.depths[:i]) + j
      share = number / max(sum(self.depths) - 1, 1)
      x = kind(
        self.heads[i],
        round(self.ratio * self.width * 2**i),
        self.windows[i],
        self.windows[i] // 2 if j % 2 else 0,
        self.activation,
        self.epsilon,
        self.bias,
        self.dropout,
        self.attention_dropout,
        self.drop_path * share,
        self.dtype,
        name=f"layer_{number}",
      )(x, train)
    return x

  @classmethod
  def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that follow from a config.json of transformers.

    Raises:
      ValueError: the model belongs to another family.
    """
    return tensors_of.options_of(config)

  @classmethod
  def options_of_folder(cls, folder: Path) -> dict[str, Any]:
    """The options that follow from a folder of transformers or timm.

    Raises:
      ValueError: the model belongs to another family.
    """
    return tensors_of.options_of_folder(folder)

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params": ...}`` from the tensors of a file.

    Raises:
      ValueError: tensors are missing, left over, or have other shapes.
    """
    channels = tensors_of.channels_of(tensors)
    example = jax.ShapeDtypeStruct((1, 32, 32, channels), jnp.float32)
    shapes = tensors_.shapes_of(self, example)
    return {"params": tensors_of.read(self, shapes, tensors)}

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """{name: array} and config.json for ``AutoModel`` of transformers.

    ``project`` belongs to the task and is left out. Windows that differ are
    written with timm's names.
    """
    return tensors_of.write(self, variables["params"])


class _Merge(nn.Module):
  """2×2 tokens to one: LayerNorm and a linear layer of all their numbers."""

  dtype: str

  @nn.compact
  def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n i j d"]:
    x = _padded(x, 2)
    n, h, w, c = x.shape
    x = x.reshape(n, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 4, 2, 5)
    x = x.reshape(n, h // 2, w // 2, 4 * c)
    x = transformer.norm(_EPSILON, self.dtype, "norm")(x)
    return transformer.dense(2 * c, self.dtype, "reduction", False)(x)


class _Layer(nn.Module):
  """Attention within windows and an MLP; see the module."""

  heads: int
  hidden: int
  window: int
  shift: int
  activation: str
  epsilon: float
  bias: bool
  dropout: float
  attention_dropout: float
  drop_path: float
  dtype: str

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    y = transformer.norm(self.epsilon, self.dtype, "attention_norm")(x)
    x = x + self._dropped(self._windows(y, train), train)
    y = transformer.norm(self.epsilon, self.dtype, "output_norm")(x)
    y = transformer.dense(self.hidden, self.dtype, "hidden")(y)
    y = transformer.ACTIVATIONS[self.activation](y)
    y = transformer.dense(x.shape[-1], self.dtype, "output")(y)
    return x + self._dropped(y, train)

  def _dropped(self, x: Array, train: bool) -> Array:
    x = nn.Dropout(self.dropout, deterministic=not train)(x)
    whole = nn.Dropout(
      self.drop_path, broadcast_dims=(1, 2, 3), deterministic=not train
    )
    return whole(x)

  def _windows(self, x: Float[Array, "n h w c"], train: bool) -> Array:
    _, height, width, c = x.shape
    size = min(self.window, height, width)
    shift = self.shift if min(height, width) > self.window else 0
    x = jnp.roll(_padded(x, size), (-shift, -shift), (1, 2))
    n, h, w, _ = x.shape
    x = x.reshape(n, h // size, size, w // size, size, c)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, -1, size * size, c)
    mask = jnp.asarray(_mask(h, w, size, shift)) if shift else None
    bias = self._bias(size).astype(x.dtype)
    x = transformer.attention(self, x, train, mask, bias)
    x = x.reshape(n, h // size, w // size, size, size, c)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return jnp.roll(x, (shift, shift), (1, 2))[:, :height, :width]

  def _bias(self, size: int) -> Float[Array, "1 1 _ t t"]:
    """What the places of two tokens of a window add to their scores."""
    shape = ((2 * self.window - 1) ** 2, self.heads)
    table = self.param("position_bias", _INIT, shape, jnp.float32)
    return table[_offsets(size, self.window)].transpose(2, 0, 1)[None, None]


def _padded(x: Float[Array, "n h w c"], size: int) -> Array:
  """Zeros at the right and below, up to multiples of ``size``."""
  pads = (0, -x.shape[1] % size), (0, -x.shape[2] % size)
  return jnp.pad(x, ((0, 0), *pads, (0, 0))) if any(map(sum, pads)) else x


def _offsets(size: int, window: int) -> np.ndarray:
  """Rows of the bias table for each two tokens of a window, [t t]."""
  at = np.stack(np.divmod(np.arange(size * size), size))
  rows, columns = at[:, :, None] - at[:, None, :] + window - 1
  return rows * (2 * window - 1) + columns


def _mask(height: int, width: int, size: int, shift: int) -> np.ndarray:
  """Which tokens see each other in each window, bool [1 m 1 t t]."""

  def regions(length: int) -> np.ndarray:
    at = np.arange(length)
    return (at >= length - size).astype(int) + (at >= length - shift)

  grid = 3 * regions(height)[:, None] + regions(width)
  grid = grid.reshape(height // size, size, width // size, size)
  grid = grid.transpose(0, 2, 1, 3).reshape(-1, size * size)
  return (grid[:, :, None] == grid[:, None, :])[None, :, None]
