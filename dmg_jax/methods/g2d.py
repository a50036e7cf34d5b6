r"""G2D: distils from unimodal teachers; at first, weak encoders move alone.

Phase 1 trains the teachers as ``umt`` does, with Σ_m CE(o_m). Phase 2 starts
from fresh weights. Its loss is

.. math:: L = \mathrm{CE}(o) + \sum_m \frac{\alpha}{n d_m} \sum_i
  \| z_{m,i} - z^T_{m,i} \|^2 + \frac{\beta \tau^2}{n} \sum_i
  \mathrm{KL}\bigl(\mathrm{softmax}(o^T_{m,i} / \tau) \,\|\,
  \mathrm{softmax}(o_i / \tau)\bigr)

with the teachers' features z^T and logits o^T in evaluation mode, without
gradient. The first share ``alone`` of its epochs has M - 1 stages of equal
length, in which one encoder moves, with the heads (sequential modality
prioritisation): in stage k, it is that of the k-th smallest s_m of the batch,

.. math:: s_m = \sum_i \mathrm{softmax}(o^T_{m,i})_{y_i}

Then all move. With two modalities, only the weaker one has a stage. Needs
read-outs whose loss reaches only their own encoder. Supports any number of
modalities; a single one always moves.

Reference: Rakib & Bagavathi, "G2D: Boosting Multimodal Learning with
Gradient-Guided Distillation", ICCV 2025. Official: rAIson-Lab/G2D.

Deviations:
1. Encoders whose turn it is not are frozen. The official code sets the gradient
   of their convolutions to zero: their other weights move, and momentum and
   weight decay move them all (``faithful=True``).
2. The official code supports two modalities; the stages of more are our
   reading. It stops if both teachers have the same score, where the modality
   that comes first is here the weaker one.
3. Teachers are trained together in one run, as those of ``umt``; officially one
   by one, from checkpoints.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from dmg_jax import losses
from dmg_jax.methods import _needs, _phases, _rates, _terms, umt
from dmg_jax.methods._adapters import check_range, differentiate
from dmg_jax.types import Card, Leaf, Method

CARD = Card(
  "phases",
  "CE(o) + Σ ‖z_m - z_m^T‖²/d + KL(p_m^T‖p), weak encoders first",
  "Rakib & Bagavathi, ICCV 2025",
)


class State(struct.PyTreeNode):
  """State of G2D.

  Attributes:
    phase: the state of UMT, whose phases are the same.
    stage: int [], rank of the encoder that moves; the last one lets all move.
  """

  phase: umt.State
  stage: Leaf


def make(
  *,
  feature_weight: float = 1.0,
  logit_weight: float = 1.0,
  temperature: float = 1.0,
  alone: float = 0.5,
  teacher_epochs: int | None = None,
  faithful: bool = False,
) -> Method:
  """The G2D method.

  Args:
    feature_weight: α ≥ 0.
    logit_weight: β ≥ 0.
    temperature: τ > 0.
    alone: share of phase 2 in [0, 1) in which single encoders move.
    teacher_epochs: number of epochs of phase 1; ``None`` means as many as phase
      2 has.
    faithful: see deviation 1.
  """
  check_range("feature_weight", feature_weight, 0, 1e6)
  check_range("logit_weight", logit_weight, 0, 1e6)
  check_range("temperature", temperature, 1e-3, 1e3)
  check_range("alone", alone, 0, 0.999)
  phases = umt.make(teacher_epochs=teacher_epochs)

  def step(problem, state, batch, key, apply):
    memory = state.method.phase
    teacher = jax.lax.stop_gradient(problem.run(*memory.other, batch)[0])

    def loss(outputs, params):
      del params
      near = umt.distances(outputs.features, teacher.features, batch)
      alike = divergences(outputs.logits, teacher.unimodal, batch, temperature)
      cls = _terms.cross_entropy(outputs.logits, batch)
      second = cls + feature_weight * _terms.total(near)
      second = second + logit_weight * _terms.total(alike)
      first = _terms.total(_terms.own(outputs, batch))
      terms = {"cls": cls, **_terms.named("distil_features", near)}
      terms |= _terms.named("distil_logits", alike)
      return jnp.where(memory.distil > 0, second, first), terms

    done = differentiate(loss, problem, state, batch, key)
    free = turns(problem, teacher.unimodal, batch, state.method)
    metrics = {**done.metrics, **_terms.named("moves", free)}
    apply = _phases.since(apply, memory.begin)
    if faithful:
      grads = _rates.scaled(problem, done.grads, free, axes=(4,))
      return apply(done.state, grads), metrics
    return apply(done.state, done.grads, free), metrics

  def init(problem, state, key):
    _needs.independent_readout(problem, "g2d")
    return State(phases.init(problem, state, key), _phases.count(0))

  def between_epochs(problem, state, data, epoch):
    within = state.replace(method=state.method.phase)
    within = phases.between_epochs(problem, within, data, epoch)
    begun = max(epoch + data.epochs - phases.length(data.epochs, 0), 0)
    now = stage(len(trained(problem)), begun, data.epochs, alone)
    return within.replace(method=State(within.method, _phases.count(now)))

  return Method(
    step=step,
    init=init,
    between_epochs=between_epochs,
    length=phases.length,
    ready=lambda method_state: phases.ready(method_state.phase),
    diagnostics=("moves",),
  )


def divergences(logits, teachers, batch, temperature):
  """{modality: τ² KL(teacher ‖ fused), where the modality is there}."""
  log_p = jax.nn.log_softmax(logits / temperature)
  found = {}
  for m, o in teachers.items():
    log_q = jax.nn.log_softmax(o / temperature)
    each = (jnp.exp(log_q) * (log_q - log_p)).sum(axis=-1)
    found[m] = temperature**2 * losses.masked_mean(each, batch.having(m))
  return found


def trained(problem):
  """The modalities whose encoder has weights that are trained."""
  owners = set(jax.tree.leaves(problem.owner))
  return [m for m in problem.modalities if m in owners]


def stage(encoders, epoch, epochs, alone):
  """Rank of the encoder that moves in an epoch of phase 2; the last for all."""
  last, first_part = max(encoders - 1, 0), int(alone * epochs)
  return epoch * last // first_part if epoch < first_part else last


def turns(problem, teachers, batch, memory):
  """{modality: 1 if its encoder moves in the step, else 0}."""
  names = trained(problem)
  if len(names) < 2:
    return {m: jnp.ones((), jnp.float32) for m in names}
  s = _terms.scores({m: teachers[m] for m in names}, batch)
  all_move = (memory.phase.distil == 0) | (memory.stage >= len(names) - 1)
  free = {}
  for i, m in enumerate(names):
    below = [s[j] <= s[m] for j in names[:i]]
    below += [s[j] < s[m] for j in names[i + 1 :]]
    rank = jnp.stack(below).sum()
    free[m] = (all_move | (rank == memory.stage)).astype(jnp.float32)
  return free
