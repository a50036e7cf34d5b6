"""Sound files and spectrograms. Waves are float32 [samples]."""

from __future__ import annotations

import os

import numpy as np

from data_pipelines.errors import InputError
from data_pipelines.transforms.files import remarks, sounds

FLOOR = 1e-7  # added to the power before taking the logarithm
LARGEST = 2.0**31  # of a sample: full scale of 32 bits
_FASTEST = 1000  # times the rate of a file that it is brought to


def read(
  path: str | os.PathLike,
  sample_rate: int,
  tell: remarks.Tell = remarks.ignore,
) -> np.ndarray:
  """A sound, or that of a video, as mono, resampled if need be.

  WAV, FLAC, OGG, MP3 and AIFF are read by soundfile, all else by PyAV.

  Args:
    path: of the file.
    sample_rate: samples a second.
    tell: gets a remark if the file is damaged.

  Raises:
    ValueError: it cannot be read, its rate is far below ``sample_rate``, or as
      ``checked``.
  """
  mono, rate = sounds.read(path, tell)
  wave = checked(mono)
  if rate * _FASTEST < sample_rate:
    raise InputError(
      f"its header claims a rate of {rate} samples a second, which cannot be "
      f"brought to {sample_rate}: write it again with its own rate"
    )
  if rate != sample_rate:
    import librosa

    wave = librosa.resample(wave, orig_sr=rate, target_sr=sample_rate)
  return np.ascontiguousarray(wave, np.float32)


def checked(wave: np.ndarray) -> np.ndarray:
  """The wave itself.

  Raises:
    ValueError: no samples, or some that are not finite numbers or beyond
      ``LARGEST``.
  """
  if not len(wave):
    raise InputError("it holds no samples")
  odd = np.flatnonzero(~np.isfinite(wave))
  if len(odd):
    raise InputError(
      f"some samples are NaN or infinite: {len(odd)} of {len(wave)}, the first "
      f"is sample {odd[0]}"
    )
  largest = np.abs(wave).max()
  if largest > LARGEST:
    raise InputError(
      f"some samples are as large as {largest:.3g}: full scale is 1, and no "
      f"format goes beyond {LARGEST:g}"
    )
  return wave


def standardised(wave: np.ndarray, length: int) -> np.ndarray:
  r"""``length`` samples of mean 0 and variance 1, float32 [length].

  A wave w of mean m and variance v becomes :math:`(w - m)/\sqrt{v + 10^{-7}}`,
  as in transformers' ``Wav2Vec2FeatureExtractor``; silence is zero.

  Args:
    wave: repeated or cut to ``length`` samples first.
    length: samples.
  """
  whole = np.resize(wave, length).astype(np.float64)
  made = (whole - whole.mean()) / np.sqrt(whole.var() + 1e-7)
  return made.astype(np.float32)


def log_spectrogram(
  wave: np.ndarray, length: int, sample_rate: int, nperseg: int, noverlap: int
) -> np.ndarray:
  """Log-power spectrogram, standardised over the clip, [freq time 1].

  Args:
    wave: repeated or cut to ``length`` samples.
    length: samples, at least ``nperseg``.
    sample_rate: samples a second.
    nperseg: samples of a window; ``freq`` is ``nperseg // 2 + 1``.
    noverlap: samples that a window shares with the next.
  """
  from scipy import signal

  *_, power = signal.spectrogram(
    np.resize(wave, length), sample_rate, nperseg=nperseg, noverlap=noverlap
  )
  log = np.log(power.astype(np.float64) + FLOOR)
  log = (log - log.mean()) / (log.std() + 1e-9)
  return log[..., None].astype(np.float32)
