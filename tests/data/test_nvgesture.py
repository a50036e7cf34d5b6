"""NVGesture from its lists and videos: real list lines, videos made here."""

import csv
import io
import pathlib
import shutil

import jax
import numpy as np
import pytest

from configs import nvgesture as nvgesture_config
from data_pipelines import core
from data_pipelines.core import catalog
from data_pipelines.load.loader import Loader
from data_pipelines.sets import nvgesture
from data_pipelines.sets.nvgesture import lists, media
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, sharding, validation
from dmg_jax.training.loop import Trainer

pytest.importorskip("av")
pytest.importorskip("cv2")
files = pytest.importorskip("nvgesture_files")

SMALL = {"stored_size": 32, "held_out": 0.2, "workers": 1}


@pytest.fixture(scope="module")
def download(tmp_path_factory):
  """A download of a few clips; not to be changed."""
  if not files.LISTS.is_dir():
    pytest.skip(f"no {files.LISTS}")
  root = tmp_path_factory.mktemp("download")
  for listed in ("train", "test"):
    lines = files.chosen(listed)
    (root / files.NAME.format(listed)).write_text("\n".join(lines) + "\n")
  for clip in lists.read(root).clips:
    files.write_clip(root, clip)
  return root


@pytest.fixture(scope="module")
def prepared(download, tmp_path_factory):
  """The prepared data of ``download`` and their report; not to be changed."""
  folder = tmp_path_factory.mktemp("prepared")
  return folder, nvgesture.prepare(folder, raw=str(download), **SMALL)


def load(folder, **options):
  small = {"window": 64, "image_size": 24, **SMALL}
  return nvgesture.load(folder, **(small | options))


def copied(download, tmp_path):
  return pathlib.Path(shutil.copytree(download, tmp_path / "copy"))


@files.needs_lists
def test_the_real_lists():
  found = lists.read(files.LISTS)
  assert not found.problems
  assert len(found.clips) == sum(lists.EXPECTED.values()) == 1532
  assert "23 labels" in found.notes[0]
  splits, notes = lists.split(found.clips, 0.1)
  sizes = {s: len(clips) for s, clips in splits.items()}
  assert sizes == {"train": 755, "outer": 147, "val": 148, "test": 482}
  subjects = [{c.subject for c in clips} for clips in splits.values()]
  assert sum(map(len, subjects)) == len(set.union(*subjects)) == 18
  assert all(len({c.label for c in m}) == 25 for m in splits.values())
  assert "val is subjects 11, 15" in notes[0]
  # Order of lines does not matter.
  other, _ = lists.split(found.clips[::-1], 0.1)
  assert {c.id for c in other["val"]} == {c.id for c in splits["val"]}


def test_prepares_what_the_lists_say(download, prepared):
  folder, made = prepared
  data = load(folder)
  assert data.spec.classes == tuple(str(i) for i in range(1, 26))
  assert len(data.fingerprint) == 32
  assert {m: s.shape for m, s in data.spec.modalities.items()} == {
    "rgb": (80, 24, 24, 3), "depth": (80, 24, 24, 1), "flow": (80, 24, 24, 2)
  }  # fmt: skip
  found = {}
  for split, source in data.sources.items():
    for i in range(len(source)):
      sample = source[i]
      found[sample["id"]] = (split, sample)
  clips = lists.read(download).clips
  assert {c.id for c in clips} == set(found)
  for clip in clips:
    split, sample = found[clip.id]
    assert (split == "test") == (clip.listed == "test")
    assert sample["label"] == clip.label - 1
    rgb, depth = (sample["inputs"][m] for m in ("rgb", "depth"))
    frame = clip.sensors["color"][1] + np.arange(80) + 20
    np.testing.assert_allclose(rgb[..., 0].mean((1, 2)), 230, atol=6)
    np.testing.assert_allclose(rgb[..., 1].mean((1, 2)), frame, atol=6)
    np.testing.assert_allclose(rgb[..., 2].mean(), 5 * clip.label, atol=6)
    np.testing.assert_allclose(depth.mean((1, 2, 3)), frame, atol=5)
    assert np.abs(sample["inputs"]["flow"].astype(int) - 128).max() < 12
  seen = {(clip.subject, found[clip.id][0]) for clip in clips}
  assert len(seen) == len({subject for subject, _ in seen}) == 6
  assert made.problems == (
    "12 clips of the train list instead of 1050",
    "6 clips of the test list instead of 482",
  )
  assert "computed" in made.notes[-1]
  again = nvgesture.prepare(folder, **SMALL)
  assert again.counts == made.counts
  assert not list(folder.rglob("work"))


