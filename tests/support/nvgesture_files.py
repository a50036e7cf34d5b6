"""Downloads of NVGesture for tests: real list lines, videos made here."""

import os
import pathlib

import av
import numpy as np
import pytest

import launch
from data_pipelines.sets.nvgesture import lists

ROOT = pathlib.Path(launch.__file__).parent
SHARED = pathlib.Path(
  os.environ.get("DMG_SHARED_DATA", ROOT.parent / "shared" / "data")
)
LISTS = SHARED / "paper_annotations" / "nvgesture_lists"
MINI = SHARED / "nvgesture_mini"
NAME = "nvgesture_{}_correct_cvpr2016_v2.lst"
SUBJECTS = {"train": (2, 12, 16, 17), "test": (9, 20)}
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason=f"no {LISTS}")
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason=f"no {MINI}")


def write_video(path, frames):
  """A video of frames [t h w 3] of so little noise that values survive."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=30, options={"qscale": "1"})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.codec_context.qmax = "yuv420p", 2
    for frame in frames:
      container.mux(
        stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
      )
    container.mux(stream.encode())


def write_clip(root, clip):
  """Red is high, green tells the frame, blue the label; depth the frame."""
  for sensor, (file, start, wanted) in clip.sensors.items():
    frames = np.zeros((start + wanted, 24, 32, 3), np.uint8)
    number = np.arange(len(frames))[:, None, None]
    frames[...] = (number % 200 + 20)[..., None]
    if sensor == "color":
      frames[..., 0], frames[..., 2] = 230, 5 * clip.label
    write_video(root / clip.folder / f"{file}.avi", frames)


def chosen(listed):
  """Lines of the real list: of some subjects, few of each, early starts."""
  lines, counts = [], {}
  for line in (LISTS / NAME.format(listed)).read_text().splitlines():
    subject = int(line.split("subject")[1].split("_")[0])
    start = int(line.split("color:sk_color:")[1].split(":")[0])
    if subject in SUBJECTS[listed] and start < 110:
      counts[subject] = counts.get(subject, 0) + 1
      if counts[subject] <= 3:
        lines.append(line)
  return lines


def edit(path, change):
  lines = path.read_text().splitlines()
  path.write_text("\n".join(change(lines)) + "\n")


def damage(root):
  """Breaks a download; {sample: word of the problem that it must be in}."""
  train, test = (root / NAME.format(s) for s in ("train", "test"))
  clips = [c for c in lists.read(root).clips if c.listed == "train"]
  kept = {c.subject: c for c in clips}  # one a subject stays whole
  bad, whole = [c for c in clips if kept[c.subject] is not c], clips[-1]
  paths = [root / c.folder / "sk_color.avi" for c in bad]
  paths[0].unlink()
  paths[1].with_name("sk_depth.avi").write_bytes(paths[1].read_bytes()[:1500])
  paths[2].write_bytes(b"RIFF no video")
  for i, frames in ((3, 60), (4, 20)):
    frames += bad[i].sensors["color"][1]
    write_video(paths[i], np.full((frames, 24, 32, 3), 90, np.uint8))

  def change(lines):
    number = {c.id: c.row for c in bad}
    at = number[bad[5].id]
    lines[at] = lines[at].replace(f"label:{bad[5].label}", "label:26")
    at = number[bad[6].id]
    begin = bad[6].sensors["depth"][1]
    lines[at] = lines[at].replace(
      f"depth:sk_depth:{begin}:", "depth:sk_depth:999:"
    )
    wrong = "path:./Video_data/class_01/x label:1"
    first = test.read_text().splitlines()[0]
    return [*lines, lines[whole.row], wrong, "", first]

  edit(train, change)
  train.write_bytes(
    b"\xef\xbb\xbf" + train.read_bytes().replace(b"\n", b"\r\n")
  )
  line = f"{train.name}, line "
  return {
    bad[0].id: ("missing", "sk_color.avi"),
    bad[1].id: ("cannot be decoded", "sk_depth.avi"),
    bad[2].id: ("cannot be decoded", "sk_color.avi"),
    bad[3].id: ("filled up", "has 60 of 80"),
    bad[4].id: ("cannot be decoded", "are needed"),
    bad[5].id: ("skipped", "'26'"),
    bad[6].id: ("skipped", "starts with 999"),
    whole.id: ("skipped", "in the train list already"),
    f"{line}{len(clips) + 2}": ("skipped", "no field 'depth:'"),
    lists.read(root).clips[0].id: ("skipped", "in the test list already"),
  }
