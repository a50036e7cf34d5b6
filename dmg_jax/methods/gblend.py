r"""Gradient blending: weights branches by generalisation over overfitting.

.. math:: L = \sum_{k \in \{1..M, \text{fused}\}} w_k\, \mathrm{CE}(o_k), \qquad
  w_k \propto \frac{|G_k|}{\Delta O_k^2 + 10^{-8}}, \quad \sum_k w_k = 1
.. math:: G_k = L^{val}_k(N) - L^{val}_k(N + n), \quad
  O_k = L^{val}_k - L^{train}_k, \quad \Delta O_k = O_k(N + n) - O_k(N)

Each estimate trains every branch separately for n = ``probe_epochs`` epochs,
starting from the same weights (those of epoch N), and then discards that
training, so it costs (M + 1) n extra epochs. Offline, there is one estimate at
the start. With ``online``, there is one before every ``super_epoch`` epochs,
starting from the current weights. The prediction is the fused logits. Works
best with own heads (fusion ``own_heads``). Supports any number of modalities.

Reference: Wang, Tran, Feiszli, "What Makes Training Multi-Modal Classification
Networks Hard?", CVPR 2020, eq. 3 and Algorithms 1-2.

Deviation 1: losses are means over train and val in evaluation mode; the code of
BalanceBenchmark sums over loaders of different lengths and uses the test set.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from dmg_jax.errors import InputError
from dmg_jax.methods import _epochs, _phases, _terms
from dmg_jax.methods._adapters import check_range, differentiate
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "objective",
  "Σ_k w_k CE(o_k), w_k ∝ |G_k| / ΔO_k²",
  "Wang et al., CVPR 2020",
)
_EPSILON = 1e-8
FUSED = "fused"


class State(struct.PyTreeNode):
  """State of gradient blending; a probe trains one branch for an estimate.

  Attributes:
    weights: {branch: w_k} in use.
    probe: index of the branch that is being probed, -1 in regular training.
    begin: number of steps spent on probes so far.
    kept: (params, stats, opt_state) from which probes start.
    before: {branch: [train loss, val loss]} at those weights.
    after: {branch: [train loss, val loss]} at the end of the branch's probe.
  """

  weights: dict[str, Leaf]
  probe: Leaf
  begin: Leaf
  kept: tuple[Leaf, Leaf, Leaf]
  before: dict[str, Leaf]
  after: dict[str, Leaf]


def _check(weights: tuple[float, ...] | None) -> None:
  for w in weights or ():
    check_range("weights", w, 0, 1e6)
  if weights and not any(weights):
    raise InputError("weights must not all be 0: nothing would be trained")


def make(
  *,
  online: bool = False,
  probe_epochs: int = 1,
  super_epoch: int = 10,
  weights: tuple[float, ...] | None = None,
) -> Method:
  """The gradient blending method.

  Args:
    online: estimate again before every super-epoch.
    probe_epochs: n > 0.
    super_epoch: number of epochs > 0 between two estimates.
    weights: fixed w_k ≥ 0 of the modalities in order, then of the fused branch;
      no probes are run then.
  """
  check_range("probe_epochs", probe_epochs, 1, 1e6)
  check_range("super_epoch", super_epoch, 1, 1e6)
  _check(weights)

  def init(problem, state, key):
    del key
    names = (*problem.modalities, FUSED)
    if weights is not None and len(weights) != len(names):
      raise InputError(
        f"weights needs {len(names)} numbers, for {', '.join(names)}; got "
        f"{len(weights)}"
      )
    given = weights or (1 / len(names),) * len(names)
    zero = jnp.zeros(2, jnp.float32)
    return State(
      weights=named(names, given),
      probe=_phases.count(-1),
      begin=_phases.count(0),
      kept=(state.params, state.stats, state.opt_state),
      before=dict.fromkeys(names, zero),
      after=dict.fromkeys(names, zero),
    )

  def between_epochs(problem, state, data, epoch):
    names = (*problem.modalities, FUSED)
    probing, cycle = len(names) * probe_epochs, super_epoch if online else None
    first, probe, starts = place(epoch, probing, probe_epochs, cycle)
    if weights is not None or not starts:
      return state
    if first:
      kept = (state.params, state.stats, state.opt_state)
      found = measure(problem, state, data)
      memory = state.method.replace(kept=kept, before=found)
      state = state.replace(method=memory)
    else:
      state = finish_probe(problem, state, data, names)
    return begin(state, probe, names, data.steps_per_epoch * probe_epochs)

  def length(epochs, modalities):
    if weights is not None:
      return epochs
    blocks = -(-epochs // super_epoch) if online else 1
    return epochs + blocks * (modalities + 1) * probe_epochs

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    length=length,
    ready=lambda method_state: int(method_state.probe) < 0,
    diagnostics=("weight",),
  )


def place(epoch, probing, probe_epochs, cycle):
  """(a block starts, index of the probe or -1, that probe or phase starts).

  A block is ``probing`` epochs of probes and ``cycle`` epochs of regular
  training, which never ends if ``cycle`` is ``None``.
  """
  if cycle is not None:
    epoch %= probing + cycle
  if epoch >= probing:
    return False, -1, epoch == probing
  return epoch == 0, epoch // probe_epochs, epoch % probe_epochs == 0


def step(problem, state, batch, key, apply):
  """One step on the weighted losses; a probe weights only its own branch."""

  def loss(outputs, params):
    del params
    each = _terms.own(outputs, batch)
    each[FUSED] = _terms.cross_entropy(outputs.logits, batch)
    value = sum(w * each[k] for k, w in state.method.weights.items())
    return value, _terms.named("cls", each)

  done = differentiate(loss, problem, state, batch, key)
  state = _phases.since(apply, state.method.begin)(done.state, done.grads)
  weights = _terms.named("weight", state.method.weights)
  return state, {**done.metrics, **weights}


def named(names, values):
  """{branch: float32 scalar}."""
  return {
    k: jnp.asarray(v, jnp.float32) for k, v in zip(names, values, strict=True)
  }


def measure(problem, state, data):
  """{branch: [train loss, val loss]} in evaluation mode."""
  found = [
    _epochs.sweep(_epochs.outputs, problem, state, data.batches(split))
    for split in ("train", "val")
  ]
  return {
    k: jnp.asarray(
      [_epochs.average(f, "loss", k, "G-Blend") for f in found], jnp.float32
    )
    for k in found[0]["loss"]
  }


def finish_probe(problem, state, data, names):
  """Stores the losses of the branch whose probe has just ended."""
  name = names[int(state.method.probe)]
  found = measure(problem, state, data)[name]
  after = {**state.method.after, name: found}
  return state.replace(method=state.method.replace(after=after))


def begin(state, probe, names, steps):
  """Restores the kept weights and sets the w_k of the next probe or phase."""
  memory = state.method
  if probe < 0:
    chosen = blend(memory.before, memory.after)
  else:
    chosen = named(names, [float(i == probe) for i in range(len(names))])
  spent = steps if int(memory.probe) >= 0 else 0  # On the previous probe.
  params, stats, opt_state = memory.kept
  memory = memory.replace(
    weights=chosen,
    probe=_phases.count(probe),
    begin=memory.begin + spent,
  )
  return state.replace(
    params=params, stats=stats, opt_state=opt_state, method=memory
  )


def blend(before, after):
  """{branch: w_k} from ``[train loss, val loss]`` before and after probes."""
  raw = {}
  for k, (train, val) in before.items():
    gain = jnp.abs(val - after[k][1])
    growth = (after[k][1] - after[k][0]) - (val - train)
    raw[k] = gain / (growth**2 + _EPSILON)
  total = sum(raw.values())
  return {
    k: jnp.where(total > 0, v / total, 1 / len(raw)).astype(jnp.float32)
    for k, v in raw.items()
  }
