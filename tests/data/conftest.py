"""The prepared OpenMoji, once for all tests of the data."""

import pytest

from data_pipelines import core


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """A folder that holds the prepared data; not to be changed."""
  folder = tmp_path_factory.mktemp("data")
  core.prepare("openmoji", folder, {})
  return folder


@pytest.fixture(scope="session")
def openmoji(data_dir):
  return core.build("openmoji", data_dir, {})
