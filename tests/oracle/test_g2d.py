"""G2D against its equations: distillation, stages, and what may move."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import toys
from dmg_jax.methods import g2d, umt


def logits(modalities=3):
  rng = np.random.default_rng(0)
  return {
    m: jnp.asarray(rng.normal(size=(8, 3))) for m in toys.NAMES[:modalities]
  }


@pytest.mark.parametrize(
  ("encoders", "epochs", "alone", "expected"),
  [
    (2, 6, 0.5, [0, 0, 0, 1, 1, 1]),
    (3, 6, 0.7, [0, 0, 1, 1, 2, 2]),
    (5, 5, 0.8, [0, 1, 2, 3, 4]),
    (3, 4, 0.25, [0, 2, 2, 2]),
    (2, 3, 0.0, [1, 1, 1]),
    (2, 1, 0.5, [1]),
    (1, 3, 0.9, [0, 0, 0]),
    (0, 2, 0.5, [0, 0]),
  ],
)
def test_stages(encoders, epochs, alone, expected):
  got = [g2d.stage(encoders, e, epochs, alone) for e in range(epochs)]
  assert got == expected


def moving(problem, teachers, stage, batch=None):
  batch = batch or toys.batch(len(teachers))
  phase = umt.State(jnp.float32(1), jnp.int32(0), ((), ()), ())
  memory = g2d.State(phase, jnp.int32(stage))
  free = g2d.turns(problem, teachers, batch, memory)
  return {m for m, f in free.items() if float(f)}


def by_score(teachers, labels):
  """Modalities from the weakest teacher to the strongest."""
  s = {
    m: softmax(np.float64(o), -1)[np.arange(8), labels].sum()
    for m, o in teachers.items()
  }
  return sorted(s, key=s.__getitem__)


def test_the_weakest_moves_first_then_the_next():
  problem, *_ = toys.problem(3)
  teachers = logits()
  order = by_score(teachers, np.asarray(toys.batch(3).labels))
  assert [moving(problem, teachers, k) for k in range(3)] == [
    {order[0]}, {order[1]}, set(order),
  ]  # fmt: skip


def test_equal_teachers_move_in_order_and_one_alone_always():
  problem, *_ = toys.problem(3)
  same = dict.fromkeys(toys.NAMES, logits(1)["image"])
  assert [moving(problem, same, k) for k in (0, 1)] == [{"image"}, {"text"}]
  problem, *_ = toys.problem(1)
  assert moving(problem, logits(1), 0) == {"image"}


def test_a_frozen_encoder_has_no_stage():
  problem, *_ = toys.problem(3, frozen=("text",))
  teachers = logits()
  order = by_score(teachers, np.asarray(toys.batch(3).labels))
  order.remove("text")
  assert [moving(problem, teachers, k) for k in (0, 1)] == [
    {order[0]}, set(order),
  ]  # fmt: skip


def test_scores_are_those_of_what_is_there():
  """A teacher that is right where the modality is there is no weak one."""
  problem, *_ = toys.problem(2)
  batch = toys.batch(2)
  right = 9 * jax.nn.one_hot(batch.labels, 3)
  few = jnp.array([1, 1, 0, 0, 0, 0, 0, 0], jnp.float32)
  teachers = {"image": right * few[:, None] - right * (1 - few)[:, None],
              "text": right / 9}  # fmt: skip
  assert moving(problem, teachers, 0, batch) == {"image"}
  lacking = batch.replace(present={"image": few})
  assert moving(problem, teachers, 0, lacking) == {"text"}


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_divergences(temperature):
  teachers, fused = logits(2), logits(1)["image"]
  few = jnp.array([1, 1, 1, 0, 0, 0, 0, 0], jnp.float32)
  batch = toys.batch(2).replace(present={"text": few})
  got = g2d.divergences(fused, teachers, batch, temperature)
  p = softmax(np.float64(fused) / temperature, axis=-1)
  for m, rows in (("image", slice(8)), ("text", slice(3))):
    q = softmax(np.float64(teachers[m]) / temperature, axis=-1)
    each = temperature**2 * (q * np.log(q / p)).sum(axis=-1)
    np.testing.assert_allclose(got[m], each[rows].mean(), rtol=1e-6)
  same = g2d.divergences(fused, {"image": fused}, toys.batch(1), temperature)
  np.testing.assert_allclose(same["image"], 0, atol=1e-12)


def trained(method, epochs, teacher_epochs, on_epoch=None, **options):
  """The state after ``epochs`` in all, of which the first are the teachers'."""
  run = toys.Run(method, 2, "sum", **options)
  state = run.fresh()
  data = toys.ToyData(2, epochs=epochs - teacher_epochs)
  for epoch in range(epochs):
    state = run.between(state, data, epoch)
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = run.step(state, toys.batch(2, seed=epoch))
    if on_epoch:
      on_epoch(run, epoch, before, state, metrics)
  return state


@pytest.mark.slow
def test_without_stages_and_logits_it_is_umt():
  """Teachers, switch and students, over the whole run."""
  ours = g2d.make(
    feature_weight=2.0, logit_weight=0.0, alone=0.0, teacher_epochs=2
  )
  theirs = umt.make(weight=2.0, teacher_epochs=2)
  one, two = (trained(m, 5, 2) for m in (ours, theirs))
  toys.assert_close(one.params, two.params, rtol=1e-5)
  toys.assert_close(one.method.phase, two.method, rtol=1e-5)


def test_only_the_weaker_encoder_moves_and_the_heads():
  """To the bit, also with the momentum of the optimiser."""
  seen = []

  def look(run, epoch, before, state, metrics):
    moved = {
      m: not toys.same(before[f"encoders_{m}"], state.params[f"encoders_{m}"])
      for m in ("image", "text")
    }
    told = {m: bool(metrics[f"moves_{m}"]) for m in moved}
    assert moved == told
    heads = before["fusion"], state.params["fusion"]
    assert not toys.same(*heads)
    seen.append(sum(moved.values()))

  method = g2d.make(alone=0.5, teacher_epochs=2)
  trained(method, 6, 2, look, optimiser="sgd")
  assert seen == [2, 2, 1, 1, 2, 2]


def test_as_released_what_is_no_convolution_moves_all_the_time():
  method = g2d.make(alone=0.9, teacher_epochs=1, faithful=True)

  def look(run, epoch, before, state, metrics):
    for m in ("image", "text"):
      own = before[f"encoders_{m}"], state.params[f"encoders_{m}"]
      assert not toys.same(*own)

  trained(method, 3, 1, look)


def test_its_length_and_when_it_is_a_classifier():
  assert g2d.make().length(7, 2) == 14
  assert g2d.make(teacher_epochs=3).length(7, 2) == 10
  method, ready = g2d.make(teacher_epochs=1), []
  trained(
    method, 3, 1, lambda r, e, b, s, m: ready.append(r.method.ready(s.method))
  )
  assert ready == [False, True, True]


@pytest.mark.parametrize(
  ("options", "fusion", "said"),
  [
    ({"feature_weight": -1}, "sum", "feature_weight must lie"),
    ({"logit_weight": -1}, "sum", "logit_weight must lie"),
    ({"temperature": 0}, "sum", "temperature must lie"),
    ({"alone": 1}, "sum", "alone must lie"),
    ({"teacher_epochs": -1}, "sum", "teacher_epochs must be"),
    ({}, "channel", "own_heads"),
  ],
)
def test_refuses(options, fusion, said):
  with pytest.raises(ValueError, match=said):
    toys.Run(g2d.make(**options), 2, fusion).fresh()
