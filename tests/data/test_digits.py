"""Digits, spoken and handwritten: a manifest that training accepts."""

import io
import os
import pathlib
import shutil
import zipfile

import numpy as np
import pytest
import soundfile
from PIL import Image

import launch
from data_pipelines import core
from data_pipelines.core import catalog
from data_pipelines.tools import _residual, digits
from helpers import load_manifest, prepare_manifest, read_table

SPEAKERS = ("ann", "bob", "cy_d", "dee", "eve")
SHARED = pathlib.Path(
  os.environ.get("DMG_SHARED_DATA")
  or pathlib.Path(launch.__file__).parents[1] / "shared" / "data"
)
REAL = SHARED / "fsdd" / "recordings_wav.zip"


def wave(digit, index):
  """A tone of the digit's pitch as the bytes of a WAV file."""
  time = np.arange(400 + 10 * index) / 8000
  file = io.BytesIO()
  tone = 0.5 * np.sin(2 * np.pi * 200 * (digit + 1) * time)
  soundfile.write(file, tone, 8000, format="WAV")
  return file.getvalue()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
  """A zip like the data set's: 3 digits, 5 speakers, indices 0 to 7."""
  path = tmp_path_factory.mktemp("fsdd") / "recordings.zip"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    for digit in range(3):
      for speaker in SPEAKERS:
        for index in range(8):
          name = f"fsdd-main/recordings/{digit}_{speaker}_{index}.wav"
          file.writestr(name, wave(digit, index))
    file.writestr("fsdd-main/README.md", "digits")
    file.writestr("__MACOSX/recordings/._0_ann_0.wav", "no sound")
  return path


def content(folder):
  return {
    p.relative_to(folder).as_posix(): p.read_bytes()
    for p in sorted(folder.rglob("*"))
    if p.is_file()
  }


def files_of(table, column):
  """{split: files}."""
  return {s: {r[column] for r in table if r["split"] == s} for s in core.SPLITS}


def check(folder, table):
  """Every file is there and used, of its row's digit, and in one split."""
  assert tuple(table[0]) == digits.HEADER
  assert len({r["id"] for r in table}) == len(table)
  for column in ("picture:image", "sound:audio"):
    by_split = files_of(table, column)
    used = set().union(*by_split.values())
    assert sum(map(len, by_split.values())) == len(used)
    kind = next(iter(used)).partition("/")[0]
    assert used == {f"{kind}/{p.name}" for p in (folder / kind).iterdir()}
  for row in table:
    assert row["sound:audio"] == f"sounds/{row['id']}.wav"
    assert row["label"] == row["id"][0]


def test_official_split(sounds, tmp_path):
  from sklearn.datasets import load_digits

  out = tmp_path / "new" / "digits"
  made = digits.write(sounds, out)
  table = read_table(out / "manifest.csv")
  check(out, table)
  assert len(table) == 120
  for row in table:
    test = int(row["id"].rpartition("_")[2]) < 5
    assert (row["split"] == "test") == test
  sizes = {s: len(f) for s, f in files_of(table, "sound:audio").items()}
  assert sizes == {"train": 33, "outer": 6, "val": 6, "test": 75}
  assert {s: sum(c.values()) for s, c in made.counts.items()} == sizes
  given = load_digits()
  for row in table[::7]:
    number = int(pathlib.Path(row["picture:image"]).stem)
    assert str(given.target[number]) == row["label"]
    pixels = np.asarray(Image.open(out / row["picture:image"]))
    assert pixels.dtype == np.uint8 and pixels.shape == (8, 8)
    np.testing.assert_allclose(
      pixels, given.images[number] * 255 / 16, atol=0.51
    )
    assert (out / row["sound:audio"]).read_bytes() == wave(
      int(row["label"]), int(row["id"].rpartition("_")[2])
    )
  assert {p.name for p in out.parent.iterdir()} == {"digits"}


def test_speakers_are_in_one_split(sounds, tmp_path):
  digits.write(sounds, tmp_path / "a", split="speakers")
  table = read_table(tmp_path / "a" / "manifest.csv")
  check(tmp_path / "a", table)
  voices = {
    s: {i.removesuffix(".wav").split("_", 1)[1].rpartition("_")[0] for i in own}
    for s, own in files_of(table, "sound:audio").items()
  }
  assert sorted(map(len, voices.values())) == [1, 1, 1, 2]
  assert len(voices["train"]) == 2
  assert set().union(*voices.values()) == set(SPEAKERS)


