"""From names in a config to encoders, fusion and method.

Adding one is adding a file: ``methods/<name>.py`` with ``make(**kwargs)``,
``fusion/<name>.py`` with ``Fusion`` and ``READOUT``, ``encoders/<file>.py``
with modules named ``<file>.<Class>`` in the config. There is no registry.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import flax.linen as nn

from dmg_jax.errors import InputError, unknown
from dmg_jax.model import classifier, fine_tuning, own
from dmg_jax.model.classifier import Classifier
from dmg_jax.model.encoders import pretrained
from dmg_jax.types import Method, Params, Stats

PACKAGES = {
  "encoders": "dmg_jax.model.encoders",
  "fusion": "dmg_jax.model.fusion",
  "methods": "dmg_jax.methods",
}
_LIBRARY = ("pretrained",)  # What encoders share; none itself.


def known(package: str) -> tuple[str, ...]:
  """Names of the files of a package, private ones left out."""
  module = importlib.import_module(PACKAGES[package])
  names = (m.name for m in pkgutil.iter_modules(module.__path__))
  return tuple(sorted(n for n in names if n[0] != "_" and n not in _LIBRARY))


def _module(package: str, kind: str, name: str) -> ModuleType:
  if name not in known(package):
    raise unknown(kind, name, known(package))
  return importlib.import_module(f"{PACKAGES[package]}.{name}")


def _call(kind: str, name: str, factory: Callable, kwargs: Mapping[str, Any]):
  """``factory(**kwargs)``; an unknown keyword lists the valid ones."""
  valid = [
    p
    for p in inspect.signature(factory).parameters
    if p not in ("parent", "name")
  ]
  for key in kwargs:
    if key not in valid:
      raise unknown(f"option of {kind} {name!r}", key, valid)
  return factory(**kwargs)


def make_method(name: str, **kwargs: Any) -> Method:
  """``dmg_jax.methods.<name>.make(**kwargs)``.

  Raises:
    ValueError: unknown method or option, with the choices; or a value out of
      its range.
  """
  return _call("method", name, method_factory(name), kwargs)


def method_factory(name: str) -> Callable[..., Method]:
  """``make`` of ``dmg_jax.methods.<name>``."""
  return _module("methods", "method", name).make


def encoders() -> list[str]:
  """Names of all encoders, ``<file>.<Class>``."""
  return [f"{f}.{c}" for f in known("encoders") for c in _encoders_of(f)]


def _encoders_of(file: str) -> dict[str, Any]:
  module = _module("encoders", "encoder", file)
  return {
    n: v
    for n, v in vars(module).items()
    if inspect.isclass(v)
    and f"{v.__module__}.".startswith(f"{module.__name__}.")
    and not n.startswith("_")
  }


def encoder_class(name: str) -> Any:
  """The class ``<file>.<Class>`` of ``dmg_jax.model.encoders``."""
  file, _, cls = name.partition(".")
  classes = _encoders_of(file) if file in known("encoders") else {}
  if cls not in classes:
    raise unknown("encoder", name, encoders())
  return classes[cls]


def reads_ragged(name: str) -> bool:
  """Whether an encoder reads sequences of any length, with their mask."""
  return name == own.NAME or getattr(encoder_class(name), "ragged", False)


def check_input(
  name: str,
  modality: str,
  kind: str,
  shape: tuple[int, ...],
  ragged: bool = False,
) -> None:
  """The encoder reads modalities of this kind and samples of this shape.

  Args:
    name: of the encoder.
    modality, kind, shape: of samples.
    ragged: whether samples differ in length.

  Raises:
    ValueError: it does not; with those that read the kind.
  """
  cls = encoder_class(name)
  if kind not in cls.kinds:
    fit = [e for e in encoders() if kind in encoder_class(e).kinds]
    raise InputError(
      f"encoder {name!r} reads {', '.join(cls.kinds)}; modality {modality!r} "
      f"is {kind}: give it {', '.join(fit)}"
    )
  if ragged and not reads_ragged(name):
    fit = [e for e in encoders() if reads_ragged(e)]
    raise InputError(
      f"encoder {name!r} reads samples of one shape; those of modality "
      f"{modality!r} differ in length: give it {', '.join(fit)}"
    )
  least = 0 if kind == "text" else getattr(cls, "axes", 0)  # Words are rows.
  if len(shape) < least:
    wanted = "[t d]" if least == 2 else "[h w c]"
    raise InputError(
      f"encoder {name!r} reads samples with {least} axes at least, {wanted}; "
      f"those of modality {modality!r} are {list(shape)}: give it small.MLP"
    )


def with_vocabulary(
  options: dict[str, Any], size: int | None
) -> dict[str, Any]:
  """An encoder's options with the number of words it knows, if it reads any.

  That of the data, or of its weights, if larger.

  Raises:
    ValueError: the weights know fewer words than the data have.
  """
  cls = encoder_class(options["name"])
  if "vocab_size" not in {f.name for f in dataclasses.fields(cls)}:
    return options
  words = options.get("vocab_size", size)
  if size is not None and words < size:
    raise InputError(
      f"the weights of encoder {options['name']!r} know {words} words, the "
      f"data have {size}: use the tokenizer that belongs to the weights"
    )
  return {**options, "vocab_size": words}


def make_encoder(name: str, **kwargs: Any) -> nn.Module:
  """The encoder ``<file>.<Class>`` with its options.

  Those of ``fine_tuning`` are none of its architecture's. A ``dtype`` that is
  left to the run (empty, see ``model.precision``) is the encoder's default.

  Raises:
    ValueError: unknown encoder or option, with the choices.
  """
  options = fine_tuning.architecture(kwargs)
  if options.get("dtype") == "":
    del options["dtype"]
  return _call("encoder", name, encoder_class(name), options)


def make_fusion(name: str, num_classes: int, **kwargs: Any) -> nn.Module:
  """``dmg_jax.model.fusion.<name>.Fusion``."""
  options = {"num_classes": num_classes, **kwargs}
  return _call("fusion", name, fusion_class(name), options)


def fusion_class(name: str) -> type[nn.Module]:
  """The class ``Fusion`` of ``dmg_jax.model.fusion.<name>``."""
  return _module("fusion", "fusion", name).Fusion


def readout(fusion: str) -> str:
  """How the fusion obtains unimodal logits, in the words of the field."""
  return _module("fusion", "fusion", fusion).READOUT


def make_classifier(
  encoders: Mapping[str, Mapping[str, Any]],
  fusion: Mapping[str, Any],
  num_classes: int,
  modules: Mapping[str, own.Own] = MappingProxyType({}),
) -> Classifier:
  """Encoders and fusion from ``{"name": ..., **options}`` dictionaries.

  Args:
    encoders: {modality: options}.
    fusion: options.
    num_classes: k.
    modules: {modality: encoder of the user's own}; its options are not used.
  """
  made = {
    m: modules[m] if m in modules else make_encoder(**options)
    for m, options in encoders.items()
  }
  made_fusion = make_fusion(num_classes=num_classes, **fusion)
  return Classifier(made, made_fusion, fine_tuning.frozen(encoders))


def complete_encoders(
  encoders: Mapping[str, Mapping[str, Any]],
) -> dict[str, dict[str, Any]]:
  """Encoders' options with those that their pretrained weights ask for.

  Raises:
    ValueError: weights that cannot be had or that contradict the options.
  """
  made = {}
  for key, options in encoders.items():
    if options["name"] == own.NAME:
      made[key] = dict(options)
      continue
    try:
      cls = encoder_class(options["name"])
      made[key] = pretrained.complete(cls, options)
    except ValueError as error:
      raise InputError(f"encoders.{key}: {error}") from error
  return made


def load_weights(
  encoders: Mapping[str, Mapping[str, Any]],
  params: Params,
  stats: Stats,
  modules: Mapping[str, own.Own] = MappingProxyType({}),
) -> tuple[Params, Stats, dict[str, str]]:
  """Pretrained weights in place of fresh ones, for encoders that have some.

  Args:
    encoders: {modality: options} as ``complete_encoders`` returns them.
    params, stats: of the classifier.
    modules: as for ``make_classifier``; those with weights start from them.

  Returns:
    Both, and {modality: what was loaded}.
  """
  loaded = {}
  for m, options in encoders.items():
    if m in modules:
      given = own.start(modules[m])
      what = f"the weights of the given {modules[m].functions.name}"
    elif options.get("pretrained"):
      folder = options["pretrained"]
      fresh = classifier.encoder_variables(params, stats, m)
      given, found = pretrained.load(
        make_encoder(**options), Path(folder), fresh
      )
      what = f"{folder} ({found})"
    else:
      continue
    if given is not None:
      params, stats = classifier.with_encoder_variables(params, stats, m, given)
      loaded[m] = what
  return params, stats, loaded
