"""MLA: the projection's recursion, confidence weights, whose turn it is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import toys
from dmg_jax import losses
from dmg_jax.methods import mla


def projection_oracle(z, p, lam):
  r = z.mean(axis=0)
  k = p @ r
  p = p - np.outer(k, k) / (lam + r @ k)
  return p / np.linalg.norm(p)


def test_projection_follows_the_recursion():
  """Two turns by hand: gradients, projection, plain SGD on one head."""
  run = toys.Run(
    mla.make(), 2, "shared_head", optimiser="sgd", rate=0.1, momentum=0.0
  )
  batch = toys.batch(2)
  state, _ = run.step(run.fresh(), batch)
  params = run.fresh().params
  p, n = np.eye(6), 1
  for turn, m in enumerate(run.problem.modalities):

    def loss(q, m=m):
      outputs, _ = run.problem.forward(q, {}, batch.inputs, None, True)
      each = losses.cross_entropy(outputs.unimodal[m], batch.labels)
      return each.mean(), outputs.features[m]

    (_, z), grads = jax.value_and_grad(loss, has_aux=True)(params)
    head = grads["fusion"]["head"]
    if turn > 0:
      p = projection_oracle(np.asarray(z, np.float64), p, 0.1 ** (1 + 0 / n))
      head = {**head, "kernel": p @ np.asarray(head["kernel"])}
    moved = {f"encoders_{m}", "fusion"}
    grads = {**grads, "fusion": {"head": head}}
    params = {
      k: jax.tree.map(lambda w, g: w - 0.1 * g, v, grads[k])
      if k in moved
      else v
      for k, v in params.items()
    }
  toys.assert_close(state.params, params, rtol=1e-4, atol=1e-6)
  np.testing.assert_allclose(state.method.projection, p, rtol=1e-4, atol=1e-6)


def test_projection_shrinks_the_seen_direction():
  """Against any direction at right angles, by λ / (λ + r·r)."""
  run = toys.Run(mla.make(), 1, "shared_head")
  batch = toys.batch(1)
  start, _ = run.step(run.fresh(), batch)  # The first turn projects nothing.
  forward = jax.jit(run.problem.forward, static_argnums=4)
  outputs, _ = forward(start.params, {}, batch.inputs, None, True)
  r = np.asarray(outputs.features["image"], np.float64).mean(axis=0)
  state, _ = run.step(start, batch)
  p = np.asarray(state.method.projection, np.float64)
  u = np.random.default_rng(0).normal(size=r.size)
  u -= r * (u @ r) / (r @ r)
  seen, unseen = (np.linalg.norm(p @ x) / np.linalg.norm(x) for x in (r, u))
  np.testing.assert_allclose(seen / unseen, 0.1 / (0.1 + r @ r), rtol=1e-4)


def test_weights_by_confidence_per_sample():
  rng = np.random.default_rng(4)
  o = 2 * rng.normal(size=(2, 6, 3))
  log_p = log_softmax(o, axis=-1)
  entropy = -(np.exp(log_p) * log_p).sum(axis=-1)
  w = softmax(-entropy, axis=0)[..., None]
  got = mla.fuse({"a": jnp.array(o[0]), "b": jnp.array(o[1])})
  np.testing.assert_allclose(got, (w * o).sum(axis=0), rtol=1e-10)


def test_freezes_the_encoder_whose_turn_it_is_not():
  run = toys.Run(mla.make(), 2, "shared_head", optimiser="adam")
  state, _ = run.step(run.fresh(), toys.batch(2))
  counts = {
    o: int(jax.tree.leaves(s)[0])
    for o, s in state.opt_state.inner_states.items()
  }
  assert counts == {"image": 1, "text": 1, "shared": 2}


def test_refuses_other_fusions():
  with pytest.raises(ValueError, match="shared_head"):
    toys.Run(mla.make(), 2, "concat").fresh()
