r"""MSES: stops each modality when its own validation loss stops falling.

.. math:: L = \mathrm{CE}(o) + w \sum_m A_m\, \mathrm{CE}(o_m), \qquad
  \ell_m^{(e)} = 0.6\, v_m^{(e-1)} + 0.4\, v_m^{(e)}

v_m^(e) is the validation loss of modality m after epoch e. If the smoothed loss
ℓ_m reaches no new minimum for more than ``patience`` epochs, modality m is
finished: A_m becomes 0, and its encoder and head return to their best weights
and are frozen, while the others go on. Works best with own heads (fusion
``own_heads``). Supports any number of modalities.

Reference: Fujimori, Endo, Kawai, Mochizuki, "Modality-Specific Learning Rate
Control for Multimodal Classification", ACPR 2019; as in
lihong2303/AGM_ICCV2023.

Deviations from that code (``faithful=True`` follows it in the first):
1. It restores the whole model and optimiser from the best epoch of the finished
   modality, which undoes the progress of the others; here only the weights of
   that modality are restored.
2. It uses only the loss of the summed logits, which is ``unimodal_weight=0``;
   its patience of 80 epochs never runs out within its runs; and it validates on
   the test set, where this uses val.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax.methods import _epochs, _phases, _terms
from dmg_jax.methods._adapters import check_range, differentiate, scalar
from dmg_jax.methods._rates import own_scale
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "learning rate",
  "CE(o) + Σ A_m CE(o_m), A_m = 0 once the val loss of m stops falling",
  "Fujimori et al., ACPR 2019",
)


class State(struct.PyTreeNode):
  """State of MSES.

  Attributes:
    active: {modality: 1 or 0}, A_m.
    least: {modality: []}, smallest ℓ_m.
    when: {modality: []}, epoch of the smallest ℓ_m.
    last: {modality: []}, last validation loss v_m.
    best: {modality: weights}, weights at the smallest ℓ_m.
  """

  active: dict[str, Leaf]
  least: dict[str, Leaf]
  when: dict[str, Leaf]
  last: dict[str, Leaf]
  best: dict[str, Leaf]


def make(
  *, patience: int = 5, unimodal_weight: float = 1.0, faithful: bool = False
) -> Method:
  """The MSES method.

  Args:
    patience: number of epochs > 0 without a new minimum.
    unimodal_weight: weight w ≥ 0 of the unimodal losses.
    faithful: restore everything, see deviation 1.
  """
  check_range("patience", patience, 1, 1e9)
  check_range("unimodal_weight", unimodal_weight, 0, 1e6)

  def kept(state):
    everything = (state.params, state.stats, state.opt_state)
    return everything if faithful else state.params

  def init(problem, state, key):
    del key
    names = problem.modalities
    return State(
      active=dict.fromkeys(names, scalar(1.0)),
      least=dict.fromkeys(names, scalar(jnp.inf)),
      when=dict.fromkeys(names, _phases.count(0)),
      last=dict.fromkeys(names, scalar(0.0)),
      best={m: kept(state) for m in names},
    )

  def between_epochs(problem, state, data, epoch):
    if epoch == 0:
      _epochs.check_measurable(problem, data.batches("val"), "MSES")
      return state
    found = _epochs.sweep(_epochs.outputs, problem, state, data.batches("val"))
    before = state.method.active
    active = [m for m in problem.modalities if float(before[m])]
    for m in active:
      loss = float(_epochs.average(found, "loss", m, "MSES"))
      state = state.replace(method=observed(state, m, loss, epoch))
    # Restore last, so that the weights stored as best are those measured.
    for m in active:
      if not float(state.method.active[m]):
        state = restored(problem, state, m, faithful)
    return state

  def observed(state, m, loss, epoch):
    """The method state after one more validation loss of a modality."""
    old = state.method
    smooth = loss if epoch == 1 else 0.6 * float(old.last[m]) + 0.4 * loss
    change = {"last": scalar(loss)}
    if smooth < float(old.least[m]):
      now = {"least": scalar(smooth), "when": _phases.count(epoch)}
      change |= {**now, "best": kept(state)}
    elif epoch - int(old.when[m]) > patience:
      change["active"] = scalar(0.0)
    fields = {k: {**getattr(old, k), m: v} for k, v in change.items()}
    return old.replace(**fields)

  step = functools.partial(train_step, unimodal_weight)
  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    diagnostics=("active",),
  )


def restored(problem, state, m, faithful):
  """``state`` with the best weights of a finished modality restored."""
  best = state.method.best[m]
  if faithful:
    params, stats, opt_state = best
    return state.replace(params=params, stats=stats, opt_state=opt_state)
  params = jax.tree.map(
    lambda now, then, o: then if o.partition("/")[0] == m else now,
    state.params,
    best,
    problem.owner,
  )
  return state.replace(params=params)


def train_step(unimodal_weight, problem, state, batch, key, apply):
  """One step; finished modalities have no unimodal loss and are frozen."""
  active = state.method.active

  def loss(outputs, params):
    del params
    cls = _terms.cross_entropy(outputs.logits, batch)
    own = _terms.own(outputs, batch)
    value = cls + unimodal_weight * sum(active[m] * v for m, v in own.items())
    return value, {"cls": cls, **_terms.named("cls", own)}

  done = differentiate(loss, problem, state, batch, key)
  some = jnp.stack(list(active.values())).max()
  state = apply(done.state, done.grads, own_scale(problem, active, some))
  return state, {**done.metrics, **_terms.named("active", active)}
