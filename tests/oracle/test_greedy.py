"""Greedy and its gates against the equations, simulated in NumPy float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpy_toy as toy
import toys
from dmg_jax.errors import UnsuitableError
from dmg_jax.methods import greedy
from dmg_jax.model.fusion import channel


def flat(tree):
  return np.concatenate([x.ravel() for x in jax.tree.leaves(tree)])


def group_speed(grads, params, parts):
  """Σ g² / Σ w² of the subtrees that ``parts`` picks."""
  g, w = flat(parts(grads)), flat(parts(params))
  return (g @ g) / (w @ w)


def greedy_groups(m):
  """(bypass, main) of a modality as functions of the weights."""

  def bypass(p):
    gates = p["fusion"]["exchange"]["mmtm_0"]
    return [gates[f"gate_{m}"], gates["squeeze"]]

  def main(p):
    return [p[f"encoders_{m}"], p["fusion"]["heads"][f"head_{m}"]]

  return bypass, main


def test_greedy_accumulates_and_curates_as_simulated():
  problem, params, _ = toys.problem(2, "channel")
  rng = np.random.default_rng(5)
  zero = jnp.zeros(2, jnp.float32)
  memory = greedy.State(zero, zero, jnp.int32(-1), jnp.int32(0), jnp.float32(0))
  observe = jax.jit(
    functools.partial(greedy.observe, problem, epsilon=0.3, window=3)
  )
  names, epsilon, window = problem.modalities, 0.3, 3
  sums, care, left, seen = np.zeros((2, 2)), -1, 0, []
  for t in range(24):
    scale = {
      m: 10 ** (rng.normal() + 0.12 * t * i) for i, m in enumerate(names)
    }
    owned = jax.tree.map(
      lambda o, scale=scale: scale.get(o.split("/gate")[0], 1.0), problem.owner
    )
    grads = jax.tree.map(
      lambda p, s: s * rng.normal(size=p.shape), params, owned
    )
    memory = memory.replace(active=jnp.float32(t >= 4))
    memory, d = observe(memory, grads, params)
    if care < 0:
      mu = [
        [group_speed(grads, params, g) for g in greedy_groups(m)] for m in names
      ]
      sums += np.array(mu).T
    expected = np.diff(np.log10(sums[0] / sums[1])[::-1])[0]
    if care >= 0:
      left -= 1
      care = care if left else -1
    elif t >= 4 and abs(expected) > epsilon:
      care, left = (0 if expected > 0 else 1), window
    seen.append(care)
    np.testing.assert_allclose(d, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([memory.bypass, memory.main], sums, rtol=1e-5)
    assert (int(memory.care), int(memory.left)) == (care, left)
  assert {-1, 0, 1} >= set(seen) and len(set(seen)) > 1


def test_greedy_gates_are_replaced_by_their_running_mean():
  rng, shapes = np.random.default_rng(1), {"a": (8, 2, 3), "b": (8, 4)}
  maps = {m: jnp.array(rng.normal(size=s)) for m, s in shapes.items()}
  old = {m: rng.uniform(size=s[-1]) for m, s in shapes.items()}
  module = channel.MMTM(ratio=2.0, gate_scale=2.0)
  params = jax.jit(module.init, static_argnums=2)(
    jax.random.key(0), maps, False
  )["params"]

  @jax.jit
  def run(care):
    """Outputs, variables, and how the sum of each depends on the maps."""
    gates = {"care": care, "seen": jnp.float32(3), "mask": toy.MASK}
    gates |= {f"mean_{m}": jnp.array(v) for m, v in old.items()}
    variables = {"params": params, "gates": gates}

    def total(maps):
      out, new = module.apply(variables, maps, True, mutable=["gates"])
      return {m: x.sum() for m, x in out.items()}, (out, new["gates"])

    slopes, (out, new) = jax.jacrev(total, has_aux=True)(maps)
    return out, new, slopes

  squeezed = np.concatenate([maps["a"].mean(axis=1), maps["b"]], axis=1)
  p = toy.double(params)
  h = np.maximum(toy.dense(p["squeeze"], squeezed), 0)
  for care, (i, m) in itertools.product((-1, 0, 1), enumerate("ab")):
    out, new, slopes = run(jnp.int32(care))
    gate = 2 / (1 + np.exp(-toy.dense(p[f"gate_{m}"], h)))
    mean = (3 * old[m] + gate[toy.MASK > 0].mean(axis=0)) / 4
    np.testing.assert_allclose(new[f"mean_{m}"], mean, rtol=1e-6)
    used = np.broadcast_to(mean, gate.shape) if care == i else gate
    used = used.reshape(8, *(1,) * (maps[m].ndim - 2), -1)
    np.testing.assert_allclose(out[m], maps[m] * used, rtol=1e-6)
    assert new["seen"] == 4
    # Whoever is cared for gets no signal of the other.
    other = slopes[m]["ba"[i]]
    assert (np.abs(other).max() == 0) == (care == i)


def test_greedy_step_in_curation():
  run = toys.run_of("greedy", **toy.SGD)
  state, batch = run.fresh(), toy.padded(2)
  memory = state.method.replace(care=jnp.int32(0), left=jnp.int32(2))
  got, (state, metrics) = toy.gradient(run, state.replace(method=memory), batch)
  for g, o in zip(
    jax.tree.leaves(got), jax.tree.leaves(run.problem.owner), strict=True
  ):
    assert (np.abs(g).max() == 0) == (o == "image/gate")
  own = float(metrics["cls_image"] + metrics["cls_text"])
  np.testing.assert_allclose(metrics["loss"], own, rtol=1e-6)
  assert int(state.method.left) == 1 and (state.method.bypass == 0).all()
  gates = state.stats["gates"]["fusion"]["exchange"]["mmtm_0"]
  assert int(gates["care"]) == -1 and float(gates["seen"]) == 1


def test_greedy_waits_for_its_epoch_and_refuses():
  run = toys.run_of("greedy", **toy.SGD)
  active = [
    float(run.between(run.fresh(), toys.ToyData(2), e).method.active)
    for e in range(3)
  ]
  assert active == [0, 1, 1]
  with pytest.raises(UnsuitableError, match="image, text, audio"):
    toys.Run(greedy.make(), 3, "channel").fresh()
  with pytest.raises(ValueError, match="fusion=channel"):
    toys.Run(greedy.make(), 2, "concat").fresh()
  with pytest.raises(ValueError, match="window must lie"):
    greedy.make(window=0)
  with pytest.raises(ValueError, match="epsilon must lie"):
    greedy.make(epsilon=-1.0)
