r"""Pretrained weights of encoders: found, read, fitted, and written again.

An encoder's option ``pretrained`` is a folder, or a Hugging Face name such as
``timm/resnet50.tv_in1k`` (``@revision`` may follow). It holds ``config.json``
and ``model.safetensors``, or its shards. Pickles (``.bin``, ``.pth``) are never
loaded. What an encoder class has to provide is ``Pretrained``.

Options that follow from ``config.json`` (depth, sizes) replace those left at
the class's default; an option set to something else that contradicts it is an
error. ``features`` and probabilities of dropout are the user's where they are
set. Without an output layer of size ``features`` in the file, the layer
``project`` is trained from scratch.

If the data have n input channels and the file's first kernel W has c ≠ n, each
of the n becomes

.. math:: W'_j = \frac{1}{n} \sum_{i=1}^{c} W_i,

the average over input channels times c/n, so that n equal channels give what c
equal ones give with W.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dmg_jax.errors import InputError

WEIGHTS, CONFIG = "model.safetensors", "config.json"
INDEX = f"{WEIGHTS}.index.json"
_FREE = ("features", "dropout", "attention_dropout")  # The user's choice.
_FILES = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors"]


@runtime_checkable
class Pretrained(Protocol):
  """An encoder that can start from pretrained weights and be exported.

  It is a Linen module with the field ``pretrained: str = ""``. A property
  ``first_kernel``, the path of the kernel [... c out] that meets the input's
  channels below ``params``, lets it be fitted to other numbers of channels.
  """

  @classmethod
  def options_of(cls, config: dict[str, Any]) -> dict[str, Any]:
    """Constructor options that follow from a ``config.json``.

    Raises:
      ValueError: it describes something that the class cannot be.
    """
    ...

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params": ..., "batch_stats": ...}``, nested like the module's own.

    What a file usually lacks (``project``) is left out; usual prefixes of
    names are taken off.

    Raises:
      ValueError: missing tensors, or the first one of another shape, by name.
    """
    ...

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors in Hugging Face's layout and names, and the ``config.json``."""
    ...


def resolve(name: str) -> Path:
  """The folder of a name: itself, or the hub's files in the local cache.

  The cache (``HF_HOME``) and ``HF_HUB_OFFLINE`` are honoured.

  Raises:
    ValueError: neither a folder nor to be had from the hub; says what to copy.
  """
  path = Path(name).expanduser()
  if path.is_dir():
    return path
  repository, _, revision = name.partition("@")
  if repository.startswith((".", "/", "~")) or repository.count("/") > 1:
    raise InputError(
      f"pretrained: there is no folder {name!r}; a Hugging Face name is "
      "owner/model"
    )
  import huggingface_hub

  try:
    return Path(
      huggingface_hub.snapshot_download(
        repository, revision=revision or None, allow_patterns=_FILES
      )
    )
  except (OSError, ValueError) as error:
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    raise InputError(
      f"pretrained: {name!r} is no folder here and could not be had from the "
      f"Hugging Face hub ({reason}). Where there is a network, run 'hf "
      f"download {repository} {CONFIG} {WEIGHTS} --local-dir DIR', copy DIR "
      "here and set pretrained=DIR"
    ) from error


def read_config(folder: Path) -> dict[str, Any]:
  """The contents of ``config.json``.

  Raises:
    ValueError: it is not there, or no JSON object.
  """
  return _read_json(Path(folder) / CONFIG)


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
  """All tensors by name; half precision becomes float32.

  Raises:
    ValueError: there are none, or a file is missing or damaged.
  """
  found = {}
  for path in weight_files(folder):
    for name, tensor in _tensors(path):
      half = tensor.dtype in (np.float16, jnp.bfloat16)
      found[name] = tensor.astype(np.float32) if half else tensor
  return found


def weight_files(folder: Path) -> list[Path]:
  """``model.safetensors``, or its shards by the index; all exist.

  Raises:
    ValueError: there is no such file.
  """
  folder = Path(folder)
  paths = [folder / WEIGHTS]
  if not paths[0].exists() and (folder / INDEX).exists():
    shards = _read_json(folder / INDEX).get("weight_map", {}).values()
    paths = [folder / Path(name).name for name in sorted(set(shards))]
  for path in paths:
    if not path.exists():
      raise InputError(
        f"pretrained: {folder} has no {path.name}. Pickled weights (.bin, "
        ".pth) are not loaded: save them with safetensors.torch.save_file, or "
        "choose a model that has the file; on the hub it may be in a pull "
        "request, as NAME@refs/pr/NUMBER"
      )
  return paths


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(path, framework="numpy") as file:
      for name in file.keys():  # noqa: SIM118, it is no mapping.
        yield name, file.get_tensor(name)
  except SafetensorError as error:
    raise InputError(
      f"pretrained: {path} is damaged ({error}): download it again"
    ) from error


