"""The newest rules that change the gradient, against their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import golden
import toys
from dmg_jax.methods import arl, cggm, dgl, inforeg, multitask
from dmg_jax.types import Outputs


def slow(value):
  return pytest.param(value, marks=pytest.mark.slow)


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


@pytest.mark.parametrize("modalities", [slow(1), 3])
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
    m: jnp.asarray(s * rng.normal(size=(8, toys.CLASSES)))
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


# CGGM


def gains(*values):
  return {m: jnp.float64(v) for m, v in zip(toys.NAMES, values, strict=False)}


@pytest.mark.parametrize(
  ("gain", "expected"),
  [
    ((0.3, 0.1), (0.25, 0.75)),
    ((0.2, 0.1, 0.1), (0.5, 0.75, 0.75)),
    ((-0.1, 0.2), (1.0, 0.0)),  # The one that became worse keeps all.
    ((-0.1, -0.3), (0.5, 0.5)),
    ((0.0, 0.0, 0.0), (2 / 3, 2 / 3, 2 / 3)),
    ((0.4,), (1.0,)),
  ],
)
def test_cggm_coefficients(gain, expected):
  got = cggm.coefficients(gains(*gain))
  np.testing.assert_allclose(list(got.values()), expected, rtol=1e-6)


def test_cggm_coefficients_as_released_may_be_of_any_size():
  got = cggm.coefficients(gains(-0.1, 0.2), faithful=True)
  np.testing.assert_allclose(list(got.values()), [2, -1], rtol=1e-6)
  got = cggm.coefficients(gains(-0.2, 0.2), faithful=True)
  assert max(abs(v) for v in got.values()) > 1e6


def test_cggm_slopes_are_gradients_of_the_heads():
  """G_m is the gradient of a block of the fused head, C_m of its own head."""
  labels = toys.batch(2).labels

  def loss(out: Outputs):
    each = [out.logits, *out.unimodal.values()]
    log_p = [jax.nn.log_softmax(o)[jnp.arange(8), labels] for o in each]
    return -sum(x.sum() for x in log_p)

  problem, grads = gradient(loss, 2, "own_heads")
  _, params, stats = toys.problem(2, "own_heads")
  out, _ = problem.run(params, stats, toys.batch(2))
  fused, own = cggm.both_slopes(out.unimodal, out, toys.batch(2))
  blocks, heads = cggm.last_layers(problem, grads)
  for m in problem.modalities:
    np.testing.assert_allclose(fused[m].T, blocks[m], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(own[m].T, heads[m], rtol=1e-4, atol=1e-5)


def test_cggm_direction_by_hand():
  """Its value and slope; none of the classifier, finite where G is zero."""
  rng = np.random.default_rng(0)
  one = {m: rng.normal(size=(3, 4)) for m in ("a", "b")}
  two = {m: rng.normal(size=(3, 4)) for m in ("a", "b")}
  b = {"a": 0.3, "b": 0.7}
  cos = {
    m: (one[m] * two[m]).sum() / np.linalg.norm(one[m]) / np.linalg.norm(two[m])
    for m in b
  }
  expected = sum(b[m] * (1 - cos[m]) for m in b) / 2
  np.testing.assert_allclose(cggm.direction(b, one, two), expected, rtol=1e-6)
  np.testing.assert_allclose(cggm.direction(b, one, one), 0, atol=1e-7)
  down, still = jax.grad(cggm.direction, argnums=(1, 2))(b, one, two)
  away = one["a"] / np.linalg.norm(one["a"])
  slope = two["a"] / np.linalg.norm(two["a"]) - cos["a"] * away
  slope = -b["a"] / 2 * slope / np.linalg.norm(one["a"])
  np.testing.assert_allclose(down["a"], slope, rtol=1e-5, atol=1e-8)
  assert not any(x.any() for x in still.values())
  zero = {m: 0 * x for m, x in one.items()}
  assert toys.finite(jax.grad(cggm.direction, argnums=1)(b, zero, two))


@pytest.mark.parametrize("modalities", [slow(1), 3])
def test_cggm_scales_the_encoders_and_trains_classifiers_on_still_features(
  modalities,
):
  """λ = 0: encoders have ρ B times the gradient of CE(o), heads their own."""
  labels = toys.batch(modalities).labels

  def loss(out: Outputs):
    return -jax.nn.log_softmax(out.logits)[jnp.arange(8), labels].mean()

  def own_loss(out: Outputs):
    log_p = [jax.nn.log_softmax(o) for o in out.unimodal.values()]
    return -sum(x[jnp.arange(8), labels].mean() for x in log_p)

  problem, plain = gradient(loss, modalities, "own_heads")
  _, heads = gradient(own_loss, modalities, "own_heads")
  method = cggm.make(rho=1.5, weight=0.0)
  grads, metrics, after = one_step(method, modalities, fusion="own_heads")
  acc = np.array([metrics[f"accuracy_{m}"] for m in problem.modalities])
  b = 1 - acc / acc.sum() if modalities > 1 else [1.0]
  for m, factor in zip(problem.modalities, b, strict=True):
    scaled = jax.tree.map(lambda g, f=factor: 1.5 * f * g, plain)
    np.testing.assert_allclose(after.method[m], metrics[f"accuracy_{m}"])
    for owner, expected in ((m, scaled), (f"{m}/head", heads)):
      pairs = zip(
        owned(problem, grads, owner), owned(problem, expected, owner),
        strict=True,
      )  # fmt: skip
      for x, y in pairs:
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-7)


def test_cggm_the_direction_reaches_encoders_unless_as_released():
  """What λ adds: officially only to the fused head."""
  for faithful in (False, True):
    problem, *_ = toys.problem(2, "own_heads")
    with_it, without = (
      one_step(cggm.make(weight=w, faithful=faithful), fusion="own_heads")[0]
      for w in (1.0, 0.0)
    )
    moved = {
      o: any(
        not np.allclose(a, b, rtol=1e-4, atol=1e-8)
        for a, b in zip(
          owned(problem, with_it, o), owned(problem, without, o), strict=True
        )
      )
      for o in ("image", "image/head", "shared")
    }
    expected = {"image": not faithful, "image/head": False, "shared": True}
    assert moved == expected


def test_cggm_remembers_the_accuracy_of_what_nobody_has():
  last = {"a": jnp.float32(0.25), "b": jnp.float32(0.5)}
  batch = toys.batch(2)
  right = 10 * jax.nn.one_hot(batch.labels, 3)
  there = {"a": jnp.zeros(8), "b": jnp.array([1.0, 1, 0, 0, 0, 0, 0, 0])}
  got = cggm.accuracies(
    {"a": right, "b": right}, batch.replace(present=there), last
  )
  assert (float(got["a"]), float(got["b"])) == (0.25, 1.0)


def test_cggm_refuses():
  with pytest.raises(ValueError, match="fusion=own_heads"):
    toys.Run(cggm.make(faithful=True), 2, "concat").fresh()
  for option in ("rho", "weight"):
    with pytest.raises(ValueError, match=f"{option} must lie in"):
      cggm.make(**{option: -1.0})


# InfoReg


def traces_of(growth, window=10):
  """The memory at the end of epochs whose traces were these."""
  past = np.concatenate([np.zeros(window + 1), growth])
  zero = {"image": jnp.float32(0)}
  traces = {"image": jnp.asarray(past[-window - 2 : -1], jnp.float32)}
  current = {"image": jnp.float32(past[-1])}
  return inforeg.State((), traces, current, zero)


@pytest.mark.parametrize(
  ("growth", "window", "active"),
  [
    ([0.2], 10, 1),  # (.02 - 0) / .02
    ([0.5] * 9, 10, 1),  # 1 / 9: the zeros before still leave the window.
    ([0.5] * 11, 10, 0),
    ([0.1, 0.2, 0.4, 0.8], 2, 1),
    ([0.8, 0.4, 0.2], 2, 0),
    ([0.0], 10, 0),  # Nothing was learnt.
  ],
)
def test_inforeg_acts_while_the_mean_trace_grows(growth, window, active):
  memory = traces_of(growth, window)
  after = inforeg.next_epoch(memory, {"w": jnp.ones(2)}, 0.05)
  past = np.concatenate([np.zeros(window), growth])
  now, before = past[-window:].mean(), past[-window - 1 : -1].mean()
  assert ((now - before) > 0.05 * now) == active
  assert float(after.active["image"]) == active
  np.testing.assert_allclose(after.traces["image"][-1], growth[-1], rtol=1e-6)
  assert float(after.current["image"]) == 0
  assert after.start["w"].sum() == 2


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_inforeg_holds_the_modalities_above_the_others(modalities):
  """β e^{tanh Δ}, where Δ > 0 and the window is open."""
  logits = random_logits(modalities)
  labels = np.asarray(toys.batch(modalities).labels)
  beta = dict(zip(logits, (0.95, 0.1, 0.3), strict=False))
  active = dict.fromkeys(logits, jnp.float32(1))
  got = inforeg.pulls(logits, toys.batch(modalities), active, beta)
  p = [softmax(o, axis=-1)[np.arange(8), labels].sum() for o in logits.values()]
  for i, m in enumerate(logits):
    rest = [v for j, v in enumerate(p) if j != i]
    gap = p[i] - np.mean(rest) if rest else 0.0
    expected = beta[m] * np.exp(np.tanh(gap)) if gap > 0 else 0.0
    np.testing.assert_allclose(got[m], expected, rtol=1e-6)
    assert float(inforeg.pulls(
      logits, toys.batch(modalities), {**active, m: 0 * active[m]}, beta
    )[m]) == 0  # fmt: skip
  above = sum(float(v) > 0 for v in got.values())
  assert above == 0 if modalities == 1 else 0 < above < modalities


def test_inforeg_pulls_to_the_weights_of_the_epoch():
  """Of the leading encoder alone; the trace is the mean square of matrices."""
  run = toys.Run(inforeg.make(strength=2.0), 3)
  state = run.fresh()
  start = jax.tree.map(lambda p: p + 0.1, state.params)
  memory = state.method.replace(start=start)
  state = state.replace(method=memory, opt_state=())
  batch = toys.batch(3)
  step = jax.jit(run.method.step, static_argnums=(0, 4))
  after, metrics = step(
    run.problem, state, batch, jax.random.key(0), golden.capture
  )
  grads = after.opt_state[-1][0]
  plain, *_ = one_step(multitask.make(weight=1.0), 3)
  pulls = {m: float(metrics[f"pull_{m}"]) for m in run.problem.modalities}
  assert 0 < sum(v > 0 for v in pulls.values()) < 3
  for m, pull in pulls.items():
    found = owned(run.problem, grads, m)
    for a, b in zip(found, owned(run.problem, plain, m), strict=True):
      np.testing.assert_allclose(a, b - 0.1 * pull, rtol=1e-4, atol=1e-6)
    trace = sum((np.float64(g) ** 2).mean() for g in found if g.ndim > 1)
    np.testing.assert_allclose(after.method.current[m], trace, rtol=1e-5)
  toys.assert_close(grads["fusion"], plain["fusion"], rtol=1e-4)


def test_inforeg_without_strength_is_multitask():
  """Over whole epochs."""
  states = []
  for method in (inforeg.make(strength=0.0), multitask.make()):
    run = toys.Run(method, 2)
    state = run.fresh()
    for epoch in range(2):
      state = run.between(state, toys.ToyData(2), epoch)
      for seed in range(2):
        state, _ = run.step(state, toys.batch(2, seed=seed))
    states.append(state.params)
  toys.assert_close(*states, rtol=1e-6)


def test_inforeg_epochs():
  """Weights and traces are taken anew, but before the first epoch."""
  run, data = toys.Run(inforeg.make(), 2), toys.ToyData(2)
  state = run.between(run.fresh(), data, 0)
  assert not any(t.any() for t in state.method.traces.values())
  state, _ = run.step(state, toys.batch(2))
  first = {m: float(t) for m, t in state.method.current.items()}
  assert not toys.same(state.method.start, state.params)
  state = run.between(state, data, 1)
  assert toys.same(state.method.start, state.params)
  for m, t in state.method.traces.items():
    np.testing.assert_array_equal(t, [0] * 10 + [np.float32(first[m])])


def test_inforeg_as_released_asks_the_first_modality():
  """Its trace decides for all."""
  rule = inforeg.make(faithful=True)
  run = toys.Run(rule, 2)
  state = run.fresh()
  flat = {m: jnp.full(11, 0.5, jnp.float32) for m in state.method.traces}
  now = {"image": jnp.float32(0.5), "text": jnp.float32(50)}
  memory = state.method.replace(traces=flat, current=now)
  after = run.between(state.replace(method=memory), toys.ToyData(2), 12)
  assert [float(v) for v in after.method.active.values()] == [0, 0]
  with pytest.raises(ValueError, match=r"inforeg measures .*'image'.*frozen"):
    toys.Run(rule, 2, frozen=("image",)).fresh()


@pytest.mark.parametrize(
  ("option", "value"),
  [("strength", -1), ("others", -0.1), ("window", 0), ("threshold", 2)],
)
def test_inforeg_refuses(option, value):
  with pytest.raises(ValueError, match=f"{option} must lie in"):
    inforeg.make(**{option: value})
