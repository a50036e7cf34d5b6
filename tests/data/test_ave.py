"""AVE: lists as published, videos by id, the faults of downloads, a run."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

import launch
from configs import ave as config
from data_pipelines import core
from data_pipelines.sets import ave
from data_pipelines.sets._audio_video import listed

pytest.importorskip("av")
from clip_files import problems, video

OPTIONS = {"image_size": 16, "sample_rate": 8000, "seconds": 1.0, "workers": 0}
# As published: blanks, commas and brackets.
CLASSES = ("Church bell", "Frying (food)", "Rodents, rats, mice")


def names(word: str, number: int) -> list[str]:
  """Ids of YouTube, some of which begin with a hyphen."""
  return [f"-{word}{i:0{10 - len(word)}d}" for i in range(number)]


def write_list(path: pathlib.Path, rows: list[tuple[str, str]]) -> None:
  """A list with a BOM, Windows line ends and blank lines at the end."""
  text = "".join(f"{c}&{i}&good&0&10\r\n" for c, i in rows) + "\r\n\r\n"
  path.write_bytes(text.encode("utf-8-sig"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A download without faults: 8 videos of each class, and one of two."""
  raw = tmp_path_factory.mktemp("AVE_Dataset")
  (raw / "AVE").mkdir()
  for split, number in (("train", 6), ("val", 1), ("test", 1)):
    rows = []
    for k, label in enumerate(CLASSES):
      rows += [(label, i) for i in names(f"{split}{k}", number)]
    for _, name in rows:
      video(raw / "AVE" / f"{name}.mp4", 60)
    if split == "train":  # Two events of one video, and one more in test.
      rows.append((CLASSES[1], rows[0][1]))
      again = rows[1][1]
    if split == "test":
      rows.append((CLASSES[2], again))
    write_list(raw / ave.LISTS[split], rows)
  return raw


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  return folder, ave.prepare(folder, raw=str(source), **OPTIONS)


def test_rows_are_samples(prepared, source):
  folder, made = prepared
  assert made.classes == CLASSES
  data = ave.load(folder, **OPTIONS)
  assert data.spec.sizes == {"train": 16, "outer": 3, "val": 3, "test": 4}
  ids = {
    split: {source[i]["id"] for i in range(len(source))}
    for split, source in data.sources.items()
  }
  twice, apart = "-train00000", "-train00001"
  assert {f"{twice} {c}" for c in CLASSES[:2]} <= ids["train"]
  assert f"{apart} {CLASSES[0]}" in ids["train"]
  assert f"{apart} {CLASSES[2]}" in ids["test"]
  assert not {i[:11] for i in ids["outer"]} & {i[:11] for i in ids["train"]}
  assert made.notes == (
    "2 clips are listed with more than one class, 1 of them in more than one "
    "split: each row is a sample, as published",
  )
  sample = data.sources["val"][0]
  assert sample["inputs"]["audio"].shape == (257, 48, 1)
  np.testing.assert_allclose(
    sample["inputs"]["video"].mean((1, 2, 3)), [60, 90, 120], atol=6
  )
  assert problems(made.folder) == {}


def test_numbers_of_the_published_lists(prepared):
  said = prepared[1].problems
  for text in (
    "the lists have 19 rows for train instead of 3339",
    "the lists have 3 rows for val instead of 402",
    "the lists name 3 classes instead of 28",
    "train, outer: 19 clips instead of the paper's 3339",
    "test: 4 clips instead of the paper's 402",
  ):
    assert text in said
  assert sum(ave.SIZES.values()) == 4143


def whole_lists(folder: pathlib.Path, rows: int) -> listed.Listing:
  """Lists of the published size, of 28 classes."""
  sizes = {**ave.SIZES, "train": rows}
  for split, number in sizes.items():
    ids = names(split, number)
    write_list(
      folder / ave.LISTS[split],
      [(f"class {i % 28}", name) for i, name in enumerate(ids)],
    )
  return ave._read(folder)


@pytest.mark.parametrize("rows", [3339, 3338])
def test_lists_of_the_published_size(tmp_path, rows):
  there = whole_lists(tmp_path, rows)
  about = ave._data_set()
  said = listed.differences(there.rows.values(), ave.SIZES, ave.CLASSES)
  assert bool(said) == (rows != 3339)
  splits = list(about._splits(there.rows).values())
  counts = [splits.count(s) for s in core.SPLITS]
  assert counts == [rows - counts[1], counts[1], 402, 402]
  assert 0.09 < counts[1] / rows < 0.11


