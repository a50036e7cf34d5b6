"""Own data by a manifest: what is used, but told."""

import numpy as np
import pytest
import soundfile
from PIL import Image

import helpers
import recordings
from data_pipelines.errors import ListedDataError
from data_pipelines.manifest import memory
from helpers import load_manifest as load
from helpers import prepare_manifest as prepare


def table(folder, kind, cells, name="m.csv"):
  """A manifest of one modality ``m``, two thirds of it train."""
  rows = [
    {
      "split": "train" if i % 3 else "test",
      "label": ("ant", "bee")[i % 2],
      f"m:{kind}": cell,
    }
    for i, cell in enumerate(cells)
  ]
  return helpers.write_table(folder / name, rows)


def noted(made):
  return [note for note in made.notes if note.startswith("m: ")]


def test_texts_without_a_word(tmp_path):
  texts = ["🙂🙂", "?!", "a cat", "…", "it's", "猫"] * 4
  made = prepare(table(tmp_path, "text", texts), tmp_path / "data")
  (note,) = noted(made)
  assert note.startswith("m: 12 of 24 texts have no word, as '🙂🙂' in row 1")
  path = table(tmp_path, "text", ["a cat", "猫"] * 12, "words.csv")
  assert not noted(prepare(path, tmp_path / "data"))


def test_texts_that_a_tokenizer_does_not_know(tmp_path, capsys):
  pytest.importorskip("transformers")
  pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "cat", "!"]
  (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n")
  path = table(tmp_path, "text", ["a cat", "猫 犬", "!!", "a 🙂"] * 6)
  options = {"tokenizer": str(tmp_path)}
  made = prepare(path, tmp_path / "data", **options)
  note = noted(made)[-1]
  assert "knows no part of 6 of 24 texts, as '猫 犬'" in note
  again = prepare(path, tmp_path / "data", **options)
  assert again.notes == made.notes
  assert len(prepare(path, tmp_path / "data").notes) == len(made.notes) - 1
  load(path, tmp_path / "other", max_words=8, **options)
  assert "knows no part of 6 of 24 texts" in capsys.readouterr().err


def test_sixteen_bits(tmp_path):
  rng = np.random.default_rng(0)
  for i in range(24):
    high = 4096 if i % 2 else 65536
    pixels = rng.integers(0, high, (9, 9)).astype(np.uint16)
    pixels[0, :2] = 0, high - 1
    Image.fromarray(pixels).save(tmp_path / f"{i}.png")
  path = table(tmp_path, "image", [f"{i}.png" for i in range(24)])
  (note,) = noted(prepare(path, tmp_path / "data"))
  assert "12 of 24 pictures have 16 bits" in note
  assert "values 0 to 4095 of 0 to 65535 (the first in row 2: 1.png)" in note


def test_sixteen_bits_in_memory(tmp_path):
  rng = np.random.default_rng(0)
  cells = [
    Image.fromarray(rng.integers(0, 999, (9, 9)).astype(np.uint16))
    for _ in range(24)
  ]
  columns = {"label": ["ant", "bee"] * 12, "m:image": cells}
  (note,) = noted(memory.prepare(columns, tmp_path))
  assert "24 of 24 pictures have 16 bits" in note


def test_damaged_sounds(tmp_path):
  path = tmp_path / "a.wav"
  soundfile.write(path, recordings.tone(), recordings.RATE)
  recordings.cut(path)
  cells = ["a.wav", "cut_a.wav"] * 12
  made = prepare(table(tmp_path, "audio", cells), tmp_path / "data")
  (note,) = [n for n in noted(made) if "damaged" in n]
  assert "12 of 24 sounds are damaged or cut off" in note
  assert "(the first in row 2: cut_a.wav, 60% of its length)" in note
  recordings.cut(path, 0.1)
  with pytest.raises(ListedDataError, match=r"row 2, .*10% of its length"):
    prepare(tmp_path / "m.csv", tmp_path / "data")


def arrays(folder, shape):
  for i in range(24):
    np.save(folder / f"{i}.npy", np.zeros(shape(i)))
  return table(folder, "array", [f"{i}.npy" for i in range(24)])


@pytest.mark.parametrize(
  ("shape", "said"),
  [
    (
      lambda i: (1 + i,),
      "the 24 arrays have 24 shapes, axis 0 of length 1 to 24 (the first other "
      "in row 2, 1.npy); all rows must have the same shape, or be sequences "
      "[t d] with any t and one d: save each as [t 1]",
    ),
    (
      lambda i: (1 + i, 4, 2),
      "the 24 arrays have 24 shapes, axis 0 of length 1 to 24 (the first other "
      "in row 2, 1.npy); all rows must have the same shape",
    ),
    (
      lambda i: (1 + i, 2 if i % 4 else 3),
      "the 24 arrays have 24 shapes, axis 0 of length 1 to 24, axis 1 of "
      "length 2 to 3",
    ),
    (
      lambda i: (5, 3 + i % 2),
      "the 24 arrays have 2 shapes, axis 1 of length 3 to 4 ((5, 3) in 12 "
      "rows, (5, 4) in 12 rows)",
    ),
    (
      lambda i: (2,) * (1 + i % 3),
      "the 24 arrays have 3 shapes, with 1 to 3 axes ((2,) in 8 rows,",
    ),
  ],
)
def test_ragged_arrays_are_one_sentence(tmp_path, shape, said):
  with pytest.raises(ListedDataError) as caught:
    prepare(arrays(tmp_path, shape), tmp_path / "data")
  text = str(caught.value)
  assert "1 problem:" in text and f"column 'm:array': {said}" in text
  assert len(text.splitlines()) == 2


def test_ragged_arrays_can_be_left_out(tmp_path):
  path = arrays(tmp_path, lambda i: (5 if i % 4 else 6, 2, 1))
  made = prepare(path, tmp_path / "data", skip_bad=True)
  assert made.problems[0] == "6 of 24 rows left out"
  text = "0.npy has shape (6, 2, 1), 18 of 24 have (5, 2, 1)"
  assert text in made.problems[1]
