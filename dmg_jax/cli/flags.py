"""Parses the command line; every mistake is reported in one line."""

from __future__ import annotations

import re
from pathlib import Path

from absl import flags

from dmg_jax.config import fields, files
from dmg_jax.config.compose import ENCODER, SHORT, Config
from dmg_jax.config.recipes import RECIPES
from dmg_jax.config.rows.figures import FIGURES
from dmg_jax.config.rows.tables import TABLES
from dmg_jax.errors import InputError, close_to, nearest

FLAGS = [
  "compilation_cache",
  "config",
  "coordinator_address",
  "distributed",
  "mode",
  "process_count",
  "process_index",
  "quiet",
  "traceback",
  "workdir",
]
_OVERRIDE = re.compile(r"^--?(?:no)?config\.([^=]+)")


class UsageError(Exception):
  """An invalid command line; the text names the mistake and the fix."""


class Help(Exception):  # noqa: N818
  """``--help`` was given; the text is the help."""


class ConfigFile(flags.ArgumentParser):
  """Reads ``--config``: the file is executed once a command, by ``load``."""

  def __init__(self):
    self._loaded: tuple[str, Config] | None = None

  def load(self, given: str) -> Config:
    """The config of ``FILE.py:ARGUMENT``, kept for ``parse``.

    Raises:
      ValueError: as ``files.get_config``, or what the file itself raises.
    """
    file, _, arg = given.partition(":")
    config = files.get_config(file, arg or None)
    self._loaded = given, config
    return config

  def parse(self, argument: str) -> Config:
    """What ``load`` loaded, locked: a field that it lacks cannot be set."""
    if self._loaded is None or self._loaded[0] != argument:
      self.load(argument)
    assert self._loaded is not None
    (_, config), self._loaded = self._loaded, None
    config.lock()
    return config

  def flag_type(self) -> str:
    """For the help."""
    return "config object"


config_file = ConfigFile()  # The parser of the flag.


def parse(argv: list[str]) -> list[str]:
  """Parses ``argv`` into ``flags.FLAGS`` and returns the remaining arguments.

  Raises:
    Help: ``--help`` was given.
    UsageError: a flag, mode, config file, recipe, key or field is unknown, or a
      value has the wrong type.
  """
  if any(word in ("--help", "-help", "-h") for word in argv[1:]):
    raise Help(_help())
  given = _config_argument(argv)
  if given is None:
    raise UsageError(
      "--config=FILE.py:RECIPE is missing, as in "
      "--config=configs/openmoji.py:lb"
    )
  _check_fields(argv, _load(given))
  try:
    left = flags.FLAGS(argv)
  except flags.UnrecognizedFlagError as error:
    name = error.flagname
    raise UsageError(f"unknown flag --{name}{nearest(name, FLAGS)}") from error
  except (flags.Error, TypeError, ValueError) as error:
    raise UsageError(_first_line(error) + _near_choice(error)) from error
  if len(left) > 1:
    raise UsageError(
      f"unexpected argument {left[1]!r}: every option is --name=value"
    )
  return left


def _config_argument(argv: list[str]) -> str | None:
  """The value of ``--config``; the last one counts, as in absl."""
  found = None
  for i, word in enumerate(argv):
    if word.startswith(("--config=", "-config=")):
      found = word.partition("=")[2]
    elif word in ("--config", "-config") and i + 1 < len(argv):
      found = argv[i + 1]
  return found


def _load(given: str) -> Config:
  """The config, loaded ahead of the flag so that its errors are readable."""
  try:
    return config_file.load(given)
  except (ValueError, TypeError, KeyError) as error:
    raise UsageError(_first_line(error)) from error


def _check_fields(argv: list[str], config: Config) -> None:
  for word in argv[1:]:
    if match := _OVERRIDE.match(word):
      try:
        fields.check(config, match[1], word.partition("=")[2])
      except InputError as error:
        raise UsageError(str(error)) from error


def _near_choice(error: Exception) -> str:
  """The closest choice of an enum flag, which absl does not suggest."""
  match = re.search(r"=(\S+): value should be one of <(.+)>", str(error))
  if not match:
    return ""
  return close_to(match[1], match[2].split("|"))


def _help() -> str:
  from dmg_jax.cli import main as entrance

  recipes = "\n".join(
    f"  {name:<14}{r.fusion} + {r.method}; {r.source}"
    for name, r in sorted(RECIPES.items())
  )
  tables = "\n".join(f"  {name:<14}{t.title}" for name, t in TABLES.items())
  figures = "\n".join(f"  {name:<14}{f.title}" for name, f in FIGURES.items())
  configs = [p.as_posix() for p in files.config_files(Path("configs"))]
  return (
    f"{entrance.__doc__}\nFlags:\n{flags.FLAGS.module_help(entrance)}\n"
    f"Configs: {', '.join(configs)}\n\nRecipes:\n{recipes}\n\n"
    f"Keys after a recipe: the options of its method, {', '.join(SHORT)}; "
    "quick=true, where a config has a small setting for laptops; "
    f"{ENCODER}image=resnet.ResNet, an encoder for a modality or a kind.\n\n"
    f"Tables (configs/tables.py:TABLE,dataset=NAME,seeds=N):\n{tables}\n\n"
    "Keys after a table: dataset, rows=A+B, trials, and those of a recipe.\n\n"
    f"Figures (configs/figures.py:FIGURE,dataset=NAME,seeds=N):\n{figures}\n\n"
    "Keys after a figure: dataset, rows=A+B (figure1: weights=A+B; figure3: "
    "datasets=A+B), and those of a recipe.\n"
  )


def _first_line(error: Exception) -> str:
  """The message without the traceback that the config flag wraps it in."""
  text = str(error).split("Traceback")[0]
  return " ".join(text.split()) or type(error).__name__
