"""Sequences of features in a pickle: a manifest with a ``.npy`` a sample.

  python -m data_pipelines.tools.sequences --pickle=unaligned_50.pkl \
    --form=unaligned --labels=seven --out=data/mosi

For pickles as MMSA and MulT write them, of CMU-MOSI, CMU-MOSEI and others with
one label a sample; ``data_pipelines/sets/_sequences/contents.py`` describes
them. The pickle is read without running what it names: arrays, numbers, texts
and containers are admitted, all else is refused by its name. The splits are
the pickle's. ``problems.csv`` lists the samples that are left out.

``--config=configs/mosi.py:lb`` and ``mosei`` read these pickles themselves, and
compare the official numbers of samples.
"""

from __future__ import annotations

import collections
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.core import raw
from data_pipelines.core.summary import PreparedSummary
from data_pipelines.errors import unknown
from data_pipelines.sets._sequences import contents, opinions
from data_pipelines.sets._sequences.contents import FORMS, MODALITIES
from data_pipelines.tools import _folder


def write(
  pickle: str | os.PathLike,
  out: str | os.PathLike,
  form: str = "aligned",
  labels: str = "nonnegative",
  text: str = "features",
) -> PreparedSummary:
  """Writes ``out`` with ``manifest.csv`` and a folder for each modality.

  Args:
    pickle: the file.
    out: a new or empty folder; it appears when all is in it.
    form: aligned: all steps as they are; unaligned: without padding.
    labels: nonnegative, sign, three or seven, see ``sets.mosi``.
    text: features, or raw: the words, if the pickle has them.

  Raises:
    ValueError: an unknown form, rule of labels or text.
    DataError: the pickle cannot be read, or names something that is not
      admitted; or ``out`` is not empty.
  """
  path, out = pathlib.Path(pickle).expanduser(), pathlib.Path(out).expanduser()
  choices = {"form": FORMS, "labels": opinions.LABELS, "text": opinions.TEXTS}
  given = {"form": form, "labels": labels, "text": text}
  for name, known in choices.items():
    if given[name] not in known:
      raise unknown(name, given[name], known)
  _folder.check_empty(out)
  found = contents.read(path, form)
  opinions.check_texts(found, text, path)
  arrays = [m for m in MODALITIES if m != "text" or text != "raw"]
  header = ["id", "split", "label", *(f"{m}:array" for m in arrays)]
  header += ["text:text"] * (text == "raw")
  counts: collections.Counter[tuple[str, str]] = collections.Counter()
  said = [f"pickle: {path.name}", f"form={form} labels={labels} text={text}"]
  with _folder.new_folder(out) as made:
    rows = _rows(found, labels, arrays, text == "raw", made, counts)
    _folder.write_manifest(made, header, rows, said)
    table = raw.table(found.problems)
    (made / raw.FILE).write_text(table, encoding="utf-8")
  return PreparedSummary(
    "sequences",
    str(out),
    {
      split: {c: n for (s, c), n in sorted(counts.items()) if s == split}
      for split in found.samples
    },
    tuple(raw.summary(found.problems)),
    notes=tuple(found.notes),
  )


def _rows(
  found: contents.Contents,
  labels: str,
  arrays: Sequence[str],
  words: bool,
  folder: pathlib.Path,
  counts: collections.Counter[tuple[str, str]],
) -> Iterator[list[Any]]:
  """Writes the arrays, and gives the rows that name them."""
  for m in arrays:
    (folder / m).mkdir()
  for split, samples in found.samples.items():
    for i, sample in enumerate(samples):
      label = opinions.LABELS[labels](sample.score)
      if label is None:
        continue
      counts[split, label] += 1
      files = [f"{m}/{split}_{i:05d}.npy" for m in arrays]
      for m, name in zip(arrays, files, strict=True):
        np.save(folder / name, sample.features[m].astype(np.float32))
      yield [sample.id, split, label, *files, *[sample.said] * words]


def main(arguments: Sequence[str] | None = None) -> int:
  """The command; an error is one line and exit code 1."""
  made = _folder.parser("sequences", __doc__, seeded=False)
  made.add_argument("--pickle", required=True, help="the file")
  made.add_argument("--form", default="aligned", help=", ".join(FORMS))
  rules = ", ".join(opinions.LABELS)
  made.add_argument("--labels", default="nonnegative", help=rules)
  texts = ", ".join(opinions.TEXTS)
  made.add_argument("--text", default="features", help=texts)
  return _folder.run(write, made, arguments)


if __name__ == "__main__":
  sys.exit(main())
