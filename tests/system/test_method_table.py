"""The table of methods says what the code says."""

import pytest

from benchmarks import methods
from dmg_jax import types
from dmg_jax.config.recipes import RECIPES

PAGE = methods.DOCS.read_text(encoding="utf-8")
FLOPS = methods.recorded(PAGE)
NAMES = [row.names[0] for row in methods.rows()]
# Compiled as users have it, which takes long; the page is made with all.
MEASURED = ("lb", "umt", "igm")

AGAIN = "run python benchmarks/methods.py"


def test_every_recipe_is_in_it():
  listed = [name for row in methods.rows() for name in row.names]
  assert sorted(listed) == sorted(RECIPES)
  assert set(FLOPS) == set(NAMES), AGAIN


def test_page_is_as_the_code_makes_it():
  assert methods.page(FLOPS) == PAGE, AGAIN


def test_categories_are_known():
  assert {row.card[0] for row in methods.rows()} <= set(types.CATEGORIES)


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURED)
def test_flops(optimised, name):
  step, update = methods.measure([name])[name]
  assert step == pytest.approx(FLOPS[name][0], rel=0.02, abs=0.01), AGAIN
  if update is not None:
    assert update == pytest.approx(FLOPS[name][1], rel=0.02), AGAIN
