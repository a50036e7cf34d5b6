"""An outer step that is compiled in parts is the one compiled as a whole."""

import jax
import pytest

import toys
from dmg_jax.model import registry
from dmg_jax.training import steps


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["neumann", "cg"])
def test_parts_are_the_whole(solver):
  method = registry.make_method(name="lb", solver=solver, iterations=2)
  fusion = toys.fusion_of("lb")
  run = toys.Run(method, 2, **fusion)
  # The outer batch goes in three parts of the inner one's size.
  outer = toys.batch(2, size=20, seed=9)
  state, batches = run.fresh(), (toys.batch(2), outer)
  parts = steps.make_outer_step(run.problem, run.method, parts=True)
  once, metrics = parts(state, *batches, 0)
  again, _ = parts(state, *batches, 0)
  assert toys.same(once, again)
  whole, expected = run.outer(run.fresh(), *batches)
  toys.assert_close(once, whole, rtol=1e-9)
  toys.assert_close(metrics, expected, rtol=1e-6)


def test_many_weights_on_a_cpu_are_in_parts(monkeypatch):
  assert steps.in_parts(11_000_000) and not steps.in_parts(1_000_000)
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert not steps.in_parts(11_000_000)
