"""Any method on a model of your own, in a training loop of your own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from dmg_jax import losses, trees
from dmg_jax.api.batches import arrays, batch_of, present_of
from dmg_jax.api.binding import Bound
from dmg_jax.api.outputs import LackingError
from dmg_jax.bilevel import loops
from dmg_jax.errors import InputError, UnsuitableError
from dmg_jax.model import registry
from dmg_jax.training import optim, steps
from dmg_jax.types import (
  Batch,
  Data,
  Method,
  Metrics,
  Outputs,
  Params,
  Problem,
  Stats,
  TrainState,
)


class Loop:
  """The steps of a method on a problem, compiled, as pure functions of a state.

  A batch is ``(inputs, labels)``, a dictionary ``{"inputs": ..., "labels":
  ...}``, a flat one ``{modality: ..., "labels": ...}``, or a ``Batch``; its
  arrays are NumPy's, JAX's, or anything that ``numpy.asarray`` takes, such as a
  torch tensor. Dictionaries may hold ``mask`` [b] (1 for a sample, 0 for
  padding), ``index`` [b] (positions in the training split) and ``present``,
  {modality: [b]}, 1 where a sample has that modality and 0 where it lacks it
  (what stands in its place has no influence). Batches of another size compile
  again.

  Random keys are functions of ``seed`` and ``state.step`` alone, so a stored
  state goes on exactly as it would have.

  Attributes:
    problem: the model.
    method: the training rule.
    name: of the method.
    epochs: that a run takes, phases before the last included.
    has_outer: whether there is an outer level, as that of ``lb``: then call
      ``outer_step`` after every ``inner_iters`` steps.
    inner_iters: steps between two outer steps; ``None`` is one epoch.

  Example:

    >>> import numpy as np
    >>> import optax
    >>> import dmg_jax
    >>> params = {m: np.zeros((4, 2)) for m in ("image", "text")}
    >>> def apply(params, inputs, *, train, key):
    ...   unimodal = {m: inputs[m] @ params[m] for m in params}
    ...   return {"logits": sum(unimodal.values()), "unimodal": unimodal}
    >>> inputs = {m: np.ones((8, 4), np.float32) for m in params}
    >>> problem = dmg_jax.bind(
    ...   apply, params, owner=lambda path: path[0], inputs=inputs
    ... )
    >>> loop = dmg_jax.Loop(problem, "ogm_ge", optax.adam(1e-3), alpha=0.5)
    >>> state = loop.init()
    >>> state, metrics = loop.step(state, (inputs, np.zeros(8, int)))
    >>> round(float(metrics["loss"]), 3), int(state.step)
    (0.693, 1)
  """

  def __init__(
    self,
    problem: Problem,
    method: str | Method,
    optimiser: Any,
    *,
    seed: int = 0,
    epochs: int = 1,
    steps_per_epoch: int | None = None,
    clip_norm: float | None = None,
    class_weights: Any = None,
    donate: bool = False,
    **options: Any,
  ):
    """Makes the method and the steps; nothing is compiled yet.

    Args:
      problem: of ``dmg_jax.bind``, or any other.
      method: its name (``dmg_jax.recipes()`` lists them with their recipes), or
        a ``Method`` of your own.
      optimiser: of optax, learning rate included. Every owner's weights have
        their own copy of its state, so that a method can scale or freeze them
        by themselves; a norm inside it is over one owner's weights.
      seed: of dropout and whatever a method draws.
      epochs: of training, for methods with a schedule or with phases.
      steps_per_epoch: for the same; by default the number of batches of
        ``train`` that ``between_epochs`` is given.
      clip_norm: largest norm of the whole gradient, before the optimiser.
      class_weights: [k] numbers, the weight of each class in every
        cross-entropy of the method; only their ratios matter within a batch.
      donate: steps overwrite the state that they are given, which saves memory;
        the old state is then gone.
      **options: of the method.

    Raises:
      InputError: unknown method or option, with the choices; no transformation
        of optax; a method for other modalities.
    """
    if isinstance(method, str):
      self.name = method
      self.method = registry.make_method(method, **options)
    else:
      self.name, self.method = "the method", method
      if options:
        raise InputError(
          f"options {', '.join(options)} are for a method by name: give them "
          "to the function that makes yours"
        )
    _check_modalities(self.name, self.method, problem)
    self.problem, self._seed, self._steps = problem, seed, steps_per_epoch
    self._given_epochs = epochs
    self.epochs = self.method.length(epochs, len(problem.modalities))
    self.has_outer = self.method.outer_step is not None
    self.inner_iters = self.method.inner_iters
    self._init_opt, self.apply = optim.from_optax(
      problem.owner, optimiser, clip_norm
    )
    self._weights = _class_weights(class_weights, problem.classes)
    self._step = steps.make_train_step(
      problem, self.method, self.apply, donate=donate, weights=self._weights
    )
    self._donate, self._outer = donate, None
    self._outputs = jax.jit(self._evaluated)

  def init(
    self, params: Params | None = None, stats: Stats | None = None
  ) -> TrainState:
    """The state before the first step; the arrays are copied.

    Args:
      params: weights to start from; those that ``bind`` was given by default.
      stats: batch statistics; likewise.

    Raises:
      UnsuitableError: the model lacks something that the method needs.
    """
    first = self.problem.start if isinstance(self.problem, Bound) else None
    if params is None and first is None:
      raise InputError("init needs params: the problem was not made by bind")
    given = (
      first[0] if params is None and first else params,
      (first[1] if first else {}) if stats is None else stats,
    )
    weights, kept = jax.tree.map(lambda x: jnp.array(x, copy=True), given)
    with self._named():
      state = steps.init_state(
        self.problem, self.method, weights, kept, self._init_opt, self._seed
      )
    return jax.device_put(state, jax.devices()[0])

  def step(self, state: TrainState, batch: Any) -> tuple[TrainState, Metrics]:
    """One training step.

    Returns:
      The new state, and scalars: ``loss``, its terms, ``weight_norm``.

    Raises:
      InputError: a batch of other modalities, lengths or labels.
      UnsuitableError: the model lacks something that the method needs.
    """
    with self._named():
      return self._step(state, self.batch(batch), self._seed)

  def outer_step(
    self, state: TrainState, inner: Any, outer: Any
  ) -> tuple[TrainState, Metrics]:
    """One step of the outer level, such as that of ``lb``'s α.

    Args:
      state: as after ``step``.
      inner: a training batch.
      outer: a batch of samples that no ``step`` trains on; it is used as at
        test time, so do not augment it.

    Raises:
      InputError: the method has no outer level; or as ``step``.
    """
    if not self.has_outer:
      raise InputError(
        f"{self.name} has no outer level: call outer_step where has_outer is "
        "true"
      )
    if self._outer is None:
      self._outer = steps.make_outer_step(
        self.problem,
        self.method,
        loops.separate(trees.size(state.params)),
        donate=self._donate,
        weights=self._weights,
      )
    with self._named():
      return self._outer(
        state, self.batch(inner), self.batch(outer), self._seed
      )

  def between_epochs(
    self,
    state: TrainState,
    data: Mapping[str, Iterable[Any] | Callable[[], Iterable[Any]]] | Data,
    epoch: int,
  ) -> TrainState:
    """What the method does before an epoch: measure, schedule, change phases.

    Call it before every epoch. Methods without such a step return the state.

    Args:
      state: as after the epoch before.
      data: {"train", "outer" or "val": batches in a fixed order}, or functions
        that return them; what the method does not look at may be left out.
      epoch: its number, from 0.

    Raises:
      UnsuitableError: a split, or something else, that the method needs.
    """
    splits: Any = _Splits(self, data) if isinstance(data, Mapping) else data
    with self._named():
      return steps.between_epochs(
        self.problem, self.method, state, splits, epoch
      )

  def order(self, state: TrainState, epoch: int) -> np.ndarray | None:
    """The method's own order of the training samples of an epoch, int [n].

    ``None``, for most methods: the order is yours, shuffled as a rule.
    """
    with self._named():
      return steps.order(self.problem, self.method, state, self._seed, epoch)

  def ready(self, state: TrainState) -> bool:
    """Whether the weights are the classifier's, not those of a first phase."""
    return bool(self.method.ready(jax.device_get(state.method)))

  def outputs(
    self,
    state: TrainState,
    inputs: Mapping[str, Any],
    present: Mapping[str, Any] | None = None,
  ) -> Outputs:
    """All outputs of the model, as at test time; ``present`` as in a batch."""
    there = present_of(present, self.problem.modalities)
    return self._outputs(state, arrays(dict(inputs)), there)[0]

  def predict(
    self,
    state: TrainState,
    inputs: Mapping[str, Any],
    present: Mapping[str, Any] | None = None,
  ) -> Float[Array, "b k"]:
    """Logits [b k] by the method's rule; the largest is the prediction."""
    there = present_of(present, self.problem.modalities)
    with self._named():
      return self._outputs(state, arrays(dict(inputs)), there)[1]

  def batch(self, given: Any) -> Batch:
    """A batch in any of the accepted forms as a ``Batch``, checked.

    Raises:
      InputError: other modalities or lengths, labels that are no classes, no
        index where the method needs one.
    """
    return batch_of(given, self.problem)

  def _evaluated(self, state, inputs, present):
    outputs, _ = self.problem.forward(
      state.params, state.stats, inputs, None, False, present
    )
    return outputs, self.method.predict(outputs, state.method)

  @contextlib.contextmanager
  def _named(self) -> Iterator[None]:
    """Names the method in the error for what the model lacks."""
    try:
      yield
    except LackingError as error:
      raise UnsuitableError(f"{self.name} needs {error.what}") from None


