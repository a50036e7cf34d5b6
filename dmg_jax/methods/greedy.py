r"""Greedy: cuts the faster branch off from cross-modal signals for a while.

The loss is ``Σ_m CE(o_m)`` through MMTM gates (fusion ``channel``). With
μ(group) = Σ g² / Σ w² over the weights of a group, each regular step updates

.. math:: B_m \leftarrow B_m + \mu(\text{gates of } m \cup \text{squeeze}),
  \quad A_m \leftarrow A_m + \mu(\text{encoder, head of } m)
.. math:: d = \log_{10} \frac{B_0}{A_0} - \log_{10} \frac{B_1}{A_1}

From epoch ``start`` on, |d| > ε starts ``window`` *curation* steps: the gates
of modality 0 (if d > 0) or 1 are replaced by their running mean, so that it
receives no signal from the other one, and A and B are not updated. Supports two
modalities only, because d compares two.

Reference: Wu, Jastrzebski, Cho, Geras, "Characterizing and Overcoming the
Greedy Nature of Learning in Multi-modal Deep Neural Networks", ICML 2022,
Algorithm 1. Official: nyukat/greedy_multimodal_learning.

Deviation 1: the official running mean for modality 1 averages the gates of
modality 0; here each modality averages its own gates.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax.errors import InputError, UnsuitableError
from dmg_jax.methods import _phases, _terms
from dmg_jax.methods._adapters import check_range, scalar
from dmg_jax.types import SHARED, Card, Leaf, Method

CARD = Card(
  "gradient",
  "Σ CE(o_m); MMTM gates of the faster branch ← mean for Q steps",
  "Wu et al., ICML 2022",
  modalities="2",
)


class State(struct.PyTreeNode):
  """State of greedy.

  Attributes:
    bypass: [2], accumulated B of both modalities.
    main: [2], accumulated A of both modalities.
    care: [], index of the curated modality, -1 for none.
    left: [], number of curation steps left.
    active: [], 1 in epochs that may curate, else 0.
  """

  bypass: Leaf
  main: Leaf
  care: Leaf
  left: Leaf
  active: Leaf


def make(*, epsilon: float = 0.01, window: int = 5, start: int = 1) -> Method:
  """The greedy method.

  Args:
    epsilon: threshold ε > 0 of |d|; .01 is official, BalanceBenchmark has .001.
    window: number of curation steps Q > 0.
    start: first epoch that may curate, 0-based.
  """
  check_range("epsilon", epsilon, 0, 1e6)
  check_range("window", window, 1, 1e9)

  def step(problem, state, batch, key, apply):
    memory = state.method
    stats = caring(state.stats, memory.care, batch.mask)

    def total(params):
      outputs, new = problem.run(params, stats, batch, key, True)
      own = _terms.own(outputs, batch)
      return _terms.total(own), (new, own)

    (value, (stats, own)), grads = jax.value_and_grad(total, has_aux=True)(
      state.params
    )
    memory, d = observe(problem, memory, grads, state.params, epsilon, window)
    stats = caring(stats, _phases.count(-1))  # Evaluation uses all gates.
    state = apply(state.replace(stats=stats, method=memory), grads)
    metrics = {"speed": d, "curating": state.method.care.astype(d.dtype)}
    return state, {"loss": value, **_terms.named("cls", own), **metrics}

  def init(problem, state, key):
    del key
    if len(problem.modalities) != 2:
      raise UnsuitableError(
        "greedy compares two modalities, got "
        f"{len(problem.modalities)}: {', '.join(problem.modalities)}"
      )
    if "gates" not in state.stats:
      raise InputError("greedy needs MMTM gates: use fusion=channel")
    zero = jnp.zeros(2, jnp.float32)
    none = _phases.count(-1)
    return State(zero, zero, none, _phases.count(0), scalar(start <= 0))

  def between_epochs(problem, state, data, epoch):
    del problem, data
    active = scalar(epoch >= start)
    return state.replace(method=state.method.replace(active=active))

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    diagnostics=("curating", "speed"),
  )


def caring(stats, care, mask=None):
  """Batch statistics that set the curated modality in every gate (-1: none).

  ``mask`` marks the rows that count in the running means; ``None`` removes it.
  """

  def change(node):
    if "care" not in node:
      return {k: change(v) for k, v in node.items()}
    kept = {k: v for k, v in node.items() if k != "mask"}
    return {**kept, "care": care} | ({} if mask is None else {"mask": mask})

  return {**stats, "gates": change(stats["gates"])}


def observe(problem, memory, grads, params, epsilon, window):
  """The method state after a step, and d."""
  bypass, main = speeds(problem, grads, params)
  ordinary = memory.care < 0
  bypass = memory.bypass + jnp.where(ordinary, bypass, 0.0)
  main = memory.main + jnp.where(ordinary, main, 0.0)
  ratio = jnp.log10((bypass + 1e-30) / (main + 1e-30))
  d = ratio[0] - ratio[1]
  begin = ordinary & (jnp.abs(d) > epsilon) & (memory.active > 0)
  left = jnp.where(begin, window, jnp.maximum(memory.left - 1, 0))
  chosen = jnp.where(begin, jnp.where(d > 0, 0, 1), memory.care)
  care = jnp.where(left > 0, chosen, -1)
  new = State(
    bypass.astype(jnp.float32),
    main.astype(jnp.float32),
    care.astype(jnp.int32),
    left.astype(jnp.int32),
    memory.active,
  )
  return new, d


def speeds(problem, grads, params):
  """μ of the bypass and the main groups of both modalities, [2] each."""
  owners = jax.tree.leaves(problem.owner)

  def mu(owned):
    pairs = [
      ((g**2).sum(), (w**2).sum())
      for g, w, o in zip(
        jax.tree.leaves(grads), jax.tree.leaves(params), owners, strict=True
      )
      if o in owned
    ]
    return sum(g for g, _ in pairs) / (sum(w for _, w in pairs) + 1e-30)

  names = problem.modalities
  bypass = jnp.stack([mu((f"{m}/gate", SHARED)) for m in names])
  return bypass, jnp.stack([mu((m, f"{m}/head")) for m in names])
