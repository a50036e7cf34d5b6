"""Your own data as a table, the manifest: one row a sample.

A CSV, TSV, JSONL or Parquet file with the columns

==========  ===================================================================
split       train and test; outer and val are taken from train if absent
label       the class, a text or a number; 1.0 is 1, in each format
name:kind   one column a modality, e.g. ``photo:image``, ``caption:text``
id          optional and unique; by default the number of the row
==========  ===================================================================

Text columns hold the text, all others the path of a file relative to the
manifest. In a batch the kinds become:

==========  ===================================================================
image       [s s 3] uint8: any format of Pillow, padded to a white square
video       [t s s 3] uint8: equally spaced frames; needs the extra ``video``
audio       [freq time 1] float32: log-spectrogram, standardised per clip; of
            WAV, FLAC, OGG, MP3 and AIFF, and with the extra ``video`` of all
            that has sound
waveform    [t] float32: the samples of such a sound, mean 0 and variance 1
text        [t] int32: word numbers from the training texts, or the tokens of a
            pretrained language model
array       float32: a ``.npy`` file, the same shape in all rows, standardised
            with the training rows; or [t d] with any t, see ``core.sequences``
==========  ===================================================================

A sample may lack modalities: with ``missing=allow`` an empty cell, or a key
that a line of JSON lacks, is a missing modality and no fault. A file that is
named must exist all the same, no row may lack all modalities, and some row of
train must have each. Vocabulary, moments and the length of clips are those of
the cells that are there. Columns without an empty cell are as ever.

All rows and files are checked before training, and all faults are listed at
once. After any change of the manifest, the options or the content of a file the
data are prepared again. A file whose size and time are as before is not read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from data_pipelines import core
from data_pipelines.core import decoded, storage
from data_pipelines.errors import InputError
from data_pipelines.manifest import media, opening
from data_pipelines.manifest import prepared as making
from data_pipelines.manifest.findings import tokens as of_tokens
from data_pipelines.transforms import image, kinds, text


def load(
  data_dir: str | os.PathLike,
  *,
  manifest: str = "",
  prepared: str = "",
  image_size: int = 32,
  flip: bool = False,
  tokenizer: str = "",
  max_words: int = 64,
  word_dropout: float = 0.0,
  sample_rate: int = 16000,
  seconds: float = 0.0,
  nperseg: int = 512,
  noverlap: int = 353,
  frames: int = 8,
  standardise: bool = True,
  max_pixels: int = image.MAX_PIXELS,
  held_out: float = 0.1,
  skip_bad: bool = False,
  missing: str = "refuse",
) -> core.Dataset:
  """Loads the data set and prepares it first if need be.

  Args:
    data_dir: folder of all prepared data.
    manifest: the manifest's path.
    prepared: in its place, the key of data that were prepared before, which
      ``prepare`` and ``memory.prepare`` return as ``versions["key"]``.
    image_size: side of pictures and frames in pixels.
    flip: mirror pictures and videos in training.
    tokenizer: Hugging Face name or local folder of a pretrained tokenizer, e.g.
      ``google-bert/bert-base-uncased``; if empty, words are numbered.
    max_words: words kept of a text; with a tokenizer tokens, special ones
      included.
    word_dropout: chance in [0, 1) to leave out a word (token) in training.
    sample_rate: samples a second that sounds are brought to.
    seconds: length that sounds are repeated or cut to; 0 means the length of
      the longest training clip, between 1 and 10.
    nperseg: samples of a spectrogram's window.
    noverlap: samples that neighbouring windows share.
    frames: of a video.
    standardise: bring each number of an array to mean 0 and deviation 1 over
      the training rows; of arrays [t d] of different t, each of the d features
      over all steps.
    max_pixels: of a picture or a frame that is decoded; more are a fault. A
      JPEG of more is decoded at a reduced size.
    held_out: share of each class of train that goes to ``outer`` and to
      ``val``, if the manifest lacks them.
    skip_bad: leave faulty rows out and list them in the summary.
    missing: what an empty cell of a modality is: ``refuse`` takes it as a
      fault, ``allow`` as a modality that the sample lacks.

  Raises:
    ValueError: neither a manifest nor prepared data are named, or both; or an
      option is out of its range.
    core.DataError: faults of the manifest and its files; the prepared data are
      damaged or cannot be written; or there is no such tokenizer.
    ModuleNotFoundError: a package of the extra ``video`` is missing.
  """
  if not 1 <= max_words <= 100_000:
    raise InputError(f"max_words must lie in [1, 100000], got {max_words!r}")
  tokens = text.tokenizer(tokenizer) if tokenizer else None
  drop = text.word_dropout(word_dropout, tokens)
  settings = media.Settings(
    image_size,
    sample_rate,
    seconds,
    nperseg,
    noverlap,
    frames,
    standardise,
    max_pixels,
  )
  options = making.Options(settings, held_out, skip_bad, missing)
  folder = _prepared_folder(data_dir, manifest, prepared, options, tokens)
  augment = _augment(drop if word_dropout else None, flip)
  return assemble(folder, max_words, tokens, augment)


def _augment(drop: core.Augment | None, flip: bool) -> dict[str, core.Augment]:
  """{kind: what training does at random}."""
  augment = {} if drop is None else {"text": drop}
  if flip:
    augment |= {"image": image.mirror, "video": image.mirror}
  return augment


def prepare(
  data_dir: str | os.PathLike,
  *,
  manifest: str = "",
  prepared: str = "",
  image_size: int = 32,
  tokenizer: str = "",
  max_words: int = 64,
  sample_rate: int = 16000,
  seconds: float = 0.0,
  nperseg: int = 512,
  noverlap: int = 353,
  frames: int = 8,
  standardise: bool = True,
  max_pixels: int = image.MAX_PIXELS,
  held_out: float = 0.1,
  skip_bad: bool = False,
  missing: str = "refuse",
) -> core.PreparedSummary:
  """Checks all rows and files and stores the samples; arguments as in ``load``.

  Intact data are left alone; damaged data are replaced. Many samples are also
  decoded, so that the first ``load`` of the same options is quick. A note says
  of how many texts the tokenizer, if it is here, knows nothing.

  Raises:
    ValueError: as ``load``.
    core.DataError: as ``load``.
    ModuleNotFoundError: as ``load``.
  """
  settings = media.Settings(
    image_size,
    sample_rate,
    seconds,
    nperseg,
    noverlap,
    frames,
    standardise,
    max_pixels,
  )
  options = making.Options(settings, held_out, skip_bad, missing)
  _check_one(manifest, prepared)
  if prepared:
    folder = making.known_folder(data_dir, prepared, options)
    return core.PreparedSummary.read(folder)
  made = opening.of_file(data_dir, manifest, options)
  return _prepared(made, tokenizer, max_words)


def _prepared(
  made: making.Manifest, tokenizer: str, max_words: int
) -> core.PreparedSummary:
  """What is intact or is made anew, with a note on the tokenizer."""
  tokens = None
  # Texts may be numbered later: a tokenizer may not be here now.
  with contextlib.suppress(core.DataError, ModuleNotFoundError):
    tokens = text.tokenizer(tokenizer) if tokenizer else None
  if storage.problem_of(made.folder) is None:
    return of_tokens.noted(core.PreparedSummary.read(made.folder), tokens)
  found = made.prepare()
  if tokens or not tokenizer:
    _decode_many(found, max_words, tokens)
  return of_tokens.noted(found, tokens)


def _decode_many(
  made: core.PreparedSummary, max_words: int, tokens: text.Tokens | None
) -> None:
  """Decodes the samples if they are many, so that opening them is quick."""
  if any(sum(n.values()) >= decoded.LEAST for n in made.counts.values()):
    with contextlib.suppress(core.DataError, ModuleNotFoundError):
      assemble(pathlib.Path(made.folder), max_words, tokens, {})


def key_of(data_dir: str | os.PathLike, folder: pathlib.Path) -> str:
  """``prepared`` for the data in a folder; empty if they are no manifest's."""
  key = folder.parent.name.removeprefix(making.PREFIX)
  return key if making.folder_of(data_dir, key) == folder else ""


