"""Preprocessing by kind: from a file or a value to what the model sees.

Each class handles one kind in three steps, shared by training, prediction and
serving:

* ``read(value, tell)`` reads and checks a file, or the content of one. It does
  not depend on other samples. ``tell`` gets remarks on what was read.
* ``pack(read)`` makes what prepared data store.
* ``decode(packed)`` makes the array that the model sees in evaluation.

Classes that store more than the model sees also have ``unpack``, which makes
what training augments.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import PIL.Image

from data_pipelines.errors import InputError
from data_pipelines.transforms import array, audio, clips, image, text, video
from data_pipelines.transforms.files.remarks import Tell, ignore

Settings = Mapping[str, Any]
Coder = text.WordVocabulary | text.Tokens


class Step(Protocol):
  """Preprocessing of one kind; see the module docstring."""

  def read(self, value: Any, tell: Tell = ignore) -> Any: ...

  def pack(self, read: Any) -> Any: ...

  def decode(self, packed: Any) -> np.ndarray: ...


class PaddedImage:
  """A picture that fits into a white square; packed as pixels."""

  def __init__(self, settings: Settings):
    self._size, self._most = settings["size"], _most(settings)

  def read(self, value: Any, tell: Tell = ignore) -> np.ndarray:
    """uint8 [size size 3] of a path, encoded bytes, pixels or PIL picture."""
    return image.square(_picture(value, tell, self._most), self._size)

  def pack(self, read: np.ndarray) -> np.ndarray:
    return read

  def decode(self, packed: np.ndarray) -> np.ndarray:
    return np.asarray(packed)


class SquashedImage:
  """A picture squashed to a square; packed as the bytes of a JPEG."""

  def __init__(self, settings: Settings):
    self._size, self._side = settings["size"], settings["stored"]
    self._most = _most(settings)

  def read(self, value: Any, tell: Tell = ignore) -> bytes:
    """The JPEG of a path, encoded bytes, pixels or PIL picture."""
    pixels = np.asarray(_picture(value, tell, self._most), np.uint8)
    return image.jpeg(image.resize(pixels, self._side))

  def pack(self, read: bytes) -> bytes:
    return read

  def unpack(self, packed: bytes) -> np.ndarray:
    """uint8 [side side 3]."""
    with PIL.Image.open(io.BytesIO(packed)) as picture:
      return np.asarray(picture.convert("RGB"), np.uint8)

  def decode(self, packed: bytes) -> np.ndarray:
    return image.resize(self.unpack(packed), self._size)


class Video:
  """Equally spaced frames that fit into black squares; packed as pixels."""

  def __init__(self, settings: Settings):
    self._size, self._frames = settings["size"], settings["frames"]
    self._most = _most(settings)

  def read(self, value: Any, tell: Tell = ignore) -> np.ndarray:
    """uint8 [frames size size 3] of a path, or of pixels [t h w 3]."""
    if _is_path(value):
      return video.read(value, self._frames, self._size, tell, self._most)
    given = np.asarray(value)
    if given.ndim != 4 or given.shape[-1] != 3 or given.dtype != np.uint8:
      raise _unlike("uint8 [t h w 3]", given)
    if not len(given):
      raise InputError("it has no frames")
    chosen = given[video.positions(len(given), self._frames)]
    return np.stack(
      [video.square(PIL.Image.fromarray(x), self._size) for x in chosen]
    )

  def pack(self, read: np.ndarray) -> np.ndarray:
    return read

  def decode(self, packed: np.ndarray) -> np.ndarray:
    return np.asarray(packed)


class ClipVideo:
  """Some frames of a clip, squashed to squares; packed as JPEGs."""

  folders = True  # Accepts a folder of pictures.

  def __init__(self, settings: Settings):
    self._size, self._frames = settings["size"], settings["frames"]
    self._side = settings["stored"]

  def read(self, value: Any, tell: Tell = ignore) -> list[np.ndarray]:
    """JPEGs, uint8 [bytes] each, of a video or a folder of pictures."""
    if not _is_path(value):
      raise InputError("give the path of a video or of a folder of pictures")
    return clips.frames(os.fspath(value), self._frames, self._side, tell)

  def pack(self, read: list[np.ndarray]) -> list[np.ndarray]:
    return read

  def unpack(self, packed: Sequence[Any]) -> np.ndarray:
    """uint8 [frames side side 3]."""
    return np.stack([image.decode(bytes(x), self._side) for x in packed])

  def decode(self, packed: Sequence[Any]) -> np.ndarray:
    return image.resize(self.unpack(packed), self._size)


class Audio:
  """A log-spectrogram; packed as such."""

  def __init__(self, settings: Settings):
    self._rate, self._length = settings["sample_rate"], settings["length"]
    self._window = settings["nperseg"], settings["noverlap"]

  def read(self, value: Any, tell: Tell = ignore) -> np.ndarray:
    """The whole wave, float32 [samples], of a path or a wave."""
    return _wave(value, self._rate, tell)

  def pack(self, read: np.ndarray) -> np.ndarray:
    return audio.log_spectrogram(read, self._length, self._rate, *self._window)

  def decode(self, packed: np.ndarray) -> np.ndarray:
    return np.asarray(packed)


class Waveform:
  """The samples of a sound, standardised; packed as such."""

  def __init__(self, settings: Settings):
    self._rate, self._length = settings["sample_rate"], settings["length"]

  def read(self, value: Any, tell: Tell = ignore) -> np.ndarray:
    """The whole wave, float32 [samples], of a path or a wave."""
    return _wave(value, self._rate, tell)

  def pack(self, read: np.ndarray) -> np.ndarray:
    return audio.standardised(read, self._length)

  def decode(self, packed: np.ndarray) -> np.ndarray:
    return np.asarray(packed)


class ClipAudio:
  """A log-spectrogram of a clip; packed as 16-bit samples."""

  def __init__(self, settings: Settings):
    self._rate, self._length = settings["sample_rate"], settings["length"]
    self._window = settings["nperseg"], settings["noverlap"]

  def read(self, value: Any, tell: Tell = ignore) -> np.ndarray:
    """int16 [samples], ``length`` at most, of a sound, a video or a wave."""
    if _is_path(value):
      return clips.sound(os.fspath(value), self._length, self._rate, tell)
    return clips.numbers_of(_wave(value, self._rate, tell)[: self._length])

  def pack(self, read: np.ndarray) -> np.ndarray:
    return read

  def decode(self, packed: np.ndarray) -> np.ndarray:
    wave = clips.wave_of(packed)
    return audio.log_spectrogram(wave, self._length, self._rate, *self._window)


class Text:
  """Numbers of words or tokens; packed as the text itself."""

  def __init__(self, settings: Settings, coder: Coder | None = None):
    self._length = settings.get("length", 0)
    self.coder = coder

  def read(self, value: Any, tell: Tell = ignore) -> str:
    """The text, which must not be empty."""
    if not isinstance(value, str):
      raise InputError("a text must be a str")
    if not value.strip():
      raise InputError("the text is empty")
    return value

  def pack(self, read: str) -> str:
    return read

  def decode(self, packed: str | bytes) -> np.ndarray:
    """int32 [length]; surrounding blanks are ignored."""
    assert self.coder is not None
    words = packed if isinstance(packed, str) else packed.decode()
    return self.coder.encode(words.strip(), self._length)


class Array:
  """Numbers, standardised where mean and scale are given; packed as such.

  Mean and scale are those of each number, or if ``ragged`` of each feature d of
  sequences [t d].
  """

  def __init__(self, settings: Settings):
    mean, scale = settings["mean"], settings["scale"]
    self._ragged = settings.get("ragged", False)
    known = mean is not None
    self._moments = (np.asarray(mean), np.asarray(scale)) if known else None

  def read(self, value: Any, tell: Tell = ignore) -> np.ndarray:
    """float32 of a ``.npy`` file's path, or of numbers."""
    if _is_path(value):
      return array.read(value)
    return array.checked(np.asarray(value))

  def pack(self, read: np.ndarray) -> np.ndarray:
    """The numbers standardised, in their shape."""
    if self._ragged:
      array.check_steps(read)
    if not self._moments:
      return read
    if self._ragged:
      return array.standardise_steps(read, *self._moments)
    return array.standardise(read, *self._moments)

  def decode(self, packed: np.ndarray) -> np.ndarray:
    return np.asarray(packed)


