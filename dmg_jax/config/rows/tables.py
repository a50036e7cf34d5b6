"""The tables: their rows, their scores, and the notes below them.

A row is a recipe with keys under a short name; the paper's numbers are in
``dmg_jax/tables/paper.py`` under the same names. Those of Ours-LB stand at
``lfm_paper``, whose objective and update of α are the paper's; ``lb`` is this
project's variant and stands beside it in every table. Two baselines are in
every table, too, for they are the least that a method for imbalance has to
beat: ``ensemble``, the average of encoders trained apart, and ``multitask``, a
loss at each modality. These three, and ``joint`` where the paper's table lacks
it, are additions.
"""

from __future__ import annotations

from typing import NamedTuple

from dmg_jax.config.recipes import RECIPES

ALIASES = {"concat": "joint", "heuristic": "h"}
REFERENCE = "joint"


class RowSpec(NamedTuple):
  """A row: a recipe under a name.

  Attributes:
    label: its name in the table.
    recipe: the recipe string that makes it, with its keys.
    group: what the rows have in common that it is compared with; rows of
      different groups are not compared. Most tables are one group.
    base: its name within the group; empty if that is its name.
  """

  label: str
  recipe: str
  group: str = ""
  base: str = ""


class TableSpec(NamedTuple):
  """One table of the paper, or of ours.

  Attributes:
    title: in a few words.
    rows: names, in order; ``unimodal`` stands for one row for each modality.
    scores: ``both`` (accuracy, then mAP or macro-F1), ``accuracy`` or
      ``second`` (mAP or macro-F1); unimodal columns show the first of them.
    encoders: value of the data set's key ``encoders``, if the table sets one.
    notes: sentences below the table.
    added: rows that the paper's table lacks.
    missing: whether every row is run at several rates of missing modalities.
  """

  title: str
  rows: tuple[str, ...]
  scores: str = "both"
  encoders: str = ""
  notes: tuple[str, ...] = ()
  added: tuple[str, ...] = ("ensemble", "multitask", "lb")
  missing: bool = False


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
  "ensemble": "Ensemble",
  "multitask": "Multitask",
  "h": "Ours-H",
  "h_heads": "Ours-H, own heads",
  "lb_concat": "Ours-LB, concat",
  "lfm_paper": "Ours-LB, as published",
  "lb": "Ours-LB",
}
_OWN = {
  "zero_feature": RowSpec("Zero feature", "joint"),
  "modality_dropout": RowSpec("Modality dropout", "joint,modality_dropout=0.3"),
  "own_heads": RowSpec("Own heads", "multitask"),
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
  "h", "lfm_paper", "lb_concat", "ensemble", "multitask", "h_heads", "lb",
)  # fmt: skip
_HEADS_NOTE = (
  "The difference between Ours-LB and Multitask, which has the same heads and "
  "α = 0, is what matching adds; that between Ours-LB and Ours-H, own heads is "
  "what learning α adds. Ours-LB, concat has the objective of the paper's eq. "
  "1, as the other rows for α, and updates α as Ours-LB does."
)
_STRATEGIES = TableSpec(
  "Strategies for α",
  _STRATEGY_ROWS,
  "accuracy",
  notes=(_HEADS_NOTE,),
  added=("lb_concat", "ensemble", "multitask", "h_heads", "lb"),
)
_ABLATION_NOTE = (
  "Concat has neither contrastive learning (CL) nor dynamic integration (DI); "
  "Ours-LB has both. CL without DI is Constant, α = 0.5: the paper does not "
  "say which constant it used."
)
# Row -> note below every table that has the row.
ROW_NOTES = {
  "constant_100": "Constant, α = 1: no label reaches the model, so its "
  "classifier stays as initialised, at chance. The paper's number is above "
  "chance and must come from another read-out, which it does not describe.",
  "stepwise_0": "h(p) is α = p in the first half of training and 1 - p after. "
  "The state that was best on val is scored, which for h(0) lies in the first "
  "half.",
  "lb": "Ours-LB is this project's variant and its objective is not the "
  "paper's: each modality has a head and a cross-entropy of its own (w = 1), α "
  "is learned on held-out data by normalised steps, and matching is divided by "
  "log n. So none of the paper's numbers applies to it.",
  "lfm_paper": "Ours-LB, as published follows eqs. 1-3 of the paper: concat, "
  "classification by the fused prediction alone (w = 0), both levels on "
  "training data, plain gradient steps of α. The paper's numbers for Ours-LB "
  "stand here. It gives neither a rate for α (here 0.1) nor a temperature "
  "(here 0.1).",
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
      "ensemble",
      "multitask",
      "h",
      "lfm_paper",
      "lb",
    ),
  ),
  "table2": TableSpec(
    "Comparison of methods for three modalities",
    (
      "joint",
      "mses",
      "gblend",
      "mslr",
      "agm",
      "mla",
      "ensemble",
      "multitask",
      "h",
      "lfm_paper",
      "lb",
    ),
    notes=("G-Blend is the row that the paper calls OGR-GB here.",),
    added=("joint", "ensemble", "multitask", "lb"),
  ),
  "table3": TableSpec(
    "Ablation of contrastive learning and dynamic integration",
    (
      "joint",
      "constant_50",
      "lfm_paper",
      "lb_concat",
      "ensemble",
      "multitask",
      "lb",
    ),
    scores="second",
    notes=(_ABLATION_NOTE, _HEADS_NOTE),
    added=("lb_concat", "ensemble", "multitask", "lb"),
  ),
  "table4": _STRATEGIES,
  "table5": TableSpec(
    "Encoders of CLIP",
    ("joint", "mla", "ensemble", "multitask", "lfm_paper", "lb"),
    scores="accuracy",
    encoders="clip",
    notes=(
      "Concat is the paper's row CLIP, fine-tuned with both towers, and "
      "Ours-LB, as published its row CLIP+Ours; the paper does not say whether "
      "that is -H or -LB.",
    ),
  ),
  "tableA1": TableSpec(
    "Ours over seeds",
    ("joint", "ensemble", "multitask", "h", "lfm_paper", "lb"),
    added=("joint", "ensemble", "multitask", "lb"),
  ),
  "tableA2": TableSpec(
    "Ablation of contrastive learning and dynamic integration",
    (
      "joint",
      "constant_50",
      "lfm_paper",
      "lb_concat",
      "ensemble",
      "multitask",
      "lb",
    ),
    scores="second",
    notes=(_ABLATION_NOTE, _HEADS_NOTE),
    added=("lb_concat", "ensemble", "multitask", "lb"),
  ),
  "tableA3": _STRATEGIES,
  "cost": TableSpec(
    "Imbalance cost",
    ("unimodal", "joint", "ensemble", "multitask"),
    notes=(
      "Not a table of the paper. The imbalance cost is what joint training "
      "(Concat) loses to the better of Ensemble, encoders trained apart, and "
      "Multitask, a loss at each modality, of which val has chosen one.",
    ),
    added=(),
  ),
  "missing": TableSpec(
    "Missing modalities",
    ("zero_feature", "modality_dropout", "ensemble", "own_heads", "lb"),
    notes=(
      "Not a table of the paper. The rate is divided evenly over the "
      "modalities that are hidden: of two, each is hidden in half of that "
      "share of the samples, in training and in test alike; each row has the "
      "same samples. Zero feature "
      "is Concat: a missing modality's features are zero. Modality dropout is "
      "Concat that hides further modalities in training, each with chance 0.3. "
      "Ensemble and Own heads (Multitask) average the heads of what is there.",
    ),
    added=(),
    missing=True,
  ),
  "methods": TableSpec(
    "All recipes",
    tuple(_RECIPE_ROWS),
    notes=("Not a table of the paper: every recipe of dmg_jax.recipes().",),
    added=(),
  ),
}
