"""The tables: their rows, what they score, and what is to be known of them.

A row is a recipe with keys, called by a short name; the paper's figures are in
``dmg_jax/tables/paper.py`` under the same names. ``multitask`` is a row of
every table, because a loss at each modality is the least that a method for
imbalance has to beat; it and ``joint``, where a table of the paper lacks it,
are additions.
"""

from __future__ import annotations

from typing import NamedTuple

from dmg_jax.config.recipes import RECIPES

ALIASES = {"concat": "joint", "heuristic": "h"}
REFERENCE = "joint"


class RowSpec(NamedTuple):
  """How a row is called in the table, and the recipe string that makes it."""

  label: str
  recipe: str


class TableSpec(NamedTuple):
  """One table of the paper, or of ours.

  Attributes:
    title: what it is.
    rows: names, in order; ``unimodal`` stands for one row a modality.
    scores: ``both`` (accuracy, then mAP or macro-F1), ``accuracy`` or
      ``second`` (mAP or macro-F1); unimodal columns show the first of them.
    encoders: value of the data set's key ``encoders``, if the table asks.
    notes: what the reader must know of the table.
    added: rows that the paper's table lacks.
  """

  title: str
  rows: tuple[str, ...]
  scores: str = "both"
  encoders: str = ""
  notes: tuple[str, ...] = ()
  added: tuple[str, ...] = ("multitask",)


_LABELS = {
  "unimodal": "Modalities alone",
  "joint": "Concat",
  "affine": "Affine",
  "channel": "Channel",
  "ml_lstm": "ML-LSTM",
  "sum": "Sum",
  "weight": "Weight",
  "etmc": "ETMC",
  "tmc": "TMC",
  "mses": "MSES",
  "gblend": "G-Blend",
  "ogm": "OGM",
  "ogm_ge": "OGM-GE",
  "greedy": "Greedy",
  "domfn": "DOMFN",
  "mslr": "MSLR",
  "pmr": "PMR",
  "agm": "AGM",
  "mla": "MLA",
  "multitask": "Multitask",
  "h": "Ours-H",
  "h_heads": "Ours-H, own heads",
  "lb_concat": "Ours-LB, concat",
  "lb": "Ours-LB",
}
_OWN = {
  "constant_0": RowSpec("Constant, α = 0", "constant,alpha=0.0"),
  "constant_50": RowSpec("Constant, α = 0.5", "constant,alpha=0.5"),
  "constant_100": RowSpec("Constant, α = 1", "constant,alpha=1.0"),
  "stepwise_0": RowSpec("Stepwise, h(0)", "stepwise,p=0.0"),
  "stepwise_5": RowSpec("Stepwise, h(0.05)", "stepwise,p=0.05"),
  "stepwise_95": RowSpec("Stepwise, h(0.95)", "stepwise,p=0.95"),
  "stepwise_100": RowSpec("Stepwise, h(1)", "stepwise,p=1.0"),
}
_RECIPE_ROWS = {
  name: RowSpec(_LABELS.get(name, name), name)
  for name in RECIPES
  if name not in ALIASES
}
ROWS: dict[str, RowSpec] = _RECIPE_ROWS | _OWN

_STRATEGY_ROWS = (
  "constant_0", "constant_50", "constant_100",
  "stepwise_0", "stepwise_100", "stepwise_5", "stepwise_95",
  "h", "lb_concat", "multitask", "h_heads", "lb",
)  # fmt: skip
_HEADS_NOTE = (
  "Ours-LB has a head and a cross-entropy at each modality, as Multitask: its "
  "difference from Multitask (α = 0) is what matching adds, that from Ours-H, "
  "own heads what learning α adds. Ours-LB, concat has the objective of the "
  "paper's eq. 1, as the other rows for α."
)
_STRATEGIES = TableSpec(
  "Strategies for α",
  _STRATEGY_ROWS,
  "accuracy",
  notes=(_HEADS_NOTE,),
  added=("lb_concat", "multitask", "h_heads"),
)
_ABLATION_NOTE = (
  "Concat is without contrastive learning (CL) and dynamic integration (DI), "
  "Ours-LB with both. CL without DI is Constant, α = 0.5: the paper does not "
  "say which constant it took."
)
# Row -> what the reader must know where the table has it.
ROW_NOTES = {
  "constant_100": "Constant, α = 1: no label reaches the model, so its "
  "classifier stays as initialised and ours is at chance. The paper's figure "
  "is above chance and must come from another read-out, which it does not "
  "describe.",
  "stepwise_0": "h(p) is α = p in the first half of training and 1 - p after. "
  "What is scored is the state that was best on val, which for h(0) lies in "
  "the first half.",
}

TABLES = {
  "table1": TableSpec(
    "Comparison of methods",
    (
      "unimodal",
      "joint",
      "affine",
      "channel",
      "ml_lstm",
      "sum",
      "weight",
      "etmc",
      "mses",
      "gblend",
      "ogm",
      "greedy",
      "domfn",
      "mslr",
      "pmr",
      "agm",
      "mla",
      "multitask",
      "h",
      "lb",
    ),
  ),
  "table2": TableSpec(
    "Comparison of methods for three modalities",
    ("joint", "mses", "gblend", "mslr", "agm", "mla", "multitask", "h", "lb"),
    notes=("G-Blend is the row that the paper calls OGR-GB here.",),
    added=("joint", "multitask"),
  ),
  "table3": TableSpec(
    "Ablation of contrastive learning and dynamic integration",
    ("joint", "constant_50", "lb_concat", "multitask", "lb"),
    scores="second",
    notes=(_ABLATION_NOTE, _HEADS_NOTE),
    added=("lb_concat", "multitask"),
  ),
  "table4": _STRATEGIES,
  "table5": TableSpec(
    "Encoders of CLIP",
    ("joint", "mla", "multitask", "lb"),
    scores="accuracy",
    encoders="clip",
    notes=(
      "Concat is the paper's row CLIP, fine-tuned with both towers, and "
      "Ours-LB its row CLIP+Ours; the paper does not say whether that is -H or "
      "-LB.",
    ),
  ),
  "tableA1": TableSpec(
    "Ours over seeds",
    ("joint", "multitask", "h", "lb"),
    added=("joint", "multitask"),
  ),
  "tableA2": TableSpec(
    "Ablation of contrastive learning and dynamic integration",
    ("joint", "constant_50", "lb_concat", "multitask", "lb"),
    scores="second",
    notes=(_ABLATION_NOTE, _HEADS_NOTE),
    added=("lb_concat", "multitask"),
  ),
  "tableA3": _STRATEGIES,
  "methods": TableSpec(
    "All recipes",
    tuple(_RECIPE_ROWS),
    notes=("Not a table of the paper: every recipe of dmg_jax.recipes().",),
    added=(),
  ),
}

TABLES["allrows"] = TABLES["methods"]