class _Unknown(int):
  """A number of steps that nobody gave: to use it is an error."""

  def _refuse(self, *_: Any) -> Any:
    raise LackingError(
      "the number of steps of an epoch: give Loop steps_per_epoch=..., or "
      "between_epochs a list of the batches of 'train'"
    )

  __mul__ = __rmul__ = __floordiv__ = __rfloordiv__ = __jax_array__ = _refuse


class _Splits:
  """``types.Data`` of a dictionary."""

  def __init__(self, loop: Loop, splits: Mapping[str, Any]):
    self._loop, self._splits = loop, splits
    self.epochs = loop._given_epochs
    train, steps = splits.get("train"), loop._steps
    if steps is None:
      steps = len(train) if isinstance(train, Sized) else _Unknown()
    self.steps_per_epoch: int = steps

  def batches(self, split: str) -> Iterator[Batch]:
    if split not in self._splits:
      raise LackingError(
        f"the split {split!r} between epochs: call between_epochs(state, "
        f"{{{split!r}: batches, ...}}, epoch)"
      )
    found: Any = self._splits[split]
    if callable(found):
      found = found()
    for batch in found:
      yield losses.with_class_weights(
        self._loop.batch(batch), self._loop._weights, relative=False
      )


def _class_weights(given: Any, classes: int) -> np.ndarray | None:
  """Weights [k], checked."""
  if given is None:
    return None
  weights = np.asarray(given, np.float64)
  good = np.isfinite(weights).all() and (weights >= 0).all() and weights.any()
  if weights.shape != (classes,) or not good:
    raise InputError(
      f"class_weights are {classes} numbers of at least 0, one of each class "
      f"and not all 0; got {given!r}"
    )
  return weights


def _check_modalities(name: str, method: Method, problem: Problem) -> None:
  wanted = method.modalities
  if wanted is not None and set(wanted) != set(problem.modalities):
    raise UnsuitableError(
      f"{name} trains a model of {', '.join(wanted)} alone: bind one, this has "
      f"{', '.join(problem.modalities)}"
    )
