"""New samples: files, texts and arrays to what a batch holds.

How a modality is preprocessed is a dictionary of JSON's types, ``Dataset
.intake[modality]``, which prepared data and options determine; nothing here
looks at the data themselves. Keys by kind:

==========  ===================================================================
image       size; fit: ``pad`` (into a white square) or ``squash``; stored: side
            of the JPEG that a picture passes through on its way, or 0
video       size, frames; of_clip: as data sets of clips store them, squashed,
            through JPEG of side stored
audio       sample_rate, length (samples), nperseg, noverlap; of_clip: cut and
            stored in 16 bits, as data sets of clips do
text        length; words (the vocabulary, numbered from 2) or tokenizer (its
            name)
array       mean, scale: nested lists, or null where nothing is standardised
==========  ===================================================================
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import core
from data_pipelines.errors import InputError
from data_pipelines.manifest import media
from data_pipelines.sets._audio_video import media as clips
from data_pipelines.transforms import audio, image, text, video

Settings = Mapping[str, Any]


class Intake:
  """One modality's preprocessing: a file, a text or an array to an array.

  Attributes:
    spec: what comes out.
    settings: as the module describes them.
  """

  def __init__(self, spec: core.ModalitySpec, settings: Settings):
    """Reads the tokenizer, if there is one.

    Raises:
      core.DataError: there is no such tokenizer.
    """
    self.spec, self.settings = spec, dict(settings)
    if spec.kind == "text":
      self._make = _text(settings)
    else:
      make = _MAKERS[spec.kind]
      self._make: Callable[[Any], np.ndarray] = lambda x: make(x, settings)

  def __call__(self, value: Any) -> np.ndarray:
    """The array of ``spec`` that the model sees in evaluation.

    Args:
      value: path of a file; or a text; or what a file would hold: picture
        [h w 3] uint8, frames [t h w 3] uint8, wave [samples] at the run's
        sample rate, array.

    Raises:
      ValueError: it cannot be used; the message names a file.
      ModuleNotFoundError: a package of the extra ``video`` is missing.
    """
    is_path = self.spec.kind != "text" and isinstance(value, str | os.PathLike)
    name = f"{value}" if is_path else f"a {type(value).__name__}"
    if is_path and not os.path.exists(value):
      raise InputError(f"{name}: there is no such file")
    try:
      array = np.asarray(self._make(value))
    except (ImportError, MemoryError):
      raise
    # A decoder may raise anything about a damaged file.
    except Exception as error:
      reason = " ".join(str(error).split()) or type(error).__name__
      kind = self.spec.kind
      raise InputError(f"{name} cannot be used as {kind}: {reason}") from error
    if array.shape != self.spec.shape:
      raise InputError(
        f"{name} makes an array of shape {array.shape}, the run's have "
        f"{self.spec.shape}"
      )
    return array.astype(self.spec.dtype)

  @classmethod
  def from_json(cls, stored: Mapping[str, Any]) -> Intake:
    """The intake that ``describe`` described."""
    if stored["preprocessing"] is None:
      raise InputError("how new samples are preprocessed is not known")
    fields = (stored[k] for k in ("kind", "shape", "dtype", "vocab_size"))
    return cls(core.ModalitySpec(*fields), stored["preprocessing"])


def describe(
  spec: core.ModalitySpec, settings: Settings | None
) -> dict[str, Any]:
  """A modality in JSON's types; ``settings`` are ``None`` if not known."""
  return {
    "kind": spec.kind,
    "shape": list(spec.shape),
    "dtype": str(spec.dtype),
    "vocab_size": spec.vocab_size,
    "preprocessing": None if settings is None else dict(settings),
  }


def of(dataset: core.Dataset) -> dict[str, Intake]:
  """{modality: intake} of a data set.

  Raises:
    ValueError: the data set does not say how new samples are made.
  """
  missing = [m for m in dataset.spec.modalities if m not in dataset.intake]
  if missing:
    raise InputError(
      f"data set {dataset.spec.name!r} does not say how new samples are "
      f"preprocessed ({', '.join(missing)}): put them into its own splits, or "
      "train on a manifest (configs/manifest.py)"
    )
  return {
    m: Intake(spec, dataset.intake[m])
    for m, spec in dataset.spec.modalities.items()
  }


