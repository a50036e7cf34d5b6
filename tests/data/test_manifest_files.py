"""Tables as people have them: quotes, divisions, encodings, other formats."""

import csv
import decimal
import json
import re

import numpy as np
import pandas as pd
import pytest

import helpers
from data_pipelines import core
from data_pipelines.manifest import table
from helpers import prepare_manifest as prepare

HEADER = "split,label,a:text,b:text"


def texts(n=24):
  return [
    {
      "split": "train" if i < 2 * n // 3 else "test",
      "label": ("cat", "dog")[i % 2],
      "a:text": f"word {i}",
      "b:text": f"text {i}",
    }
    for i in range(n)
  ]


def lines_of(rows, delimiter=","):
  return [
    delimiter.join(row) for row in ([*rows[0]], *(r.values() for r in rows))
  ]


def written(path, content, encoding="utf-8"):
  path.write_bytes(content.encode(encoding))
  return path


def refused(path, tmp_path):
  with pytest.raises(core.DataError) as caught:
    prepare(path, tmp_path / "data")
  return str(caught.value)


@pytest.mark.parametrize("name", ["m.csv", "m.tsv"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("column", ["b:text", "a:text", "label"])
@pytest.mark.parametrize("last", [4, 9, 23])
def test_an_open_quote_is_a_fault_of_its_row(tmp_path, name, end, column, last):
  rows = texts()
  rows[3][column] = '"' + rows[3][column]
  rows[last][column] += '"'
  divided = lines_of(rows, "\t" if name == "m.tsv" else ",")
  path = written(tmp_path / name, end.join(divided) + end)
  ends = last - 3
  said = refused(path, tmp_path)
  assert column == "label" or "1 problem in 1 row" in said
  assert f"row 4, column {column!r}: the cell holds {ends} line end" in said
  assert f"lines 5 to {last + 2} of the file" in said
  kept = prepare(path, tmp_path / "data", skip_bad=True)
  assert sum(sum(n.values()) for n in kept.counts.values()) >= 22


def test_a_quote_that_does_not_fit_is_a_fault_of_its_row(tmp_path):
  rows = lines_of(texts())
  rows[4] = 'train,dog,word 3,"open'
  rows[9] = 'train,cat,word 8,"a, b"'
  rows[14] = 'train,dog,word 13,"so "to say""'
  rows[20] = 'test,dog,"never closed,text'
  path = written(tmp_path / "m.csv", "\n".join(rows))
  said = refused(path, tmp_path)
  assert "3 problems in 3 rows" in said
  assert "row 4, column 'b:text': the quote that opens in line 5" in said
  assert "closed in line 10, in front of '\"a, b\"'" in said
  assert "row 14, column 'b:text': the quote that opens in line 15" in said
  assert "row 20, column 'a:text': the quote that opens in line 21 of" in said
  assert "not closed when the file ends, 4 line ends later" in said
  kept = prepare(path, tmp_path / "data", skip_bad=True)
  assert kept.problems[0].startswith("3 of ")
  assert kept.counts["test"] == {"cat": 4, "dog": 3}


@pytest.mark.parametrize("text", [
  "A sentence.\nAnother, longer one.\n\nAnd a third.",
  'He said: "no, never",\nand left, of course, at once.',
  "of lines, of words, of, commas\nend",
  "look:\ntrain,cat,hello,you\nand so on",
  "look:\n" + "\n".join(lines_of(texts())),
  "train,cat,a,b\ntest,dog,c,d",
])  # fmt: skip
@pytest.mark.parametrize("column", ["a:text", "b:text"])
@pytest.mark.parametrize("name", ["m.csv", "m.tsv"])
def test_texts_of_several_lines_are_read(tmp_path, text, column, name):
  rows = texts()
  for row in rows[3:9]:
    row[column] = text
  path = tmp_path / name
  with path.open("w", newline="", encoding="utf-8") as file:
    delimiter = "\t" if name == "m.tsv" else ","
    writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
  read = table.read(path)
  assert [line.cells[column] for line in read.lines[3:9]] == [text] * 6
  assert len(read.lines) == 24 and not read.problems
  note = f"column {column!r}: 6 cells of several lines, row 4 holds "
  assert [n[: len(note)] for n in read.notes] == [note]


def test_lines_that_may_be_rows_are_noted(tmp_path):
  rows = lines_of(texts())
  rows[4:7] = ['train,dog,word 3,"open', "a,ragged row", 'train,cat,x,shut"']
  made = prepare(written(tmp_path / "m.csv", "\n".join(rows)), tmp_path / "d")
  assert any("row 4: is a quote not closed?" in note for note in made.notes)


def test_a_cell_may_be_long(tmp_path):
  rows = texts()
  rows[3]["b:text"] = "long words " * 20_000
  before = csv.field_size_limit()
  read = table.read(helpers.write_table(tmp_path / "m.csv", rows))
  assert read.lines[3].cells["b:text"] == rows[3]["b:text"].strip()
  assert csv.field_size_limit() == before


def test_what_a_csv_may_have(tmp_path):
  rows = lines_of(texts())
  for content in (
    "\n\n" + "\n\n".join(rows),
    "\n".join(f"{row},," for row in rows),
    "\n".join(f"{i},{r}" for i, r in enumerate(rows)).replace(
      "0", "Unnamed: 0", 1
    ),
  ):
    read = table.read(written(tmp_path / "m.csv", content))
    assert len(read.lines) == 24 and not read.problems


@pytest.mark.parametrize("name,divided,said", [
  ("m.csv", "\t", "is divided by tabs: let its name end in .tsv"),
  ("m.tsv", ",", "is divided by commas: let its name end in .csv"),
  ("m.csv", ";", "is divided by ';': save it with commas"),
  ("m.tsv", ";", "is divided by ';': save it with commas"),
  ("m.csv", "|", "is divided by '|': save it with commas"),
])  # fmt: skip
def test_other_divisions_are_named(tmp_path, name, divided, said):
  content = "\n".join(lines_of(texts(), divided))
  assert said in refused(written(tmp_path / name, content), tmp_path)
  quoted = re.sub(r"[^\n" + re.escape(divided) + "]+", r'"\g<0>"', content)
  assert said in refused(written(tmp_path / name, quoted), tmp_path)
  excel = written(tmp_path / name, f"sep={divided}\n{content}")
  assert "which only Excel reads" in refused(excel, tmp_path)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0a\nsize 99\n"


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "ndjson"])
@pytest.mark.parametrize("content,said", [
  ("", "is empty"),
  ("\ufeff", "is empty"),
  (" \n\n", "is empty"),
  (LFS, "run git lfs pull"),
  ("<!DOCTYPE html>\n<html></html>", "is a web page"),
  ("PK\x03\x04", "is an Excel workbook or a ZIP file"),
  ("\0" * 99, "is damaged"),
  (HEADER + "\0", "holds zero bytes"),
])  # fmt: skip
def test_other_files_are_named(tmp_path, ending, content, said):
  path = written(tmp_path / f"m.{ending}", content)
  message = refused(path, tmp_path)
  assert said in message and "\n" not in message


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize("encoding", [
  "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "latin-1",
])  # fmt: skip
def test_other_encodings_are_named(tmp_path, ending, encoding):
  content = HEADER + "\ntrain,cat,w\xf6rd,x" * 9
  path = written(tmp_path / f"m.{ending}", content, encoding)
  message = refused(path, tmp_path)
  assert "not UTF-8" in message and "\n" not in message
  assert encoding[:3] != "utf" or "UTF-" in message
  assert encoding != "latin-1" or "line 2 holds the byte 0xf6" in message


