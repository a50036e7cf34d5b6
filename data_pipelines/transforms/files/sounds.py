"""Sounds from files: soundfile's formats, and by PyAV what else has sound."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from data_pipelines.errors import InputError, MissingPackageError, reason
from data_pipelines.transforms.files import (
  container,
  remarks,
  signatures,
  sound_headers,
)

_BLOCK = 1024
# Numbers that a header may announce to be read at once. Of more, only what can
# be there is read: NumPy would allocate what is announced.
_BELIEVED = 2**26
_DENSEST = 64  # samples a byte of an MP3, at most


def read(
  path: str | os.PathLike, tell: remarks.Tell = remarks.ignore
) -> tuple[np.ndarray, int]:
  """The mean over the channels, float32 [samples], and the sample rate.

  Args:
    path: of a sound, or of a video with sound.
    tell: gets a remark if the file is damaged.

  Raises:
    ValueError: it cannot be read, or too little of it.
  """
  import soundfile

  try:
    with soundfile.SoundFile(os.fspath(path)) as file:
      announced, rate = file.frames, file.samplerate
      channels = _channels(file)
    broken = False
  except soundfile.LibsndfileError as error:
    start = _start(path)
    if start is None:
      return _by_pyav(path, error, tell)
    channels, announced, rate = start
    broken = True
  broken = broken or sound_headers.is_cut_ogg(path)
  if broken and not len(channels):
    raise InputError("it is cut off before its first sample")
  share = sound_headers.share(path, len(channels), announced)
  remarks.check_whole(share, broken, tell)
  return channels.mean(axis=1), rate


def _channels(file: Any) -> np.ndarray:
  """All of an open sound, float32 [samples channels]."""
  if file.frames * file.channels <= _BELIEVED:
    return file.read(dtype="float32", always_2d=True)
  if file.format == "MP3":  # Whose parts depend on what was before them.
    most = min(file.frames, _DENSEST * os.path.getsize(file.name))
    return file.read(most, "float32", always_2d=True)
  parts = [np.zeros((0, file.channels), np.float32)]
  size = max(_BELIEVED // (64 * file.channels), 1)
  while len(part := file.read(size, "float32", always_2d=True)):
    parts.append(part)
  return np.concatenate(parts)


def _start(path: str | os.PathLike) -> tuple[np.ndarray, int, int] | None:
  """Samples up to the first damage, how many are announced, and their rate."""
  import soundfile

  parts = []
  try:
    with soundfile.SoundFile(os.fspath(path)) as file:
      announced, rate = file.frames, file.samplerate
      parts.append(np.zeros((0, file.channels), np.float32))
      while len(part := file.read(_BLOCK, "float32", always_2d=True)):
        parts.append(part)
  except soundfile.LibsndfileError:
    if not parts:
      return None
  return np.concatenate(parts), announced, rate


def _by_pyav(
  path: str | os.PathLike, error: Exception, tell: remarks.Tell
) -> tuple[np.ndarray, int]:
  try:
    container.require()
  except MissingPackageError:
    raise signatures.unreadable("audio", path, _without(error)) from error
  return track(path, tell)


def _without(error: Exception) -> str:
  return (
    f"{reason(error).rstrip('.')}; WAV, FLAC, OGG, MP3 and AIFF can be read. "
    "For M4A, AAC, WMA, WebM and the sound of videos: pip install -e "
    "'.[video]', or convert: ffmpeg -i FILE sound.wav"
  )


def track(
  path: str | os.PathLike, tell: remarks.Tell = remarks.ignore
) -> tuple[np.ndarray, int]:
  """As ``read``, of the first sound track in a file that PyAV opens.

  Raises:
    ValueError: there is none, or too little of it can be read.
  """
  av = container.require()
  found = container.survey(path, "audio")
  parts, lost, rate = [], [], 0
  with container.opened(path, "audio") as file:
    resampler = av.AudioResampler("fltp")
    for frame in container.frames(file, "audio", lost):
      rate = frame.sample_rate
      parts += [x.to_ndarray().mean(axis=0) for x in resampler.resample(frame)]
    length = _stated(file, rate)
  if not parts:
    raise InputError("no sample of it can be decoded")
  wave = np.concatenate(parts)
  remarks.check_whole(found.share, bool(lost), tell)
  # The last packet of AAC is filled up; its file says where the sound ends.
  whole = found.share is not None and found.share >= 1
  return wave[:length] if whole else wave, rate


def _stated(file, rate: int) -> int | None:
  """Samples of the track by the header of an MP4 file."""
  stream = container.stream(file, "audio")
  if not file.format.name.startswith("mov") or not stream.duration:
    return None
  return round(stream.duration * stream.time_base * rate)
