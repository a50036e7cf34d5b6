r"""MMPareto: combines the fused and the unimodal gradient without conflict.

For encoder m, with g_0 = ∇ CE(o) and g_1 = ∇ CE(o_m) over all its weights:

.. math:: k = \begin{cases} (\tfrac12, \tfrac12) & g_0 \cdot g_1 > 0 \\
  \arg\min_{k_0 + k_1 = 1} \| k_0 g_0 + k_1 g_1 \| & \text{otherwise}
  \end{cases}
.. math:: h = 2 k_0 g_0 + 2 k_1 g_1, \quad
  g \leftarrow \gamma \max\Bigl(1, \frac{\| g_0 + g_1 \|}{\| h \|}\Bigr) h

The second line applies to each weight tensor separately. Heads receive the
gradient of the sum of all losses. Needs read-outs whose loss reaches only their
own encoder, preferably own heads (fusion ``own_heads``). Supports any number of
modalities, because each encoder has two tasks. Two backward passes are enough,
because no unimodal loss reaches another encoder.

Reference: Wei & Hu, "MMPareto: Boosting Multimodal Learning with Innocent
Unimodal Assistance", ICML 2024, Algorithm 1. Official:
GeWu-Lab/MMPareto_ICML2024.

Deviation 1: ‖h‖ = 0 gives g = 0; in the official code it is 0/0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax import trees
from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import check_range
from dmg_jax.types import Card, Method

CARD = Card(
  "gradient",
  "g ← γ max(1, ‖g_0+g_1‖/‖h‖) h, h min-norm of ∇CE(o), ∇CE(o_m)",
  "Wei & Hu, ICML 2024",
)


def make(*, gamma: float = 1.5) -> Method:
  """The MMPareto method.

  Args:
    gamma: factor γ > 0 of the gradient's magnitude.
  """
  check_range("gamma", gamma, 1e-6, 1e6)

  def step(problem, state, batch, key, apply):
    def terms(params):
      outputs, stats = problem.run(params, state.stats, batch, key, True)
      own = _terms.own(outputs, batch)
      cls = _terms.cross_entropy(outputs.logits, batch)
      return (cls, _terms.total(own)), (stats, own)

    (cls, total), pull, (stats, own) = jax.vjp(
      terms, state.params, has_aux=True
    )
    one, zero = jnp.ones_like(cls), jnp.zeros_like(cls)
    (fused,), (unimodal,) = pull((one, zero)), pull((zero, one))
    grads, weights = balance(problem, fused, unimodal, gamma)
    metrics = {"cls": cls, **_terms.named("cls", own)}
    metrics |= _terms.named("weight", weights)
    state = apply(state.replace(stats=stats), grads)
    return state, {"loss": cls + total, **metrics}

  def init(problem, state, key):
    del state, key
    _needs.independent_readout(problem, "mmpareto")
    return ()

  return Method(step=step, init=init, diagnostics=("weight",))


def balance(problem, fused, unimodal, gamma):
  """Gradients, combined for encoders and summed for heads; {modality: k_0}."""
  owners = jax.tree.leaves(problem.owner)
  one, tree = jax.tree.flatten(fused)
  two = jax.tree.leaves(unimodal)
  weights = {}
  for m in problem.modalities:
    mine = [i for i, o in enumerate(owners) if o == m]
    weights[m] = min_norm([one[i] for i in mine], [two[i] for i in mine])
  out = [
    combine(a, b, weights[o], gamma) if o in weights else a + b
    for a, b, o in zip(one, two, owners, strict=True)
  ]
  return tree.unflatten(out), weights


def min_norm(one, two):
  """k_0 of two gradients (pytrees); ½ unless they conflict."""
  a, b, ab = trees.vdot(one, one), trees.vdot(two, two), trees.vdot(one, two)
  k = trees.safe_divide(b - ab, a + b - 2 * ab, 0.5)
  k = jnp.where(ab >= b, 0.001, jnp.where(ab >= a, 0.999, k))
  return jnp.where(ab > 0, 0.5, k)


def combine(a, b, k, gamma):
  """``γ max(1, ‖a + b‖ / ‖h‖) h`` for one tensor, h = 2 k a + 2 (1 - k) b."""
  k = k.astype(a.dtype)
  h = 2 * k * a + 2 * (1 - k) * b
  norm, whole = jnp.linalg.norm(h.ravel()), jnp.linalg.norm((a + b).ravel())
  ratio = trees.safe_divide(whole, norm, 1.0)
  return gamma * jnp.maximum(ratio, 1.0) * h
