"""IPRM, Remix and the fusion of IPRM against their equations, in NumPy."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import toys
from dmg_jax.methods import iprm

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
  ],
)
def test_refuses(name, options, fusion, words):
  with pytest.raises(ValueError, match=words):
    toys.Run(toys.make_method(name, **options), 2, fusion).fresh()