def test_training_and_evaluation_cut_alike(prepared):
  data = load(prepared[0])
  assert data.together == ("rgb", "depth", "flow")
  batch = Loader(data, "train", 3, seed=1).batch(0)
  shapes = {m: x.shape for m, x in batch.inputs.items()}
  assert shapes == {
    m: (3, 64, 24, 24, c) for m, c in (("rgb", 3), ("depth", 1), ("flow", 2))
  }
  first = {m: batch.inputs[m][:, 0].mean((1, 2)) for m in ("rgb", "depth")}
  np.testing.assert_allclose(first["rgb"][:, 1], first["depth"][:, 0], atol=6)
  whole = next(Loader(data, "test", 4, seed=1).padded())
  assert whole.inputs["rgb"].shape == (4, 80, 24, 24, 3)
  stored = data.sources["test"][0]["inputs"]["flow"]
  np.testing.assert_array_equal(whole.inputs["flow"][0], stored[:, 4:28, 4:28])


def test_fewer_and_smaller_frames(prepared):
  data = load(prepared[0], step=5, reduce=2, window=12, image_size=16)
  assert data.spec.modalities["flow"].shape == (16, 16, 16, 2)
  full = load(prepared[0])
  few, all_ = (d.sources["val"][0]["inputs"] for d in (data, full))
  for m, frames in few.items():
    want = all_[m][2::5].astype(float)
    want = want.reshape(16, 16, 2, 16, 2, -1).mean((2, 4))
    np.testing.assert_allclose(frames, want, atol=3)


def test_broken_downloads(download, tmp_path):
  root = copied(download, tmp_path)
  expected = files.damage(root)
  made = nvgesture.prepare(tmp_path / "data", raw=str(root), **SMALL)
  text = (pathlib.Path(made.folder) / "problems.csv").read_text()
  rows = {r["sample"]: r for r in csv.DictReader(io.StringIO(text))}
  assert set(rows) == set(expected)
  for sample, (kind, words) in expected.items():
    assert kind in rows[sample]["kind"], rows[sample]
    assert words in rows[sample]["reason"], rows[sample]
  assert made.problems[0] == "6 clips of the train list instead of 1050"
  assert any("3 samples cannot be decoded" in p for p in made.problems)
  assert any("5 samples skipped" in p for p in made.problems)
  assert any("1 samples filled up" in p for p in made.problems)
  data = load(tmp_path / "data")
  assert sum(data.spec.sizes.values()) == 12
  assert Loader(data, "train", 1, seed=0).batch(0).labels.shape == (1,)


