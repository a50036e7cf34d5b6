"""The learned α: its gradient against dense algebra and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import toys
from dmg_jax.bilevel.alpha import AlphaOptimiser
from dmg_jax.methods import lb, lb_forward
from dmg_jax.methods._matching import Matching
from dmg_jax.methods.joint import classification
from dmg_jax.training import sharding, steps
from dmg_jax.types import Outputs, TrainState

RAW = {"normalise": "none", "rate": 1e-12}
ALPHA = 0.375  # The same in float32 and float64.


def wide(tree):
  """Every float leaf in float64."""

  def leaf(x):
    return x.astype(jnp.float64) if x.dtype == jnp.float32 else x

  return jax.tree.map(leaf, tree)


def total(run, batch, params, alpha, weight=0.0, kind="info_nce"):
  outputs, _ = run.problem.forward(params, {}, batch.inputs, None, True)
  cls, _ = classification(outputs, batch)
  for logits in outputs.unimodal.values():
    own = outputs.replace(logits=logits)
    cls = cls + weight * classification(own, batch)[0]
  matching = Matching(kind, scaled=True)(outputs, batch)
  return (1 - alpha) * cls + alpha * matching


def heldout(run, batch, params):
  outputs, _ = run.problem.forward(params, {}, batch.inputs, None, False)
  return classification(outputs, batch)[0]


def matrices(run, params, alpha, inner, outer, weight):
  """Equation 3's factors: Hessian, mixed derivative, outer gradient."""
  flat, back = ravel_pytree(params)

  def f(x, a):
    return total(run, inner, back(x), a, weight=weight)

  hessian = jax.hessian(f)(flat, alpha)
  mixed = jax.jacfwd(jax.grad(f), argnums=1)(flat, alpha)
  return hessian, mixed, jax.grad(lambda x: heldout(run, outer, back(x)))(flat)


def dense_hypergradient(run, params, alpha, inner, outer, damping, weight):
  """Equation 3 with every matrix written out."""
  factors = matrices(run, params, alpha, inner, outer, weight)
  hessian, mixed, slope = map(np.asarray, factors)
  hessian = hessian + damping * np.eye(len(slope))
  return -mixed @ np.linalg.solve(hessian, slope)


class Small:
  """Encoders of one layer, own heads, their sum: 30 weights in float64."""

  def __init__(self, **options):
    self.problem = toys.bare_problem(self.forward, toys.NAMES[:2])
    self.method = lb.make(**options, **RAW)
    self.outer = steps.make_outer_step(self.problem, self.method)
    rng = np.random.default_rng(0)
    self.params = {
      m: {
        "encoder": jnp.asarray(rng.normal(size=(d, 2))),
        "head": jnp.asarray(rng.normal(size=(2, toys.CLASSES))),
      }
      for m, d in zip(self.problem.modalities, toys.SIZES, strict=False)
    }

  @staticmethod
  def forward(params, stats, inputs, key, train, present=None, keep=None):
    del key, train, keep, present
    # Without the tanh, encoder and head could be rotated for nothing.
    features = {m: jnp.tanh(inputs[m] @ params[m]["encoder"]) for m in params}
    own = {m: features[m] @ params[m]["head"] for m in params}
    return Outputs(sum(own.values()), own, features), stats

  def hypergradient(self, params, inner, outer):
    """What ``lb`` itself computes, by the step that a run compiles."""
    state = TrainState(jnp.int32(0), params, {}, (), ())
    memory = self.method.init(self.problem, state, jax.random.key(0))
    state = wide(state.replace(method=memory))
    copy = jax.tree.map(jnp.copy, state)  # The step donates it.
    return float(self.outer(copy, inner, outer, 0)[1]["hypergradient"])


