"""Features that do not belong together (TCMax, MCR), and an ensemble."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

import toys
from dmg_jax import losses
from dmg_jax.methods import ensemble, joint, mcr, tcmax
from dmg_jax.model import registry

# The fusions of the fast suite; the others are slow.
FEW = ("concat", "own_heads", "affine")


def by_tuples(run, batch, having):
  """The loss in float64, each tuple through the fusion on its own."""
  state = run.fresh()
  out, _ = run.problem.run(state.params, state.stats, batch, None, True)
  rows = {m: np.flatnonzero(h) for m, h in having.items()}
  index = np.array(list(itertools.product(*rows.values()))).T
  z = {m: out.features[m][i] for m, i in zip(rows, index, strict=True)}
  logits = run.problem.fuse(state.params, state.stats, z, None, True).logits
  logits = np.float64(logits)
  whole = logsumexp(logits) - np.log(index.shape[1])
  kept = np.flatnonzero(batch.mask)
  true = np.float64(out.logits)[kept, np.asarray(batch.labels)[kept]]
  weight = np.ones(len(kept)) if batch.weight is None else batch.weight[kept]
  return np.mean((whole - true) * weight)


@pytest.mark.parametrize("fusion", ["concat", "sum", "own_heads", "affine"])
@pytest.mark.parametrize("modalities", [2, 3])
def test_all_tuples(fusion, modalities):
  """Also where the sum over tuples factorises, with padding and gaps."""
  run = toys.Run(tcmax.make(), modalities, fusion)
  names = run.problem.modalities
  mask = jnp.array([1, 1, 1, 1, 1, 1, 0, 0], jnp.float32)
  there = jnp.array([1, 0, 1, 1, 0, 1, 1, 1], jnp.float32)
  batch = toys.batch(modalities).replace(
    mask=mask, present={names[1]: there}, weight=jnp.arange(8.0)
  )
  having = {m: np.asarray(mask) for m in names}
  having[names[1]] = np.asarray(mask * there)
  _, metrics = run.step(run.fresh(), batch)
  expected = by_tuples(run, batch, having)
  np.testing.assert_allclose(metrics["loss"], expected, rtol=2e-6)


def test_one_modality_has_tuples_of_one():
  run, batch = toys.Run(tcmax.make(), 1), toys.batch(1)
  expected = by_tuples(run, batch, {"image": np.ones(8)})
  _, metrics = run.step(run.fresh(), batch)
  np.testing.assert_allclose(metrics["loss"], expected, rtol=2e-6)


def test_equal_logits_have_the_loss_of_a_guess():
  run = toys.Run(tcmax.make(), 3)
  state = run.fresh()
  flat = jax.tree.map(jnp.zeros_like, state.params)
  _, metrics = run.step(state.replace(params=flat), toys.batch(3))
  np.testing.assert_allclose(metrics["loss"], np.log(toys.CLASSES), rtol=1e-6)


def test_random_tuples_agree_with_all_of_them():
  run = toys.Run(tcmax.make(tuples=200_000), 2, "affine")
  every = toys.Run(tcmax.make(), 2, "affine")
  found, wanted = (
    float(r.step(r.fresh(), toys.batch(2))[1]["loss"]) for r in (run, every)
  )
  assert found != wanted
  np.testing.assert_allclose(found, wanted, rtol=0.01)


def test_too_many_tuples_are_refused():
  run = toys.Run(tcmax.make(), 3, "affine")
  with pytest.raises(ValueError, match=r"method\.tuples"):
    run.step(run.fresh(), toys.batch(3, size=65))
  with pytest.raises(ValueError, match="tuples must lie"):
    tcmax.make(tuples=-1)


@pytest.mark.parametrize(
  "fusion",
  [
    f if f in FEW else pytest.param(f, marks=pytest.mark.slow)
    for f in registry.known("fusion")
  ],
)
def test_additive_says_whether_the_logits_are_a_sum(fusion):
  """f(a, b) + f(a', b') = f(a, b') + f(a', b) for a sum."""
  problem, params, stats = toys.problem(2, fusion)
  rng = np.random.default_rng(0)
  z = {
    m: jnp.asarray(rng.normal(size=(2, d)), jnp.float32)
    for m, d in problem.sizes.items()
  }
  last = problem.modalities[-1]
  crossed = z | {last: z[last][::-1]}
  here, there = (
    np.asarray(problem.fuse(params, stats, f, None, False).logits).sum(axis=0)
    for f in (z, crossed)
  )
  same = np.allclose(here, there, rtol=1e-4, atol=1e-5)
  assert same or not problem.additive
  if fusion in ("affine", "ml_lstm", "etmc"):
    assert not same


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_ensemble_averages_what_is_there(average):
  run = toys.Run(ensemble.make(average=average), 3, "sum")
  there = jnp.array([1, 0, 1, 1, 0, 1, 1, 1], jnp.float32)
  batch = toys.batch(3).replace(present={"text": there})
  state = run.fresh()
  out, _ = run.problem.run(state.params, state.stats, batch)
  found = softmax(np.float64(run.method.predict(out, ())), axis=-1)
  o = np.stack([np.float64(out.unimodal[m]) for m in run.problem.modalities])
  for i in range(8):
    rows = o[:, i] if there[i] else o[[0, 2], i]
    if average == "logits":
      expected = softmax(rows.mean(axis=0))
    else:
      expected = softmax(rows, axis=-1).mean(axis=0)
    np.testing.assert_allclose(found[i], expected, rtol=1e-5)


def test_members_learn_as_if_they_were_alone():
  """Each encoder ends where it would without the others."""
  whole = toys.Run(ensemble.make(), 3, "sum")
  state = whole.fresh()
  for seed in range(3):
    state, _ = whole.step(state, toys.batch(3, seed=seed))
  alone = toys.Run(ensemble.make(), 1, "sum")
  one = alone.fresh()
  one = one.replace(
    params={
      "encoders_image": whole.fresh().params["encoders_image"],
      "fusion": {"head_image": whole.fresh().params["fusion"]["head_image"]},
    }
  )
  for seed in range(3):
    batch = toys.batch(3, seed=seed)
    only = batch.replace(inputs={"image": batch.inputs["image"]})
    one, _ = alone.step(one, only)
  ours = state.params["encoders_image"], state.params["fusion"]["head_image"]
  theirs = one.params["encoders_image"], one.params["fusion"]["head_image"]
  toys.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_an_ensemble_has_nothing_in_common():
  with pytest.raises(ValueError, match="ensemble needs a separate head"):
    toys.Run(ensemble.make(), 2, "concat").fresh()
  with pytest.raises(ValueError, match="average"):
    ensemble.make(average="votes")


def test_mcr_without_its_terms_is_joint_training():
  off = mcr.make(weight=0.0, contrast=0.0, unimodal_weight=0.0)
  plain, game = (toys.Run(m, 3) for m in (joint.make(), off))
  one, two = plain.fresh(), game.fresh()
  for seed in range(2):
    one, _ = plain.step(one, toys.batch(3, seed=seed))
    two, _ = game.step(two, toys.batch(3, seed=seed))
  toys.assert_close(one.params, two.params, rtol=1e-5, atol=1e-6)


def test_players_of_three_modalities(monkeypatch):
  """Each encoder's gradient is of its own objective, by differences."""
  index = jnp.array([[3, 0, 1, 7, 5, 4, 2, 6]])
  monkeypatch.setattr(mcr, "permutations", lambda *_: index)
  run = toys.Run(joint.make(), 3)
  batch, params = toys.batch(3), run.fresh().params

  def game(params):
    out, _ = run.problem.run(params, {}, batch, None, True)
    return mcr.dependence(run.problem, params, {}, out, batch, index, None)

  found, pull = jax.vjp(game, params)
  plain = jnp.zeros(())

  def both(cotangents):
    return pull(cotangents[1])

  for k in mcr.PLAYERS.values():
    grads = mcr.total_gradient(run.problem, both, plain, found, 0.3, k)
    for m in run.problem.modalities:
      own = {j: jnp.float32(-0.3 * (1.0 if j == m else k)) for j in found}
      (expected,) = pull(own)
      key = f"encoders_{m}"
      toys.assert_close(grads[key], expected[key], rtol=1e-5, atol=1e-7)
    bias = grads["fusion"]["bias"]
    side = (1 + 2 * k) / 3
    (every,) = pull({j: jnp.float32(-0.3 * side) for j in found})
    toys.assert_close(bias, every["fusion"]["bias"], rtol=1e-5, atol=1e-7)