def coder(settings: Settings) -> text.WordVocabulary | text.Tokens:
  """What numbers the words or tokens of a text."""
  if settings.get("tokenizer"):
    return text.tokenizer(settings["tokenizer"])
  return text.WordVocabulary(settings["words"])


def of_text(
  made: text.WordVocabulary | text.Tokens, length: int
) -> dict[str, Any]:
  """The settings of texts that ``made`` numbers."""
  if isinstance(made, text.Tokens):
    return {"length": length, "tokenizer": made.name}
  return {"length": length, "words": list(made.words)}


def _text(settings: Settings) -> Callable[[Any], np.ndarray]:
  made = coder(settings)

  def make(value: Any) -> np.ndarray:
    if not isinstance(value, str):
      raise InputError("a text must be a str")
    if not value.strip():
      raise InputError("the text is empty")
    return made.encode(value, settings["length"])

  return make


def _image(value: Any, settings: Settings) -> np.ndarray:
  if isinstance(value, str | os.PathLike):
    picture = image.open_rgb(value)
  else:
    picture = Image.fromarray(_pixels(value, 3))
  if settings["fit"] == "pad":
    return image.square(picture, settings["size"])
  whole = image.resize(np.asarray(picture, np.uint8), settings["stored"])
  with Image.open(io.BytesIO(image.jpeg(whole))) as stored:
    whole = np.asarray(stored.convert("RGB"), np.uint8)
  return image.resize(whole, settings["size"])


def _video(value: Any, settings: Settings) -> np.ndarray:
  frames, size = settings["frames"], settings["size"]
  if settings.get("of_clip"):
    if not isinstance(value, str | os.PathLike):
      raise InputError("give the path of a video or of a folder of pictures")
    data = clips.frames(os.fspath(value), frames, settings["stored"])
    stored = [image.decode(x.tobytes(), settings["stored"]) for x in data]
    return image.resize(np.stack(stored), size)
  if isinstance(value, str | os.PathLike):
    return video.read(value, frames, size)
  given = _pixels(value, 4)
  chosen = given[video.positions(len(given), frames)]
  pictures = [Image.fromarray(x) for x in chosen]
  return np.stack([image.square(p, size, fill=(0, 0, 0)) for p in pictures])


def _pixels(value: Any, ndim: int) -> np.ndarray:
  array = np.asarray(value)
  letters = "t h w 3"[-2 * ndim + 1 :]
  if array.ndim != ndim or array.shape[-1] != 3 or array.dtype != np.uint8:
    raise InputError(
      f"an array must be uint8 [{letters}], got {array.dtype} of shape "
      f"{array.shape}"
    )
  return array


def _audio(value: Any, settings: Settings) -> np.ndarray:
  rate = settings["sample_rate"]
  if settings.get("of_clip") and isinstance(value, str | os.PathLike):
    path, length = os.fspath(value), settings["length"]
    wave = clips.wave_of(clips.sound(path, length, rate))
  elif isinstance(value, str | os.PathLike):
    wave = audio.read(value, rate)
  else:
    wave = np.asarray(value)
    if wave.ndim != 1 or not wave.size or wave.dtype.kind != "f":
      raise InputError("an array must be a wave, floats [samples]")
    wave = wave.astype(np.float32)
  return audio.log_spectrogram(
    wave, settings["length"], rate, settings["nperseg"], settings["noverlap"]
  )


def _array(value: Any, settings: Settings) -> np.ndarray:
  if isinstance(value, str | os.PathLike):
    array = media.read_array(value)
  else:
    array = media.checked_array(np.asarray(value))
  if settings["mean"] is None:
    return array
  return media.standardised(
    array, np.asarray(settings["mean"]), np.asarray(settings["scale"])
  )


_MAKERS: dict[str, Callable[[Any, Settings], np.ndarray]] = {
  "image": _image,
  "video": _video,
  "audio": _audio,
  "array": _array,
}
