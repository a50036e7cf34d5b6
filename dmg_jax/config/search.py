"""Random search: distributions of hyperparameters and trials drawn from them.

``configs/search.py`` lists the hyperparameters that are tuned.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import qmc


class Log(NamedTuple):
  """A number whose logarithm is uniform in [low, high]."""

  low: float
  high: float

  def draw(self, rng: np.random.Generator) -> float:
    """One value, rounded to three digits."""
    ends = math.log(self.low), math.log(self.high)
    return _rounded(math.exp(rng.uniform(*ends)))


class Uniform(NamedTuple):
  """A number uniform in [low, high]."""

  low: float
  high: float

  def draw(self, rng: np.random.Generator) -> float:
    """One value, rounded to three digits."""
    return _rounded(rng.uniform(self.low, self.high))


class OneOf(NamedTuple):
  """One of several values."""

  values: tuple[Any, ...]

  def draw(self, rng: np.random.Generator) -> Any:
    """One of the values, with equal probability."""
    return self.values[int(rng.integers(len(self.values)))]


Knob = Log | Uniform | OneOf


class Space(NamedTuple):
  """The search space.

  Attributes:
    learning_rate: for every recipe, as a factor of the data set's default.
    knobs: {recipe: {option of its method: distribution}}.
  """

  learning_rate: Log
  knobs: Mapping[str, Mapping[str, Knob]]


def trial(
  space: Space, recipe: str, number: int, fixed: Collection[str] = ()
) -> dict[str, Any]:
  """Settings of trial ``number`` of a recipe, a deterministic function of both.

  Args:
    space: the search space.
    recipe: name of the recipe; without knobs only its learning rate is tuned.
    number: number of the trial; 0 means the defaults.
    fixed: options that are not tuned.

  Returns:
    ``{}`` for trial 0, else ``{"learning_rate_factor": .., "method": {..}}``.
  """
  if number == 0:
    return {}
  own = np.random.default_rng([zlib.crc32(recipe.encode()), number])
  drawn = {k: knob.draw(own) for k, knob in space.knobs.get(recipe, {}).items()}
  return {
    "learning_rate_factor": _spread(space.learning_rate, number),
    "method": {k: v for k, v in drawn.items() if k not in fixed},
  }


def _spread(knob: Log, number: int) -> float:
  """Value ``number`` of the van der Corput sequence: 1/4, 3/4, 1/8, 5/8, ...

  A few random numbers may all lie on one side of the range; this sequence is
  spread evenly. Its values 0 and 1/2 are skipped: they are the end of the range
  and the default.
  """
  sequence = qmc.Halton(1, scramble=False)
  place = sequence.fast_forward(1 + number).random(1).item()
  low, high = math.log(knob.low), math.log(knob.high)
  return _rounded(math.exp(low + place * (high - low)))


def _rounded(x: float) -> float:
  return float(f"{x:.3g}")
