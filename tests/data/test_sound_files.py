"""Sounds from every container: equal waves, and one rule for damage."""

import sys
from typing import Any

import numpy as np
import pytest
import soundfile

import recordings
from data_pipelines import core
from data_pipelines.errors import InputError
from data_pipelines.transforms import audio, kinds, preprocess
from data_pipelines.transforms.files import container, remarks, sounds

RATE = recordings.RATE
# (name, codec of the sound, codec of pictures, sample rate)
CONTAINERS = (
  ("a.m4a", "aac", "", RATE),
  ("a.mka", "aac", "", RATE),
  ("a.webm", "libopus", "", 48000),
  ("a.mp4", "aac", "mpeg4", RATE),
  ("a.mov", "pcm_s16le", "mpeg4", RATE),
  ("a.mkv", "aac", "mpeg4", RATE),
  ("a.avi", "pcm_s16le", "mpeg4", RATE),
)
# By FFmpeg itself these start later, by up to two packets.
SHIFTED = (("a.aac", "aac", RATE), ("a.wma", "wmav2", 44100))


@pytest.fixture
def wave():
  pytest.importorskip("av")
  return recordings.tone()


@pytest.mark.parametrize(("name", "sound", "video", "rate"), CONTAINERS)
def test_containers_give_the_wave_of_a_wav(
  tmp_path, wave, name, sound, video, rate
):
  path = recordings.write(tmp_path / name, sound, video, rate=rate)
  said = []
  found = audio.read(path, RATE, said.append)
  padding = 1024 if name in ("a.mka", "a.mkv") else 2
  assert 0 <= len(found) - len(wave) <= padding
  assert found.dtype == np.float32 and not said
  both = np.stack([found[800 : len(wave) - 800], wave[800:-800]])
  assert np.corrcoef(both)[0, 1] > 0.99 and both[0].std() > 0.1


@pytest.mark.parametrize(("name", "codec", "rate"), SHIFTED)
def test_containers_without_a_start(tmp_path, wave, name, codec, rate):
  path = recordings.write(tmp_path / name, codec, rate=rate)
  found = audio.read(path, RATE)
  assert abs(len(found) - len(wave)) <= 2048
  assert np.abs(np.fft.rfft(found)).argmax() == round(440 * len(found) / RATE)


def test_channels_are_averaged(tmp_path, wave):
  pytest.importorskip("av")
  import av

  both = np.stack([wave, 0 * wave])
  with av.open(str(tmp_path / "a.mka"), "w") as file:
    stream: Any = file.add_stream("flac", rate=RATE, layout="stereo")
    numbers = np.rint(both * 2**15).astype(np.int16)
    packed = np.ascontiguousarray(numbers.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, "s16", "stereo")
    frame.sample_rate, frame.pts = RATE, 0
    for packet in [*stream.encode(frame), *stream.encode(None)]:
      file.mux(packet)
  soundfile.write(tmp_path / "a.wav", numbers.T, RATE, subtype="PCM_16")
  np.testing.assert_array_equal(
    audio.read(tmp_path / "a.mka", RATE), audio.read(tmp_path / "a.wav", RATE)
  )


def test_without_pyav(tmp_path, wave, monkeypatch):
  path = recordings.write(tmp_path / "a.m4a", "aac")
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(InputError) as caught:
    audio.read(path, RATE)
  for part in ("WAV, FLAC, OGG, MP3", "[video]", "ffmpeg -i FILE"):
    assert part in str(caught.value)
  soundfile.write(tmp_path / "a.wav", wave, RATE)
  assert len(audio.read(tmp_path / "a.wav", RATE)) == len(wave)


@pytest.mark.parametrize(
  "name", ["a.wav", "a.aiff", "a.au", "a.flac", "a.mp3", "a.ogg"]
)
def test_a_cut_sound_is_used_and_told(tmp_path, name):
  path = tmp_path / name
  soundfile.write(path, np.tile(recordings.tone(), 5), RATE)
  said = []
  whole = audio.read(path, RATE, said.append)
  assert not said
  found = audio.read(recordings.cut(path), RATE, said.append)
  assert 0.3 < len(found) / len(whole) < 0.7
  assert len(said) == 1
  share = said[0].share
  assert share is None if name == "a.ogg" else 0.4 < share < 0.7
  if name != "a.ogg":  # It announces no length.
    with pytest.raises(InputError, match=r"of its length can be read, 25%"):
      audio.read(recordings.cut(path, 0.15), RATE)


@pytest.mark.parametrize(
  ("name", "sound", "options"),
  [
    ("a.mka", "aac", {}),
    ("a.webm", "libopus", {}),
    ("a.wma", "wmav2", {}),
    ("a.m4a", "aac", {"movflags": "faststart"}),
  ],
)
def test_the_same_rule_in_containers(tmp_path, wave, name, sound, options):
  rate = {"libopus": 48000, "wmav2": 44100}.get(sound, RATE)
  path = recordings.write(tmp_path / name, sound, rate=rate, **options)
  said = []
  found = audio.read(recordings.cut(path), RATE, said.append)
  assert 0.4 < len(found) / len(wave) < 0.7 and len(said) == 1
  with pytest.raises(InputError, match=r"damaged|cut off"):
    audio.read(recordings.cut(path, 0.2), RATE)


def test_an_mp4_without_its_index(tmp_path, wave):
  path = recordings.cut(recordings.write(tmp_path / "a.m4a", "aac"))
  with pytest.raises(InputError, match="its index, which MP4 keeps at the end"):
    audio.read(path, RATE)
  with container.opened(tmp_path / "a.m4a", "audio") as file:
    assert len(file.streams.audio) == 1


def test_headers_of_streams_are_not_believed(tmp_path, wave):
  path = tmp_path / "a.wav"
  soundfile.write(path, wave, RATE)
  data = bytearray(path.read_bytes())
  data[4:8] = b"\xff" * 4  # As ffmpeg writes to a pipe.
  path.write_bytes(data)
  said = []
  assert len(sounds.read(path, said.append)[0]) == len(wave) and not said


def test_samples_beyond_reason(tmp_path):
  settings = {
    "sample_rate": RATE, "length": RATE, "nperseg": 512, "noverlap": 353
  }  # fmt: skip
  spec = core.ModalitySpec("audio", (257, 98, 1), "float32")
  made = preprocess.Preprocessor(spec, settings)
  wave = np.zeros(RATE)
  path = tmp_path / "a.wav"
  for value, said in (
    (np.nan, r"NaN or infinite: 1 of 16000, the first is sample 7"),
    (-np.inf, r"NaN or infinite: 1 of 16000, the first is sample 7"),
    (1e30, "as large as 1e.30"),
    (-1e12, "as large as 1e.12"),
  ):
    wave[7] = value
    soundfile.write(path, wave, RATE, subtype="FLOAT")
    for given in (wave, path):
      with pytest.raises(
        ValueError, match=f"cannot be used as audio: .*{said}"
      ):
        made(given)
  wave[7] = 32767  # 16 bits that were not divided.
  assert np.isfinite(made(wave)).all()
  wide = kinds.ClipAudio({**settings, "of_clip": True})
  with pytest.raises(InputError, match="as large"):
    wide.read(np.full(100, 1e30))


def test_one_rule():
  said = []
  remarks.check_whole(None, False, said.append)
  remarks.check_whole(0.95, False, said.append)
  assert not said
  remarks.check_whole(0.26, False, said.append)
  remarks.check_whole(None, True, said.append)
  assert [x.share for x in said] == [0.26, None]
  with pytest.raises(InputError, match="24% of its length"):
    remarks.check_whole(0.24, True, said.append)
