"""Sounds and videos for tests, written with PyAV."""

from typing import Any

import av
import numpy as np

RATE = 16000


def tone(seconds=2.0, rate=RATE):
  """Two sines, float32 [samples]."""
  t = np.arange(round(seconds * rate)) / rate
  wave = 0.3 * np.sin(2 * np.pi * 440 * t) + 0.1 * np.sin(2 * np.pi * 1234 * t)
  return wave.astype(np.float32)


def write(path, sound="", video="", pixels=None, rate=RATE, **options):
  """A file of two seconds with a tone, with 50 frames, or both.

  Args:
    path: its ending is the container.
    sound: codec of the tone; none if empty.
    video: codec of the frames; none if empty.
    pixels: of the frames, [50 h w 3]; random ones by default.
    rate: samples a second.
    options: of the container.
  """
  with av.open(str(path), "w", options=options) as file:
    packets: list[tuple[float, Any]] = []
    stream: Any = None
    pictures: Any = None
    if sound:
      stream = file.add_stream(sound, rate=rate, layout="mono")
      stream.bit_rate = 64000
    if video:
      pictures = file.add_stream(video, rate=25)
      frames = np.random.default_rng(0).integers(
        0, 256, (50, 48, 64, 3), np.uint8
      ) if pixels is None else pixels  # fmt: skip
      pictures.height, pictures.width = frames.shape[1:3]
      pictures.pix_fmt = "yuvj420p" if video == "mjpeg" else "yuv420p"
      for i, frame in enumerate([*frames, None]):
        made = frame if frame is None else av.VideoFrame.from_ndarray(frame)
        packets += [(i / 25, p) for p in pictures.encode(made)]
    if sound:
      wave = tone(2.0, rate)
      for start in [*range(0, len(wave), 1000), None]:
        made = None
        if start is not None:
          part = wave[None, start : start + 1000]
          made = av.AudioFrame.from_ndarray(part, "fltp", "mono")
          made.sample_rate, made.pts = rate, start
        place = 2.0 if start is None else start / rate
        packets += [(place, p) for p in stream.encode(made)]
    for _, packet in sorted(packets, key=lambda pair: pair[0]):
      file.mux(packet)
  return path


def cut(path, share=0.6):
  """A copy without its end."""
  data = path.read_bytes()
  made = path.with_name(f"cut_{path.name}")
  made.write_bytes(data[: int(len(data) * share)])
  return made
