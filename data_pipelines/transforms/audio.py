"""Sound files and spectrograms. Waves are float32 [samples]."""

from __future__ import annotations

import os

import numpy as np

from data_pipelines.errors import InputError

FLOOR = 1e-7  # added to the power before taking the logarithm


def read(path: str | os.PathLike, sample_rate: int) -> np.ndarray:
  """A sound file (WAV, FLAC, OGG, MP3) as mono, resampled if need be.

  Raises:
    ValueError: no samples, or some that are not finite numbers.
    RuntimeError: not a sound file.
  """
  import soundfile

  channels, rate = soundfile.read(path, dtype="float32", always_2d=True)
  wave = checked(channels.mean(axis=1))
  if rate != sample_rate:
    import librosa

    wave = librosa.resample(wave, orig_sr=rate, target_sr=sample_rate)
  return np.ascontiguousarray(wave, np.float32)


def checked(wave: np.ndarray) -> np.ndarray:
  """The wave itself.

  Raises:
    ValueError: no samples, or some that are not finite numbers.
  """
  if not len(wave):
    raise InputError("it holds no samples")
  if not np.isfinite(wave).all():
    raise InputError("some samples are NaN or infinite")
  return wave


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
