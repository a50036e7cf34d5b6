"""Handwritten digits and their spectra: a manifest of two views of a picture.

  python -m data_pipelines.tools.spectra --images=mnist.npz --out=data/spectra

The pictures are an ``.npz`` with ``x`` [n h w] uint8 and ``y`` [n], the digits,
e.g. of MNIST; without ``--images`` they are scikit-learn's 1,797 of 8x8 pixels.
A picture gives two modalities, both of itself:

==============  ================================================================
picture:image   the picture
spectrum:array  log(1 + |F|), the amplitudes of its Fourier transform
                F(u, v) = Σ x(i, j) exp(-2πi (u i/h + v j/w)) for all u and for
                0 ≤ v ≤ w/2, with x in [0, 1]; where strokes are is lost, how
                they run is kept
==============  ================================================================

Splits are drawn digit by digit: ``--test`` of each are test, ``--held_out`` are
outer, as many val. Equal pictures stand in one split.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

import numpy as np
from PIL import Image

from data_pipelines.core.summary import PreparedSummary
from data_pipelines.tools import _folder
from data_pipelines.tools._digits_sources import read_images
from data_pipelines.transforms import image

HEADER = ("id", "split", "label", "picture:image", "spectrum:array")


def write(
  out: str | os.PathLike,
  images: str | os.PathLike | None = None,
  test: float = 0.8,
  held_out: float = 0.05,
  seed: int = 0,
) -> PreparedSummary:
  """Writes ``out`` with ``manifest.csv``, ``pictures`` and ``spectra``.

  Args:
    out: a new or empty folder; it appears when all is in it.
    images: ``.npz`` of pictures; ``None`` takes scikit-learn's.
    test, held_out, seed: of the splits, ``_folder.draw_splits``.

  Raises:
    ValueError: an option out of its range.
    DataError: no such pictures, or too few of a digit; ``out`` is not empty.
  """
  out = pathlib.Path(out).expanduser()
  _folder.check_empty(out)
  x, y = read_images(images)
  labels = [str(label) for label in y]
  splits = _splits(x, labels, test, held_out, seed)
  source = "scikit-learn, load_digits (UCI, CC BY 4.0)"
  if images is not None:
    source = pathlib.Path(images).name
  said = [
    f"pictures: {source}",
    f"test={test} held_out={held_out} seed={seed}",
  ]
  with _folder.new_folder(out) as made:
    rows = [
      (f"{i:05d}", split, label, *_save(made, i, x[i]))
      for i, (split, label) in enumerate(zip(splits, labels, strict=True))
    ]
    _folder.write_manifest(made, HEADER, rows, said)
  counts = _folder.count(zip(splits, labels, strict=True))
  notes = (f"spectrum: {spectrum(x[0]).size} amplitudes",)
  return PreparedSummary("spectra", str(out), counts, notes=notes)


def spectrum(picture: np.ndarray) -> np.ndarray:
  """log(1 + |F|) of a picture [h w] uint8, [h·(w//2 + 1)] float32."""
  amplitudes = np.abs(np.fft.rfft2(picture / 255))
  return np.log1p(amplitudes).astype(np.float32).ravel()


def _splits(
  x: np.ndarray, labels: Sequence[str], test: float, held_out: float, seed: int
) -> list[str]:
  """A split for each picture, the same for equal ones of a digit."""
  twins = [(d, p.tobytes()) for d, p in zip(labels, x, strict=True)]
  groups = list(dict.fromkeys(twins))
  drawn = _folder.draw_splits([g[0] for g in groups], test, held_out, seed)
  split_of = dict(zip(groups, drawn, strict=True))
  return [split_of[t] for t in twins]


def _save(
  folder: pathlib.Path, number: int, picture: np.ndarray
) -> tuple[str, str]:
  """Writes a picture and its spectrum; their paths in the manifest."""
  names = f"pictures/{number:05d}.png", f"spectra/{number:05d}.npy"
  for name in names:
    (folder / name).parent.mkdir(exist_ok=True)
  content = image.encode(Image.fromarray(picture))
  (folder / names[0]).write_bytes(content)
  np.save(folder / names[1], spectrum(picture))
  return names


def main(arguments: Sequence[str] | None = None) -> int:
  """The command; an error is one line and exit code 1."""
  made = _folder.parser("spectra", __doc__)
  made.add_argument("--images", help=".npz; default: scikit-learn's digits")
  made.add_argument("--test", type=float, default=0.8, help="share of test")
  made.add_argument(
    "--held_out", type=float, default=0.05, help="share of outer, and of val"
  )
  return _folder.run(write, made, arguments)


if __name__ == "__main__":
  sys.exit(main())
