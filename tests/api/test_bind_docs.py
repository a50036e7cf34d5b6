"""The pages on own loops and own methods: their code runs, and trains."""

import re
from pathlib import Path

import pytest

import dmg_jax.methods
import helpers
import launch
from configs import manifest
from dmg_jax.config import recipes
from dmg_jax.config.recipes import Recipe
from dmg_jax.tracking.logging import Console
from dmg_jax.training import runner

HOWTO = Path(launch.__file__).parent / "docs" / "howto"


def blocks(page):
  text = (HOWTO / page).read_text(encoding="utf-8")
  return re.findall(r"^```python\n(.*?)^```$", text, re.S | re.M)


def run_page(page):
  """All blocks of a page in one namespace."""
  space = {"__name__": page}
  for i, block in enumerate(blocks(page)):
    exec(compile(block, f"{page}, block {i + 1}", "exec"), space)
  return space


def test_the_example_of_an_own_loop_is_short_and_trains(
  tmp_path, monkeypatch, capsys
):
  pytest.importorskip("torch")
  monkeypatch.chdir(tmp_path)
  assert len(blocks("own_loop.md")[0].splitlines()) <= 50
  run_page("own_loop.md")
  shown = dict(
    line.split()[:2] for line in capsys.readouterr().out.splitlines()[:2]
  )
  assert set(shown) == {"ogm_ge", "lb"}
  assert all(float(accuracy) > 0.45 for accuracy in shown.values())


def test_the_method_of_the_page_trains_by_itself_and_as_a_recipe(
  tmp_path, monkeypatch, unrendered
):
  monkeypatch.chdir(tmp_path)
  space = run_page("own_method.md")
  assert float(space["metrics"]["entropy"]) > 0
  (tmp_path / "confidence.py").write_text(blocks("own_method.md")[0])
  path = [*dmg_jax.methods.__path__, str(tmp_path)]
  monkeypatch.setattr(dmg_jax.methods, "__path__", path)
  monkeypatch.setitem(recipes.RECIPES, *recipe())
  table = helpers.write_manifest(
    tmp_path / "data", 40, ("a:array", "b:array"), "x.csv"
  )
  config = manifest.get_config("confidence,weight=0.2,epochs=1,batch_size=8")
  config.data.update(manifest=str(table), dir=str(tmp_path / "prepared"))
  results = runner.run(config, tmp_path / "run", Console(quiet=True))
  assert results is not None and results["recipe"] == "confidence"


def recipe():
  """The line of the page, as ``(name, recipe)``."""
  text = (HOWTO / "own_method.md").read_text(encoding="utf-8")
  (line,) = re.findall(r"^```text\n(.*?)\n```$", text, re.S | re.M)
  (found,) = eval(f"{{{line}}}", {"Recipe": Recipe}).items()
  return found
