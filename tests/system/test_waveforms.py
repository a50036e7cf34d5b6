"""Raw sounds by a table and in memory, from files to predictions."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

import dmg_jax
import helpers
from data_pipelines.transforms import audio
from dmg_jax.model.encoders import pretrained, small, wav2vec2


def table(folder, rows=40):
  """Tones of two pitches and lengths, a row each."""
  rng, found = np.random.default_rng(0), []
  for i in range(rows):
    label = i // 2 % 2
    time = np.arange(300 + 100 * (i % 3)) / 1000
    wave = 0.2 + 0.3 * np.sin(2 * np.pi * (60 + 150 * label) * time)
    wave += 0.02 * rng.normal(size=len(time))
    soundfile.write(folder / f"{i}.wav", wave, 1000)
    found.append({
      "split": ("train", "train", "train", "test", "val")[i % 5],
      "label": "ab"[label],
      "tone:waveform": f"{i}.wav",
      "note:text": ("deep", "high")[label] if i % 4 else "none",
    })  # fmt: skip
  return helpers.write_table(folder / "tones.csv", found)


def test_samples_are_those_of_the_file(tmp_path):
  path = table(tmp_path, 20)
  data = helpers.load_manifest(
    path, tmp_path / "data", sample_rate=1000, seconds=0.5
  )
  spec = data.spec.modalities["tone"]
  assert (spec.kind, spec.shape, spec.dtype) == ("waveform", (500,), np.float32)
  wave = data.sources["test"][0]["inputs"]["tone"]
  assert wave.dtype == np.float32
  assert abs(wave.mean()) < 1e-6 and abs(wave.std() - 1) < 1e-4
  raw = audio.read(tmp_path / "3.wav", 1000)
  np.testing.assert_array_equal(wave, audio.standardised(raw, 500))
  assert data.preprocessing["tone"] == {"sample_rate": 1000, "length": 500}
  made = helpers.prepare_manifest(
    path, tmp_path / "data", sample_rate=1000, seconds=0.4
  )
  said = [note for note in made.notes if note.startswith("tone: clips of 0.4")]
  assert "samples of shape (400,)" in said[0]
  assert "clips are longer and cut" in said[0]


OPTIONS = {
  "data.sample_rate": 1000,
  "data.seconds": 0.5,
  "train.batch_size": 8,
  "encoders.waveform.features": 8,
  "encoders.text.features": 8,
}


@pytest.mark.slow
def test_from_table_to_prediction(command, tmp_path):
  path, work = table(tmp_path), tmp_path / "run"
  fields = {"data.manifest": path, "data.dir": tmp_path / "data", **OPTIONS}
  fields |= {
    "train.epochs": 30,
    "optimiser.learning_rate": 0.01,
    "encoders.waveform.widths": "(8,16)",
  }
  words = [f"--config.{k}={v}" for k, v in fields.items()]
  given = ("--config=configs/manifest.py:multitask", f"--workdir={work}")
  code, _, err = command(*given, *words)
  assert code == 0, err
  results = json.loads((work / "results.json").read_text(encoding="utf-8"))
  assert results["test"]["tone"]["accuracy"] > 0.7
  page = (work / "report" / "report.html").read_text(encoding="utf-8")
  assert 'scope="row">tone<' in page
  run = dmg_jax.load(work)
  wave = audio.read(tmp_path / "3.wav", 1000)
  both = run.predict(
    {"tone": [wave, str(tmp_path / "3.wav")], "note": ["a"] * 2}
  )
  np.testing.assert_array_equal(*both.probabilities["fused"])


@pytest.mark.slow
def test_arrays_with_pretrained_weights(tmp_path):
  sizes = {"widths": (8, 8), "kernels": (5, 3), "strides": (4, 2)}
  sizes |= {"width": 8, "depth": 1, "heads": 2, "hidden": 8}
  sizes |= {"position_kernel": 4, "position_groups": 2}
  module = wav2vec2.Wav2Vec2(**sizes)
  fresh = module.init(jax.random.key(1), jnp.zeros((1, 60)), False)
  pretrained.write(tmp_path / "weights", module, fresh)
  rng = np.random.default_rng(0)
  waves = list(rng.normal(size=(60, 200)).astype(np.float32))
  y = np.arange(60) % 2
  run = dmg_jax.fit(
    {"tone:waveform": waves, "note": ["even" if v else "odd" for v in y]},
    y,
    recipe="joint",
    epochs=1,
    encoders={"waveform": "wav2vec2.Wav2Vec2"},
    config={
      "encoders.waveform.pretrained": str(tmp_path / "weights"),
      "data.sample_rate": 1000,
    },
  )
  found = run.predict({"tone": waves[:2], "note": ["odd"] * 2})
  assert len(found.labels) == 2


def test_small_encoder_runs_in_stages():
  module = small.ConvNet1D(features=5, widths=(8, 16))
  x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 70)), jnp.float32)
  params = module.init(jax.random.key(0), x, False)
  whole, parts = module.apply(params, x, False), x
  for i in range(3):
    parts = module.apply(params, parts, False, i, i + 1)
    assert parts.shape == [(3, 18, 8), (3, 5, 16), (3, 5)][i]
  np.testing.assert_array_equal(parts, whole)
