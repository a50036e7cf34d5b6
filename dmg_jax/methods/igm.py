r"""IGM: modalities take turns, each in directions that the last one left flat.

A run has ``stages`` turns of equal length; in each of them, only the encoder
and the head of one modality m are trained, with

.. math:: L = (1 - \beta)\, \ell(\theta) + \beta\, \ell\Bigl(\theta + \rho\,
  \frac{\nabla \ell}{\|\nabla \ell\|}\Bigr), \quad \ell = \mathrm{CE}(o_m, y),
  \qquad \nabla W_m \leftarrow P\, \nabla W_m
.. math:: P = V \mathrm{diag}\Bigl(\exp\Bigl(-\tau\, \frac{\lambda -
  \min \lambda}{\max \lambda - \min \lambda}\Bigr)\Bigr) V^\top, \qquad
  \sum_b r_b r_b^\top = V \mathrm{diag}(\lambda) V^\top

where r_b are the mean features that the modality of the turn before gives for
batch b of the training split, at the end of its turn. P is the identity in the
first turn, and the second point is a constant for ∇ (SAM). The prediction is
the log of the mean of softmax(o_m).

Needs one linear head per modality (fusion ``sum``). Supports any number of
modalities, in a cycle; P acts between heads of equal size, and not with one
modality.

Reference: Jiang, Chi, Yang, "Interactive Multimodal Learning via Flat Gradient
Modification", IJCAI 2025. Official: njustkmg/IJCAI25-IGM.

Deviations (``faithful=True`` follows the official code in 1 and 2):
1. The official code moves each tensor by ρ of its own norm, computes the second
   loss from the features of the first pass, and never takes the move back.
2. It has ρ = 1e-10 or less, which switches this off; here it is SAM's .05.
3. Heads have one layer and not three; P acts in front of each of them there.
4. Officially turns differ in length, each begins with the best weights so far
   and a new optimiser, and inputs are mixed up.
5. Where all λ are equal, P is the identity; officially it is 0/0.
6. Running statistics of all encoders move in every turn.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import trees
from dmg_jax.errors import InputError
from dmg_jax.methods import _needs, _rates, _routing, _terms, ensemble
from dmg_jax.methods._adapters import Pass, check_range, differentiate
from dmg_jax.methods._phases import count
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "phases",
  "in turns: (1-β) CE(o_m) + β CE at θ + ρ g/‖g‖, ∇W ← P ∇W",
  "Jiang et al., IJCAI 2025",
)


class State(struct.PyTreeNode):
  """State of IGM.

  Attributes:
    turn: int [], number of the modality that is trained.
    projection: {modality: [d d]}, P of its turn.
  """

  turn: Leaf
  projection: dict[str, Leaf]


def make(
  *,
  stages: int = 12,
  flat: float = 0.3,
  rho: float = 0.05,
  temperature: float = 0.4,
  faithful: bool = False,
) -> Method:
  """The IGM method.

  Args:
    stages: number of turns in a run, at least 1.
    flat: β in [0, 1], weight of the loss at the second point.
    rho: ρ ≥ 0, how far that is.
    temperature: τ ≥ 0 of the projection; 0 gives the identity.
    faithful: see deviation 1.
  """
  check_range("stages", stages, 1, 1e9)
  check_range("flat", flat, 0, 1)
  check_range("rho", rho, 0, 1e6)
  check_range("temperature", temperature, 0, 1e6)

  def step(problem, state, batch, key, apply):
    turn = {m: state.method.turn == i for i, m in enumerate(problem.modalities)}
    two = _on_features if faithful else _sharp
    done = two(problem, state, batch, key, turn, flat, rho)
    grads = _routing.project(problem, done.grads, state.method.projection)
    scale = {m: jnp.where(now, 1.0, 0.0) for m, now in turn.items()}
    scale = _rates.own_scale(problem, scale, 0.0)
    metrics = {**done.metrics, "turn": state.method.turn.astype(jnp.float32)}
    return apply(done.state, grads, scale), metrics

  def between_epochs(problem, state, data, epoch):
    length = max(1, data.epochs // int(stages))
    if not epoch or epoch % length:
      return state
    memory, names = state.method, problem.modalities
    last, now = (names[(epoch // length + k) % len(names)] for k in (-1, 0))
    projection = dict(memory.projection)
    if last != now and problem.sizes[last] == problem.sizes[now]:
      seen = _routing.covariance(problem, state, data.batches("train"), last)
      p = _routing.matrix(seen, temperature)
      projection[now] = jnp.asarray(p, projection[now].dtype)
    turn = count((epoch // length) % len(names))
    return state.replace(method=State(turn, projection))

  return Method(
    step=step,
    init=_init,
    between_epochs=between_epochs,
    predict=lambda outputs, method_state: ensemble.log_mean_softmax(outputs),
    diagnostics=("turn",),
  )


def _init(problem, state, key):
  del key
  _needs.independent_readout(problem, "igm")
  owners = jax.tree.leaves(problem.owner)
  pairs = list(zip(owners, jax.tree.leaves(state.params), strict=True))
  projection = {}
  for m, d in problem.sizes.items():
    found = [w for o, w in pairs if o == f"{m}/head" and w.ndim == 2]
    if [w.shape for w in found] != [(d, problem.classes)]:
      raise InputError(
        f"igm needs one linear head of {m!r} on its features: use fusion=sum"
      )
    projection[m] = jnp.eye(d, dtype=found[0].dtype)
  return State(count(0), projection)


def _of_turn(unimodal, batch, turn):
  """ℓ, and the cross-entropy of every modality."""
  own = {m: _terms.cross_entropy(o, batch, m) for m, o in unimodal.items()}
  return _terms.total(
    {m: jnp.where(turn[m], v, 0) for m, v in own.items()}
  ), own


def _sharp(problem, state, batch, key, turn, flat, rho):
  """The pass with the gradient of L, by two passes."""

  def loss(outputs, params):
    del params
    value, own = _of_turn(outputs.unimodal, batch, turn)
    return value, {"cls": value, **_terms.named("cls", own)}

  one = differentiate(loss, problem, state, batch, key)
  norm = trees.norm(one.grads)
  step = trees.safe_divide(jnp.full_like(norm, rho), norm, 0.0)
  there = jax.tree.map(
    lambda p, g: p + (step * g).astype(p.dtype), state.params, one.grads
  )
  two = differentiate(loss, problem, state.replace(params=there), batch, key)
  grads = jax.tree.map(
    lambda a, b: (1 - flat) * a + flat * b, one.grads, two.grads
  )
  return _joined(one, two.metrics["loss"], grads, flat)


def _on_features(problem, state, batch, key, turn, flat, rho):
  """``_sharp`` as the official code has it, see deviation 1."""

  def loss(outputs, params):
    del params
    return _of_turn(outputs.unimodal, batch, turn)

  one = differentiate(loss, problem, state, batch, key)
  moves = jax.tree.map(
    lambda g: rho * g * trees.safe_divide(jnp.ones(()), trees.norm(g), 0.0),
    one.grads,
  )

  def both(outputs, params):
    value, own = _of_turn(outputs.unimodal, batch, turn)
    there = jax.tree.map(lambda p, e: p + e, params, moves)
    fused = problem.fuse(
      there, state.stats, outputs.features, key, True, batch.present
    )
    second, _ = _of_turn(fused.unimodal, batch, turn)
    terms = {"cls": value, **_terms.named("cls", own), "cls_flat": second}
    return (1 - flat) * value + flat * second, terms

  done = differentiate(both, problem, state, batch, key)
  there = jax.tree.map(lambda p, e: p + e, state.params, moves)
  return done._replace(state=done.state.replace(params=there))


def _joined(one, second, grads, flat):
  value = (1 - flat) * one.metrics["loss"] + flat * second
  metrics = {**one.metrics, "loss": value, "cls_flat": second}
  return Pass(one.outputs, grads, metrics, one.state)
