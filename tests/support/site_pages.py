"""Reads the pages of the site: their blocks of code, links and anchors."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
OTHERS = [ROOT / "benchmarks" / "README.md"]

_FENCE = re.compile(r'( *)```(\w*)(?: title="([\w ]*)")?\s*$')


class Block(NamedTuple):
  """A fenced block: where it begins, its language, its title, its text."""

  line: int
  language: str
  title: str
  text: str


def blocks(page):
  """All fenced blocks of a page, in order."""
  found, lines = [], page.read_text("utf-8").splitlines()
  number = 0
  while number < len(lines):
    fence = _FENCE.match(lines[number])
    number += 1
    if not fence:
      continue
    indent, language, title = fence.groups()
    start = number
    while lines[number].strip() != "```":
      number += 1
    text = "\n".join(x.removeprefix(indent) for x in lines[start:number])
    found.append(Block(start, language, title or "", text))
    number += 1
  return found


def runnable(page):
  """The blocks that say they can be run."""
  return [
    b
    for b in blocks(page)
    if b.language == "python" or b.title.split()[:1] == ["run"]
  ]


def prose(page):
  """A page's text without its blocks and its code in a line."""
  text = re.sub(r"(?ms)^ *```.*?^ *```$", "", page.read_text("utf-8"))
  return re.sub(r"`[^`\n]+`", "", text)


def links(page):
  """Targets of a page's links and pictures."""
  return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page):
  """What a link to a place of the page can name."""
  found = set()
  for line in prose(page).splitlines():
    head = re.match(r"#+ (.*?)(?: *\{ *#([\w-]+) *\})?$", line)
    if head:
      slug = re.sub(r"[^\w\s-]", "", head[1].lower(), flags=re.ASCII)
      found |= {re.sub(r"[\s-]+", "-", slug.strip()), head[2]}
  return found
