"""Which fields of a config make two runs the same.

A work directory goes on only with the config that it began with. Every field
counts, new ones too, but for those of ``FREE``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from data_pipelines.core import catalog
from dmg_jax.config import compose
from dmg_jax.config.defaults import DEFAULTS
from dmg_jax.model import fine_tuning, precision, registry
from dmg_jax.model.own import NAME

# Field -> why another value changes no weight and no number of training.
FREE = {
  "variant": "it names the default folder",
  "sharding": "where the state lies; as with other devices, up to rounding",
  "vmap_seeds": "the choice of the first start is kept in seeds.json",
  "track": "trackers only read",
  "report": "whether it is drawn",
  "data.dir": "a place: the fingerprint of the data is compared",
  "data.raw": "a place: the fingerprint of the data is compared",
  "data.max_pixels": "what is refused: the fingerprint is compared",
  "loader.workers": "a batch is a function of seed and step alone",
  "train.checkpoint_steps": "when states are written",
  "train.keep": "which states are not deleted",
  "eval.test": "whether test is read after training",
  "eval.split": "for the modes evaluate and predict",
  "eval.manifest": "for the mode predict",
  "eval.output": "for the mode predict",
}


def flat(tree: Any, path: str = "") -> dict[str, Any]:
  """``{"a.b": value}`` of nested dictionaries, values as JSON has them."""
  if not isinstance(tree, Mapping):
    return {path: json.loads(json.dumps(tree))}
  parts = (flat(v, f"{path}.{k}".lstrip(".")) for k, v in tree.items())
  return {k: v for part in parts for k, v in part.items()}


def defaults(config: Any) -> dict[str, Any]:
  """``{field: default}`` of all that a config like this one can have.

  Args:
    config: of a run; its data set, encoders, fusion and method are looked up.
  """
  found: dict[str, Any] = {**DEFAULTS, "data": dict(DEFAULTS["data"])}
  if config.data.name in catalog.pipelines():
    found["data"].update(compose.options(catalog.loader(config.data.name)))
  skip = ("parent", "name", "vocab_size", "num_classes")
  found["encoders"] = {
    m: {**_architecture(own.name, skip), **fine_tuning.OPTIONS}
    for m, own in config.encoders.items()
  }
  fusion = registry.fusion_class(config.fusion.name)
  found["fusion"] = compose.options(fusion, skip)
  method = registry.method_factory(config.method.name)
  found["method"] = compose.options(method)
  return flat(ConfigDict(found).to_dict())


def _architecture(name: str, skip: tuple[str, ...]) -> dict[str, Any]:
  """Options of an encoder; a module of the user's own has none."""
  if name == NAME:
    return {}
  found = compose.options(registry.encoder_class(name), skip)
  return precision.filled(found)


def differences(config: Any, there: Mapping[str, Any]) -> dict[str, Any]:
  """Fields that decide and differ: ``{field: its value there}``.

  Args:
    config: of a run.
    there: the config that another run was made with, nested. A field that it
      lacks, because it is newer than that run, has its default there. A run
      whose config has no encoder of sequences has none to differ in.
  """
  new, old, usual = flat(config.to_dict()), flat(there), defaults(config)
  if compose.SEQUENCE not in there.get("encoders", {}):
    own = f"encoders.{compose.SEQUENCE}."
    new = {k: v for k, v in new.items() if not k.startswith(own)}
    usual = {k: v for k, v in usual.items() if not k.startswith(own)}
  names = old.keys() | new.keys()
  old, new = {**usual, **old}, {**usual, **new}
  return {
    name: old.get(name)
    for name in sorted(names)
    if name not in FREE and not _same(name, old, new)
  }


def _same(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
  """Whether two configs agree in a field; a dtype may follow ``precision``."""
  values: list[Any] = [fields.get(name) for fields in (old, new)]
  if name.startswith("encoders.") and name.endswith(".dtype"):
    run = [fields[precision.FIELD] for fields in (old, new)]
    computed = map(precision.dtype, values, run)
    return values[0] == values[1] or len(set(computed)) == 1
  return values[0] == values[1]
