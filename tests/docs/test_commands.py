"""Commands of pages that no test runs: configs, keys and fields are accepted.

Those of tables and figures have configs of another kind, and the pages on own
methods name recipes that the reader has yet to write.
"""

import re
import shlex

import pytest

import site_pages
from dmg_jax.config import compose, fields, files
from dmg_jax.training import validation

_COMMAND = re.compile(
  r"python launch\.py --config=configs/(?!tables|figures)\w+\.py:"
)


def _commands():
  """The words of every command for a single run in an ``sh`` block."""
  for page in site_pages.PAGES:
    if page.name == "own_method.md":
      continue
    for block in site_pages.blocks(page):
      for line in block.text.splitlines() if block.language == "sh" else ():
        if _COMMAND.match(line):
          name = page.relative_to(site_pages.ROOT).as_posix()
          yield pytest.param(shlex.split(line)[2:], id=f"{name}:{block.line}")


@pytest.mark.parametrize("words", _commands())
def test_configs_of_commands_are_accepted(words):
  file, _, arg = words[0].removeprefix("--config=").partition(":")
  config = files.get_config(str(site_pages.ROOT / file), arg)
  for word in words[1:]:
    name, _, given = word.partition("=")
    if name.startswith("--config."):
      path = name.removeprefix("--config.")
      fields.set_all(config, {path: compose.value(given)})
  validation.check(config)
