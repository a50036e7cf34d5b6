"""Splits in the accelerator's memory: batches are gathered and augmented there.

A resident split is decoded once, pictures as uint8 and sounds as bfloat16 (8
bits of mantissa; batches are float32 again). A batch then costs one compiled
call and the transfer of its row numbers. Rows come in the order of ``Loader``.
Augmentations have counterparts here, ``AUGMENT`` and ``VIEW``, which draw
JAX's random numbers, so results depend on where the data are.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Generator, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from data_pipelines.core import Dataset, ModalitySpec, missing
from data_pipelines.load.loader import Loader
from data_pipelines.transforms import crop, image
from dmg_jax.errors import InputError
from dmg_jax.types import Batch

SHARE = 0.25  # of an accelerator's memory that data may take


def _mirror(key, x):
  return jnp.where(jax.random.bernoulli(key), x[..., ::-1, :], x)


def _random_resized_crop(key, x, *, size, scale, ratio, flip):
  """As ``crop.random_resized_crop``, but for whole pixels: boxes are real.

  At its edge a box is filtered with the pixels around it.
  """
  if x.ndim == 4:
    one = functools.partial(
      _random_resized_crop, size=size, scale=scale, ratio=ratio, flip=flip
    )
    return _each(one, jax.random.split(key, len(x)), x)
  draw, place, mirror = jax.random.split(key, 3)
  box = _box(draw, x.shape[0], x.shape[1], scale, ratio)
  start = jax.random.uniform(place, (2,)) * (jnp.array(x.shape[:2]) - box)
  cut = (_cut_by_rows if _one_by_one() else _cut)(x, size, start, box)
  cut = jnp.clip(jnp.round(cut), 0, 255).astype(x.dtype)
  return _mirror(mirror, cut) if flip else cut


def _cut(x, size, start, box):
  """The box of the picture, filtered without aliasing to ``size``²."""
  zoom = size / box
  return jax.image.scale_and_translate(
    x.astype(jnp.float32), (size, size, x.shape[2]), (0, 1), zoom,
    -start * zoom, "linear",
  )  # fmt: skip


def _cut_by_rows(x, size, start, box):
  """As ``_cut``, row by row and column by column, from the few that count.

  ``_cut`` multiplies by matrices that are zero but for a band. A CPU spends
  five times as long on them as on the band.
  """
  height, width, channels = x.shape
  tall = _resampled(x.reshape(height, -1), size, start[0], box[0])
  turned = tall.reshape(size, width, channels).transpose(1, 0, 2)
  wide = _resampled(turned.reshape(width, -1), size, start[1], box[1])
  return wide.reshape(size, size, channels).transpose(1, 0, 2)


def _resampled(rows, size, start, extent):
  """``size`` rows for the ``extent`` ones from ``start`` on, [size d].

  Triangles of the width of a new row, or of an old one if that is wider.
  """
  n = rows.shape[0]
  step = extent / size
  reach = jnp.maximum(step, 1.0)
  middle = (jnp.arange(size) + 0.5) * step + start - 0.5
  near = jnp.ceil(middle - reach).astype(jnp.int32)[:, None]
  near = near + jnp.arange(2 * math.ceil(max(n / size, 1)) + 1)[None]
  weights = jnp.maximum(0, 1 - jnp.abs(middle[:, None] - near) / reach)
  weights = jnp.where((near >= 0) & (near < n), weights, 0)
  weights = weights / weights.sum(axis=1, keepdims=True)

  def one(near, weights):
    taken = [
      weights[t] * lax.dynamic_index_in_dim(rows, i, 0, False)
      for t, i in enumerate(jnp.clip(near, 0, n - 1))
    ]
    return functools.reduce(jnp.add, taken)

  return lax.map(lambda a: one(*a), (near, weights))


def _one_by_one() -> bool:
  """Whether samples are made in turn, as on a CPU, or all at once."""
  return jax.default_backend() == "cpu"


def _each(function, *arrays):
  """``function`` of each entry of the arrays' first axis."""
  if not _one_by_one():
    return jax.vmap(function)(*arrays)
  return lax.map(lambda entry: function(*entry), arrays)


