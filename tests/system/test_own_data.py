"""A manifest from its table to results: kinds of any length, few samples."""

import json

import jax
import numpy as np
import pytest
import soundfile

import helpers
from configs import manifest, twitter2015
from dmg_jax.training import experiment, replica, seeds
from dmg_jax.training.describe import describe

av = pytest.importorskip("av")

CONV = {"widths": "(8,)", "features": 8}


def clip(path, label, frames, shape, rng):
  """An MP4 whose colour tells the label."""
  height, width = shape
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=int(rng.choice([5, 25])))
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv420p"
    for _ in range(frames):
      pixels = rng.integers(0, 80, (*shape, 3)) + 150 * (np.arange(3) == label)
      frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), "rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def tone(path, label, seconds, rate, rng):
  time = np.arange(round(rate * seconds)) / rate
  wave = np.sin(2 * np.pi * 400 * (label + 1) * time)
  soundfile.write(path, 0.3 * wave + 0.05 * rng.normal(size=len(time)), rate)


@pytest.fixture
def table(tmp_path):
  """Clips of 1 to 20 frames, upright and wide; sounds of 10 ms to 2 s."""
  rng = np.random.default_rng(0)
  rows = []
  for i in range(40):
    label, name = i // 4 % 2, f"{i}.mp4"
    shape = ((32, 48), (48, 32))[i % 2]
    clip(tmp_path / name, label, 1 + i % 20, shape, rng)
    sound = f"{i}.{('wav', 'flac', 'ogg')[i % 3]}"
    seconds, rate = (0.01, 0.3, 2.0)[i % 3], (4000, 8000)[i % 2]
    tone(tmp_path / sound, label, seconds, rate, rng)
    rows.append({
      "split": ("train", "train", "train", "test")[i % 4],
      "label": "ab"[label],
      "clip:video": name,
      "speech:audio": sound,
    })  # fmt: skip
  return helpers.write_table(tmp_path / "clips.csv", rows)


@pytest.mark.slow
def test_videos_and_sounds_of_any_length(command, table, tmp_path):
  work = tmp_path / "run"
  fields = {
    "data.manifest": table,
    "data.dir": tmp_path / "data",
    "data.image_size": 8,
    "data.frames": 2,
    "data.sample_rate": 4000,
    "data.seconds": 0.2,
    "data.nperseg": 64,
    "train.batch_size": 8,
    "train.epochs": 1,
    **{
      f"encoders.{kind}.{name}": value
      for kind in ("video", "audio")
      for name, value in CONV.items()
    },
  }
  words = [f"--config.{name}={value}" for name, value in fields.items()]
  given = ("--config=configs/manifest.py:h", f"--workdir={work}", *words)
  code, out, err = command(*given)
  assert code == 0, err
  assert "h on clips.csv" in out
  assert "note: split 'outer' is absent" in err
  results = json.loads((work / "results.json").read_text(encoding="utf-8"))
  assert results["dataset"] == "clips.csv"
  assert set(results["test"]) == {"fused", "clip", "speech", "gap"}
  assert np.isfinite(results["test"]["fused"]["loss"])
  page = (work / "report" / "report.html").read_text(encoding="utf-8")
  assert "<h1>h on clips.csv</h1>" in page
  assert 'scope="row">clip<' in page and 'scope="row">speech<' in page


def test_encoders_by_key(tmp_path, monkeypatch):
  """Of a modality or of a kind; their options are fields."""
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  table = helpers.write_manifest(tmp_path / "few.csv", 40)
  data = {"manifest": str(table), "dir": str(tmp_path), "image_size": 8}
  plain = manifest.get_config("joint").encoders
  given = "encoder.caption=small.WordBag,encoder.image=resnet.ResNet"
  config = manifest.get_config(f"lb,{given}")
  config.data.update(data)
  config.encoders.image.width = 8
  assert config.encoders.text == plain.text
  assert config.encoders.caption != plain.text  # Its dropout is the default.
  encoders = experiment.assemble(config).encoders
  photo = encoders["photo"]
  assert (photo["name"], photo["width"]) == ("resnet.ResNet", 8)
  assert photo["features"] == plain.text.features  # For matching.
  assert encoders["caption"]["dropout"] == config.encoders.caption.dropout
  clip = twitter2015.get_config("lb,encoders=clip,encoder.text=small.WordBag")
  assert clip.encoders.image.features == 0  # As wide as it ends.
  assert clip.encoders.text.features == plain.text.features
  wrong = {
    "foto=resnet.ResNet": r"'foto'; did you mean 'photo'",
    "photo=small.WordBag": r"reads text; .* 'photo' is image: give it clip",
  }
  for given, said in wrong.items():
    config = manifest.get_config(f"joint,encoder.{given}")
    config.data.update(data)
    with pytest.raises(ValueError, match=said):
      experiment.assemble(config)
  given = "unimodal,modality=caption,encoder.photo=resnet.ResNet"
  config = manifest.get_config(given)
  config.data.update(data)
  assert set(experiment.assemble(config).encoders) == {"caption"}


def test_batches_are_at_most_their_split(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "device_count", lambda: 1)
  table = helpers.write_manifest(tmp_path / "few.csv", 40)
  config = manifest.get_config("lb,batch_size=100")
  config.data.update(manifest=str(table), dir=str(tmp_path), image_size=8)
  setup = experiment.assemble(config)
  sizes = setup.dataset.spec.sizes
  assert 1 < sizes["outer"] < 8 < sizes["train"] < 100
  assert setup.batch_size == sizes["train"]
  assert setup.outer_batch_size == sizes["outer"]
  inner = min(64, sizes["train"])
  assert setup.inner_batch_size == inner
  facts = describe([setup], tmp_path, 1, seeds.Choice(False))
  told = facts["batch_size"]
  assert told == (
    f"{sizes['train']} (not 100: all that train has), inner {inner}, "
    f"outer {sizes['outer']} (not 256: all that outer has)"
  )
  config.train.update(inner_batch_size=3, outer_batch_size=2)
  run = replica.Replica(experiment.assemble(config))
  batch = run.loader.batch(0)
  inner, outer = run.inner_batch(batch), run.outer_batch(0)
  np.testing.assert_array_equal(inner.index, batch.index[:3])
  assert outer.labels.shape == (2,)
