r"""DOMFN: fuses modalities where they agree, else trains them separately.

.. math:: \bar q = \mathrm{mean}_m\, q_m, \quad
  \delta_{m,i} = \max_c (q_{m,i} - \bar q_i)_c^2, \quad
  G_i = \bigwedge_m [\delta_{m,i} / \tau < \gamma]
.. math:: L = \frac{1}{n} \sum_i \Bigl[ \sum_m \ell_{m,i} + G_i \Bigl(
  \ell_i + \sum_m \bigl(\tfrac12 \ell_{m,i}^2 - \eta\, \delta_{m,i}\bigr)
  \Bigr) \Bigr]

where q_m = softmax(o_m), ℓ are cross-entropies, and the gate G has no gradient.
The first ``pretrain_epochs`` epochs train only Σ ℓ_m. The prediction is the
fused logits where G holds, else the logits of the modality with the largest
entry of q_m. Sums, q̄ and G are over the modalities that sample i has. Works
best with own heads (fusion ``own_heads``, 64 hidden units). Supports any number
of modalities.

Reference: Yang, Zhang, et al., "DOMFN: A Divergence-Orientated Multi-Modal
Fusion Network for Resume Assessment", ACM MM 2022, eqs. 4-9. Official:
njustkmg/DOMFN.

Deviations:
1. The official q is a sigmoid of the logits, and the cross-entropies treat q as
   logits; ``faithful=True`` does the same.
2. The official batches hold one sample, whose loss has one of two forms; here
   the loss is the mean over the batch.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses, missing
from dmg_jax.methods import _phases, _terms
from dmg_jax.methods._adapters import check_range, differentiate, scalar
from dmg_jax.types import SHARED, Card, Leaf, Method

CARD = Card(
  "objective",
  "Σ CE(o_m) + G (CE(o) + Σ(½CE(o_m)² - η δ_m))",
  "Yang et al., ACM MM 2022",
)


class State(struct.PyTreeNode):
  """State of DOMFN.

  Attributes:
    joint: [], 1 in the joint phase, else 0.
    begin: [], step at which the joint phase began.
  """

  joint: Leaf
  begin: Leaf


def make(
  *,
  eta: float = 0.5,
  gamma: float = 0.8,
  tau: float = 0.2,
  pretrain_epochs: int | None = None,
  encoder_rate: float = 0.1,
  faithful: bool = False,
) -> Method:
  """The DOMFN method.

  Args:
    eta: weight η ≥ 0 of the divergence.
    gamma, tau: threshold γ > 0 and scale τ > 0 of the gate.
    pretrain_epochs: epochs before the joint phase; ``None`` means as many as
      the joint phase has.
    encoder_rate: learning rate of encoders and own heads in the joint phase,
      relative to that of the fused head.
    faithful: see deviation 1.
  """
  check_range("eta", eta, 0, 1e6)
  check_range("gamma", gamma, 1e-9, 1e9)
  check_range("tau", tau, 1e-9, 1e9)
  check_range("encoder_rate", encoder_rate, 0, 1e6)
  _phases.epochs_or_same("pretrain_epochs", pretrain_epochs, 0)

  def step(problem, state, batch, key, apply):
    joint = state.method.joint

    def loss(outputs, params):
      del params
      apart, together, opened = terms(outputs, batch, eta, gamma, tau, faithful)
      value = losses.masked_mean(apart + joint * opened * together, batch.mask)
      return value, {"gate": losses.masked_mean(opened, batch.mask)}

    done = differentiate(loss, problem, state, batch, key)
    own = jnp.where(joint > 0, encoder_rate, 1.0)
    owners = set(jax.tree.leaves(problem.owner))
    scale = {o: joint if o == SHARED else own for o in owners}
    apply = _phases.since(apply, state.method.begin)
    return apply(done.state, done.grads, scale), done.metrics

  def init(problem, state, key):
    del problem, state, key
    return State(scalar(0.0), _phases.count(0))

  def between_epochs(problem, state, data, epoch):
    del problem
    first = _phases.epochs_or_same("", pretrain_epochs, data.epochs)
    if epoch == first:
      begin = state.step.astype(jnp.int32)
      return state.replace(method=State(scalar(1.0), begin))
    return state

  def predict(outputs, method_state):
    del method_state
    return decide(outputs, gamma, tau, faithful)

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    predict=predict,
    length=lambda epochs, _: (
      epochs + _phases.epochs_or_same("", pretrain_epochs, epochs)
    ),
    ready=lambda method_state: bool(method_state.joint),
    diagnostics=("gate",),
  )


def terms(outputs, batch, eta, gamma, tau, faithful):
  """Per sample [b]: Σ ℓ_m, the term that G adds, and G itself."""
  quirk = jax.nn.sigmoid if faithful else (lambda o: o)
  each = {
    m: losses.cross_entropy(quirk(o), batch.labels)
    for m, o in outputs.unimodal.items()
  }
  each = {m: missing.where(outputs.present, m, v, 0) for m, v in each.items()}
  delta = divergences(outputs.unimodal, faithful, outputs.present)
  together = _terms.each(quirk(outputs.logits), batch)
  for m, ce in each.items():
    square = losses.weighted(0.5 * ce**2, batch)
    together = together + square - eta * delta[m]
  apart = {m: losses.weighted(ce, batch) for m, ce in each.items()}
  return _terms.total(apart), together, gate(delta, gamma, tau)


def probabilities(logits, faithful):
  """q of the logits of one modality."""
  return jax.nn.sigmoid(logits) if faithful else jax.nn.softmax(logits)


def divergences(unimodal, faithful, present=None):
  """{modality: δ_m [b]}; 0 for what is missing."""
  q = {m: probabilities(o, faithful) for m, o in unimodal.items()}
  mean = missing.projected(q, present) / len(q)
  delta = {m: _terms.largest((v - mean) ** 2) for m, v in q.items()}
  return {m: missing.where(present, m, v, 0) for m, v in delta.items()}


def gate(delta, gamma, tau):
  """G [b], 1 where all modalities agree."""
  agree = jnp.stack([d / tau < gamma for d in delta.values()]).all(axis=0)
  return jax.lax.stop_gradient(agree.astype(jnp.float32))


def decide(outputs, gamma, tau, faithful):
  """Fused logits where G holds, else those of the most confident modality."""
  present = outputs.present
  opened = gate(divergences(outputs.unimodal, faithful, present), gamma, tau)
  logits = jnp.stack(list(outputs.unimodal.values()))
  largest = probabilities(logits, faithful).max(axis=-1)
  kept = [
    missing.where(present, m, v, -1)
    for m, v in zip(outputs.unimodal, largest, strict=True)
  ]
  sure = jnp.stack(kept).argmax(axis=0)
  best = jnp.take_along_axis(logits, sure[None, :, None], axis=0)[0]
  return jnp.where(opened[:, None] > 0, outputs.logits, best)
