"""The versions last tested: whole, within the bounds, and from anywhere."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import launch

ROOT = Path(launch.__file__).parent
FILES = sorted((ROOT / "requirements").glob("tested-py3*.txt"))
SCRIPT = ROOT / "tests" / "packaging" / "tested.py"


def pins(path):
  """{name: version} of a file of constraints."""
  found = {}
  for line in path.read_text(encoding="utf-8").splitlines():
    if line.startswith("#"):
      continue
    match = re.fullmatch(r"([a-z0-9-]+)==([0-9][\w.!]*)", line)
    assert match, f"{path.name}: {line!r} is no name==version"
    assert match[1] not in found
    found[match[1]] = Version(match[2])
  return found


def wanted():
  """All requirements of the project and of the extras of the tests."""
  project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
  extras = project["project"]["optional-dependencies"]
  lines = list(project["project"]["dependencies"])
  for extra in ("demo", "pandas", "parquet", "video", "test"):
    lines += extras[extra]
  made = [Requirement(line) for line in lines]
  return [r for r in made if canonicalize_name(r.name) != "dmg-jax"]


def test_the_oldest_python_has_one():
  assert [p.name for p in FILES][:1] == ["tested-py311.txt"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_all_is_pinned_within_the_bounds(path):
  found = pins(path)
  for requirement in wanted():
    name = canonicalize_name(requirement.name)
    assert name in found, f"{path.name} lacks {name}: run {SCRIPT.name} again"
    assert requirement.specifier.contains(found[name], prereleases=True), name
  assert found["jax"] == found["jaxlib"]


def test_the_script_follows_requirements_once(monkeypatch):
  spec = importlib.util.spec_from_file_location("tested", SCRIPT)
  assert spec is not None and spec.loader is not None
  tested = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(tested)
  tree = {
    "a": ("1.0", ["b>=1", "c[x]; extra == 't'", "gone; python_version < '3'"]),
    "b": ("2.0", ["a"]),  # A circle ends.
    "c": ("3.0+cpu", ["d; extra == 'x'", "e; extra == 'y'"]),
    "d": ("4.0", None),
  }

  class Found:
    def __init__(self, name):
      self.version, self.requires = tree[name]

  monkeypatch.setattr(tested.metadata, "distribution", Found)
  assert dict(tested.needed("a")) == {"a": "1.0", "b": "2.0"}
  everything = {"a": "1.0", "b": "2.0", "c": "3.0+cpu", "d": "4.0"}
  assert dict(tested.needed("a[t]")) == everything
  monkeypatch.setattr(tested, "ROOT", "a[t]")
  assert tested.lines() == ["b==2.0", "c==3.0", "d==4.0"]
