"""The models of the paper's configs at their real sizes, on random inputs.

No data and no weights can be had on a bare machine: what a config would load is
drawn at random, of the same shapes and dtypes.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from configs import crema_d, nvgesture, sarcasm
from data_pipelines import core
from data_pipelines.sets._audio_video import media
from data_pipelines.sets.nvgesture.lists import FRAMES
from data_pipelines.sets.nvgesture.making import CHANNELS
from dmg_jax.training import experiment

_BERT_WORDS, _CLIP_WORDS = 30522, 49408


@dataclasses.dataclass(frozen=True)
class Claim:
  """What a config's docstring says about costs.

  Attributes:
    flops: of a training sample, forward and backward.
    memory: as it says it.
  """

  flops: float
  memory: str


@dataclasses.dataclass(frozen=True)
class Size:
  """A config at its real size.

  Attributes:
    file: of ``configs``, with ``get_config``.
    argument: what follows the recipe.
    classes: of the data set.
    claim: of the config.
    tiny: {path: value} instead of ``quick=true``, where that has no such
      encoders.
  """

  file: Any
  argument: str
  classes: int
  claim: Claim
  tiny: dict[str, Any] = dataclasses.field(default_factory=dict)


_LAYERS = {"width": 16, "depth": 1, "heads": 2, "hidden": 32, "projection": 8}
_TINY_CLIP = {
  **{f"encoders.{m}": _LAYERS for m in ("image", "text")},
  "data": {"image_size": 64, "max_words": 8},
  "train": {"batch_size": 2},
}
SIZES = {
  "CREMA-D": Size(crema_d, "", 6, Claim(45e9, "5.4 GiB, batch 4, on a CPU")),
  "Sarcasm": Size(
    sarcasm, "", 2, Claim(11.7e12 / 128, "14 GiB, batch 4, on a CPU")
  ),
  "Sarcasm CLIP": Size(
    sarcasm, "encoders=clip", 2, Claim(5.7e12 / 128, ""), _TINY_CLIP
  ),
  "NVGesture": Size(
    nvgesture, "", 25, Claim(1.6e12, "9.5 GiB, batch 1, on a CPU")
  ),
}


def make(name: str, precision: str, quick: bool) -> experiment.Setup:
  """The run of a size with ``lb``, ready to be compiled.

  Args:
    name: of ``SIZES``.
    precision: ``float32`` or ``bf16``.
    quick: the config's own small networks instead, two samples a batch.
  """
  size = SIZES[name]
  short = quick and not size.tiny
  words = ["quick=true", "batch_size=2"] if short else [size.argument]
  argument = ",".join(["lb", *(w for w in words if w)])
  config = size.file.get_config(argument)
  with config.unlocked():
    config.precision = precision
    config.loader.resident = "off"
    for encoder in config.encoders.values():
      if "pretrained" in encoder:
        del encoder["pretrained"]
    if quick:
      _shrink(config, size.tiny)
      config.method.iterations = 1
      config.train.update(inner_batch_size=2, outer_batch_size=2)
      config.eval.batch_size = 2
  return experiment.assemble(config, dataset(config, size.classes))


def _shrink(config: Any, tiny: dict[str, Any]) -> None:
  for path, values in tiny.items():
    node = config
    for part in path.split("."):
      node = node[part]
    node.update(values)
  if tiny:
    config.encoders.image.update(image_size=config.data.image_size)
    config.encoders.text.update(positions=config.data.max_words)


def without_remat(setup: experiment.Setup) -> experiment.Setup:
  """The same run, but nothing is computed twice: what FLOPs are counted of."""
  if not any(e.get("remat") for e in setup.encoders.values()):
    return setup
  config = setup.config.copy_and_resolve_references()
  with config.unlocked():
    for encoder in config.encoders.values():
      encoder.remat = False
  return experiment.assemble(config, setup.dataset)


def dataset(config: Any, classes: int) -> core.Dataset:
  """Random samples with the shapes that the config's data set has."""
  modalities = _modalities(config)
  most = max(config.train.batch_size, config.train.outer_batch_size)
  sizes = dict.fromkeys(core.SPLITS, most)
  names = tuple(f"class {i}" for i in range(classes))
  spec = core.Spec(config.data.name, modalities, names, sizes)
  source = _Noise(modalities, classes, most)
  return core.Dataset(spec, dict.fromkeys(core.SPLITS, source))


def _modalities(config: Any) -> dict[str, core.ModalitySpec]:
  data = config.data
  side = data.image_size
  if data.name == "nvgesture":
    frames = FRAMES // data.step
    return {
      m: core.ModalitySpec("video", (frames, side, side, c), "uint8")
      for m, c in CHANNELS.items()
    }
  if data.name == "crema_d":
    window, shared = media.NPERSEG, media.NOVERLAP
    length = round(data.seconds * data.sample_rate)
    times = (length - shared) // (window - shared)
    sound = (window // 2 + 1, times, 1)
    shown = (data.frames, side, side, 3)
    return {
      "audio": core.ModalitySpec("audio", sound, "float32"),
      "video": core.ModalitySpec("video", shown, "uint8"),
    }
  clip = config.encoders.text.name == "clip.ClipText"
  words = _CLIP_WORDS if clip else _BERT_WORDS
  return {
    "image": core.ModalitySpec("image", (side, side, 3), "uint8"),
    "text": core.ModalitySpec("text", (data.max_words,), "int32", words),
  }


class _Noise:
  """Samples that are made when they are asked for; ``i`` is their seed."""

  def __init__(self, modalities, classes: int, count: int):
    self._modalities, self._classes = modalities, classes
    self._count = count

  def __len__(self) -> int:
    return self._count

  def __getitem__(self, index: int, /) -> core.Sample:
    rng = np.random.default_rng(index)
    inputs = {m: _drawn(rng, s) for m, s in self._modalities.items()}
    return core.sample_of(inputs, index % self._classes, str(index), ())

  def labels(self) -> np.ndarray:
    return (np.arange(self._count) % self._classes).astype(np.int32)


def _drawn(rng: np.random.Generator, spec: core.ModalitySpec) -> np.ndarray:
  """Pixels, words without padding, or numbers."""
  if spec.dtype == np.uint8:
    return rng.integers(0, 256, spec.shape, np.uint8)
  if spec.vocab_size is not None:
    return rng.integers(1, spec.vocab_size, spec.shape, np.int32)
  return rng.normal(size=spec.shape).astype(spec.dtype)
