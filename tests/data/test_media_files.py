"""Videos and pictures as phones and cameras write them."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

import recordings
from data_pipelines import core
from data_pipelines.errors import InputError
from data_pipelines.transforms import array, image, kinds, preprocess, video
from data_pipelines.transforms.files import signatures, upright

ROTATE = Image.Transpose


def corners():
  """50 frames [48 64 3], with another colour in each corner."""
  frames = np.zeros((50, 48, 64, 3), np.uint8)
  frames[:, :24, :32] = (250, 0, 0)
  frames[:, :24, 32:] = (0, 250, 0)
  frames[:, 24:, :32] = (0, 0, 250)
  frames[:, 24:, 32:] = (250, 250, 0)
  return frames


def turn(path, numbers):
  """Sets a, b, c, d of the display matrix of the pictures in an MP4 file."""
  data = bytearray(path.read_bytes())
  place = data.index(b"tkhd") + 4 + 40  # Version 0: 40 bytes before it.
  a, b, c, d = (n * 2**16 for n in numbers)
  one = 2**30
  data[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, one)
  path.write_bytes(data)


@pytest.mark.parametrize(
  ("numbers", "shown"),
  [
    ((1, 0, 0, 1), None),
    ((0, 1, -1, 0), ROTATE.ROTATE_270),  # Clockwise by 90 degrees.
    ((-1, 0, 0, -1), ROTATE.ROTATE_180),
    ((0, -1, 1, 0), ROTATE.ROTATE_90),
    ((-1, 0, 0, 1), ROTATE.FLIP_LEFT_RIGHT),
    ((1, 0, 0, -1), ROTATE.FLIP_TOP_BOTTOM),
    ((0, 1, 1, 0), ROTATE.TRANSPOSE),
    ((0, -1, -1, 0), ROTATE.TRANSVERSE),
  ],
)
def test_videos_are_upright(tmp_path, numbers, shown):
  pytest.importorskip("av")
  path = recordings.write(tmp_path / "a.mp4", "", "mpeg4", corners())
  plain = video.pictures(path, lambda _: np.array([0, 9]))
  turn(path, numbers)
  found = video.pictures(path, lambda _: np.array([0, 9]))
  for before, after in zip(plain, found, strict=True):
    expected = before if shown is None else before.transpose(shown)
    np.testing.assert_array_equal(np.asarray(after), np.asarray(expected))
  assert video.read(path, 3, 16).shape == (3, 16, 16, 3)


def test_a_matrix_that_scales():
  picture = Image.fromarray(corners()[0])
  half = np.array([0, 2**15, 0, -(2**15), 0, 0, 0, 0, 2**30])
  found = upright.turned(picture, half)
  assert found.size == (48, 64)


@pytest.mark.parametrize(
  ("name", "codec", "options"),
  [
    ("a.avi", "mjpeg", {}),
    ("a.mkv", "mpeg4", {}),
    ("a.webm", "libvpx", {}),
    ("a.mp4", "mpeg4", {"movflags": "faststart"}),
  ],
)
def test_a_cut_video_is_used_and_told(tmp_path, name, codec, options):
  pytest.importorskip("av")
  path = recordings.write(tmp_path / name, "", codec, **options)
  said = []
  whole = video.read(path, 4, 16, said.append)
  assert not said and whole.shape == (4, 16, 16, 3)
  found = video.read(recordings.cut(path), 4, 16, said.append)
  assert found.shape == whole.shape and len(said) == 1
  assert 0.3 < said[0].share < 0.8
  np.testing.assert_array_equal(found, video.read(recordings.cut(path), 4, 16))
  with pytest.raises(InputError, match=r"damaged|cut off|no frame"):
    video.read(recordings.cut(path, 0.15), 4, 16)


def test_errors_of_ffmpeg_have_no_numbers(tmp_path):
  pytest.importorskip("av")
  junk = tmp_path / "a.mp4"
  junk.write_bytes(np.random.default_rng(0).bytes(3000))
  spec = core.ModalitySpec("video", (2, 8, 8, 3), "uint8")
  made = preprocess.Preprocessor(spec, {"size": 8, "frames": 2})
  with pytest.raises(ValueError, match="cannot be used as video") as caught:
    made(junk)
  text = str(caught.value)
  assert "Errno" not in text and "[" not in text and text.count("a.mp4") == 1
  with pytest.raises(ValueError, match=r"cannot be used as video") as caught:
    made(recordings.cut(recordings.write(tmp_path / "b.mp4", "", "mpeg4")))
  assert "its index, which MP4 keeps at the end, is missing" in str(
    caught.value
  )


FOREIGN = (
  (
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "git lfs pull",
  ),
  (b"../.git/annex/objects/Xx/1/SHA256E-s1", "git annex get"),
  (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "heif-convert"),
  (b'<?xml version="1.0"?>\n<svg width="9" height="9"></svg>', "rsvg-convert"),
  (b"\xef\xbb\xbf<!DOCTYPE html><title>404</title>", "download it again"),
  (b"PK\x03\x04" + bytes(90), "unpack it|several arrays"),
  (b"", "an empty file"),
  (bytes(900), "a file of zeros"),
)


@pytest.mark.parametrize("kind", ["image", "audio", "video", "array"])
@pytest.mark.parametrize(("content", "said"), FOREIGN)
def test_other_files_are_named(tmp_path, kind, content, said):
  if kind in ("audio", "video"):
    pytest.importorskip("av")
  settings = {
    "image": {"size": 8, "fit": "pad", "stored": 0},
    "audio": {
      "sample_rate": 8000, "length": 800, "nperseg": 64, "noverlap": 0
    },
    "video": {"size": 8, "frames": 2},
    "array": {"mean": None, "scale": None},
  }[kind]  # fmt: skip
  endings = {"image": "png", "audio": "wav", "video": "mp4", "array": "npy"}
  path = tmp_path / f"a.{endings[kind]}"
  path.write_bytes(content)
  step = kinds.step(kind, settings)
  with pytest.raises(
    InputError, match=f"cannot be used as {kind}: it .*{said}"
  ):
    preprocess.using(kind, step, path, step.read)


def test_without_a_sound(tmp_path):
  Image.new("RGB", (9, 9)).save(tmp_path / "a.wav", "JPEG")
  pytest.importorskip("av")
  step = kinds.step(
    "audio",
    {"sample_rate": 8000, "length": 800, "nperseg": 64, "noverlap": 0},
  )
  with pytest.raises(
    InputError, match=r"it is a JPEG picture \(it has no sound"
  ):
    step.read(tmp_path / "a.wav")
  assert signatures.what(tmp_path / "absent") == ""


def test_sixteen_bits(tmp_path):
  rng = np.random.default_rng(0)
  for low, high, told in (
    (0, 65536, False), (0, 4096, True), (0, 256, True), (30000, 31000, True)
  ):  # fmt: skip
    pixels = rng.integers(low, high, (20, 20)).astype(np.uint16)
    pixels[0, :2] = low, high - 1
    for name in ("a.png", "a.tif"):
      Image.fromarray(pixels).save(tmp_path / name)
      said = []
      found = image.open_rgb(tmp_path / name, said.append)
      np.testing.assert_array_equal(np.asarray(found)[..., 0], pixels // 257)
      assert [(x.low, x.high) for x in said] == [(low, high - 1)] * told
    said = []
    image.to_rgb(Image.fromarray(pixels), said.append)
    assert len(said) == told


def test_sixteen_bits_in_colour(tmp_path):
  import cv2

  rng = np.random.default_rng(0)
  for high, told in ((65536, False), (4096, True)):
    pixels = rng.integers(0, high, (20, 20, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), pixels)
    said = []
    image.open_rgb(tmp_path / "a.png", said.append)
    assert len(said) == told
    assert not told or said[0].high == 4095


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16")


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_pil_are_read_as_their_files(tmp_path, mode):
  import dmg_jax.api.inputs as inputs

  rng = np.random.default_rng(0)
  base = Image.fromarray(rng.integers(0, 256, (12, 8, 4), np.uint8))
  if mode == "I;16":
    deep = rng.integers(0, 65536, (12, 8)).astype(np.uint16)
    picture = Image.fromarray(deep)
  elif mode in ("P", "CMYK", "YCbCr", "RGB", "1"):
    picture = base.convert("RGB").convert(mode)
  else:
    picture = base.convert(mode)
  name = "a.jpg" if mode in ("CMYK", "YCbCr") else "a.png"
  exif = Image.Exif()
  exif[0x0112] = 6  # A quarter turn.
  picture.info["exif"] = exif.tobytes()
  picture.getexif()[0x0112] = 6
  picture.save(tmp_path / name, exif=exif)
  if name == "a.jpg":  # Which changes pixels.
    picture = Image.open(tmp_path / name)
    picture.load()
  step = kinds.step("image", {"size": 12, "fit": "pad", "stored": 0})
  (given,) = inputs.entries("image", [picture])
  found, file = step.read(given), step.read(tmp_path / name)
  np.testing.assert_array_equal(found, file)
  # It lies: 12 wide, 8 high.
  assert (found[:2] == 255).all() and (found[2:10, :2] < 255).any()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_a_cut_picture_is_refused(tmp_path, kind):
  noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(noise).save(file, kind)
  for share in (0.3, 0.6, 0.9):
    path = tmp_path / f"a{share}.img"
    path.write_bytes(file.getvalue()[: int(len(file.getvalue()) * share)])
    with pytest.raises(InputError, match=r"damaged or cut off|no picture"):
      image.open_rgb(path)


def test_numbers_beyond_reason(tmp_path):
  np.save(tmp_path / "a.npy", np.array([1.0, 1e30]))
  for value in (np.array([1.0, -1e30]), [1e19], np.float32(3e38)):
    with pytest.raises(InputError, match="some numbers are as large as"):
      array.checked(np.asarray(value))
  with pytest.raises(InputError, match="as large as 1e"):
    array.read(tmp_path / "a.npy")
  with pytest.raises(InputError, match="as large as 1e"):
    array.standardise(np.array([1e15]), [0.0], [1e-9])
  assert array.checked(np.array([1e17])).dtype == np.float32


def test_no_array(tmp_path):
  (tmp_path / "a.npy").write_text("1,2,3\n")
  with pytest.raises(InputError, match=r"no \.npy file: write it with"):
    array.read(tmp_path / "a.npy")
