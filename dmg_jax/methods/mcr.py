r"""MCR: a game in which each modality makes the prediction depend on itself.

With π a permutation of the batch, the prediction depends on modality m by

.. math:: D_m = \mathrm{JS}\bigl(o(z_1, \dots, z_M) \,\|\,
  o(z_1, \dots, \pi z_m, \dots, z_M)\bigr)

the mean Jensen-Shannon divergence, in nats, over samples and ``samples``
permutations. Each modality j is a player that owns its encoder and its head:

.. math:: \nabla_{\theta_j} L = \nabla_{\theta_j} \Bigl[ \mathrm{CE}(o) +
  w \sum_m \mathrm{CE}(o_m) + \mu L_{Con} - \lambda \bigl( D_j +
  k \sum_{m \ne j} D_m \bigr) \Bigr]

with k = -1 for ``greedy`` players, who also lower their rivals' D, 0 for
``independent`` and 1 for ``collaborative`` ones. L_Con is the supervised
contrastive loss (NT-Xent) of all features: samples of the same class, of any
modality, are positives. Needs read-outs whose loss reaches their own encoder
only. Supports any number of modalities; one alone has no game.

Reference: Kontras et al., "Balancing Multimodal Training Through Game-Theoretic
Regularization", NeurIPS 2025, arXiv:2411.07335. Official: kkontras/MCR,
``MCR_Model`` and ``Bias_Infusion_MCR``.

Deviations:
1. The term that removes irrelevant shared information (CEB) is left out: it
   needs a network of its own, and the official command does not set it.
2. Weights that players share get the mean of their gradients: for two greedy
   players nothing, as for the official bias.
3. The prediction without a permutation carries no gradient. For greedy players
   of two modalities its gradients cancel in the official code as well.
4. The features are those of the step. The official code runs the encoders again
   in evaluation mode, which is the same without BatchNorm and dropout.
5. The official code has two modalities (three in another class).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.errors import InputError, unknown
from dmg_jax.methods import _needs, _terms
from dmg_jax.methods._adapters import check_range, own_key
from dmg_jax.types import SHARED, Card, Method

CARD = Card(
  "objective",
  "CE(o) + w Σ CE(o_m) + μ L_Con - λ (D_j + k Σ_m≠j D_m), D = JS(o‖o(π z_m))",
  "Kontras et al., NeurIPS 2025",
)
PLAYERS = {"greedy": -1.0, "independent": 0.0, "collaborative": 1.0}


def make(
  *,
  players: str = "greedy",
  weight: float = 0.1,
  contrast: float = 1.0,
  temperature: float = 0.5,
  unimodal_weight: float = 1.0,
  samples: int = 6,
) -> Method:
  """The MCR method.

  Args:
    players: ``greedy``, ``independent`` or ``collaborative``.
    weight: λ ≥ 0 of the game.
    contrast: μ ≥ 0 of the contrastive loss.
    temperature: τ > 0 of the contrastive loss.
    unimodal_weight: w ≥ 0 of the unimodal losses.
    samples: number of permutations, at least 1; officially 6 or 32.
  """
  if players not in PLAYERS:
    raise unknown("players", players, PLAYERS)
  for name, value in (
    ("weight", weight),
    ("contrast", contrast),
    ("unimodal_weight", unimodal_weight),
  ):
    check_range(name, value, 0, 1e6)
  check_range("temperature", temperature, 1e-3, 1e3)
  check_range("samples", samples, 1, 1e4)

  def step(problem, state, batch, key, apply):
    order, k = jax.random.split(own_key(key))
    index = permutations(order, samples, len(batch.mask))

    def terms(params):
      outputs, stats = problem.run(params, state.stats, batch, key, True)
      cls = _terms.cross_entropy(outputs.logits, batch)
      own = _terms.own(outputs, batch)
      near = jnp.zeros_like(cls)
      if contrast:
        near = losses.nt_xent(outputs.features, batch, temperature)
      plain = cls + unimodal_weight * _terms.total(own) + contrast * near
      game = dependence(problem, params, state.stats, outputs, batch, index, k)
      return (plain, game), (stats, cls, own, near)

    (plain, game), pull, (stats, cls, own, near) = jax.vjp(
      terms, state.params, has_aux=True
    )
    grads = total_gradient(problem, pull, plain, game, weight, PLAYERS[players])
    metrics = {"loss": plain, "cls": cls, **_terms.named("cls", own)}
    metrics |= {"contrast": near, **_terms.named("dependence", game)}
    return apply(state.replace(stats=stats), grads), metrics

  def init(problem, state, key):
    del state, key
    _needs.independent_readout(problem, "mcr")
    if contrast and len(set(problem.sizes.values())) > 1:
      raise InputError(
        "mcr compares features of all modalities, which differ in size: give "
        "the encoders the same `features`, or set method.contrast=0"
      )
    return ()

  return Method(step=step, init=init, diagnostics=("dependence",))


def total_gradient(problem, pull, plain, game, weight, k):
  """Each owner's gradient of its own objective; shared weights get the mean."""
  zeros = jax.tree.map(jnp.zeros_like, game)
  (grads,) = pull((jnp.ones_like(plain), zeros))
  if len(game) < 2 or not weight:
    return grads
  mean = (1 + (len(game) - 1) * k) / len(game)
  for m in game:
    (one,) = pull((jnp.zeros_like(plain), {**zeros, m: jnp.ones_like(game[m])}))

    def add(owner, g, d, m=m):
      player = owner.partition("/")[0]
      side = mean if owner == SHARED else 1.0 if player == m else k
      return g - weight * side * d

    grads = jax.tree.map(add, problem.owner, grads, one)
  return grads


def permutations(key, samples, size):
  """int [samples size], independent permutations of a batch."""
  keys = jax.random.split(key, samples)
  return jax.vmap(lambda k: jax.random.permutation(k, size))(keys)


def dependence(problem, params, stats, outputs, batch, index, key):
  """{modality: D_m}, over the samples that have m before and after."""
  samples, index = len(index), index.ravel()
  plain = jnp.tile(jax.lax.stop_gradient(outputs.logits), (samples, 1))
  z = {m: jnp.tile(x, (samples, 1)) for m, x in outputs.features.items()}
  there = outputs.present or {}
  present = {m: jnp.tile(x, samples) for m, x in there.items()} or None
  found = {}
  for m, x in outputs.features.items():
    swapped = {**z, m: x[index]}
    fused = problem.fuse(params, stats, swapped, key, True, present)
    real = jnp.tile(batch.having(m), samples) * batch.having(m)[index]
    found[m] = losses.jensen_shannon(plain, fused.logits, real)
  return found
