"""One section a recipe: equation, options, source, numbered deviations.

Everything is read from the code: the docstring of the method's module, or of
the fusion's where the recipe is joint training on a fusion, and the signature
and docstring of its ``make``.
"""

from __future__ import annotations

import functools

import griffe

import rst
from benchmarks import methods

MARK = "<!-- methods: sections -->"


def sections() -> str:
  """Markdown of all recipes, in the order of the table."""
  return "\n\n".join(_section(row) for row in methods.rows())


def _section(row: methods.Row) -> str:
  source = _source(row)
  text = rst.to_markdown(source.docstring.value if source.docstring else "")
  title, _, body = text.partition("\n")
  parts = [
    f"### {row.names[0]} {{#{row.names[0]}}}",
    f"**{title.strip()}**",
    _facts(row, source),
    _nested(body.strip()),
    _options(row, source),
  ]
  return "\n\n".join(p for p in parts if p)


@functools.cache
def _package() -> griffe.Module:
  return griffe.load("dmg_jax", search_paths=[str(methods.ROOT)])


def _source(row: methods.Row) -> griffe.Module:
  if methods.by_fusion(row):
    return _package()["model.fusion"][row.fusion]
  return _package()["methods"][row.method]


def _facts(row: methods.Row, source: griffe.Module) -> str:
  path = source.path.replace(".", "/") + ".py"
  facts = [
    f"Category: {row.card[0]}. Modalities: {row.card[3]}.",
    f"Fusion `{row.fusion}`, read-out {row.readout}.",
    f"Source: {row.card[2]}. Defaults: {row.defaults}.",
    f"Code: `{path}`.",
  ]
  if len(row.names) > 1:
    others = ", ".join(f"`{n}`" for n in row.names[1:])
    facts.insert(0, f"The same as {others}.")
  return " ".join(facts)


def _nested(body: str) -> str:
  """Headings inside a docstring are words, not headings of the page."""
  lines = body.splitlines()
  return "\n".join(f"\\{x}" if x.startswith("#") else x for x in lines)


def _options(row: methods.Row, source: griffe.Module) -> str:
  make = source.members.get("make")
  if not isinstance(make, griffe.Function):
    return ""
  set_here = methods.set_options(row)
  meanings = _meanings(make)
  lines = []
  for parameter in make.parameters:
    name = parameter.name
    default = str(parameter.default)
    own = f"`{set_here[name]!r}`" if name in set_here else f"`{default}`"
    meaning = meanings.get(name, "").replace("|", "\\|")
    lines.append(f"| `{name}` | {own} | {meaning} |")
  if not lines:
    return ""
  return "\n".join(["| option | default | meaning |", "|---|---|---|", *lines])


def _meanings(make: griffe.Function) -> dict[str, str]:
  if make.docstring is None:
    return {}
  make.docstring.value = rst.to_markdown(make.docstring.value)
  for section in make.docstring.parse("google", warnings=False):
    if section.kind is griffe.DocstringSectionKind.parameters:
      return {
        name: " ".join(x.description.split())
        for x in section.value
        for name in x.name.split(", ")
      }
  return {}
