"""Pickles to manifests, by the command."""

import csv

import numpy as np
import opinion_files
import pytest

from data_pipelines.tools import sequences
from helpers import load_manifest, prepare_manifest, samples


def rows_of(out):
  with (out / "manifest.csv").open(encoding="utf-8", newline="") as file:
    return list(csv.DictReader(file))


def test_aligned_as_a_manifest(tmp_path, capsys):
  content = opinion_files.mmsa()
  content["train"]["regression_labels"][1] = np.nan
  opinion_files.write(tmp_path / "a.pkl", content)
  out = tmp_path / "out"
  given = [f"--pickle={tmp_path / 'a.pkl'}", f"--out={out}", "--labels=three"]
  assert sequences.main(given) == 0
  said = capsys.readouterr().out
  assert "configs/manifest.py:lb" in said and "1 samples skipped" in said
  rows = rows_of(out)
  assert (
    len(rows) == 41 and "its label is nan" in (out / "problems.csv").read_text()
  )
  for row in rows:
    part = {"val": "valid"}.get(row["split"], row["split"])
    i = content[part]["id"].index(row["id"])
    score = content[part]["regression_labels"][i]
    assert row["label"] == ("negative" if score < 0 else "positive")
    for m in ("text", "audio", "vision"):
      array = np.load(out / row[f"{m}:array"], allow_pickle=False)
      assert array.dtype == np.float32
      np.testing.assert_array_equal(array, content[part][m][i])
  prepare_manifest(out / "manifest.csv", tmp_path / "data")
  data = load_manifest(out / "manifest.csv", tmp_path / "data")
  assert len(samples(data)) == 41


def test_unaligned_without_padding_and_raw_texts(tmp_path):
  content = opinion_files.mmsa(aligned=False)
  opinion_files.write(tmp_path / "a.pkl", content)
  sequences.write(
    tmp_path / "a.pkl", tmp_path / "out", form="unaligned", text="raw"
  )
  rows = rows_of(tmp_path / "out")
  assert len(rows) == 42
  for row in rows[:24]:
    i = content["train"]["id"].index(row["id"])
    length = content["train"]["audio_lengths"][i]
    array = np.load(tmp_path / "out" / row["audio:array"], allow_pickle=False)
    np.testing.assert_array_equal(array, content["train"]["audio"][i, :length])
    assert row["text:text"] == content["train"]["raw_text"][i]


@pytest.mark.parametrize(
  ("more", "words"),
  [
    (["--form=alined"], "did you mean 'aligned'"),
    (["--labels=two"], "nonnegative"),
    (["--text=all"], "features, raw"),
  ],
)
def test_wrong_options(more, words, tmp_path, capsys):
  given = [f"--pickle={tmp_path / 'a.pkl'}", f"--out={tmp_path / 'b'}", *more]
  assert sequences.main(given) == 1
  assert words in capsys.readouterr().err


def test_a_hostile_pickle_leaves_nothing_behind(tmp_path, capsys):
  path = tmp_path / "a.pkl"
  path.write_bytes(opinion_files.named("os", "system"))
  given = [f"--pickle={path}", f"--out={tmp_path / 'out'}"]
  assert sequences.main(given) == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ") and "os.system" in line
  assert not (tmp_path / "out").exists()
