"""Data that tests share: the prepared OpenMoji, a manifest."""

import pytest

import helpers
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


@pytest.fixture(scope="session")
def made(tmp_path_factory):
  """A manifest of three modalities; not to be changed."""
  return helpers.write_manifest(tmp_path_factory.mktemp("three"), 80)
