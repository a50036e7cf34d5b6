"""CREMA-D: layouts, splits, damage, and batches."""

import csv
import pathlib
import shutil

import numpy as np
import pytest
import soundfile
from PIL import Image
from scipy import signal

from data_pipelines import core
from data_pipelines.load.loader import Loader
from data_pipelines.sets import crema_d
from data_pipelines.sets._audio_video import media
from data_pipelines.sets._audio_video import split as av_split
from data_pipelines.transforms import crop, preprocess

OPTIONS = {"image_size": 28, "sample_rate": 8000, "seconds": 1.0, "workers": 0}
EMOTIONS = tuple(crema_d.EXPECTED)
# Four sentences, of two actors each: names as in the download.
NAMES = [
  f"{actor}_{sentence}_{emotion}_XX"
  for emotion in EMOTIONS
  for actor in (1001, 1002)
  for sentence in ("DFA", "ITH", "TIE", "IWW")
]
TEST = NAMES[3::4]


def write_clip(raw: pathlib.Path, name: str) -> None:
  """Sound and three pictures, as the prepared layout has them."""
  rng = np.random.default_rng(EMOTIONS.index(name.split("_")[2]))
  wave = rng.uniform(-0.5, 0.5, 6000)
  soundfile.write(raw / "AudioWAV" / f"{name}.wav", wave, 8000)
  folder = raw / "Image-01-FPS" / name
  folder.mkdir(parents=True)
  for i in range(3):
    pixels = np.full((24, 32, 3), 60 * i + 20, np.uint8)
    Image.fromarray(pixels).save(folder / f"frame_0000{i + 1}.jpg")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A download with lists of a BOM and CRLF; not to be changed."""
  raw = tmp_path_factory.mktemp("crema")
  (raw / "AudioWAV").mkdir()
  for name in NAMES:
    write_clip(raw, name)
  write_lists(raw)
  return raw


def write_lists(raw: pathlib.Path, wrong: dict[str, str] | None = None) -> None:
  for split in ("train", "test"):
    rows = [
      f"{n},{(wrong or {}).get(n, n.split('_')[2])}\r\n"
      for n in NAMES
      if (n in TEST) == (split == "test")
    ]
    text = "".join(rows).encode("utf-8-sig")
    (raw / f"{split}.csv").write_bytes(text)


def options(raw, **changes):
  return {"raw": str(raw), "annotations": str(raw), **OPTIONS, **changes}


def test_batches(source, tmp_path):
  data = crema_d.load(tmp_path, **options(source))
  assert data.spec.sizes == {"train": 24, "outer": 6, "val": 6, "test": 12}
  assert data.spec.classes == EMOTIONS
  assert len(data.fingerprint) == 32
  sample = data.sources["test"][0]
  assert sample["inputs"]["video"].shape == (3, 32, 32, 3)
  wave, rate = soundfile.read(source / "AudioWAV" / f"{sample['id']}.wav")
  power = signal.spectrogram(
    np.tile(wave, 2)[:8000], rate, nperseg=512, noverlap=353
  )[2]
  log = np.log(power + 1e-7)
  np.testing.assert_allclose(
    sample["inputs"]["audio"][..., 0],
    (log - log.mean()) / log.std(),
    atol=0.02,  # 16 bits
  )
  levels = sample["inputs"]["video"].mean((1, 2, 3))
  np.testing.assert_allclose(levels, [20, 80, 140], atol=2)
  for train, split in ((True, "train"), (False, "val")):
    loader = Loader(data, split, 4, seed=0, shuffle=train, augment=train)
    batch = loader.batch(0)
    assert batch.inputs["video"].shape == (4, 3, 28, 28, 3)
    assert batch.inputs["audio"].shape == (4, 257, 48, 1)


def test_what_is_wrong_is_told_and_the_rest_is_kept(source, tmp_path):
  raw = shutil.copytree(source, tmp_path / "raw")
  short, silent, blind, mislabelled = NAMES[0], NAMES[1], NAMES[4], NAMES[8]
  picture = raw / "Image-01-FPS" / short / "frame_00001.jpg"
  picture.write_bytes(picture.read_bytes()[:300])
  (raw / "AudioWAV" / f"{silent}.wav").write_bytes(b"")
  shutil.rmtree(raw / "Image-01-FPS" / blind)
  write_lists(raw, {mislabelled: "SAD", NAMES[9]: "XYZ"})
  with (raw / "train.csv").open("a") as file:
    file.write(f"{NAMES[2]},ANG\nrubbish\n")
  (raw / "AudioWAV" / "1001_IEO_XYZ_XX.wav").write_bytes(b"")
  (raw / "1001 é.flv").mkdir()
  copy = raw / "b" / f"{NAMES[5]}.WAV"
  copy.parent.mkdir()
  shutil.copy(raw / "AudioWAV" / f"{NAMES[5]}.wav", copy)
  made = crema_d.prepare(tmp_path / "data", **options(raw))
  with pathlib.Path(made.folder, "problems.csv").open() as file:
    rows = {row["sample"]: row for row in csv.DictReader(file)}
  assert {s: row["kind"] for s, row in rows.items()} == {
    short: "cannot be decoded",
    silent: "cannot be decoded",
    blind: "missing",
    mislabelled: "skipped",
    NAMES[2]: "skipped",
    "rubbish": "skipped",
    NAMES[9]: "skipped",
    "1001_IEO_XYZ_XX.wav": "skipped",
    "1001 é.flv": "skipped",
    NAMES[5]: "found twice, and kept once",
  }
  assert "'XYZ', which is no class" in rows[NAMES[9]]["reason"]
  assert "frame_00001.jpg" in rows[short]["reason"]
  assert "train.csv, line " in rows[mislabelled]["reason"]
  assert sum(sum(c.values()) for c in made.counts.values()) == 48 - 5
  assert any("instead of the paper's 6698" in p for p in made.problems)
  assert not (pathlib.Path(made.folder).parent / "work").exists()


def test_new_clips_become_the_arrays_of_the_split(source, tmp_path):
  data = crema_d.load(tmp_path, **options(source))
  made = preprocess.of(data)
  for split in core.SPLITS:
    sample = data.sources[split][0]
    heard = made["audio"](source / "AudioWAV" / f"{sample['id']}.wav")
    np.testing.assert_array_equal(heard, sample["inputs"]["audio"])
    shown = made["video"](source / "Image-01-FPS" / sample["id"])
    view = data.view["video"](sample["inputs"]["video"])
    np.testing.assert_array_equal(shown, view)
  sound = source / "AudioWAV" / f"{sample['id']}.wav"
  wave = soundfile.read(sound, dtype="float32")[0]
  np.testing.assert_array_equal(made["audio"](wave), made["audio"](sound))


def test_an_interrupted_preparation_goes_on(source, tmp_path, monkeypatch):
  make, calls = media.make, []

  def interrupted(clip, settings):
    calls.append(clip.sound)
    if len(calls) == 20:
      raise KeyboardInterrupt
    return make(clip, settings)

  monkeypatch.setattr(media, "make", interrupted)
  with pytest.raises(KeyboardInterrupt):
    crema_d.prepare(tmp_path, **options(source))
  crema_d.prepare(tmp_path, **options(source))
  assert len(calls) == 48 + 1 and len(set(calls)) == 48


def test_splits():
  official = crema_d._data_set("official")
  names = [f"{a}_IEO_ANG_HI" for a in range(1001, 1092)]
  splits = {n: official.split(n) for n in names}
  labels = dict.fromkeys(names, "ANG")
  held = av_split.hold_out(labels, splits, official.shares)
  assert set(held.values()) == set(core.SPLITS)
  assert all((splits[n] == "test") == (held[n] == "test") for n in names)
  actors = list(crema_d.speakers().values())
  counts = [actors.count(s) for s in core.SPLITS]
  assert counts == [56, 8, 8, 19]


def test_speakers_are_never_in_two_splits(source, tmp_path):
  """Two actors do not make four splits, however many clips they have."""
  with pytest.raises(core.DataError, match=r"of outer, .* \(split 'speakers'"):
    crema_d.prepare(tmp_path, raw=str(source), split="speakers", **OPTIONS)


def test_folders_that_do_not_do(tmp_path):
  with pytest.raises(ValueError, match=r"config\.data\.raw"):
    crema_d.load(tmp_path)
  with pytest.raises(core.DataError, match="no folder"):
    crema_d.load(tmp_path, raw=str(tmp_path / "none"))
  (tmp_path / "empty").mkdir()
  with pytest.raises(core.DataError, match="holds no clips of crema_d"):
    crema_d.load(tmp_path, raw=str(tmp_path / "empty"))
  with pytest.raises(ValueError, match="speakers"):
    crema_d.load(tmp_path, split="speaker")


def test_random_resized_crop():
  rng = np.random.default_rng(0)
  scale, ratio = (0.2, 0.6), (0.5, 2.0)
  for _ in range(200):
    top, left, h, w = crop.box(rng, 40, 60, scale, ratio)
    assert 0 <= top <= 40 - h and 0 <= left <= 60 - w
    assert 0.17 < h * w / 2400 < 0.64 and 0.45 < w / h < 2.2
  assert crop.box(rng, 10, 90, (1, 1), (0.5, 2)) == (0, 35, 10, 20)
  whole = crop.random_resized_crop(8, scale=(1, 1), ratio=(1, 1), flip=False)
  array = rng.integers(0, 255, (2, 8, 8, 3)).astype(np.uint8)
  np.testing.assert_array_equal(whole(rng, array), array)
  cut = crop.random_resized_crop(8)(rng, np.stack([array[0]] * 2))
  assert (cut[0] != cut[1]).any()  # each frame by itself
