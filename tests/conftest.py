"""Every test: float64, strict shapes, warnings are errors, 8 CPU devices."""

import jax
import jaxtyping
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Most of a test's time is compilation of something that runs once.
jax.config.update("jax_disable_most_optimizations", True)

# Annotations of the package are checked while the tests run, and only then.
jaxtyping.install_import_hook("dmg_jax", "typecheck.check")


@pytest.fixture
def optimised():
  """The compiler as users have it, for tests of what compiled code costs."""
  jax.config.update("jax_disable_most_optimizations", False)
  yield
  jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """A folder that holds the prepared OpenMoji; not to be changed."""
  from data_pipelines import catalog

  folder = tmp_path_factory.mktemp("data")
  catalog.prepare("openmoji", folder, {})
  return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory):
  """A manifest of three modalities; not to be changed."""
  import helpers

  return helpers.write_manifest(tmp_path_factory.mktemp("three"), 80)