@pytest.mark.parametrize(
  ("solver", "weight"), [("dense", 0.0), ("cg", 0.7), ("gmres", 0.7)]
)
def test_outer_step_of_lb_is_equation_3(solver, weight):
  """Against every matrix of the equation written out, in float64."""
  damping = 100.0 if solver == "cg" else 0.5  # CG needs H + ρ I > 0.
  run = Small(
    start=ALPHA,
    solver=solver,
    iterations=100,
    damping=damping,
    unimodal_weight=weight,
  )
  inner, outer = wide(toys.batch(2)), wide(toys.batch(2, seed=1))
  equation_3 = jax.jit(
    lambda params: matrices(run, params, ALPHA, inner, outer, weight)
  )
  hessian, mixed, slope = map(np.asarray, equation_3(run.params))
  assert len(slope) == 30 and np.linalg.norm(mixed) > 0.1
  damped = hessian + damping * np.eye(len(slope))
  expected = -mixed @ np.linalg.solve(damped, slope)
  found = run.hypergradient(run.params, inner, outer)
  np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_outer_step_of_lb_is_the_slope_of_retraining():
  """dL_out/dα at an inner minimum, by training again at α ± ε.

  Weight decay ρ makes the minimum a strict one; its Hessian is that of the
  inner loss plus ρ I, which is what ``damping`` adds. The matching loss is the
  one of predictions: that of directions has no minimum under weight decay.
  """
  decay, eps, kind = 0.1, 1e-4, "divergence"
  run = Small(start=ALPHA, solver="dense", damping=decay, matching=kind)
  inner, outer = wide(toys.batch(2)), wide(toys.batch(2, seed=1))
  start, back = ravel_pytree(run.params)

  def objective(x, a):
    return total(run, inner, back(x), a, kind=kind) + decay / 2 * (x @ x)

  @jax.jit
  def descend(x, a):
    slope = jax.grad(objective)
    x = jax.lax.fori_loop(0, 2000, lambda i, x: x - 0.2 * slope(x, a), x)

    def newton(i, x):
      return x - jnp.linalg.solve(jax.hessian(objective)(x, a), slope(x, a))

    x = jax.lax.fori_loop(0, 4, newton, x)
    return x, jnp.linalg.norm(slope(x, a)), heldout(run, outer, back(x))

  minimum, norm, _ = descend(start, ALPHA)
  assert norm < 1e-12
  (_, _, high), (_, _, low) = (
    descend(minimum, ALPHA + step) for step in (eps, -eps)
  )
  found = run.hypergradient(back(minimum), inner, outer)
  np.testing.assert_allclose(found, (high - low) / (2 * eps), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("solver", "fusion", "weight"),
  [
    ("dense", "concat", 0.0),
    ("dense", "sum", 1.0),
    ("cg", "concat", 0.0),
    ("gmres", "sum", 0.7),
  ],
)
def test_implicit_gradient_is_equation_3(solver, fusion, weight):
  damping = 100.0 if solver == "cg" else 0.5
  method = lb.make(
    solver=solver,
    iterations=200,
    damping=damping,
    unimodal_weight=weight,
    **RAW,
  )
  run = toys.Run(method, 2, fusion)
  state = wide(run.fresh())
  inner, outer = wide(toys.batch(2)), wide(toys.batch(2, seed=1))
  params = state.params
  expected = dense_hypergradient(
    run, params, jnp.float64(0.5), inner, outer, damping, weight
  )
  _, metrics = run.outer(state, inner, outer)
  np.testing.assert_allclose(metrics["hypergradient"], expected, rtol=1e-5)


@pytest.mark.parametrize(
  "optimiser", ["sgd", pytest.param("adam", marks=pytest.mark.slow)]
)
def test_trajectory_gradient_is_the_finite_difference(optimiser):
  """dL/dα of a whole run, moments included: retrained at α ± ε."""
  outer = wide(toys.batch(2, seed=9))

  def trained(alpha):
    run = toys.Run(
      lb_forward.make(start=0.4, **RAW), 2, "concat", optimiser, rate=0.05
    )
    state = wide(run.fresh())
    value = state.method.alpha.replace(value=jnp.float64(alpha))
    state = state.replace(method=state.method.replace(alpha=value))
    for seed in range(4):
      state, _ = run.step(state, wide(toys.batch(2, seed=seed)))
    return run, state

  eps = 1e-5
  loss = [
    float(heldout(run, outer, state.params))
    for run, state in (trained(0.4 + eps), trained(0.4 - eps))
  ]
  run, state = trained(0.4)
  _, metrics = run.outer(state, outer, outer)
  expected = (loss[0] - loss[1]) / (2 * eps)
  np.testing.assert_allclose(metrics["hypergradient"], expected, rtol=1e-5)


def test_tangent_starts_again_after_each_outer_step():
  run = toys.run_of("lb_forward")
  state, _ = run.step(run.fresh(), toys.batch(2))
  assert any(jnp.any(t != 0) for t in jax.tree.leaves(state.method.tangent))
  state, _ = run.outer(state, toys.batch(2), toys.batch(2, seed=1))
  assert all(jnp.all(t == 0) for t in jax.tree.leaves(state.method.tangent))


