"""Work directories with made-up but plausible contents."""

import math
from types import SimpleNamespace

import numpy as np

from dmg_jax.report import arrays, examples, save_features, save_predictions
from dmg_jax.tracking.logging import MetricsFile, write_json

STEPS = 17


def metrics(scores):
  """A metrics tree with these accuracies, ``fused`` first."""
  tree = {
    m: {"accuracy": a, "map": a + 0.02, "macro_f1": a - 0.03, "loss": 1.0}
    for m, a in scores.items()
  }
  own = [a for m, a in scores.items() if m != "fused"]
  return {**tree, "gap": {"accuracy": max(own) - min(own), "centroid": {}}}


def scores_at(t, modalities, rng):
  """Plausible accuracies after ``t`` epochs."""
  top = dict(zip(modalities, (0.48, 0.62, 0.4), strict=False))
  rise = {m: a * (1 - math.exp(-t / 6)) + 0.05 for m, a in top.items()}
  rise = {"fused": 0.7 * (1 - math.exp(-t / 4)), **rise}
  return {m: a + rng.normal(0, 0.012) for m, a in rise.items()}


def log(folder, modalities, epochs, rng, alpha=True):
  """Fake ``metrics.jsonl``; returns α of each epoch and the last metrics."""
  file, history, tree = MetricsFile(folder), [], {}
  for epoch in range(1, epochs + 1):
    weight = 0.12 + 0.4 * math.exp(-epoch / 5) + rng.normal(0, 0.01)
    history.append(weight)
    for step in range((epoch - 1) * STEPS + 1, epoch * STEPS + 1):
      if step % 10 and step % STEPS:
        continue
      cls = 2 * math.exp(-step / 120) + 0.15 + rng.normal(0, 0.05)
      mm = 0.5 + 0.5 * math.exp(-step / 90) + rng.normal(0, 0.03)
      terms = {"cls": cls, "matching": mm, "alpha": weight} if alpha else {}
      total = (1 - weight) * cls + weight * mm if alpha else cls
      place = {"step": step, "epoch": epoch, "split": "train"}
      file.write({**place, "loss": total, **terms, "weight_norm": 21.0})
    place = {"step": epoch * STEPS, "epoch": epoch}
    if alpha:
      file.write(
        {**place, "split": "outer", "hypergradient": -0.1, "alpha": weight}
      )
    tree = metrics(scores_at(epoch, modalities, rng))
    flat = {f"{m}/accuracy": v["accuracy"] for m, v in tree.items()}
    loss = 2 * math.exp(-epoch / 5) + 0.7 + 0.012 * epoch
    file.write({**place, "split": "val", **flat, "fused/loss": loss})
  file.close()
  return history if alpha else [], tree


def features(folder, sizes, rng, n=230):
  """Fake test features: two cones with a class structure in common."""
  labels = rng.integers(0, 8, n)
  kinds = rng.normal(size=(8, 64))
  found = {}
  for m, d in sizes.items():
    z = kinds[labels, :d] * 0.8 + rng.normal(size=(n, d)) * 0.7
    z = z + rng.normal(size=d) * 1.3
    found[m] = z / np.linalg.norm(z, axis=1, keepdims=True)
  evaluation = SimpleNamespace(
    features=found, labels=labels, index=np.arange(n), present={}
  )
  save_features(folder, evaluation, [str(i) for i in range(8)])
  return found


def predictions(folder, modalities, rng, k=8, n=230, classes=None):
  """Fake test predictions, and examples of them: pictures, texts, sound."""
  names = classes or [f"class {i}" for i in range(k)]
  labels = rng.integers(0, k, n)
  made = {}
  for i, m in enumerate(("fused", *modalities)):
    logits = rng.normal(size=(n, k)) + (3 - i) * np.eye(k)[labels]
    p = np.exp(logits)
    made[m] = p / p.sum(axis=1, keepdims=True)
  evaluation = SimpleNamespace(
    probabilities=made, labels=labels, index=np.arange(n)
  )
  save_predictions(folder, evaluation, names)
  chosen = examples.choose(made, labels)
  kinds = [
    k if k in ("image", "text", "audio") else "image" for k in modalities
  ]
  shapes = {"image": (12, 12, 3), "audio": (9, 30)}
  content = {
    f"shown_{i}": np.array([f"a text of {r}" for r, _ in chosen])
    if kind == "text"
    else rng.integers(0, 256, (len(chosen), *shapes[kind]), np.uint8)
    for i, kind in enumerate(kinds)
  }
  content |= {
    "index": np.array([row for row, _ in chosen]),
    "ids": np.array([str(row) for row, _ in chosen]),
    "rules": np.array([rule for _, rule in chosen]),
    "modalities": np.array(modalities),
    "kinds": np.array(kinds),
  }
  arrays.save(folder / examples.FILE, content)
  return made, labels


def readouts(folder, modalities, more=0.0):
  """Fake ``readouts.json``: two read-outs of which one is missing."""
  score = {"accuracy": 0.4 + more, "macro_f1": 0.3 + more}
  heads = {m: {"own": score, "linear_probe": score} for m in modalities}
  names = {
    "own": "R2 own head", "feature_ablation": "R3 feature ablation",
    "input_ablation": "R4 input ablation", "linear_probe": "linear probe",
  }  # fmt: skip
  reason = {"feature_ablation": "no <feature> is of one modality alone"}
  content = {
    "dataset": "openmoji", "recipe": "channel", "names": names,
    "scores": {"fused": {"own": score}, **heads}, "chance": score,
    "absent": dict.fromkeys(modalities, reason), "notes": ["A & B"],
  }  # fmt: skip
  write_json(folder / "readouts.json", content)


def config(folder, modalities, recipe="lb", epochs=30, **more):
  """Fake ``config.json``."""
  write_json(
    folder / "config.json",
    {
      "config": {
        "recipe": recipe,
        "variant": recipe,
        "data": {"name": "openmoji"},
        "encoders": {m: {"name": "small.MLP"} for m in modalities},
        "train": {"epochs": epochs, "batch_size": 64},
        **more,
      },
      "versions": {"jax": "0.10.2", "numpy": "2.4.6"},
      "git": "0123abc",
    },
  )


def run(
  folder, modalities=("image", "text"), epochs=30, seed=0, alpha=True, done=True
):
  """A fake run; returns its results."""
  folder.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(seed)
  config(folder, modalities, "lb" if alpha else "joint", max(epochs, 30))
  history, test = log(folder, modalities, epochs, rng, alpha)
  results = {
    "recipe": "lb" if alpha else "joint",
    "dataset": "openmoji",
    "seed": seed,
    "epochs": epochs,
    "alpha": history,
    "readout": "R1 split head",
    "test": test,
    "val": test,
    "timing": {"seconds": 61.0},
  }
  if done:
    write_json(folder / "results.json", results)
    features(folder, dict.fromkeys(modalities, 64), rng)
  return results


def seeds(folder, count=3):
  """Fake runs of several seeds and their summary."""
  runs = [run(folder / f"seed_{i}", seed=i) for i in range(count)]
  config(folder, ("image", "text"), seeds=count)
  write_json(
    folder / "results.json",
    {"recipe": "lb", "dataset": "openmoji", "runs": runs},
  )
  return runs
