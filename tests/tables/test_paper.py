"""The paper's figures, some of them read again from its tables."""

import re

import pytest

from dmg_jax.config.rows.tables import ROWS, TABLES
from dmg_jax.tables import paper

CELLS = [
  ("table1", "joint", "kinetics_sounds", "fused", "accuracy", "64.55"),
  ("table1", "unimodal_audio", "crema_d", "fused", "map", "68.61"),
  ("table1", "unimodal_text", "twitter2015", "fused", "accuracy", "73.67"),
  ("table1", "unimodal_image", "sarcasm", "fused", "macro_f1", "70.73"),
  ("table1", "ogm", "twitter2015", "fused", "accuracy", "74.92"),
  ("table1", "mla", "crema_d", "fused", "map", "85.72"),
  ("table1", "pmr", "sarcasm", "fused", "macro_f1", "82.49"),
  ("table1", "lfm_paper", "kinetics_sounds", "fused", "map", "78.38"),
  ("table2", "gblend", "nvgesture", "fused", "accuracy", "82.99"),
  ("table2", "h", "nvgesture", "fused", "macro_f1", "83.87"),
  ("table3", "constant_50", "kinetics_sounds", "gap", "map", "3.80"),
  ("table4", "stepwise_100", "kinetics_sounds", "video", "accuracy", "41.45"),
  ("table4", "constant_0", "kinetics_sounds", "audio", "accuracy", "49.17"),
  ("table5", "lfm_paper", "twitter2015", "image", "accuracy", "64.67"),
  ("table5", "mla", "sarcasm", "fused", "accuracy", "84.45"),
  ("tableA1", "lfm_paper", "crema_d", "fused", "map", "90.06±1.09"),
  ("tableA1", "h", "nvgesture", "fused", "accuracy", "83.24±0.07"),
  ("tableA2", "joint", "sarcasm", "text", "macro_f1", "77.96"),
  ("tableA2", "lfm_paper", "twitter2015", "gap", "macro_f1", "16.25"),
  ("tableA3", "stepwise_5", "crema_d", "video", "accuracy", "46.41"),
  ("tableA3", "lfm_paper", "crema_d", "audio", "accuracy", "65.13"),
]
ABSENT = [
  ("table1", "channel", "sarcasm", "fused", "accuracy"),
  ("table1", "greedy", "twitter2015", "fused", "macro_f1"),
  ("table1", "multitask", "crema_d", "fused", "accuracy"),
  ("table1", "lfm_paper", "openmoji", "fused", "accuracy"),
  ("methods", "lfm_paper", "crema_d", "fused", "accuracy"),
  ("table1", "lb", "crema_d", "fused", "accuracy"),
  ("table4", "lb_concat", "kinetics_sounds", "fused", "accuracy"),
]


@pytest.mark.parametrize("place", CELLS, ids=lambda x: "-".join(x[:3]))
def test_cells(place):
  found = paper.reported(*place[:5])
  assert found is not None and found.printed == place[5]
  mean, _, std = place[5].partition("±")
  assert found[:2] == (float(mean), float(std) if std else None)


@pytest.mark.parametrize("place", ABSENT, ids=lambda x: "-".join(x[:3]))
def test_absent(place):
  assert paper.reported(*place) is None


def test_gaps_are_those_of_the_modalities():
  """All but two that the paper has wrong."""
  slips = {("crema_d", "constant_50"): 0.54}
  slips["kinetics_sounds", "constant_50"] = 0.2
  for table, dataset, score, heads in (
    ("table3", "kinetics_sounds", "map", ("audio", "video")),
    ("tableA2", "crema_d", "map", ("audio", "video")),
    ("tableA2", "sarcasm", "macro_f1", ("image", "text")),
    ("tableA2", "twitter2015", "macro_f1", ("image", "text")),
  ):
    for row in ("joint", "constant_50", "lfm_paper"):
      a, b, gap = (
        paper.reported(table, row, dataset, h, score) for h in (*heads, "gap")
      )
      assert a and b and gap
      slip = slips.get((dataset, row), 0)
      assert abs(a.mean - b.mean) - gap.mean == pytest.approx(slip, abs=0.006)


def test_every_figure_has_its_row():
  for table, row, _ in paper._REPORTED:
    rows = TABLES[table].rows
    own = re.match(r"unimodal_", row) and "unimodal" in rows
    assert own or (row in rows and row in ROWS), (table, row)


def test_data_sets():
  assert paper.datasets("table5") == ("sarcasm", "twitter2015")
  assert paper.datasets("methods") == ()
