"""Rows of a table over missing rates: each one at every rate.

The rate r is divided evenly: of k modalities to hide, each is hidden in r / k
of the samples of every split, as Lee et al., "Multimodal Prompting with Missing
Modalities for Visual Recognition", CVPR 2023, do. With one, or with both of
two, the share r of the samples lacks a modality; with more it is less, as some
samples lack several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dmg_jax.config.rows.tables import RowSpec
from dmg_jax.errors import InputError, unknown

KEYS = ("rates", "hidden")
RATES = "0+0.3+0.7"
_TAKEN = ("drop", "modality_dropout")


def take(given: dict[str, str]) -> dict[str, str]:
  """Removes the table's own keys, ``KEYS``, and returns them.

  Raises:
    ValueError: a key is given that the rows set.
  """
  for key in _TAKEN:
    if key in given:
      raise InputError(
        f"{key} differs from row to row of the table 'missing' and cannot be "
        "given: choose rates=... and hidden=..."
      )
  return {k: given.pop(k) for k in KEYS if k in given}


def at_rates(
  rows: Mapping[str, RowSpec], own: Mapping[str, str], modalities: Sequence[str]
) -> dict[str, RowSpec]:
  """{row_percent: row at that rate}, rate by rate.

  Args:
    rows: {name: row without a rate}.
    own: what ``take`` returns.
    modalities: those of the data set; empty if it does not tell them.

  Raises:
    ValueError: a rate or modality is none, or ``hidden`` is needed and not
      given.
  """
  percents = _percents(own.get("rates", RATES))
  hidden = _hidden(own.get("hidden", ""), modalities)
  found = {}
  for percent in percents:
    drop = "+".join(f"{m}:{percent / 100 / len(hidden):.6g}" for m in hidden)
    for name, row in rows.items():
      recipe = f"{row.recipe},drop={drop}" if percent else row.recipe
      label = f"{row.label} at {percent} %"
      found[f"{name}_{percent}"] = RowSpec(label, recipe, f"{percent} %", name)
  return found


def _percents(text: str) -> list[int]:
  found = []
  for word in text.split("+"):
    try:
      percent = 100 * float(word)
    except ValueError:
      percent = -1.0
    if not 0 <= percent < 100 or abs(percent - round(percent)) > 1e-6:
      raise InputError(
        f"rates are shares in [0, 1) of at most two decimals, joined by +, as "
        f"{RATES}: got {word!r}"
      )
    found.append(round(percent))
  if len({*found}) < len(found):
    raise InputError(f"rates={text} has a rate twice")
  return found


def _hidden(text: str, modalities: Sequence[str]) -> list[str]:
  names = text.split("+") if text else list(modalities)
  if not names:
    raise InputError(
      "the config does not know the modalities of a manifest: name those to "
      "hide, as hidden=image+text"
    )
  for name in names:
    if modalities and name not in modalities:
      raise unknown("modality to hide", name, modalities)
  if len({*names}) < len(names):
    raise InputError(f"hidden={text} names a modality twice")
  return names
