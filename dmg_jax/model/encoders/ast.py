"""Audio spectrogram transformers, as transformers writes them.

A vision transformer on a spectrogram: overlapping patches, low frequencies
first, behind a class token and a distillation token; features are the mean of
these two after the last LayerNorm. Layers are those of ``_transformer.py``.

Input is [b f t c] of any size, as data of the kind ``audio`` have it: position
embeddings are interpolated (``_layers/patches.py``) from the ``bins`` ×
``frames`` of the weights. The published weights were trained on 128 mel bands
of 10 ms frames, with mean 0 and deviation ½; ours are linear in frequency, with
deviation 1. With ``nperseg=400``, ``noverlap=240`` at 16 kHz frames are as far
apart as theirs. Who has log-mel bands may give them as arrays [f t 1], with the
data's ``standardise=false``.

The stages are the embeddings and then each layer. Maps are [b t d]: both
tokens, then the patches, row by row.

Reference: Gong, Chung, Glass, "AST: Audio spectrogram transformer", Interspeech
2021. Code: huggingface/transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dmg_jax.errors import InputError
from dmg_jax.model.encoders import _transformer as transformer
from dmg_jax.model.encoders._layers import patches
from dmg_jax.model.encoders._tensors import ast as tensors_of
from dmg_jax.model.encoders._tensors import transformer as tensors_

_EMBEDDINGS = (
  "class_token", "distillation_token", "position_embedding", "patch_embedding"
)  # fmt: skip
_INIT = nn.initializers.normal(0.02)


class AST(nn.Module):
  """Spectrograms to features; the defaults are those of the published weights.

  Attributes:
    features: size ``d`` of the output, by a linear layer ``project``; 0 means
      ``width``, without that layer.
    bins, frames: height and width of the spectrograms of the position table;
      the data may have other sizes.
    patch: side of patches.
    frequency_stride, time_stride: distances between patches.
    width: size of embeddings and layers.
    depth: number of layers.
    heads: number of attention heads.
    hidden: size of the hidden layer of each MLP.
    bias: queries, keys and values have a bias.
    dropout: dropout rate of the embeddings and of the output of each part of a
      layer.
    attention_dropout: dropout rate of attention weights.
    epsilon: epsilon of LayerNorm.
    activation: ``gelu``, ``gelu_new``, ``relu``, ...
    pretrained: Hugging Face name or folder of the initial weights.
    dtype: dtype of the computation, ``float32`` or ``bfloat16``; weights and
      features are float32.
    remat: compute the activations of layers anew for the gradient, which takes
      less memory and more time.
  """

  kinds = ("audio", "array")
  axes = 3  # A sample has [f t c].
  features: int = 0
  bins: int = 128
  frames: int = 1024
  patch: int = 16
  frequency_stride: int = 10
  time_stride: int = 10
  width: int = 768
  depth: int = 12
  heads: int = 12
  hidden: int = 3072
  bias: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  epsilon: float = 1e-12
  activation: str = "gelu"
  pretrained: str = ""
  dtype: str = "float32"
  remat: bool = False

  @property
  def stages(self) -> int:
    """The embeddings and each layer."""
    return self.depth + 1

  @property
  def first_kernel(self) -> tuple[str, ...]:
    """Path of the kernel that reads the input channels."""
    return ("patch_embedding", "kernel")

  def layers_above(self, path: tuple[str, ...]) -> int:
    """Layers from a weight to the features, see ``fine_tuning``."""
    return transformer.layers_above(path, self.depth, _EMBEDDINGS)

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b f t c"] | Float[Array, "b t d"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    transformer.check(self)
    last = self.stages + 1 if last is None else last
    if first == 0:
      x = self._embed(x, train)
    for i in range(max(first, 1), min(last, self.stages)):
      x = transformer.layer(self, i - 1, norm_first=True)(x, None, train)
    if last <= self.stages:
      return x
    x = transformer.norm(self.epsilon, self.dtype, "last_norm")(x[:, :2])
    return transformer.project(self, x.mean(axis=1))

  def _grid(self, height: int, width: int) -> tuple[int, int]:
    """Patches of a spectrogram along frequency and time."""
    rows = (height - self.patch) // self.frequency_stride + 1
    return rows, (width - self.patch) // self.time_stride + 1

  def _embed(self, x: Array, train: bool) -> Float[Array, "b t d"]:
    if x.ndim != 4 or min(x.shape[1:3]) < self.patch:
      raise InputError(
        f"a sample of shape {list(x.shape[1:])} has no patch of {self.patch} × "
        f"{self.patch}: raise the data's seconds or nperseg"
      )
    b, height, width, _ = x.shape
    x = patches.convolution(
      self.width,
      (self.patch, self.patch),
      (self.frequency_stride, self.time_stride),
      self.dtype,
    )(x).reshape(b, -1, self.width)
    old = self._grid(self.bins, self.frames)
    shape = (2 + old[0] * old[1], self.width)
    table = self.param("position_embedding", _INIT, shape, jnp.float32)
    places = patches.positions(table[2:], old, self._grid(height, width))
    x += places[None].astype(x.dtype)
    tokens = jnp.stack(
      [
        self.param(name, _INIT, (self.width,), jnp.float32)
        for name in ("class_token", "distillation_token")
      ]
    )
    tokens = (tokens + table[:2]).astype(x.dtype)[None]
    tokens = jnp.broadcast_to(tokens, (b, *tokens.shape[1:]))
    x = jnp.concatenate([tokens, x], axis=1)
    return nn.Dropout(self.dropout, deterministic=not train)(x)

  @classmethod
  def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that follow from a config.json of transformers.

    Raises:
      ValueError: the model belongs to another family.
    """
    return tensors_of.options_of(config)

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params": ...}`` from the tensors of a file, without ``project``.

    Raises:
      ValueError: tensors are missing, left over, or have other shapes.
    """
    channels = tensors_of.channels_of(tensors)
    shape = (1, self.bins, self.frames, channels)
    example = jax.ShapeDtypeStruct(shape, jnp.float32)
    shapes = tensors_.shapes_of(self, example)
    return {"params": tensors_of.read(shapes, tensors)}

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """{name: array} and config.json for ``AutoModel`` of transformers.

    ``project`` belongs to the task and is left out.
    """
    return tensors_of.write(self, variables["params"])