def test_pictures_are_divided_as_the_sounds_and_dealt_in_turn(sounds, tmp_path):
  x = np.random.default_rng(0).integers(0, 256, (90, 6, 5), np.uint8)
  y = np.arange(90) % 3
  np.savez(tmp_path / "few.npz", x=x, y=y)
  digits.write(sounds, tmp_path / "a", images=tmp_path / "few.npz")
  table = read_table(tmp_path / "a" / "manifest.csv")
  check(tmp_path / "a", table)
  for digit in "012":
    own = [r for r in table if r["label"] == digit]
    pictures = files_of(own, "picture:image")
    # 11, 2, 2, 25 of 40 recordings; 30 pictures.
    assert [len(pictures[s]) for s in core.SPLITS] == [8, 2, 1, 19]
    for split, names in pictures.items():
      times = [
        sum(r["picture:image"] == n for r in own if r["split"] == split)
        for n in names
      ]
      assert max(times) - min(times) <= 1
      for name in names:
        number = int(pathlib.Path(name).stem)
        assert y[number] == int(digit)
        pixels = np.asarray(Image.open(tmp_path / "a" / name))
        np.testing.assert_array_equal(pixels, x[number])


def test_the_seed_decides(sounds, tmp_path):
  with zipfile.ZipFile(sounds) as file:
    file.extractall(tmp_path / "unpacked")
  shutil.rmtree(tmp_path / "unpacked" / "__MACOSX")
  digits.write(sounds, tmp_path / "a")
  digits.write(sounds, tmp_path / "b")
  assert content(tmp_path / "a") == content(tmp_path / "b")
  digits.write(tmp_path / "unpacked", tmp_path / "c")  # a folder of folders
  digits.write(sounds, tmp_path / "d", seed=1)
  a, c, d = (read_table(tmp_path / x / "manifest.csv") for x in "acd")
  assert a == c != d
  test = {r["id"] for r in a if r["split"] == "test"}
  assert test == {r["id"] for r in d if r["split"] == "test"}


def test_a_manifest_that_loads(sounds, tmp_path, capsys):
  out = tmp_path / "digits"
  out.mkdir()  # may be there while it is empty
  words = [f"--sounds={sounds}", f"--out={out}", "--split=speakers"]
  assert digits.main(words) == 0
  said = capsys.readouterr()
  assert f"--config.data.manifest={out / 'manifest.csv'}" in said.out
  assert not said.err
  made = prepare_manifest(out / "manifest.csv", tmp_path / "data")
  assert not made.problems
  assert not any("files of test" in note for note in made.notes)
  data = load_manifest(out / "manifest.csv", tmp_path / "data")
  assert data.spec.classes == ("0", "1", "2")
  assert {m: s.kind for m, s in data.spec.modalities.items()} == {
    "picture": "image",
    "sound": "audio",
  }
  # What is there is not written over.
  before = content(out)
  assert digits.main(words) == 1
  said = capsys.readouterr()
  assert said.err.startswith("error: ") and said.err.count("\n") == 1
  assert "not empty" in said.err and "--out" in said.err
  assert content(out) == before


def test_it_is_no_data_set():
  assert "tools" not in catalog.pipelines()


def cut(path):
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])


def flip(path):
  """Other bytes in the middle of a recording, which the checksum tells."""
  data = bytearray(path.read_bytes())
  data[2000:2100] = bytes(100)
  path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flip, lambda p: p.write_bytes(b"no")])
def test_damaged_zips(sounds, tmp_path, damage):
  path = pathlib.Path(shutil.copy(sounds, tmp_path / "a.zip"))
  damage(path)
  with pytest.raises(core.DataError, match=r"a\.zip is no zip, or a damaged"):
    digits.write(path, tmp_path / "out")
  assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def some(folder, names):
  folder.mkdir(parents=True)
  for name in names:
    (folder / name).write_bytes(b"RIFF")
  return folder


def test_what_is_wrong_with_sounds(sounds, tmp_path):
  out = tmp_path / "out"
  with pytest.raises(
    core.DataError, match=r"no folder or zip .*gone.*--sounds"
  ):
    digits.write(tmp_path / "gone", out)
  one = some(tmp_path / "one", ["a.wav", "10_ann_3.wav", "3_ann_x.wav"])
  with pytest.raises(core.DataError, match=r"\{digit\}_\{speaker\}_\{index\}"):
    digits.write(one, out)
  some(one / "inner", ["3_ann_1.wav"])
  some(one / "other", ["3_ann_1.wav"])
  with pytest.raises(core.DataError, match=r"several recordings 3_ann_1\.wav"):
    digits.write(one, out)
  few = some(tmp_path / "few", [f"3_ann_{i}.wav" for i in range(7)])
  with pytest.raises(
    core.DataError, match=r"few recordings of digit 3: .*train"
  ):
    digits.write(few, out)
  with pytest.raises(core.DataError, match=r"4 speakers, .*1 \(ann\)"):
    digits.write(few, out, split="speakers")
  (tmp_path / "file").write_text("x")
  with pytest.raises(core.DataError, match="not empty"):
    digits.write(few, tmp_path / "file")
  for option, value in (("split", "x"), ("held_out", 0.5), ("seed", -1)):
    with pytest.raises(ValueError, match=option):
      digits.write(few, out, **{option: value})
  assert not out.exists()


