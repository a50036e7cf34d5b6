r"""AMSS+: updates a random subnetwork of each modality, smaller if it leads.

.. math:: r_m = \frac{H(y) - \mathrm{CE}(o_m) + \tfrac12}{H(z_m)}, \qquad
  \rho_m = \mathrm{clip}(1 - \mathrm{softmax}(r / T)_m, .1, .9)
.. math:: q_i = \frac{\|g_i\|^2}{\sum_j \|g_j\|^2}, \qquad
  g_i \leftarrow \frac{[i \in S_m]}{\pi_i} g_i, \qquad |S_m| = \lceil \rho_m n
  \rceil

H(y) is the entropy of the labels of the batch, and H(z_m) the mean entropy of
softmax(z_m). If a numerator is not positive, all ρ are 1/2. i are the n output
units of a weight tensor of encoder m; in the head of m, i are the n features,
for each class on its own. Biases and norms are always updated. S is drawn
without replacement. AMSS+ draws by q_i + 1/n and divides by the probability π_i
that i is in S, so that the expected gradient is that of joint training.
``plus=False`` is AMSS: S is drawn by q_i, and π_i = 1.

Needs a read-out whose o_m is that of the fused head (fusion ``concat``). Any
number of modalities; one modality is updated as a whole (ρ = 1).

Reference: Yang, Pan, Jiang, Xu, Tang, "Learning to Rebalance Multi-Modal
Optimization by Adaptively Masking Subnetworks", TPAMI 2025. Official:
njustkmg/TPAMI-AMSS, AMSS/train_test.py (``sample_mode=Adaptive``).

Deviations (``faithful=True`` follows the official code in 1 to 3):
1. The official H(y) is -Σ f log softmax(f) of the frequencies f up to the
   largest label of the batch.
2. The official AMSS+ draws by q_i and multiplies by 1 / (q_i + 1/n), about n/2,
   which is not unbiased.
3. The official script for sound and video draws the head's subnetwork and does
   not use it: the head is updated as a whole.
4. π_i is that of the Gumbel trick, given the first unit that is not drawn: the
   expectation of [i ∈ S] / π_i is 1 (Kool, van Hoof, Welling, ICML 2019).
5. All encoder tensors with two axes or more are thinned; officially it is the
   convolutions in the blocks of a ResNet, or the attention of BERT.
6. For M = 3 the official script has other constants, for one data set.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, from_modulation
from dmg_jax.methods.joint import classification
from dmg_jax.types import Card, Method

CARD = Card(
  "gradient",
  "g_i ← [i ∈ S_m] g_i / π_i, |S_m| = (1 - softmax(r/T)_m) n",
  "Yang et al., TPAMI 2025",
)


def make(
  *, temperature: float = 0.2, plus: bool = True, faithful: bool = False
) -> Method:
  """The AMSS+ method.

  Args:
    temperature: T > 0 of the modalities' significance.
    plus: AMSS+; false is AMSS.
    faithful: see deviations 1 to 3.
  """
  check_range("temperature", temperature, 1e-6, 1e6)

  def loss(outputs, batch, method_state):
    del method_state
    return classification(outputs, batch)

  def modulate(problem, grads, outputs, batch, mstate, key):
    ratio = ratios(outputs, batch, temperature, faithful)
    noise = draws(grads, key)
    grads = thinned(problem.owner, grads, noise, ratio, plus, faithful)
    return grads, mstate, _terms.named("ratio", ratio)

  return from_modulation(loss, modulate, diagnostics=("ratio",))


def ratios(outputs, batch, temperature, faithful):
  """{modality: ρ_m}."""
  if len(outputs.unimodal) < 2:
    return {m: jnp.ones(()) for m in outputs.unimodal}
  outputs = jax.lax.stop_gradient(outputs)
  labels = label_entropy(outputs.logits, batch, faithful)
  gain, spread = {}, {}
  for m, o in outputs.unimodal.items():
    each = losses.cross_entropy(o, batch.labels)
    gain[m] = labels - losses.masked_mean(each, batch.having(m)) + 0.5
    log_p = jax.nn.log_softmax(outputs.features[m])
    entropy = -(jnp.exp(log_p) * log_p).sum(axis=-1)
    spread[m] = losses.masked_mean(entropy, batch.having(m))
  gain, spread = (_terms.filled(x, batch) for x in (gain, spread))
  rate = jnp.stack([g / spread[m] for m, g in gain.items()]) / temperature
  share = jnp.clip(1 - jax.nn.softmax(rate), 0.1, 0.9)
  sure = jnp.stack(list(gain.values())).min() > 0
  share = jnp.where(sure & jnp.isfinite(share), share, 0.5)
  return dict(zip(gain, share, strict=True))


def label_entropy(logits, batch, faithful):
  """H(y) of the batch, in nats."""
  classes = logits.shape[-1]
  one_hot = jax.nn.one_hot(batch.labels, classes, dtype=logits.dtype)
  counts = (one_hot * batch.mask[:, None]).sum(axis=0)
  f = counts / jnp.maximum(batch.mask.sum(), 1)
  if faithful:
    largest = jnp.where(counts > 0, jnp.arange(classes), -1).max()
    known = jnp.where(jnp.arange(classes) <= largest, f, -jnp.inf)
    return -jnp.where(f > 0, f * jax.nn.log_softmax(known), 0).sum()
  return -(f * jnp.log(jnp.where(f > 0, f, 1))).sum()


def draws(grads, key):
  """Gumbel noise for each weight tensor, of the shape of its units."""
  leaves, tree = jax.tree.flatten(grads)
  noise = [
    jax.random.gumbel(jax.random.fold_in(key, i), g.shape, g.dtype)
    for i, g in enumerate(leaves)
  ]
  return tree.unflatten(noise)


def thinned(owners, grads, noise, ratio, plus, faithful):
  """Gradients of the subnetworks, others as they are."""

  def thin(g, u, owner):
    m, _, part = owner.partition("/")
    if m not in ratio or g.ndim < 2 or len(ratio) < 2 or (part and faithful):
      return g
    square = g**2
    if not part:  # An encoder: its output units; a head: single weights.
      square = square.reshape(-1, g.shape[-1]).sum(axis=0)[:, None]
      u = u.reshape(-1, g.shape[-1])[:1].T
    total = square.sum(axis=0, keepdims=True)
    q = square / jnp.where(total > 0, total, 1)
    size = jnp.ceil(ratio[m] * len(q))
    factor = drawn(q, u, size, plus and not faithful)
    if plus and faithful:
      factor = factor / (q + 1 / len(q))
    if not part:
      factor = factor.reshape(*(1,) * (g.ndim - 1), -1)
    return g * factor.astype(g.dtype)

  return jax.tree.map(thin, grads, noise, owners)


def drawn(q, noise, size, unbiased):
  """[n c], 0 or 1 or 1 / π: ``size`` of n without replacement by q."""
  if unbiased:
    q = (q + 1 / len(q)) / 2
  log_q = jnp.log(jnp.where(q > 0, q, 1))
  score = jnp.where(q > 0, log_q + noise, -jnp.inf)
  rank = jnp.argsort(jnp.argsort(-score, axis=0), axis=0)
  factor = (rank < size).astype(q.dtype)
  if not unbiased:
    return factor
  # The first that is not drawn; if all are drawn, there is none.
  limit = jnp.where(rank == size, score, -jnp.inf).max(axis=0, keepdims=True)
  return factor / -jnp.expm1(-jnp.exp(log_q - limit))
