"""NVGesture's frames, flow and strips: closed forms and real videos."""

import shutil

import numpy as np
import pytest

from data_pipelines.sets.nvgesture import clips as _clips
from data_pipelines.sets.nvgesture import lists, media
from data_pipelines.transforms import optical_flow

pytest.importorskip("av")
cv2 = pytest.importorskip("cv2")
files = pytest.importorskip("nvgesture_files")


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
    (stored / 127.5 - 1) * optical_flow.BOUND, inside, atol=0.081
  )
  far = media.quantised(np.array([-99.0, 0.0, 99.0, np.nan]))
  assert far.tolist() == [0, 128, 255, 128]


@files.needs_lists
@files.needs_mini
@pytest.mark.slow
def test_real_videos(tmp_path):
  name = "class_16/subject18_r0"
  clip = next(c for c in lists.read(files.LISTS).clips if c.id == name)
  folder = tmp_path / clip.folder
  folder.mkdir(parents=True)
  for file in ("sk_wrapped", "sk_depth"):
    source = (
      files.MINI / f"example_{name.replace('/', '_').replace('_16', '16')}"
    )
    shutil.copy(f"{source}_{file}.avi", folder / f"{file}.avi")
  made = media.make(
    clip, media.GestureSettings(str(tmp_path), "sk_wrapped", 128, "dis")
  )
  assert made["decoded"].tolist() == [80, 80]
  clips = {
    m: _clips.decode(made[m].tobytes(), 80, c)
    for m, c in (("rgb", 3), ("depth", 1), ("flow", 2))
  }
  with np.load(
    files.MINI / "nv_mini_rgb_depth_16f.npz", allow_pickle=False
  ) as mini:
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
