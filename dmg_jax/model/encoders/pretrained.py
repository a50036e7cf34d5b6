r"""Pretrained weights of encoders: finds, reads, adapts and writes them.

An encoder's option ``pretrained`` is a folder, or a Hugging Face name such as
``timm/resnet50.tv_in1k``, optionally followed by ``@revision``. It holds
``config.json`` and ``model.safetensors`` or its shards. Pickles (``.bin``,
``.pth``) are never loaded. ``Pretrained`` is the interface of encoder classes
that support this.

Options that follow from ``config.json`` (depth, sizes) replace those that are
left at the default of the class; an option that contradicts the file is an
error. ``features`` and dropout rates are free for the user to set. If the file
has no output layer of size ``features``, the layer ``project`` is trained from
scratch.

If the data have n input channels and the first kernel W of the file has c ≠ n,
each of the n becomes

.. math:: W'_j = \frac{1}{n} \sum_{i=1}^{c} W_i,

the average over input channels times c/n, so that n equal channels give the
same result as c equal channels with W.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from dmg_jax.errors import InputError

WEIGHTS, CONFIG = "model.safetensors", "config.json"
WRITTEN = {"written_by": "dmg_jax"}  # in the metadata of the weights
INDEX = f"{WEIGHTS}.index.json"
# The user's choice.
_FREE = ("features", "dropout", "attention_dropout", "drop_path")
PICTURES = "preprocessor_config.json"  # Of transformers; may be missing.
_FILES = [CONFIG, WEIGHTS, INDEX, "model-*.safetensors", PICTURES]


@runtime_checkable
class Pretrained(Protocol):
  """An encoder that can start from pretrained weights and be exported.

  It is a Linen module with the field ``pretrained: str = ""``. A class method
  ``options_of_folder(folder)``, if it has one, replaces ``options_of`` where
  config.json is not enough. To adapt to
  another number of input channels, it needs a property ``first_kernel``: the
  path below ``params`` of the kernel [... c out] that reads the input channels.
  """

  @classmethod
  def options_of(cls, config: dict[str, Any]) -> dict[str, Any]:
    """Constructor options that follow from a ``config.json``.

    Raises:
      ValueError: the config describes a model that this class cannot represent.
    """
    ...

  def from_tensors(self, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """``{"params": ..., "batch_stats": ...}``, nested like the module's own.

    Layers that files usually lack (``project``) may be absent; usual prefixes
    of names are removed.

    Raises:
      ValueError: tensors are missing or have other shapes; names the first.
    """
    ...

  def to_tensors(
    self, variables: Mapping[str, Any]
  ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Tensors in the layout and naming of Hugging Face, and a config."""
    ...


def resolve(name: str) -> Path:
  """The folder of weights: ``name`` itself, or a download from the hub.

  Downloads go to the local cache; ``HF_HOME`` and ``HF_HUB_OFFLINE`` apply.

  Raises:
    ValueError: ``name`` is not a folder and cannot be downloaded; the message
      says what to copy.
  """
  path = Path(name).expanduser()
  if path.is_dir():
    return path
  repository, _, revision = name.partition("@")
  if repository.startswith((".", "/", "~")) or repository.count("/") > 1:
    raise InputError(
      f"pretrained: there is no folder {name!r}; a Hugging Face name has the "
      "form owner/model"
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
      f"pretrained: {name!r} is not a folder on this machine and could not be "
      f"downloaded from the Hugging Face hub ({reason}). On a machine with a "
      f"network, run 'hf download {repository} {CONFIG} {WEIGHTS} --local-dir "
      "DIR', copy DIR here and set pretrained=DIR"
    ) from error


def read_config(folder: Path) -> dict[str, Any]:
  """The contents of ``config.json``.

  Raises:
    ValueError: the file is missing or does not hold a JSON object.
  """
  return _read_json(Path(folder) / CONFIG)


def read_tensors(folder: Path) -> dict[str, np.ndarray]:
  """All tensors by name; half precision is converted to float32.

  Raises:
    ValueError: a file is missing or damaged.
  """
  found = {}
  for path in weight_files(folder):
    for name, tensor in _tensors(path):
      half = tensor.dtype in (np.float16, jnp.bfloat16)
      found[name] = tensor.astype(np.float32) if half else tensor
  return found


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
  """Shapes of all tensors by name, without reading them.

  Raises:
    ValueError: a file is missing or damaged.
  """
  found = {}
  for path in weight_files(folder):
    with _opened(path) as file:
      for name in file.keys():  # noqa: SIM118, file is not a mapping.
        found[name] = tuple(file.get_slice(name).get_shape())
  return found


def read_normalisation(folder: Path) -> dict[str, tuple[float, ...]]:
  """``mean`` and ``std`` of pictures, if the folder says what they are.

  Raises:
    ValueError: ``preprocessor_config.json`` is not JSON.
  """
  path = Path(folder) / PICTURES
  found = _read_json(path) if path.exists() else {}
  keys = {"mean": "image_mean", "std": "image_std"}
  return {k: tuple(found[v]) for k, v in keys.items() if found.get(v)}


