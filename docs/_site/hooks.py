"""What MkDocs calls while it builds the site: equations, methods, code blocks.

``mkdocs.yml`` names this file under ``hooks``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent.parent)]

import methods_page
import rst


def on_page_markdown(markdown, page, config, files):
  """Fills in what is made at build time."""
  del config, files
  if page.file.src_uri == "methods.md":
    markdown = markdown.replace(methods_page.MARK, methods_page.sections())
  # ``title="run"`` is for the test that runs the blocks.
  markdown = re.sub(r'(?m)^(```\w+) title="run"$', r"\1", markdown)
  return rst.in_page(markdown)
