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
    f"<style>{CSS}</style>",
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


# Style sheet of all pages, light and dark, for phones and wide screens.
#
# Plots are drawn on white; the dark theme inverts their lightness and keeps
# their hues. Right and wrong differ by a mark, by the pattern of the border,
# and by colours that colour-blind readers can distinguish.
CSS = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fff;
  --soft: #595959; --rule: #d9d9d9; --code: #f4f4f2; --card: #fafaf8;
  --link: #005a8d; --right: #0072b2; --wrong: #c44d00; --track: #e6e6e3; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6;
  --paper: #16181b; --soft: #a9adb2; --rule: #3a3e43; --code: #22262b;
  --card: #1d2024; --link: #7cc4f0; --right: #56b4e9; --wrong: #ff9a4d;
  --track: #33383e; }
  img.plot { filter: invert(1) hue-rotate(180deg) contrast(.88)
    brightness(1.12); mix-blend-mode: lighten; } }
* { box-sizing: border-box; }
body { background: var(--paper); color: var(--ink); margin: 0;
  line-height: 1.5; font-family: system-ui, sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.6rem 1.2rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem;
  overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 0 0 .7rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
section { margin-top: 2.4rem; padding-top: 1.2rem;
  border-top: 1px solid var(--rule); }
p, ul, figcaption { max-width: 46rem; }
.lead { font-size: 1.2rem; line-height: 1.45; margin: .2rem 0 1rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; font-size: .95rem; }
a { color: var(--link); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1.2rem .3rem 0; text-align: right;
  border-bottom: 1px solid var(--rule); }
td { white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: .92rem;
  vertical-align: bottom; }
th:first-child { text-align: left; font-weight: 600; }
td:last-child, th:last-child { padding-right: 0; }
figcaption, .note, li { color: var(--soft); font-size: .92rem;
  overflow-wrap: anywhere; }
.best { font-weight: 700; }
.second { text-decoration: underline; text-underline-offset: .2em; }
.pictures { display: grid; gap: 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; max-width: 34rem; }
figure.table { max-width: none; min-width: 0; }
figure.table figcaption { margin-top: .5rem; }
figure.wide { grid-column: 1 / -1; max-width: 56rem; }
img.plot { width: 100%; height: auto; display: block; margin-bottom: .5rem; }
.cards { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule);
  border-top: 4px solid var(--right); border-radius: 6px; padding: .8rem;
  font-size: .9rem; display: flex; flex-direction: column; gap: .6rem; }
.card.wrong { border-top: 4px dashed var(--wrong); }
.media { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; }
.media img { height: 6.5rem; max-width: 100%; border-radius: 3px;
  object-fit: contain; background: #fff; }
.media img.small { image-rendering: pixelated; }
.media q { flex: 1 1 5rem; overflow-wrap: anywhere; font-size: .95rem; }
.card p { margin: 0; }
.said { display: grid; grid-template-columns: auto 1fr; gap: .1rem .7rem;
  margin: 0; line-height: 1.35; }
.said dt { color: var(--soft); }
.said dd { margin: 0; display: flex; justify-content: space-between;
  gap: .5rem; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
.said dd > span:last-child { white-space: nowrap; }
.bar { grid-column: 1 / -1; height: .35rem; background: var(--track);
  border-radius: 2px; margin-bottom: .45rem; overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--right); }
.bar.no span { background: repeating-linear-gradient(135deg, var(--wrong) 0 4px,
  transparent 4px 7px); }
.yes b { color: var(--right); }
.no b { color: var(--wrong); }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden;
  clip-path: inset(50%); white-space: nowrap; }
pre { background: var(--code); padding: .8rem; border-radius: 5px;
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
summary { cursor: pointer; }
@media (max-width: 30rem) { main { padding: 1rem .9rem 3rem; }
  table { font-size: .88rem; } th, td { padding-right: .7rem; } }
@media print { nav, details { display: none; } }
"""
