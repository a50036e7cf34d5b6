"""Downloads of UCF-101 for tests: its lists, and videos that move."""

import pathlib

import av
import numpy as np
from PIL import Image
from scipy import ndimage

SPEED = {"ApplyEyeMakeup": 2, "HandstandPushups": -3}  # Pixels a frame.
HEIGHT, WIDTH = 72, 96


def texture(frames: int, speed: int) -> np.ndarray:
  """Frames [t h w 3] of a smooth pattern that moves to the right."""
  noise = np.random.default_rng(0).random((HEIGHT, WIDTH + 80))
  smooth = ndimage.gaussian_filter(noise, 3)
  smooth -= smooth.min()
  pattern = (smooth * 220 / smooth.max() + 20).astype(np.uint8)
  starts = [40 - speed * i for i in range(frames)]
  rows = np.stack([pattern[:, s : s + WIDTH] for s in starts])
  return np.repeat(rows[..., None], 3, axis=-1)


def write_video(path: pathlib.Path, frames: np.ndarray) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=25, options={"qscale": "1"})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.codec_context.qmax = "yuv420p", 2
    for frame in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
    container.mux(stream.encode())


def clip_name(label: str, group: int, clip: int) -> str:
  """As published: the name of one class has another case than its folder."""
  shown = label.replace("Handstand", "HandStand")
  return f"v_{shown}_g{group:02d}_c{clip:02d}"


def clips() -> list[tuple[str, str, str]]:
  """(split, class, name) of two clips a group: 6 groups to train, 2 to test."""
  return [
    ("test" if group <= 2 else "train", label, clip_name(label, group, clip))
    for label in SPEED
    for group in range(1, 9)
    for clip in (1, 2)
  ]


def write_lists(folder: pathlib.Path, number: int = 1) -> None:
  """With a BOM, Windows line ends and blank lines at the end."""
  folder.mkdir(parents=True, exist_ok=True)
  index = {label: i + 1 for i, label in enumerate(SPEED)}
  texts = {"train": "", "test": ""}
  for split, label, name in clips():
    ending = f" {index[label]}" if split == "train" else ""
    texts[split] += f"{label}/{name}.avi{ending}\r\n"
  texts["index"] = "".join(f"{i} {c}\r\n" for c, i in index.items())
  names = {s: f"{s}list{number:02d}.txt" for s in ("train", "test")}
  for key, text in texts.items():
    data = f"{text}\r\n\r\n".encode("utf-8-sig")
    (folder / names.get(key, "classInd.txt")).write_bytes(data)


def write_pictures(folder: pathlib.Path, form: str, levels) -> None:
  """Grey pictures of some levels, numbered from 1."""
  folder.mkdir(parents=True, exist_ok=True)
  for i, level in enumerate(levels):
    picture = Image.fromarray(np.full((24, 32), level, np.uint8))
    picture.save(folder / form.format(i + 1), quality=95)