def _read_json(path: Path) -> dict[str, Any]:
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise InputError(
      f"pretrained: {path} is missing: it says what the weights are of, as "
      '{"architecture": "resnet50"}'
    ) from error
  except ValueError as error:
    raise InputError(f"pretrained: {path} is not JSON: {error}") from error
  if not isinstance(found, dict):
    raise InputError(f"pretrained: {path} is not a JSON object")
  return found


def complete(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
  """An encoder's options with what its pretrained weights say of them.

  ``pretrained`` becomes the folder. Without weights, the options as they are.

  Raises:
    ValueError: weights that cannot be had, or that an option contradicts.
  """
  made = dict(options)
  name = made.get("pretrained", "")
  if not name:
    return made
  folder = resolve(name)
  weight_files(folder)
  defaults = {f.name: f.default for f in dataclasses.fields(cls)}
  for key, value in cls.options_of(read_config(folder)).items():
    if key not in defaults:
      raise InputError(
        f"{folder / CONFIG} has {key}={value!r}, an option that "
        f"{cls.__name__} does not have"
      )
    own = _plain(made.get(key, defaults[key]))
    if own == _plain(defaults[key]) or own is dataclasses.MISSING:
      made[key] = value
    elif own != _plain(value) and key not in _FREE:
      raise InputError(
        f"{key}={own!r} contradicts the pretrained {name!r}, which has "
        f"{key}={_plain(value)!r}: leave {key} at {defaults[key]!r} or choose "
        "other weights"
      )
  return {**made, "pretrained": str(folder)}


def _plain(value: Any) -> Any:
  return tuple(value) if isinstance(value, list) else value


def load(
  module: Any, folder: Path, variables: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
  """A module's variables with the weights of ``folder`` in place.

  Args:
    module: a ``Pretrained`` with the options of ``complete``.
    folder: of ``config.json`` and ``model.safetensors``.
    variables: as initialised, {collection: nested dictionary}.

  Returns:
    The variables, in the same shapes and dtypes, and what was done, in words.

  Raises:
    ValueError: weights that do not fit.
  """
  try:
    loaded = module.from_tensors(read_tensors(folder))
  except ValueError as error:
    raise InputError(f"pretrained weights of {folder}: {error}") from error
  fresh: dict[Any, Any] = flatten_dict(dict(variables))
  found: dict[Any, Any] = flatten_dict(loaded)
  kernel = ("params", *getattr(module, "first_kernel", ()))
  notes = []
  for path, value in found.items():
    shape = fresh[path].shape if path in fresh else None
    if shape and path == kernel and shape[-2] != value.shape[-2]:
      notes.append(f"input channels {value.shape[-2]} -> {shape[-2]}")
      value = with_channels(value, shape[-2])
    if value.shape != shape:
      raise InputError(
        f"pretrained weights of {folder}: {'/'.join(path)} has shape "
        f"{value.shape}, but the encoder's is {shape}"
      )
    fresh[path] = jnp.asarray(value, fresh[path].dtype)
  new = sorted({path[1] for path in fresh if path not in found})
  notes += [f"not in the file: {', '.join(new)}"] if new else []
  what = "; ".join([f"{len(found)} tensors", *notes])
  return unflatten_dict(fresh), what


def with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
  """A kernel [... c out] for another number of input channels (see above)."""
  total = kernel.sum(axis=-2, keepdims=True) / channels
  return np.repeat(total, channels, axis=-2)


def write(folder: Path, module: Any, variables: Mapping[str, Any]) -> None:
  """Writes ``model.safetensors`` and ``config.json``; all or nothing.

  Args:
    folder: made, or replaced.
    module: a ``Pretrained``.
    variables: of the module, {collection: nested dictionary}.
  """
  from safetensors.numpy import save_file

  tensors, config = module.to_tensors(variables)
  part = folder.with_name(f"{folder.name}.part")
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  whole = {k: np.asarray(v, order="C") for k, v in tensors.items()}
  # transformers asks for the format.
  save_file(whole, part / WEIGHTS, metadata={"format": "pt"})
  text = json.dumps(config, indent=2, sort_keys=True)
  (part / CONFIG).write_text(f"{text}\n", encoding="utf-8")
  shutil.rmtree(folder, ignore_errors=True)
  part.rename(folder)
