"""Ids and labels that predictions pass on."""

import datetime

import numpy as np
import pytest

import helpers
from data_pipelines.core import ModalitySpec, passing
from data_pipelines.manifest.unlabelled import Unlabelled
from data_pipelines.transforms import preprocess

GIVEN = [
  (1001.0, "1001.0"),
  (2**70, str(2**70)),
  (True, "True"),
  (np.float32(0.1), "0.1"),
  (" a ", " a "),
  ("007", "007"),
  (datetime.date(2024, 1, 2), "2024-01-02"),
  (datetime.datetime(2024, 1, 2, 3), "2024-01-02 03:00:00"),
  (np.datetime64("2024-01-02T03:00", "ns"), "2024-01-02 03:00:00"),
  (b"key", "key"),
  (None, ""),
  (float("nan"), ""),
  (np.datetime64("NaT"), ""),
  ("  ", ""),
]


@pytest.mark.parametrize(("value", "expected"), GIVEN)
def test_texts(value, expected):
  assert passing.text(value) == expected


def test_names_do_not_collide():
  made, notes = passing.names(["2", "row 3", "", "2", ""], [1, 2, 3, 4, 5])
  assert made == ["2", "row 3", "row 3'", "2", "row 5"]
  assert "2 rows have no id" in notes[0] and "'2'" in notes[1]
  assert passing.names(["1", "2"]) == (["1", "2"], [])


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet", "memory"])
def test_ids_of_a_table(ending, tmp_path):
  if ending == "parquet":
    pytest.importorskip("pyarrow")
  ids, labels = [1001.0, 3.0, None], [0.0, 1.0, None]
  rows = [
    {"id": i, "label": c, "a:text": "word"}
    for i, c in zip(ids, labels, strict=True)
  ]
  own = {
    "a": preprocess.Preprocessor(
      ModalitySpec("text", (2,), "int32", 3), {"length": 2, "words": ["word"]}
    )
  }
  given = {c: [r[c] for r in rows] for c in rows[0]}
  if ending != "memory":
    given = helpers.write_table(tmp_path / f"new.{ending}", rows)
  found = Unlabelled(given, own)
  assert found.ids == ["1001.0", "3.0", "row 3"]
  assert found.labels == ["0.0", "1.0", ""]
  assert "row 3 is 'row 3'" in found.notes[0]
