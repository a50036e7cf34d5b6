"""Kinetics-Sounds: videos with sound, prepared layout, damage, a run."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import launch
from configs import crema_d as crema_d_config
from configs import kinetics_sounds as config
from data_pipelines import core
from data_pipelines.sets import kinetics_sounds
from data_pipelines.sets import kinetics_sounds as ks
from data_pipelines.sets._audio_video import files

pytest.importorskip("av")
from clip_files import video

OPTIONS = {"image_size": 16, "sample_rate": 8000, "seconds": 1.0, "workers": 0}
FOLDERS = ("tap dancing", "playing_drums")


def ids(number: int, test: bool) -> list[str]:
  """Ids that the rule puts into test, or not."""
  rule = ks._data_set().split
  names = (f"clip{i:07d}" for i in range(10**6))
  return [
    next(n for n in names if (rule(n) == "test") == test) for _ in range(number)
  ]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  raw = tmp_path_factory.mktemp("kinetics")
  test, train = ids(2, True), ids(16, False)
  for i, folder in enumerate(FOLDERS):
    (raw / folder).mkdir()
    for name in (test[i], *train[i::2]):
      video(raw / folder / f"{name}_000010_000020.mp4", 30 + 60 * i)
  last = raw / FOLDERS[1]
  video(last / "noSoundXXXX_000001_000011.mp4", 0, sound=False)
  video(last / "noPicturesX_000001_000011.mp4", 0, pictures=False)
  (last / "brokenXXXXX_000001_000011.mp4").write_bytes(b"no video")
  video(raw / "noClassXXXX_000001_000011.mp4", 0)
  return raw


def test_videos(source, tmp_path):
  data = ks.load(tmp_path, raw=str(source), **OPTIONS)
  assert data.spec.classes == ("playing_drums", "tap_dancing")
  assert data.spec.sizes["test"] == 2 and sum(data.spec.sizes.values()) == 18
  for i in range(2):
    sample = data.sources["test"][i]
    inputs = sample["inputs"]
    level = 90 if sample["label"] == 0 else 30
    means = inputs["video"].mean((1, 2, 3))
    np.testing.assert_allclose(means, level + np.array([0, 30, 60]), atol=6)
    loudest = inputs["audio"][..., 0].mean(1).argmax()
    assert loudest == round(1000 / (8000 / 512))
  made = core.PreparedSummary.read(next(tmp_path.glob("*/1.0.0")))
  text = pathlib.Path(made.folder, "problems.csv").read_text()
  for word in ("has no sound", "has no pictures", "brokenXXXXX", "noClassXXXX"):
    assert word in text
  assert any("the paper's 14799" in p for p in made.problems)
  assert "2 samples" not in text and text.count("\n") == 5


def test_lists(source, tmp_path):
  clips = sorted(p.name[:11] for p in source.rglob("clip*.mp4"))
  words = {
    p.name[:11]: FOLDERS.index(p.parent.name) + 7
    for p in source.rglob("clip*.mp4")
  }
  for name, part in (("train", clips[::2]), ("test", clips[1::2])):
    rows = [f"{c}_3,10,{words[c]}\r\n" for c in part]
    (tmp_path / f"my_{name}.txt").write_text("".join(rows))
  with (tmp_path / "my_test.txt").open("a") as file:
    file.write(f"goneXXXXXXX_10,10,7\n{clips[0]}_3,10,7\n")
  made = kinetics_sounds.prepare(
    tmp_path / "d", raw=str(source), annotations=str(tmp_path), **OPTIONS
  )
  assert made.classes == ("playing_drums", "tap_dancing")
  assert sum(made.counts["test"].values()) == 9
  text = pathlib.Path(made.folder, "problems.csv").read_text()
  assert "goneXXXXXXX,missing" in text and "is in my_train.txt, line 1" in text


def test_labels_of_lists():
  """A number means one class, that of most of its clips; others mean none."""
  labels = {"a": "7", "b": "7", "c": "7", "d": "3", "e": "99", "f": "singing!"}
  labels["g"] = "tickling"
  rows = {c: files.Listed("train", w, "") for c, w in labels.items()}
  known = dict.fromkeys("abdef", "singing") | {"c": "bowling"}
  found = files.meanings(rows, known, ks.CLASSES)
  assert found == {"7": "singing", "tickling": "tickling"}
  assert files.meanings(rows, {}, ks.CLASSES)["7"] == "7"


def test_a_clip_in_two_classes_is_left_out(source, tmp_path):
  raw = shutil.copytree(source, tmp_path / "raw")
  path = next((raw / FOLDERS[0]).iterdir())
  shutil.copy(path, raw / FOLDERS[1])
  made = ks.prepare(tmp_path / "d", raw=str(raw), **OPTIONS)
  text = pathlib.Path(made.folder, "problems.csv").read_text()
  assert f"{path.name[:11]},skipped" in text and "are of two classes" in text
  assert sum(sum(c.values()) for c in made.counts.values()) == 17


def test_names():
  assert ks._key("-3Mwkq-7TV4_2") == "-3Mwkq-7TV4"
  assert ks._key("--4-0ihtnBU_000058_000068") == "--4-0ihtnBU"
  assert ks._key("tap_dancing") is None and ks._key("frame_00001x") is None


def test_configs():
  for module in (config, crema_d_config):
    full = module.get_config("lb")
    assert full.encoders.audio.name == "resnet.ResNet"
    assert full.optimiser.name == "sgd" and full.train.batch_size == 64
    quick = module.get_config("lb,quick=true,epochs=2")
    assert quick.encoders.audio.name == "small.ConvNet"
    assert quick.train.epochs == 2 and quick.data.image_size == 32


@pytest.mark.slow
def test_a_run(source, tmp_path):
  root = pathlib.Path(launch.__file__).parent
  done = subprocess.run(
    [
      sys.executable, root / "launch.py",
      "--config=configs/kinetics_sounds.py:joint,quick=true,epochs=1",
      f"--config.data.raw={source}", f"--config.data.dir={tmp_path / 'data'}",
      "--config.data.workers=0", "--config.train.batch_size=4",
      f"--workdir={tmp_path / 'work'}",
    ],
    cwd=root, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
