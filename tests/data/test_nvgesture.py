"""NVGesture from its lists and videos: real list lines, videos made here."""

import csv
import io
import os
import pathlib
import shutil

import numpy as np
import pytest

import launch
from data_pipelines import _clips, catalog, core, nvgesture
from data_pipelines import _nvgesture_lists as lists
from data_pipelines import _nvgesture_media as media
from data_pipelines.loader import Loader

av = pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")

ROOT = pathlib.Path(launch.__file__).parent
SHARED = pathlib.Path(
  os.environ.get("DMG_SHARED_DATA", ROOT.parent / "shared" / "data")
)
LISTS = SHARED / "paper_annotations" / "nvgesture_lists"
MINI = SHARED / "nvgesture_mini"
NAME = "nvgesture_{}_correct_cvpr2016_v2.lst"
SUBJECTS = {"train": (2, 12, 16, 17), "test": (9, 20)}
SMALL = {"stored_size": 32, "held_out": 0.2, "workers": 1}
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason=f"no {LISTS}")
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason=f"no {MINI}")


def write_video(path, frames):
  """A video of frames [t h w 3] of so little noise that values survive."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=30, options={"qscale": "1"})
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.codec_context.qmax = "yuv420p", 2
    for frame in frames:
      container.mux(
        stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24"))
      )
    container.mux(stream.encode())


def write_clip(root, clip):
  """Red is high, green tells the frame, blue the label; depth the frame."""
  for sensor, (file, start, wanted) in clip.sensors.items():
    frames = np.zeros((start + wanted, 24, 32, 3), np.uint8)
    number = np.arange(len(frames))[:, None, None]
    frames[...] = (number % 200 + 20)[..., None]
    if sensor == "color":
      frames[..., 0], frames[..., 2] = 230, 5 * clip.label
    write_video(root / clip.folder / f"{file}.avi", frames)


def chosen(listed):
  """Lines of the real list: of some subjects, few of each, early starts."""
  lines, counts = [], {}
  for line in (LISTS / NAME.format(listed)).read_text().splitlines():
    subject = int(line.split("subject")[1].split("_")[0])
    start = int(line.split("color:sk_color:")[1].split(":")[0])
    if subject in SUBJECTS[listed] and start < 110:
      counts[subject] = counts.get(subject, 0) + 1
      if counts[subject] <= 3:
        lines.append(line)
  return lines


@pytest.fixture(scope="module")
def download(tmp_path_factory):
  """A download of a few clips; not to be changed."""
  if not LISTS.is_dir():
    pytest.skip(f"no {LISTS}")
  root = tmp_path_factory.mktemp("download")
  for listed in ("train", "test"):
    lines = chosen(listed)
    (root / NAME.format(listed)).write_text("\n".join(lines) + "\n")
  for clip in lists.read(root).clips:
    write_clip(root, clip)
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


def edit(path, change):
  lines = path.read_text().splitlines()
  path.write_text("\n".join(change(lines)) + "\n")


@needs_lists
def test_the_real_lists():
  found = lists.read(LISTS)
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


def test_one_cut_for_all_modalities():
  places = np.stack(
    np.meshgrid(*map(np.arange, (80, 32, 32)), indexing="ij"), -1
  )
  cuts = []
  for seed in range(40):
    rngs = [np.random.default_rng(seed) for _ in range(2)]
    one = _clips.random_cut(rngs[0], places, 64, 24)
    two = _clips.random_cut(rngs[1], places[..., :1], 64, 24)
    assert one.shape == (64, 24, 24, 3)
    np.testing.assert_array_equal(one[..., :1], two)
    assert (np.ptp(one.reshape(-1, 3), axis=0) == [63, 23, 23]).all()
    cuts.append(one[0, 0, 0])
  assert np.min(cuts, 0).tolist() == [0, 0, 0]
  assert np.max(cuts, 0).tolist() == [16, 8, 8]


def test_fewer_and_smaller_frames(prepared):
  data = load(prepared[0], step=5, reduce=2, window=12, image_size=16)
  assert data.spec.modalities["flow"].shape == (16, 16, 16, 2)
  full = load(prepared[0])
  few, all_ = (d.sources["val"][0]["inputs"] for d in (data, full))
  for m, frames in few.items():
    want = all_[m][2::5].astype(float)
    want = want.reshape(16, 16, 2, 16, 2, -1).mean((2, 4))
    np.testing.assert_allclose(frames, want, atol=3)


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("reduce", [1, 3, 4])
def test_strips(channels, reduce):
  rng = np.random.default_rng(0)
  coarse = rng.integers(60, 190, (5, 3, 2, channels))
  clip = coarse.repeat(24, 1).repeat(24, 2).astype(np.uint8)
  found = _clips.decode(_clips.encode(clip), 5, channels, reduce)
  side = 24 // reduce
  want = coarse.repeat(side, 1).repeat(side, 2)
  assert found.shape == want.shape and found.dtype == np.uint8
  np.testing.assert_allclose(found, want, atol=5)
  with pytest.raises(ValueError, match="multiple of 8"):
    _clips.encode(clip[:, :12])


@pytest.mark.parametrize("shift", [(3, -2), (-6, 4)])
def test_flow_of_a_moving_texture(shift):
  dx, dy = shift
  texture = np.random.default_rng(0).integers(0, 256, (150, 150), np.uint8)
  texture = cv2.normalize(
    cv2.GaussianBlur(texture, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX
  )
  at = [(30 - i * dy, 30 - i * dx) for i in range(3)]
  clip = np.stack([texture[y : y + 96, x : x + 96] for y, x in at])
  found = media.flow(np.repeat(clip[..., None], 3, -1))
  assert found.shape == (3, 96, 96, 2)
  inside = found[:, 16:-16, 16:-16]
  assert np.abs(inside - np.float32(shift)).max() < 0.5
  np.testing.assert_array_equal(found[2], found[1])
  stored = media.quantised(inside).astype(float)
  np.testing.assert_allclose(
    (stored / 127.5 - 1) * media.BOUND, inside, atol=0.081
  )
  far = media.quantised(np.array([-99.0, 0.0, 99.0, np.nan]))
  assert far.tolist() == [0, 128, 255, 128]


def damage(root):
  """Breaks a download; {sample: word of the problem that it must be in}."""
  train, test = (root / NAME.format(s) for s in ("train", "test"))
  clips = [c for c in lists.read(root).clips if c.listed == "train"]
  kept = {c.subject: c for c in clips}  # one a subject stays whole
  bad = [c for c in clips if kept[c.subject] is not c]
  paths = [root / c.folder / "sk_color.avi" for c in bad]
  paths[0].unlink()
  paths[1].with_name("sk_depth.avi").write_bytes(paths[1].read_bytes()[:1500])
  paths[2].write_bytes(b"RIFF no video")
  for i, frames in ((3, 60), (4, 20)):
    frames += bad[i].sensors["color"][1]
    write_video(paths[i], np.full((frames, 24, 32, 3), 90, np.uint8))

  def change(lines):
    number = {c.id: c.row for c in bad}
    at = number[bad[5].id]
    lines[at] = lines[at].replace(f"label:{bad[5].label}", "label:26")
    at = number[bad[6].id]
    begin = bad[6].sensors["depth"][1]
    lines[at] = lines[at].replace(
      f"depth:sk_depth:{begin}:", "depth:sk_depth:999:"
    )
    return [*lines, lines[0], "path:./Video_data/class_01/x label:1", "",
            test.read_text().splitlines()[0]]  # fmt: skip

  edit(train, change)
  train.write_bytes(
    b"\xef\xbb\xbf" + train.read_bytes().replace(b"\n", b"\r\n")
  )
  line = f"{train.name}, line "
  return {
    bad[0].id: ("missing", "sk_color.avi"),
    bad[1].id: ("cannot be decoded", "sk_depth.avi"),
    bad[2].id: ("cannot be decoded", "sk_color.avi"),
    bad[3].id: ("filled up", "has 60 of 80"),
    bad[4].id: ("cannot be decoded", "are needed"),
    f"{line}{bad[5].row + 1}": ("skipped", "'26'"),
    f"{line}{bad[6].row + 1}": ("skipped", "starts with 999"),
    f"{line}{len(clips) + 1}": ("skipped", "in the train list already"),
    f"{line}{len(clips) + 2}": ("skipped", "no field 'depth:'"),
    f"{line}{len(clips) + 3}": ("skipped", "in the test list already"),
  }


def test_broken_downloads(download, tmp_path):
  root = copied(download, tmp_path)
  expected = damage(root)
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


@needs_lists
@needs_mini
def test_real_videos(tmp_path):
  name = "class_16/subject18_r0"
  clip = next(c for c in lists.read(LISTS).clips if c.id == name)
  folder = tmp_path / clip.folder
  folder.mkdir(parents=True)
  for file in ("sk_wrapped", "sk_depth"):
    source = MINI / f"example_{name.replace('/', '_').replace('_16', '16')}"
    shutil.copy(f"{source}_{file}.avi", folder / f"{file}.avi")
  made = media.make(
    clip, media.Settings(str(tmp_path), "sk_wrapped", 128, "dis")
  )
  assert made["decoded"].tolist() == [80, 80]
  clips = {
    m: _clips.decode(made[m].tobytes(), 80, c)
    for m, c in (("rgb", 3), ("depth", 1), ("flow", 2))
  }
  with np.load(MINI / "nv_mini_rgb_depth_16f.npz", allow_pickle=False) as mini:
    at = [name in str(path) for path in mini["path"]].index(True)
    rgb, depth, label = (mini[k][at] for k in ("rgb", "depth", "y"))
  assert label == clip.label
  for m, theirs in (("rgb", rgb), ("depth", depth[..., None])):
    ours = np.stack([cv2.resize(f, (112, 84)) for f in clips[m]])
    ours = ours.reshape(80, *theirs.shape[1:]).astype(float)
    error = np.abs(ours[:, None] - theirs[None].astype(float)).mean((2, 3, 4))
    nearest = error.argmin(0)
    assert np.abs(nearest - np.linspace(0, 79, 16)).max() <= 3
    assert error.min(0).max() < 6
  # A hand moves; the room does not.
  moved = np.abs(clips["flow"].astype(float) - 127.5) * 20 / 127.5
  assert np.median(moved) < 0.3 and moved.max() > 2


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
    core.DataError, match=r"Is --config\.data\.raw the folder"
  ):
    load(tmp_path, raw=str(tmp_path), lists=str(download))
  assert "nvgesture" in catalog.pipelines()
