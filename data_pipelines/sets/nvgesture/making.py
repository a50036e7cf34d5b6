"""NVGesture's download on its way to prepared data."""

from __future__ import annotations

import collections
import functools
import os
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from data_pipelines import core
from data_pipelines.core import raw, storage, summary
from data_pipelines.core.progress import progress
from data_pipelines.sets.nvgesture import lists, media
from data_pipelines.transforms import video

PADDED = "filled up with their last frame, and kept"
CHANNELS = {"rgb": 3, "depth": 1, "flow": 2}


def prepare(
  folder: pathlib.Path,
  name: str,
  download: str,
  list_folder: str,
  settings: media.GestureSettings,
  held_out: float,
  workers: int,
) -> summary.PreparedSummary:
  """Decodes, splits, stores; arguments as ``nvgesture.prepare``'s.

  Args:
    folder: of the prepared data.
    name: of the data set.
    download: folder with ``Video_data``.
    list_folder: of the lists; empty is ``download``.
    settings: of a clip; their ``flow`` may still be ``auto``.
    held_out: least share of the train list in ``outer`` and ``val``, each.
    workers: processes.
  """
  video.require()
  root = pathlib.Path(download).expanduser()
  listed = lists.read(pathlib.Path(list_folder or root).expanduser())
  splits, notes = lists.split(listed.clips, held_out)
  if settings.flow == "auto":
    found = media.flow_folder(settings.root) is not None
    settings = media.GestureSettings(
      settings.root, settings.color, settings.size, "files" if found else "dis"
    )
  work = raw.Decoding(
    functools.partial(media.make, settings=settings),
    folder.parent / "work",
    repr((folder.name, settings, listed.versions)),
    workers,
  )
  kept, problems, instead = _decoded(work, splits, held_out)
  problems = [*listed.problems, *problems]
  counts = {s: _counts(kept[s]) for s in core.SPLITS}
  made = summary.PreparedSummary(
    name,
    str(folder),
    counts,
    (*_differences(kept), *raw.summary(problems)),
    listed.versions,
    (*listed.notes, *(instead or notes), _flow_note(settings)),
  )
  examples = {s: _examples(work, s, kept[s]) for s in core.SPLITS}
  extra = {raw.FILE: raw.table(problems)}
  storage.write(folder, _features(settings.size), examples, made, extra)
  work.clear()
  return made


def _decoded(
  work: raw.Decoding[lists.Clip],
  splits: Mapping[str, Sequence[lists.Clip]],
  held_out: float,
) -> tuple[dict[str, list[lists.Clip]], list[raw.Defect], list[str]]:
  """{split: decoded clips}, defects of the other clips, notes.

  Raises:
    core.DataError: too few clips for all splits.
  """
  clips = {clip.id: clip for members in splits.values() for clip in members}
  ids, problems = work.decode(clips, "decoding clips")
  good, notes = set(ids), []
  kept = {s: [c for c in m if c.id in good] for s, m in splits.items()}
  if not all(kept.values()):
    try:
      kept, notes = lists.split([clips[i] for i in ids], held_out)
    except core.DataError as error:
      where = "is --config.data.raw the folder that holds Video_data?"
      raise work.too_little(f"{error} ({where})", problems) from error
    notes.insert(0, "too many clips are absent to hold out the usual subjects")
  for clip in (clips[i] for i in ids):
    with np.load(work.path(clip.id), allow_pickle=False) as fields:
      least = int(fields["decoded"][:2].min())
    if least < lists.FRAMES:
      reason = f"{clip.folder} has {least} of {lists.FRAMES} frames"
      problems.append(raw.Defect(clip.id, PADDED, reason))
  return kept, problems, notes


def _counts(clips: Sequence[lists.Clip]) -> dict[str, int]:
  return dict(collections.Counter(str(clip.label) for clip in clips))


def _differences(kept: Mapping[str, Sequence[lists.Clip]]) -> list[str]:
  """Differences from the paper's numbers of clips."""
  clips = [clip for members in kept.values() for clip in members]
  found = collections.Counter(clip.listed for clip in clips)
  return [
    f"{found[listed]} clips of the {listed} list instead of {number}"
    for listed, number in lists.EXPECTED.items()
    if found[listed] != number
  ]


def _flow_note(settings: media.GestureSettings) -> str:
  if settings.flow == "files":
    where = media.flow_folder(settings.root)
    return f"optical flow is read from the files in {where}"
  return "optical flow is computed from RGB (Dense Inverse Search)"


def _examples(
  work: raw.Decoding[lists.Clip], split: str, clips: Sequence[lists.Clip]
):
  for clip in progress(clips, f"storing {split}", len(clips)):
    fields = work.read(clip.id)
    strips = {m: fields[m].tobytes() for m in CHANNELS}
    label, subject = str(clip.label), str(clip.subject)
    yield clip.id, {"id": clip.id, "label": label, "subject": subject, **strips}


def _features(size: int) -> dict:
  import tensorflow_datasets as tfds

  rows = lists.FRAMES * size
  strips = {
    "rgb": (rows, size, 3),
    "depth": (rows, size, 1),
    "flow": (2 * rows, size, 1),
  }
  return {
    "id": tfds.features.Text(),
    "label": tfds.features.ClassLabel(names=list(lists.CLASSES)),
    "subject": tfds.features.Text(),
    **{
      m: tfds.features.Image(shape=shape, encoding_format="jpeg")
      for m, shape in strips.items()
    },
  }


def processes(workers: int) -> int:
  """For ``raw.Decoding``: 0 here is one a core, 1 decodes in this process."""
  number = workers or os.cpu_count() or 1
  return number if number > 1 else 0
