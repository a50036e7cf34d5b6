"""Multi-view features: a manifest that training accepts."""

import os
import pathlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse

import launch
from data_pipelines import core
from data_pipelines.tools import views
from helpers import load_manifest, read_table

SHARED = pathlib.Path(
  os.environ.get("DMG_SHARED_DATA")
  or pathlib.Path(launch.__file__).parents[1] / "shared" / "data"
)
RNG = np.random.default_rng(0)
Y = np.repeat([1, 2, 3], 10)
X = {name: RNG.normal(size=(30, d)) for name, d in (("a", 4), ("b", 7))}


def mat(path, features, labels, names=("X", "Y")):
  cells = np.empty((1, len(features)), dtype=object)
  cells[0, :] = features
  scipy.io.savemat(path, dict(zip(names, (cells, labels), strict=True)))
  return path


def csvs(folder, header=False, **labels):
  """A file a view, the labels last."""
  folder.mkdir()
  for name, x in X.items():
    y = labels.get(name, Y)
    table = np.column_stack([x[: len(y)], y])
    first = ",".join(map(str, range(table.shape[1])))
    np.savetxt(
      folder / f"{name}.csv",
      table,
      delimiter=",",
      header=first if header else "",
      comments="",
    )
  return folder


def check(out, names):
  """Every row has its features and label; each class is in each split."""
  table = read_table(out / "manifest.csv")
  assert tuple(table[0]) == ("id", "split", "label", *names)
  for row in table:
    i = int(row["id"])
    assert row["label"] == str(Y[i])
    for column, x in zip(names, X.values(), strict=True):
      got = np.load(out / row[column], allow_pickle=False)
      np.testing.assert_array_equal(got, x[i].astype(np.float32))
  for split, size in (("train", 6), ("outer", 1), ("val", 1), ("test", 2)):
    own = sorted(r["label"] for r in table if r["split"] == split)
    assert own == sorted(["1", "2", "3"] * size)
  return table


def test_mat(tmp_path):
  # The second view is turned, and sparse.
  turned = scipy.sparse.csc_matrix(X["b"].T)
  source = mat(tmp_path / "x.mat", [X["a"], turned], Y[:, None])
  made = views.write(source, tmp_path / "out")
  check(tmp_path / "out", ("view_1:array", "view_2:array"))
  assert made.counts["test"] == {"1": 2, "2": 2, "3": 2}
  other = mat(tmp_path / "y.mat", list(X.values()), Y[None], ("fea", "gt"))
  views.write(other, tmp_path / "b", features="fea", labels="gt")
  assert read_table(tmp_path / "b" / "manifest.csv") == read_table(
    tmp_path / "out" / "manifest.csv"
  )
  with pytest.raises(core.DataError, match=r"'X': name one of fea, gt .*--fea"):
    views.write(other, tmp_path / "c")


@pytest.mark.parametrize("header", [False, True])
def test_csv(tmp_path, header):
  source = csvs(tmp_path / "views", header)
  views.write(source, tmp_path / "out", skip_rows=int(header))
  check(tmp_path / "out", ("a:array", "b:array"))


def test_names_of_files_become_names_of_modalities(tmp_path):
  source, out = csvs(tmp_path / "views"), tmp_path / "out"
  (source / "a.csv").rename(source / "2.csv")
  (source / "b.csv").rename(source / "my-view (b).csv")
  views.write(source, out)
  check(out, ("view_2:array", "my_view_b:array"))
  data = load_manifest(out / "manifest.csv", tmp_path / "data")
  assert set(data.spec.modalities) == {"view_2", "my_view_b"}
  (source / "view 2.csv").write_bytes((source / "2.csv").read_bytes())
  with pytest.raises(core.DataError, match=r"view.2', rename one"):
    views.write(source, tmp_path / "b")


def test_the_seed_decides(tmp_path):
  source = csvs(tmp_path / "views")
  for name, seed in (("a", 0), ("b", 0), ("c", 1)):
    views.write(source, tmp_path / name, seed=seed)
  a, b, c = (read_table(tmp_path / n / "manifest.csv") for n in "abc")
  assert a == b != c


