"""Objectives against NumPy: etmc, weight, mbsd and cml."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import digamma, gammaln, log_softmax, softmax

import given
import toys
from dmg_jax.methods import cml, etmc, mbsd

Y = np.asarray(given.batch().labels)
ROWS = np.arange(given.SAMPLES)
COUNTS = (1, 2, 3)


def mean(values):
  """Over what is no padding."""
  return np.mean(values[given.REAL])


def ce(logits):
  return mean(-log_softmax(logits, axis=1)[ROWS, Y])


def own_ce(value):
  return sum(ce(o) for o in value["unimodal"].values())


def over_pairs(term, value):
  pairs = list(itertools.combinations(value["unimodal"], 2))
  return sum(term(*pair) for pair in pairs) / max(len(pairs), 1)


# ETMC.


def edl(log_a, lam):
  a = np.exp(log_a)
  s = a.sum(axis=1, keepdims=True)
  y = np.eye(given.CLASSES)[Y]
  risk = (y * (digamma(s) - digamma(a))).sum(axis=1)
  b = y + (1 - y) * a
  t = b.sum(axis=1, keepdims=True)
  kl = gammaln(t[:, 0]) - gammaln(b).sum(axis=1) - gammaln(given.CLASSES)
  kl = kl + ((b - 1) * (digamma(b) - digamma(t))).sum(axis=1)
  return mean(risk + lam * kl)


@pytest.mark.parametrize(
  ("count", "pseudo", "epoch"), [(1, True, 0), (2, False, 3), (3, True, 25)]
)
def test_etmc_sums_the_evidential_loss_of_all_views(count, pseudo, epoch):
  value = given.values(count)
  evidence = jax.tree.map(lambda o: np.log1p(np.logaddexp(0, o)), value)
  value = {**value, "unimodal": evidence["unimodal"]}
  value["logits"] = evidence["logits"]
  if pseudo:
    value["extra"] = {"pseudo": evidence["logits"][::-1].copy()}
  lam = min(1, epoch / 10)

  def loss(live, stopped):
    del stopped
    views = [live["logits"], *live["unimodal"].values()]
    views += live.get("extra", {}).values()
    return sum(edl(v, lam) for v in views)

  method = etmc.make()
  extra = {"evidential": jnp.ones(())}
  state = given.start(method, given.problem(value, extra), value)
  assert float(state.method) == 0
  state = method.between_epochs(None, state, None, epoch)
  given.check(method, value, loss, state, extra)


def test_kl_is_minus_the_dirichlets_entropy_and_zero_for_no_evidence():
  rng = np.random.default_rng(0)
  a = 1 + rng.gamma(1.0, 4.0, size=(6, 5))
  got = etmc.divergence_from_uniform(jnp.array(a))
  expected = [-stats.dirichlet(row).entropy() - gammaln(5) for row in a]
  np.testing.assert_allclose(got, expected, rtol=1e-8)
  assert (np.asarray(got) >= 0).all()
  none = etmc.divergence_from_uniform(jnp.ones((2, 5)))
  np.testing.assert_allclose(none, 0.0, atol=1e-12)


def test_evidential_loss_is_the_expected_cross_entropy():
  a = np.array([[1.5, 4.0, 2.0]])
  p = stats.dirichlet(a[0]).rvs(200_000, random_state=0)
  got = etmc.evidential(jnp.array(a), jnp.array([1]), jnp.zeros(()))
  np.testing.assert_allclose(got[0], -np.log(p[:, 1]).mean(), rtol=1e-2)


# Prediction weighting.


@pytest.mark.parametrize("count", COUNTS)
def test_weight_loss(count):
  def loss(live, stopped):
    del stopped
    p = {m: softmax(o, axis=1) for m, o in live["unimodal"].items()}
    unit = {m: q / np.linalg.norm(q, axis=1)[:, None] for m, q in p.items()}
    alike = over_pairs(lambda j, m: mean((unit[j] * unit[m]).sum(axis=1)), live)
    return 1.5 * ce(live["logits"]) + own_ce(live) + 0.3 * alike

  method = toys.make_method("weight", fused=1.5, diversity=0.3)
  given.check(method, given.values(count), loss)


# MBSD.


def distilled(live, stopped, j, m):
  """[D] of the notes: scores, and the better side, without a gradient."""
  held = [softmax(stopped["unimodal"][i], axis=1) for i in (j, m)]
  p = [softmax(live["unimodal"][i], axis=1) for i in (j, m)]
  each = np.zeros(given.SAMPLES)
  for i, y in enumerate(Y):
    score = held[0][i, y], held[1][i, y]
    if y not in (held[0][i].argmax(), held[1][i].argmax()):
      continue
    strong = int(score[1] > score[0])
    s, w = held[strong][i], p[1 - strong][i]
    kl = (s * np.log(s / w)).sum()
    each[i] = abs(score[0] - score[1]) * (kl + ((s - w) ** 2).mean())
  return mean(each)


def as_the_toolkit(live, j, m):
  o = live["unimodal"]
  p = [softmax(o[i], axis=1) for i in (j, m)]
  one, two = (q[ROWS, Y] for q in p)
  right = (p[0].argmax(axis=1) == Y) | (p[1].argmax(axis=1) == Y)
  strong, weak = np.maximum(one, two), np.minimum(one, two)
  apart = o[j] - o[m] if len(o) == 2 else p[0] - p[1]
  logits = (apart**2).mean(axis=1)
  kl = weak * (np.log(weak) - strong)
  return mean(np.where(right, strong - weak, 0) * (logits + kl))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("faithful", [False, True])
def test_mbsd_loss(count, faithful):
  def loss(live, stopped):
    def term(j, m):
      if faithful:
        return as_the_toolkit(live, j, m)
      return distilled(live, stopped, j, m)

    extra = over_pairs(term, live)
    return ce(live["logits"]) + own_ce(live) + 0.7 * extra

  value = given.values(count)
  value["unimodal"]["a"][ROWS[:4], Y[:4]] += 2  # Somebody must be right.
  given.check(mbsd.make(weight=0.7, faithful=faithful), value, loss)


def test_mbsd_is_finite_where_a_probability_underflows():
  a = jnp.array([[300.0, 0, 0], [0, 300, 0]], jnp.float32)
  b = jnp.array([[0.0, 300, 0], [0, 300, 0]], jnp.float32)
  labels = jnp.array([0, 1])

  def total(a, b):
    return (mbsd.distil(a, b, labels) + mbsd.toolkit(a, b, labels)).sum()

  assert toys.finite(jax.jit(jax.value_and_grad(total, (0, 1)))(a, b))


# CML.


def ranked(chain):
  """Per sample, by the definition."""
  each = np.zeros(given.SAMPLES)
  p = [softmax(o, axis=1) for o in chain]
  for i, y in enumerate(Y):
    for more, less in itertools.pairwise(p):
      excused = less[i].argmax() == y and more[i].argmax() != y
      if not excused:
        each[i] += max(0, less[i].max() - more[i].max())
  return each


@pytest.mark.parametrize("count", COUNTS)
def test_cml_rank_loss(count):
  rng = np.random.default_rng(count)
  size = given.SAMPLES, given.CLASSES
  chain = [2 * rng.normal(size=size) for _ in range(count)]
  labels = jnp.array(Y)

  def ours(chain):
    return cml.rank_loss([jnp.array(o) for o in chain], labels)

  np.testing.assert_allclose(ours(chain), ranked(chain), rtol=1e-9)
  grads = jax.grad(lambda c: ours(c).sum())([jnp.array(o) for o in chain])
  given.check_gradient(grads, lambda c: ranked(c).sum(), chain)


def test_cml_excuses_confidence_that_is_right():
  low, high = [[1.0, 0.0, 0.0]], [[0.0, 3.0, 0.0]]
  chain = [jnp.array(low), jnp.array(high)]
  assert float(cml.rank_loss(chain, jnp.array([1]))[0]) == 0
  gap = softmax(high).max() - softmax(low).max()
  for label in (0, 2):
    got = cml.rank_loss(chain, jnp.array([label]))[0]
    np.testing.assert_allclose(got, gap, rtol=1e-9)


def cml_loss(order, subsets, faithful):
  """The loss where modalities leave in this order."""

  def loss(live, stopped):
    del stopped
    chain, z = [live["logits"]], live["features"]
    for k in range(1, len(order)):
      kept = {m: z[m] for m in order[k:]}
      chain.append(given.logits_of(kept, live["head"]))
    cls = np.mean([ce(o) for o in chain]) if subsets else ce(chain[0])
    scale = given.REAL.sum() if faithful else 1
    return cls + 0.4 * scale * mean(ranked(chain))

  return loss


@pytest.mark.parametrize("count", COUNTS)
def test_cml_follows_a_random_chain(count):
  subsets, faithful = count != 2, count == 3
  value, met = given.values(count), set()
  method = cml.make(weight=0.4, subsets=subsets, faithful=faithful)
  bound = given.problem(value)
  state = given.start(method, bound, value)
  for seed in range(5):
    _, _, metrics, *_ = given.step(method, bound, state, seed=seed)
    fits = [
      order
      for order in itertools.permutations(value["features"])
      if np.isclose(
        cml_loss(order, subsets, faithful)(value, value),
        metrics["loss"],
        rtol=1e-6,
      )
    ]
    assert len(fits) == 1
    met.add(fits[0])
  assert len(met) >= min(count, 2)
  given.check(method, value, cml_loss(fits[0], subsets, faithful), seed=seed)


@pytest.mark.parametrize(
  ("name", "bad", "words"),
  [
    ("etmc", {"anneal": 0}, "anneal must lie"),
    ("weight", {"fused": -1.0}, "fused must lie"),
    ("weight", {"diversity": -1.0}, "diversity must lie"),
    ("weight", {"weight_on": "feature"}, "choose from diversity, fused"),
    ("mbsd", {"weight": -1.0}, "weight must lie"),
    ("cml", {"weight": True}, "weight must be a number"),
    ("pmr", {"momentum": 1.0}, "momentum must lie"),
    ("pmr", {"fraction": 0.0}, "fraction must lie"),
    ("pmr", {"aplha": 1.0}, "did you mean 'alpha'"),
  ],
)
def test_bad_options_are_refused(name, bad, words):
  with pytest.raises(ValueError, match=words):
    toys.make_method(name, **bad)


def test_etmc_refuses_other_fusions():
  with pytest.raises(ValueError, match="fusion=etmc"):
    given.start(etmc.make(), given.problem(given.values()), given.values())
