r"""An objective of which every weight is an argument.

.. math:: L = (1 - \bar\alpha) \Bigl(\mathrm{CE}_s(o) +
  \sum_m w_m \mathrm{CE}_s(o_m)\Bigr) +
  \frac1P \sum_p \alpha_p L_p(\tau) +
  \sum_g \frac{\lambda_g}{2} \lVert\theta_g\rVert^2

with the P pairs p of modalities, α's mean over them, L_p the matching loss of
a pair at temperature τ, the owners g of weights, and label smoothing s,

.. math:: \mathrm{CE}_s(o) = (1 - s)\, \mathrm{CE}(o, y) +
  \frac{s}{k} \sum_c \mathrm{CE}(o, c) .

With one α, one w, s = 0 and no λ it is the objective of ``_matching``. The
weights 1 - ᾱ and α_p / P lie on a simplex. A single modality has no pair: ᾱ is
then 0.

Reference: the paper, eq. 1; label smoothing: Szegedy et al., CVPR 2016.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from dmg_jax import losses, trees
from dmg_jax.methods import _terms
from dmg_jax.methods._matching import Matching
from dmg_jax.methods._named import Values, parts
from dmg_jax.types import Batch, Metrics, Outputs, Params, Problem


def smoothed(
  logits: Float[Array, "b k"], batch: Batch, s: Any, *modalities: str
) -> Float[Array, ""]:
  """``CE_s``, the masked and weighted mean over the batch, in nats."""
  each = losses.cross_entropy(logits, batch.labels)
  if not (isinstance(s, float) and s == 0):
    even = -jax.nn.log_softmax(logits.astype(each.dtype)).mean(axis=-1)
    each = (1 - s) * each + s * even
  each = losses.weighted(each, batch)
  return losses.masked_mean(each, batch.having(*modalities))


def penalty(params: Params, owner: Any, decay: Mapping[str, Any]) -> Any:
  """``Σ_g λ_g/2 ‖θ_g‖²`` over the owners g that ``decay`` names."""
  squares = [
    0.5 * decay[o] * trees.vdot(p, p)
    for p, o in zip(
      jax.tree.leaves(params), jax.tree.leaves(owner), strict=True
    )
    if o in decay
  ]
  return sum(squares, jnp.zeros((), jnp.float32))


class Objective:
  """``L`` of the module, as a function of weights and hyper-parameters.

  Args:
    matching: ``L_p``; its own temperature is not read.
    fixed: {kind: value} of what is not learned; ``decay`` may be 0.
  """

  def __init__(self, matching: Matching, fixed: Mapping[str, float]):
    self.matching, self.fixed = matching, dict(fixed)

  def __call__(
    self,
    problem: Problem,
    outputs: Outputs,
    params: Params,
    batch: Batch,
    learned: Values,
  ) -> tuple[Any, Metrics]:
    """The loss and its terms; ``learned`` is {kind: {part: value}}."""
    values = self._values(problem, learned)
    (smoothing,) = values["smoothing"].values()
    cls = smoothed(outputs.logits, batch, smoothing)
    terms = {"cls": cls}
    own = {
      m: smoothed(outputs.unimodal[m], batch, smoothing, m)
      for m, w in values["unimodal"].items()
      if not _is_zero(w)
    }
    terms |= _terms.named("cls", own)
    for m, loss in own.items():
      cls = cls + values["unimodal"][m] * loss
    total, matched = self._matched(problem, outputs, batch, values, cls)
    decay = {o: x for o, x in values["decay"].items() if not _is_zero(x)}
    if decay:
      terms["penalty"] = penalty(params, problem.owner, decay)
      total = total + terms["penalty"]
    return total, {**terms, **matched}

  def _values(self, problem: Problem, learned: Values) -> dict[str, Any]:
    """All of them, by kind and part."""
    fixed = {
      kind: dict.fromkeys(names, self.fixed[kind])
      for kind, names in parts(problem).items()
    }
    return {**fixed, **learned}

  def _matched(self, problem, outputs, batch, values, cls):
    """``(1 - ᾱ) cls + Σ α_p L_p / P`` and the terms of matching."""
    alphas = values["alpha"]
    if not alphas or all(_is_zero(a) for a in alphas.values()):
      return cls, {}
    names, read = problem.modalities, self.matching.read(outputs)
    pairs = list(itertools.combinations(names, 2))
    masks = [batch.having(*pair) for pair in pairs]
    (temperature,) = values["temperature"].values()
    each = jnp.stack(
      [
        self.matching.of_pair(read[a], read[b], mask, temperature)
        for (a, b), mask in zip(pairs, masks, strict=True)
      ]
    )
    weights = jnp.stack([jnp.asarray(alphas[f"{a}_{b}"]) for a, b in pairs])
    there = jnp.stack([mask.max() for mask in masks])
    mean = weights.mean()
    total = (1 - mean) * cls + losses.masked_mean(weights * each, there)
    matching = losses.masked_mean(each, there)
    return total, {"matching": matching, "alpha": mean}


def _is_zero(value: Any) -> bool:
  return isinstance(value, (int, float)) and value == 0