def weight_files(folder: Path) -> list[Path]:
  """Paths of ``model.safetensors`` or of the shards in its index.

  Raises:
    ValueError: a file is missing.
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
        "choose a model that has the file; on the hub it may be part of a pull "
        "request, NAME@refs/pr/NUMBER"
      )
  return paths


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
  with _opened(path) as file:
    for name in file.keys():  # noqa: SIM118, file is not a mapping.
      yield name, file.get_tensor(name)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
  from safetensors import SafetensorError, safe_open

  try:
    with safe_open(path, framework="numpy") as file:
      yield file
  except SafetensorError as error:
    raise InputError(
      f"pretrained: {path} is damaged ({error}): download it again"
    ) from error


def _read_json(path: Path) -> dict[str, Any]:
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError as error:
    raise InputError(
      f"pretrained: {path} is missing: it must describe the model, as in "
      '{"architecture": "resnet50"}'
    ) from error
  except ValueError as error:
    raise InputError(f"pretrained: {path} is not JSON: {error}") from error
  if not isinstance(found, dict):
    raise InputError(f"pretrained: {path} is not a JSON object")
  return found


def complete(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
  """An encoder's options, completed by those of its pretrained weights.

  ``pretrained`` becomes the path of the folder. Without pretrained weights, the
  options are returned unchanged.

  Raises:
    ValueError: the weights are unavailable, or an option contradicts them.
  """
  made = dict(options)
  name = made.get("pretrained", "")
  if not name:
    return made
  folder = resolve(name)
  weight_files(folder)
  defaults = {f.name: f.default for f in dataclasses.fields(cls)}
  for key, value in _options_of(cls, folder).items():
    if key not in defaults:
      raise InputError(
        f"{folder / CONFIG} has {key}={value!r}, but {cls.__name__} has no "
        "such option"
      )
    own = _plain(made.get(key, defaults[key]))
    if own == _plain(defaults[key]) or own is dataclasses.MISSING:
      made[key] = value
    elif own != _plain(value) and key not in _FREE:
      raise InputError(
        f"{key}={own!r} contradicts the pretrained weights {name!r}, with "
        f"{key}={_plain(value)!r}: leave {key} at {defaults[key]!r} or choose "
        "other weights"
      )
  return {**made, "pretrained": str(folder)}


def _options_of(cls: Any, folder: Path) -> dict[str, Any]:
  """What the folder asks for; some encoders read more than config.json."""
  if hasattr(cls, "options_of_folder"):
    return cls.options_of_folder(folder)
  return cls.options_of(read_config(folder))


def _plain(value: Any) -> Any:
  return tuple(value) if isinstance(value, list) else value


def load(
  module: Any, folder: Path, variables: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
  """A module's variables with the pretrained weights of ``folder``.

  Args:
    module: a ``Pretrained`` with the options that ``complete`` returned.
    folder: folder of ``config.json`` and ``model.safetensors``.
    variables: initial variables, {collection: nested dictionary}.

  Returns:
    The variables, with unchanged shapes and dtypes, and a description of what
    was loaded.

  Raises:
    ValueError: the weights do not fit the module.
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
        f"{value.shape}, but the encoder needs {shape}"
      )
    fresh[path] = jnp.asarray(value, fresh[path].dtype)
  new = sorted({path[1] for path in fresh if path not in found})
  notes += [f"not in the file: {', '.join(new)}"] if new else []
  what = "; ".join([f"{len(found)} tensors", *notes])
  return unflatten_dict(fresh), what


def with_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
  """A kernel [... c out] for another number of input channels, see above."""
  total = kernel.sum(axis=-2, keepdims=True) / channels
  return np.repeat(total, channels, axis=-2)


def write(folder: Path, module: Any, variables: Mapping[str, Any]) -> None:
  """Writes ``model.safetensors`` and ``config.json``, both or neither.

  Args:
    folder: created, or replaced if it exists.
    module: a ``Pretrained``.
    variables: variables of the module, {collection: nested dictionary}.
  """
  write_tensors(folder, *module.to_tensors(variables))


def write_tensors(
  folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> None:
  """``write`` for tensors and a ``config.json`` that are made already."""
  whole = {k: np.asarray(v, order="C") for k, v in tensors.items()}
  folder.parent.mkdir(parents=True, exist_ok=True)
  part = Path(tempfile.mkdtemp(".part", f"{folder.name}.", folder.parent))
  try:
    _fill(part, whole, config)
    part.chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
  except BaseException:
    shutil.rmtree(part, ignore_errors=True)
    raise


def _fill(
  folder: Path, tensors: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> None:
  from safetensors.numpy import save_file

  # transformers requires this metadata.
  save_file(
    dict(tensors), folder / WEIGHTS, metadata={"format": "pt", **WRITTEN}
  )
  text = json.dumps(config, indent=2, sort_keys=True)
  (folder / CONFIG).write_text(f"{text}\n", encoding="utf-8")
