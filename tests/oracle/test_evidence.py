"""ETMC's fusion: Dempster's rule by its definition, and its invariants."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

import toys
from dmg_jax.model import registry
from dmg_jax.model.fusion import etmc

CLASSES, SAMPLES = 4, 5


def close(got, expected):
  toys.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def dempster(*opinions):
  """Dempster's rule by its definition: intersect all focal sets.

  An opinion is belief in each class and in the set of all of them.
  """
  k = len(opinions[0]) - 1
  sets = [frozenset([c]) for c in range(k)] + [frozenset(range(k))]
  mass = dict.fromkeys(sets, 0.0)
  for chosen in itertools.product(range(k + 1), repeat=len(opinions)):
    common = frozenset.intersection(*(sets[i] for i in chosen))
    if common:
      mass[common] += np.prod(
        [o[i] for o, i in zip(opinions, chosen, strict=True)]
      )
  total = sum(mass.values())
  return np.array([mass[s] / total for s in sets])


def as_opinion(a):
  return np.append((a - 1) / a.sum(), len(a) / a.sum())


@pytest.mark.parametrize(
  ("count", "pseudo"), [(1, True), (2, False), (3, True)]
)
def test_etmc_is_dempsters_rule(count, pseudo):
  rng = np.random.default_rng(0)
  sizes = {"a": 3, "b": 2, "c": 5}
  z = {m: rng.normal(size=(SAMPLES, sizes[m])) for m in "abc"[:count]}
  module = registry.make_fusion("etmc", CLASSES, pseudo_view=pseudo)
  x = {m: jnp.array(v) for m, v in z.items()}
  p = module.init(jax.random.key(0), x, True)["params"]
  p = jax.tree.map(lambda x: rng.normal(size=x.shape), p)
  fused = module.apply({"params": p}, x, True)
  own = {
    m: x @ p[f"head_{m}"]["kernel"] + p[f"head_{m}"]["bias"]
    for m, x in z.items()
  }
  if pseudo:
    x = np.concatenate(list(z.values()), axis=1)
    own[""] = x @ p["pseudo"]["kernel"] + p["pseudo"]["bias"]
  a = {m: np.log1p(np.exp(o)) + 1 for m, o in own.items()}
  fused_a = np.exp(fused.logits)
  for i in range(SAMPLES):
    expected = dempster(*(as_opinion(v[i]) for v in a.values()))
    close(as_opinion(fused_a[i]), expected)
    close(softmax(np.asarray(fused.logits)[i]), fused_a[i] / fused_a[i].sum())
  close(fused.unimodal, {m: np.log(a[m]) for m in z})
  assert ("pseudo" in fused.extra) == pseudo
  if pseudo:
    close(fused.extra["pseudo"], np.log(a[""]))


def test_combination_is_an_abelian_monoid():
  rng = np.random.default_rng(0)
  x, y, w = 1 + jnp.array(rng.gamma(1.0, 5.0, size=(3, 6, CLASSES)))
  xy, yw = etmc.combine(x, y), etmc.combine(y, w)
  close(xy, etmc.combine(y, x))
  close(etmc.combine(xy, w), etmc.combine(x, yw))
  close(etmc.combine(x, jnp.ones_like(x)), x)
  for a in (x, xy, etmc.combine(xy, w)):
    b, u = etmc.opinion(a)
    close(b.sum(axis=1, keepdims=True) + u, np.ones((6, 1)))


def test_total_conflict_stays_finite():
  sure = 1e4 * jnp.eye(3, dtype=jnp.float32) + 1

  def loss(x, y):
    return jnp.log(etmc.combine(x, y)).sum()

  other = jnp.roll(sure, 1, axis=1)
  both = jax.jit(jax.value_and_grad(loss, (0, 1)))
  assert toys.finite(both(sure, other))
