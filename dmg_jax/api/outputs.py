"""What a function of the user's gives of a model, checked and in one form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from dmg_jax.errors import InputError, UnsuitableError, unknown
from dmg_jax.model import own
from dmg_jax.types import Fused, Outputs

_FIELDS = ("logits", "unimodal", "features", "extra")


class LackingError(UnsuitableError):
  """A method needs something that the bound model does not have.

  Attributes:
    what: the thing, and how to provide it.
  """

  def __init__(self, what: str):
    super().__init__(f"this model lacks {what}")
    self.what = what


class Missing(dict):
  """In place of outputs that a model does not return: using it is an error."""

  def __init__(self, what: str):
    super().__init__()
    self.what = what

  def _refuse(self, *_: Any) -> Any:
    raise LackingError(self.what)

  __getitem__ = __iter__ = __contains__ = _refuse
  __or__ = __ror__ = keys = values = items = get = _refuse


jax.tree_util.register_pytree_node(
  Missing, lambda x: ((), x.what), lambda what, _: Missing(what)
)

_LACKS = {
  "unimodal": "unimodal logits: return 'unimodal', {modality: [b k]}",
  "features": "features: return 'features', {modality: [b d]}",
}


def outputs_of(found: Any, names: tuple[str, ...]) -> Outputs:
  """What a function returned, with modalities in their order.

  Args:
    found: ``Outputs``, ``Fused`` or a dictionary with their fields. Unimodal
      logits and features that are not there become ``Missing``.
    names: of the modalities.

  Raises:
    InputError: it is something else, or has other fields or modalities.
  """
  if isinstance(found, Outputs):
    found = {f: getattr(found, f) for f in _FIELDS}
  elif isinstance(found, Fused):
    found = found._asdict()
  if not isinstance(found, Mapping) or "logits" not in found:
    raise InputError(
      "apply must return a dictionary with 'logits' [b k], or Outputs; got "
      + (_listed(found) if isinstance(found, Mapping) else own.shape_of(found))
    )
  for key in found:
    if key not in _FIELDS:
      raise unknown("output", key, _FIELDS)
  made: dict[str, Any] = {"logits": found["logits"]}
  for field, what in _LACKS.items():
    given = found.get(field)
    if isinstance(given, Missing) or not given:
      made[field] = Missing(what)
      continue
    for m in given:
      if m not in names:
        raise unknown(f"modality in {field!r}", m, names)
    if set(given) != set(names):
      raise InputError(
        f"{field!r} lacks {_listed(set(names) - set(given))}: give all of the "
        f"modalities {_listed(names)}"
      )
    made[field] = {m: given[m] for m in names}
  return Outputs(**made, extra=dict(found.get("extra") or {}))


def check_outputs(outputs: Outputs, names: tuple[str, ...], count: int) -> None:
  """Raises ``InputError`` unless they are [b k] and [b d] of floats.

  Args:
    outputs: of ``count`` samples.
    names: of the modalities.
    count: b.
  """
  found: dict[str, tuple[Any, Any]] = {"logits": (outputs.logits, None)}
  classes = getattr(outputs.logits, "shape", (0,))[-1:]
  if not isinstance(outputs.unimodal, Missing):
    for m in names:
      found[f"unimodal[{m!r}]"] = (outputs.unimodal[m], classes)
  if not isinstance(outputs.features, Missing):
    for m in names:
      found[f"features[{m!r}]"] = (outputs.features[m], None)
  for name, (x, last) in found.items():
    wanted = "[b d]" if name.startswith("features") else "[b k]"
    if not own.is_rows(x, count) or (last is not None and x.shape[1:] != last):
      raise InputError(
        f"{name} must be floats {wanted}, a row for each of the {count} "
        f"samples; got {own.shape_of(x)}"
        + (f" beside logits {own.shape_of(outputs.logits)}" if last else "")
      )


def _listed(names: Any) -> str:
  return ", ".join(sorted(map(str, names))) or "nothing"
