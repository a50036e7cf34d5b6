"""Small data sets for tests, in memory and as files."""

from __future__ import annotations

import csv
import json
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import manifest
from data_pipelines.core import Cached, Dataset, ModalitySpec, Sample, Spec, raw

CLASSES = ("ant", "bee", "cat")
WORDS = 9  # of the toy text, padding and unknown among them
_MODALITIES = {
  "array": ModalitySpec("array", (5,), np.float32),
  "image": ModalitySpec("image", (8, 8, 3), np.uint8),
  "text": ModalitySpec("text", (4,), np.int32, vocab_size=WORDS),
}


def toy_dataset(
  modalities: Sequence[str] = ("array", "image"),
  n: int = 48,
  seed: int = 0,
) -> Dataset:
  """A data set whose every modality tells the label, with some noise.

  Args:
    modalities: of ``array``, ``image``, ``text``.
    n: samples of train; outer and val have a quarter of it, test a half.
    seed: of the samples.
  """
  kept = {m: _MODALITIES[m] for m in modalities}
  sizes = {"train": n, "outer": n // 4, "val": n // 4, "test": n // 2}
  sources = {
    split: Cached([_sample(kept, split, i, seed) for i in range(size)], kept)
    for split, size in sizes.items()
  }
  augment = {"array": _noise} if "array" in kept else {}
  return Dataset(Spec("toy", kept, CLASSES, sizes), sources, augment)


def _noise(rng: np.random.Generator, array: np.ndarray) -> np.ndarray:
  return array + rng.normal(scale=0.1, size=array.shape).astype(array.dtype)


def _sample(modalities, split: str, i: int, seed: int) -> Sample:
  rng = np.random.default_rng([seed, *split.encode(), i])
  label = i % len(CLASSES)
  made = {
    "array": (rng.normal(size=5) + 2 * (np.arange(5) == label)),
    "image": rng.integers(0, 60, (8, 8, 3)) + 150 * (np.arange(3) == label),
    "text": np.array([2 + label, *rng.integers(2, WORDS, 2), 0]),
  }
  inputs = {m: made[m].astype(s.dtype) for m, s in modalities.items()}
  return {"inputs": inputs, "label": label, "id": f"{split}-{i}"}


def decode_number(name: str, folder: str) -> dict[str, np.ndarray]:
  """A ``raw.Decoding.make`` that notes its calls; workers must find it here."""
  text = pathlib.Path(folder, name).read_text()
  with pathlib.Path(folder, "calls").open("a") as calls:
    calls.write(name)
  if text == "skip":
    raise raw.Skip(f"{name} is left out")
  return {"code": np.array([int(text)])}


def wait_for_file(name: str, folder: str) -> dict[str, np.ndarray]:
  """A ``raw.Decoding.make`` that ends when there is a file ``go``."""
  pathlib.Path(folder, f"at-{name}").touch()
  while not pathlib.Path(folder, "go").exists():
    time.sleep(0.02)
  return {"code": np.array([1])}


def modules_after(loader: Any, step: int) -> set[str]:
  """What a process has loaded once it has made a batch."""
  loader.batch(step)
  return {*sys.modules}


def write_manifest(
  folder: pathlib.Path,
  rows: int = 200,
  modalities: Sequence[str] = ("photo:image", "caption:text", "sound:audio"),
  name: str = "pairs.csv",
  splits: Sequence[str] = ("train", "train", "train", "test"),
  seed: int = 0,
) -> pathlib.Path:
  """A manifest and its files; each modality tells the label, with noise.

  Args:
    folder: new or empty.
    rows: samples, in turn of each class of ``CLASSES`` in each split.
    modalities: headers of columns, ``name:kind``.
    name: of the manifest; its ending is the format.
    splits: of the samples, in turn; ``outer`` and ``val`` may be absent.
    seed: of the samples.

  Returns:
    The manifest's path.
  """
  folder.mkdir(parents=True, exist_ok=True)
  table: list[dict[str, Any]] = []
  for i in range(rows):
    label = (i // len(splits)) % len(CLASSES)
    row = {"split": splits[i % len(splits)], "label": CLASSES[label]}
    for header in modalities:
      column, kind = header.split(":")
      rng = np.random.default_rng([seed, i, *column.encode()])
      stem = f"{column}_{i:04d}"
      row[header] = _WRITERS[kind](folder, stem, label, rng)
    table.append(row)
  return write_table(folder / name, table)


def write_table(
  path: pathlib.Path, rows: Sequence[dict[str, Any]]
) -> pathlib.Path:
  """A table as CSV, JSONL or Parquet, as the ending of its name says."""
  if path.suffix == ".csv":
    with path.open("w", encoding="utf-8", newline="") as file:
      writer = csv.DictWriter(file, list(rows[0]))
      writer.writeheader()
      writer.writerows(rows)
  elif path.suffix == ".jsonl":
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
  else:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
  return path


# Of a run that predicts.
COLUMNS = ("photo:image", "caption:text", "sensor:array")

# Samples as small as they go.
MANIFEST = {"image_size": 8, "sample_rate": 8000, "nperseg": 64, "noverlap": 0}


def load_manifest(path: pathlib.Path, folder: pathlib.Path, **options: Any):
  """``manifest.load`` with small samples."""
  return manifest.load(folder, manifest=str(path), **(MANIFEST | options))


def prepare_manifest(path: pathlib.Path, folder: pathlib.Path, **options: Any):
  """``manifest.prepare`` with small samples."""
  return manifest.prepare(folder, manifest=str(path), **(MANIFEST | options))


def read_table(path: pathlib.Path) -> list[dict[str, Any]]:
  """The rows of a CSV file."""
  with path.open(encoding="utf-8", newline="") as file:
    return list(csv.DictReader(file))


def samples(dataset: Dataset) -> dict[tuple[str, str], tuple[str, Any]]:
  """{(split, id): (class, inputs)}."""
  return {
    (split, s["id"]): (dataset.spec.classes[s["label"]], s["inputs"])
    for split, source in dataset.sources.items()
    for s in (source[i] for i in range(len(source)))
  }


def write_run(config, folder, encoders=None):
  """A run that stopped at once, as it is read back.

  Args:
    config: of the run, changed.
    folder: of the run.
    encoders: {modality: Flax module} of the user's own.
  """
  from dmg_jax.training import experiment, run_folder
  from dmg_jax.training.checkpoint import METRIC, Checkpoints

  config.loader.resident = "off"  # As it is read back.
  setup = experiment.assemble(config, encoders=encoders)
  folder.mkdir(parents=True, exist_ok=True)
  run_folder.write_config(setup.config, folder, None, setup=setup)
  checkpoints = Checkpoints(folder)
  checkpoints.save(setup.fresh(), {METRIC: 0.5})
  checkpoints.close()
  return folder


def _write_image(folder, stem, label, rng) -> str:
  shown = label if rng.random() < 0.9 else rng.integers(len(CLASSES))
  pixels = rng.integers(0, 170, (12, 16, 3)) + 80 * (np.arange(3) == shown)
  path = folder / f"{stem}.{'jpg' if rng.random() < 0.5 else 'png'}"
  Image.fromarray(pixels.astype(np.uint8)).save(path)
  return path.name


def _write_text(folder, stem, label, rng) -> str:
  del folder, stem
  words = list(rng.choice(["red", "big", "old", "wet, cold"], 3))
  shown = label if rng.random() < 0.8 else rng.integers(len(CLASSES))
  return " ".join([*words, f"{CLASSES[shown]}-like"])


def _write_audio(folder, stem, label, rng) -> str:
  """A tone, clicks or nothing, in noise; pitch does not tell the label."""
  import soundfile

  rate = 8000
  time = np.arange(int(rate * rng.uniform(0.2, 0.5))) / rate
  pitch = rng.uniform(300, 3000)
  tone, clicks = np.sin(2 * np.pi * pitch * time), 5.0 * (time % 0.05 < 1e-4)
  wave = 0.1 * (tone, clicks, 0 * time)[label]
  path = folder / f"{stem}.wav"
  soundfile.write(path, wave + rng.normal(scale=0.03, size=len(time)), rate)
  return path.name


def _write_array(folder, stem, label, rng) -> str:
  path = folder / f"{stem}.npy"
  np.save(path, 5 + rng.normal(size=(2, 3)) + 2 * (np.arange(3) == label))
  return path.name


def _write_video(folder, stem, label, rng) -> str:
  import av

  path = folder / f"{stem}.avi"
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    for _ in range(6):
      pixels = rng.integers(0, 80, (32, 32, 3)) + 150 * (np.arange(3) == label)
      frame = av.VideoFrame.from_ndarray(pixels.astype(np.uint8), "rgb24")
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return path.name


_WRITERS = {
  "image": _write_image,
  "text": _write_text,
  "audio": _write_audio,
  "array": _write_array,
  "video": _write_video,
}
