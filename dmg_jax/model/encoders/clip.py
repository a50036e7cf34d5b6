"""CLIP's vision and text towers, with the options of a config.json.

The stages are the embeddings and then each layer. Maps are [b t d]; those of
pictures hold the class token first and then the patches, row by row. Maps of
texts are zero after the end-of-text token, by which later stages find it. Code
that changes a map between stages must keep those zeros (scaling channels does).

Pictures must have the size of the checkpoint, ``image_size``: position
embeddings are not resized.

Reference: Radford et al., "Learning transferable visual models from natural
language supervision", ICML 2021. Code: huggingface/transformers, openai/CLIP.

Deviations:
1. Fresh weights are drawn from N(0, 0.02²), not scaled by width and depth.
2. Features are not normalised, so that heads and fusions see their norm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from dmg_jax.errors import InputError
from dmg_jax.model.encoders import _clip
from dmg_jax.model.encoders import _transformer as transformer
from dmg_jax.model.encoders._tensors import transformer as tensors_

# Per channel (red, green, blue, in [0, 1]) over CLIP's training pictures.
MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
_OLD_EOS = 2  # Wrong id in old configs; the largest id of a text is meant.


class ClipVision(nn.Module):
  """Pictures to features by a vision transformer; defaults are ViT-B/32.

  uint8 pictures are normalised with CLIP's mean and standard deviation; others
  are used as they are. Frames of a clip are encoded as separate pictures and
  their features averaged.

  Attributes:
    features: size ``d`` of the output, by a linear layer ``project``; 0 means
      that of the tower, without that layer.
    projection: size of CLIP's visual projection; 0 means none, so that the
      features are those of the class token, of size ``width``.
    image_size: side of pictures in pixels.
    patch: side of patches in pixels.
    channels: number of channels of pictures.
    width: size of embeddings and layers.
    depth: number of layers.
    heads: number of attention heads.
    hidden: size of the hidden layer of each MLP.
    attention_dropout: dropout rate of attention weights.
    epsilon: epsilon of LayerNorm.
    activation: ``quick_gelu``, ``gelu``, ...
    pretrained: Hugging Face name or folder of the initial weights.
    dtype: dtype of the computation, ``float32`` or ``bfloat16``; weights and
      features are float32.
    remat: compute the activations of layers anew for the gradient, which takes
      less memory and more time.
  """

  kinds = ("image",)
  features: int = 0
  projection: int = 512
  image_size: int = 224
  patch: int = 32
  channels: int = 3
  width: int = 768
  depth: int = 12
  heads: int = 12
  hidden: int = 3072
  attention_dropout: float = 0.0
  epsilon: float = 1e-5
  activation: str = "quick_gelu"
  pretrained: str = ""
  dtype: str = "float32"
  remat: bool = False

  @property
  def stages(self) -> int:
    """The embeddings and each layer."""
    return self.depth + 1

  def layers_above(self, path: tuple[str, ...]) -> int:
    """Layers from a weight to the features, see ``fine_tuning``."""
    return transformer.layers_above(path, self.depth, _clip.EMBEDDINGS)

  @nn.compact
  def __call__(
    self,
    x: UInt8[Array, "b ... h w c"] | Float[Array, "b ..."],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    transformer.check(self)
    last = self.stages + 1 if last is None else last
    if first == 0:
      x = self._embed(x)
    for i in range(max(first, 1), min(last, self.stages)):
      x = transformer.layer(self, i - 1, norm_first=True)(x, None, train)
    if last <= self.stages:
      return x
    x = _clip.features(self, x[..., 0, :])
    return x.mean(axis=tuple(range(1, x.ndim - 1)))

  def _embed(self, x) -> Float[Array, "b ... t d"]:
    size, channels = self.image_size, self.channels
    if x.shape[-3:] != (size, size, channels):
      raise InputError(
        f"pictures have shape {x.shape[-3:]}, but the encoder needs "
        f"{(size, size, channels)}: set the data's image_size to {size}"
      )
    if not jnp.issubdtype(x.dtype, jnp.floating):
      mean, deviation = jnp.array((MEAN, DEVIATION), jnp.float32)
      x = x.astype(jnp.float32) / 255
      x = (x - transformer.aligned(mean, x)) / transformer.aligned(deviation, x)
    convolution = nn.Conv(
      self.width,
      (self.patch, self.patch),
      (self.patch, self.patch),
      "VALID",
      use_bias=False,
      dtype=self.dtype,
      kernel_init=nn.initializers.normal(0.02),
      name="patch_embedding",
    )
    x = convolution(x)
    x = x.reshape(*x.shape[:-3], -1, self.width)
    token = self.param(
      "class_embedding",
      nn.initializers.normal(0.02),
      (self.width,),
      jnp.float32,
    )
    token = jnp.broadcast_to(token, (*x.shape[:-2], 1, self.width))
    x = jnp.concatenate((token.astype(x.dtype), x), axis=-2)
    count = x.shape[-2]
    table = transformer.embed(count, self, "position_embedding")
    x += transformer.aligned(table(jnp.arange(count)), x)
    return transformer.norm(self.epsilon, self.dtype, "first_norm")(x)

  @classmethod
  def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that follow from the config of a CLIP(Vision)Model.

    Raises:
      ValueError: the model belongs to another family.
    """
    return _clip.options(config, "vision", _clip.VISION_KEYS)

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params": ...}`` from the tensors of a file, without ``project``.

    Names may have any prefix; other weights are ignored.

    Raises:
      ValueError: weights are missing or have other shapes.
    """
    shape = (1, self.image_size, self.image_size, self.channels)
    example = jax.ShapeDtypeStruct(shape, jnp.float32)
    shapes = tensors_.shapes_of(self, example)
    return {"params": tensors_.read(shapes, _clip.VISION, tensors)}

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """{name: array} and config.json for CLIP vision models of transformers.

    ``project`` belongs to the task and is left out.
    """
    config = _clip.config(self, "vision", _clip.VISION_KEYS)
    return tensors_.write(variables["params"], _clip.VISION), config


class ClipText(nn.Module):
  """Tokens to features by a causal transformer; defaults are ViT-B/32.

  Features are those of the first end-of-text token; whatever follows it, also
  padding, has no influence.

  Attributes:
    vocab_size: number of tokens.
    features: size ``d`` of the output, by a linear layer ``project``; 0 means
      that of the tower, without that layer.
    projection: size of CLIP's text projection; 0 means none, so that features
      have size ``width``.
    positions: length of the longest text, in tokens.
    width: size of embeddings and layers.
    depth: number of layers.
    heads: number of attention heads.
    hidden: size of the hidden layer of each MLP.
    attention_dropout: dropout rate of attention weights.
    epsilon: epsilon of LayerNorm.
    activation: ``quick_gelu``, ``gelu``, ...
    eos: id of the end-of-text token; 2 means the largest id in the text, which
      is how transformers reads old configs.
    pretrained: Hugging Face name or folder of the initial weights.
    dtype: dtype of the computation, ``float32`` or ``bfloat16``; weights and
      features are float32.
    remat: compute the activations of layers anew for the gradient, which takes
      less memory and more time.
  """

  kinds = ("text",)
  vocab_size: int
  features: int = 0
  projection: int = 512
  positions: int = 77
  width: int = 512
  depth: int = 12
  heads: int = 8
  hidden: int = 2048
  attention_dropout: float = 0.0
  epsilon: float = 1e-5
  activation: str = "quick_gelu"
  eos: int = 49407
  pretrained: str = ""
  dtype: str = "float32"
  remat: bool = False

  @property
  def stages(self) -> int:
    """The embeddings and each layer."""
    return self.depth + 1

  def layers_above(self, path: tuple[str, ...]) -> int:
    """Layers from a weight to the features, see ``fine_tuning``."""
    return transformer.layers_above(path, self.depth, _clip.EMBEDDINGS)

  @nn.compact
  def __call__(
    self,
    x: Int[Array, "b t"] | Float[Array, "b t d"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    transformer.check(self)
    last = self.stages + 1 if last is None else last
    real = self._text(x) if first == 0 else (x != 0).any(axis=-1)
    if first == 0:
      x = jnp.where(real[..., None], self._embed(x), 0)
    causal = jnp.tril(jnp.ones((1, x.shape[1], x.shape[1]), bool))
    for i in range(max(first, 1), min(last, self.stages)):
      x = transformer.layer(self, i - 1, norm_first=True)(x, causal, train)
      x = jnp.where(real[..., None], x, 0)
    if last <= self.stages:
      return x
    end = jnp.maximum(real.sum(axis=1) - 1, 0)[:, None, None]
    return _clip.features(self, jnp.take_along_axis(x, end, axis=1)[:, 0])

  def _text(self, tokens: Int[Array, "b t"]) -> Bool[Array, "b t"]:
    """True up to the end-of-text token, or for the first token without one."""
    found = tokens if self.eos == _OLD_EOS else tokens == self.eos
    end = found.argmax(axis=1)[:, None]
    return jnp.arange(tokens.shape[1])[None] <= end

  def _embed(self, tokens: Int[Array, "b t"]) -> Float[Array, "b t d"]:
    length = tokens.shape[1]
    if length > self.positions:
      raise InputError(
        f"texts of {length} tokens, but the encoder has {self.positions} "
        "positions: set the data's max_words to at most that number"
      )
    x = transformer.embed(self.vocab_size, self, "token_embedding")(tokens)
    table = transformer.embed(self.positions, self, "position_embedding")
    return x + table(jnp.arange(length))[None]

  @classmethod
  def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that follow from the config of a CLIP(Text)Model.

    Raises:
      ValueError: the model belongs to another family.
    """
    return _clip.options(config, "text", _clip.TEXT_KEYS)

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params": ...}`` from the tensors of a file, without ``project``.

    Names may have any prefix; other weights are ignored. The word table may
    have up to 127 more rows than ``vocab_size``; these rows are dropped.

    Raises:
      ValueError: weights are missing or have other shapes.
    """
    example = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    shapes = tensors_.shapes_of(self, example)
    words = ("token_embedding",)
    return {"params": tensors_.read(shapes, _clip.TEXT, tensors, words)}

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """{name: array} and config.json for CLIP text models of transformers.

    ``project`` belongs to the task and is left out.
    """
    config = _clip.config(self, "text", _clip.TEXT_KEYS)
    return tensors_.write(variables["params"], _clip.TEXT), config