def test_a_manifest_that_loads(tmp_path, capsys):
  source, out = csvs(tmp_path / "views"), tmp_path / "out"
  assert views.main([f"--source={source}", f"--out={out}"]) == 0
  said = capsys.readouterr().out
  assert f"--config.data.manifest={out / 'manifest.csv'}" in said
  data = load_manifest(out / "manifest.csv", tmp_path / "data")
  assert data.spec.classes == ("1", "2", "3")
  assert {m: s.shape for m, s in data.spec.modalities.items()} == {
    "a": (4,),
    "b": (7,),
  }
  assert views.main([f"--source={source}", f"--out={out}"]) == 1
  said = capsys.readouterr().err
  assert "not empty" in said and said.count("\n") == 1


def test_what_is_wrong(tmp_path):
  out = tmp_path / "out"
  with pytest.raises(core.DataError, match=r"no file or folder .*--source"):
    views.write(tmp_path / "gone", out)
  (tmp_path / "bad.mat").write_bytes(b"no")
  with pytest.raises(core.DataError, match=r"bad\.mat is no MATLAB file"):
    views.write(tmp_path / "bad.mat", out)
  short = mat(tmp_path / "a.mat", [X["a"], X["b"][:9]], Y)
  with pytest.raises(core.DataError, match=r"X\{2\} must be numbers \[30 d\]"):
    views.write(short, out)
  flat = tmp_path / "b.mat"
  scipy.io.savemat(flat, {"X": X["a"], "Y": Y})
  with pytest.raises(core.DataError, match="cell array"):
    views.write(flat, out)
  scipy.io.savemat(flat, {"X": X["a"], "Y": X["a"]})
  with pytest.raises(core.DataError, match=r"labels must be .*\(30, 4\)"):
    views.write(flat, out)
  with pytest.raises(core.DataError, match=r"row 3 is not finite"):
    infinite = np.where(np.arange(30)[:, None] == 3, np.nan, X["a"])
    views.write(mat(tmp_path / "c.mat", [infinite, X["b"]], Y), out)
  (tmp_path / "none").mkdir()
  with pytest.raises(core.DataError, match=r"no \.csv files"):
    views.write(tmp_path / "none", out)
  words = csvs(tmp_path / "words")
  (words / "b.csv").write_text("x,y\n1,2\n")
  with pytest.raises(core.DataError, match=r"b\.csv is no table.*skip_rows"):
    views.write(words, out)
  with pytest.raises(core.DataError, match=r"counts the columns .*skip_rows=1"):
    views.write(csvs(tmp_path / "numbered", header=True), out)
  for name, y in (("order", Y[::-1]), ("rows", Y[:20])):
    with pytest.raises(core.DataError, match=r"b\.csv and .*a\.csv differ"):
      views.write(csvs(tmp_path / name, b=y), out)
  good = csvs(tmp_path / "good")
  for shares in ({"test": 0.0}, {"held_out": 0.4}, {"seed": -1}):
    with pytest.raises(ValueError, match=next(iter(shares))):
      views.write(good, out, **shares)
  for y, test, said in (
    ([9, *Y[1:]], 0.2, "'9' has 1 rows: 4 at least"),
    (Y, 0.75, "none is left"),
  ):
    few = mat(tmp_path / "few.mat", list(X.values()), np.sort(y)[::-1])
    with pytest.raises(core.DataError, match=said):
      views.write(few, out, test=test)
  assert not out.exists()


@pytest.mark.skipif(
  not (SHARED / "mfeat").is_dir(), reason="no mfeat in shared data"
)
def test_real_views(tmp_path):
  made = views.write(SHARED / "mfeat", tmp_path / "a", skip_rows=1)
  assert {s: sum(n.values()) for s, n in made.counts.items()} == {
    "train": 1200,
    "outer": 200,
    "val": 200,
    "test": 400,
  }
  data = load_manifest(tmp_path / "a" / "manifest.csv", tmp_path / "data")
  assert data.spec.modalities["mfeat_fac"].shape == (216,)
  leaves = SHARED / "multiview_mat" / "100leaves.mat"
  made = views.write(leaves, tmp_path / "b")
  assert len(made.classes) == 100
  assert made.notes[0] == "view view_1: 64 numbers"