def step(kind: str, settings: Settings) -> Any:
  """The preprocessing of a kind with settings as ``preprocess`` lists them.

  Raises:
    core.DataError: there is no such tokenizer.
  """
  if kind == "text":
    coder = coder_of(settings) if {"words", "tokenizer"} & {*settings} else None
    return Text(settings, coder)
  if kind == "image":
    padded = settings["fit"] == "pad"
    return (PaddedImage if padded else SquashedImage)(settings)
  if kind == "video":
    return (ClipVideo if settings.get("of_clip") else Video)(settings)
  if kind == "waveform":
    return Waveform(settings)
  if kind == "audio":
    return (ClipAudio if settings.get("of_clip") else Audio)(settings)
  return Array(settings)


def coder_of(settings: Settings) -> Coder:
  """The vocabulary or tokenizer that the settings describe.

  Raises:
    core.DataError: there is no such tokenizer.
  """
  if settings.get("tokenizer"):
    return text.tokenizer(settings["tokenizer"])
  return text.WordVocabulary(settings["words"])


def of_text(coder: Coder, length: int) -> dict[str, Any]:
  """The settings of texts that ``coder`` numbers."""
  if isinstance(coder, text.Tokens):
    return {"length": length, "tokenizer": coder.name}
  return {"length": length, "words": list(coder.words)}


def _is_path(value: Any) -> bool:
  return isinstance(value, str | os.PathLike)


def _most(settings: Settings) -> int:
  """Pixels that may be decoded of a picture or frame."""
  return settings.get("max_pixels", image.MAX_PIXELS)


def _picture(value: Any, tell: Tell, most: int) -> PIL.Image.Image:
  """As RGB."""
  if _is_path(value):
    return image.open_rgb(value, tell, most)
  if isinstance(value, bytes):
    return image.open_rgb(io.BytesIO(value), tell, most)
  if isinstance(value, PIL.Image.Image):
    return image.to_rgb(value, tell, most)
  pixels = np.asarray(value)
  grey = pixels.ndim == 2
  rgb = pixels.ndim == 3 and pixels.shape[-1] == 3
  if not (grey or rgb) or pixels.dtype != np.uint8:
    raise _unlike("uint8 [h w 3] or [h w]", pixels)
  return PIL.Image.fromarray(pixels).convert("RGB")


def _wave(value: Any, rate: int, tell: Tell) -> np.ndarray:
  if _is_path(value):
    return audio.read(value, rate, tell)
  wave = np.asarray(value)
  if wave.ndim != 1 or not wave.size or wave.dtype.kind != "f":
    raise _unlike("a wave, floats [samples]", wave)
  return audio.checked(wave).astype(np.float32)


def _unlike(wanted: str, given: np.ndarray) -> InputError:
  return InputError(
    f"an array must be {wanted}, got {given.dtype} of shape {given.shape}"
  )
