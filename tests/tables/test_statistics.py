"""Paired comparisons: closed forms, coverage, and what is said of few seeds."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from dmg_jax.evaluation import statistics
from dmg_jax.evaluation.statistics import compare, interval


def series(*values):
  return dict(enumerate(values))


def exact(d, confidence):
  """All n^n resamples: the interval that random ones approach."""
  d, n = np.asarray(d), len(d)
  means = [np.mean(x) for x in itertools.product(d, repeat=n)]
  t = stats.t.ppf((1 + confidence) / 2, n - 1)
  tail = stats.norm.cdf(-t * math.sqrt(n / (n - 1)))
  return np.quantile(means, [tail, 1 - tail])


@pytest.mark.parametrize("confidence", [0.5, 0.8])
def test_interval_is_that_of_all_resamples(confidence):
  d = [0.3, -0.1, 0.7, 0.2, 0.25]
  spread = np.std(d) / math.sqrt(len(d))
  found = interval(np.array(d), confidence)
  np.testing.assert_allclose(found, exact(d, confidence), atol=0.03 * spread)


def test_interval_of_three_is_the_range():
  assert interval(np.array([0.1, 0.4, 0.2])) == pytest.approx((0.1, 0.4))


@pytest.mark.parametrize("n,low,high", [(5, 0.86, 0.96), (10, 0.91, 0.985)])
def test_coverage(n, low, high, monkeypatch):
  """95 % as far as n allows: .9375 at most for five."""
  monkeypatch.setattr(statistics, "RESAMPLES", 1500)
  rng = np.random.default_rng(0)
  hits = 0
  for d in rng.normal(1.0, 2.0, (250, n)):
    left, right = interval(d)
    hits += left <= 1.0 <= right
  assert low < hits / 250 < high


@pytest.mark.parametrize(
  "d,verdict",
  [
    ([0.01, 0.02, 0.03, 0.02, 0.01], "better"),
    ([-0.01, -0.02, -0.03, -0.02, -0.01], "worse"),
    ([0.01, -0.02, 0.03, -0.02, 0.01], "not distinguishable"),
    ([0.0, 0.0, 0.0], "not distinguishable"),
    ([0.1, 0.1, 0.1], "better"),
    ([0.1, 0.2], "not enough seeds"),
    ([], "not enough seeds"),
  ],
)
def test_verdicts(d, verdict):
  b = {seed: 0.5 + 0.01 * seed for seed in range(len(d))}
  a = {seed: b[seed] + x for seed, x in enumerate(d)}
  found = compare(a, b)
  assert found.verdict == verdict and found.seeds == len(d)
  turned = {"better": "worse", "worse": "better"}
  for other in (compare(b, a), compare(a, b, higher_is_better=False)):
    assert other.verdict == turned.get(verdict, verdict)
  if d:
    assert found.mean == pytest.approx(np.mean(d))


def test_only_common_and_finite_seeds_are_paired():
  a = {0: 0.6, 1: 0.7, 2: math.nan, 3: 0.9, 7: 0.5}
  b = {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.6, 8: 0.1}
  found = compare(a, b)
  assert found.seeds == 3 and found.mean == pytest.approx(0.2)


def test_pairing_sees_what_two_means_do_not():
  rng = np.random.default_rng(1)
  b = series(*rng.normal(0.6, 0.1, 8))
  a = {k: v + 0.01 + 0.001 * (k % 3) for k, v in b.items()}
  assert compare(a, b).verdict == "better"
  shuffled = {k: a[(k + 3) % 8] for k in a}
  assert compare(shuffled, b).verdict == "not distinguishable"


def test_an_end_that_is_zero_but_for_rounding_leaves_nothing_out():
  """Counts of samples: resamples sum to 0 often enough to be the end."""
  counts = np.array([-23, -20, -39, 5, -34])
  low, high = statistics.interval(counts.astype(float))
  assert low < 0 and high == 0
  found = statistics.interval(counts / 1265)
  np.testing.assert_allclose(found, (low / 1265, 0), rtol=1e-12)
  assert found[1] == 0
  shares = [
    {i: v / 1265 for i, v in enumerate(c)} for c in (counts, 0 * counts)
  ]
  assert statistics.compare(*shares).verdict == "not distinguishable"


def test_sentences():
  better = compare(series(0.62, 0.65, 0.63), series(0.6, 0.61, 0.6))
  assert better.sentence("lb", "joint") == (
    "lb is better than joint: +3.0 [+2.0, +4.0] (3 seeds; coverage at most "
    "75 %)."
  )
  few = compare(series(0.62, 0.6), series(0.6, 0.61))
  assert few.sentence("a", "b") == (
    "a against b: +0.5; not enough seeds (2 paired, 3 needed)."
  )
  assert "(0 paired, 3 needed)" in compare({}, {}).sentence("a", "b")
  many = compare(series(*[0.5] * 6), series(*[0.5] * 6)).sentence("a", "b")
  assert many == "a is not distinguishable from b: 0.0 [0.0, 0.0] (6 seeds)."
  least = compare(series(0.6, 0.6, 0.6004), series(0.601, 0.6002, 0.6006))
  assert least.sentence("a", "b").startswith(
    "a is worse than b: −0.05 [−0.1, −0.02] (3 seeds"
  )


def test_confidence():
  with pytest.raises(ValueError, match=r"confidence.*95"):
    compare({}, {}, confidence=95)


def one_sample(x, confidence):
  return stats.t.interval(
    confidence, len(x) - 1, loc=np.mean(x), scale=stats.sem(x)
  )


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_beyond_the_samples_in_closed_form(confidence):
  """Without one of the two effects it is Student's interval of the other."""
  rng = np.random.default_rng(0)
  by_sample = rng.integers(-1, 2, 40).astype(float)
  by_seed = rng.normal(0.01, 0.02, 5)
  for d, x in (
    (np.tile(by_sample, (5, 1)), by_sample),
    (np.tile(by_seed[:, None], (1, 40)), by_seed),
  ):
    found = statistics.interval_beyond(d, confidence)
    np.testing.assert_allclose(found, one_sample(x, confidence), atol=1e-12)
  still = statistics.interval_beyond(np.full((3, 7), 0.5))
  assert still == (0.5, 0.5)