def test_stored_flow_is_read(download, tmp_path):
  root = copied(download, tmp_path)
  clips = lists.read(root).clips
  for clip in clips:
    value = np.zeros((64, 64, 2, 79), np.float16)
    value[..., 0, :], value[..., 1, :] = clip.row, -4
    path = root / "Video_data" / "flow_data" / clip.listed / f"{clip.row}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, value)
  lost = next(c for c in clips if c.listed == "test")
  media.flow_file(str(root), lost).unlink()
  made = nvgesture.prepare(tmp_path / "data", raw=str(root), **SMALL)
  assert "files" in made.notes[-1]
  assert any(f"{lost.row}.npy" in p for p in made.problems)
  data = load(tmp_path / "data")
  rows = {c.id: c.row for c in clips}
  for source in data.sources.values():
    for i in range(len(source)):
      sample = source[i]
      found = (sample["inputs"]["flow"] / 127.5 - 1) * 20
      # Half as large, so half as many pixels.
      assert np.abs(found[..., 0] - rows[sample["id"]] / 2).max() < 0.4
      assert np.abs(found[..., 1] + 2).max() < 0.4
  np.save(tmp_path / "x.npy", np.zeros((4, 4, 3, 80)))
  with pytest.raises(ValueError, match=r"x\.npy.*\(4, 4, 3, 80\)"):
    media.read_flow(tmp_path / "x.npy")


def test_wrong_options(tmp_path, download):
  for options, words in (
    ({"flow": "tvl1"}, "unknown flow 'tvl1'.*auto, dis, files"),
    ({"stored_size": 60}, "multiple of 8"),
    ({"held_out": 0.0}, "held_out"),
    ({"window": 81}, "window must be a whole number from 1 to 80"),
    ({"step": 5, "window": 17}, "window must be a whole number from 1 to 16"),
    ({"reduce": 3, "image_size": 8}, r"divide stored_size \(32\)"),
    ({"image_size": 33}, "image_size must be a whole number from 1 to 32"),
    ({"workers": -1}, "workers"),
  ):
    with pytest.raises(ValueError, match=words):
      load(tmp_path, **options)
  with pytest.raises(core.DataError, match=r"--config\.data\.raw"):
    load(tmp_path)
  with pytest.raises(core.DataError, match=r"v2\.lst.*--config\.data\.lists"):
    load(tmp_path, raw=str(tmp_path))
  with pytest.raises(
    core.DataError, match=r"is --config\.data\.raw the folder"
  ):
    load(tmp_path, raw=str(tmp_path), lists=str(download))
  assert "nvgesture" in catalog.pipelines()


def one_device(batch_size):
  del batch_size
  kind, one = (jax.sharding.AxisType.Auto,), jax.devices()[:1]
  return jax.make_mesh((1,), ("b",), axis_types=kind, devices=one)


def test_two_steps_of_the_quick_form(prepared, monkeypatch):
  monkeypatch.setattr(sharding, "make_mesh", one_device)
  config = nvgesture_config.get_config("h,quick=true")
  config.update_from_flattened_dict(
    {f"data.{k}": v for k, v in SMALL.items()}
    | {"data.dir": str(prepared[0]), "data.reduce": 1, "data.image_size": 24}
    | {f"encoders.{m}.widths": (8,) for m in config.encoders}
    | {"train.batch_size": 4, "train.outer_batch_size": 2, "eval.batch_size": 4}
  )
  setup = experiment.assemble(config)
  trainer = Trainer([setup], Console(quiet=True))
  state, found = setup.fresh(), {}
  for i in range(2):
    batch = trainer.replicas[0].loader.batch(i)
    assert batch.inputs["flow"].shape == (4, 13, 24, 24, 2)
    batch = setup.place(batch)
    state, metrics = trainer.programs.train(state, batch, trainer.seeds)
    found |= metrics
  assert all(np.isfinite(x) for x in jax.tree.leaves(found))
  part = trainer.programs.eval(
    state.params, state.stats, state.method, next(setup.batches("test"))
  )
  assert set(part.probabilities) == {"fused", "rgb", "depth", "flow"}
  assert part.probabilities["depth"].shape == (4, 25)


def test_the_config():
  config = nvgesture_config.get_config("lb")
  assert {m: e.name for m, e in config.encoders.items()} == dict.fromkeys(
    ("rgb", "depth", "flow"), "i3d.I3D"
  )
  assert config.data.window == 64 and config.optimiser.name == "sgd"
  validation.check(config)
