r"""The imbalance cost: what a cure for imbalance could win on a data set.

.. math:: c = A_{test}(r) - A_{test}(\text{joint}), \qquad
  r = \arg\max_{r \in \{\text{ensemble},\, \text{multitask}\}} A_{val}(r)

``A`` is the mean over seeds of the first score of the table, fused. Encoders do
not compete in ``ensemble``, which trains them apart, and less in ``multitask``,
where each has a loss of its own. The better of the two is chosen on val, over
the seeds that both have: the larger of two numbers on test would be above joint
training by chance alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from dmg_jax.evaluation import statistics
from dmg_jax.evaluation.metrics import FUSED
from dmg_jax.evaluation.statistics import signed
from dmg_jax.tables.summary import Row, Summary, mean

# Names of rows; the last of each is that of the table ``missing``.
JOINT = ("joint", "zero_feature")
APART = ("ensemble", "multitask", "own_heads")


@dataclasses.dataclass(frozen=True)
class Cost:
  """The imbalance cost of a data set, or of one of a table's groups of rows.

  Attributes:
    dataset: the data set, as the table shows it.
    group: the group of rows, empty in most tables.
    score: name of the score.
    joint, apart: the rows that are compared.
    means: mean score of ``apart`` and of ``joint`` over the seeds of both.
    found: ``apart`` against ``joint``, paired over seeds.
    size: number of test samples, 0 if the results per sample are unknown.
    here: the 95 % interval for other test samples and these seeds alone,
      ``None`` without results per sample.
  """

  dataset: str
  group: str
  score: str
  joint: Row
  apart: Row
  means: tuple[float, float]
  found: statistics.Comparison
  size: int = 0
  here: tuple[float, float] | None = None

  @property
  def ends(self) -> tuple[float, float] | None:
    """The 95 % interval, the one for other test samples if it is known.

    With too few seeds it is ``here``, which says nothing of other seeds.
    """
    if self.found.verdict == statistics.FEW:
      return self.here
    return self.found.beyond or (self.found.low, self.found.high)

  def sentence(self) -> str:
    """How much there is to win here."""
    at = f"{self.dataset} ({self.group})" if self.group else self.dataset
    value = 100 * self.found.mean
    best, joint = (100 * x for x in self.means)
    both = (
      f"{self.apart.label} {best:.1f}, {self.joint.label} {joint:.1f} "
      f"fused {self.score}"
    )
    if self.found.verdict == statistics.FEW:
      return (
        f"Imbalance cost on {at}: {signed(value)} points "
        f"({both}; {self._chance()})."
      )
    assert self.ends is not None
    low, high = (100 * x for x in self.ends)
    ends = f"95 % [{signed(low)}, {signed(high)}] over {self._over()}"
    if low > 0:
      return (
        f"Imbalance costs joint training on {at}: {signed(value)} points "
        f"({both}; {ends}) are there to win."
      )
    if high < 0:
      return (
        f"Imbalance costs nothing on {at}: {signed(value)} points, joint "
        f"training is ahead ({both}; {ends})."
      )
    return (
      f"No imbalance cost is shown on {at}: {signed(value)} points "
      f"({both}; {ends}). There may be up to {high:.1f} points to win."
    )

  def _over(self) -> str:
    """What the interval allows for, and where it cannot have its 95 %."""
    seeds = f"{self.found.seeds} seeds"
    if self.found.beyond:
      return f"{seeds} and {self.found.samples} test samples"
    if self.found.reach < self.found.confidence:
      seeds += f"; coverage at most {100 * self.found.reach:.0f} %"
    return seeds

  @property
  def interval_of(self) -> str:
    """What the interval allows for: seeds, samples, both, or nothing."""
    if self.found.verdict == statistics.FEW:
      return "samples" if self.here else ""
    return "seeds and samples" if self.found.beyond else "seeds"

  def _chance(self) -> str:
    """What can be said with too few seeds."""
    seeds = f"{self.found.seeds} seed{'s' * (self.found.seeds > 1)}"
    need = f"{statistics.FEWEST} are needed to tell it from chance"
    if self.here is None:
      return f"{seeds}, {need}"
    low, high = (signed(100 * x) for x in self.here)
    return (
      f"95 % [{low}, {high}] over {self.size} test samples alone; "
      f"{seeds}, {need}"
    )

  def as_json(self) -> dict[str, Any]:
    """All numbers; scores and differences in [0, 1]."""
    return {
      "group": self.group,
      "score": self.score,
      "reference": self.apart.name,
      "joint": self.joint.name,
      "means": list(self.means),
      "value": self.found.mean,
      "interval": self.ends and list(self.ends),
      "interval_of": self.interval_of,
      "seeds": self.found.seeds,
      "samples": self.size,
      "sentence": self.sentence(),
    }


def costs(found: Summary) -> list[Cost]:
  """The cost in each group of rows that has what it takes; often one."""
  return [c for part in found.parts if (c := _cost(part)) is not None]


def _cost(part: Summary) -> Cost | None:
  column = part.columns[0]
  if column.head != FUSED:
    return None
  rows = {r.base or r.name: r for r in part.rows if r.values(column)}
  joint = next((rows[name] for name in JOINT if name in rows), None)
  if joint is None:
    return None
  there = {n: rows[n].validated(column) for n in APART if n in rows}
  there = {name: values for name, values in there.items() if values}
  seeds = set.intersection(*map(set, there.values())) if there else set()
  scores = {
    name: mean([x for s, x in values.items() if s in seeds])
    for name, values in there.items()
    if seeds
  }
  if not scores:
    return None
  apart = rows[max(scores, key=scores.__getitem__)]
  ours, theirs = apart.values(column), joint.values(column)
  shared = sorted(ours.keys() & theirs.keys())
  if not shared:
    return None
  samples = apart.right(column), joint.right(column)
  here = statistics.interval_samples(samples, shared)
  return Cost(
    part.shown,
    joint.group,
    column.name,
    joint,
    apart,
    (mean([ours[s] for s in shared]), mean([theirs[s] for s in shared])),
    statistics.compare(ours, theirs, samples=samples),
    len(samples[0][shared[0]]) if here else 0,
    here,
  )