def is_there(data_dir: str | os.PathLike, options: Mapping[str, Any]) -> bool:
  """Whether a manifest and all files that it names exist.

  Args:
    data_dir: folder of all prepared data.
    options: of ``load``.
  """
  known = {k: p.default for k, p in inspect.signature(load).parameters.items()}
  known.update(options)  # An older run lacks newer options.
  shaped = [f.name for f in dataclasses.fields(media.Settings)]
  settings = media.Settings(**{k: known[k] for k in shaped})
  own = {k: known[k] for k in ("held_out", "skip_bad", "missing")}
  chosen = making.Options(settings, **own)
  return opening.is_there(data_dir, known["manifest"], chosen)


def _prepared_folder(
  data_dir: str | os.PathLike,
  manifest: str,
  prepared: str,
  options: making.Options,
  tokens: text.Tokens | None,
) -> pathlib.Path:
  """The folder to load, made if need be."""
  _check_one(manifest, prepared)
  if prepared:
    return making.known_folder(data_dir, prepared, options)
  made = opening.of_file(data_dir, manifest, options)
  if not made.folder.exists():
    of_tokens.noted(made.prepare(), tokens).announce()
  storage.check(made.folder)
  return made.folder


def _check_one(manifest: str, prepared: str) -> None:
  if manifest and prepared:
    raise InputError(
      f"both a manifest ({manifest}) and prepared data ({prepared}) are named: "
      "keep one of --config.data.manifest and --config.data.prepared"
    )


