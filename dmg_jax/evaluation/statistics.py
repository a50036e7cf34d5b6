r"""Paired comparison of two methods over seeds.

Runs of the same seed share their shuffling and their initial weights, so the
paired differences :math:`d_i = a_i - b_i` over seeds i are more informative
than two means with standard deviations. The interval of their mean is a
percentile bootstrap over seeds with expanded tails: the spread of resamples of
n values is too small by a factor :math:`\sqrt{(n-1)/n}` and ignores Student's
t, so the tails are cut at

.. math:: \Phi\left(-\sqrt{n / (n-1)}\; t_{n-1,\,\alpha/2}\right)

instead of α/2 (Hesterberg, The American Statistician 2015, §3.6). An interval
of resampled means cannot exceed the range of the differences, which contains
their median with probability :math:`1 - 2^{1-n}` at most: .75 for three seeds,
.94 for five, above .95 from six on. ``Comparison.sentence`` states this limit.

This first interval generalises to other seeds on the same test samples. To
generalise to other test samples as well, the second interval uses the
difference :math:`d_{ij}` of each seed i on each sample j, with seeds and
samples as crossed random effects,

.. math:: d_{ij} = \mu + s_i + c_j + e_{ij}, \qquad
  \widehat{\mathrm{Var}}(\bar d) = \frac{1}{Sn} \bigl(MS_e
  + (MS_s - MS_e)_+ + (MS_c - MS_e)_+\bigr)

where the MS are the mean squares of the two-way analysis of variance, and
Student's t with Satterthwaite's degrees of freedom (Biometrics Bulletin 1946).
Radiology compares readers and cases in the same way (Hillis, Statistics in
Medicine 2007).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from dmg_jax.errors import InputError

Each = Mapping[int, np.ndarray]

FEWEST = 3  # The smallest number of seeds for an interval.
RESAMPLES = 20_000

BETTER, WORSE = "better", "worse"
SAME = "not distinguishable"
FEW = "not enough seeds"


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Comparison of method a with method b, over the seeds that both have.

  Attributes:
    seeds: n, the number of pairs.
    mean: mean of the differences a - b, NaN for n = 0.
    low, high: ends of the interval, NaN below ``FEWEST`` seeds.
    confidence: nominal confidence of the interval.
    verdict: ``better``, ``worse``, ``not distinguishable`` (the interval
      contains 0) or ``not enough seeds``.
    samples: number of test samples, 0 if the results per sample are unknown.
    beyond, beyond_verdict: ends of the interval that also generalises to other
      test samples, and its verdict; ``None`` and empty without results per
      sample.
  """

  seeds: int
  mean: float
  low: float
  high: float
  confidence: float
  verdict: str
  samples: int = 0
  beyond: tuple[float, float] | None = None
  beyond_verdict: str = ""

  @property
  def reach(self) -> float:
    """Upper bound of the coverage for this number of seeds, in [0, 1]."""
    return 1 - 2.0 ** (1 - self.seeds) if self.seeds else 0.0

  def sentence(self, a: str, b: str, scale: float = 100.0) -> str:
    """The comparison as a sentence, in percentage points for ``scale`` 100."""
    if self.verdict == FEW:
      paired = f"{self.seeds} paired, {FEWEST} needed"
      if not self.seeds:
        return f"{a} against {b}: {FEW} ({paired})."
      return f"{a} against {b}: {signed(self.mean * scale)}; {FEW} ({paired})."
    limit = ""
    if self.reach < self.confidence:
      limit = f"; coverage at most {100 * self.reach:.0f} %"
    joint = {SAME: "from"}.get(self.verdict, "than")
    ends = _ends((self.low, self.high), scale)
    beyond = ""
    if self.beyond:
      beyond = (
        f"; allowing for other test samples ({self.samples} here): "
        f"{self.beyond_verdict} {_ends(self.beyond, scale)}"
      )
    return (
      f"{a} is {self.verdict} {joint} {b}: {signed(self.mean * scale)} "
      f"{ends} ({self.seeds} seeds{limit}){beyond}."
    )


def compare(
  a: Mapping[int, float],
  b: Mapping[int, float],
  confidence: float = 0.95,
  higher_is_better: bool = True,
  samples: tuple[Each, Each] = ({}, {}),
) -> Comparison:
  """Compares a with b, paired over the seeds that both have.

  Args:
    a, b: {seed: value}; pairs with a non-finite value are left out.
    confidence: confidence of the intervals, in (0, 1).
    higher_is_better: if false, ``better`` means lower.
    samples: ({seed: [n]} of a, the same of b), values per test sample, whose
      means are ``a`` and ``b``. If a paired seed has none, the interval for
      other test samples is left out.

  Raises:
    ValueError: the confidence is out of range.
  """
  if not 0 < confidence < 1:
    raise InputError(f"confidence must lie in (0, 1), got {confidence!r}")
  found = {seed: a[seed] - b[seed] for seed in sorted(set(a) & set(b))}
  seeds = [seed for seed, x in found.items() if math.isfinite(x)]
  d = np.array([found[seed] for seed in seeds], float)
  mean = float(d.mean()) if d.size else math.nan
  if d.size < FEWEST:
    return Comparison(d.size, mean, math.nan, math.nan, confidence, FEW)
  low, high = interval(d, confidence)
  result = Comparison(
    d.size,
    mean,
    low,
    high,
    confidence,
    _verdict(low, high, higher_is_better),
  )
  each = _differences(*samples, seeds)
  if each is None:
    return result
  ends = interval_beyond(each, confidence)
  return dataclasses.replace(
    result,
    samples=each.shape[1],
    beyond=ends,
    beyond_verdict=_verdict(*ends, higher_is_better),
  )


