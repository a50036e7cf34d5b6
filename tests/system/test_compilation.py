"""Compiled programs are kept between runs, and a run says what it compiles."""

import os
import stat

import jax
import pytest

import helpers
import process_group
from dmg_jax.cli import compiled
from dmg_jax.tracking import compilation
from dmg_jax.tracking.compilation import Program

SETTINGS = (
  "jax_enable_compilation_cache",
  "jax_compilation_cache_dir",
  "jax_compilation_cache_max_size",
  "jax_persistent_cache_min_compile_time_secs",
  "jax_persistent_cache_min_entry_size_bytes",
)


@pytest.fixture(autouse=True)
def settings():
  """JAX's own, with the cache allowed; as they were afterwards."""
  before = {name: getattr(jax.config, name) for name in SETTINGS}
  jax.config.update("jax_enable_compilation_cache", True)
  yield
  for name, value in before.items():
    jax.config.update(name, value)


@pytest.fixture
def home(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  return tmp_path


def test_the_users_cache_folder(home):
  compiled.keep("on")
  folder = jax.config.jax_compilation_cache_dir
  assert folder == str(compiled.default_folder())
  assert folder.startswith(str(home / "dmg_jax"))
  assert os.path.isdir(folder)
  assert jax.config.jax_compilation_cache_max_size == compiled.LIMIT


def test_a_folder_of_ones_own(home):
  compiled.keep(str(home / "mine"))
  assert jax.config.jax_compilation_cache_dir == str(home / "mine")


def test_off(home):
  compiled.keep("off")
  assert not jax.config.jax_enable_compilation_cache
  assert not list(home.iterdir())


@pytest.mark.parametrize(("name", "value"), [
  ("jax_enable_compilation_cache", False),
  ("jax_compilation_cache_dir", "elsewhere"),
])  # fmt: skip
def test_settings_of_jax_win(home, name, value):
  jax.config.update(name, value)
  compiled.keep("on")
  assert getattr(jax.config, name) == value
  assert not list(home.iterdir())


def test_a_cache_folder_that_cannot_be_made(home, monkeypatch):
  (home / "dmg_jax").write_text("a file in the way")
  compiled.keep("on")
  assert jax.config.jax_compilation_cache_dir is None
  assert stat.S_ISREG((home / "dmg_jax").stat().st_mode)


def test_a_folder_of_ones_own_that_cannot_be_made(home):
  (home / "file").write_text("in the way")
  with pytest.raises(ValueError, match=r"compilation_cache=.*name another"):
    compiled.keep(str(home / "file" / "mine"))


@pytest.mark.parametrize(("programs", "text"), [
  ([], ""),
  ([Program("step", 0.9, False)], ""),
  ([Program("small", 0.2, False), Program("train_step", 9.06, False),
    Program("tiny", 0.1, False), Program("eval_step", 3, False)],
   "compiled in 12.4 s: train_step 9.1 s, eval_step 3.0 s, 2 smaller ones "
   "0.3 s"),
  ([Program("train_step", 9, False), Program("eval_step", 0.1, True)],
   "compiled in 9.0 s: train_step 9.0 s, 1 read from the cache"),
  ([Program("train_step", 0.7, True), Program("eval_step", 0.5, True)],
   "2 compiled programs read from the cache in 1.2 s"),
])  # fmt: skip
def test_what_is_said(programs, text):
  assert compilation.said(programs) == text


def test_jax_tells_what_it_compiles(home):
  del home
  compilation.watch()

  def doubled(x):
    return 2 * x

  jax.jit(doubled)(1.0)
  programs = compilation._record().programs
  assert "doubled" in [p.name for p in programs]
  assert all(p.seconds > 0 and not p.kept for p in programs)
  compilation.watch()
  assert compilation.news() == ""


@pytest.mark.slow
def test_a_second_run_reads_and_ends_with_the_same_bits(tmp_path):
  manifest = helpers.write_manifest(
    tmp_path / "data",
    96,
    ("one:array", "two:array"),
    splits=("train", "train", "val", "train", "outer", "test"),
  )
  logs, said = {}, {}
  cache = f"--compilation_cache={tmp_path / 'cache'}"
  for name, flag in (("none", "--compilation_cache=off"), ("cold", cache),
                     ("warm", cache)):  # fmt: skip
    group = process_group.Group(
      [["launch.py", "--config=configs/manifest.py:lb,batch_size=8,epochs=2",
        *process_group.fields(manifest, tmp_path / name), flag]],
      tmp_path / f"output_{name}",
    )  # fmt: skip
    assert group.wait() == [0], group.texts()
    (said[name],) = group.texts()
    logs[name] = (tmp_path / name / "metrics.jsonl").read_bytes()
  assert "compiled in" in said["none"] and "train_step" in said["none"]
  assert "read from the cache" not in said["none"] + said["cold"]
  assert "compiled in" not in said["warm"]
  assert logs["none"] == logs["cold"] == logs["warm"]
