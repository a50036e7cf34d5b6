"""Extension of griffe: mkdocstrings reads every docstring as Markdown."""

from __future__ import annotations

import sys
from pathlib import Path

import griffe

sys.path.insert(0, str(Path(__file__).parent))

import rst


class Docstrings(griffe.Extension):
  """Rewrites the docstring of each object once it is loaded."""

  def on_object(self, *, obj, **kwargs) -> None:
    """Called for modules, classes, functions, attributes."""
    del kwargs
    if obj.docstring is not None:
      obj.docstring.value = rst.to_markdown(obj.docstring.value)
