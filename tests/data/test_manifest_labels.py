"""Labels in several forms, and numbers as labels in each format."""

import decimal
import unicodedata

import numpy as np
import pandas as pd
import pytest

import helpers
from data_pipelines.manifest import labels, memory, table
from helpers import MANIFEST
from helpers import prepare_manifest as prepare


def rows(names, n=48):
  return [
    {
      "split": "train" if i < 2 * n // 3 else "test",
      "label": names[i % len(names)],
      "a:text": f"word {i}",
    }
    for i in range(n)
  ]


@pytest.mark.parametrize("names,said", [
  (["Cat", "cat"], "'Cat' (24 rows) and 'cat' (24 rows) are 2 classes that "
   "differ only in case"),
  (["hot dog", "hotdog"], "differ only in spaces, - or _"),
  (["hot dog", "hot  dog"], "differ only in spaces, - or _"),
  (["hot_dog", "hot-dog"], "differ only in spaces, - or _"),
  (["hot\u00a0dog", "hot dog"], "differ only in Unicode form or signs"),
  (["\ufb01sh", "fish"], "differ only in Unicode form or signs"),
  (["\uff21", "A"], "differ only in Unicode form or signs"),
  (["ca\u200bt", "cat"], "'ca\\u200bt' (24 rows)"),
  (["01", "1"], "differ only in number format"),
  (["1e0", "1"], "differ only in number format"),
  (["+1", "1"], "differ only in number format"),
  (["0.5", ".50"], "differ only in number format"),
  (["1E3", "1000"], "differ only in number format"),
  (["STRASSE", "stra\u00dfe"], "differ only in case"),
  (["Hot Dog", "hotdog"], "are 2 classes that differ only in"),
  (["a", "A", "b"], "'A' (16 rows) and 'a' (16 rows) are 2 classes"),
])  # fmt: skip
def test_classes_that_look_like_one_are_noted(tmp_path, names, said):
  path = helpers.write_table(tmp_path / "m.csv", rows(names))
  made = prepare(path, tmp_path / "data")
  assert [n for n in made.notes if said in n], made.notes
  assert len(made.classes) == len(names)


@pytest.mark.parametrize("names", [
  ["cat", "dog"], ["1", "-1"], ["1", "10"], ["1.5", "15"],
  ["caf\u00e9", "cafe"], ["a1", "a01"], ["1-2", "12"], ["0", "1"],
  ["inf", "Infinity"], ["x", "x2"],
])  # fmt: skip
def test_classes_that_differ_are_not_noted(tmp_path, names):
  path = helpers.write_table(tmp_path / "m.csv", rows(names))
  made = prepare(path, tmp_path / "data")
  assert not [n for n in made.notes if "'label'" in n]


def test_many_groups_are_counted():
  counts = {f"{c}{n}": 1 for n in "abcdefgh" for c in ("x", "X")}
  notes = labels.alike(counts)
  assert len(notes) == 6 and "3 more groups" in notes[-1]
  notes = labels.alike({"cat" + " " * i + "s": 1 for i in range(9)})
  assert "and 4 more are 9 classes" in notes[0]


def test_one_unicode_form(tmp_path):
  names = [unicodedata.normalize(f, "caf\u00e9") for f in ("NFC", "NFD")]
  path = helpers.write_table(tmp_path / "m.csv", rows([*names, "tea"]))
  made = prepare(path, tmp_path / "data")
  assert made.classes == (names[0], "tea")
  assert sum(made.counts["test"].values()) == 16
  assert any("16 labels are brought to" in note for note in made.notes)


NUMBERS = {
  "whole": ([0.0, 1.0, 2.0], ("0", "1", "2")),
  "parts": ([0.5, 1.0, 1.5], ("0.5", "1", "1.5")),
  "single": ([np.float32(0.1), np.float32(2.0)], ("0.1", "2")),
  "true": ([True, False], ("False", "True")),
  "integer": ([1, 0], ("0", "1")),
  "decimal": (
    [decimal.Decimal("1.00"), decimal.Decimal("2.50")],
    ("1", "2.50"),
  ),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_the_same_labels_in_each_format(tmp_path, name):
  values, classes = NUMBERS[name]
  frame = pd.DataFrame(rows(list(range(len(values)))))
  dtype = getattr(values[0], "dtype", None)
  frame["label"] = pd.Series([values[i] for i in frame["label"]], dtype=dtype)
  frame.to_csv(tmp_path / "m.csv", index=False)
  frame.to_csv(tmp_path / "m.tsv", index=False, sep="\t")
  frame.to_parquet(tmp_path / "m.parquet")
  frame.to_json(tmp_path / "m.jsonl", orient="records", lines=True)
  endings = ["csv", "tsv", "parquet"]
  if name not in ("single", "decimal"):  # pandas writes other digits.
    endings.append("jsonl")
  for ending in endings:
    made = prepare(tmp_path / f"m.{ending}", tmp_path / "data")
    assert made.classes == classes and not made.problems, ending
  made = memory.prepare(frame, tmp_path / "data", **MANIFEST)
  assert made.classes == classes
  columns = {c: list(frame[c]) for c in frame} | {"label": values * 16}
  if len(values) == 3:
    assert (
      memory.prepare(columns, tmp_path / "d", **MANIFEST).classes == classes
    )


def test_ids_are_kept_as_they_are(tmp_path):
  frame = pd.DataFrame(rows(["a", "b"]))
  frame.insert(0, "id", [float(i) for i in range(48)])
  frame.to_parquet(tmp_path / "m.parquet")
  read = table.read(tmp_path / "m.parquet")
  assert [line.cells["id"] for line in read.lines[:2]] == ["0.0", "1.0"]


def test_label_of():
  for cell, label in (
    ("1.0", "1"), ("-2.00", "-2"), ("-0.0", "0"), ("10.0", "10"), ("1.", "1."),
    ("01.0", "01.0"), ("1.50", "1.50"), ("v1.0", "v1.0"), ("1.0.0", "1.0.0"),
    ("e\u0301", "\u00e9"), ("", ""),
  ):  # fmt: skip
    assert labels.label_of(cell) == label
