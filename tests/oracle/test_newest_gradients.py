"""The newest rules that change the gradient, against their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import golden
import toys
from dmg_jax.methods import dgl


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
