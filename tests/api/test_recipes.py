"""The table of recipes as data."""

import pandas

import dmg_jax
from dmg_jax.config import own_data
from dmg_jax.config.recipes import RECIPES


def test_all_recipes():
  found = dmg_jax.recipes()
  assert sorted(n for r in found for n in (r.name, *r.aliases)) == sorted(
    RECIPES
  )
  table = pandas.DataFrame(found)
  assert list(table.columns[:3]) == ["name", "aliases", "category"]
  by_name = {r.name: r for r in found}
  assert by_name["joint"].aliases == ("concat",)
  assert by_name["mmcosine"].category == "fusion"


def test_options_are_those_of_a_run():
  for info in dmg_jax.recipes():
    key = ",modality=text" if info.name == "unimodal" else ""
    config = own_data.get_config(info.name + key)
    own = config.method.to_dict()
    assert own.pop("name") == info.method
    for name in set(info.options) - {"modality"}:
      assert own[name] == info.options[name], (info.name, name)
    assert config.fusion.name == info.fusion
