"""Tables of what each modality contributes, from ``results.json``.

``dmg_jax/evaluation/contributions.py`` defines the measures. A run of an older
version has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dmg_jax.report import skeleton
from dmg_jax.report.skeleton import Html
from dmg_jax.tracking.logging import mean_std

KEY = "contributions"
COLUMNS = {
  "shapley": "Shapley value",
  "gain": "gain",
  "alone": "alone",
  "only": "only this one",
}
MEANINGS = (
  "All values are of the fused prediction, where the other modalities are "
  "missing. Shapley value: the share in the accuracy above that of always "
  "predicting the most frequent class. Gain: what is lost without it. Alone: "
  "the accuracy with it alone. Only this one: samples that it alone gets right "
  "and no other one alone does; their sum is the complementarity.",
)
Found = Sequence[Mapping[str, Any]]


def of_results(results: Mapping[str, Any], split: str) -> dict[str, Any]:
  """The measures of a split; ``{}`` if the run has none."""
  return dict(results.get(KEY, {}).get(split, {}))


def lines(found: Found) -> list[list[str]]:
  """A line for each modality, and one for all of them; of a run or seeds."""
  body = [
    [m, *(_over(found, lambda x, c=c, m=m: x[c][m]) for c in COLUMNS)]
    for m in found[0]["shapley"]
  ]
  together = _over(found, lambda x: x["together"])
  above = _over(found, lambda x: x["together"] - x["nothing"])
  apart = _over(found, lambda x: x["complementarity"])
  return [*body, ["all", above, "", together, apart]]


def table_html(found: Found) -> Html:
  """HTML table of a run, or mean ± standard deviation over seeds."""
  head = ["modality", *COLUMNS.values()]
  caption = "Test split, %."
  if len(found) > 1:
    caption += f" Mean ± standard deviation of {len(found)} seeds."
  below = skeleton.bullets(list(MEANINGS))
  return Html(f"{skeleton.table(head, lines(found), caption)}\n{below}")


def sentence(found: Mapping[str, Any]) -> str:
  """One line for a terminal."""
  shares = ", ".join(f"{m} {100 * v:.1f}" for m, v in found["shapley"].items())
  apart = 100 * found["complementarity"]
  return f"Shapley values of accuracy: {shares}; complementarity {apart:.1f}"


def _over(found: Found, of: Any) -> str:
  return mean_std([of(x) for x in found])
