r"""UMT: distils features from teachers that saw one modality each.

Phase 1 trains the teachers with Σ_m CE(o_m), without anything shared between
encoders. Phase 2 starts from fresh weights and trains

.. math:: L = \mathrm{CE}(o) + \lambda \sum_m \frac{1}{n d_m}
  \sum_i \| z_{m,i} - z^T_{m,i} \|^2

with the teachers' features z^T in evaluation mode, without gradient. Needs
read-outs whose loss reaches only their own encoder. Supports any number of
modalities.

Reference: Du, Li, Zhu, et al., "Improving Multi-Modal Learning with Uni-Modal
Teachers", arXiv 2106.11059, eq. 4; λ as in GeWu-Lab/BalanceBenchmark.

Deviation 1: teachers are trained together in one run (with ``concat`` they
share the bias of the head); in the toolkit they are trained one by one.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses
from dmg_jax.methods import _needs, _phases, _terms
from dmg_jax.methods._adapters import check_range, differentiate, scalar
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "phases", "CE(o) + λ Σ ‖z_m - z_m^teacher‖²/d", "Du et al., arXiv 2021"
)


class State(struct.PyTreeNode):
  """State of UMT.

  Attributes:
    distil: [], 1 in phase 2, else 0.
    begin: [], step at which phase 2 began.
    other: (params, stats) of the teachers; in phase 1, those from which phase 2
      will start.
    fresh_opt: optimiser state before the first step.
  """

  distil: Leaf
  begin: Leaf
  other: tuple[Leaf, Leaf]
  fresh_opt: Leaf


def make(*, weight: float = 10.0, teacher_epochs: int | None = None) -> Method:
  """The UMT method.

  Args:
    weight: weight λ ≥ 0 of the distillation.
    teacher_epochs: number of epochs of phase 1; ``None`` means as many as phase
      2 has.
  """
  check_range("weight", weight, 0, 1e6)
  _phases.epochs_or_same("teacher_epochs", teacher_epochs, 0)

  def step(problem, state, batch, key, apply):
    memory = state.method
    seen, _ = problem.run(*memory.other, batch)
    teacher = jax.lax.stop_gradient(seen.features)

    def loss(outputs, params):
      del params
      cls = _terms.cross_entropy(outputs.logits, batch)
      own = _terms.own(outputs, batch)
      far = distances(outputs.features, teacher, batch)
      second = cls + weight * _terms.total(far)
      value = jnp.where(memory.distil > 0, second, _terms.total(own))
      return value, {"cls": cls, **_terms.named("distil", far)}

    done = differentiate(loss, problem, state, batch, key)
    apply = _phases.since(apply, memory.begin)
    return apply(done.state, done.grads), done.metrics

  def init(problem, state, key):
    del key
    _needs.independent_readout(problem, "umt")
    other = (state.params, state.stats)
    opt = state.opt_state
    return State(scalar(0.0), _phases.count(0), other, opt)

  def between_epochs(problem, state, data, epoch):
    del problem
    first = _phases.epochs_or_same("", teacher_epochs, data.epochs)
    return switch(state) if epoch == first else state

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    length=lambda epochs, _: (
      epochs + _phases.epochs_or_same("", teacher_epochs, epochs)
    ),
    ready=lambda method_state: bool(method_state.distil),
  )


def switch(state):
  """The state at the start of phase 2: fresh weights, trained teachers."""
  memory = state.method
  params, stats = memory.other
  now = State(
    scalar(1.0),
    state.step.astype(jnp.int32),
    (state.params, state.stats),
    memory.fresh_opt,
  )
  return state.replace(
    params=params, stats=stats, opt_state=memory.fresh_opt, method=now
  )


def distances(features, teacher, batch):
  """{modality: mean squared difference over samples and features}."""
  return {
    m: losses.masked_mean(
      ((z - teacher[m]) ** 2).mean(axis=-1), batch.having(m)
    )
    for m, z in features.items()
  }