def assemble(
  folder: pathlib.Path,
  max_words: int,
  tokens: text.Tokens | None,
  augment: dict[str, core.Augment],
) -> core.Dataset:
  """The prepared data in ``folder``; ``augment`` is by kind."""
  made = core.PreparedSummary.read(folder)
  stored = json.loads((folder / making.FILE).read_text(encoding="utf-8"))
  modalities: dict[str, core.ModalitySpec] = {}
  settings, steps = {}, {}
  for m, its in stored.items():
    optional = its.get("optional", False)
    if its["kind"] == "text":
      coder = tokens or text.WordVocabulary(its["words"])
      modalities[m] = core.ModalitySpec(
        "text", (max_words,), "int32", len(coder), optional
      )
      settings[m] = kinds.of_text(coder, max_words)
      steps[m] = kinds.Text(settings[m], coder)
    else:
      dtype = "uint8" if its["kind"] in ("image", "video") else "float32"
      ragged = {k: its[k] for k in ("buckets", "steps") if k in its}
      modalities[m] = core.ModalitySpec(
        its["kind"], its["shape"], dtype, optional=optional, **ragged
      )
      settings[m] = its["intake"]
      steps[m] = kinds.step(its["kind"], its["intake"])
  known = _identity(made, settings, tokens)
  sources = _sources(folder, made, modalities, steps, known)
  sizes = {split: len(source) for split, source in sources.items()}
  spec = core.Spec(made.name, modalities, made.classes, sizes)
  own = {m: augment[s.kind] for m, s in modalities.items() if s.kind in augment}
  return core.Dataset(
    spec, sources, own, preprocessing=settings, fingerprint=made.fingerprint
  )


def _sources(
  folder: pathlib.Path,
  made: core.PreparedSummary,
  modalities: dict[str, core.ModalitySpec],
  steps: dict[str, Any],
  known: Any,
) -> dict[str, core.Source]:
  """{split: its samples}."""
  numbers = {c: i for i, c in enumerate(made.classes)}
  decode = functools.partial(
    _decode, steps=steps, modalities=modalities, numbers=numbers
  )
  return {
    split: decoded.source(
      folder,
      split,
      functools.partial(_open, folder, split, decode, numbers),
      sum(counts.values()),
      modalities,
      known,
    )
    for split, counts in made.counts.items()
  }


def _identity(
  made: core.PreparedSummary,
  settings: dict[str, dict[str, Any]],
  tokens: text.Tokens | None,
) -> Any:
  """All that decoded samples depend on; ``None`` if it is not known."""
  if not made.fingerprint:
    return None
  return [made.fingerprint, settings, tokens and tokens.identity]


def _open(
  folder: pathlib.Path,
  split: str,
  decode: Callable[[Any], core.Sample],
  numbers: dict[str, int],
) -> core.Source:
  """The samples of a split, decoded on access."""
  fields = storage.read_fields(folder, split)
  lengths = functools.partial(_lengths, folder, split)
  return core.Decoded(
    fields, decode, lambda label: numbers[label.decode()], lengths
  )


def _lengths(folder: pathlib.Path, split: str) -> dict[str, np.ndarray]:
  """{ragged modality: steps of each sample}."""
  path = folder / making.LENGTHS
  if not path.exists():
    return {}
  stored = json.loads(path.read_text(encoding="utf-8"))
  return {m: np.array(n, np.int64) for m, n in stored[split].items()}


def _decode(
  record: dict[str, bytes],
  steps: dict[str, Any],
  modalities: dict[str, core.ModalitySpec],
  numbers: dict[str, int],
) -> core.Sample:
  """A record as a sample; a ragged array that is missing has no steps."""
  inputs = {}
  gone = [m for m in record.get(making.MISSING, b"").decode().split(",") if m]
  for m, step in steps.items():
    stored: Any = record[f"input_{m}"]
    spec = modalities[m]
    if m in gone:
      inputs[m] = core.nothing(spec)
      continue
    if spec.kind != "text":
      shape = (-1, *spec.shape[1:]) if spec.ragged else spec.shape
      stored = np.frombuffer(stored, spec.dtype).reshape(shape)
    inputs[m] = step.decode(stored)
  label, key = numbers[record["label"].decode()], record["id"].decode()
  return core.sample_of(inputs, label, key, gone)
