"""An outer step that is compiled in parts is the one compiled as a whole."""

import jax
import jax.numpy as jnp
import pytest

import toys
from dmg_jax.bilevel import loops
from dmg_jax.model import registry
from dmg_jax.training import steps


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["neumann", "cg"])
def test_parts_are_the_whole(solver, monkeypatch):
  method = registry.make_method(name="lb", solver=solver, iterations=2)
  fusion = toys.fusion_of("lb")
  run = toys.Run(method, 2, **fusion)
  # The outer batch goes in three parts of the inner one's size.
  outer = toys.batch(2, size=20, seed=9)
  state, batches = run.fresh(), (toys.batch(2), outer)
  parts = steps.make_outer_step(run.problem, run.method, parts=True)
  with monkeypatch.context() as patch:
    patch.setattr(loops, "LARGE", 1)
    once, metrics = parts(state, *batches, 0)
    again, _ = parts(state, *batches, 0)
  assert toys.same(once, again)
  whole, expected = run.outer(run.fresh(), *batches)
  toys.assert_close(once, whole, rtol=1e-9)
  toys.assert_close(metrics, expected, rtol=1e-6)


def test_many_weights_on_a_cpu_are_in_parts(monkeypatch):
  assert loops.separate(11_000_000) and not loops.separate(1_000_000)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert not loops.separate(11_000_000)


def test_a_program_without_what_nobody_asks_for():
  @jax.jit
  def unused(x):
    return jnp.sin(x)

  def step(x):
    y = unused(x)
    z = jax.jit(jnp.cos)(x)
    return z + 1, y.shape[0]

  program = jax.make_jaxpr(step)(jnp.ones(3)).jaxpr
  kept = steps._needed(program)
  assert len(program.eqns) == 3 and len(kept) == 2
  found, size = steps._in_parts(step)(jnp.ones(3))
  assert float(found[0]) == float(jnp.cos(1.0) + 1) and int(size) == 3
