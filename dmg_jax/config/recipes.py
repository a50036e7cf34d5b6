"""Recipes: named pairs of a fusion and a method, one per row of the tables.

Options that are left out take the default of the method's ``make``. Every
option can be set by ``--config.method.<option>=<value>`` or after the name of
the recipe, as in ``lb,rate=0.1``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Recipe(NamedTuple):
  """A fusion and a method, with the options that differ from their defaults.

  Attributes:
    fusion: module of ``dmg_jax.model.fusion``.
    method: module of ``dmg_jax.methods``.
    options: arguments of the method's ``make``.
    source: the row of the paper's table, or where the settings come from.
    fusion_options: arguments of the fusion.
  """

  fusion: str
  method: str
  options: Mapping[str, Any]
  source: str
  fusion_options: Mapping[str, Any] = MappingProxyType({})


# One head per modality; the prediction is their mean (paper's released code).
_MEAN = {"mean": True}

RECIPES = {
  # Baselines and fusions.
  "joint": Recipe("concat", "joint", {}, "paper Table 1, CONCAT"),
  "concat": Recipe("concat", "joint", {}, "paper Table 1, CONCAT"),
  "unimodal": Recipe("sum", "unimodal", {}, "paper Table 1, first rows"),
  "ensemble": Recipe("sum", "ensemble", {}, "mean of probabilities"),
  "multitask": Recipe("sum", "multitask", {}, "w = 1 as in MMPareto", _MEAN),
  "sum": Recipe("sum", "joint", {}, "paper Table 1, Sum"),
  "affine": Recipe("affine", "joint", {}, "OGM-GE, fusion_modules"),
  "channel": Recipe("channel", "joint", {}, "MMTM, official code"),
  "ml_lstm": Recipe("ml_lstm", "joint", {}, "our reading: 2 layers of 256"),
  "weight": Recipe("weight", "weight", {}, "CMML, official code"),
  "etmc": Recipe("etmc", "etmc", {}, "ETMC, official code"),
  "tmc": Recipe(
    "etmc", "etmc", {}, "TMC, official code", {"pseudo_view": False}
  ),
  "mmcosine": Recipe("mmcosine", "joint", {}, "MMCosine, official code"),
  # The paper's method.
  "label_fitting": Recipe("concat", "label_fitting", {}, "paper Figure 1"),
  "constant": Recipe("concat", "constant", {}, "paper Table 4, α = .5"),
  "stepwise": Recipe("concat", "stepwise", {}, "paper Table 4, h(.95)"),
  "h": Recipe("concat", "heuristic", {}, "paper Table 1, Ours-H"),
  "heuristic": Recipe("concat", "heuristic", {}, "paper Table 1, Ours-H"),
  "h_heads": Recipe(
    "sum",
    "heuristic",
    {"unimodal_weight": 1.0, "scaled": True},
    "α of Ours-H, objective of lb",
    _MEAN,
  ),
  "lb": Recipe(
    "sum",
    "lb",
    {"unimodal_weight": 1.0},
    "paper Table 1, Ours-LB; with own heads",
    _MEAN,
  ),
  "lb_concat": Recipe("concat", "lb", {}, "eq. 1; α on held-out data"),
  "lb_forward": Recipe(
    "sum",
    "lb_forward",
    {"unimodal_weight": 1.0},
    "trajectory gradient",
    _MEAN,
  ),
  "auto": Recipe("sum", "auto", {}, "this project; α and w by default", _MEAN),
  "auto_forward": Recipe(
    "sum", "auto", {"form": "forward"}, "trajectory gradient", _MEAN
  ),
  "lfm_paper": Recipe(
    "concat",
    "lb",
    {"outer": "train", "normalise": "none", "scaled": False, "rate": 0.1},
    "paper eqs. 1-3 verbatim; rate ours",
  ),
  "lfm_code": Recipe(
    "sum", "lfm_code", {}, "released code, learned", {"mean": True}
  ),
  "lfm_code_fitted": Recipe(
    "sum",
    "lfm_code",
    {"fitted": True},
    "released code, as in its README",
    {"mean": True},
  ),
  # Rebalancing methods of the paper's tables.
  "mses": Recipe("own_heads", "mses", {}, "AGM's repository; patience ours"),
  "gblend": Recipe("own_heads", "gblend", {}, "offline, one probe epoch"),
  "gblend_online": Recipe(
    "own_heads", "gblend", {"online": True}, "BalanceBenchmark, 10 epochs"
  ),
  "ogm": Recipe("concat", "ogm_ge", {"noise": False}, "OGM, CREMA-D script"),
  "ogm_ge": Recipe("concat", "ogm_ge", {}, "OGM-GE, CREMA-D script"),
  "greedy": Recipe("channel", "greedy", {}, "official code"),
  "domfn": Recipe(
    "own_heads", "domfn", {}, "official code, MOSI", {"hidden": 64}
  ),
  "mslr": Recipe("sum", "mslr", {}, "AGM's repository, window 5"),
  "pmr": Recipe("concat", "pmr", {}, "official scripts; coefficients: paper"),
  "agm": Recipe("concat", "agm", {}, "official code, CREMA-D"),
  "mla": Recipe("shared_head", "mla", {}, "official defaults"),
  # The other methods of BalanceBenchmark.
  "opm": Recipe("concat", "opm", {}, "BML, official script"),
  "amco": Recipe("concat", "amco", {}, "BalanceBenchmark; cap ours"),
  "umt": Recipe("concat", "umt", {}, "BalanceBenchmark, λ = 10"),
  "mbsd": Recipe("concat", "mbsd", {}, "BalanceBenchmark"),
  "cml": Recipe("concat", "cml", {}, "BalanceBenchmark, λ = .1"),
  "mmpareto": Recipe("own_heads", "mmpareto", {}, "official code, γ = 1.5"),
  "reconboost": Recipe("boost", "reconboost", {}, "official code, CREMA-D"),
  "relearning": Recipe("concat", "relearning", {}, "official code"),
  "valuation": Recipe("concat", "valuation", {}, "official, sample level"),
  "aug": Recipe("aug", "aug", {}, "official code; boosters trained"),
  "bss": Recipe("own_heads", "bss", {}, "official, learning-based"),
  "bss_heuristic": Recipe(
    "own_heads", "bss", {"scheduler": "heuristic"}, "official, heuristic"
  ),
  "valuation_modality": Recipe(
    "concat", "valuation", {"level": "modality"}, "official, modality level"
  ),
  # The newest methods.
  "tcmax": Recipe("concat", "tcmax", {}, "official code"),
  "mcr": Recipe("own_heads", "mcr", {}, "official code, CREMA-D"),
  "dgl": Recipe("concat", "dgl", {}, "official script, CREMA-D, α = 4"),
  "arl": Recipe("concat", "arl", {}, "official script, CREMA-D; w is used"),
  "cggm": Recipe("own_heads", "cggm", {}, "official scripts, ρ = 1.3"),
  "inforeg": Recipe("concat", "inforeg", {}, "official code, β of the audio"),
  "g2d": Recipe("sum", "g2d", {}, "official code, late fusion", _MEAN),
  "iprm": Recipe("slerp", "iprm", {}, "official scripts, α = .8"),
  "remix": Recipe("own_heads", "remix", {}, "official defaults"),
  "cpsc": Recipe("components", "cpsc", {}, "official; start as on MVSA"),
  "igm": Recipe("sum", "igm", {}, "official, CREMA-D; ρ as in SAM", _MEAN),
  "amss": Recipe("concat", "amss", {}, "official, CREMA-D; unbiased"),
}