@pytest.fixture
def damaged(source, tmp_path):
  """The faults of downloads, and {sample: (kind, words)} of them."""
  raw = shutil.copytree(source, tmp_path / "raw")
  paths = {p.stem: p for p in (raw / "AVE").iterdir()}
  bad = names("train1", 6)[:5]
  paths[bad[0]].unlink()
  paths[bad[1]].write_bytes(b"")
  whole = paths[bad[2]].read_bytes()
  paths[bad[2]].write_bytes(whole[: len(whole) // 2])
  video(paths[bad[3]], 60, sound=False)
  video(paths[bad[4]], 60, silent=True)
  kept = names("train2", 1)[0]
  video(paths[kept], 60, movflags="faststart")
  whole = paths[kept].read_bytes()
  paths[kept].write_bytes(whole[: len(whole) * 4 // 5])
  upper = paths[names("val1", 1)[0]]
  upper.rename(upper.with_suffix(".MP4"))
  video(raw / "AVE" / "notInLists0.mp4", 0)
  (raw / "more").mkdir()
  copy = names("test1", 1)[0]
  shutil.copy(paths[copy], raw / "more")
  with (raw / "trainSet.txt").open("a", newline="") as file:
    file.write(f"Church bell&{copy}&good&0&10\r\nno row\r\n")
    file.write(f"Church bell&{names('train0', 6)[5]}&good&3&4\r\n")
    file.write("&-train00003&good&0&10\r\nGoat&../../etc/x&good&0&10\r\n")
  return raw, {
    bad[0]: ("missing", f"there is no file of {bad[0]}"),
    bad[1]: ("cannot be decoded", bad[1]),
    bad[2]: ("cannot be decoded", "cut off"),
    bad[3]: ("cannot be decoded", "has no sound"),
    bad[4]: ("damaged or silent, and kept", "silent"),
    kept: ("damaged or silent, and kept", "% of it is used"),
    "notInLists0.mp4": ("skipped", "no clip of the lists"),
    copy: ("found twice", "is not used"),
    "trainSet.txt, line 23": ("skipped", "'no row'"),
    names("train0", 6)[5]: ("skipped", "is in trainSet.txt, line 6, too"),
    "trainSet.txt, line 25": ("skipped", "expected class&id"),
    "trainSet.txt, line 26": ("skipped", "expected class&id"),
  }


def test_faults_are_listed_and_the_rest_is_kept(damaged, tmp_path):
  raw, expected = damaged
  made = ave.prepare(tmp_path / "d", raw=str(raw), **OPTIONS)
  found = problems(made.folder)
  assert {*found} == {*expected}
  for sample, (kind, words) in expected.items():
    assert len(found[sample]) == 1
    assert kind in found[sample][0][0] and words in found[sample][0][1]
  sizes = {s: sum(c.values()) for s, c in made.counts.items()}
  # 19 rows and one more class of a test video, less four without media.
  assert sizes["train"] + sizes["outer"] == 19 + 1 - 4
  assert (sizes["val"], sizes["test"]) == (3, 4)


def test_lists_elsewhere_sounds_and_pictures(source, tmp_path):
  """Lists in a folder of their own; what TCMax makes of the videos."""
  raw = tmp_path / "raw"
  (raw / "audio_AVE").mkdir(parents=True)
  for path in (source / "AVE").iterdir():
    tone = np.sin(np.arange(8000))
    soundfile.write(raw / "audio_AVE" / f"{path.stem}.wav", tone, 8000)
    folder = raw / "Image-01-FPS" / path.stem
    folder.mkdir(parents=True)
    for i in range(10):
      pixels = np.full((16, 16, 3), 20 * i, np.uint8)
      Image.fromarray(pixels).save(folder / f"{30 * i:05d}.jpg")
  with pytest.raises(core.DataError, match=r"no list trainSet\.txt"):
    ave.prepare(tmp_path / "d", raw=str(raw), **OPTIONS)
  data = ave.load(
    tmp_path / "d", raw=str(raw), annotations=str(source), **OPTIONS
  )
  shown = data.sources["test"][0]["inputs"]["video"].mean((1, 2, 3))
  np.testing.assert_allclose(shown, [0, 60, 120], atol=3)
  assert data.spec.sizes["test"] == 4


def test_folders_that_do_not_do(tmp_path, source):
  with pytest.raises(ValueError, match=r"config\.data\.raw"):
    ave.load(tmp_path)
  with pytest.raises(core.DataError, match="no folder"):
    ave.load(tmp_path, raw=str(tmp_path / "none"))
  (tmp_path / "empty").mkdir()
  with pytest.raises(core.DataError, match="no clips of the lists of ave"):
    ave.load(tmp_path, raw=str(tmp_path / "empty"), annotations=str(source))


@pytest.mark.parametrize(
  "wrong",
  [{"frames": 0}, {"image_size": 4}, {"sample_rate": 10}, {"seconds": 100.0}],
)
def test_options_out_of_their_range(tmp_path, wrong):
  (name,) = wrong
  with pytest.raises(ValueError, match=f"{name} must lie in"):
    ave.load(tmp_path, **wrong)


def test_config():
  full = config.get_config("lb")
  assert full.encoders.audio.name == "resnet.ResNet"
  assert full.optimiser.learning_rate == 1e-3 and full.train.batch_size == 32
  quick = config.get_config("lb,quick=true,epochs=2")
  assert quick.train.epochs == 2 and quick.train.batch_size == 16


@pytest.mark.slow
def test_from_the_command_to_the_report(damaged, tmp_path):
  root = pathlib.Path(launch.__file__).parent
  words = [
    sys.executable, root / "launch.py",
    "--config=configs/ave.py:joint,quick=true,epochs=1,batch_size=4",
    f"--config.data.raw={damaged[0]}", f"--config.data.dir={tmp_path / 'data'}",
    "--config.data.workers=0", f"--workdir={tmp_path / 'work'}",
  ]  # fmt: skip
  for mode in ("prepare", "train", "report"):
    done = subprocess.run(
      [*words, f"--mode={mode}"],
      cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if mode == "prepare":
      assert "instead of the paper's 3339" in done.stdout
      shutil.rmtree(damaged[0])
  assert (tmp_path / "work" / "report" / "report.html").exists()
