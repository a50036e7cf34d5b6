r"""CML: penalises confidence that rises when a modality is removed.

.. math:: L = \mathrm{CE}(o) + \lambda \sum_k \frac{1}{n} \sum_i a_{k,i}
  \max(0,\ \mathrm{conf}_i(S_{k+1}) - \mathrm{conf}_i(S_k)), \quad
  \mathrm{conf}(S) = \max_c \mathrm{softmax}(o(S))_c

along a random chain of nested sets of modalities S_0 ⊃ S_1 ⊃ …, where S_0 holds
all of them and o(S) are the logits with the other features at zero. a_{k,i} is
0 if the prediction from S_{k+1} is correct and that from S_k is wrong, else 1.
With ``subsets``, the first term is Σ_k CE(o(S_k)) / M. A sample's chain ends
with the last set that holds a modality it has. Supports any number of
modalities; the penalty is zero for a single one.

Reference: Ma, Zhang, Zhang, Wu, Fu, Zhou, Hu, "Calibrating Multimodal
Learning", ICML 2023, eq. 5. Official: QingyangZhang/CML, which sums over
samples.

Deviation 1: the penalty is a mean over samples, so that λ does not depend on
the batch size; ``faithful=True`` sums.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dmg_jax import losses
from dmg_jax.methods import _terms
from dmg_jax.methods._adapters import check_range, differentiate, own_key
from dmg_jax.types import Card, Method

CARD = Card(
  "objective",
  "CE(o) + λ Σ relu(conf(S_k+1) - conf(S_k))",
  "Ma et al., ICML 2023",
)


def make(
  *, weight: float = 0.1, subsets: bool = False, faithful: bool = False
) -> Method:
  """The CML method.

  Args:
    weight: λ ≥ 0.
    subsets: use the cross-entropy of every set, as in BalanceBenchmark.
    faithful: sum over samples, see deviation 1.
  """
  check_range("weight", weight, 0, 1e6)

  def step(problem, state, batch, key, apply):
    count = len(problem.modalities)
    rank = jax.random.permutation(own_key(key), count)

    def loss(outputs, params):
      chain = [outputs.logits]
      for k in range(1, count):
        kept = {
          m: z * (rank[i] >= k).astype(z.dtype)
          for i, (m, z) in enumerate(outputs.features.items())
        }
        fused = problem.fuse(
          params, state.stats, kept, own_key(key), True, batch.present
        )
        chain.append(fused.logits)
      cls = _terms.cross_entropy(outputs.logits, batch)
      left = [
        remaining(rank, k, list(outputs.features), batch) for k in range(count)
      ]
      if subsets:
        each = [_terms.each(o, batch) for o in chain]
        parts = zip(each, left, strict=True)
        cls = sum(losses.masked_mean(v, some) for v, some in parts) / count
      each = rank_loss(chain, batch.labels, left)
      rank_term = losses.masked_mean(each, batch.mask)
      rank_term *= batch.mask.sum() if faithful else 1.0
      return cls + weight * rank_term, {"cls": cls, "rank": rank_term}

    done = differentiate(loss, problem, state, batch, key)
    return apply(done.state, done.grads), done.metrics

  return Method(step=step)


def remaining(rank, k, names, batch):
  """1 for samples that have a modality of S_k [b]: where their chain is."""
  if batch.present is None:
    return batch.mask
  there = [batch.having(m) * (rank[i] >= k) for i, m in enumerate(names)]
  return jnp.stack(there).max(axis=0)


def rank_loss(
  chain: list[jax.Array],
  labels: jax.Array,
  left: list[jax.Array] | None = None,
) -> jax.Array:
  """Σ_k a_k relu(conf_{k+1} - conf_k) along ``chain``, per sample [b].

  ``left`` is 1 where a set has something of the sample.
  """
  left = left or [jnp.ones(labels.shape)] * len(chain)
  confidence = [_terms.largest(jax.nn.softmax(o)) for o in chain]
  right = [o.argmax(axis=-1) == labels for o in chain]
  terms = [
    jnp.where(right[k + 1] & ~right[k], 0.0, 1.0)
    * jax.nn.relu(confidence[k + 1] - confidence[k])
    * left[k + 1]
    for k in range(len(chain) - 1)
  ]
  return sum(terms, jnp.zeros(labels.shape, confidence[0].dtype))
