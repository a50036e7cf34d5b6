r"""wav2vec 2.0 and HuBERT: raw sound to features.

Convolutions along time turn samples into frames, a linear layer into tokens. To
these, a grouped convolution of the tokens adds what positions are to other
transformers; its weight is

.. math:: W_{j} = g_j \frac{V_j}{\lVert V_j \rVert} \quad\text{for each tap } j.

Layers follow (``_transformer.py``), LayerNorm first (``norm_first``) or after
each sum. Features are the mean over frames.

Input is [b t], float, at the sample rate of the weights (16 kHz): data of the
kind ``waveform``. Those have mean 0 and variance 1, as transformers' feature
extractor makes them. Where an extractor says ``do_normalize=false``, weights
have ``conv_norm`` ``group``, to which mean and scale make no difference.

The stages are the embeddings and then each layer; maps are [b t d].

Reference: Baevski, Zhou, Mohamed, Auli, "wav2vec 2.0", NeurIPS 2020; Hsu et
al., "HuBERT", TASLP 2021. Code: huggingface/transformers.

Deviations:
1. No masked frames, dropped layers or dropout within convolutions and MLPs.
2. All sounds of a batch have the same length and no padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dmg_jax.errors import InputError, unknown
from dmg_jax.model.encoders import _transformer as transformer
from dmg_jax.model.encoders._tensors import transformer as tensors_
from dmg_jax.model.encoders._tensors import wav2vec2 as tensors_of

NORMS = ("group", "layer")
_EPSILON = 1e-5  # Of the norms between convolutions.
_INIT = nn.initializers.normal(0.02)
_HE = nn.initializers.he_normal()


class Wav2Vec2(nn.Module):
  """Samples [b t] to features; the defaults are the base models.

  Attributes:
    features: size ``d`` of the output, by a linear layer ``project``; 0 means
      ``width``, without that layer.
    widths, kernels, strides: channels, taps and steps of each convolution.
    conv_norm: ``group`` (after the first convolution, each channel over time)
      or ``layer`` (after each, over channels).
    conv_bias: convolutions have a bias.
    conv_activation: after each convolution.
    feature_norm: LayerNorm before the linear layer that makes tokens.
    position_kernel, position_groups: taps and groups of the convolution that
      tells positions.
    norm_first: LayerNorm first (transformers: ``do_stable_layer_norm``).
    width: size of embeddings and layers.
    depth: number of layers.
    heads: number of attention heads.
    hidden: size of the hidden layer of each MLP.
    dropout: dropout rate of the embeddings and of the output of each part of a
      layer.
    attention_dropout: dropout rate of attention weights.
    epsilon: epsilon of the transformer's LayerNorm.
    activation: ``gelu``, ``gelu_new``, ``relu``, ...
    model_type: as in config.json, ``wav2vec2`` or ``hubert``.
    pretrained: Hugging Face name or folder of the initial weights.
    dtype: dtype of the computation, ``float32`` or ``bfloat16``; weights and
      features are float32.
    remat: compute the activations of layers anew for the gradient, which takes
      less memory and more time.
  """

  kinds = ("waveform",)
  features: int = 0
  widths: Sequence[int] = (512,) * 7
  kernels: Sequence[int] = (10, 3, 3, 3, 3, 2, 2)
  strides: Sequence[int] = (5, 2, 2, 2, 2, 2, 2)
  conv_norm: str = "group"
  conv_bias: bool = False
  conv_activation: str = "gelu"
  feature_norm: bool = True
  position_kernel: int = 128
  position_groups: int = 16
  norm_first: bool = False
  width: int = 768
  depth: int = 12
  heads: int = 12
  hidden: int = 3072
  dropout: float = 0.1
  attention_dropout: float = 0.1
  epsilon: float = 1e-5
  activation: str = "gelu"
  model_type: str = "wav2vec2"
  pretrained: str = ""
  dtype: str = "float32"
  remat: bool = False

  @property
  def stages(self) -> int:
    """The embeddings and each layer."""
    return self.depth + 1

  def layers_above(self, path: tuple[str, ...]) -> int:
    """Layers from a weight to the features, see ``fine_tuning``."""
    name, depth = path[0], self.depth
    if name == "norm":
      return 0 if self.norm_first else depth + 1
    before = ("conv_", "feature_", "projection_", "position_")
    return transformer.layers_above(
      path, depth, (name,) if name.startswith(before) else ()
    )

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b t"] | Float[Array, "b t d"],
    train: bool,
    first: int = 0,
    last: int | None = None,
  ) -> Float[Array, "b ..."]:
    self._check()
    last = self.stages + 1 if last is None else last
    norm = transformer.norm(self.epsilon, self.dtype, "norm")
    if first == 0:
      x = self._frames(x)
      x += self._positions(x)
      x = x if self.norm_first else norm(x)
      x = nn.Dropout(self.dropout, deterministic=not train)(x)
    for i in range(max(first, 1), min(last, self.stages)):
      x = transformer.layer(self, i - 1)(x, None, train)
    if last <= self.stages:
      return x
    x = norm(x) if self.norm_first else x
    return transformer.project(self, x.mean(axis=1))

  def _check(self) -> None:
    transformer.check(self)
    for name, known in (
      ("conv_norm", NORMS),
      ("conv_activation", transformer.ACTIVATIONS),
      ("model_type", tensors_of.FAMILY),
    ):
      if getattr(self, name) not in known:
        raise unknown(name, getattr(self, name), known)
    sizes = {len(self.widths), len(self.kernels), len(self.strides)}
    if len(sizes) > 1:
      raise InputError(
        "widths, kernels and strides need one number for each convolution, got "
        f"{len(self.widths)}, {len(self.kernels)} and {len(self.strides)}"
      )
    if self.width % self.position_groups:
      raise InputError(
        f"width {self.width} must be a multiple of position_groups, got "
        f"{self.position_groups}"
      )

  @property
  def shortest(self) -> int:
    """Samples of the shortest sound that makes a frame."""
    length = 1
    for kernel, stride in zip(
      reversed(self.kernels), reversed(self.strides), strict=True
    ):
      length = (length - 1) * stride + kernel
    return length

  def _frames(self, x: Float[Array, "b t"]) -> Float[Array, "b f d"]:
    if x.shape[1] < self.shortest:
      raise InputError(
        f"sounds of {x.shape[1]} samples, but the encoder needs "
        f"{self.shortest} at least: raise the data's seconds or sample_rate"
      )
    x = x[..., None]
    for i, (width, kernel, stride) in enumerate(
      zip(self.widths, self.kernels, self.strides, strict=True)
    ):
      x = nn.Conv(
        width,
        (kernel,),
        (stride,),
        "VALID",
        use_bias=self.conv_bias,
        dtype=self.dtype,
        kernel_init=_HE,
        name=f"conv_{i}",
      )(x)
      x = self._conv_norm(i)(x)
      x = transformer.ACTIVATIONS[self.conv_activation](x)
    if self.feature_norm:
      x = transformer.norm(self.epsilon, self.dtype, "projection_norm")(x)
    return transformer.dense(self.width, self.dtype, "feature_projection")(x)

  def _conv_norm(self, number: int):
    name = f"conv_{number}_norm"
    if self.conv_norm == "layer":
      return transformer.norm(_EPSILON, self.dtype, name)
    if number:
      return lambda x: x
    return nn.GroupNorm(
      num_groups=None,
      group_size=1,
      epsilon=_EPSILON,
      dtype=self.dtype,
      use_fast_variance=False,
      name=name,
    )

  def _positions(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    x = _NormedConv(
      self.position_kernel, self.position_groups, name="position_conv"
    )(x)
    return transformer.ACTIVATIONS[self.conv_activation](x)

  @classmethod
  def options_of(cls, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that follow from a config.json of transformers.

    Raises:
      ValueError: the model belongs to another family.
    """
    return tensors_of.options_of(config)

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params": ...}`` from the tensors of a file, without ``project``.

    Both kinds of names of the weight-normed convolution are read (``weight_g``,
    ``parametrizations.weight.original0``). Heads of tasks are left out.

    Raises:
      ValueError: tensors are missing, left over, or have other shapes.
    """
    example = jax.ShapeDtypeStruct((1, self.shortest), jnp.float32)
    shapes = tensors_.shapes_of(self, example)
    return {"params": tensors_of.read(shapes, tensors)}

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """{name: array} and config.json for ``AutoModel`` of transformers.

    ``project`` belongs to the task and is left out.
    """
    return tensors_of.write(self, variables["params"])


class _NormedConv(nn.Module):
  """A grouped convolution along time that keeps the length; see the module."""

  taps: int
  groups: int

  @nn.compact
  def __call__(self, x: Float[Array, "b t d"]) -> Float[Array, "b t d"]:
    width = x.shape[-1]
    shape = (self.taps, width // self.groups, width)
    direction = self.param("direction", _INIT, shape, jnp.float32)
    size = jnp.sqrt((direction**2).sum(axis=(1, 2)))
    one = nn.initializers.ones
    magnitude = self.param("magnitude", one, (self.taps,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (width,), jnp.float32)
    kernel = direction * (magnitude / size)[:, None, None]
    before = self.taps // 2
    x = jax.lax.conv_general_dilated(
      x,
      kernel.astype(x.dtype),
      (1,),
      [(before, self.taps - 1 - before)],
      dimension_numbers=("NWC", "WIO", "NWC"),
      feature_group_count=self.groups,
    )
    return x + bias.astype(x.dtype)[None, None]
