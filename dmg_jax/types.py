"""The words every other file speaks: batch, outputs, problem, method, state.

Dimension letters, used in every shape string of the package:

=====  =============================================================
``b``  samples of a batch (padding included; ``Batch.mask`` tells)
``k``  classes
``d``  features of a modality (may differ between modalities)
``t``  time: word pieces of a text, frames of a clip or spectrogram
``h``  height, ``w`` width, ``c`` channels of a picture (NHWC)
=====  =============================================================

Modalities are dictionary keys everywhere, never positions: any number of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
from flax import struct
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from data_pipelines.core.batch import Batch

Params = PyTree
Stats = PyTree
Metrics = Mapping[str, Float[Array, ""]]


# Fields of a pytree hold arrays, tracers, shardings, shapes or None by turns,
# so their shapes are documented and not annotated.
Leaf = Any


jax.tree_util.register_dataclass(
  Batch, ["inputs", "labels", "mask", "index"], []
)


class Outputs(struct.PyTreeNode):
  """What a forward pass returns.

  Attributes:
    logits: [b k], fused logits.
    unimodal: {modality: [b k]}, logits from that modality alone, by the
      read-out that the fusion names.
    features: {modality: [b d]}, encoder features before fusion.
    extra: what else the fusion gives, by name; its docstring lists it.
  """

  logits: Leaf
  unimodal: dict[str, Any]
  features: dict[str, Any]
  extra: dict[str, Any] = struct.field(default_factory=dict)


class Fused(NamedTuple):
  """What a fusion returns: the fields of ``Outputs`` without the features."""

  logits: Leaf
  unimodal: dict[str, Any]
  extra: Mapping[str, Any] = MappingProxyType({})


@runtime_checkable
class Forward(Protocol):
  """Pure forward pass.

  ``stats`` are batch statistics; with ``train=False`` they are used and come
  back unchanged. ``keep`` ({modality: [b]}, 1 or 0) zeroes a modality's
  features before fusion (read-out R3, feature ablation); ``present`` does so
  with its input (read-out R4): zero, for ``uint8`` pictures mid-grey.
  """

  def __call__(
    self,
    params: Params,
    stats: Stats,
    inputs: Mapping[str, Any],
    key: PRNGKeyArray | None,
    train: bool,
    keep: Mapping[str, Float[Array, " b"]] | None = None,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> tuple[Outputs, Stats]: ...


@runtime_checkable
class Fuse(Protocol):
  """The fusion alone, on features that a forward pass returned.

  Methods that drop, mask or swap features call it instead of running the
  encoders again.
  """

  def __call__(
    self,
    params: Params,
    stats: Stats,
    features: Mapping[str, Float[Array, "b _"]],
    key: PRNGKeyArray | None,
    train: bool,
  ) -> Fused: ...


SHARED = "shared"


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
  """All a method may touch. Two are equal only if they are the same object.

  Attributes:
    forward: the pure forward pass.
    fuse: the part of it after the encoders.
    owner: pytree like the parameters; each leaf names its owner: ``m`` (the
      encoder of modality m), ``m/head`` (m's own part of the fusion),
      ``m/gate`` (what m receives from others inside the encoders) or
      ``SHARED``.
    modalities: their names, in a fixed order.
    outputs: shapes and dtypes of ``forward``'s outputs for a batch of two.
    samples: size of the training split.
    readout: how the fusion obtains unimodal logits, in the words of the field.
  """

  forward: Forward
  fuse: Fuse
  owner: PyTree[str]
  modalities: tuple[str, ...]
  outputs: Outputs
  samples: int
  readout: str

  @property
  def classes(self) -> int:
    """Number of classes."""
    return self.outputs.logits.shape[-1]

  @property
  def sizes(self) -> dict[str, int]:
    """{modality: size of its features}."""
    return {m: z.shape[-1] for m, z in self.outputs.features.items()}


class TrainState(struct.PyTreeNode):
  """Everything a training step changes, and all a checkpoint holds.

  Attributes:
    step: int [], steps taken.
    params: weights.
    stats: batch statistics (``{}`` without BatchNorm).
    opt_state: the optimiser's state.
    method: the method's own state.
    plateau: what ``plateau.Plateau`` knows of the loss on val; ``()`` without.
  """

  step: Leaf
  params: Params
  stats: Stats
  opt_state: PyTree
  method: PyTree
  plateau: PyTree = ()


@runtime_checkable
class Apply(Protocol):
  """The optimiser as a function: one update of ``params`` and ``opt_state``.

  ``scale`` ({owner: factor}) multiplies the *update* of an owner's weights,
  after the optimiser, so that it is a true learning-rate factor; a factor of
  zero freezes the owner: neither its weights nor its moments move.
  """

  def __call__(
    self,
    state: TrainState,
    grads: Params,
    scale: Mapping[str, Float[Array, ""] | float] | None = None,
  ) -> TrainState: ...


@runtime_checkable
class Data(Protocol):
  """What a method sees of the data between epochs."""

  epochs: int
  steps_per_epoch: int

  def batches(self, split: str) -> Iterator[Batch]:
    """One pass over ``train``, ``outer`` or ``val`` in fixed order, padded."""
    ...


def _no_state(problem: Problem, state: TrainState, key: PRNGKeyArray) -> PyTree:
  del problem, state, key
  return ()


def _keep_state(
  problem: Problem, state: TrainState, data: Data, epoch: int
) -> TrainState:
  del problem, data, epoch
  return state


def _fused(outputs: Outputs, method_state: PyTree) -> Float[Array, "b k"]:
  del method_state
  return outputs.logits


StepFn = Callable[
  [Problem, TrainState, Batch, PRNGKeyArray, Apply],
  tuple[TrainState, Metrics],
]
OuterStepFn = Callable[
  [Problem, TrainState, Batch, Batch, PRNGKeyArray],
  tuple[TrainState, Metrics],
]


@dataclasses.dataclass(frozen=True)
class Method:
  """A training rule: one required pure function, the others have a default.

  Attributes:
    step: ``(problem, state, batch, key, apply) -> (state, metrics)``. Jitted
      once. Leaves ``state.step`` alone; ``metrics`` are scalars, ``loss`` among
      them.
    init: ``(problem, state, key) -> method state``, with the state before the
      first step, whose ``method`` is still ``()``: weights and the optimiser's
      state are there to be measured.
    between_epochs: ``(problem, state, data, epoch) -> state``, on the host,
      before epoch ``epoch`` (0-based).
    predict: ``(outputs, method_state) -> logits``.
    outer_step: the outer level of a bi-level method, ``(problem, state, inner
      batch, outer batch, key) -> (state, metrics)``, jitted once and called
      after every ``inner_iters`` steps (Algorithm 1 of the paper).
    inner_iters: steps between two outer steps; ``None`` is one epoch.
    outer_split: the split that the outer batch is drawn from.
    modalities: the modalities the model is built with; ``None`` is all.
    order: ``(problem, method state, key, epoch) -> int [n]``, the samples of
      an epoch in their order, n of at least the training split's size; must
      depend on what steps leave alone. ``None`` shuffles.
    length: ``(epochs, number of modalities) -> epochs`` that a run of so many
      takes, phases before the last included (teachers, probes).
    ready: ``method_state -> bool``, whether the weights are the classifier's,
      so that a checkpoint may be chosen as the best; not while teachers or
      probes train.
  """

  step: StepFn
  init: Callable[[Problem, TrainState, PRNGKeyArray], PyTree] = _no_state
  between_epochs: Callable[[Problem, TrainState, Data, int], TrainState] = (
    _keep_state
  )
  predict: Callable[[Outputs, PyTree], Float[Array, "b k"]] = _fused
  outer_step: OuterStepFn | None = None
  inner_iters: int | None = None
  outer_split: str = "outer"
  modalities: tuple[str, ...] | None = None
  order: Callable[[Problem, PyTree, PRNGKeyArray, int], Any] | None = None
  length: Callable[[int, int], int] = lambda epochs, _: epochs
  ready: Callable[[PyTree], bool] = lambda method_state: True


class Card(NamedTuple):
  """A line of the table of methods (``docs/methods.md``).

  Attributes:
    category: of ``CATEGORIES``.
    equation: in one line of plain text.
    source: authors and venue.
    modalities: how many it works with.
  """

  category: str
  equation: str
  source: str
  modalities: str = "any"


CATEGORIES = (
  "baseline", "fusion", "objective", "gradient", "learning rate", "forward",
  "phases", "data", "matching",
)  # fmt: skip
