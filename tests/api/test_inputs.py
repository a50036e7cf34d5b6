"""Columns from dictionaries and DataFrames: kinds, labels, what is refused."""

import pathlib

import numpy as np
import pandas
import pytest
from PIL import Image

from dmg_jax.api import inputs
from dmg_jax.api.inputs import Modalities

GREY = Image.new("L", (4, 3))


@pytest.mark.parametrize(
  "cells,kind",
  [
    (np.zeros((2, 4, 4, 3), np.uint8), "image"),
    (np.zeros((2, 4, 4, 1), np.uint8), "image"),
    (np.zeros((2, 4, 4), np.uint8), "image"),
    ([np.zeros((4, 5, 3), np.uint8), np.zeros((3, 3, 3), np.uint8)], "image"),
    ([GREY, GREY], "image"),
    (np.zeros((2, 6, 4, 4, 3), np.uint8), "video"),
    (np.zeros((2, 4, 4, 3)), "array"),
    (np.zeros((2, 5), np.uint8), "array"),
    ([1.5, 2], "array"),
    ([[1, 2], [3, 4]], "array"),
    ([True, False], "array"),
    (["a cat", "no_such_file.png"], "text"),
    (["a cat", None], "text"),
    (["a cat", "", float("nan"), pandas.NA], "text"),
    ([None, 1.5, np.float32("nan")], "array"),
    ([None, GREY], "image"),
  ],
)
def test_kinds(cells, kind):
  assert inputs.infer("x", cells) == kind


def test_files_by_their_endings(tmp_path):
  names = {}
  for name in ("a.png", "b.jpg", "c.wav", "d.npy", "e.mp4", "f.txt"):
    names[name[0]] = tmp_path / name
    names[name[0]].touch()
  for letters, kind in (("ab", "image"), ("c", "audio"), ("d", "array")):
    assert inputs.infer("x", [str(names[k]) for k in letters]) == kind
    assert inputs.infer("x", [names[k] for k in letters]) == kind
  assert inputs.infer("x", [str(names["e"])]) == "video"
  assert inputs.infer("x", [pathlib.Path("absent.png")]) == "image"
  for letters, said in (("ac", "audio and image"), ("f", r"files \.txt")):
    with pytest.raises(ValueError, match=f"{said}.*'x:KIND'"):
      inputs.infer("x", [str(names[k]) for k in letters])
  with pytest.raises(ValueError, match="path and text"):
    inputs.infer("x", [str(names["a"]), "a cat"])


@pytest.mark.parametrize(
  "cells",
  [
    np.zeros((2, 4, 4, 5), np.uint8),
    [object(), object()],
    ["a", 1],
    [None, None],
    np.zeros(2, complex),
  ],
)
def test_what_is_not_clear_asks_for_the_kind(cells):
  with pytest.raises(ValueError, match=r"'x:KIND'.*image, text"):
    inputs.infer("x", cells)


def test_entries():
  grey = np.full((2, 2, 1), 7, np.uint8)
  made = inputs.with_kinds({"a": [grey, grey[..., 0]], "b": [1, 2], "id": "xy"})
  assert list(made) == ["a:image", "b:array", "id"]
  assert all(picture.shape == (2, 2, 3) for picture in made["a:image"])
  assert [x.shape for x in made["b:array"]] == [(1,), (1,)]


def test_empty_entries_are_none():
  nothing = [None, float("nan"), np.float32("nan"), pandas.NA, "", " "]
  for header, cell in (
    ("a:image", np.zeros((2, 2, 3), np.uint8)),
    ("a:array", np.array([np.nan, 1.0])),
  ):
    made = inputs.with_kinds({header: [cell, *nothing]})[header]
    assert made[0] is not None and made[1:] == [None] * len(nothing)
  rows = np.array([[1.0, np.nan], [np.nan, np.nan]])
  made = inputs.with_kinds({"a": rows})["a:array"]
  assert made[0] is not None and made[1] is None
  frame = pandas.DataFrame({"a": [1.5, None], "t": ["u", None]})
  made = inputs.with_kinds(inputs.columns(frame))
  assert list(made) == ["a:array", "t:text"] and made["a:array"][1] is None


def test_an_empty_path_beside_files(tmp_path):
  (tmp_path / "a.png").touch()
  assert inputs.infer("x", [str(tmp_path / "a.png"), ""]) == "image"


def test_frames():
  frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3, 4], "label": ["x", "y"]})
  made = inputs.table(frame)
  assert list(made) == ["label", "x:array"] and made["label"] == ["x", "y"]
  np.testing.assert_array_equal(made["x:array"], [[1, 3], [2, 4]])
  mixed = frame.assign(t=["u", "v"]).astype({"label": "category"})
  assert list(inputs.table(mixed)) == ["a:array", "b:array", "label", "t:text"]
  twice = pandas.concat([frame, frame[["a"]]], axis=1)
  with pytest.raises(ValueError, match="'a' occurs twice"):
    inputs.columns(twice)


def test_labels():
  given = [1, 2.0, np.int64(3), True, "word", None, float("nan"), pandas.NA]
  assert inputs.labels(given) == [1, 2, 3, "True", "word", None, None, None]
  assert inputs.labels([0.5, np.float32(0.1)]) == ["0.5", "0.1"]
  with pytest.raises(ValueError, match=r"label 1 is b'x', neither"):
    inputs.labels([1, b"x"])
  with pytest.raises(ValueError, match=r"one per sample.*\(2, 2\)"):
    inputs.labels(np.eye(2))


def test_what_does_not_go_together():
  x = {"a": [1, 2]}
  for data, y, said in (
    (x, None, "no labels"),
    ({**x, "label": [0, 1]}, [0, 1], "twice"),
    (x, [0, 1, 1], "as many rows: 'a' has 2, 'label' has 3"),
    ({"a": 3}, [0], "a must be a list"),
    ({"a": "bc"}, [0, 1], "a must be a list"),
    ([1, 2], [0, 1], "path of a manifest, a DataFrame or a dictionary"),
  ):
    with pytest.raises(ValueError, match=said):
      inputs.table(data, y)


def test_new_samples():
  kinds = {"a": "array", "t": "text"}
  given = {"a": [1, 2], "t:text": ["u", "v"], "split": ["x", "y"], "id": [5, 6]}
  made = inputs.new_samples(given, kinds)
  assert list(made) == ["a", "t", "id"]
  frame = pandas.DataFrame({"a": [1, 2], "t": ["u", "v"], "more": [0, 0]})
  assert list(inputs.new_samples(frame, kinds)) == ["a", "t"]
  with pytest.raises(ValueError, match="'t' is text, got 't:image'"):
    inputs.new_samples({"t:image": ["u"]}, kinds)


def test_modalities_have_rows():
  x = Modalities({"a": np.arange(4), "t": list("wxyz")})
  assert len(x) == 4 and x.shape == (4, 2) and list(x.keys()) == ["a", "t"]
  for rows, found in (
    ([0, 3], "wz"),
    (np.array([True, False, False, True]), "wz"),
    (slice(1, 3), "xy"),
    ((np.array([2]), ...), "y"),
  ):
    assert "".join(x[rows]["t"]) == found
  assert list(x[[1, 2]]["a"]) == [1, 2]
  with pytest.raises(ValueError, match="as many rows"):
    Modalities({"a": [1], "b": [1, 2]})
