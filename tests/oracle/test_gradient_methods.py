"""AGM, MMPareto and unimodal training against NumPy float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpy_toy as toy
import toys
from dmg_jax.methods import agm, mmpareto, unimodal


def marginals(names):
  """{m: {S: weight of f(S)}}: mean over orders of f(before + m) - f(before)."""
  found = {m: {} for m in names}
  orders = list(itertools.permutations(names))
  for order in orders:
    for i, m in enumerate(order):
      for chosen, sign in ((order[: i + 1], 1), (order[:i], -1)):
        key = frozenset(chosen)
        found[m][key] = found[m].get(key, 0) + sign / len(orders)
  return {m: {s: w for s, w in f.items() if s} for m, f in found.items()}


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_agm_shapley_values_sum_to_the_fused_logits(count):
  rng = np.random.default_rng(count)
  names = "dbca"[:count]
  sets = [
    frozenset(s)
    for size in range(1, count + 1)
    for s in itertools.combinations(names, size)
  ]
  f = {s: rng.normal(size=(5, 3)) for s in sets}
  mu = agm.shapley(f)
  np.testing.assert_allclose(sum(mu.values()), f[frozenset(names)], rtol=1e-12)
  for m, weights in marginals(names).items():
    expected = sum(w * f[s] for s, w in weights.items())
    np.testing.assert_allclose(mu[m], expected, rtol=1e-10, atol=1e-12)


def agm_kappa(scores, mean, alpha):
  """κ from the losses s and their running means τ."""
  count = len(scores)

  def ratio(s):
    average = np.mean(list(s.values()))
    return {m: np.exp(count / (count - 1) * (average - s[m])) for m in s}

  now, before = ratio(scores), ratio(mean)
  return {m: np.exp(alpha * min(before[m] - now[m], 10)) for m in scores}


def agm_oracle(params, batch, tau, alpha):
  """(gradient, κ, s, loss) of one step with concat."""
  names, inputs = list(batch.inputs), toy.double(batch.inputs)
  shares = marginals(names)
  seen = {s: {m: inputs[m] * (m in s) for m in names} for s in shares[names[0]]}
  z = {
    s: {m: toy.encode(params, m, x[m]) for m in names} for s, x in seen.items()
  }
  head = {m: params["fusion"][f"head_{m}"] for m in names}
  f = {
    s: sum(z[s][m] @ head[m] for m in names) + params["fusion"]["bias"]
    for s in seen
  }
  mu = {m: sum(w * f[s] for s, w in shares[m].items()) for m in names}
  s = {m: toy.ce(mu[m], batch) for m in names}
  kappa = agm_kappa(s, tau, alpha)
  everything = f[frozenset(names)]
  do = toy.ce_back(everything, batch)
  grads = []
  for chosen in seen:
    part = do * sum(kappa[m] * shares[m].get(chosen, 0) for m in names)
    grads.append(
      {
        **{
          f"encoders_{m}": toy.encode_back(
            params, m, seen[chosen][m], part @ head[m].T
          )
          for m in names
        },
        "fusion": {
          "bias": part.sum(axis=0),
          **{f"head_{m}": z[chosen][m].T @ part for m in names},
        },
      }
    )
  return toy.add(*grads), kappa, s, toy.ce(everything, batch)


def test_agm_step():
  run = toys.Run(agm.make(alpha=1.5), 3, "concat", **toy.SGD)
  batch, state = toy.padded(3), run.fresh()
  tau = dict(zip(run.problem.modalities, (0.9, 1.3, 0.4), strict=False))
  memory = state.method.replace(
    mean={m: jnp.float32(t) for m, t in tau.items()}, count=jnp.float32(3)
  )
  params = toy.double(state.params)
  got, (state, metrics) = toy.gradient(run, state.replace(method=memory), batch)
  expected, kappa, s, loss = agm_oracle(params, batch, tau, 1.5)
  toy.close(got, expected)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  for m in tau:
    np.testing.assert_allclose(metrics[f"kappa_{m}"], kappa[m], rtol=1e-4)
    mean = tau[m] * 3 / 4 + s[m] / 4
    np.testing.assert_allclose(state.method.mean[m], mean, rtol=1e-5)
  # Unequal κ change the encoders' gradients by unequal factors.
  plain = agm_oracle(params, batch, tau, 0.0)[0]
  factor = [
    np.linalg.norm(expected[e]["Dense_0"]["kernel"])
    / np.linalg.norm(plain[e]["Dense_0"]["kernel"])
    for e in ("encoders_image", "encoders_text")
  ]
  assert abs(factor[0] - factor[1]) > 0.05


def test_agm_coefficients_of_equal_losses_and_floor():
  memory = agm.State(
    {m: jnp.float32(0) for m in "ab"}, jnp.float32(0), jnp.float32(1)
  )
  equal = {m: jnp.float32(0.7) for m in "ab"}
  assert all(k == 1 for k in agm.coefficients(equal, memory, 2.0).values())
  far = {"a": jnp.float32(0.0), "b": jnp.float32(18.0)}
  got = agm.coefficients(far, memory.replace(mean=far), 0.5)
  assert all(k == 1 for k in got.values())
  swapped = {"a": far["b"], "b": far["a"]}
  got = agm.coefficients(far, memory.replace(mean=swapped), 0.5)
  np.testing.assert_allclose(got["b"], np.exp(5.0), rtol=1e-6)  # Capped.
  off = memory.replace(mean=swapped, active=jnp.float32(0))
  assert all(k == 1 for k in agm.coefficients(far, off, 0.5).values())
  batch = toy.padded(2)
  sure = -1e3 * jax.nn.one_hot(batch.labels, 3)
  np.testing.assert_allclose(agm.floored(sure, batch), -np.log(1e-8))


def test_agm_clip_and_epochs():
  problem, params, _ = toys.problem(2, "concat")
  rng = np.random.default_rng(0)
  grads = jax.tree.map(
    lambda p: jnp.array(rng.uniform(-0.9, 0.9, p.shape)), params
  )
  toys.assert_close(agm.clipped(problem, grads), grads)
  head = grads["fusion"]["head_text"].at[0, 0].set(-1.5)
  grads = {**grads, "fusion": {**grads["fusion"], "head_text": head}}
  norm = np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(grads)))
  expected = jax.tree.map(lambda g: g / norm, grads)
  toys.assert_close(agm.clipped(problem, grads), expected)
  run = toys.Run(agm.make(start=1, end=2))
  active = [
    float(run.between(run.fresh(), toys.ToyData(2), e).method.active)
    for e in range(4)
  ]
  assert active == [0, 1, 1, 0] and float(run.fresh().method.active) == 0


def flat(tree):
  return np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])


def shortest(a, b):
  """c in [0, 1] where c a + (1 - c) b is shortest, by search on finer grids."""
  low, high = 0.0, 1.0
  for _ in range(6):
    grid = np.linspace(low, high, 101)
    norms = [np.linalg.norm(c * a + (1 - c) * b) for c in grid]
    best, width = grid[np.argmin(norms)], (high - low) / 100
    low, high = max(best - width, 0), min(best + width, 1)
  return best


def mmpareto_oracle(params, batch, gamma):
  """(gradient, {modality: k_0}) with own heads; k_0 by search."""
  names, z = list(batch.inputs), toy.features(params, batch)
  x, head = toy.double(batch.inputs), params["fusion"]
  joined = np.concatenate([z[m] for m in names], axis=1)
  do = toy.ce_back(toy.dense(head["fused"], joined), batch)
  blocks = np.split(head["fused"]["kernel"], len(names))
  out, weight = {"fusion": {"fused": toy.dense_back(joined, do)}}, {}
  for m, block in zip(names, blocks, strict=True):
    own = toy.ce_back(toy.dense(head[f"head_{m}"], z[m]), batch)
    out["fusion"][f"head_{m}"] = toy.dense_back(z[m], own)
    one = toy.encode_back(params, m, x[m], do @ block.T)
    two = toy.encode_back(params, m, x[m], own @ head[f"head_{m}"]["kernel"].T)
    a, b = flat(one), flat(two)
    k = 0.5 if a @ b > 0 else shortest(a, b)

    def tensor(g, h, k=k):
      mixed = 2 * k * g + 2 * (1 - k) * h
      ratio = np.linalg.norm(g + h) / np.linalg.norm(mixed)
      return gamma * max(ratio, 1) * mixed

    out[f"encoders_{m}"] = jax.tree.map(tensor, one, two)
    weight[m] = k
  return out, weight


def test_mmpareto_step():
  """Three modalities: one whose two heads disagree, two where they agree."""
  run = toys.Run(mmpareto.make(gamma=1.3), 3, "own_heads", **toy.SGD)
  state, batch = run.fresh(), toy.padded(3)
  fusion = dict(state.params["fusion"])
  kernel = fusion["fused"]["kernel"]
  kernel = kernel.at[:6].set(-fusion["head_image"]["kernel"] / 3)
  kernel = kernel.at[6:12].set(fusion["head_text"]["kernel"])
  fusion["fused"] = {**fusion["fused"], "kernel": kernel}
  state = state.replace(params={**state.params, "fusion": fusion})
  expected, weight = mmpareto_oracle(toy.double(state.params), batch, 1.3)
  got, (_, metrics) = toy.gradient(run, state, batch)
  toy.close(got, expected, rtol=2e-3, atol=1e-5)
  assert 0.5 < weight["image"] < 1 and weight["text"] == 0.5
  for m, k in weight.items():
    np.testing.assert_allclose(metrics[f"weight_{m}"], k, atol=1e-4)


def test_mmpareto_is_safe_where_a_gradient_vanishes():
  g, zero = [jnp.array([3.0, 4.0])], [jnp.zeros(2)]
  np.testing.assert_allclose(mmpareto.min_norm(g, zero), 0.001)
  np.testing.assert_allclose(mmpareto.min_norm(zero, g), 0.999)
  k = mmpareto.min_norm(zero, zero)
  assert (mmpareto.combine(zero[0], zero[0], k, 1.5) == 0).all()
  # What is left is as long as the sum of both, times γ.
  got = mmpareto.combine(g[0], zero[0], jnp.float64(0.001), 1.5)
  np.testing.assert_allclose(got, 1.5 * g[0])


def test_unimodal_trains_side_by_side():
  run = toys.Run(unimodal.make(), 3, "sum", **toy.SGD)
  batch, state = toy.padded(3), run.fresh()
  params = toy.double(state.params)
  got, (_, metrics) = toy.gradient(run, state, batch)
  z, x = toy.features(params, batch), toy.double(batch.inputs)
  expected, loss = {"fusion": {}}, 0.0
  for m in z:
    p = params["fusion"][f"head_{m}"]
    do = toy.ce_back(toy.dense(p, z[m]), batch)
    loss += toy.ce(toy.dense(p, z[m]), batch)
    expected["fusion"][f"head_{m}"] = toy.dense_back(z[m], do)
    dz = do @ p["kernel"].T
    expected[f"encoders_{m}"] = toy.encode_back(params, m, x[m], dz)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  toy.close(got, expected)
  outputs = run.problem.outputs.replace(
    unimodal={m: jnp.full((2, 3), i) for i, m in enumerate(z)}
  )
  assert (run.method.predict(outputs, ()) == 1).all()


@pytest.mark.parametrize(
  ("name", "bad", "words"),
  [
    ("agm", {"alpha": -1.0}, "alpha must lie"),
    ("mmpareto", {"gamma": 0.0}, "gamma must lie"),
  ],
)
def test_bad_options_are_refused(name, bad, words):
  with pytest.raises(ValueError, match=words):
    toys.make_method(name, **bad)


def test_mmpareto_refuses_encoders_that_exchange():
  with pytest.raises(ValueError, match="own_heads"):
    toys.Run(mmpareto.make(), 2, "channel").fresh()
