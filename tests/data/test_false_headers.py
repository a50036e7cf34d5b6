"""Files that claim more than they hold, or more than memory should take."""

import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from PIL import Image

import helpers
import recordings
from data_pipelines import core
from data_pipelines.errors import InputError
from data_pipelines.transforms import array, audio, image, preprocess, video
from data_pipelines.transforms.files import npy

RATE = 8000
PIXELS = {"size": 8, "fit": "pad", "stored": 0}


def header(shape, dtype="<f8", version=(1, 0)):
  """The first bytes of an array that is not there."""
  file = io.BytesIO()
  file.write(np.lib.format.magic(*version))
  about = repr({"descr": dtype, "fortran_order": False, "shape": shape})
  text = about.encode() + b"\n"
  size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
  return file.getvalue() + size + text


@pytest.fixture
def frugal():
  """Fails if more than 16 MiB are allocated by NumPy or Python."""
  tracemalloc.start()
  yield
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 2**24


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
@pytest.mark.parametrize(
  ("shape", "count"),
  [
    ((2**40,), "1,099,511,627,776"),
    ((2**40, 2**40), f"{2**80:,}"),
    ((-1,), "-1"),
    ((3,), "3 numbers of float64, 24 bytes, and 16 bytes are there"),
  ],
)
def test_arrays_that_are_not_there(tmp_path, frugal, shape, count, version):
  path = tmp_path / "a.npy"
  path.write_bytes(header(shape, version=version) + bytes(16))
  with pytest.raises(InputError, match="claims") as caught:
    array.read(path)
  assert count in str(caught.value) and "\n" not in str(caught.value)


def test_whole_arrays_are_read(tmp_path):
  path = tmp_path / "a.npy"
  for made in (np.arange(6.0).reshape(2, 3), np.arange(3, dtype=">i2")):
    np.save(path, made)
    np.testing.assert_array_equal(array.read(path), made)
  np.save(path, np.asfortranarray(np.arange(6.0).reshape(2, 3)))
  np.testing.assert_array_equal(array.read(path)[1], [3, 4, 5])


def test_objects_and_fields_are_no_numbers(tmp_path):
  path = tmp_path / "a.npy"
  np.save(path, np.array([{}, None]), allow_pickle=True)
  with pytest.raises(ValueError, match=r"pickle|[Oo]bject"):
    array.read(path)
  with pytest.warns(UserWarning, match=r"3\.0"):
    np.save(path, np.zeros(2, [("ä", "f4"), ("Ω", "f4")]))
  with pytest.raises(InputError, match="named fields"):
    array.read(path)


def test_members_of_archives(tmp_path, frugal):
  path = tmp_path / "a.npz"
  np.savez(path, x=np.arange(3.0))
  npy.check_archive(path)
  import zipfile

  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
    file.writestr("x.npy", header((2**40,)))
  with pytest.raises(InputError, match=r"x\.npy: its header claims 1,099"):
    npy.check_archive(path)
  path.write_bytes(b"PK\x03\x04nothing")
  with pytest.raises(InputError, match=r"no \.npz"):
    npy.check_archive(path)


def test_the_row_is_named_and_the_others_are_listed(tmp_path, frugal):
  table = helpers.write_manifest(tmp_path / "m", 16, helpers.COLUMNS)
  rows = helpers.read_table(table)
  (table.parent / rows[2]["sensor:array"]).write_bytes(header((2**40,)))
  (table.parent / rows[5]["photo:image"]).write_bytes(b"no picture")
  with pytest.raises(core.DataError) as caught:
    helpers.prepare_manifest(table, tmp_path / "data")
  text = str(caught.value)
  assert rows[2]["sensor:array"] in text and "claims 1,099,511,627,776" in text
  assert rows[5]["photo:image"] in text


def _flac(path, total):
  """Sets the number of samples in the header of a FLAC file."""
  data = bytearray(path.read_bytes())
  packed = int.from_bytes(data[18:26], "big") >> 36 << 36 | total
  data[18:26] = packed.to_bytes(8, "big")
  path.write_bytes(data)


def _mp3(path, total):
  """Sets the number of frames in the header of an MP3 file."""
  data = bytearray(path.read_bytes())
  place = max(data.find(b"Xing"), data.find(b"Info"))
  data[place + 8 : place + 12] = struct.pack(">I", total)
  path.write_bytes(data)


