r"""Learned α by the trajectory: the gradient carried along training.

The tangent dθ/dα goes forward through the optimiser's own steps Φ (moments
included), one ``jax.jvp`` a step,

.. math:: (\theta, s)_{t+1} = \Phi(\theta_t, s_t, \alpha), \qquad
  \tfrac{d(\theta, s)_{t+1}}{d\alpha} = \partial_{(\theta, s)} \Phi \,
  \tfrac{d(\theta, s)_t}{d\alpha} + \partial_\alpha \Phi

and after ``inner_iters`` steps (one epoch)

.. math:: g = \Bigl\langle \nabla_\theta L_{CLS}^{out}(\theta),\;
  \tfrac{d\theta}{d\alpha} \Bigr\rangle

is the exact derivative of the outer loss with respect to a constant α over
those steps: no inverse Hessian, no assumption of an inner minimum, O(params)
memory. The tangent then starts again from zero. Any number of modalities.

Reference: Franceschi et al., "Forward and Reverse Gradient-Based
Hyperparameter Optimization", ICML 2017, eqs. 10-13.

Deviations:
1. Batch statistics are carried without a tangent: in training they are written
   and not read.
"""

from __future__ import annotations

import functools

import jax
from flax import struct
from jaxtyping import PyTree

from dmg_jax import trees
from dmg_jax.bilevel import Iterate, loops, tangent_step, zero_tangent
from dmg_jax.bilevel.alpha import Alpha, AlphaOptimiser
from dmg_jax.methods._matching import Matching, make_total
from dmg_jax.methods.lb import heldout_loss, outer_split
from dmg_jax.types import Card, Method

CARD = Card(
  "matching",
  "(1-α) (CE(o) + w Σ CE(o_m)) + α L_MM, α by dθ/dα",
  "this project; paper eq. 2",
)


class State(struct.PyTreeNode):
  """α with its optimiser, and the tangent of (params, opt_state)."""

  alpha: Alpha
  tangent: PyTree


def make(
  *,
  start: float = 0.5,
  rate: float = 0.05,
  normalise: str = "rms",
  optimiser: str = "sgd",
  momentum: float = 0.0,
  inner_iters: int | None = None,
  outer: str = "heldout",
  matching: str = "info_nce",
  temperature: float = 0.1,
  scaled: bool = True,
  unimodal_weight: float = 0.0,
) -> Method:
  """Args:
  start: α before the first update.
  rate: learning rate of α.
  normalise: how the gradient is scaled, see ``AlphaOptimiser``.
  optimiser: ``sgd`` or ``adam``, see ``AlphaOptimiser``.
  momentum: of ``sgd``, or b1 of ``adam``.
  inner_iters: steps of θ between two of α; ``None`` is one epoch.
  outer: ``heldout`` or ``train``: the split that updates α, as in ``lb``.
  matching: the matching loss, see ``Matching``.
  temperature: of the matching loss.
  scaled: divide the matching loss by log n, see ``Matching``.
  unimodal_weight: w of the cross-entropy at each modality.
  """
  chain = AlphaOptimiser(start, rate, normalise, optimiser, momentum)
  total = make_total(Matching(matching, temperature, scaled), unimodal_weight)
  return Method(
    step=functools.partial(_step, total),
    init=lambda problem, state, key: State(chain.init(), _zero(state)),
    outer_step=functools.partial(_outer_step, chain),
    inner_iters=inner_iters,
    outer_split=outer_split(outer, inner_iters),
    diagnostics=("hypergradient",),
  )


def _step(total, problem, state, batch, key, apply):
  """One step of θ with its tangent."""
  k_forward, _ = jax.random.split(key)

  def loss(params, alpha):
    outputs, stats = problem.run(params, state.stats, batch, k_forward, True)
    value, terms = total(outputs, batch, alpha)
    return value, (stats, {"loss": value, **terms})

  def update(iterate, alpha):
    grads, aux = jax.grad(loss, has_aux=True)(iterate.params, alpha)
    here = state.replace(params=iterate.params, opt_state=iterate.opt_state)
    new = apply(here, grads)
    return Iterate(new.params, new.opt_state), aux

  alpha, tangent = state.method.alpha, state.method.tangent
  now = Iterate(state.params, state.opt_state)
  (new, (stats, metrics)), (tangent, _) = tangent_step(
    update, now, tangent, alpha.value, 1.0
  )
  state = state.replace(
    params=new.params,
    opt_state=new.opt_state,
    stats=stats,
    method=State(alpha, tangent),
  )
  return state, metrics


def _outer_step(chain, problem, state, inner, outer, key):
  """One step of α along the tangent, which then starts again."""
  del key
  at_once = inner.labels.size
  separate = loops.separate(trees.size(state.params))
  slope = jax.grad(
    lambda params: heldout_loss(
      problem, params, state.stats, outer, at_once, separate
    )
  )(state.params)
  gradient = trees.vdot(slope, state.method.tangent.params)
  alpha = chain.update(state.method.alpha, gradient)
  metrics = {"hypergradient": gradient, "alpha": alpha.value}
  return state.replace(method=State(alpha, _zero(state))), metrics


def _zero(state):
  return zero_tangent(Iterate(state.params, state.opt_state))
