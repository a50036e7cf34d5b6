"""Tiny data in memory, and a run on them, for the public API."""

import jax
import pytest

import dmg_jax
from dmg_jax.training import sharding
from tiny_samples import SMALL, samples


def _one_device(batch_size):
  del batch_size
  kind, one = (jax.sharding.AxisType.Auto,), jax.devices()[:1]
  return jax.make_mesh((1,), ("b",), axis_types=kind, devices=one)


@pytest.fixture(scope="module", autouse=True)
def one_device():
  """What runs on one device compiles faster than what eight share."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", _one_device)
    yield


@pytest.fixture(scope="package")
def run():
  """A run of ``h`` without a work directory."""
  x, y = samples()
  # This fixture is made before those of a module.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sharding, "make_mesh", _one_device)
    made = dmg_jax.fit(x, y, recipe="h", epochs=1, seed=1, config=SMALL)
  yield made
  made.close()
