"""The newest rules that change the gradient, against their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import golden
import toys
from dmg_jax.methods import arl, dgl, multitask
from dmg_jax.types import Outputs


def one_step(method, modalities=2, batch=None, **options):
  """``(gradients, metrics, the state after)`` of a first step."""
  run = toys.Run(method, modalities, **options)
  state = run.fresh().replace(opt_state=())
  batch = batch or toys.batch(modalities)
  step = jax.jit(run.method.step, static_argnums=(0, 4))
  after, metrics = step(
    run.problem, state, batch, jax.random.key(0), golden.capture
  )
  return after.opt_state[-1][0], metrics, after


def owned(run_problem, tree, owner):
  """The leaves that an owner has."""
  leaves = zip(
    jax.tree.leaves(tree), jax.tree.leaves(run_problem.owner), strict=True
  )
  return [np.asarray(x) for x, o in leaves if o == owner]


def gradient(loss, modalities, fusion="concat", batch=None):
  """Gradient of ``loss(outputs, batch)`` on the toy problem."""
  problem, params, stats = toys.problem(modalities, fusion)
  batch = batch or toys.batch(modalities)

  def value(params):
    return loss(problem.run(params, stats, batch)[0])

  return problem, jax.jit(jax.grad(value))(params)


def slope(logits, labels):
  """∂CE/∂logits in NumPy, the mean over the batch."""
  p = softmax(np.float64(logits), axis=-1)
  p[np.arange(len(labels)), labels] -= 1
  return p / len(labels)


# DGL


@pytest.mark.parametrize("modalities", [1, 3])
def test_dgl_by_hand(modalities):
  """Gradients of all features and of the head, in NumPy."""
  problem, params, stats = toys.problem(modalities)
  grads, metrics, _ = one_step(dgl.make(alpha=3.0), modalities)
  out, _ = problem.run(params, stats, toys.batch(modalities))
  labels = np.asarray(toys.batch(modalities).labels)
  z = {m: np.float64(v) for m, v in out.features.items()}
  head = {m: np.float64(params["fusion"][f"head_{m}"]) for m in z}
  bias = np.float64(params["fusion"]["bias"])
  fused = slope(sum(z[m] @ head[m] for m in z) + bias, labels)
  for m in z:
    got = grads["fusion"][f"head_{m}"]
    np.testing.assert_allclose(got, z[m].T @ fused, rtol=1e-4, atol=1e-6)
    own = 3 * slope(z[m] @ head[m] + bias, labels) @ head[m].T
    last = max(grads[f"encoders_{m}"])  # The layer that makes the features.
    got = grads[f"encoders_{m}"][last]["bias"]
    np.testing.assert_allclose(got, own.sum(axis=0), rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(grads["fusion"]["bias"], fused.sum(0), atol=1e-6)
  assert set(metrics) == {"loss", "cls", *(f"cls_{m}" for m in z)}


def test_dgl_without_unimodal_losses_trains_the_fusion_alone():
  problem, *_ = toys.problem(2)
  grads, *_ = one_step(dgl.make(alpha=0.0))
  for m in problem.modalities:
    assert all(not g.any() for g in owned(problem, grads, m))
  assert any(g.any() for g in owned(problem, grads, "shared"))


def test_dgl_a_missing_modality_is_left_out_of_its_loss():
  """As if the samples that lack it were not there."""
  batch = toys.batch(2)
  lacks = {"text": jnp.array([1, 1, 1, 1, 0, 0, 0, 0], jnp.float32)}
  grads, _, _ = one_step(dgl.make(), batch=batch.replace(present=lacks))
  few = jax.tree.map(lambda x: x[:4], batch)
  expected, _, _ = one_step(dgl.make(), batch=few)
  toys.assert_close(
    grads["encoders_text"], expected["encoders_text"], rtol=1e-4
  )
  assert not np.allclose(
    grads["fusion"]["head_image"], expected["fusion"]["head_image"]
  )


def test_dgl_refuses_encoders_that_exchange():
  with pytest.raises(ValueError, match="fusion=own_heads"):
    toys.Run(dgl.make(), 2, "channel").fresh()


def test_dgl_refuses_a_negative_weight():
  with pytest.raises(ValueError, match="alpha must lie in"):
    dgl.make(alpha=-1.0)


# ARL


def weights_by_hand(logits, temperature):
  """[m], w of whole batches."""
  size = np.array([np.abs(o).sum(-1).mean() for o in logits])
  p = [softmax(o, axis=-1) for o in logits]
  h = np.array([-(q * np.log(q)).sum(-1).mean() for q in p])
  c, u = size / size.sum(), 1 / np.maximum(h / h.sum(), 0.6 / len(h))
  u = u / u.sum()
  others = [np.delete(c, i).mean() for i in range(len(c))]
  return softmax(temperature * u * np.array(others))


def random_logits(modalities, scales=(0.5, 4.0, 1.0)):
  rng = np.random.default_rng(1)
  names = toys.NAMES[:modalities]
  return {
    m: s * rng.normal(size=(8, toys.CLASSES))
    for m, s in zip(names, scales, strict=False)
  }


@pytest.mark.parametrize("modalities", [2, 3])
def test_arl_weights(modalities):
  logits = random_logits(modalities)
  got = arl.weights(logits, toys.batch(modalities), 8.0)
  expected = weights_by_hand(list(logits.values()), 8.0)
  np.testing.assert_allclose(list(got.values()), expected, rtol=1e-6)
  assert np.ptp(expected) > 0.05


def test_arl_weights_of_what_is_there():
  """Missing samples and padding do not count; nobody's modality is the mean."""
  logits = random_logits(3)
  batch = toys.batch(3)
  few = jnp.array([1, 1, 1, 1, 0, 0, 0, 0], jnp.float32)
  got = arl.weights(logits, batch.replace(present={"image": few}), 8.0)
  cut = [o[:4] if m == "image" else o for m, o in logits.items()]
  np.testing.assert_allclose(
    list(got.values()), weights_by_hand(cut, 8.0), rtol=1e-6
  )
  padded = arl.weights(logits, batch.replace(mask=few), 8.0)
  cut = [o[:4] for o in logits.values()]
  np.testing.assert_allclose(
    list(padded.values()), weights_by_hand(cut, 8.0), rtol=1e-6
  )
  none = batch.replace(present={"image": 0 * few})
  assert np.isfinite(list(arl.weights(logits, none, 8.0).values())).all()


