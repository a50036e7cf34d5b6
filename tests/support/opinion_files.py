"""Pickles of feature sequences as MMSA and MulT write them, for tests."""

from __future__ import annotations

import pathlib
import pickle

import numpy as np

SIZES = {"train": 24, "valid": 8, "test": 10}
DIMS = {"text": 6, "audio": 5, "vision": 4}
STEPS = {"text": 7, "audio": 20, "vision": 15}


def mmsa(aligned: bool = True, seed: int = 0, sizes: dict = SIZES) -> dict:
  """The dict of ``aligned_50.pkl`` or ``unaligned_50.pkl``, with 7 words."""
  rng = np.random.default_rng(seed)
  return {part: _mmsa_part(part, n, aligned, rng) for part, n in sizes.items()}


def _mmsa_part(
  part: str, n: int, aligned: bool, rng: np.random.Generator
) -> dict:
  steps = dict.fromkeys(STEPS, STEPS["text"]) if aligned else STEPS
  found = {
    m: rng.normal(size=(n, steps[m], d)).astype(np.float32)
    for m, d in DIMS.items()
  }
  lengths = {m: rng.integers(2, steps[m] + 1, n) for m in DIMS}
  for m, x in found.items():
    for i, length in enumerate(lengths[m]):
      x[i, length:] = 0
  words = np.zeros((n, 3, steps["text"]), np.float32)
  for i, length in enumerate(lengths["text"]):
    words[i, 0, :length], words[i, 1, :length] = 7, 1
  scores = np.linspace(-3, 3, n).astype(np.float32)
  found["text"] += scores[:, None, None] * (found["text"] != 0)
  more = {
    "raw_text": [f"word {part} number {i}" for i in range(n)],
    "text_bert": words,
    "id": [f"{part}film{i // 3}$_${i}" for i in range(n)],
    "annotations": ["Negative" if y < 0 else "Positive" for y in scores],
    "classification_labels": np.sign(scores),
    "regression_labels": scores,
  }
  if not aligned:
    more |= {f"{m}_lengths": lengths[m].tolist() for m in ("audio", "vision")}
  return {**found, **more}


def mult(seed: int = 0, aligned: bool = True, sizes: dict = SIZES) -> dict:
  """The dict of ``mosi_data.pkl``: float64, rows as ids, and labels [n 1 1]."""
  rng = np.random.default_rng(seed)
  made = {}
  for part, n in sizes.items():
    steps = dict.fromkeys(STEPS, STEPS["text"]) if aligned else STEPS
    found = {m: rng.normal(size=(n, steps[m], d)) for m, d in DIMS.items()}
    for m, x in found.items():
      x[0, : steps[m] // 2] = 0  # MulT pads in front.
    found["audio"][1, 2, 3] = -np.inf
    rows = [[f"{part}{i}", str(i), str(i + 1.5)] for i in range(n)]
    found["id"] = np.array(rows).astype("S12")
    found["labels"] = np.linspace(-3, 3, n).reshape(n, 1, 1)
    made[part] = found
  return made


def write(path: pathlib.Path, content: object, protocol: int = 4) -> None:
  """Writes a pickle."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(pickle.dumps(content, protocol))


def named(module: str, name: str, protocol: int = 4) -> bytes:
  """A pickle that calls a function with the text ``touched``, as dumps would.

  Only its bytes are made here: the module need not exist.
  """
  if protocol < 4:
    start = b"\x80\x02" if protocol >= 2 else b""
    head = start + f"c{module}\n{name}\n".encode()
    return head + b"(S'touched'\ntR."
  texts = b"".join(
    b"\x8c" + bytes([len(x)]) + x.encode() for x in (module, name)
  )
  head = b"\x80" + bytes([protocol]) + texts + b"\x93"
  return head + b"\x8c\x07touched\x85R."
