"""Every test: float64, strict shapes, warnings are errors, 8 CPU devices.

On an accelerator with ``DMG_TEST_DEVICE=gpu``, see ``tests/support/device.py``.
"""

import gc
import os
import pathlib

import jax
import jaxlib
import jaxtyping
import numpy as np
import pytest

import device

# Loops as plain LLVM, which compiles in two thirds of the time. An XLA that
# does not know a flag aborts, so it is for versions that are known to.
if jaxlib.__version__.startswith("0.10.") and not device.on_card():
  flags = os.environ.get("XLA_FLAGS", "")
  os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {flags}"
# Nothing is kept in the cache folder of whoever runs the tests.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"
jax.config.update("jax_enable_compilation_cache", False)
if not device.on_card():
  jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of a test's time is compilation of something that runs once.
jax.config.update("jax_disable_most_optimizations", not device.on_card())

# Annotations of the package are checked while the tests run, and only then.
jaxtyping.install_import_hook("dmg_jax", "typecheck.check")


# Files that compile the same programs; all others are on their own.
_SAME_PROGRAMS = ("test_resume", "test_run", "test_seeds")
# Files of some minutes begin, so that no process ends long after the other.
_LONG = (
  "test_method_table", "test_tables", "test_recipes", *_SAME_PROGRAMS,
  "test_costs", "test_loop", "test_blocks",
)  # fmt: skip


def _shares_programs(file):
  return pathlib.Path(file).stem in _SAME_PROGRAMS


def pytest_configure():
  """No test passes on a CPU that was to run on an accelerator."""
  if device.on_card() and jax.default_backend() == "cpu":
    pytest.exit(
      f"DMG_TEST_DEVICE={device.NAME}: JAX finds no accelerator; install its "
      "build for one, or leave the variable out",
      returncode=1,
    )


def pytest_collection_modifyitems(items):
  """The longest work is dealt first."""
  last = len(_LONG)
  first = {name: i for i, name in enumerate(_LONG)}
  items.sort(key=lambda item: first.get(item.path.stem, last))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """A file's tests, and those of files with the same programs, in a process."""
  if config.getvalue("dist") != "loadfile":
    return None
  from xdist.scheduler import LoadFileScheduling

  class Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid):
      file = super()._split_scope(nodeid)
      return "runs" if _shares_programs(file) else file

  return Scheduling(config, log)


def forget_programs(most):
  """Forgets compiled programs before the system's limit of memory maps.

  Each takes a few; Linux allows 65,530, and the compiler crashes at the last.
  """
  maps = pathlib.Path("/proc/self/maps")
  if maps.exists() and maps.read_bytes().count(b"\n") > most:
    jax.clear_caches()
    gc.collect()


@pytest.fixture(scope="module", autouse=True)
def few_programs():
  """After a file; not within one, where tests share programs."""
  yield
  forget_programs(15_000)


@pytest.fixture(autouse=True)
def not_too_many_programs(request):
  """Within a file of many slow tests, of which each compiles its own."""
  yield
  if request.node.get_closest_marker("slow"):
    forget_programs(40_000)


@pytest.fixture(autouse=device.on_card())
def accelerator(monkeypatch):
  """On an accelerator, float32 has at least the tolerance of its products."""
  compare = device.loosened(np.testing.assert_allclose, device.least())
  monkeypatch.setattr(np.testing, "assert_allclose", compare)


@pytest.fixture
def optimised():
  """The compiler as users have it, for tests of what compiled code costs."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", not device.on_card())


@pytest.fixture
def unrendered(monkeypatch):
  """Pictures are drawn up but not rendered: for tests of what is around."""
  import pages

  pages.without_pictures(monkeypatch)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """A folder that holds the prepared OpenMoji; not to be changed."""
  from data_pipelines.core import catalog

  folder = tmp_path_factory.mktemp("data")
  catalog.prepare("openmoji", folder, {})
  return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
  """A manifest of three modalities; not to be changed."""
  import helpers

  return helpers.write_manifest(tmp_path_factory.mktemp("three"), 80)
