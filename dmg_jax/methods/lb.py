r"""Learned α (Ours-LB): bi-level optimisation by the implicit gradient.

.. math:: \min_{0 \le \alpha \le 1} L_{CLS}^{out}(\theta^*(\alpha))
  \quad \text{s.t.} \quad \theta^*(\alpha) \in \arg\min_\theta
  (1-\alpha) L_{CLS} + \alpha L_{MM}
.. math:: g = -\nabla^2_{\alpha\theta} L_{Total}\,
  [\nabla^2_{\theta\theta} L_{Total}]^{-1} \nabla_\theta L_{CLS}^{out}

After every ``inner_iters`` steps of θ (one epoch) one of α: the inverse by
``solver`` (``dmg_jax.bilevel``), then α's own optax chain and projection.
``inner_iters`` and the outer batch are those of Algorithm 1. Any number of
modalities.

Reference: the paper, eqs. 2-3 and Algorithm 1.

Deviations:
1. The outer loss is taken on data held out from training. On the training data
   (``outer="train"``, the letter of eq. 2) g is ``gᵀ H⁻¹ g / α ≥ 0`` at any
   inner minimum, so α could only fall.
2. α moves by a normalised step, because g ranges over orders of magnitude;
   ``normalise="none"`` is Algorithm 1. The rate is ``fitting_rate``'s.
3. ``scaled`` divides InfoNCE by log n, which makes α's scale that of a weight.
4. ``unimodal_weight`` adds a cross-entropy at each modality to the inner
   ``L_CLS`` (``_matching``): branches then learn at every α, and α is left with
   what matching adds. The outer loss stays that of the fused prediction.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from dmg_jax import trees
from dmg_jax.bilevel import (
  Identity,
  Status,
  hypergradient,
  loops,
  solver_by_name,
)
from dmg_jax.bilevel.alpha import RATE, AlphaOptimiser, fitting_rate
from dmg_jax.errors import InputError, unknown
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, from_loss
from dmg_jax.methods._matching import Matching, make_total
from dmg_jax.types import Card, Method

CARD = Card(
  "matching",
  "(1-α) (CE(o) + w Σ CE(o_m)) + α L_MM, α by eq. 3",
  "the paper, Ours-LB",
)

COUNT = {"neumann": "terms", "nystrom": "rank", "identity": "", "dense": ""}
OUTER = {"heldout": "outer", "train": "train"}
DIAGNOSTICS = (
  "hypergradient", "lambda_max", "curvature", "cosine", "status", "residual",
)  # fmt: skip


def make(
  *,
  start: float = 0.5,
  rate: float | None = None,
  normalise: str = "rms",
  optimiser: str = "sgd",
  momentum: float = 0.0,
  solver: str = "neumann",
  iterations: int = 5,
  damping: float = 0.0,
  inner_iters: int | None = None,
  outer: str = "heldout",
  matching: str = "info_nce",
  temperature: float = 0.1,
  scaled: bool = True,
  unimodal_weight: float = 0.0,
) -> Method:
  """Args:
  start: α before the first update.
  rate: learning rate of α; ``None`` follows from the number of updates
    (deviation 2).
  normalise: how the gradient is scaled, see ``AlphaOptimiser``.
  optimiser: ``sgd`` or ``adam``, see ``AlphaOptimiser``.
  momentum: of ``sgd``, or b1 of ``adam``.
  solver: by name, see ``dmg_jax.bilevel.solver_by_name``.
  iterations: Neumann terms, Krylov iterations or Nyström rank.
  damping: ρ ≥ 0 added to the Hessian's diagonal.
  inner_iters: steps of θ between two of α; ``None`` is one epoch.
  outer: ``heldout`` or ``train``: deviation 1.
  matching, temperature, scaled: the matching loss, see ``Matching``.
  unimodal_weight: w of the cross-entropy at each modality, 0 in the paper.
  """
  first = RATE if rate is None else rate
  chain = AlphaOptimiser(start, first, normalise, optimiser, momentum)
  total = make_total(Matching(matching, temperature, scaled), unimodal_weight)
  count = COUNT.get(solver, "iterations")
  inverse = solver_by_name(solver, **({count: iterations} if count else {}))
  check_range("damping", damping, 0, 1e12)
  return from_loss(
    lambda outputs, batch, alpha: total(outputs, batch, alpha.value),
    init=lambda problem, state, key: chain.init(),
    between_epochs=functools.partial(_set_rate, rate, inner_iters),
    outer_step=functools.partial(_outer_step, chain, total, inverse, damping),
    inner_iters=inner_iters,
    outer_split=outer_split(outer, inner_iters),
    diagnostics=DIAGNOSTICS,
  )


def _set_rate(rate, inner_iters, problem, state, data, epoch):
  """α's rate from the number of its updates, before the first epoch."""
  del problem
  if rate is not None or epoch > 0:
    return state
  steps = data.epochs * data.steps_per_epoch
  fitting = fitting_rate(steps // (inner_iters or data.steps_per_epoch))
  return state.replace(method=state.method.replace(rate=fitting))


def _outer_step(
  chain, total, solver, damping, problem, state, inner, outer, key
):
  """One step of α: equation 3 on an inner and an outer batch."""

  separate = loops.separate(trees.size(state.params))

  def inner_loss(params, alpha):
    outputs, _ = problem.run(params, state.stats, inner, key, True)
    return total(outputs, inner, alpha)[0]

  def outer_loss(params, alpha):
    del alpha
    at_once = inner.labels.size
    return heldout_loss(problem, params, state.stats, outer, at_once, separate)

  gradient, info = hypergradient(
    inner_loss,
    outer_loss,
    state.params,
    state.method.value,
    solver,
    damping=damping,
    separate=separate,
  )
  # Zero if a product was not finite: NaN instead, so that nothing moves.
  broken = info.status == Status.NONFINITE
  gradient = jnp.where(broken, jnp.nan, gradient)
  alpha = chain.update(state.method, gradient)
  metrics = {
    "hypergradient": gradient,
    "alpha": alpha.value,
    "lambda_max": info.lambda_max,
    "curvature": info.curvature,
    "cosine": info.cosine,
    "status": info.status,
  }
  if not isinstance(solver, Identity):  # It makes no product: not known.
    metrics["residual"] = info.residual
  return state.replace(method=alpha), metrics


def heldout_loss(problem, params, stats, batch, at_once, separate=False):
  """``L_CLS`` as at test time: running statistics, no dropout.

  More than ``at_once`` samples go through the model in parts of that size, so
  that only one part is in memory at a time, for the gradient too. Small models
  on CPU take the batch as a whole: convolutions in a loop would be several
  times slower. ``separate``: products are compiled one by one.
  """

  def mean(part):
    outputs, _ = problem.run(params, stats, part)
    return _terms.cross_entropy(outputs.logits, part)

  small = jax.default_backend() == "cpu" and not separate
  if small or batch.labels.size <= at_once:
    return mean(batch)
  parts = _parts(batch, at_once)
  means = jax.lax.map(jax.checkpoint(mean), parts)
  weights = parts.mask.sum(axis=1)
  return (means * weights).sum() / jnp.maximum(weights.sum(), 1.0)


def _parts(batch, size):
  """``[n ...]`` as ``[parts size ...]``, the last rows filled up with padding.

  Part i has the rows i, i + parts, ...: of every device as many.
  """
  count = -(-batch.labels.size // size)

  def split(x):
    extra = count * size - len(x)
    x = jnp.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(size, count, *x.shape[1:]).swapaxes(0, 1)

  return jax.tree.map(split, batch)


def outer_split(outer: str, inner_iters: int | None) -> str:
  """The split that ``outer`` names; checks ``inner_iters`` on the way."""
  if outer not in OUTER:
    raise unknown("outer", outer, OUTER)
  if inner_iters is not None and inner_iters < 1:
    raise InputError(f"inner_iters must be at least 1, got {inner_iters}")
  return OUTER[outer]
