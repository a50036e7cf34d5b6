"""The notebooks: what is stored, what they name, and that they run."""

import ast
import importlib
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

import launch
from configs import openmoji
from dmg_jax.cli import modes
from dmg_jax.training import runner

ROOT = Path(launch.__file__).parent
PATHS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NAMES = ["hypergradients", "own_data", "quickstart", "reproduce_table"]
BOOKS = {p.stem: nbformat.read(p, as_version=4) for p in PATHS}
each = pytest.mark.parametrize("name", NAMES)


def code(name):
  return [c for c in BOOKS[name].cells if c.cell_type == "code"]


def text(name):
  return "\n".join(c.source for c in BOOKS[name].cells)


def plain(cell):
  """A cell's source in Python alone, its magics as calls."""
  return TransformerManager().transform_cell(cell.source)


def test_all_are_here_and_in_the_readme():
  assert sorted(BOOKS) == NAMES
  readme = (ROOT / "README.md").read_text("utf-8")
  for name in NAMES:
    assert f"(notebooks/{name}.ipynb)" in readme


def test_numbers_are_those_of_the_site():
  page = (ROOT / "docs" / "start.md").read_text("utf-8")
  words = " ".join(text("quickstart").split())
  found = re.findall(r"([0-9.]+ ± [0-9.]+) for `(\w+)`", words)
  assert {recipe for _, recipe in found} == {"joint", "lb"}
  for number, recipe in found:
    assert f"| `{recipe}` | {number} |" in page


@each
def test_valid_and_without_output(name):
  book = BOOKS[name]
  nbformat.validate(book)
  assert (book.nbformat, book.nbformat_minor) == (4, 5)
  assert book.metadata.kernelspec.name == "python3"
  assert set(book.metadata) == {"kernelspec", "language_info"}
  for cell in code(name):
    assert cell.outputs == [] and cell.execution_count is None, cell.id
    assert cell.metadata == {}, cell.id


@each
def test_compiles_and_opens_on_a_gpu_runtime(name):
  for cell in code(name):
    ast.parse(plain(cell), cell.id)
  first = code(name)[0]
  assert first.source == code("quickstart")[0].source
  assert 'REPOSITORY = ""' in first.source


@each
def test_names_no_place(name):
  assert not re.search(r"(?<![\w.:/-])(/|[A-Za-z]:\\)\w+[/\\]", text(name))
  assert "://" not in text(name)


@each
def test_what_it_names_exists(name):
  said = text(name)
  for file in re.findall(
    r"\b(?:configs|data_pipelines|dmg_jax)/[\w/]+\.py", said
  ):
    assert (ROOT / file).is_file(), file
  for book in re.findall(r"`(\w+\.ipynb)`", said):
    assert (ROOT / "notebooks" / book).is_file(), book
  for file, recipe in re.findall(r"configs/(\w+)\.py:([\w=,+.]+)", said):
    config(file, recipe)
  for file, recipe in re.findall(r'(\w+)\.get_config\("([^"]+)"\)', said):
    config({"own": "manifest"}.get(file, file), recipe)


def config(file, recipe):
  return importlib.import_module(f"configs.{file}").get_config(recipe)


@pytest.mark.parametrize(
  ("words", "kept"),
  [
    (["launch.py", "--config=a b"], "python launch.py '--config=a b'"),
    (["ipykernel_launcher.py", "-f", "kernel.json"], None),
  ],
)
def test_a_command_is_kept_where_one_was_given(words, kept, monkeypatch):
  found = []
  monkeypatch.setattr(sys, "argv", words)
  monkeypatch.setattr(runner, "run", lambda *given, **_: found.append(given[3]))
  assert modes.run("train", openmoji.get_config("joint"), "run", True) == 0
  assert found == [kept]


@pytest.mark.notebook
@each
def test_runs(name, tmp_path, monkeypatch):
  shutil.copy(ROOT / "notebooks" / f"{name}.ipynb", tmp_path)
  settings = {
    "DMG_QUICK": "1",
    "PYTHONPATH": str(ROOT),
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
  }
  for variable, value in settings.items():
    monkeypatch.setenv(variable, value)
  before = sorted(tmp_path.iterdir())
  book = nbformat.read(before[0], as_version=4)
  place = {"metadata": {"path": str(tmp_path)}}
  NotebookClient(book, timeout=900, resources=place).execute()
  outputs = [o for c in book.cells for o in c.get("outputs", [])]
  assert sum("image/png" in o.get("data", {}) for o in outputs) >= 1
  for output in outputs:
    if output.get("name") == "stderr":
      assert "Warning" not in output.text, output.text
  assert set(tmp_path.iterdir()) <= {*before, tmp_path / "runs"}
  assert {p.name for p in tmp_path.glob("runs/*")} <= {"notebooks"}