def test_nt_xent_with_gaps_and_padding():
  """Over all pairs of one class, whatever their modality, in NumPy."""
  rng = np.random.default_rng(0)
  z = {m: rng.normal(size=(6, 4)) for m in ("image", "text")}
  labels = np.array([0, 1, 0, 1, 2, 0])
  mask = np.array([1, 1, 1, 1, 1, 0], np.float32)
  there = np.array([1, 1, 0, 1, 1, 1], np.float32)
  batch = toys.batch(2, 6).replace(
    labels=jnp.asarray(labels),
    mask=jnp.asarray(mask),
    present={"text": jnp.asarray(there)},
  )
  rows = [("image", i) for i in range(5)] + [("text", i) for i in (0, 1, 3, 4)]
  unit = {p: z[p[0]][p[1]] / np.linalg.norm(z[p[0]][p[1]]) for p in rows}
  values = []
  for a in rows:
    s = {b: unit[a] @ unit[b] / 0.3 for b in rows if b != a}
    far = [v for b, v in s.items() if labels[b[1]] != labels[a[1]]]
    values += [
      logsumexp([v, *far]) - v
      for b, v in s.items()
      if labels[b[1]] == labels[a[1]]
    ]
  given = {m: jnp.asarray(x) for m, x in z.items()}
  found = losses.nt_xent(given, batch, 0.3)
  np.testing.assert_allclose(found, np.mean(values), rtol=1e-6)


def test_mcr_says_what_is_wrong():
  with pytest.raises(ValueError, match="players"):
    mcr.make(players="selfish")
  with pytest.raises(ValueError, match="samples must lie"):
    mcr.make(samples=0)
