"""UCF-101: official lists, groups, flow computed and read, damage, a run."""

import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

import launch
from configs import ucf101 as config
from data_pipelines import core
from data_pipelines.load.loader import Loader
from data_pipelines.sets import ucf101
from data_pipelines.sets._audio_video import listed
from data_pipelines.sets.ucf101 import lists, media

pytest.importorskip("av")
pytest.importorskip("cv2")
import action_files
from clip_files import problems

OPTIONS = {"image_size": 28, "workers": 0}
CLASSES = tuple(action_files.SPEED)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
  """A download without faults; lists stand in a folder of their own."""
  raw = tmp_path_factory.mktemp("ucf101")
  for _, label, name in action_files.clips():
    frames = action_files.texture(12, action_files.SPEED[label])
    action_files.write_video(raw / "UCF-101" / label / f"{name}.avi", frames)
  action_files.write_lists(raw / "ucfTrainTestlist")
  return raw


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
  folder = tmp_path_factory.mktemp("data")
  return ucf101.prepare(folder, raw=str(source), **OPTIONS)


@pytest.fixture(scope="module")
def data(made):
  return ucf101.load(pathlib.Path(made.folder).parents[1], **OPTIONS)


def samples(source):
  return [source[i] for i in range(len(source))]


def test_flow_is_computed_and_groups_stay_together(data):
  assert data.spec.classes == CLASSES
  assert data.spec.sizes == {"train": 16, "outer": 4, "val": 4, "test": 8}
  groups = {
    split: {x["id"].rpartition("_c")[0] for x in samples(source)}
    for split, source in data.sources.items()
  }
  assert sum(map(len, groups.values())) == 16  # None is in two splits.
  for x in samples(data.sources["val"]):
    speed = action_files.SPEED[data.spec.classes[x["label"]]]
    assert x["inputs"]["rgb"].shape == (3, 32, 32, 3)
    assert x["inputs"]["flow"].shape == (3, 32, 32, 2)
    middle = x["inputs"]["flow"][:, 8:24, 8:24].astype(float)
    pixels = (middle.mean((1, 2)) / 127.5 - 1) * 20
    np.testing.assert_allclose(pixels, [[speed, 0]] * 3, atol=0.4)


def test_numbers_of_the_published_lists(made):
  for text in (
    "the lists have 24 rows for train instead of 9537",
    "the lists have 8 rows for test instead of 3783",
    "the lists name 2 classes instead of 101",
    "train, outer, val: 24 clips instead of the paper's 9537",
  ):
    assert text in made.problems
  assert made.notes[-1].startswith("optical flow is computed")
  assert problems(made.folder) == {}
  assert {sum(n.values()) for n in lists.SIZES.values()} == {13320}
  rows = [
    listed.Row("", str(i % 101), split, "")
    for split, number in lists.SIZES[2].items()
    for i in range(number)
  ]
  assert listed.differences(rows, lists.SIZES[2], lists.CLASSES) == ()
  assert len(listed.differences(rows, lists.SIZES[3], lists.CLASSES)) == 2


def test_frames_and_flow_are_cut_alike(data):
  place = np.arange(32, dtype=np.uint8)
  rgb = np.broadcast_to(place[None, None, :, None], (3, 32, 32, 3)).copy()
  flow = np.broadcast_to(place[None, None, :, None], (3, 32, 32, 2)).copy()
  mirrored = 0
  for seed in range(12):
    cuts = [
      media.random_crop(np.random.default_rng(seed), x, 28) for x in (rgb, flow)
    ]
    assert (cuts[0] == cuts[0][:1]).all()
    np.testing.assert_array_equal(cuts[0][..., 0], cuts[1][..., 1])
    flipped = cuts[0][0, 0, 0, 0] > cuts[0][0, 0, -1, 0]
    turned = 255 - cuts[1] if flipped else cuts[1]
    np.testing.assert_array_equal(cuts[0][..., 0], turned[..., 0])
    mirrored += flipped
  assert 0 < mirrored < 12
  batch = Loader(data, "train", 4, seed=0, augment=True).batch(0)
  assert batch.inputs["flow"].shape == (4, 3, 28, 28, 2)
  batch = Loader(data, "test", 4, seed=0, shuffle=False).batch(0)
  assert batch.inputs["rgb"].shape == (4, 3, 28, 28, 3)


@pytest.mark.parametrize("layout", ["tsn", "tvl1"])
def test_flow_is_read(source, tmp_path, layout):
  """As TSN names it, beside frames; as tvl1_flow does, in folders u and v."""
  raw = tmp_path / "raw"
  shutil.copytree(source / "ucfTrainTestlist", raw / "lists")
  x, y = [10, 60, 110, 160, 210, 250], [200, 170, 140, 110, 80, 50]
  for _, label, name in action_files.clips():
    if layout == "tsn":
      folder = raw / "rawframes" / label / name
      action_files.write_pictures(folder, "img_{:05d}.jpg", range(0, 240, 40))
      action_files.write_pictures(folder, "flow_x_{:05d}.jpg", x)
      action_files.write_pictures(folder, "flow_y_{:05d}.jpg", y)
    else:
      name = name.replace("HandStand", "Handstand")  # As tvl1_flow has it.
      folder = raw / "jpegs_256" / name
      action_files.write_pictures(folder, "frame{:06d}.jpg", range(0, 240, 40))
      for part, levels in (("u", x), ("v", [*y, 0])):
        folder = raw / "tvl1_flow" / part / name
        action_files.write_pictures(folder, "frame{:06d}.jpg", levels)
  data = ucf101.load(tmp_path / "d", raw=str(raw), **OPTIONS)
  assert data.spec.sizes["test"] == 8
  for sample in samples(data.sources["test"]):
    means = sample["inputs"]["flow"].mean((1, 2))
    np.testing.assert_allclose(
      means, [[60, 170], [160, 110], [250, 50]], atol=2
    )
    shown = sample["inputs"]["rgb"].mean((1, 2, 3))
    np.testing.assert_allclose(shown, [40, 120, 200], atol=2)
  with pytest.raises(core.DataError, match="only pictures"):
    ucf101.load(tmp_path / "d", raw=str(raw), flow="dis", **OPTIONS)


