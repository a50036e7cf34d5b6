"""The files of a download of UCF-101: videos, pictures, optical flow."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from data_pipelines.core import raw
from data_pipelines.sets._audio_video import files
from data_pipelines.transforms.clips import PICTURES, VIDEOS

# Names of optical flow beside each other: right and down.
X, Y = "flow_x", "flow_y"


@dataclasses.dataclass(frozen=True)
class FlowFiles:
  """Where the pictures of a clip's flow are.

  Attributes:
    x, y: folders of the parts to the right and down.
    names: what the names of pictures of x and y begin with; may be empty.
  """

  x: str
  y: str
  names: tuple[str, str] = ("", "")

  def pairs(self) -> list[tuple[pathlib.Path, pathlib.Path]]:
    """Pictures of both parts that are of the same frame, in order."""
    x, y = (
      {path.name[len(begin) :]: path for path in pictures(folder, begin)}
      for folder, begin in zip((self.x, self.y), self.names, strict=True)
    )
    return [(x[name], y[name]) for name in sorted(x.keys() & y.keys())]


@dataclasses.dataclass
class Found:
  """The files of clips, {id: path} each.

  Attributes:
    videos: video files.
    pictures: folders of pictures.
    flow: of both parts.
    x, y: folders of one part.
    defects: of files that are not used.
  """

  videos: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  pictures: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  flow: dict[str, FlowFiles] = dataclasses.field(default_factory=dict)
  x: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  y: dict[str, pathlib.Path] = dataclasses.field(default_factory=dict)
  defects: list[raw.Defect] = dataclasses.field(default_factory=list)


def find(folder: pathlib.Path, key: files.Key) -> Found:
  """All media below ``folder``; the first path of a kind counts.

  Flow is ``flow_x_00001.jpg`` and ``flow_y_00001.jpg`` in a folder that is
  named by the clip, or such folders in folders ``u`` and ``v``.
  """
  found = Found()
  for path, names in files.folders(folder):
    shown = [n for n in names if n.lower().endswith(PICTURES)]
    if shown:
      _pictures(found, key(path.name), path, shown)
    for name in names:
      if name.lower().endswith(VIDEOS):
        clip = key(pathlib.PurePath(name).stem)
        _add(found, found.videos, clip, path / name)
  for clip in found.x.keys() & found.y.keys():
    parts = FlowFiles(str(found.x[clip]), str(found.y[clip]))
    found.flow.setdefault(clip, parts)
  return found


def _pictures(
  found: Found, clip: str | None, path: pathlib.Path, names: Sequence[str]
) -> None:
  parts = {"u": found.x, "v": found.y}.get(path.parent.name.lower())
  if parts is not None:
    _add(found, parts, clip, path)
    return
  if clip is not None and any(n.lower().startswith(X) for n in names):
    found.flow.setdefault(clip, FlowFiles(str(path), str(path), (X, Y)))
    if all(n.lower().startswith((X, Y)) for n in names):
      return
  _add(found, found.pictures, clip, path)


def _add(
  found: Found,
  kind: dict[str, pathlib.Path],
  clip: str | None,
  path: pathlib.Path,
) -> None:
  if clip is None:
    text = f"{path}: it is no clip of the lists"
    found.defects.append(raw.Defect(path.name, raw.SKIPPED, text))
  elif clip in kind:
    text = f"{path} is not used, but {kind[clip]}"
    found.defects.append(raw.Defect(clip, raw.TWICE, text))
  else:
    kind[clip] = path


def pictures(folder: str, begin: str = "") -> Iterator[pathlib.Path]:
  """The pictures of a folder whose names begin so; flow only if asked for."""
  for path in sorted(pathlib.Path(folder).iterdir()):
    name = path.name.lower()
    wanted = begin or not name.startswith((".", X, Y))
    if wanted and name.startswith(begin) and name.endswith(PICTURES):
      yield path
