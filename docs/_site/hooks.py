"""What MkDocs calls while it builds the site: equations, methods, code blocks.

``mkdocs.yml`` names this file under ``hooks``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent.parent)]

import dmg_jax
import dmg_jax.types
import methods_page
import rst

_NAMES = "<!-- api: names -->"  # In reference/api.md.
# Those that most people look for, first; others follow.
_FIRST = ("fit", "load", "Run", "MultimodalClassifier", "recipes", "bind")


def on_page_markdown(markdown, page, config, files):
  """Fills in what is made at build time."""
  del config, files
  markdown = markdown.replace(_NAMES, _public_names())
  if page.file.src_uri == "methods.md":
    markdown = markdown.replace(methods_page.MARK, methods_page.sections())
  # ``title="run"`` is for the test that runs the blocks.
  markdown = re.sub(r'(?m)^(```\w+) title="run"$', r"\1", markdown)
  return rst.in_page(markdown)


def _public_names() -> str:
  """An entry for each public name that has no page of its own."""
  elsewhere = {"bilevel"}
  elsewhere |= {n for n in dmg_jax.__all__ if hasattr(dmg_jax.types, n)}
  names = [n for n in dmg_jax.__all__ if n not in elsewhere]
  names.sort(key=lambda n: (_FIRST.index(n) if n in _FIRST else len(_FIRST), n))
  entry = "::: dmg_jax.{}\n    options: {{heading_level: 2}}"
  return "\n\n".join(entry.format(n) for n in names)
