r"""MSLR: sets learning rates by the trend of each modality's val accuracy.

.. math:: \eta_m = \eta\, c_m\, r_m, \qquad
  r_m = \frac{a_m^{(e)}}{\mathrm{mean}(a_m^{(e - w)}, \dots, a_m^{(e - 1)})}

for the encoder and head of modality m, where a_m are the val accuracies of its
own logits after each epoch and w = ``window``. With ``strategy="dynamic"``, r
is 1 until w earlier accuracies are known; with ``"keep"``, it is always 1 and
the rates c are fixed. The loss is the cross-entropy of the summed own heads
(fusion ``sum``). The factor scales the update, after the optimiser, so that
Adam does not cancel it. Supports any number of modalities.

Reference: Yao & Mihalcea, "Modality-specific Learning Rates for Effective
Multimodal Additive Late-fusion", Findings of ACL 2022; as in
lihong2303/AGM_ICCV2023.

Deviations:
1. Accuracies are measured on val; that code measures them on the test set.
2. That code scales gradients, and only in epochs 0 to 20; set ``end=20`` for
   the latter.
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from dmg_jax.errors import InputError, unknown
from dmg_jax.methods import _epochs
from dmg_jax.methods._adapters import check_range, scalar
from dmg_jax.methods._rates import own_scale, plain_step
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "learning rate",
  "η_m = η c_m acc_m / mean acc_m of the 5 epochs before",
  "Yao & Mihalcea, Findings of ACL 2022",
)
STRATEGIES = ("dynamic", "keep")


class State(struct.PyTreeNode):
  """State of MSLR.

  Attributes:
    history: {modality: [w]}, the last accuracies.
    known: [], number of accuracies so far.
    rates: {modality: []}, c_m r_m.
  """

  history: dict[str, Leaf]
  known: Leaf
  rates: dict[str, Leaf]


def make(
  *,
  strategy: str = "dynamic",
  factors: tuple[float, ...] | None = None,
  window: int = 5,
  start: int = 0,
  end: int | None = None,
) -> Method:
  """The MSLR method.

  Args:
    strategy: ``dynamic`` or ``keep``.
    factors: c_m > 0 in the order of the modalities; ``None`` means 1 for all.
    window: number of accuracies w > 0 that are averaged.
    start, end: first and last 0-based epoch with scaling; ``None`` means until
      the end.
  """
  if strategy not in STRATEGIES:
    raise unknown("strategy", strategy, STRATEGIES)
  for c in factors or ():
    check_range("factors", c, 1e-9, 1e9)
  check_range("window", window, 1, 1e6)

  def init(problem, state, key):
    del state, key
    names = problem.modalities
    if factors and len(factors) != len(names):
      raise InputError(
        f"factors needs {len(names)} numbers, one for each of "
        f"{', '.join(names)}; got {len(factors)}"
      )
    history = jnp.zeros(window, jnp.float32)
    rates = {m: scalar(c) for m, c in zip(names, base(names), strict=True)}
    return State(dict.fromkeys(names, history), scalar(0.0), rates)

  def base(names):
    return factors or (1.0,) * len(names)

  def between_epochs(problem, state, data, epoch):
    mstate, names = state.method, problem.modalities
    ratio = dict.fromkeys(names, 1.0)
    if not epoch and strategy == "dynamic":
      _epochs.check_measurable(problem, data.batches("val"), "MSLR")
    if epoch and strategy == "dynamic":
      accuracy = accuracies(problem, state, data.batches("val"))
      ratio = {m: trend(mstate, m, accuracy[m]) for m in names}
      mstate = remember(mstate, accuracy)
    acts = start <= epoch and (end is None or epoch <= end)
    rates = {
      m: scalar(c * ratio[m] if acts else 1.0)
      for m, c in zip(names, base(names), strict=True)
    }
    return state.replace(method=mstate.replace(rates=rates))

  def step(problem, state, batch, key, apply):
    return plain_step(
      problem, state, batch, key, apply, own_scale(problem, state.method.rates)
    )

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    diagnostics=("rate",),
  )


def accuracies(problem, state, batches) -> dict[str, float]:
  """{modality: accuracy of its own prediction} on a split."""
  found = _epochs.sweep(_epochs.outputs, problem, state, batches)
  return {
    m: float(_epochs.average(found, "correct", m, "MSLR"))
    for m in problem.modalities
  }


def remember(mstate: State, accuracy) -> State:
  """The state with one more accuracy of each modality; the oldest drops out."""
  history = {
    m: jnp.append(h[1:], jnp.asarray(accuracy[m], h.dtype))
    for m, h in mstate.history.items()
  }
  return mstate.replace(history=history, known=mstate.known + 1)


def trend(mstate: State, m: str, accuracy: float) -> float:
  """r_m: the newest accuracy divided by the mean of those before it."""
  history = mstate.history[m]
  mean = float(history.mean())
  if int(mstate.known) < len(history) or mean == 0:
    return 1.0
  return accuracy / mean