@pytest.mark.parametrize("at_once", [4, 5])
def test_heldout_loss_in_parts_is_the_whole(at_once):
  """The same mean and gradient, with padding and a last part that is short."""
  run = toys.run_of("lb")
  whole = toys.batch(2, size=12)
  mask = jnp.ones(12).at[jnp.array([1, 9])].set(0.0)
  inputs = {m: x.at[1].set(1e6) for m, x in whole.inputs.items()}
  batch = wide(whole.replace(inputs=inputs, mask=mask))
  params = wide(run.params)

  def loss(params, at_once):
    return lb.heldout_loss(
      run.problem, params, {}, batch, at_once, separate=True
    )

  program = str(jax.make_jaxpr(loss, static_argnums=1)(params, at_once))
  found = jax.value_and_grad(loss)(params, at_once)
  assert f"length={-(-12 // at_once)}" in program
  toys.assert_close(found, jax.value_and_grad(loss)(params, 12), 1e-12, 1e-12)
  np.testing.assert_allclose(found[0], heldout(run, batch, params), rtol=1e-12)


def test_heldout_loss_in_parts_of_a_batch_on_several_devices():
  """Every device has a share of every part."""
  run, outer = toys.run_of("lb"), toys.batch(2, size=40, seed=1)
  placed = sharding.make_place(sharding.make_mesh(8))(
    jax.tree.map(np.asarray, outer)
  )

  def slope(params, batch, at_once):
    return jax.grad(
      lambda p: lb.heldout_loss(run.problem, p, {}, batch, at_once, True)
    )(params)

  found = jax.jit(slope, static_argnums=2)(run.params, placed, 16)
  toys.assert_close(found, slope(run.params, outer, 40))


def test_sign_moves_by_the_rate():
  chain = AlphaOptimiser(0.5, 0.1, "sign")
  alpha = chain.init()
  for gradient, expected in ((1e-9, 0.4), (1e6, 0.3), (-2.0, 0.4)):
    alpha = chain.update(alpha, jnp.float32(gradient))
    np.testing.assert_allclose(alpha.value, expected, rtol=1e-6)


def test_none_is_algorithm_1():
  chain = AlphaOptimiser(0.5, 0.1, "none")
  alpha = chain.update(chain.init(), jnp.float32(2.5))
  np.testing.assert_allclose(alpha.value, 0.25, rtol=1e-6)


@pytest.mark.parametrize("normalise", ["sign", "rms", "clip", "none"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_stays_in_its_bounds_and_ignores_nan(normalise, optimiser):
  chain = AlphaOptimiser(0.5, 0.3, normalise, optimiser, 0.5)
  alpha = chain.init()
  for gradient in (1.0, 5.0, 1.0, jnp.nan, jnp.inf, -9.0, -9.0, -9.0, -9.0):
    before = alpha
    alpha = chain.update(alpha, jnp.float32(gradient))
    assert 0 <= alpha.value <= 1
    if not np.isfinite(gradient):
      assert toys.same(before, alpha)
  assert alpha.value > 0


def test_rms_is_free_of_scale():
  values = []
  for scale in (1e-6, 1.0, 1e5):
    chain = AlphaOptimiser(0.5, 0.05, "rms")
    alpha = chain.init()
    for gradient in (1.0, -0.5, 2.0):
      alpha = chain.update(alpha, jnp.float32(scale * gradient))
    values.append(float(alpha.value))
  np.testing.assert_allclose(values, values[0], rtol=1e-2)


@pytest.mark.parametrize(
  ("epochs", "inner_iters", "rate", "expected"),
  [
    (200, None, None, 0.02),
    (30, None, None, 0.02),
    (8, None, None, 0.075),
    (2, None, None, 0.1),
    (8, 1, None, 0.025),  # 24 updates.
    (1, 100, None, 0.1),  # None at all.
    (2, None, 0.3, 0.3),
  ],
)
def test_rate_reaches_as_far_in_few_updates(
  epochs, inner_iters, rate, expected
):
  run = toys.Run(toys.make_method("lb", inner_iters=inner_iters, rate=rate))
  data = toys.ToyData(2, epochs, steps_per_epoch=3)
  state = run.between(run.fresh(), data, 0)
  np.testing.assert_allclose(state.method.rate, expected, rtol=1e-6)
  assert toys.same(run.between(state, data, 1), state)


def test_first_step_is_that_of_the_rate():
  run = toys.run_of("lb")
  state = run.between(run.fresh(), toys.ToyData(2, epochs=8), 0)
  batch = toys.batch(2)
  new, _ = run.outer(state, batch, batch)
  np.testing.assert_allclose(abs(new.method.value - 0.5), 0.075, rtol=1e-4)
  np.testing.assert_allclose(new.method.rate, 0.075, rtol=1e-6)
