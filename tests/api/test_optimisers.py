"""Optimisers of optax, a copy of their state for each owner."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toys
from bound_models import two
from dmg_jax.model import registry
from dmg_jax.training import optim, steps

OPTIMISERS = {
  "adam": optax.adam(1e-2),
  "chain": optax.chain(
    optax.clip(0.1),
    optax.add_decayed_weights(1e-2),
    optax.trace(0.9),
    optax.scale_by_schedule(optax.linear_schedule(-1e-2, -1e-3, 5)),
  ),
  "lion": optax.lion(1e-3),
  "adafactor": optax.adafactor(1e-2),
}


def functions(name="adam"):
  problem = two()
  init_opt, apply = optim.from_optax(problem.owner, OPTIMISERS[name])
  params = problem.start[0]
  state = steps.init_state(
    problem,
    registry.make_method("joint"),
    params,
    {},
    init_opt,
    0,  # type: ignore
  )
  rng = np.random.default_rng(1)
  grads = jax.tree.map(
    lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params
  )
  return state, grads, apply


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_of_optax_moves_as_optax_does(name):
  state, grads, apply = functions(name)
  tx = OPTIMISERS[name]
  params, memory = state.params, tx.init(state.params)
  for _ in range(3):
    state = apply(state, grads)
    updates, memory = tx.update(grads, memory, params)
    params = optax.apply_updates(params, updates)
  toys.assert_close(state.params, params)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("traced", [False, True])
def test_scale_is_a_learning_rate_and_zero_freezes(name, traced):
  state, grads, apply = functions(name)
  value = (lambda x: jnp.float32(x)) if traced else float
  whole = apply(state, grads)
  half = apply(state, grads, {"image": value(0.5), "text": value(0.0)})
  moved = jax.tree.map(
    lambda a, b: np.asarray(b - a), state.params, whole.params
  )
  scaled = jax.tree.map(
    lambda a, b: np.asarray(b - a), state.params, half.params
  )
  toys.assert_close(
    scaled["image"], jax.tree.map(lambda x: x / 2, moved["image"])
  )
  toys.assert_close(scaled["head"], moved["head"])
  assert toys.same(half.params["text"], state.params["text"])
  inner = [s.opt_state.inner_states for s in (state, whole, half)]
  assert toys.same(inner[0]["text"], inner[2]["text"])
  assert toys.same(inner[1]["image"], inner[2]["image"])