@pytest.fixture
def damaged(source, tmp_path):
  """The faults of downloads, and {sample: (kind, words)} of them."""
  raw = shutil.copytree(source, tmp_path / "raw")
  paths = {p.stem: p for p in raw.rglob("*.avi")}
  name = action_files.clip_name
  gone, empty, cut, part, one, upper = (
    name(CLASSES[i % 2], 3 + i // 2, 1) for i in range(6)
  )
  paths[gone].unlink()
  paths[empty].write_bytes(b"")
  whole = paths[cut].read_bytes()
  paths[cut].write_bytes(whole[: len(whole) // 10])
  paths[part].write_bytes(paths[part].read_bytes()[: len(whole) * 9 // 10])
  action_files.write_video(paths[one], action_files.texture(1, 0))
  paths[upper].rename(paths[upper].with_suffix(".AVI"))
  shutil.copy(paths[name(CLASSES[0], 8, 1)], raw / "v_Other_g01_c01.avi")
  twice = name(CLASSES[0], 8, 2)
  shutil.copy(paths[twice], raw)
  test = action_files.clips()[0][2]
  folder = raw / "ucfTrainTestlist"
  with (folder / "trainlist01.txt").open("a", newline="") as file:
    file.write(f"{CLASSES[0]}/{test}.avi 1\r\nrubbish\r\n")
    file.write(f"{CLASSES[0]}/{name(CLASSES[0], 9, 1)}.avi 2\r\n")
  return raw, {
    gone: ("missing", "has no video"),
    empty: ("cannot be decoded", "empty file"),
    cut: ("cannot be decoded", cut),
    part: ("damaged or silent, and kept", "% of it is used"),
    one: ("cannot be decoded", "optical flow needs two"),
    "v_Other_g01_c01.avi": ("skipped", "no clip of the lists"),
    twice: ("found twice", "is not used"),
    test: ("skipped", "is in testlist01.txt, line 1, too"),
    "trainlist01.txt, line 28": ("skipped", "'rubbish'"),
    name(CLASSES[0], 9, 1): ("skipped", "2 is 'HandstandPushups'"),
  }


def test_faults_are_listed_and_the_rest_is_kept(damaged, tmp_path):
  raw, expected = damaged
  made = ucf101.prepare(tmp_path / "d", raw=str(raw), **OPTIONS)
  found = problems(made.folder)
  assert {*found} == {*expected}
  for sample, (kind, words) in expected.items():
    assert len(found[sample]) == 1, found[sample]
    assert kind in found[sample][0][0] and words in found[sample][0][1]
  assert sum(sum(c.values()) for c in made.counts.values()) == 32 - 4


def test_other_splits_and_wrong_options(source, tmp_path):
  action_files.write_lists(tmp_path / "lists", 3)
  made = ucf101.prepare(
    tmp_path / "d", raw=str(source), annotations=str(tmp_path / "lists"),
    split=3, **OPTIONS,
  )  # fmt: skip
  assert any("instead of 9624" in p for p in made.problems)
  with pytest.raises(core.DataError, match=r"no list trainlist02\.txt"):
    ucf101.prepare(tmp_path / "d", raw=str(source), split=2, **OPTIONS)
  for wrong in ({"split": 4}, {"flow": "tvl1"}, {"frames": 0}):
    with pytest.raises(ValueError, match=next(iter(wrong))):
      ucf101.load(tmp_path, **wrong)
  with pytest.raises(ValueError, match=r"config\.data\.raw"):
    ucf101.load(tmp_path)
  (tmp_path / "empty").mkdir()
  with pytest.raises(core.DataError, match="no clips of the lists of ucf101"):
    ucf101.load(tmp_path, raw=str(tmp_path / "empty"), annotations=str(source))


def test_config():
  full = config.get_config("lb")
  assert full.encoders.flow.name == "resnet.ResNet"
  assert full.train.epochs == 400 and full.optimiser.schedule == "plateau"
  assert config.get_config("lb,quick=true").data.image_size == 32


@pytest.mark.slow
def test_from_the_command_to_the_report(damaged, tmp_path):
  root = pathlib.Path(launch.__file__).parent
  words = [
    sys.executable, root / "launch.py",
    "--config=configs/ucf101.py:joint,quick=true,epochs=1,batch_size=4",
    f"--config.data.raw={damaged[0]}", f"--config.data.dir={tmp_path / 'data'}",
    "--config.data.workers=0", f"--workdir={tmp_path / 'work'}",
  ]  # fmt: skip
  for mode in ("prepare", "train", "report"):
    done = subprocess.run(
      [*words, f"--mode={mode}"],
      cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
  assert (tmp_path / "work" / "report" / "report.html").exists()