@pytest.mark.parametrize(
  ("name", "claim", "total"),
  [("a.flac", _flac, 2**36 - 1), ("a.mp3", _mp3, 2**31 - 1)],
)
def test_sounds_that_are_not_there(tmp_path, frugal, name, claim, total):
  path = tmp_path / name
  soundfile.write(path, recordings.tone(), RATE)
  claim(path, total)
  with pytest.raises(InputError, match="0% of its length"):
    audio.read(path, RATE)


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3"])
def test_sounds_in_parts_are_the_same(tmp_path, monkeypatch, ending):
  from data_pipelines.transforms.files import sounds

  path = tmp_path / f"a.{ending}"
  stereo = np.stack([recordings.tone(), -0.5 * recordings.tone()], 1)
  soundfile.write(path, stereo, RATE)
  whole, _ = sounds.read(path)
  monkeypatch.setattr(sounds, "_BELIEVED", 2**10)
  parts, _ = sounds.read(path)
  np.testing.assert_array_equal(whole, parts)


def test_a_rate_that_cannot_be(tmp_path, frugal):
  path = tmp_path / "a.wav"
  soundfile.write(path, recordings.tone(), 1)
  with pytest.raises(InputError, match="rate of 1 samples a second"):
    audio.read(path, RATE)


def _png(path, size):
  Image.new("1", size).save(path)
  return path


def test_a_small_file_of_many_pixels(tmp_path):
  """More than Pillow warns of, by the usual limit; it is never decoded."""
  path = _png(tmp_path / "a.png", (9600, 9600))
  assert path.stat().st_size < 20_000
  one = preprocess.Preprocessor(
    core.ModalitySpec("image", (8, 8, 3), np.uint8), PIXELS
  )
  with pytest.raises(InputError, match="9600 x 9600") as caught:
    one(path)
  assert f"{image.MAX_PIXELS:,}" in str(caught.value)
  assert "--config.data.max_pixels" in str(caught.value)
  larger = PIXELS | {"max_pixels": 10**8}
  one = preprocess.Preprocessor(one.spec, larger)
  assert one(path).shape == (8, 8, 3)
  assert Image.MAX_IMAGE_PIXELS == image.MAX_PIXELS  # Pillow's is as it was.


@pytest.mark.parametrize("given", ["path", "bytes", "picture"])
def test_every_way_to_give_a_picture(tmp_path, given):
  path = _png(tmp_path / "a.png", (30, 20))
  one = preprocess.Preprocessor(
    core.ModalitySpec("image", (8, 8, 3), np.uint8),
    PIXELS | {"max_pixels": 599},
  )
  with Image.open(path) as picture, pytest.raises(InputError, match="600"):
    one({"path": path, "bytes": path.read_bytes(), "picture": picture}[given])


def _photo(path, **options):
  x, y = np.meshgrid(np.arange(400), np.arange(304))
  pixels = np.stack([x % 256, y % 256, (x + y) % 256], -1) // 2 + 60
  Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95, **options)
  return path


def test_large_jpegs_are_decoded_at_a_reduced_size(tmp_path):
  path = _photo(tmp_path / "a.jpg")
  whole = image.open_rgb(path)
  assert whole.size == (400, 304)
  np.testing.assert_array_equal(whole, image.open_rgb(path, most=400 * 304))
  for most, size in ((400 * 304 - 1, (200, 152)), (8000, (100, 76))):
    small = image.open_rgb(path, most=most)
    assert small.size == size
    expected = np.asarray(whole.resize(size, Image.Resampling.BOX), float)
    assert np.abs(np.asarray(small, float) - expected).mean() < 4
  with pytest.raises(InputError, match="121,600 pixels"):
    image.open_rgb(path, most=1000)
  progressive = _photo(tmp_path / "b.jpg", progressive=True)
  with pytest.raises(InputError, match="121,600 pixels"):
    image.open_rgb(progressive, most=8000)


def test_frames_of_a_video(tmp_path):
  pytest.importorskip("av")
  frames = np.zeros((6, 48, 64, 3), np.uint8)
  path = recordings.write(tmp_path / "a.mp4", "", "mpeg4", frames)
  assert video.read(path, 2, 8, most=48 * 64).shape == (2, 8, 8, 3)
  with pytest.raises(InputError, match="64 x 48 are 3,072 pixels"):
    video.read(path, 2, 8, most=48 * 64 - 1)


def test_the_limit_is_an_option_of_a_manifest(tmp_path):
  table = helpers.write_manifest(tmp_path / "m", 16, helpers.COLUMNS)
  with pytest.raises(core.DataError, match="16 x 12 are 192 pixels"):
    helpers.prepare_manifest(table, tmp_path / "data", max_pixels=4)
  made = helpers.prepare_manifest(table, tmp_path / "data")
  usual = helpers.load_manifest(table, tmp_path / "data")
  assert usual.preprocessing["photo"] == PIXELS
  raised = helpers.load_manifest(table, tmp_path / "data", max_pixels=10**9)
  assert raised.preprocessing["photo"] == PIXELS | {"max_pixels": 10**9}
  assert made.versions["key"]
  with pytest.raises(InputError, match="max_pixels must lie in"):
    helpers.prepare_manifest(table, tmp_path / "data", max_pixels=0)
