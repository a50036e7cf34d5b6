"""Building blocks of pages: one HTML5 file that loads nothing else.

Every function here escapes its texts; text that is HTML already is an ``Html``.
Pages follow the reader's light or dark theme and need no script.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from dmg_jax.report.theme import STYLE


class Html(str):
  """Text that is HTML already and must not be escaped again."""


class Section(NamedTuple):
  """A section of a page; it is left out if ``html`` is empty.

  Attributes:
    key: anchor of the section.
    heading: heading, as plain text.
    html: contents.
  """

  key: str
  heading: str
  html: str


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
  """The whole page as HTML5: title, lead, links, and sections."""
  kept = [s for s in sections if s.html]
  links = "\n".join(f'<a href="#{s.key}">{escape(s.heading)}</a>' for s in kept)
  parts = [
    "<!DOCTYPE html>",
    '<html lang="en">',
    "<head>",
    '<meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<meta name="color-scheme" content="light dark">',
    f"<title>{escape(title)}</title>",
    f"<style>{STYLE}</style>",
    "</head>",
    "<body>",
    "<main>",
    f"<h1>{escape(title)}</h1>",
    f'<p class="lead">{shown(lead)}</p>',
    f"<nav>\n{links}\n</nav>",
  ]
  for s in kept:
    parts += [
      f'<section id="{s.key}">',
      f"<h2>{escape(s.heading)}</h2>",
      s.html,
      "</section>",
    ]
  return "\n".join([*parts, "</main>", "</body>", "</html>", ""])


def shown(text: str) -> Html:
  """``text`` escaped, with no line break between a number and its %."""
  if isinstance(text, Html):
    return text
  return Html(escape(text).replace(" %", "&nbsp;%"))


def note(text: str) -> Html:
  """A paragraph in small print."""
  return Html(f'<p class="note">{shown(text)}</p>')


def bullets(texts: Sequence[str]) -> Html:
  """A bullet list; empty for no texts."""
  items = "\n".join(f"<li>{shown(t)}</li>" for t in texts)
  return Html(f"<ul>\n{items}\n</ul>" if texts else "")


def code(text: str) -> Html:
  """Preformatted text in a fixed-width font."""
  return Html(f"<pre>{escape(text)}</pre>")


def fields(summary: str, value: Any) -> Html:
  """A value as JSON in a collapsed block."""
  text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
  return Html(
    f"<details>\n<summary>{escape(summary)}</summary>\n{code(text)}\n</details>"
  )


def table(
  head: Sequence[str], body: Sequence[Sequence[str]], caption: str
) -> Html:
  """A table with right-aligned cells; the first column names the rows."""
  columns = "".join(f'<th scope="col">{shown(c)}</th>' for c in head)
  rows = []
  for name, *cells in body:
    own = "".join(f"<td>{shown(c)}</td>" for c in cells)
    rows.append(f'<tr><th scope="row">{shown(name)}</th>{own}</tr>')
  lines = "\n".join(rows)
  return Html(
    '<figure class="table">\n<div class="scroll">\n<table>\n'
    f"<thead><tr>{columns}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n"
    f"</table>\n</div>\n<figcaption>{shown(caption)}</figcaption>\n</figure>"
  )


def figure(picture: Path, alt: str, caption: str, wide: bool = False) -> Html:
  """An embedded plot with caption; it follows the dark theme."""
  kind = ' class="wide"' if wide else ""
  return Html(
    f'<figure{kind}>\n<img class="plot" alt="{escape(alt)}" '
    f'src="{source(picture.read_bytes())}">\n'
    f"<figcaption>{shown(caption)}</figcaption>\n</figure>"
  )


def source(png: bytes) -> str:
  """A PNG as a data URL."""
  return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def gallery(figures: Sequence[str]) -> Html:
  """Figures in a grid that adapts to the width of the page."""
  inside = "\n".join(figures)
  return Html(f'<div class="pictures">\n{inside}\n</div>' if figures else "")