def _verdict(low: float, high: float, higher_is_better: bool) -> str:
  if low <= 0 <= high:
    return SAME
  return BETTER if (low > 0) == higher_is_better else WORSE


def _differences(a: Each, b: Each, seeds: Sequence[int]) -> np.ndarray | None:
  """Differences [s n]; ``None`` if a seed lacks them or the sizes differ."""
  if not all(seed in a and seed in b for seed in seeds):
    return None
  rows = [(np.asarray(a[s], float), np.asarray(b[s], float)) for s in seeds]
  sizes = {x.size for pair in rows for x in pair}
  if len(sizes) > 1 or min(sizes) < 2:
    return None
  return np.stack([x - y for x, y in rows])


def interval(d: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
  """Expanded-percentile bootstrap interval of the mean of ``d`` [n], n ≥ 2.

  The resampling has a fixed seed, so the interval is deterministic.
  """
  n = d.size
  t = stats.t.ppf((1 + confidence) / 2, n - 1)
  tail = float(stats.norm.cdf(-t * math.sqrt(n / (n - 1))))
  found = stats.bootstrap(
    (d,),
    np.mean,
    n_resamples=RESAMPLES,
    confidence_level=1 - 2 * tail,
    method="percentile",
    vectorized=True,
    rng=np.random.default_rng(0),
  ).confidence_interval
  # Ends that differ from 0 by rounding alone are 0.
  rounding = 1e-9 * float(np.abs(d).max())
  low, high = (
    0.0 if abs(end) <= rounding else float(end)
    for end in (found.low, found.high)
  )
  return low, high


def interval_beyond(
  d: np.ndarray, confidence: float = 0.95
) -> tuple[float, float]:
  """Interval of the mean of ``d`` [s n] for other seeds and other samples.

  Args:
    d: difference of each of s ≥ 2 seeds on each of n ≥ 2 samples.
    confidence: confidence of the interval, in (0, 1).
  """
  (seeds, samples), mean = d.shape, float(d.mean())
  by_seed, by_sample = d.mean(axis=1), d.mean(axis=0)
  rest = d - by_seed[:, None] - by_sample + mean
  free = np.array([seeds - 1, samples - 1, (seeds - 1) * (samples - 1)], float)
  mean_squares = np.array(
    [
      samples * by_seed.var(ddof=1),
      seeds * by_sample.var(ddof=1),
      (rest**2).sum() / free[2],
    ]
  )
  kept = mean_squares[:2] > mean_squares[2]
  weights = np.array([*kept, 1 - kept.sum()], float)
  variance = float(weights @ mean_squares)
  if variance <= 0:
    return mean, mean
  freedom = variance**2 / float(np.sum((weights * mean_squares) ** 2 / free))
  t = float(stats.t.ppf((1 + confidence) / 2, freedom))
  reach = t * math.sqrt(variance / d.size)
  return mean - reach, mean + reach


def interval_samples(
  samples: tuple[Each, Each], seeds: Sequence[int], confidence: float = 0.95
) -> tuple[float, float] | None:
  r"""Interval of the mean for other test samples and these seeds alone.

  .. math:: \bar d \pm t_{n-1,\,\alpha/2} \sqrt{\mathrm{Var}_j(d_{\cdot j}) / n}

  Student's t for the mean difference d of each of n samples, over the seeds.
  It is narrower than ``interval_beyond``: it says nothing of other seeds.

  Args:
    samples: as for ``compare``.
    seeds: the seeds, one or more.
    confidence: confidence of the interval, in (0, 1).

  Returns:
    The ends; ``None`` if a seed lacks results per sample.
  """
  each = _differences(*samples, seeds) if seeds else None
  if each is None:
    return None
  d = each.mean(axis=0)
  t = float(stats.t.ppf((1 + confidence) / 2, d.size - 1))
  mean, reach = float(d.mean()), t * float(d.std(ddof=1)) / math.sqrt(d.size)
  return mean - reach, mean + reach


def _ends(ends: tuple[float, float], scale: float) -> str:
  low, high = ends
  return f"[{signed(low * scale)}, {signed(high * scale)}]"


def signed(x: float) -> str:
  """One decimal, or two near 0, where the verdict depends on the sign.

  The sign is a minus, not a hyphen; a number that is shown as 0 has none.
  """
  shown = f"{abs(x):.1f}" if abs(x) >= 0.05 else f"{abs(x):.2f}"
  if float(shown) == 0:
    return "0.0"
  return f"{'−' if x < 0 else '+'}{shown}"
