"""Decoding in parallel, work files that are used again, lists of problems."""

import csv
import functools
import io

import pytest

import helpers
from data_pipelines import raw


@pytest.fixture
def files(tmp_path):
  for name, text in {"a": "12", "b": "x", "c": "skip", "d": "345"}.items():
    (tmp_path / name).write_text(text)
  return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_decodes_what_can_be_and_lists_the_rest(files, workers):
  work = functools.partial(helpers.decode_number, folder=str(files))
  media = raw.Media(work, files / "work", "v1", workers)
  samples = {f"id {n}": n for n in "aebcd"}
  ids, problems = media.decode(samples, "decoding")
  assert ids == ["id a", "id d"]
  assert [media.read(i)["code"].tolist() for i in ids] == [[12], [345]]
  assert {(p.sample, p.kind) for p in problems} == {
    ("id e", raw.MISSING), ("id b", raw.UNDECODABLE), ("id c", raw.SKIPPED)
  }  # fmt: skip
  assert str(files / "e") in problems[0].reason
  assert sorted((files / "calls").read_text()) == list("abcd")
  # Again: only what has no work file, and the same answer.
  (files / "b").write_text("7")
  ids, problems = media.decode(samples, "decoding")
  assert ids == ["id a", "id b", "id d"] and len(problems) == 2
  assert sorted((files / "calls").read_text()) == list("aabbccd"[1:])


def test_other_settings_are_decoded_anew(files):
  work = functools.partial(helpers.decode_number, folder=str(files))
  for settings in ("size 1", "size 2", "size 1"):
    raw.Media(work, files / "work", settings).decode({"a": "a"}, "decoding")
  assert (files / "calls").read_text() == "aa"


def test_problems_as_sentences_and_as_a_file():
  problems = [
    raw.Problem("a", raw.MISSING, "there is no file a,1.jpg"),
    raw.Problem("b", raw.UNDECODABLE, 'b.wav: "short"'),
    raw.Problem("c", raw.MISSING, "there is no file c.jpg"),
  ]
  first, second = raw.summary(problems)
  assert first.startswith("2 samples missing") and "a,1.jpg" in first
  assert second.startswith("1 samples cannot be decoded")
  rows = list(csv.DictReader(io.StringIO(raw.table(problems))))
  assert [tuple(r.values()) for r in rows] == [
    (p.sample, p.kind, p.reason) for p in problems
  ]
