"""VGGSound: its list, file names of public loaders, the faults of downloads."""

import collections
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

import launch
from configs import vggsound as config
from data_pipelines import core
from data_pipelines.sets import vggsound
from data_pipelines.sets._audio_video import listed

pytest.importorskip("av")
from clip_files import problems, video

OPTIONS = {"image_size": 16, "sample_rate": 8000, "seconds": 1.0, "workers": 0}
CLASSES = ('donkey, ass "braying"', "people's crowd", "pigeon, dove cooing")


def line(name: str, start: int, label: str, split: str) -> str:
  """A row as published: only labels with commas or quotes stand in quotes."""
  special = set(label) & set(',"')
  quoted = '"' + label.replace('"', '""') + '"' if special else label
  return f"{name},{start},{quoted},{split}"


def clips() -> list[tuple[str, int, str, str]]:
  """Per class eight clips to train with and two to test."""
  return [
    (f"{'-_'[i % 2]}{split[1]}lip{k}{i:05d}", 7 * i, label, split)
    for k, label in enumerate(CLASSES)
    for split, number in (("train", 8), ("test", 2))
    for i in range(number)
  ]


def write_list(raw: pathlib.Path, lines: list[str]) -> None:
  text = "\r\n".join([*lines, "", " ", ""])
  (raw / vggsound.LIST).write_bytes(text.encode("utf-8-sig"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  raw = tmp_path_factory.mktemp("vggsound")
  for name, start, _, split in clips():
    (raw / split).mkdir(exist_ok=True)
    video(raw / split / f"{name}_{start:06d}.mp4", 60)
  write_list(raw, [line(*clip) for clip in clips()])
  return raw


def test_a_whole_copy(source, tmp_path):
  data = vggsound.load(tmp_path, raw=str(source), **OPTIONS)
  assert data.spec.classes == tuple(sorted(CLASSES))
  assert data.spec.sizes == {"train": 18, "outer": 3, "val": 3, "test": 6}
  want = {f"{n}_{s:06d}": c for n, s, c, split in clips() if split == "test"}
  test = data.sources["test"]
  found = [test[i] for i in range(len(test))]
  assert {x["id"]: data.spec.classes[x["label"]] for x in found} == want
  assert found[0]["inputs"]["audio"].shape == (257, 48, 1)
  made = core.PreparedSummary.read(next(tmp_path.glob("*/1.0.0")))
  assert problems(made.folder) == {} and not made.notes
  for text in (
    "the lists have 24 rows for train instead of 183730",
    "the lists name 3 classes instead of 309",
    "train, outer, val: 24 clips instead of the paper's 183730",
    "test: 6 clips instead of the paper's 15446",
  ):
    assert text in made.problems
  assert sum(vggsound.SIZES.values()) == 199_176


def test_file_names():
  key = vggsound._key_of(["-0jeONf82dE_000021", "vABC_EFG-IJ_000120"])
  for stem in (
    "-0jeONf82dE_000021", "-0jeONf82dE_21", "-0jeONf82dE_21_31",
    "-0jeONf82dE_000021_000031", "-0jeONf82dE_21000_31000", "-0jeONf82dE",
    "-0jeONf82dE_000021.mp4", "v-0jeONf82dE_21_31_out",
  ):  # fmt: skip
    assert key(stem) == "-0jeONf82dE_000021", stem
  assert key("vABC_EFG-IJ_120") == "vABC_EFG-IJ_000120"
  for stem in ("-0jeONf82dE_000022", "-0jeONf82dE_x", "0jeONf82dE", "train"):
    assert key(stem) is None, stem
  twice = vggsound._key_of(["-0jeONf82dE_000021", "-0jeONf82dE_000400"])
  assert twice("-0jeONf82dE") is None
  assert twice("-0jeONf82dE_400") == "-0jeONf82dE_000400"


def test_rows(tmp_path):
  """Each line by itself: quotes, none, an open one, a header, wrong cells."""
  write_list(
    tmp_path,
    [
      "# YouTube ID, start seconds, label,train/test split.",
      'aaaaaaaaaa0,30,"pigeon, dove cooing",train',
      "aaaaaaaaaa1,30,pigeon, dove cooing,train",
      " aaaaaaaaaa2 , 0.0 ,people crowd, test ",
      'aaaaaaaaaa3,30,"pigeon, dove cooing,train',
      "aaaaaaaaaa4,30,people crowd,validation",
      "aaaaaaaaaa5,half,people crowd,train",
      "short,30,people crowd,train",
      "aaaaaaaaaa2,0,people crowd,train",
    ],
  )
  there = vggsound._read(tmp_path)
  assert {i: (r.label, r.split) for i, r in there.rows.items()} == {
    "aaaaaaaaaa0_000030": ("pigeon, dove cooing", "train"),
    "aaaaaaaaaa1_000030": ("pigeon, dove cooing", "train"),
    "aaaaaaaaaa2_000000": ("people crowd", "test"),
  }
  assert [p.sample for p in there.problems] == [
    *(f"vggsound.csv, line {i}" for i in (5, 6, 7, 8)),
    "aaaaaaaaaa2_000000",
  ]


def test_what_is_gone_is_counted_and_the_rest_is_kept(source, tmp_path):
  raw = shutil.copytree(source, tmp_path / "raw")
  paths = {p.stem: p for p in raw.glob("*/*.mp4")}
  names = sorted(i for i in paths if i[1] == "r")  # Of train.
  gone = [*names[:7], *sorted(i for i in paths if i[1] == "e")[:1]]
  for name in gone:
    paths[name].unlink()
  empty, cut, mute, quiet, upper, moved = names[7:13]
  paths[empty].write_bytes(b"")
  whole = paths[cut].read_bytes()
  paths[cut].write_bytes(whole[: len(whole) // 2])
  video(paths[mute], 60, sound=False)
  video(paths[quiet], 60, silent=True)
  paths[upper].rename(paths[upper].with_suffix(".MP4"))
  other = f"{moved[:11]}_000500.mp4"
  paths[moved].rename(raw / "train" / other)
  made = vggsound.prepare(tmp_path / "d", raw=str(raw), **OPTIONS)
  found = problems(made.folder)
  assert {i for i, x in found.items() if x[0][0] == "missing"} == {*gone, moved}
  assert "vggsound.csv, line" in found[gone[0]][0][1]
  assert {i: x[0][0] for i, x in found.items() if i not in {*gone, moved}} == {
    empty: "cannot be decoded",
    cut: "cannot be decoded",
    mute: "cannot be decoded",
    quiet: "are damaged or silent, and kept",
    other: "skipped",
  }
  assert made.problems[0].startswith("9 samples missing")
  assert sum(sum(c.values()) for c in made.counts.values()) == 30 - 9 - 3


@pytest.mark.parametrize("each", [8, 1])
def test_few_clips_are_held_out_among_those_there(source, tmp_path, each):
  """No usual clip of outer and val is there, or one of train in each class."""
  there = vggsound._read(source)
  splits = vggsound._data_set()._splits(there.rows)
  left = collections.Counter()
  for i, row in there.rows.items():
    left[row.label] += splits[i] == "train"
    if splits[i] == "test" or (
      splits[i] == "train" and left[row.label] <= each
    ):
      shutil.copy(next(source.rglob(f"{i}.mp4")), tmp_path)
  shutil.copy(source / vggsound.LIST, tmp_path)
  made = vggsound.prepare(tmp_path / "d", raw=str(tmp_path), **OPTIONS)
  sizes = {s: sum(c.values()) for s, c in made.counts.items()}
  assert sizes["test"] == 6 and all(sizes.values())
  assert sum(sizes.values()) == 6 + min(each * 3, 18)
  assert made.notes == ("too many clips are absent to hold out the usual ones",)
  lost = [p for p in made.problems if p.startswith("2 classes have no clip")]
  assert len(lost) == (each == 1)


def test_pictures_and_sounds_of_ogm_ge(source, tmp_path):
  """Folders of pictures that are named like videos, and WAV files."""
  for name, start, _, split in clips():
    folder = tmp_path / f"{split}-set-img/Image-01-FPS/{name}_{start:06d}.mp4"
    folder.mkdir(parents=True)
    for i in range(3):
      pixels = np.full((16, 16, 3), 60 * i, np.uint8)
      Image.fromarray(pixels).save(folder / f"{30 * i:05d}.jpg")
    sound = tmp_path / f"{split}-set/{name}_{start:06d}.wav"
    sound.parent.mkdir(exist_ok=True)
    soundfile.write(sound, np.sin(np.arange(8000)), 8000)
  made = vggsound.prepare(
    tmp_path / "d", raw=str(tmp_path), annotations=str(source), **OPTIONS
  )
  assert sum(sum(c.values()) for c in made.counts.values()) == 30
  assert problems(made.folder) == {}


def test_a_list_of_the_published_size(tmp_path):
  lines = [
    line(f"{split[:2]}{i:09d}", i % 600, f"class {i % 309}", split)
    for split, number in vggsound.SIZES.items()
    for i in range(number // 10)
  ]
  write_list(tmp_path, lines)
  there = vggsound._read(tmp_path)
  known = vggsound.SIZES, vggsound.CLASSES
  counts = {s: n // 10 for s, n in vggsound.SIZES.items()}
  assert len(there.rows) == sum(counts.values()) and not there.problems
  assert len(listed.differences(there.rows.values(), *known)) == 2
  rows = [
    listed.Row("", str(i % 309), split, "")
    for split, number in vggsound.SIZES.items()
    for i in range(number)
  ]
  assert listed.differences(rows, *known) == ()


def test_config():
  full = config.get_config("lb")
  assert full.train.epochs == 100 and full.train.batch_size == 64
  assert full.optimiser.learning_rate == 1e-3 and full.data.name == "vggsound"


@pytest.mark.slow
def test_from_the_command_to_the_report(source, tmp_path):
  root = pathlib.Path(launch.__file__).parent
  words = [
    sys.executable, root / "launch.py",
    "--config=configs/vggsound.py:joint,quick=true,epochs=1,batch_size=4",
    f"--config.data.raw={source}", f"--config.data.dir={tmp_path / 'data'}",
    "--config.data.workers=0", f"--workdir={tmp_path / 'work'}",
  ]  # fmt: skip
  for mode in ("prepare", "train", "report"):
    done = subprocess.run(
      [*words, f"--mode={mode}"],
      cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
  assert (tmp_path / "work" / "report" / "report.html").exists()
