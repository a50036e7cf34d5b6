r"""Diagnosing and re-learning: partly resets encoders that memorise.

After every 0-based epoch e > 0 that is divisible by ``every``, at most
``times`` times, the features of train and val are scaled to [-1, 1] per
dimension and clustered by k-means into as many clusters as there are classes:

.. math:: \mathrm{purity} = \frac{1}{n} \sum_{\text{clusters}} \max_c n_c, \quad
  a_m = \tanh(\sigma\, |\mathrm{purity}^{train}_m - \mathrm{purity}^{val}_m|),
  \quad \theta_m \leftarrow a_m \theta_m^{init} + (1 - a_m) \theta_m

for the weights θ_m of encoder m. Running statistics, heads and the state of the
optimiser stay unchanged. The loss is the cross-entropy of the fused logits.
Works with any fusion and any number of modalities.

Reference: Wei, Li, Feng, Hu, "Diagnosing and Re-learning for Balanced
Multimodal Learning", ECCV 2024, eqs. 3-7. Official:
GeWu-Lab/Diagnosing_Relearning_ECCV2024.

Deviation 1: training features are computed in evaluation mode, without
augmentation.
"""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from dmg_jax.methods import _epochs, _needs, _phases
from dmg_jax.methods._adapters import check_range, from_loss
from dmg_jax.methods.joint import classification
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "learning rate",
  "θ_m ← a θ_m^init + (1-a) θ_m, a = tanh(3 |purity gap|)",
  "Wei et al., ECCV 2024",
)


class State(struct.PyTreeNode):
  """State of relearning.

  Attributes:
    start: the weights before the first step.
    done: [], number of resets so far.
  """

  start: Leaf
  done: Leaf


def make(*, every: int = 20, times: int = 3, strength: float = 3.0) -> Method:
  """The relearning method.

  Args:
    every: number of epochs > 0 between two diagnoses.
    times: largest number of diagnoses; 0 gives joint training.
    strength: σ ≥ 0.
  """
  check_range("every", every, 1, 1e9)
  check_range("times", times, 0, 1e9)
  check_range("strength", strength, 0, 1e6)

  def init(problem, state, key):
    del key
    if times > 0:
      _needs.trained(problem, "relearning", "resets")
    return State(state.params, _phases.count(0))

  def between_epochs(problem, state, data, epoch):
    last = epoch - 1  # The epoch that has just ended.
    if last < 1 or last % every or int(state.method.done) >= times:
      return state
    train, val = (
      _epochs.sweep(_epochs.outputs, problem, state, data.batches(split))
      for split in ("train", "val")
    )
    gaps = {
      m: abs(
        measured(train, m, problem.classes) - measured(val, m, problem.classes)
      )
      for m in problem.modalities
    }
    mix = {m: float(np.tanh(strength * gap)) for m, gap in gaps.items()}
    params = jax.tree.map(
      lambda now, then, o: blend(now, then, mix.get(o, 0.0)),
      state.params,
      state.method.start,
      problem.owner,
    )
    mstate = state.method.replace(done=state.method.done + 1)
    return state.replace(params=params, method=mstate)

  return from_loss(
    lambda outputs, batch, _: classification(outputs, batch),
    init=init,
    between_epochs=between_epochs,
  )


def blend(now, then, a):
  """``a then + (1 - a) now`` in the dtype of ``now``."""
  return jnp.asarray(a * then + (1 - a) * now, now.dtype)


def measured(found, modality, classes):
  """Purity of a modality in a split, where it is there; 0 if it never is."""
  z, labels = _epochs.having(
    found, modality, found["features"][modality], found["labels"]
  )
  return purity(z, labels, classes) if len(labels) else 0.0


def purity(features, labels, classes: int) -> float:
  """Fraction of samples with the most frequent class of their cluster."""
  low, high = features.min(axis=0), features.max(axis=0)
  spread = np.where(high > low, high - low, 1.0)
  scaled = 2 * (features - low) / spread - 1
  clusters = min(classes, len(scaled))
  means: Any = KMeans(n_clusters=clusters, random_state=0, n_init="auto")
  with warnings.catch_warnings():  # Warns if fewer distinct rows than clusters.
    warnings.simplefilter("ignore", ConvergenceWarning)
    assigned = means.fit_predict(scaled)
  table = np.zeros((clusters, classes))
  np.add.at(table, (assigned, labels), 1)
  return float(table.max(axis=1).sum() / len(labels))