@pytest.mark.parametrize("case", ["one", "certain", "zero"])
def test_arl_weights_without_a_difference(case):
  logits = random_logits(1 if case == "one" else 2)
  if case == "certain":
    logits = {m: 1e4 * jax.nn.one_hot(jnp.arange(8) % 3, 3) for m in logits}
  if case == "zero":
    logits = {m: 0 * o for m, o in logits.items()}
  got = arl.weights(logits, toys.batch(len(logits)), 8.0)
  np.testing.assert_allclose(list(got.values()), 1 / len(logits), rtol=1e-6)


def test_arl_scales_the_encoders_alone():
  """Gradients of CE(o) + γ Σ CE(o_m), those of encoders times 1 + w_m."""
  labels = toys.batch(3).labels

  def loss(out: Outputs):
    each = [out.logits, *(o for o in out.unimodal.values())]
    log_p = [jax.nn.log_softmax(o)[jnp.arange(8), labels] for o in each]
    return -(log_p[0].mean() + 2.0 * sum(x.mean() for x in log_p[1:]))

  problem, plain = gradient(loss, 3)
  grads, metrics, _ = one_step(arl.make(gamma=2.0, warmup=0), 3)
  for m in problem.modalities:
    w = float(metrics[f"weight_{m}"])
    assert 0 < w < 1
    for a, b in zip(
      owned(problem, grads, m), owned(problem, plain, m), strict=True
    ):
      np.testing.assert_allclose(a, (1 + w) * b, rtol=1e-4, atol=1e-7)
  toys.assert_close(grads["fusion"], plain["fusion"], rtol=1e-4)


def test_arl_warms_up():
  """Before ``warmup`` the rule is CE(o) + Σ CE(o_m)."""
  run = toys.Run(arl.make(warmup=2), 2)
  state, seen = run.fresh(), []
  for epoch in range(4):
    state = run.between(state, toys.ToyData(2), epoch)
    seen.append(float(state.method))
  assert seen == [0, 0, 1, 1]
  grads, *_ = one_step(arl.make())
  other, *_ = one_step(multitask.make(weight=1.0))
  toys.assert_close(grads, other, rtol=1e-5)


def test_arl_as_released_has_equal_weights():
  _, metrics, _ = one_step(arl.make(faithful=True), 3)
  for m in toys.NAMES:
    np.testing.assert_allclose(metrics[f"weight_{m}"], 1 / 3, rtol=1e-6)


@pytest.mark.parametrize("option", ["gamma", "temperature", "warmup"])
def test_arl_refuses_what_is_negative(option):
  with pytest.raises(ValueError, match=f"{option} must lie in"):
    arl.make(**{option: -1})