def _box(key, height, width, scale, ratio):
  """Height and width of the first of ten boxes that fits, float [2]."""
  u, v = jax.random.uniform(key, (2, 10))
  area = height * width * (scale[0] + u * (scale[1] - scale[0]))
  low, high = math.log(ratio[0]), math.log(ratio[1])
  aspect = jnp.exp(low + v * (high - low))
  boxes = jnp.stack([jnp.sqrt(area / aspect), jnp.sqrt(area * aspect)], axis=1)
  fits = (boxes <= jnp.array([[height, width]])).all(axis=1)
  aspect = min(max(width / height, ratio[0]), ratio[1])
  middle = jnp.array([min(height, width / aspect), min(width, height * aspect)])
  return jnp.where(fits.any(), boxes[jnp.argmax(fits)], middle)


def _resize(x, *, size):
  shape = (*x.shape[:-3], size, size, x.shape[-1])
  real = jax.image.resize(x.astype(jnp.float32), shape, "linear")
  return jnp.clip(jnp.round(real), 0, 255).astype(x.dtype)


# Function of the host -> its counterpart here: (key, array) -> array for
# ``AUGMENT``, array -> array for ``VIEW``. A ``functools.partial`` is looked up
# by its function and keeps its keywords.
AUGMENT: dict[Any, Callable] = {
  image.mirror: _mirror,
  crop.cut: _random_resized_crop,
}
VIEW: dict[Any, Callable] = {image.resize: _resize}


def _twin(known: dict[Any, Callable], function: Callable) -> Any:
  if not isinstance(function, functools.partial):
    return known.get(function)
  twin = known.get(function.func)
  return twin and functools.partial(twin, **function.keywords)


def obstacle(dataset: Dataset) -> str | None:
  """Why the data cannot be resident; ``None`` if they can."""
  if jax.process_count() > 1:
    return "there are several processes"
  for functions, known in ((dataset.augment, AUGMENT), (dataset.view, VIEW)):
    for m, function in functions.items():
      if _twin(known, function) is None:
        return f"{dataset.spec.name} augments {m} on the host only"
  return None


def nbytes(dataset: Dataset) -> int:
  """Bytes of all splits in the form that they have on a device."""
  sample = sum(
    int(np.prod(s.shape, dtype=np.int64)) * _dtype(s).itemsize
    for s in dataset.stored.values()
  )
  return sample * sum(dataset.spec.sizes.values())


def fits(dataset: Dataset) -> bool:
  """Whether the data take at most ``SHARE`` of the accelerator's memory.

  Never on a CPU, where the host's memory is the device's.
  """
  device = jax.local_devices()[0]
  memory = None if device.platform == "cpu" else device.memory_stats()
  limit = (memory or {}).get("bytes_limit", 0)
  return obstacle(dataset) is None and nbytes(dataset) <= SHARE * limit


class Home:
  """The splits of a data set that have been put on the devices of a mesh.

  Args:
    dataset: the samples.
    mesh: each of its devices holds all samples.

  Raises:
    ValueError: the data cannot be resident.
  """

  def __init__(self, dataset: Dataset, mesh: jax.sharding.Mesh):
    reason = obstacle(dataset)
    if reason is not None:
      raise InputError(
        f"the data cannot live on the accelerator: {reason}; use "
        "--config.loader.resident=auto or off"
      )
    self._dataset, self._mesh = dataset, mesh
    self._splits: dict[str, Any] = {}
    split = NamedSharding(mesh, P("b"))
    self._take = jax.jit(
      functools.partial(_take, dataset), static_argnums=0, out_shardings=split
    )

  def loader(self, loader: Loader, split: str) -> Resident:
    """``loader`` of this split, with batches made on the devices."""
    if split not in self._splits:
      self._splits[split] = _put(self._dataset, split, self._mesh)
    samples = self._splits[split]

    def take(augmented: bool, *rows: np.ndarray) -> Batch:
      return self._take(augmented, *samples, *rows)

    return Resident(loader, take)


