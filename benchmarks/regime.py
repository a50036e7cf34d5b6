"""Where imbalance costs: joint training beside encoders that do not compete.

  python -m benchmarks.regime --images=mnist.npz --out=regime.json [--seeds=3]
  python -m benchmarks.regime --out=regime.json --draw=regime.svg

Handwritten digits, each as a picture (a small convolutional network) and as an
array (an MLP): its Fourier amplitudes, as ``data_pipelines/tools/spectra.py``
has them. One thing is changed at a time, from ``BASE``: training pictures of a
digit, epochs, the share of training labels that are wrong, and the array. With
``noise=s`` each amplitude has Gaussian noise of s times its standard deviation;
``pixels`` is the picture itself as an array, the strongest.

The cost of a cell is accuracy on test, in points, of the best of ``multitask``
and ``ensemble``, by their mean on val, minus that of ``joint``. Nothing is
chosen on test. The file grows with each run; the same command goes on with what
is missing.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import dmg_jax
from data_pipelines.tools import spectra
from data_pipelines.tools._digits_sources import read_images

RECIPES = ("joint", "multitask", "ensemble")
HELD, TEST = 30, 300  # val's and test's pictures of a digit
SIZE = 14  # pixels of a picture, each way


class Cell(NamedTuple):
  """What is changed: pictures a digit, epochs, wrong labels, the array."""

  train: int = 50
  epochs: int = 40
  wrong: float = 0.0
  array: str = "spectrum"


BASE = Cell()
AXES: dict[str, list[Any]] = {
  "train": [10, 20, 50, 200],
  "epochs": [5, 15, 40, 120],
  "wrong": [0.0, 0.2, 0.4],
  "array": ["pixels", "spectrum", "noise=1", "noise=3"],
}
TITLES = {
  "train": "training pictures a digit",
  "epochs": "epochs",
  "wrong": "share of wrong labels",
  "array": "the array",
}


def cells() -> list[Cell]:
  """Each cell once, the base first."""
  changed = [
    BASE._replace(**{axis: value})
    for axis, values in AXES.items()
    for value in values
  ]
  return list(dict.fromkeys([BASE, *changed]))


def table(images: str | None, cell: Cell, seed: int) -> Any:
  """The samples of a cell as a DataFrame.

  Pictures and wrong labels are drawn by the seed; a smaller ``train`` is a part
  of a larger one.
  """
  import pandas as pd

  x, y = read_images(images)
  rng = np.random.default_rng([seed, 1])
  rows, splits = [], []
  for digit in range(10):
    order = rng.permutation(np.flatnonzero(y == digit))
    held = {"outer": HELD, "val": HELD, "test": TEST, "train": cell.train}
    for split, size in held.items():
      rows += list(order[:size])
      splits += [split] * len(order[:size])
      order = order[size:]
  labels = y[rows].copy()
  train = np.flatnonzero(np.array(splits) == "train")
  wrong = train[rng.random(len(train)) < cell.wrong]
  labels[wrong] = (labels[wrong] + rng.integers(1, 10, len(wrong))) % 10
  arrays = _arrays(x[rows], cell.array, np.random.default_rng([seed, 2]))
  pictures = [_smaller(p) for p in x[rows]]
  return pd.DataFrame(
    {
      "split": splits,
      "label": [str(label) for label in labels],
      "picture:image": pictures,
      "numbers:array": list(arrays),
    }
  )


def _arrays(x: np.ndarray, name: str, rng: np.random.Generator) -> np.ndarray:
  if name == "pixels":
    return x.reshape(len(x), -1).astype(np.float32) / 255
  found = np.stack([spectra.spectrum(p) for p in x])
  sigma = float(name.partition("=")[2] or 0)
  noise = rng.normal(size=found.shape) * found.std(axis=0) * sigma
  return (found + noise).astype(np.float32)


def _smaller(picture: np.ndarray) -> np.ndarray:
  """The picture [h w], its pixels averaged to ``SIZE`` x ``SIZE``."""
  from PIL import Image

  return np.asarray(Image.fromarray(picture).resize((SIZE, SIZE), 4))


def train(images: str | None, cell: Cell, recipe: str, seed: int) -> dict:
  """Accuracies in % of one run on val and test."""
  run = dmg_jax.fit(
    table(images, cell, seed),
    recipe=recipe,
    epochs=cell.epochs,
    batch_size=50,
    seed=seed,
    config={"data.image_size": SIZE, "report": "off"},
  )
  return {
    split: {
      m: round(100 * float(scores["accuracy"]), 2)
      for m, scores in run.results[split].items()
      if "accuracy" in scores and m != "gap"
    }
    for split in ("val", "test")
  }


def _key(cell: Cell, recipe: str, seed: int) -> str:
  return f"{cell.train}|{cell.epochs}|{cell.wrong}|{cell.array}|{recipe}|{seed}"


def measure(images: str | None, out: Path, seeds: int) -> None:
  """Runs what the file lacks, seed by seed."""
  found = _load(out)
  for seed in range(seeds):
    for cell in cells():
      for recipe in RECIPES:
        key = _key(cell, recipe, seed)
        if key not in found["runs"]:
          found["runs"][key] = train(images, cell, recipe, seed)
          out.write_text(json.dumps(found, indent=1), encoding="utf-8")
          print(key, found["runs"][key]["test"], flush=True)


def _load(path: Path) -> dict[str, Any]:
  if path.exists():
    return json.loads(path.read_text(encoding="utf-8"))
  import jax

  device = jax.devices()[0].platform
  machine = f"{device}, {platform.machine()}, jax {jax.__version__}"
  return {"machine": machine, "runs": {}}


def costs(found: dict[str, Any], cell: Cell) -> list[float]:
  """The cost of a cell on test, seed by seed; see the top of the file."""
  runs, seeds = found["runs"], []
  while all(_key(cell, r, len(seeds)) in runs for r in RECIPES):
    seeds.append({r: runs[_key(cell, r, len(seeds))] for r in RECIPES})
  if not seeds:
    return []
  best = max(
    RECIPES[1:], key=lambda r: sum(s[r]["val"]["fused"] for s in seeds)
  )
  return [s[best]["test"]["fused"] - s["joint"]["test"]["fused"] for s in seeds]


def summary(found: dict[str, Any]) -> str:
  """A Markdown table, a row for each cell: means over the seeds."""
  head = "| changed | joint | multitask | ensemble | picture alone "
  lines = [head + "| array alone | cost | seeds |", "|---|" + "---:|" * 7]
  for axis, values in AXES.items():
    for value in values:
      cell = BASE._replace(**{axis: value})
      own = costs(found, cell)
      if own:
        mean = _means(found, cell, len(own))
        spread = f" ± {np.std(own, ddof=1):.1f}" if len(own) > 1 else ""
        cost = f"{np.mean(own):+.1f}{spread}".replace("-", "−")
        name = f"{TITLES[axis]}: {value:g}" if axis != "array" else value
        text = " | ".join(f"{v:.1f}" for v in mean)
        lines.append(f"| {name} | {text} | {cost} | {len(own)} |")
  return "\n".join(lines)


def _means(found: dict[str, Any], cell: Cell, seeds: int) -> list[float]:
  wanted = [(r, "fused") for r in RECIPES]
  wanted += [("ensemble", "picture"), ("ensemble", "numbers")]
  return [
    float(
      np.mean(
        [found["runs"][_key(cell, r, s)]["test"][m] for s in range(seeds)]
      )
    )
    for r, m in wanted
  ]


def figure(found: dict[str, Any]) -> Any:
  """Cost along each axis: the mean as a line, each seed as a dot."""
  from matplotlib.figure import Figure

  made = Figure(figsize=(8.6, 2.4), layout="constrained")
  panels = made.subplots(1, len(AXES), sharey=True)
  for axes, (axis, values) in zip(panels, AXES.items(), strict=True):
    every = [costs(found, BASE._replace(**{axis: v})) for v in values]
    means = [float(np.mean(own)) if own else np.nan for own in every]
    axes.axhline(0, color="#6b6b6b", linewidth=0.6)
    axes.plot(range(len(values)), means, "-", color="#0072B2")
    for place, own in enumerate(every):
      axes.plot([place] * len(own), own, "o", color="#0072B2", markersize=3)
    names = [f"{v:g}" if axis != "array" else v for v in values]
    axes.set_xticks(range(len(values)), names, fontsize=7)
    axes.set_xlabel(TITLES[axis], fontsize=8)
  panels[0].set_ylabel("cost on test, points")
  return made


def main() -> None:
  """The command."""
  made = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  made.add_argument("--images", help=".npz; default: scikit-learn's digits")
  made.add_argument("--out", type=Path, required=True, help=".json")
  made.add_argument("--seeds", type=int, default=3)
  made.add_argument("--draw", type=Path, help="draw this file and run nothing")
  options = made.parse_args()
  if options.draw:
    found = _load(options.out)
    figure(found).savefig(options.draw, metadata={"Date": None})
    print(summary(found))
  else:
    measure(options.images, options.out, options.seeds)


if __name__ == "__main__":
  main()
