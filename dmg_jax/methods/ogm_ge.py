r"""OGM-GE: damps the gradient of the leading modality's encoder, adds noise.

.. math:: s_m = \sum_i \mathrm{softmax}(o_{m,i})_{y_i}, \quad
  \rho_m = \frac{s_m}{\mathrm{mean}_{j \ne m} s_j}, \quad
  \kappa_m = \begin{cases} 1 - \tanh(\alpha \rho_m) & \rho_m > 1 \\
  1 & \text{otherwise}\end{cases}
.. math:: g \leftarrow \kappa_m g + \varepsilon, \quad
  \varepsilon \sim N(0, (\mathrm{std}(g) + 10^{-8})^2)

This applies to the weight tensors of encoder m in epochs ``start`` to ``end``.
The standard deviation is that of the gradient tensor before scaling, and the
noise is added for every modality. The loss is the cross-entropy of the fused
logits. Supports any number of modalities; with a single one, nothing is damped.

Reference: Peng, Wei, Deng, Wang, Hu, "Balanced Multimodal Learning via
On-the-fly Gradient Modulation", CVPR 2022, eqs. 8-11. Official:
GeWu-Lab/OGM-GE_CVPR2022.

Deviations:
1. Tensors with two or more axes are modulated. The official code modulates only
   those with four (convolutions), which excludes text encoders;
   ``faithful=True`` follows it.
2. The official code supports two modalities. For M > 2, ρ_m compares with the
   mean of the others, and every modality with ρ_m > 1 is damped.
3. At exactly ρ_m = 1 no modality is damped; officially it is the audio.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, from_modulation, scalar
from dmg_jax.methods.joint import classification
from dmg_jax.types import Card, Method

CARD = Card(
  "gradient",
  "g ← κ_m g + ε, κ_m = 1 - tanh(α ρ_m) if ρ_m > 1",
  "Peng et al., CVPR 2022",
)


def make(
  *,
  alpha: float = 0.8,
  noise: bool = True,
  start: int = 0,
  end: int = 50,
  faithful: bool = False,
) -> Method:
  """The OGM-GE method.

  Args:
    alpha: strength α ≥ 0; officially .1 (VGGSound) and .8 (CREMA-D).
    noise: add the noise that enhances generalisation (GE).
    start, end: first and last modulated epoch, 0-based; officially 0 and 50.
    faithful: modulate convolutions only, see deviation 1.
  """
  check_range("alpha", alpha, 0, 1e3)
  check_range("start", start, 0, 1e9)
  ndims = (4,) if faithful else range(2, 9)

  def modulate(problem, grads, outputs, batch, active, key):
    kappa = coefficients(outputs.unimodal, batch, alpha)
    leaves, tree = jax.tree.flatten(grads)
    owners = jax.tree.leaves(problem.owner)
    keys = jax.random.split(key, len(leaves))
    change = functools.partial(_modulate, noise=noise)
    leaves = [
      jnp.where(active > 0, change(g, kappa[o], k), g)
      if o in kappa and g.ndim in ndims
      else g
      for g, o, k in zip(leaves, owners, keys, strict=True)
    ]
    metrics = {f"kappa_{m}": v for m, v in kappa.items()}
    return tree.unflatten(leaves), active, metrics

  def between_epochs(problem, state, data, epoch):
    del problem, data
    return state.replace(method=scalar(start <= epoch <= end))

  return from_modulation(
    classification,
    modulate,
    init=lambda problem, state, key: scalar(start <= 0 <= end),
    between_epochs=between_epochs,
    diagnostics=("kappa",),
  )


def coefficients(unimodal, batch, alpha):
  """{modality: κ_m} of a batch; 1 for a single modality."""

  rho = _terms.ratios(_terms.scores(unimodal, batch))
  return {
    m: jnp.where(r > 1, 1 - jnp.tanh(alpha * r), 1.0) for m, r in rho.items()
  }


def _modulate(g, kappa, key, noise):
  changed = kappa * g
  if not noise:
    return changed
  std = jnp.std(g, ddof=1 if g.size > 1 else 0) + 1e-8
  return changed + std * jax.random.normal(key, g.shape, g.dtype)
