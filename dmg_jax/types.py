"""Types that the whole package shares: batch, outputs, problem, method, state.

Dimension letters, used in every shape string of the package:

=====  =============================================================
``b``  samples of a batch, padding included (see ``Batch.mask``)
``k``  classes
``d``  features of a modality (may differ between modalities)
``t``  time: word pieces of a text, frames of a clip or spectrogram
``h``  height, ``w`` width, ``c`` channels of a picture (NHWC)
=====  =============================================================

Modalities are dictionary keys everywhere, never positions, and there may be any
number of them.
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


# A field of a pytree may hold an array, a tracer, a sharding, a shape or None,
# so shapes are documented rather than annotated.
Leaf = Any


jax.tree_util.register_dataclass(
  Batch, ["inputs", "labels", "mask", "index", "weight", "present"], []
)


class Outputs(struct.PyTreeNode):
  """The output of a forward pass.

  Attributes:
    logits: [b k], fused logits.
    unimodal: {modality: [b k]}, logits of each modality alone, by the read-out
      that the fusion declares.
    features: {modality: [b d]}, encoder features before fusion.
    extra: further outputs of the fusion, by name; its docstring lists them.
    present: as in ``Batch``. The features of a missing modality are zero, and
      its unimodal logits mean nothing.

  Example:

    >>> import dmg_jax, jax.numpy as jnp
    >>> logits = jnp.zeros((2, 3))
    >>> outputs = dmg_jax.Outputs(logits, {"image": logits}, {"image": logits})
    >>> outputs.extra
    {}
  """

  logits: Leaf
  unimodal: dict[str, Any]
  features: dict[str, Any]
  extra: dict[str, Any] = struct.field(default_factory=dict)
  present: dict[str, Any] | None = None


class Fused(NamedTuple):
  """The output of a fusion: the fields of ``Outputs`` except the features."""

  logits: Leaf
  unimodal: dict[str, Any]
  extra: Mapping[str, Any] = MappingProxyType({})


@runtime_checkable
class Forward(Protocol):
  """Pure forward pass: ``(outputs, new batch statistics)``.

  ``stats`` are the BatchNorm statistics; with ``train=False`` they are used and
  returned unchanged. ``present`` is that of the batch: where a modality is
  missing, whatever its input holds, its features are zero, and fusions that
  combine predictions leave it out. ``keep`` ({modality: [b]}, 1 or 0) zeroes a
  modality's features before fusion where it is 0 (read-out R3, feature
  ablation). ``shown`` does the same to its input (read-out R4, input ablation):
  zeros, or mid-grey for ``uint8`` pictures.
  """

  def __call__(
    self,
    params: Params,
    stats: Stats,
    inputs: Mapping[str, Any],
    key: PRNGKeyArray | None,
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
    keep: Mapping[str, Float[Array, " b"]] | None = None,
    shown: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> tuple[Outputs, Stats]: ...


@runtime_checkable
class Fuse(Protocol):
  """The fusion alone, applied to the features of an earlier forward pass.

  Methods that drop, mask or swap features call it instead of running the
  encoders again. ``present`` as in ``Forward``.
  """

  def __call__(
    self,
    params: Params,
    stats: Stats,
    features: Mapping[str, Float[Array, "b _"]],
    key: PRNGKeyArray | None,
    train: bool,
    present: Mapping[str, Float[Array, " b"]] | None = None,
  ) -> Fused: ...


SHARED = "shared"
# The collection of ``TrainState.stats`` that holds frozen encoders' weights.
FROZEN = "frozen"


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
  """The model as a method sees it: pure functions and who owns which weight.

  Two problems are equal only if they are the same object.

  Attributes:
    forward: the pure forward pass.
    fuse: the part of ``forward`` that comes after the encoders.
    owner: pytree with the structure of the parameters; each leaf names the
      owner of that weight: ``m`` (the encoder of modality m), ``m/head`` (m's
      own part of the fusion), ``m/gate`` (what m receives from other modalities
      inside the encoders) or ``SHARED``.
    modalities: names of the modalities, in a fixed order.
    outputs: shapes and dtypes of the outputs of ``forward`` for two samples.
    samples: number of samples of the training split.
    readout: how the fusion obtains unimodal logits, e.g. "R1, split head".
    additive: whether the fused logits are a sum of functions of one modality's
      features each.
    frozen: modalities whose encoder is not trained. Its weights are among the
      batch statistics, below ``FROZEN``: no weights of ``owner``.

  Example:

    >>> import dmg_jax, dataclasses
    >>> [f.name for f in dataclasses.fields(dmg_jax.Problem)][:3]
    ['forward', 'fuse', 'owner']
  """

  forward: Forward
  fuse: Fuse
  owner: PyTree[str]
  modalities: tuple[str, ...]
  outputs: Outputs
  samples: int
  readout: str
  additive: bool = dataclasses.field(default=False, kw_only=True)
  frozen: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

  def run(
    self,
    params: Params,
    stats: Stats,
    batch: Batch,
    key: PRNGKeyArray | None = None,
    train: bool = False,
  ) -> tuple[Outputs, Stats]:
    """``forward`` on a batch, whose samples may lack modalities."""
    inputs, present = batch.inputs, batch.present
    return self.forward(params, stats, inputs, key, train, present)

  @property
  def classes(self) -> int:
    """Number of classes."""
    return self.outputs.logits.shape[-1]

  @property
  def sizes(self) -> dict[str, int]:
    """{modality: number of its features}."""
    return {m: z.shape[-1] for m, z in self.outputs.features.items()}


class TrainState(struct.PyTreeNode):
  """Everything that a training step changes and a checkpoint holds.

  Attributes:
    step: int [], number of steps taken.
    params: the weights that are trained.
    stats: BatchNorm statistics (``{}`` without BatchNorm), and the weights of
      frozen encoders below ``FROZEN``.
    opt_state: state of the optimiser.
    method: the method's own state.
    plateau: state of ``training.optim.Plateau``, which follows the validation
      loss; ``()`` without a plateau schedule.

  Example:

    >>> import dmg_jax, jax.numpy as jnp
    >>> step, params = jnp.zeros((), int), {"w": jnp.ones(2)}
    >>> state = dmg_jax.TrainState(
    ...   step, params, stats={}, opt_state=(), method=()
    ... )
    >>> int(state.replace(step=state.step + 1).step)
    1
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
  after the optimiser, so it acts as a learning-rate factor. A factor of zero
  freezes the owner: neither its weights nor its moments change.
  """

  def __call__(
    self,
    state: TrainState,
    grads: Params,
    scale: Mapping[str, Float[Array, ""] | float] | None = None,
  ) -> TrainState: ...


@runtime_checkable
class Data(Protocol):
  """The data that a method can read between epochs."""

  epochs: int
  steps_per_epoch: int

  def batches(self, split: str) -> Iterator[Batch]:
    """One padded pass over ``train``, ``outer`` or ``val`` in fixed order."""
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


# Metrics that every step has; they and the loss terms must stay finite.
WATCHED = ("loss", "weight_norm")


@dataclasses.dataclass(frozen=True)
class Method:
  """A training method: pure functions, of which only ``step`` is required.

  Attributes:
    step: ``(problem, state, batch, key, apply) -> (state, metrics)``. Jitted
      once. It must not change ``state.step``; ``metrics`` are scalars and
      include ``loss``.
    init: ``(problem, state, key) -> method state``. It receives the state
      before the first step, whose ``method`` is still ``()``, and may read the
      initial weights and the optimiser's state.
    between_epochs: ``(problem, state, data, epoch) -> state``, on the host,
      before epoch ``epoch`` (0-based).
    predict: ``(outputs, method_state) -> logits``.
    outer_step: the outer level of a bilevel method, ``(problem, state, inner
      batch, outer batch, key) -> (state, metrics)``. Jitted once and called
      after every ``inner_iters`` steps (Algorithm 1 of the paper).
    inner_iters: number of steps between two outer steps; ``None`` means one
      epoch.
    outer_split: the split that outer batches are drawn from.
    modalities: the modalities that the model is built with; ``None`` means all.
    order: ``(problem, method state, key, epoch) -> int [n]``, the sample
      indices of an epoch in order, with n at least the size of the training
      split. It may read only those parts of the method state that ``step`` does
      not change, so that a resumed run finds the same order. ``None`` shuffles.
    length: ``(epochs, number of modalities) -> epochs``, the total number of
      epochs of a run whose last phase takes ``epochs``; earlier phases
      (teachers, probes) come on top.
    ready: ``method_state -> bool``, whether the weights are those of the
      classifier yet, so that this checkpoint may be chosen as the best. False
      while teachers or probes are trained.
    ablates_inputs: whether steps or hooks ablate inputs (read-out R4), so that
      features of frozen encoders cannot stand for them.
    diagnostics: names of metrics that are neither loss terms nor part of the
      state, with or without ``_<modality>`` behind them. They may be NaN or
      infinite while training goes on, and no picture of losses shows them. All
      other metrics but ``alpha`` are loss terms.

  Example:

    >>> from dmg_jax.methods import joint, lb
    >>> joint.make().outer_step is None, lb.make().outer_split
    (True, 'outer')
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
  ablates_inputs: bool = False
  diagnostics: tuple[str, ...] = ()

  def is_diagnostic(self, metric: str) -> bool:
    """Whether a metric of ``step`` or ``outer_step`` is a diagnostic."""
    if metric in WATCHED:
      return False
    return any(
      metric == name or metric.startswith(f"{name}_")
      for name in self.diagnostics
    )


class Card(NamedTuple):
  """A row of the table of methods (``docs/methods.md``).

  Attributes:
    category: one of ``CATEGORIES``.
    equation: the method's equation as one line of plain text.
    source: authors and venue.
    modalities: the numbers of modalities that the method supports.
  """

  category: str
  equation: str
  source: str
  modalities: str = "any"


CATEGORIES = (
  "baseline", "fusion", "objective", "gradient", "learning rate", "forward",
  "phases", "data", "matching",
)  # fmt: skip
