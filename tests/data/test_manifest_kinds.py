"""Own data by a manifest: what becomes of each kind of file."""

import importlib.util
import shutil
import sys

import numpy as np
import pytest
import soundfile
from PIL import Image

import helpers
from data_pipelines import core
from data_pipelines.load.loader import Loader
from data_pipelines.transforms import audio, image, video
from helpers import load_manifest as load
from helpers import prepare_manifest as prepare
from helpers import samples


def test_arrays_are_standardised_by_training_rows(tmp_path):
  kinds = ("a:array", "b:array")
  path = helpers.write_manifest(tmp_path / "files", 60, kinds)
  raw = load(path, tmp_path / "data", standardise=False)
  data = load(path, tmp_path / "data")
  for m in ("a", "b"):
    assert data.spec.modalities[m].shape == (2, 3)
    train = np.stack([s["inputs"][m] for s in raw.sources["train"]])
    np.testing.assert_allclose(
      data.sources["test"][3]["inputs"][m],
      (raw.sources["test"][3]["inputs"][m] - train.mean(0)) / train.std(0),
      rtol=1e-4,
    )
  assert raw.sources["train"][0]["inputs"]["a"].mean() > 4


def test_a_constant_array_is_zero(tmp_path):
  np.save(tmp_path / "x.npy", np.float32(1e6))
  table = [
    {"split": s, "label": i % 2, "a:array": "x.npy"}
    for i, s in enumerate(["train", "train", "test", "test"] * 5)
  ]
  data = load(helpers.write_table(tmp_path / "a.csv", table), tmp_path / "d")
  assert data.sources["test"][0]["inputs"]["a"].tolist() == 0
  made = prepare(tmp_path / "a.csv", tmp_path / "d")
  said = "'test' shares content with 'train': 10 of 10 samples are the same"
  assert said in made.notes


def test_sounds(tmp_path):
  path = tmp_path / "a.wav"
  wave = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)
  soundfile.write(path, np.stack([wave, 0 * wave], 1), 8000)
  half = audio.read(path, 8000)
  np.testing.assert_allclose(half, wave / 2, atol=1e-4)
  finer = audio.read(path, 16000)
  assert finer.shape == (16000,) and finer.dtype == np.float32
  np.testing.assert_allclose(finer[1000:-1000:2], half[500:-500], atol=1e-2)
  power = audio.log_spectrogram(finer, 24000, 16000, 512, 353)
  assert power.shape == (257, 148, 1) and power.dtype == np.float32
  assert power[..., 0].mean(1).argmax() == round(440 / (16000 / 512))
  silent = audio.log_spectrogram(np.zeros(9, np.float32), 600, 16000, 512, 0)
  assert np.abs(silent).max() < 1e-6


def test_length_of_sounds(made, tmp_path):
  assert load(
    made, tmp_path, seconds=0.5
  ).spec.modalities["sound"].shape == (33, 62, 1)  # fmt: skip
  files = shutil.copytree(made.parent, tmp_path / "files")
  soundfile.write(files / "sound_0000.wav", np.ones(8000 * 3), 8000)
  soundfile.write(files / "sound_0003.wav", np.ones(8000 * 4), 8000)  # of test
  longest = prepare(files / made.name, tmp_path / "data")
  data = load(files / made.name, tmp_path / "data")
  frames = data.spec.modalities["sound"].shape[1]
  in_train = any(key == "1" for split, key in samples(data) if split == "train")
  assert frames == (375 if in_train else 125)
  assert any("sound: clips of " in note for note in longest.notes)


def test_pictures(tmp_path):
  tall = np.zeros((40, 20, 3), np.uint8)
  tall[:20] = [250, 0, 0]
  photo = Image.fromarray(tall)
  exif = photo.getexif()
  exif[0x0112] = 3  # upside down
  photo.save(tmp_path / "a.jpg", exif=exif, quality=95)
  read = image.read(tmp_path / "a.jpg", 8)
  assert read.shape == (8, 8, 3) and read[:, 0].min() == 255
  assert read[6, 4, 0] > 200 > 50 > read[1, 4, 0]
  deep = np.full((5, 5), 257 * 100, np.uint16)
  Image.fromarray(deep).save(tmp_path / "b.png")
  assert (image.read(tmp_path / "b.png", 5) == 100).all()
  array = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
  turned = [image.mirror(np.random.default_rng(i), array) for i in range(20)]
  same = [np.array_equal(t, array) for t in turned]
  assert 3 < sum(same) < 17
  mirrored = turned[same.index(False)]
  np.testing.assert_array_equal(mirrored, array[:, :, ::-1])


def test_augmentation_is_by_kind(made, tmp_path):
  data = load(made, tmp_path)
  assert data.augment == {}
  data = load(made, tmp_path, flip=True, word_dropout=0.5)
  assert set(data.augment) == {"photo", "caption"}
  batch = Loader(data, "train", 8, seed=0).batch(1)
  assert batch.inputs["photo"].shape == (8, 8, 8, 3)


def test_positions_of_frames():
  assert video.positions(8, 8).tolist() == list(range(8))
  assert video.positions(100, 4).tolist() == [12, 37, 62, 87]
  assert video.positions(2, 4).tolist() == [0, 0, 1, 1]


@pytest.mark.skipif(not importlib.util.find_spec("av"), reason="no PyAV")
def test_videos(tmp_path):
  path = helpers.write_manifest(tmp_path / "v", 24, ("clip:video",))
  data = load(path, tmp_path / "data", frames=3)
  assert data.spec.modalities["clip"].shape == (3, 8, 8, 3)
  for label, inputs in samples(data).values():
    shown = inputs["clip"].mean((0, 1, 2)).argmax()
    assert helpers.CLASSES[shown] == label
  (path.parent / "clip_0001.avi").write_bytes(b"RIFF no video")
  sound = path.parent / "clip_0002.avi"
  soundfile.write(sound.with_suffix(".wav"), np.zeros(800), 8000)
  sound.with_suffix(".wav").replace(sound)
  with pytest.raises(core.DataError) as caught:
    load(path, tmp_path / "data", frames=3)
  assert "row 2, column 'clip:video': clip_0001.avi" in str(caught.value)
  assert "row 3, column 'clip:video': clip_0002.avi" in str(caught.value)


def test_videos_without_their_package(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "av", None)
  table = [
    {"split": s, "label": i % 2, "a:video": "x.mp4"}
    for i, s in enumerate(["train", "test"] * 2)
  ]
  path = helpers.write_table(tmp_path / "a.csv", table)
  with pytest.raises(ModuleNotFoundError, match=r"\[video\]"):
    load(path, tmp_path / "data")
