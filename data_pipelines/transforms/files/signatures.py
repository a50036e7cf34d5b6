"""What a file is by its first bytes, for files that could not be read."""

from __future__ import annotations

import os

from data_pipelines.errors import InputError

MP4 = "an MP4 sound or video"
_LENGTH = 512
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
# (what the file begins with, what it is, as the end of a sentence).
_STARTS = (
  (b"\x89PNG", "a PNG picture"),
  (b"\xff\xd8\xff", "a JPEG picture"),
  (b"GIF8", "a GIF picture"),
  (b"fLaC", "a FLAC sound"),
  (b"OggS", "an Ogg sound or video"),
  (b"ID3", "an MP3 sound"),
  (b"\x1aE\xdf\xa3", "a Matroska or WebM sound or video"),
  (b"FLV", "an FLV video"),
  (b"\x93NUMPY", "an array of NumPy"),
  (b"\xff\x0a", "a JPEG XL picture: convert it to JPEG or PNG"),
  (b"\0\0\0\x0cJXL ", "a JPEG XL picture: convert it to JPEG or PNG"),
  (b"%PDF", "a PDF document: save its page as PNG"),
  (b"%!PS", "a PostScript drawing: save it as PNG"),
  (b"PK\x03\x04", "a ZIP archive: unpack it"),
  (b"\x1f\x8b", "compressed with gzip: unpack it"),
  (b"\xfd7zXZ", "compressed with xz: unpack it"),
  (b"7z\xbc\xaf", "a 7z archive: unpack it"),
  (b"Rar!", "a RAR archive: unpack it"),
)
_FORMS = {
  b"WAVE": "a WAV sound",
  b"AVI ": "an AVI video",
  b"WEBP": "a WebP picture",
}
# What a file is expected to be, in these words.
_EXPECTED = {
  "image": "picture", "audio": "sound", "video": "video", "array": "array",
  "waveform": "sound",
}  # fmt: skip


def unreadable(kind: str, path: str | os.PathLike, why: str) -> InputError:
  """The error for a file that no decoder reads; it says what the file is."""
  known = what(path)
  if ":" in known:  # With what to do about it.
    return InputError(f"it is {known}")
  if not known or _EXPECTED.get(kind, "text") in known:
    return InputError(why)
  return InputError(f"it is {known} ({why})")


def what(path: str | os.PathLike) -> str:
  """What the file is, as ``a PNG picture``; empty if that is not known."""
  try:
    with open(path, "rb") as file:
      start = file.read(_LENGTH)
  except OSError:
    return ""
  if not start:
    return "an empty file: its content was lost"
  if not start.strip(b"\0"):
    return "a file of zeros: its content was lost"
  known = (text for head, text in _STARTS if start.startswith(head))
  return _container(start) or next(known, "") or _text(start)


def _container(start: bytes) -> str:
  """What names itself a few bytes later: RIFF, and the family of MP4."""
  if start[:4] == b"RIFF":
    return _FORMS.get(start[8:12], "")
  if start[4:8] != b"ftyp":
    return ""
  if start[8:12] in _HEIC:
    return (
      "a HEIC picture, as phones write: convert it to JPEG, for example "
      "with heif-convert a.heic a.jpg"
    )
  return MP4


def _text(start: bytes) -> str:
  text = start.decode("utf-8", errors="ignore").lstrip("\ufeff \t\r\n").lower()
  if text.startswith("version https://git-lfs"):
    return "a Git LFS pointer, not the file itself: run git lfs pull"
  if "/annex/objects/" in text[:200]:
    return "a git-annex pointer, not the file itself: run git annex get"
  if "<svg" in text:
    return (
      "an SVG drawing: convert it to PNG, for example with rsvg-convert "
      "a.svg -o a.png"
    )
  if text.startswith(("<!doctype html", "<html")):
    return "a web page, as a failed download leaves: download it again"
  if text.startswith("<?xml"):
    return "an XML text"
  return ""