def test_parquet_that_is_none(tmp_path):
  for content, said in (
    (LFS, "run git lfs pull"),
    (HEADER, "is no Parquet file"),
    ("", "is no Parquet file"),
  ):
    path = written(tmp_path / "m.parquet", content)
    assert said in refused(path, tmp_path)
  frame = pd.DataFrame(texts())
  frame.to_parquet(tmp_path / "parts.parquet", partition_cols=["split"])
  said = refused(tmp_path / "parts.parquet", tmp_path)
  assert "is a folder, a data set in 2 parts" in said and "one file" in said
  (tmp_path / "none.csv").mkdir()
  assert "is a folder, not a file" in refused(tmp_path / "none.csv", tmp_path)
  frame.to_parquet(tmp_path / "a.csv")
  assert "call it .parquet" in refused(tmp_path / "a.csv", tmp_path)


@pytest.mark.parametrize("content,said", [
  (json.dumps(texts()), "is one JSON array of 24 entries"),
  (json.dumps(texts(), indent=2), "is one JSON array of 24 entries"),
  ("[\n" + ",\n".join(map(json.dumps, texts())) + "\n]", "is one JSON array"),
  ("[\n" + ",\n".join(map(json.dumps, texts())), "begins as a JSON array"),
  ("\n".join(json.dumps([*r.values()]) for r in texts()), "begins as a JSON"),
  (pd.DataFrame(texts()).to_json(), "is one JSON object"),
  (json.dumps({"data": texts()}), "is one JSON object"),
  ("\n".join(json.dumps(r, indent=1) for r in texts()), "on one line"),
  ("\n".join(lines_of(texts())), "holds no JSON, its first line is 'split,"),
])  # fmt: skip
def test_other_json_is_named(tmp_path, content, said):
  message = refused(written(tmp_path / "m.jsonl", content), tmp_path)
  assert said in message and "\n" not in message, message


