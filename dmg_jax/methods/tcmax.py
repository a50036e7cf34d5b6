r"""TCMax: maximises the total correlation of the modalities and the label.

.. math:: L = -\frac{1}{n} \sum_i f_{y_i}(z_{1,i}, \dots, z_{M,i}) +
  \log \frac{1}{n^M} \sum_{j_1, \dots, j_M} \sum_{y'}
  \exp f_{y'}(z_{1,j_1}, \dots, z_{M,j_M})

f are the fused logits. The second term runs over all tuples of features of the
batch, matched or not, so the model learns to be confident only where the
modalities belong together. The loss is a bound of the total correlation
(Donsker & Varadhan) and has no hyper-parameter. If f is a sum of functions of
one modality each, the sum over tuples factorises and costs no more than a
cross-entropy; other fusions are evaluated on every tuple, or on ``tuples``
random ones. Supports any number of modalities.

Reference: "Multimodal Classification via Total Correlation Maximization", ICLR
2026. Official: hubaak/TCMax, ``TCMax_loss`` and
``TCMax_loss_sample``.

Deviations:
1. The mean over tuples stands in place of the official sum, which adds the
   constant (M - 1) log n. So padding has no influence, and equal logits have
   the loss log k, as in a cross-entropy.
2. There may be any number of modalities, and a tuple is formed of samples that
   have them. The official code has two, neither of which may be missing.
3. The official code pairs features by the read-outs of its heads for sums; here
   f itself is evaluated, which is the same for these and right for any fusion.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from dmg_jax import losses
from dmg_jax.errors import InputError
from dmg_jax.methods import _needs
from dmg_jax.methods._adapters import check_range, differentiate, own_key
from dmg_jax.types import Card, Method

CARD = Card(
  "objective",
  "-f_y(z_1, …, z_M) + log mean_{j_1…j_M} Σ_y' exp f_y'(z_1^j_1, …, z_M^j_M)",
  "TCMax, ICLR 2026",
)
_LARGEST = 2**18


def make(*, tuples: int = 0) -> Method:
  """The TCMax method.

  Args:
    tuples: number of random tuples in place of all n^M, for fusions that are
      no sums; 0 means all of them.
  """
  check_range("tuples", tuples, 0, 1e9)

  def step(problem, state, batch, key, apply):
    def loss(outputs, params):
      def fuse(features):
        fused = problem.fuse(params, state.stats, features, own_key(key), True)
        dtype = jnp.promote_types(fused.logits.dtype, jnp.float32)
        return fused.logits.astype(dtype)

      having = {m: batch.having(m) for m in problem.modalities}
      if problem.additive:
        whole = factorised(fuse, outputs.features, having)
      else:
        index = choose(len(batch.mask), len(having), int(tuples), key)
        whole = over_tuples(fuse, outputs.features, having, index)
      true = jnp.take_along_axis(outputs.logits, batch.labels[:, None], -1)
      each = losses.weighted(whole - true[:, 0], batch)
      value = losses.masked_mean(each, batch.mask)
      return value, {"tcmax": value}

    done = differentiate(loss, problem, state, batch, key)
    return apply(done.state, done.grads), done.metrics

  def init(problem, state, key):
    del state, key
    _needs.independent_readout(problem, "tcmax")
    return ()

  return Method(step=step, init=init)


def factorised(fuse, features, having):
  """The log of the mean over all tuples, for logits that are a sum."""
  zeros = {m: jnp.zeros_like(z) for m, z in features.items()}
  constant = fuse(zeros) * (1 - 1 / len(features))
  parts = [
    log_mean_exp(fuse({**zeros, m: z}) - constant, having[m])
    for m, z in features.items()
  ]
  return logsumexp(jnp.stack(parts).sum(axis=0))


def over_tuples(fuse, features, having, index):
  """The same for any fusion, over the tuples ``index`` [m tuples]."""
  places = dict(zip(features, index, strict=True))
  logits = fuse({m: z[places[m]] for m, z in features.items()})
  weight = jnp.stack([having[m][i] for m, i in places.items()]).prod(axis=0)
  return logsumexp(log_mean_exp(logits, weight))


def log_mean_exp(logits, weight):
  """``log (Σ_j w_j exp o_j / Σ_j w_j)`` [k]; 0 if no row has a weight."""
  there = weight.sum() > 0
  weight = jnp.where(there, weight, 1.0).astype(logits.dtype)
  value = logsumexp(logits, axis=0, b=weight[:, None])
  return jnp.where(there, value - jnp.log(weight.sum()), 0.0)


def choose(samples, modalities, number, key):
  """Places of samples [m tuples]: all tuples, or ``number`` random ones.

  Raises:
    InputError: there are too many tuples to evaluate all of them.
  """
  if number:
    return jax.random.randint(own_key(key), (modalities, number), 0, samples)
  if math.prod([samples] * modalities) > _LARGEST:
    raise InputError(
      f"tcmax: {samples} samples of {modalities} modalities form more than "
      f"{_LARGEST} tuples, and this fusion must be evaluated on each: set "
      "method.tuples (4096, say), or use fusion=concat, sum or own_heads"
    )
  return np.indices((samples,) * modalities).reshape(modalities, -1)