class Resident:
  """A ``Loader`` whose batches are made on the devices; of a ``Home``."""

  def __init__(self, loader: Loader, take: Callable[..., Batch]):
    self._loader, self._take = loader, take
    self.steps_per_epoch = loader.steps_per_epoch

  def batch(self, step: int) -> Batch:
    """As ``Loader.batch``."""
    return self._made(self._loader.rows(step), "stream", step)

  def stream(self, start_step: int = 0) -> Generator[Batch, None, None]:
    """As ``Loader.stream``."""
    return (self.batch(step) for step in itertools.count(start_step))

  def ordered(
    self, order: np.ndarray, epoch: int, first: int = 0
  ) -> Iterator[Batch]:
    """As ``Loader.ordered``."""
    size = self._loader.batch_size
    order = self._loader.checked(order)
    for number in range(first, self.steps_per_epoch):
      rows = order[number * size : (number + 1) * size]
      step = epoch * self.steps_per_epoch + number
      yield self._made(rows.astype(np.int32), "ordered", step)

  def padded(self) -> Iterator[Batch]:
    """As ``Loader.padded``."""
    size, total = self._loader.batch_size, self._loader.samples
    for start in range(0, total, size):
      rows = np.arange(start, min(start + size, total), dtype=np.int32)
      yield self._made(rows, "padded", 0)

  def _made(self, rows: np.ndarray, use: str, step: int) -> Batch:
    size, augmented = self._loader.batch_size, self._loader.augmented
    mask = (np.arange(size) < len(rows)).astype(np.float32)
    rows = np.pad(rows, (0, size - len(rows)))
    number = ("stream", "ordered", "padded").index(use)
    seed = np.array([self._loader.seed, number, step], np.uint32)
    return self._take(augmented and use != "padded", rows, mask, seed)


def _dtype(spec: ModalitySpec) -> np.dtype:
  return np.dtype(jnp.bfloat16 if spec.kind == "audio" else spec.dtype)


def _put(dataset, split, mesh):
  """All samples of a split, stacked, on every device."""
  source, stored = dataset.sources[split], dataset.stored
  arrays = {
    m: np.empty((len(source), *s.shape), _dtype(s)) for m, s in stored.items()
  }
  labels = np.empty(len(source), np.int32)
  present = {
    m: np.ones(len(source), np.float32) for m, s in stored.items() if s.optional
  }
  for i in range(len(source)):
    sample = source[i]
    labels[i] = sample["label"]
    for m, array in arrays.items():
      array[i] = sample["inputs"][m]
    for m in missing(sample):
      present[m][i] = 0
  made = arrays, labels, present
  return jax.device_put(made, NamedSharding(mesh, P()))


def _take(dataset, augmented, arrays, labels, present, rows, mask, seed):
  """Rows of the arrays as a batch; compiled."""
  key = functools.reduce(jax.random.fold_in, seed[1:], jax.random.key(seed[0]))
  keys = jax.vmap(functools.partial(jax.random.fold_in, key))(
    jnp.arange(rows.size)
  )
  inputs = {}
  for number, (m, spec) in enumerate(dataset.stored.items()):
    x = arrays[m][rows].astype(spec.dtype)
    if augmented and m in dataset.augment:
      alike = 0 if m in dataset.together else number + 1
      own = jax.vmap(lambda k, i=alike: jax.random.fold_in(k, i))(keys)
      x = _each(_twin(AUGMENT, dataset.augment[m]), own, x)
    elif m in dataset.view:
      x = _each(_twin(VIEW, dataset.view[m]), x)
    there = mask * present[m][rows] if m in present else mask
    real = there.reshape(-1, *(1,) * (x.ndim - 1)) > 0
    inputs[m] = jnp.where(real, x, 0).astype(spec.dtype)
  real = mask > 0
  return Batch(
    inputs,
    jnp.where(real, labels[rows], 0),
    mask,
    jnp.where(real, rows, 0).astype(jnp.int32),
    present={m: mask * p[rows] for m, p in present.items()} or None,
  )
