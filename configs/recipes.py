"""Recipes: one line a row of the paper's tables, ``fusion, method, options``.

Options left out have the default of the method's ``make``; all of them can be
overridden as ``--config.method.<option>=<value>`` or after the recipe's name,
``lb,rate=0.1``.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Recipe(NamedTuple):
  """A fusion, a method and the options in which they differ from default."""

  fusion: str
  method: str
  options: dict[str, Any]
  source: str


RECIPES = {
  "joint": Recipe("concat", "joint", {}, "paper Table 1, CONCAT"),
  "concat": Recipe("concat", "joint", {}, "paper Table 1, CONCAT"),
  "sum": Recipe("sum", "joint", {}, "paper Table 1, Sum"),
  "unimodal": Recipe("concat", "unimodal", {}, "paper Table 1, first rows"),
  "multitask": Recipe("sum", "multitask", {}, "own heads; see the method"),
  "label_fitting": Recipe("concat", "label_fitting", {}, "paper Figure 1"),
  "constant": Recipe("concat", "constant", {}, "paper Table 4, α = .5"),
  "stepwise": Recipe("concat", "stepwise", {}, "paper Table 4, h(.95)"),
  "h": Recipe("concat", "heuristic", {}, "paper Table 1, Ours-H"),
  "heuristic": Recipe("concat", "heuristic", {}, "paper Table 1, Ours-H"),
  "lb": Recipe("concat", "lb", {}, "paper Table 1, Ours-LB"),
  "lb_forward": Recipe("concat", "lb_forward", {}, "trajectory gradient"),
  "ogm_ge": Recipe("concat", "ogm_ge", {}, "OGM-GE, official CREMA-D script"),
  "mla": Recipe("shared_head", "mla", {}, "MLA, official defaults"),
}
