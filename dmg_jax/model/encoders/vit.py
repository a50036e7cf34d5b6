"""Vision transformers as transformers and timm write them; DINOv2 is one.

Patches become tokens, behind a class token and any number of registers; each
layer has LayerNorm first, and with ``scaled`` a vector of weights after each
part (LayerScale). Layers are those of ``_transformer.py``.

The stages are the embeddings and then each layer. Maps are [b t d] ([b n t d]
for clips) and hold the class token, the registers and then the patches, row by
row.

Pictures may have any size of at least a patch: position embeddings are
interpolated (``_layers/patches.py``), pixels beyond the last whole patch are
not read.

Names of transformers' ``vit``, ``dinov2`` and ``dinov2_with_registers`` are
read, and those of timm's ``VisionTransformer`` (``blocks.0.attn.qkv``), these
with or without config.json: sizes follow from the shapes. Masked patches' token
and poolers that are not used are left out; ``classifier`` or ``head`` becomes
``project`` if it has ``features`` classes.

Reference: Dosovitskiy et al., "An image is worth 16x16 words", ICLR 2021;
Oquab et al., "DINOv2", TMLR 2024; Darcet et al., "Vision transformers need
registers", ICLR 2024. Code: huggingface/transformers, timm.

Deviation: no stochastic depth.
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
from dmg_jax.model.encoders._tensors import transformer as tensors_
from dmg_jax.model.encoders._tensors import vit as tensors_of

POOLINGS = ("cls", "pooled", "mean")
# What comes before the first layer.
_EMBEDDINGS = (
  "class_token", "registers", "position_embedding", "patch_embedding"
)  # fmt: skip
_HEAD = 64  # Usual size of an attention head.
_INIT = nn.initializers.normal(0.02)


class ViT(nn.Module):
  """Pictures to features; the defaults are ViT-B/16.

  uint8 pictures x become (x/255 - ``mean``)/``std``; others are used as they
  are. Frames of a clip are encoded as separate pictures and their features
  averaged.

  Attributes:
    features: size ``d`` of the output, by a linear layer ``project``; 0 means
      ``width``, without that layer.
    image_size: side of the square pictures of the position table, in pixels;
      the data may have other sizes.
    patch: side of patches in pixels.
    width: size of embeddings and layers.
    depth: number of layers.
    heads: number of attention heads; 0 means one for each 64 of ``width``.
    hidden: size of the hidden layer of each MLP.
    registers: number of tokens that no feature is read from.
    pooling: ``cls`` (the class token), ``pooled`` (tanh of a linear layer of
      the class token, as in ``ViTModel``) or ``mean`` (over patches).
    pool_first: the mean before the last LayerNorm, as timm's ``fc_norm``; only
      for ``mean``.
    scaled: each layer has LayerScale.
    gated: each MLP is SwiGLU.
    antialias: position embeddings are interpolated with antialiasing.
    bias: queries, keys and values have a bias.
    dropout: dropout rate of the embeddings and of the output of each part of a
      layer.
    attention_dropout: dropout rate of attention weights.
    epsilon: epsilon of LayerNorm.
    activation: ``gelu``, ``gelu_new``, ``relu``, ...
    mean, std: of the pretraining pictures, per channel, scaled to [0, 1].
    model_type: as in config.json, for export: ``vit``, ``dinov2`` or
      ``dinov2_with_registers``.
    pretrained: Hugging Face name or folder of the initial weights.
    dtype: dtype of the computation, ``float32`` or ``bfloat16``; weights and
      features are float32.
    remat: compute the activations of layers anew for the gradient, which takes
      less memory and more time.
  """

  kinds = ("image", "video")
  axes = 3  # A sample has at least [h w c].
  features: int = 0
  image_size: int = 224
  patch: int = 16
  width: int = 768
  depth: int = 12
  heads: int = 0
  hidden: int = 3072
  registers: int = 0
  pooling: str = "cls"
  pool_first: bool = False
  scaled: bool = False
  gated: bool = False
  antialias: bool = False
  bias: bool = True
  dropout: float = 0.0
  attention_dropout: float = 0.0
  epsilon: float = 1e-6
  activation: str = "gelu"
  mean: Sequence[float] = (0.5, 0.5, 0.5)
  std: Sequence[float] = (0.5, 0.5, 0.5)
  model_type: str = "vit"
  pretrained: str = ""
  dtype: str = "float32"
  remat: bool = False

  @property
  def stages(self) -> int:
    """The embeddings and each layer."""
    return self.depth + 1

  def layers_above(self, path: tuple[str, ...]) -> int:
    """Layers from a weight to the features, see ``fine_tuning``."""
    return transformer.layers_above(path, self.depth, _EMBEDDINGS)

  @property
  def first_kernel(self) -> tuple[str, ...]:
    """Path of the kernel that reads the input channels."""
    return ("patch_embedding", "kernel")

  @property
  def head_count(self) -> int:
    """Number of attention heads.

    Raises:
      ValueError: ``heads`` is 0 and ``width`` no multiple of 64.
    """
    if not self.heads and self.width % _HEAD:
      raise InputError(
        f"the number of attention heads is not known for width {self.width}: "
        "set heads (weights with timm's names do not tell it)"
      )
    return self.heads or self.width // _HEAD

  @nn.compact
  def __call__(
    self,
    x: UInt8[Array, "b ... h w c"] | Float[Array, "b ..."],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    self._check()
    last = self.stages + 1 if last is None else last
    if first == 0:
      x = self._embed(x, train)
    for i in range(max(first, 1), min(last, self.stages)):
      block = transformer.layer(
        self, i - 1, heads=self.head_count, norm_first=True
      )
      x = block(x, None, train)
    if last <= self.stages:
      return x
    x = transformer.project(self, self._pool(x))
    return x.mean(axis=tuple(range(1, x.ndim - 1)))

  def _check(self) -> None:
    heads = self.head_count
    transformer.check(self.clone(heads=heads, parent=None))
    for name, known in (
      ("pooling", POOLINGS),
      ("model_type", tensors_of.FAMILY),
    ):
      if getattr(self, name) not in known:
        raise unknown(name, getattr(self, name), known)
    if self.pool_first and self.pooling != "mean":
      raise InputError(
        f"pool_first needs pooling 'mean', got {self.pooling!r}: the weights "
        "have no LayerNorm for single tokens"
      )

  def _embed(self, x: Array, train: bool) -> Float[Array, "b ... t d"]:
    grid = (x.shape[-3] // self.patch, x.shape[-2] // self.patch)
    if min(grid) < 1:
      raise InputError(
        f"pictures of {x.shape[-3]} × {x.shape[-2]} pixels are smaller than a "
        f"patch of {self.patch}: raise the data's image_size"
      )
    x = patches.normalised(x, self.mean, self.std)
    size = (self.patch, self.patch)
    x = patches.convolution(self.width, size, size, self.dtype)(x)
    x = x.reshape(*x.shape[:-3], -1, self.width)
    side = self.image_size // self.patch
    table = self.param(
      "position_embedding", _INIT, (side * side + 1, self.width), jnp.float32
    )
    places = patches.positions(table[1:], (side, side), grid, self.antialias)
    x += transformer.aligned(places, x)
    token = self.param("class_token", _INIT, (self.width,), jnp.float32)
    tokens = [(token + table[0])[None], x]
    if self.registers:
      shape = (self.registers, self.width)
      tokens.insert(1, self.param("registers", _INIT, shape, jnp.float32))
    tokens[:-1] = [
      jnp.broadcast_to(transformer.aligned(t, x), (*x.shape[:-2], *t.shape))
      for t in tokens[:-1]
    ]
    x = jnp.concatenate(tokens, axis=-2)
    return nn.Dropout(self.dropout, deterministic=not train)(x)

  def _pool(self, x: Float[Array, "b ... t d"]) -> Float[Array, "b ... d"]:
    norm = transformer.norm(self.epsilon, self.dtype, "last_norm")
    if self.pooling == "mean":
      x = x[..., 1 + self.registers :, :]
      means = x.mean(axis=-2) if self.pool_first else norm(x).mean(axis=-2)
      return norm(means) if self.pool_first else means
    x = norm(x[..., 0, :])
    if self.pooling == "pooled":
      x = jnp.tanh(transformer.dense(self.width, self.dtype, "pooler")(x))
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
    shape = (1, self.image_size, self.image_size, channels)
    example = jax.ShapeDtypeStruct(shape, jnp.float32)
    shapes = tensors_.shapes_of(self, example)
    return {"params": tensors_of.read(self, shapes, tensors)}

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """{name: array} and config.json for ``AutoModel`` of transformers.

    ``project`` belongs to the task and is left out. What transformers has no
    class for (``pool_first``, registers without LayerScale) is written with
    timm's names.
    """
    return tensors_of.write(self, variables["params"])
