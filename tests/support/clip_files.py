"""Downloads of clips for tests: small videos, and the faults they come with."""

import csv
import pathlib

import av
import numpy as np


def video(
  path: pathlib.Path,
  level: int,
  *,
  sound: bool = True,
  pictures: bool = True,
  silent: bool = False,
  **options: str,
) -> None:
  """Ten frames that grow brighter, and a second of a tone."""
  with av.open(str(path), "w", options=options) as container:
    shown = heard = None
    if pictures:
      shown = container.add_stream("mpeg4", rate=10)
      shown.width, shown.height, shown.pix_fmt = 32, 32, "yuv420p"
    if sound:
      heard = container.add_stream("aac", rate=8000, layout="mono")
    for i in range(10):
      if shown is None:
        break
      pixels = np.full((32, 32, 3), level + 10 * i, np.uint8)
      frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
      container.mux(shown.encode(frame))
    if heard:
      tone = np.sin(2 * np.pi * 1000 * np.arange(8000) / 8000) / 2
      tone *= not silent
      frame = av.AudioFrame.from_ndarray(
        tone[None].astype(np.float32), "fltp", "mono"
      )
      frame.sample_rate = 8000
      container.mux(heard.encode(frame))
    for stream in filter(None, (shown, heard)):
      container.mux(stream.encode())


def problems(folder) -> dict[str, list[tuple[str, str]]]:
  """{sample: [(kind, reason)]} of ``problems.csv`` in a prepared folder."""
  found: dict[str, list[tuple[str, str]]] = {}
  with pathlib.Path(folder, "problems.csv").open(newline="") as file:
    for row in csv.DictReader(file):
      found.setdefault(row["sample"], []).append((row["kind"], row["reason"]))
  return found
