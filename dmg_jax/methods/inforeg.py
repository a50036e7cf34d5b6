r"""InfoReg: holds the leading encoder near its weights of the last epoch.

.. math:: L = \mathrm{CE}(o) + \sum_m \mathrm{CE}(o_m), \qquad
  g_{\theta_m} \leftarrow g_{\theta_m} + \beta\, e^{\tanh \Delta_m}
  (\theta_m - \theta_m^{(e)}) \quad \text{if } \Delta_m > 0
  \text{ and } r_m > K
.. math:: \Delta_m = s_m - \mathrm{mean}_{j \ne m} s_j, \quad
  s_m = \sum_i \mathrm{softmax}(o_{m,i})_{y_i}, \quad
  r_m = \frac{\bar t_m^{(e)} - \bar t_m^{(e-1)}}{\bar t_m^{(e)}}

θ^(e) are the weights of encoder m at the start of the epoch. The trace of its
Fisher information in an epoch, t_m, is the sum over steps and weight tensors of
the mean squared gradient; a bar is the mean over the last ``window`` epochs, of
which those before the first are zero. So r is large while information is
acquired fast, in the prime learning window; in the first epoch it is 1. Works
with any fusion and any number of modalities; a single one is not held.

Reference: Huang, Wei, Yang, Hu, "Adaptive Unimodal Regulation for Balanced
Multimodal Information Acquisition", CVPR 2025. Official:
GeWu-Lab/InfoReg_CVPR2025.

Deviations:
1. In the official code the trace of the audio decides for both modalities, with
   β = .95 for the audio and .1 for the picture; ``faithful=True`` has the trace
   of the first modality for all, and ``others`` is the β of the others.
2. The official code supports two modalities. For M > 2, every modality above
   the mean of the others is held.
3. The trace is over tensors with two or more axes; officially over the weights
   of convolutions and linear layers, which are the same but for embeddings.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import trees
from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import check_range, differentiate, scalar
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "gradient",
  "g_m += β exp(tanh Δ_m)(θ_m - θ_m^epoch), while Tr F_m grows",
  "Huang et al., CVPR 2025",
)


class State(struct.PyTreeNode):
  """State of InfoReg.

  Attributes:
    start: the weights at the start of the epoch.
    traces: {modality: [window + 1]}, t_m of the last epochs, the newest last.
    current: {modality: []}, t_m of this epoch so far.
    active: {modality: []}, 1 in the prime learning window, else 0.
  """

  start: Leaf
  traces: dict[str, Leaf]
  current: dict[str, Leaf]
  active: dict[str, Leaf]


def make(
  *,
  strength: float = 0.95,
  others: float | None = None,
  threshold: float = 0.05,
  window: int = 10,
  faithful: bool = False,
) -> Method:
  """The InfoReg method.

  Args:
    strength: β ≥ 0; 0 is multitask training.
    others: β ≥ 0 of all modalities but the first; ``None`` means ``strength``.
    threshold: K, least relative growth of the mean trace.
    window: number of epochs > 0 of a mean.
    faithful: see deviation 1.
  """
  check_range("strength", strength, 0, 1e6)
  check_range("others", others or 0, 0, 1e6)
  check_range("threshold", threshold, -1e6, 1)
  check_range("window", window, 1, 1e6)

  rest = strength if others is None else others

  def step(problem, state, batch, key, apply):
    def loss(outputs, params):
      del params
      cls = _terms.cross_entropy(outputs.logits, batch)
      own = _terms.own(outputs, batch)
      return cls + _terms.total(own), {"cls": cls, **_terms.named("cls", own)}

    done, memory = differentiate(loss, problem, state, batch, key), state.method
    beta = dict.fromkeys(problem.modalities, rest)
    beta[problem.modalities[0]] = strength
    pull = pulls(done.outputs.unimodal, batch, memory.active, beta)
    grads = held(problem, done.grads, state.params, memory.start, pull)
    current = {
      m: (t + trace(problem, grads, m)).astype(t.dtype)
      for m, t in memory.current.items()
    }
    after = done.state.replace(method=memory.replace(current=current))
    metrics = _terms.named("pull", pull) | _terms.named("trace", current)
    return apply(after, grads), {**done.metrics, **metrics}

  def init(problem, state, key):
    del key
    if faithful:
      first = problem.modalities[0]
      _needs.trained(problem, "inforeg", "measures the trace of", first)
    zero, one = ({m: scalar(v) for m in problem.modalities} for v in (0.0, 1.0))
    past = {m: jnp.zeros(int(window) + 1, jnp.float32) for m in zero}
    return State(state.params, past, zero, one)

  def between_epochs(problem, state, data, epoch):
    del data
    if epoch == 0:
      return state
    mstate = next_epoch(state.method, state.params, threshold)
    if faithful:
      first = mstate.active[problem.modalities[0]]
      mstate = mstate.replace(active=dict.fromkeys(mstate.active, first))
    return state.replace(method=mstate)

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    diagnostics=("pull", "trace"),
  )


def pulls(unimodal, batch, active, beta):
  """{modality: factor of θ_m - θ_m^(e)} of a batch."""
  s = _terms.scores(unimodal, batch)
  whole, rest = _terms.total(s), max(len(s) - 1, 1)
  ahead = {m: v - (whole - v) / rest for m, v in s.items()}
  return {
    m: jnp.where(
      (d > 0) & (active[m] > 0) & (len(s) > 1),
      beta[m] * jnp.exp(jnp.tanh(d)),
      0.0,
    )
    for m, d in ahead.items()
  }


def held(problem, grads, params, start, pull):
  """Gradients of encoders with the pull towards their weights at ``start``."""

  def add(g, p, q, owner):
    return g + pull[owner].astype(g.dtype) * (p - q) if owner in pull else g

  return jax.tree.map(add, grads, params, start, problem.owner)


def trace(problem, grads, modality):
  """Sum of the mean squares of an encoder's gradients, those of matrices."""
  leaves = zip(
    jax.tree.leaves(grads), jax.tree.leaves(problem.owner), strict=True
  )
  found = [
    trees.vdot(g, g) / g.size for g, o in leaves if o == modality and g.ndim > 1
  ]
  return sum(found, jnp.zeros((), jnp.float32))


def next_epoch(memory, params, threshold):
  """The state at the start of an epoch that is not the first."""
  past = {
    m: jnp.append(t[1:], memory.current[m]) for m, t in memory.traces.items()
  }
  active = {}
  for m, t in past.items():
    now, before = t[1:].mean(), t[:-1].mean()
    growth = trees.safe_divide(now - before, now)
    active[m] = (growth > threshold).astype(memory.active[m].dtype)
  zero = {m: jnp.zeros_like(t) for m, t in memory.current.items()}
  return State(params, past, zero, active)