def test_lines_that_are_no_objects(tmp_path):
  rows = list(map(json.dumps, texts()))
  rows[2] += ","
  rows[4] = "[" * 100_000
  rows[6] = rows[6].replace("word", "\\ud83d")
  said = refused(written(tmp_path / "m.jsonl", "\n".join(rows)), tmp_path)
  assert "3 problems in 3 rows" in said
  assert "row 3: the line is no JSON object: a comma follows" in said
  assert "row 5: the line is no JSON object: too many brackets" in said
  assert "row 7, column 'a:text': '\\ud83d 6' holds '\\ud83d', half" in said
  assert len(said) < 1000


UNUSED = [
  0.5, True, b"\xff" * 9, [1, 2], [[0.5], []], {"a": 1}, None, np.float32(2.0),
  pd.Timestamp.max, pd.Timedelta(1), decimal.Decimal("1.50"),
]  # fmt: skip


@pytest.mark.parametrize("value", UNUSED, ids=lambda v: type(v).__name__)
def test_columns_of_no_use_may_hold_anything(tmp_path, value):
  frame = pd.DataFrame(texts())
  frame["score"] = [value] * len(frame)
  frame.to_parquet(tmp_path / "m.parquet")
  made = prepare(tmp_path / "m.parquet", tmp_path / "data")
  note = "column 'score' is not used: a modality's is called name:kind"
  assert note in made.notes and not made.problems
  assert sum(made.counts["test"].values()) == 8
  if isinstance(value, bool | float | list | dict | None):
    rows = [r | {"score": value} for r in texts()]
    helpers.write_table(tmp_path / "m.jsonl", rows)
    made = prepare(tmp_path / "m.jsonl", tmp_path / "data")
    assert note in made.notes and not made.problems


@pytest.mark.parametrize("kind,called", [
  ("image", "pictures"), ("audio", "sounds"), ("video", "videos"),
  ("array", "arrays"),
])  # fmt: skip
@pytest.mark.parametrize(
  "value", [b"\x89" * 70_000, {"bytes": b"\x89" * 70_000}]
)
def test_bytes_are_told_by_their_length(tmp_path, kind, called, value):
  frame = pd.DataFrame(texts())
  frame[f"m:{kind}"] = [value] * len(frame)
  frame.to_parquet(tmp_path / "m.parquet")
  pytest.importorskip("av" if kind == "video" else "numpy")
  said = refused(tmp_path / "m.parquet", tmp_path)
  assert "24 problems in 24 rows" in said
  assert f"bytes of length 70000; {called} must be files" in said
  assert len(said) < 4000


def test_values_in_messages_are_short(tmp_path):
  rows = texts()
  rows[0]["split"] = "trian " * 3000
  rows[1]["label"] = ["x"] * 3000
  rows[2]["a:text"] = {f"key {i}": i for i in range(3000)}
  rows[20]["label"] = "owl " * 3000
  said = refused(helpers.write_table(tmp_path / "m.jsonl", rows), tmp_path)
  assert "4 problems" in said and len(said) < 1500
  wide = pd.DataFrame({f"column {i}": ["x"] for i in range(3000)})
  wide.to_csv(tmp_path / "wide.csv")
  assert len(refused(tmp_path / "wide.csv", tmp_path)) < 1500


def test_paths_that_are_none(tmp_path):
  rows = [r | {"photo:image": "iVBOR" * 40_000} for r in texts()]
  said = refused(helpers.write_table(tmp_path / "m.jsonl", rows), tmp_path)
  assert (
    "24 problems in 24 rows" in said and "is no path; pictures must" in said
  )
  assert len(said) < 6000
