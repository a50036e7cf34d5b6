"""Data sets of opinions in videos: pickles prepared, and loaded.

1. ``outer`` is a share of each class of train, by a hash of the id; valid is
   val.
2. NaN and infinite numbers become 0, as MulT and MMSA do with those of audio;
   they are counted.
3. Arrays are standardised with the training samples; MulT and MMSA take them
   as they are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from data_pipelines import core, manifest
from data_pipelines.core import raw, storage
from data_pipelines.disk import faults
from data_pipelines.errors import DataError, InputError, unknown
from data_pipelines.manifest import cells, media, sources, table
from data_pipelines.manifest import prepared as making
from data_pipelines.sets._sequences import contents
from data_pipelines.sets._sequences.contents import FORMS, MODALITIES
from data_pipelines.transforms import text as text_transforms

_DEPTH = 4  # folders below the download's that are looked into
# Names in the packages of MMSA; those of MulT begin with the set's.
_NAMES = {"aligned": "aligned_50.pkl", "unaligned": "unaligned_50.pkl"}
TEXTS = ("features", "raw")


def _sign(score: float) -> str | None:
  return None if score == 0 else "negative" if score < 0 else "positive"


# {name: sentiment -> class, or None for a sample that is left out}.
LABELS: Mapping[str, Callable[[float], str | None]] = {
  "nonnegative": lambda y: "negative" if y < 0 else "non_negative",
  "sign": _sign,
  "three": lambda y: _sign(y) or "neutral",
  # To the nearest, halves to the even one, as NumPy and MMSA round.
  "seven": lambda y: str(round(min(max(y, -3.0), 3.0))),
}


@dataclasses.dataclass(frozen=True)
class Opinions:
  """A data set of opinions.

  Attributes:
    name: of the data set.
    version: of the prepared data: any change of them raises it.
    files: {form: MulT's name of the pickle}.
    other: name of the data set whose pickles have the same names.
    expected: {split: official number of samples}.
  """

  name: str
  version: str
  files: Mapping[str, str]
  other: str
  expected: Mapping[str, int]

  def find(self, folder: str, form: str) -> pathlib.Path:
    """The pickle of a download, which may be the download itself.

    Raises:
      DataError: there is none, or there are several.
    """
    root = pathlib.Path(folder).expanduser()
    if root.is_file():
      return root
    names = (_NAMES[form], self.files[form])
    if not root.is_dir():
      raise DataError(f"there is no file or folder {root}")
    found = []
    for at, below, files in os.walk(root, followlinks=True):
      path = pathlib.Path(at)
      inside = path.relative_to(root).parts
      if len(inside) >= _DEPTH:
        below.clear()
      if self.other not in (part.lower() for part in inside):
        found += [path / name for name in names if name in files]
    if len(found) != 1:
      many = f"{', '.join(map(str, sorted(found)))}: name one of them"
      raise DataError(
        f"{root} has {many if found else f'no file {names[0]} or {names[1]}'} "
        "with --config.data.raw=FILE"
      )
    return found[0]

  def load(
    self,
    data_dir: str | os.PathLike,
    *,
    raw: str = "",
    form: str = "aligned",
    labels: str = "nonnegative",
    text: str = "features",
    tokenizer: str = "",
    max_words: int = 64,
    standardise: bool = True,
    held_out: float = 0.1,
  ) -> core.Dataset:
    """Loads the data set and prepares it first if need be.

    Args:
      data_dir: folder of all prepared data.
      raw: the download's folder, or the pickle; not needed once the data are
        prepared.
      form: aligned or unaligned; unaligned sequences are without padding.
      labels: nonnegative, sign, three or seven.
      text: features, or raw: the words themselves, if the pickle has them.
      tokenizer: of raw texts: Hugging Face name or folder; none: the words of
        the training texts.
      max_words: words or word pieces kept of a raw text.
      standardise: bring each number of an array to mean 0 and deviation 1 over
        the training samples.
      held_out: share of each class of train that is ``outer``.

    Raises:
      ValueError: an option out of its range, or no download is named.
      core.DataError: there is no pickle, it cannot be read or names something
        that is not admitted; or the prepared data are damaged.
    """
    options = Options(form, labels, text, standardise, held_out)
    return _load(self, data_dir, options, raw, tokenizer, max_words)

  def prepare(
    self,
    data_dir: str | os.PathLike,
    *,
    raw: str = "",
    form: str = "aligned",
    labels: str = "nonnegative",
    text: str = "features",
    standardise: bool = True,
    held_out: float = 0.1,
  ) -> core.PreparedSummary:
    """Reads the pickle and stores its samples; arguments as ``load``'s.

    Intact data are left alone, damaged data replaced. What is left out is in
    the report, and in full in ``problems.csv`` beside the data.

    Raises:
      ValueError: as ``load``.
      core.DataError: as ``load``.
    """
    options = Options(form, labels, text, standardise, held_out)
    return _prepare(self, data_dir, options, raw)


@dataclasses.dataclass(frozen=True)
class Options:
  """What the prepared data depend on; see ``Opinions.load``.

  Raises:
    ValueError: an option is out of its range.
  """

  form: str
  labels: str
  text: str
  standardise: bool
  held_out: float

  def __post_init__(self):
    for name, known in (("form", FORMS), ("labels", LABELS), ("text", TEXTS)):
      if getattr(self, name) not in known:
        raise unknown(name, getattr(self, name), known)
    self.of_manifest()  # It checks the others.

  def of_manifest(self) -> making.Options:
    """The same as options of a manifest."""
    settings = media.Settings(32, 16000, 0.0, 512, 353, 8, self.standardise)
    return making.Options(settings, self.held_out, skip_bad=True)


def _load(
  about: Opinions,
  data_dir: str | os.PathLike,
  options: Options,
  raw_folder: str,
  tokenizer: str,
  max_words: int,
) -> core.Dataset:
  """Loads the data set and prepares it first if need be."""
  if not 1 <= max_words <= 100_000:
    raise InputError(f"max_words must lie in [1, 100000], got {max_words!r}")
  tokens = text_transforms.tokenizer(tokenizer) if tokenizer else None
  folder = folder_of(about, data_dir, options)
  if not folder.exists():
    _prepare(about, data_dir, options, raw_folder)
  storage.check(folder)
  return manifest.assemble(folder, max_words, tokens, {})


def folder_of(
  about: Opinions, data_dir: str | os.PathLike, options: Options
) -> pathlib.Path:
  """The folder of the prepared data."""
  code = hashlib.sha256(repr(options).encode()).hexdigest()[:8]
  name = f"{about.name}_{options.form}-{code}"
  return storage.folder_of(data_dir, name, about.version)


def _prepare(
  about: Opinions, data_dir: str | os.PathLike, options: Options, folder: str
) -> core.PreparedSummary:
  """Reads the pickle and stores its samples; whole data are left alone."""
  target = folder_of(about, data_dir, options)
  if storage.problem_of(target) is None:
    return core.PreparedSummary.read(target)
  if not folder:
    raise InputError(
      f"{about.name} is not prepared and its download is not named: add "
      "--config.data.raw=FOLDER"
    )
  path = about.find(folder, options.form)
  found = contents.read(path, options.form)
  check_texts(found, options.text, path)
  told = [*raw.summary(found.problems), *_differences(about, found)]
  made = making.Manifest(
    data_dir,
    about.name,
    lambda: table_of(found, options, path.name),
    target.parent.name,
    sources.Sources("", pathlib.Path(), {}),
    options.of_manifest(),
    folder=target,
    problems=told,
  ).prepare()
  text = raw.table(found.problems)
  faults.replace(target / raw.FILE, text.encode(), "--config.data.dir")
  return made


def check_texts(
  found: contents.Contents, text: str, path: pathlib.Path
) -> None:
  """Raises ``DataError`` if texts are asked for and there are none."""
  rows = (row for samples in found.samples.values() for row in samples)
  if text == "raw" and not any(row.said for row in rows):
    raise DataError(f"{path} has no texts, raw_text: take text=features")


def table_of(
  found: contents.Contents, options: Options, title: str
) -> table.Table:
  """The samples as rows of a manifest."""
  features = [m for m in MODALITIES if m != "text" or options.text != "raw"]
  columns = [f"{m}:array" for m in features]
  columns += ["text:text"] * (options.text == "raw")
  header = ("id", "split", "label", *columns)
  lines, without = [], 0
  for split, samples in found.samples.items():
    for sample in samples:
      label = LABELS[options.labels](sample.score)
      if label is None:
        without += 1
        continue
      row: dict[str, Any] = {"id": sample.id, "split": split, "label": label}
      for m in features:
        row[f"{m}:array"] = cells.Value(sample.features[m])
      if options.text == "raw":
        row["text:text"] = sample.said
      lines.append(table.Line(len(lines) + 1, row))
  notes = list(found.notes)
  if without:
    notes.append(f"{without} samples of sentiment 0 are left out: labels=sign")
  return table.Table(
    title,
    pathlib.Path(),
    header,
    table.columns_of(title, header, table.NEEDED),
    tuple(lines),
    (),
    "counted from 1",
    tuple(notes),
  )


def _differences(about: Opinions, found: contents.Contents) -> list[str]:
  """A sentence for each official split with another number of samples."""
  names = {"train": "train and outer"}
  return [
    f"{names.get(split, split)}: {len(found.samples[split])} samples instead "
    f"of {want}, the official number"
    for split, want in about.expected.items()
    if len(found.samples[split]) != want
  ]