@pytest.mark.parametrize("seed,sample", [(0, 0), (0, 1), (0.2, 0), (0.2, 1)])
def test_coverage_beyond_the_samples(seed, sample):
  """Of the mean of both random effects, whichever is large."""
  rng = np.random.default_rng(0)
  hits, tries = 0, 600
  for _ in range(tries):
    d = 0.3 + rng.normal(size=(5, 60))
    d += seed * rng.normal(size=(5, 1)) + sample * rng.normal(size=60)
    low, high = statistics.interval_beyond(d)
    hits += low <= 0.3 <= high
  assert 0.93 <= hits / tries <= 0.985


def test_a_lead_on_these_samples_alone():
  """All seeds win on a few samples: sure of them, not of others."""
  rng = np.random.default_rng(0)
  b = {seed: rng.permutation(np.arange(20) < 10) for seed in range(3)}
  a = {seed: x.copy() for seed, x in b.items()}
  for x in a.values():
    x[:2] = True
  for x in b.values():
    x[:2] = False
  means = [{k: float(x.mean()) for k, x in each.items()} for each in (a, b)]
  found = compare(*means, samples=(a, b))
  assert found.verdict == "better" and found.samples == 20
  assert found.beyond_verdict == "not distinguishable"
  assert found.sentence("a", "b").startswith("a is better than b: +10.0 [")
  assert found.sentence("a", "b").endswith(
    "; allowing for other test samples (20 here): not distinguishable "
    "[−4.4, +24.4]."
  )
  turned = compare(*means, higher_is_better=False, samples=(a, b))
  assert turned.verdict == "worse"


def test_nothing_beyond_samples_that_are_not_the_same():
  a = {seed: np.ones(4) for seed in range(3)}
  means = dict.fromkeys(range(3), 1.0)
  for b in ({}, {0: np.ones(4), 1: np.ones(4)}, {s: np.ones(5) for s in a}):
    found = compare(means, means, samples=(a, b))
    said = found.sentence("a", "b")
    assert found.beyond is None and "other test samples" not in said
