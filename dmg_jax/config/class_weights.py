r"""Weights of classes, as the field ``train.class_weights`` names them.

``balanced`` is, for a class c with n_c of the n training samples,

.. math:: w_c = \frac{n}{K\, n_c}

where K counts the classes that train has; a class that it lacks has weight 1.
The alternative is a table, ``cat=1,dog=2.5`` or JSON, ``{"cat": 1, "dog":
2.5}``, for names with a comma or an equals sign. Classes that it leaves out
have weight 1.

Only ratios matter: weights are divided by their mean over the training samples,
and by their mean over a batch in the loss (``losses.with_class_weights``).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dmg_jax.errors import InputError, unknown

BALANCED = "balanced"
FIELD = "train.class_weights"
_HOW = f"give '', {BALANCED!r}, or a weight for each class, as cat=1,dog=2.5"


def parse(text: str) -> str | dict[str, float]:
  """``""``, ``"balanced"`` or ``{class: weight}``; see the module.

  Raises:
    ValueError: it is none of these, or a weight is negative, infinite or NaN,
      or all are 0.
  """
  if text in ("", BALANCED):
    return text
  table = {k: _weight(k, v) for k, v in _pairs(text).items()}
  if not table:
    raise InputError(f"{FIELD} names no class: {_HOW}")
  return table


def resolve(
  text: str, classes: Sequence[str], counts: Sequence[int] | np.ndarray
) -> np.ndarray | None:
  """The weights [k], with mean 1 over train; ``None`` if they change nothing.

  Args:
    text: the field.
    classes: names, in the order of their labels.
    counts: [k], training samples of each class.

  Raises:
    ValueError: as ``parse``; a class that the data do not have; or no training
      sample has a weight above 0.
  """
  table, n = parse(text), np.asarray(counts, np.float64)
  if table == "":
    return None
  if isinstance(table, dict):
    for name in table:
      if name not in classes:
        raise unknown(f"class of {FIELD}", name, classes)
    weights = np.array([table.get(c, 1.0) for c in classes])
  else:
    weights = 1 / np.maximum(n, 1)
    weights *= n.sum() / np.count_nonzero(n)
    weights[n == 0] = 1.0
  mean = (weights * n).sum() / n.sum()
  if mean <= 0:
    raise InputError(
      f"{FIELD} gives no training sample a weight above 0: {_HOW}"
    )
  if np.ptp(weights) == 0:
    return None
  return weights / mean


def to_text(table: Mapping[Any, Any]) -> str:
  """A table of weights as the text that ``parse`` reads.

  Raises:
    ValueError: a weight is no number.
  """
  return json.dumps(
    {str(k): _weight(str(k), v) for k, v in table.items()}, ensure_ascii=False
  )


def _pairs(text: str) -> dict[str, Any]:
  """{class: weight}, the weights as given."""
  if text.lstrip().startswith("{"):
    try:
      found = json.loads(text, object_pairs_hook=lambda pairs: pairs)
    except ValueError as error:
      raise InputError(
        f"{FIELD} is no JSON object ({error}): {_HOW}"
      ) from error
  else:
    parts = [p.rpartition("=") for p in text.split(",")]
    bad = [value for _, equals, value in parts if not equals]
    if bad:
      raise InputError(f"{FIELD} has {bad[0]!r} without a weight: {_HOW}")
    found = [(name.strip(), value) for name, _, value in parts]
  names = [name for name, _ in found]
  for name in names:
    if names.count(name) > 1:
      raise InputError(f"{FIELD} names the class {name!r} twice")
  return dict(found)


def _weight(name: str, value: Any) -> float:
  """The weight of a class as a number of at least 0."""
  try:
    if isinstance(value, bool):
      raise TypeError
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not (math.isfinite(number) and number >= 0):
    raise InputError(
      f"{FIELD}: the weight of {name!r} must be a number of at least 0, got "
      f"{value!r}"
    )
  return number


def even_chances(labels: np.ndarray) -> np.ndarray:
  r"""Chances [n] with which all classes are drawn equally often.

  .. math:: P(i) = \frac{1}{K\, n_{y_i}}

  with K and n as in the module.
  """
  counts = np.bincount(labels)
  return 1 / (np.count_nonzero(counts) * counts[labels].astype(np.float64))
