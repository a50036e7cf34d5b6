r"""The method of the paper's released code, quirks included: ``lfm_code``.

.. math:: L = 2 \bigl[(1 - k) \mathrm{CE}(o) + k \mathrm{AG}(o_1, o_2)\bigr],
  \quad o = \mathrm{mean}_m\, o_m
.. math:: k \leftarrow \mathrm{clip}\bigl(k - \eta\, \mathrm{mean}(H v)_1,\
  .05, .95\bigr), \quad H = \tfrac12 \nabla^2 L, \quad
  v = \nabla\, \mathrm{CE}(o)

The update runs before each epoch on 8 held-out samples. (·)₁ selects the first
weight tensor of the first encoder, and AG is the divergence of unimodal
predictions (``losses.divergence``). H lacks the factor 2 of L, and there is no
inverse, no mixed derivative and no minus sign, so this is not equation 3 of the
paper; ``lb`` computes that. ``fitted`` replaces the update by a polynomial in
the epoch, as in the script that the README of the released code runs. Needs
averaged own heads (fusion ``sum`` with ``mean``). Supports any number of
modalities, with the mean of AG over pairs.

Reference: njustkmg/NeurIPS24-LFM, ``Crema_epoch_learnable.py`` and
``Crema_epoch.py`` (fitted) of revision ad44fa0.

Deviation 1: the 8 samples belong to the split ``outer``; in the released code
they belong to 16 samples that are taken out of the training data.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses
from dmg_jax.errors import InputError
from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import check_range, from_loss, scalar
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "matching",
  "2[(1-k) CE(o) + k AG(o_1, o_2)], k ← k - η mean(H v)_1",
  "njustkmg/NeurIPS24-LFM",
)
# Coefficients of epoch^0, epoch^1, ...
_FITTED = (
  7.95376296e-01, -3.35472727e-03, -1.22989557e-04,
  2.92947416e-06, -2.23835486e-08, 5.39717505e-11,
)  # fmt: skip
_SAMPLES = 8
_LOWEST, _HIGHEST = 0.05, 0.95


class State(struct.PyTreeNode):
  """State of lfm_code.

  Attributes:
    alpha: [], the weight k of the divergence.
  """

  alpha: Leaf


def make(
  *,
  fitted: bool = False,
  start: float = 0.95,
  rate: float = 1e-4,
  halve_every: int = 20,
) -> Method:
  """The lfm_code method.

  Args:
    fitted: use the polynomial instead of the update.
    start: k before the first epoch, in [.05, .95].
    rate: η > 0.
    halve_every: number of epochs > 0 after which η is halved.
  """
  check_range("start", start, _LOWEST, _HIGHEST)
  check_range("rate", rate, 0, 1e6)
  check_range("halve_every", halve_every, 1, 1e9)

  def init(problem, state, key):
    del state, key
    first = problem.modalities[0]
    if not fitted:
      _needs.trained(problem, "lfm_code", "moves k by a gradient of", first)
    if "own head" not in problem.readout:
      raise InputError("lfm_code needs averaged own heads: use fusion=sum")
    return State(scalar(polynomial(0) if fitted else start))

  def between_epochs(problem, state, data, epoch):
    if fitted:
      return state.replace(method=State(scalar(polynomial(epoch))))
    batch = next(iter(data.batches("outer")))
    few = jax.tree.map(lambda x: x[:_SAMPLES], batch)
    eta = rate * 0.5 ** (epoch // halve_every)
    alpha, stats = moved(problem, state, few, eta, epoch == 0)
    return state.replace(stats=stats, method=State(alpha))

  return from_loss(objective, init=init, between_epochs=between_epochs)


def objective(outputs, batch, mstate):
  """L of a batch, and its terms."""
  cls = _terms.cross_entropy(outputs.logits, batch)
  apart = losses.over_pairs(losses.divergence, outputs.unimodal, batch)
  alpha = mstate.alpha
  mixed = (1 - alpha) * cls + alpha * apart
  return 2 * mixed, {"cls": cls, "matching": apart, "alpha": alpha}


@functools.partial(jax.jit, static_argnums=(0, 4))
def moved(problem, state, batch, eta, train):
  """k after its update, and the statistics (updated in the first epoch)."""
  key = jax.random.key(0)

  def run(params):
    return problem.run(params, state.stats, batch, key, train)

  def total(params):
    # Training minimises twice this.
    return objective(run(params)[0], batch, state.method)[0] / 2

  def cls(params):
    return _terms.cross_entropy(run(params)[0].logits, batch)

  direction = jax.grad(cls)(state.params)
  _, product = jax.jvp(jax.grad(total), (state.params,), (direction,))
  first = first_tensor(problem, product)
  alpha = state.method.alpha - eta * first.mean()
  alpha = jnp.clip(alpha, _LOWEST, _HIGHEST).astype(jnp.float32)
  return alpha, run(state.params)[1]


def first_tensor(problem, tree):
  """The first weight matrix or kernel of the first modality's encoder."""
  for x, owner in zip(
    jax.tree.leaves(tree), jax.tree.leaves(problem.owner), strict=True
  ):
    if owner == problem.modalities[0] and x.ndim > 1:
      return x
  raise InputError(f"the encoder of {problem.modalities[0]!r} has no matrix")


def polynomial(epoch: int) -> float:
  """The fitted k of a 0-based epoch."""
  return sum(c * epoch**i for i, c in enumerate(_FITTED))
