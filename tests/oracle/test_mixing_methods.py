"""IPRM, Remix and the fusion of IPRM against their equations, in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import toys
from dmg_jax.methods import iprm, remix

SGD = {"optimiser": "sgd", "rate": 0.1, "momentum": 0.0}


def cross_entropy(logits, labels):
  labels = np.asarray(labels)
  return -log_softmax(logits, axis=-1)[np.arange(len(labels)), labels]


def dense(z, p):
  return np.float64(z) @ np.float64(p["kernel"]) + np.float64(p["bias"])


def lacking(count=3, size=8):
  """A batch whose sample 2 lacks the image, 5 and 6 all but the text."""
  rows = {m: np.ones(size, np.float32) for m in toys.NAMES[:count]}
  rows["image"][2] = 0
  for m in rows:
    rows[m][5:7] = float(m == "text")
  present = {m: jnp.asarray(row) for m, row in rows.items()}
  return toys.batch(count, size).replace(present=present), rows


def slerp_by_hand(a, b, share):
  """Points of the arc between the directions of a and b."""
  a = a / np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-30)
  b = b / np.maximum(np.linalg.norm(b, axis=1, keepdims=True), 1e-30)
  theta = np.arccos((a * b).sum(axis=1))[:, None]
  one, two = np.sin(share * theta), np.sin((1 - share) * theta)
  return (one * a + two * b) / np.sin(theta)


def mixed_by_hand(params, z, shares):
  """{(a, b): o_ab}."""
  found = {}
  for (a, b), share in shares.items():
    point = slerp_by_hand(np.float64(z[a]), np.float64(z[b]), share)
    found[a, b] = dense(point, params["fusion"][f"mixed_{a}_{b}"])
  return found


def all_pairs(share, count=3):
  return dict.fromkeys(itertools.combinations(toys.NAMES[:count], 2), share)


def test_slerp_lies_on_the_sphere_between_its_ends():
  a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
  for share in (0.2, 0.9):
    point = slerp_by_hand(a, b, share)
    np.testing.assert_allclose(np.linalg.norm(point, axis=1), 1)
  np.testing.assert_allclose(
    slerp_by_hand(a, b, 1.0), a / np.linalg.norm(a, axis=1)[:, None]
  )


def test_fused_logits_are_the_mean_over_pairs_that_are_there():
  run = toys.run_of("iprm", 3)
  batch, rows = lacking()
  out, _ = run.problem.run(run.params, {}, batch)
  mixed = mixed_by_hand(run.params, out.features, all_pairs(0.5))
  there = {p: rows[p[0]] * rows[p[1]] for p in mixed}
  for i in range(8):
    own = [mixed[p][i] for p in mixed if there[p][i]]
    if not own:  # Samples 5 and 6 have a text and nothing else.
      own = [out.unimodal["text"][i]]
    np.testing.assert_allclose(
      out.logits[i], np.mean(own, axis=0), rtol=2e-4, atol=2e-5
    )


def test_equal_and_zero_directions_have_finite_gradients():
  bound, params, _ = toys.problem(2, "slerp")

  def value(z):
    fused = bound.fuse(params, {}, z, None, True)
    return (fused.logits**2).sum()

  same = jnp.asarray(np.random.default_rng(0).normal(size=(2, 6)), jnp.float32)
  for other in (same, 2 * same, 0 * same):
    grads = jax.grad(value)({"image": same, "text": other})
    assert toys.finite(grads)


def test_slerp_refuses_unequal_features():
  bound, params, _ = toys.problem(2, "slerp")
  z = {"image": jnp.ones((2, 6)), "text": jnp.ones((2, 5))}
  with pytest.raises(ValueError, match="slerp needs features of equal size"):
    bound.fuse(params, {}, z, None, False)


def divergence(own, mixed):
  log_p, log_q = (log_softmax(np.float64(o), axis=-1) for o in (own, mixed))
  return (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)


def probe_by_hand(params, out, rows, probed):
  """{pair: λ̂ of its first modality} from the samples that have the pair."""
  mixed, found = mixed_by_hand(params, out.features, probed), {}
  for (a, b), logits in mixed.items():
    both = (rows[a] * rows[b]) > 0
    one, two = (
      divergence(out.unimodal[m], logits)[both].mean() for m in (a, b)
    )
    found[a, b] = two / (one + two)
  return found


def nested(shares):
  found = {}
  for (a, b), value in shares.items():
    found.setdefault(a, {})[b] = value
  return found


def test_iprm_step_with_missing_modalities():
  """λ, λ̂ and the loss of two steps."""
  run, alpha = toys.run_of("iprm", 3), 0.8
  batch, rows = lacking()
  state, probed = run.fresh(), all_pairs(0.5)
  for _ in range(2):
    params = jax.tree.map(np.asarray, state.params)
    out, _ = run.problem.run(params, {}, batch)
    found = probe_by_hand(params, out, rows, probed)
    loss = 0.0
    for m, o in out.unimodal.items():
      loss += cross_entropy(o, batch.labels)[rows[m] > 0].mean()
    for (a, b), o in mixed_by_hand(params, out.features, found).items():
      both = (rows[a] * rows[b]) > 0
      loss += cross_entropy(o, batch.labels)[both].mean()
    state, metrics = run.step(state, batch)
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-4)
    expected = iprm.State(nested(probed), nested(found))
    toys.assert_close(state.method, expected, rtol=1e-3)
    first = (found["image", "text"] + found["image", "audio"]) / 2
    np.testing.assert_allclose(metrics["share_image"], first, rtol=1e-3)
    probed = {p: alpha * probed[p] + (1 - alpha) * found[p] for p in found}


def test_iprm_mixes_more_of_the_modality_that_lags():
  """The head that is nearer to the mixture has the larger share."""
  run = toys.run_of("iprm", 2)
  params = jax.tree.map(np.asarray, run.params)
  fusion = dict(params["fusion"])
  mixed = fusion["mixed_image_text"]
  fusion["head_image"] = jax.tree.map(np.zeros_like, fusion["head_image"])
  fusion["mixed_image_text"] = {
    "kernel": 0.1 * mixed["kernel"], "bias": mixed["bias"],
  }  # fmt: skip
  fusion["head_text"] = jax.tree.map(lambda x: 5 * x, fusion["head_text"])
  state = toys.with_params(run, {**params, "fusion": fusion})
  state, metrics = run.step(state, toys.batch(2))
  assert float(metrics["share_image"]) > 0.9
  assert float(metrics["share_image"] + metrics["share_text"]) == 1


def test_iprm_keeps_its_share_where_nobody_has_the_pair():
  run = toys.run_of("iprm", 2)
  row = jnp.asarray([1, 1, 1, 1, 0, 0, 0, 0], jnp.float32)
  batch = toys.batch(2).replace(present={"image": row, "text": 1 - row})
  state, metrics = run.step(run.fresh(), batch)
  assert float(metrics["cls"]) == 0
  half = {"image": {"text": np.float32(0.5)}}
  toys.assert_close(state.method, iprm.State(half, half))


def test_iprm_predicts_the_sum():
  run = toys.run_of("iprm", 3)
  batch, rows = lacking()
  out, _ = run.problem.run(run.params, {}, batch)
  probed = dict(zip(all_pairs(0), (0.2, 0.5, 0.7), strict=True))
  memory = iprm.State(nested(probed), nested(all_pairs(0.9)))
  got = run.method.predict(out, memory)
  mixed = mixed_by_hand(run.params, out.features, probed)
  for i in (0, 2):
    own = [o[i] for m, o in out.unimodal.items() if rows[m][i]]
    both = [o[i] for (a, b), o in mixed.items() if rows[a][i] * rows[b][i]]
    expected = 3 * np.mean(own, axis=0) + np.mean(both, axis=0)
    np.testing.assert_allclose(got[i], expected, rtol=1e-3, atol=1e-4)


def test_iprm_with_one_modality_is_plain_training():
  one, joint = toys.run_of("iprm", 1), toys.run_of("joint", 1, fusion="sum")
  batch = toys.batch(1)
  share = one.step(one.fresh(), batch)[1]
  plain = joint.step(joint.fresh(), batch)[1]
  np.testing.assert_allclose(share["loss"], plain["loss"], rtol=1e-6)
  assert float(share["share_image"]) == 1


@pytest.mark.parametrize(
  ("name", "options", "fusion", "words"),
  [
    ("iprm", {"alpha": 1.5}, "slerp", "alpha must lie"),
    ("iprm", {}, "concat", "fusion=slerp"),
    ("remix", {"gamma": -1}, "own_heads", "gamma must lie"),
    ("remix", {"warmup": True}, "own_heads", "warmup must be a number"),
  ],
)
def test_refuses(name, options, fusion, words):
  with pytest.raises(ValueError, match=words):
    toys.Run(toys.make_method(name, **options), 2, fusion).fresh()


# Remix.


def grouped(run, groups):
  """A fresh state whose training samples have these groups."""
  row = np.zeros(toys.SAMPLES, np.int32)
  row[: len(groups)] = groups
  return run.fresh().replace(method=remix.State(jnp.asarray(row)))


def alone(params, z, m):
  """Fused logits of one modality, the others at zero."""
  kept = [v if j == m else 0 * v for j, v in z.items()]
  head = params["fusion"]["fused"]
  return dense(np.concatenate(kept, axis=1), head)


def test_remix_loss_of_a_batch_of_several_modalities():
  run = toys.Run(remix.make(gamma=0.7), 3, "own_heads", **SGD)
  batch, _ = lacking()
  groups = np.array([0, 2, 1, 2, 2, 1, 1, 0])
  state = grouped(run, groups)
  out, _ = run.problem.run(run.params, {}, batch)
  z = {m: np.asarray(v) for m, v in out.features.items()}
  y, each = np.asarray(batch.labels), np.zeros(8)
  for i, g in enumerate(groups):
    m = toys.NAMES[g]
    each[i] = cross_entropy(alone(run.params, z, m)[[i]], y[[i]])[0]
    each[i] += 0.7 * cross_entropy(out.unimodal[m][i : i + 1], y[i : i + 1])[0]
  _, metrics = run.step(state, batch)
  np.testing.assert_allclose(metrics["loss"], each.mean(), rtol=1e-5)
  shares = [float(metrics[f"share_{m}"]) for m in toys.NAMES]
  np.testing.assert_allclose(shares, [2 / 8, 3 / 8, 3 / 8])


def test_remix_trains_the_shown_modality_alone():
  run = toys.run_of("remix", 3)
  before = jax.tree.map(np.asarray, run.params)
  state = grouped(run, np.ones(8, int))
  for seed in (0, 1):  # A second step would show what momentum does.
    state, _ = run.step(state, toys.batch(3, seed=seed))
  owners = jax.tree.leaves(run.problem.owner)
  pairs = zip(*map(jax.tree.leaves, (before, state.params)), strict=True)
  moved = {o for o, (a, b) in zip(owners, pairs, strict=True) if (a != b).any()}
  assert moved == {"text", "text/head", "shared"}


def test_remix_warm_up_is_multitask_training():
  run, batch = toys.run_of("remix", 2), toys.batch(2)
  out, _ = run.problem.run(run.params, {}, batch)
  own = [cross_entropy(o, batch.labels).mean() for o in out.unimodal.values()]
  expected = cross_entropy(out.logits, batch.labels).mean() + 0.5 * sum(own)
  state, metrics = run.step(run.fresh(), batch)
  np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
  order = run.method.order(run.problem, state.method, jax.random.key(0), 0)
  assert sorted(np.asarray(order)) == list(range(toys.SAMPLES))
  assert list(order) != list(range(toys.SAMPLES))


def test_remix_measures_the_least_certain_modality():
  run = toys.Run(remix.make(warmup=1), 3, "own_heads")
  data = toys.ToyData(3)
  state = run.fresh()
  assert toys.same(run.between(state, data, 0).method, state.method)
  state = run.between(state, data, 1)
  expected = np.zeros(toys.SAMPLES, int)
  for batch in data.batches("train"):
    out, _ = run.problem.run(run.params, {}, batch)
    kl = []
    for m in toys.NAMES:
      log_p = log_softmax(np.float64(out.unimodal[m]), axis=-1)
      kl.append((np.exp(log_p) * (log_p + np.log(toys.CLASSES))).sum(axis=-1))
    expected[np.asarray(batch.index)] = np.argmin(kl, axis=0)
  np.testing.assert_array_equal(state.method.group, expected)
  assert len(set(expected[:8])) > 1


def test_remix_never_chooses_what_is_missing():
  run = toys.run_of("remix", 3)
  batch, rows = lacking()
  found = remix.weakest(run.problem, run.params, {}, batch)
  for i, g in enumerate(np.asarray(found["group"])):
    assert rows[toys.NAMES[g]][i] == 1
  assert set(np.asarray(found["group"])[5:7]) == {1}


def test_remix_orders_by_modality_and_shuffles_within():
  group = jnp.asarray(np.random.default_rng(0).integers(0, 3, 40), jnp.int32)
  orders = []
  for seed in range(2):
    found = np.asarray(
      remix.order(None, remix.State(group), jax.random.key(seed), 0)
    )
    assert sorted(found) == list(range(40))
    assert (np.diff(np.asarray(group)[found]) >= 0).all()
    orders.append(list(found))
  assert orders[0] != orders[1]
