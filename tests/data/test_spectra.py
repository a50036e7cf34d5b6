"""Pictures and their spectra: a manifest of two views."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines import core
from data_pipelines.tools import spectra
from helpers import read_table

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (60, 6, 5), dtype=np.uint8)
Y = np.arange(60) % 3


@pytest.fixture
def images(tmp_path):
  path = tmp_path / "x.npz"
  x = X.copy()
  x[57] = x[54]  # The same picture of the same digit.
  np.savez(path, x=x, y=Y)
  return path


def test_writes_pictures_and_amplitudes(images, tmp_path):
  made = spectra.write(tmp_path / "out", images, test=0.5, held_out=0.1)
  table = read_table(tmp_path / "out" / "manifest.csv")
  assert tuple(table[0]) == spectra.HEADER and len(table) == 60
  assert sum(made.counts["test"].values()) in (30, 31)
  for row in table[:50]:
    i = int(row["id"])
    assert row["label"] == str(Y[i])
    with Image.open(tmp_path / "out" / row["picture:image"]) as picture:
      np.testing.assert_array_equal(np.asarray(picture), X[i])
    got = np.load(tmp_path / "out" / row["spectrum:array"], allow_pickle=False)
    assert got.shape == (18,) and got.dtype == np.float32
    # The sum over all pixels is F(0, 0).
    assert got[0] == pytest.approx(np.log1p(X[i].sum() / 255), rel=1e-5)
  split = {int(r["id"]): r["split"] for r in table}
  assert split[54] == split[57]
  assert set(split.values()) == set(core.SPLITS)


def test_amplitudes_are_those_of_the_formula():
  h, w = X[0].shape
  i, j = np.mgrid[:h, :w]
  expected = [
    abs(np.sum(X[0] / 255 * np.exp(-2j * np.pi * (u * i / h + v * j / w))))
    for u in range(h)
    for v in range(w // 2 + 1)
  ]
  np.testing.assert_allclose(
    spectra.spectrum(X[0]), np.log1p(expected), rtol=1e-5
  )
  shifted = np.roll(X[0], (2, 1), axis=(0, 1))
  np.testing.assert_allclose(
    spectra.spectrum(shifted), spectra.spectrum(X[0]), rtol=1e-4
  )


def test_refusals(images, tmp_path, capsys):
  assert spectra.main([f"--out={tmp_path / 'o'}", "--images=none.npz"]) == 1
  assert "no pictures none.npz" in capsys.readouterr().err
  with pytest.raises(ValueError, match="test and held_out must be positive"):
    spectra.write(tmp_path / "o", images, test=0.95)
