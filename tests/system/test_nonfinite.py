"""A hypergradient that is not finite changes nothing; the run goes on."""

import io
import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

import toys
from dmg_jax.bilevel import curvature
from dmg_jax.methods import lb_forward
from dmg_jax.tracking.logging import Console, read_metrics
from dmg_jax.training import experiment, runner
from dmg_jax.training.checkpoint import Checkpoints


@pytest.fixture
def second_product_is_nan(monkeypatch):
  """One product with the Hessian in a run, the second, is NaN."""
  original, number = curvature.derivative, itertools.count(1)

  def factor():
    return np.float32(math.nan if next(number) == 2 else 1)

  def derivative(f, params, matvec):
    product = original(f, params, matvec)

    def broken(u):
      shape = jax.ShapeDtypeStruct((), jnp.float32)
      by = io_callback(factor, shape)
      return jax.tree.map(lambda x: x * by, product(u))

    return broken

  monkeypatch.setattr(curvature, "derivative", derivative)


@pytest.mark.parametrize(
  "optimiser", ["sgd", pytest.param("adam", marks=pytest.mark.slow)]
)
def test_one_nan_product(
  quick, second_product_is_nan, tiny, tmp_path, optimiser
):
  del quick, second_product_is_nan
  # Momentum: α would move on, were the gradient taken for zero.
  keys = f"inner_iters=7,iterations=1,optimiser={optimiser},momentum=0.5"
  config, said = tiny(f"lb,{keys},temperature=0.11"), io.StringIO()
  results = runner.run(config, tmp_path, Console(file=said))
  assert results is not None and np.isfinite(results["test"]["fused"]["map"])
  outer = {
    line["step"]: line
    for line in read_metrics(tmp_path / "metrics.jsonl")
    if line["split"] == "outer"
  }
  assert sorted(outer) == [7, 14, 21, 28]
  alpha = {step: line["alpha"] for step, line in outer.items()}
  assert alpha[14] == alpha[7] and len(set(alpha.values())) == 3
  assert [step for step, line in outer.items() if "skipped" in line] == [14]
  assert outer[14]["status"] == 4 and math.isnan(outer[14]["hypergradient"])
  warnings = [x for x in said.getvalue().splitlines() if "warning" in x]
  assert len(warnings) == 1 and "step 14" in warnings[0]
  assert f"α stays {alpha[14]:.3g}" in warnings[0]
  for row in (tmp_path / "metrics.jsonl").read_text().splitlines():
    json.loads(row, parse_constant=pytest.fail)
  checkpoints = Checkpoints(tmp_path)
  like = experiment.assemble(config).fresh()
  last = checkpoints.last()
  assert last == 30 and toys.finite(checkpoints.restore(last, like))
  checkpoints.close()


def test_tangent_that_is_nan():
  """The same for the trajectory's gradient: its tangent starts again."""
  run = toys.Run(toys.make_method("lb_forward"), 2, **toys.fusion_of("lb"))
  state = run.fresh()
  broken = jax.tree.map(lambda x: x * jnp.nan, state.method.tangent)
  before = jax.device_get(state.method.alpha)
  state = state.replace(method=lb_forward.State(state.method.alpha, broken))
  assert run.outer is not None
  state, metrics = run.outer(state, toys.batch(2), toys.batch(2, seed=9))
  assert math.isnan(metrics["hypergradient"])
  assert toys.same(before, state.method.alpha)
  assert toys.finite(state.method)
  assert run.method.is_diagnostic("hypergradient")