def test_what_is_wrong_with_pictures(sounds, tmp_path):
  path = tmp_path / "a.npz"
  with pytest.raises(core.DataError, match=r"no pictures .*a\.npz.*--images"):
    digits.write(sounds, tmp_path / "out", images=path)
  x = np.zeros((9, 4, 4), np.uint8)
  for arrays, said in (
    ({"x": x}, "arrays x and y"),
    ({"x": x, "y": np.array([{}] * 9)}, "arrays x and y"),
    ({"x": x / 2, "y": np.arange(9)}, "float64"),
    ({"x": x, "y": np.arange(8)}, r"\(8,\)"),
    ({"x": x, "y": np.arange(9) + 5}, "0 to 9"),
    ({"x": x, "y": np.arange(9)}, "few pictures of digit 0"),
  ):
    np.savez(path, **arrays)
    with pytest.raises(core.DataError, match=said):
      digits.write(sounds, tmp_path / "out", images=path)
  assert not (tmp_path / "out").exists()


def test_nothing_half_written(sounds, tmp_path, monkeypatch):
  monkeypatch.setattr(digits.image, "encode", None)
  with pytest.raises(TypeError):
    digits.write(sounds, tmp_path / "out")
  assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
  not REAL.is_file(), reason="no Free Spoken Digit Dataset in shared data"
)
def test_the_real_recordings(tmp_path):
  digits.write(REAL, tmp_path / "a")
  table = read_table(tmp_path / "a" / "manifest.csv")
  check(tmp_path / "a", table)
  sizes = {s: len(f) for s, f in files_of(table, "sound:audio").items()}
  assert sizes == {"train": 2160, "outer": 270, "val": 270, "test": 300}


def test_harder_pairs(sounds, tmp_path):
  out = tmp_path / "digits"
  digits.write(sounds, out, energy=0.75, per_digit=4, repeat_test=3)
  table = read_table(out / "manifest.csv")
  assert tuple(table[0]) == digits.RESIDUAL
  assert len({r["id"] for r in table}) == len(table)
  rows = {s: [r for r in table if r["split"] == s] for s in core.SPLITS}
  assert {s: len(own) for s, own in rows.items()} == {
    "train": 12, "outer": 6, "val": 6, "test": 225,
  }  # fmt: skip
  by_split = files_of(table, "picture:array")
  assert sum(map(len, by_split.values())) == len(
    set().union(*by_split.values())
  )
  # A recording has three different pictures.
  for name in {r["sound:audio"] for r in rows["test"]}:
    own = {r["picture:array"] for r in rows["test"] if r["sound:audio"] == name}
    assert len(own) == 3


def test_components_are_removed():
  rng = np.random.default_rng(0)
  # Variances 16, 4 and 1 along three directions of the pixels.
  turn, _ = np.linalg.qr(rng.normal(size=(12, 3)))
  code = rng.permutation(np.kron(np.eye(3), [[1], [-1]]).repeat(4, axis=0))
  x = 0.5 + code @ np.diag([0.4, 0.2, 0.1]) @ turn.T
  pictures = np.round(255 * x).astype(np.uint8).reshape(-1, 3, 4)
  train = np.arange(len(x))
  for energy, k in ((0.7, 1), (0.9, 2)):
    left, removed = _residual.without_components(pictures, train, energy)
    assert removed == k
    kept = code * np.array([0.4, 0.2, 0.1]) * (np.arange(3) >= k)
    np.testing.assert_allclose(left, kept @ turn.T, atol=0.01)
  left, removed = _residual.without_components(pictures, train, 0)
  assert removed == 0
  with pytest.raises(ValueError, match=r"energy must lie in \[0, 1\), got 1"):
    _residual.without_components(pictures, train, 1)


@pytest.mark.parametrize(
  "given", [{"per_digit": -1}, {"repeat_test": 0}, {"energy": 1.0}]
)
def test_refuses_options_of_harder_pairs(sounds, tmp_path, given):
  (name,) = given
  with pytest.raises(ValueError, match=name):
    digits.write(sounds, tmp_path / "out", **given)
