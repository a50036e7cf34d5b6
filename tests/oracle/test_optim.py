"""The optimiser: owners, factors, freezing, and derivatives through it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toys
from dmg_jax.training import optim
from dmg_jax.types import TrainState

OWNER = {"a": "image", "b": "text", "c": "shared"}
PARAMS = {k: jnp.arange(1.0, 4.0) for k in OWNER}
GRADS = {"a": jnp.ones(3), "b": -jnp.ones(3), "c": jnp.array([0.0, 1.0, 2.0])}


def made(**options):
  rate = optim.learning_rate("constant", 0.1, 10)
  init, apply = optim.make(OWNER, rate, **options)
  state = TrainState(jnp.int32(0), PARAMS, {}, init(PARAMS), ())
  return state, apply


@pytest.mark.parametrize(
  ("name", "reference"),
  [
    ("sgd", optax.sgd(0.1, momentum=0.9)),
    ("adam", optax.adam(0.1)),
    ("adamw", optax.adamw(0.1, weight_decay=0.0)),
  ],
)
def test_is_optax_when_nothing_is_scaled(name, reference):
  state, apply = made(name=name)
  params, opt_state = PARAMS, reference.init(PARAMS)
  for _ in range(3):
    state = apply(state, GRADS)
    updates, opt_state = reference.update(GRADS, opt_state, params)
    params = optax.apply_updates(params, updates)
  toys.assert_close(state.params, params, rtol=1e-6)


def test_weight_decay_is_coupled_but_for_adamw():
  zero = jax.tree.map(jnp.zeros_like, GRADS)
  for name, expected in (("sgd", 0.1 * 0.5), ("adamw", 0.1 * 0.5), ("adam", 0)):
    state, apply = made(name=name, weight_decay=0.5, momentum=0.0)
    state = apply(state, zero)
    moved = (PARAMS["a"] - state.params["a"]) / PARAMS["a"]
    if expected:
      np.testing.assert_allclose(moved, expected, rtol=1e-6)
    else:  # Adam normalises the decay: every weight moves by the rate.
      np.testing.assert_allclose(moved * PARAMS["a"], 0.1, rtol=1e-5)


@pytest.mark.parametrize("factor", [0.0, jnp.float32(0.0)])
def test_a_factor_of_zero_freezes_weights_and_moments(factor):
  state, apply = made(name="adam", weight_decay=0.1)
  new = jax.jit(lambda s: apply(s, GRADS, {"image": factor}))(state)
  assert toys.same(new.params["a"], PARAMS["a"])
  assert toys.same(
    new.opt_state.inner_states["image"], state.opt_state.inner_states["image"]
  )
  assert not toys.same(new.params["b"], PARAMS["b"])


def test_a_factor_multiplies_the_update_not_the_gradient():
  state, apply = made(name="adam")
  once = apply(state, GRADS)
  half = apply(state, GRADS, {"text": 0.5})
  np.testing.assert_allclose(
    half.params["b"] - PARAMS["b"],
    0.5 * (once.params["b"] - PARAMS["b"]),
    rtol=1e-5,
  )


def test_an_unknown_owner_is_refused():
  state, apply = made()
  with pytest.raises(ValueError, match=r"audio.*image, shared, text"):
    apply(state, GRADS, {"audio": 1.0})


def test_clipping_is_of_the_whole_gradient():
  state, apply = made(name="sgd", momentum=0.0, clip_norm=1.0)
  new = apply(state, GRADS)
  norm = float(optax.global_norm(GRADS))
  np.testing.assert_allclose(
    PARAMS["b"] - new.params["b"], 0.1 * GRADS["b"] / norm, rtol=1e-6
  )


def test_the_derivative_of_a_step_is_finite_without_gradients():
  """A word never seen has zero gradient and zero moments."""
  state, apply = made(name="adam")
  zero = jax.tree.map(jnp.zeros_like, GRADS)

  def step(alpha):
    grads = jax.tree.map(lambda g: alpha * g, zero)
    return apply(state, grads).params

  _, tangent = jax.jvp(step, (1.0,), (1.0,))
  assert toys.finite(tangent)


def test_schedules():
  rate = optim.learning_rate("cosine", 1.0, 100, warmup=10)
  np.testing.assert_allclose(rate(5), 0.5, rtol=1e-6)
  np.testing.assert_allclose(rate(10), 1.0, rtol=1e-6)
  np.testing.assert_allclose(rate(55), 0.5, rtol=1e-6)
  assert float(rate(100)) < 1e-6
  # Three steps an epoch, lower after the second and the fourth: StepLR(2).
  rate = optim.learning_rate("step", 1.0, 18, drops={6: 0.1, 12: 0.1})
  found = [float(rate(step)) for step in range(18)]
  np.testing.assert_allclose(found, np.repeat([1, 0.1, 0.01], 6), rtol=1e-6)
  rate = optim.learning_rate("step", 1.0, 18, warmup=4, drops={6: 0.5})
  found = [float(rate(step)) for step in range(8)]
  wanted = [0, 0.25, 0.5, 0.75, 1, 1, 0.5, 0.5]
  np.testing.assert_allclose(found, wanted, rtol=1e-6)


@pytest.mark.parametrize(
  ("epochs", "factor", "said"),
  [
    ((), 0.1, "needs optimiser.step.epochs"),
    ((0, 3), 0.1, "rising whole numbers"),
    ((4, 3), 0.1, "rising whole numbers"),
    ((3,), 1.0, "factor must lie"),
  ],
)
def test_drops_that_make_no_sense(epochs, factor, said):
  with pytest.raises(ValueError, match=said):
    optim.check_step(epochs, factor)
