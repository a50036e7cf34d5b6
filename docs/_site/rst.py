"""Docstrings of the package as Markdown, equations as MathML.

Docstrings are written so that they read well in a terminal: double backticks
for code, ``.. math::`` for equations, RST's simple tables. The site is
Markdown. Equations become MathML here, while the site is built, so that a page
needs no script and no network to show them.
"""

from __future__ import annotations

import re

from latex2mathml.converter import convert

_CODE = re.compile(r"``([^`]+?)``")
_ROLE = re.compile(r":(?:func|class|mod|meth|data):`~?([^`]+)`")
_RULE = re.compile(r"=+( +=+)+ *$")
_DISPLAY = re.compile(r"(?ms)^\$\$\n(.+?)\n\$\$$")
_INLINE = re.compile(r"(?<![\\$\w])\$(?! )([^$]+?)(?<! )\$(?![\w$])")
_LABEL = re.compile(r"( *)(References?|Deviations?(?: \d+)?|Official): *(.*)$")
_ITEM = re.compile(r" *([-*]|\d+\.) ")


def mathml(latex: str, display: bool = True) -> str:
  """An equation as MathML, on one line."""
  # Commands that the converter does not know.
  latex = re.sub(r"\\arg(?![a-z])", r"\\operatorname{arg}", latex)
  latex = latex.replace(r"\langle", "⟨").replace(r"\rangle", "⟩")
  text = convert(" ".join(latex.split()))
  text = re.sub(r"\s+", " ", text).strip()
  if not display:
    return text
  text = re.sub(r'display="\w+"', 'display="block"', text, count=1)
  return f'<div class="equation">{text}</div>'


def in_page(markdown: str) -> str:
  """The equations of a page as MathML.

  ``$$`` on a line of its own begins and ends a displayed equation, ``$...$``
  is one within a line. Blocks of code stay as they are.
  """
  parts = re.split(r"(?ms)(^ *```.*?^ *```$|`[^`\n]+`)", markdown)
  for i in range(0, len(parts), 2):
    text = _DISPLAY.sub(lambda m: f"\n{mathml(m[1])}\n", parts[i])
    parts[i] = _INLINE.sub(lambda m: mathml(m[1], display=False), text)
  return "".join(parts)


def to_markdown(docstring: str) -> str:
  """The text of a docstring, its common indentation already removed."""
  text = docstring.expandtabs()
  # Code that goes on in the next line.
  text = re.sub(r"``[^`]+``", lambda m: re.sub(r"\s*\n\s*", " ", m[0]), text)
  lines = _first_section(text.splitlines())
  found: list[str] = []
  while lines:
    for part in (_equation, _table, _example, _labelled, _literal):
      taken, made = part(lines, found)
      if taken:
        found += made
        lines = lines[taken:]
        break
    else:
      line = lines.pop(0)
      # Markdown wants an empty line before a list.
      if _ITEM.match(line) and found and _begins_list(found[-1], line):
        found.append("")
      found.append(_inline(line))
  return "\n".join(found)


def _first_section(lines: list[str]) -> list[str]:
  """A docstring that begins with ``Args:`` has lost the indentation below."""
  if len(lines) < 2 or not re.fullmatch(r"[A-Z]\w+:", lines[0]):
    return lines
  if any(re.fullmatch(r"[A-Z]\w+:", line) for line in lines[1:]):
    return lines
  return [lines[0], *("  " + line if line else line for line in lines[1:])]


def _begins_list(before: str, line: str) -> bool:
  return bool(before.strip()) and not (
    _ITEM.match(before) or _indent(before) > _indent(line)
  )


def _inline(line: str) -> str:
  line = _ROLE.sub(r"``\1``", line)
  argument = re.match(r" *\*{1,2}\w+: ", line)
  if argument:  # The stars of ``**keys`` belong to the name.
    return argument[0] + _inline(line[argument.end() :])
  parts = re.split(r"(``[^`]+?``|`[^`]+`)", line)
  for i, part in enumerate(parts):
    if i % 2:
      parts[i] = _CODE.sub(r"`\1`", part)
    else:  # An asterisk that is no emphasis, and what looks like a tag.
      part = re.sub(r"(?<![\w*])\*(\w[^*]*\w|\w)\*(?![\w*])", "\1\\1\1", part)
      part = part.replace("*", r"\*") if not _ITEM.match(part) else part
      parts[i] = part.replace("\1", "*").replace("<", "&lt;")
  return "".join(parts)


def _indent(line: str) -> int:
  return len(line) - len(line.lstrip())


def _block(lines: list[str], indent: int) -> int:
  """How many of the lines belong to a block that is indented deeper."""
  end = 0
  for i, line in enumerate(lines):
    if line.strip() and _indent(line) <= indent:
      break
    end = i + 1 if line.strip() else end
  return end


def _equation(lines, before):
  del before
  head = lines[0]
  if not head.lstrip().startswith(".. math::"):
    return 0, []
  end = 1
  while end < len(lines) and lines[end].strip():
    if _indent(lines[end]) <= _indent(head):
      break
    end += 1
  text = " ".join([head.split("math::", 1)[1], *lines[1:end]])
  pad = " " * _indent(head)
  return end, ["", pad + mathml(text), ""]


def _table(lines, before):
  """A simple table of RST, between rules of equals signs."""
  del before
  if not _RULE.match(lines[0].strip()):
    return 0, []
  pad, rule = " " * _indent(lines[0]), lines[0].strip()
  starts = [m.start() for m in re.finditer(r"=+", rule)]
  inner, rules = [], 1
  end = 1
  while end < len(lines) and (lines[end].strip() or rules == 1):
    line = lines[end][len(pad) :]
    end += 1
    if _RULE.match(line.strip()):
      rules += 1
      inner.append(None)
      continue
    inner.append(
      [
        line[a:b].strip()
        for a, b in zip(starts, [*starts[1:], None], strict=True)
      ]
    )
  rows = [row for row in inner if row]
  head = inner.index(None) if None in inner[:-1] else 0
  if not head:
    rows.insert(0, [""] * len(starts))
  made = [_row(row) for row in _joined(rows)]
  made.insert(1, "|" + "---|" * len(starts))
  return end, ["", *(pad + line for line in made), ""]


def _joined(rows: list[list[str]]) -> list[list[str]]:
  """Rows whose first cell is empty go on with the row before."""
  found: list[list[str]] = []
  for row in rows:
    if found and len(found) > 1 and not row[0]:
      found[-1] = [
        f"{a} {b}".strip() for a, b in zip(found[-1], row, strict=True)
      ]
    else:
      found.append(row)
  return found


def _row(cells: list[str]) -> str:
  cells = [_inline(c).replace("|", "\\|") for c in cells]
  return "| " + " | ".join(cells) + " |"


def _example(lines, before):
  """A doctest as a block of code."""
  del before
  if not lines[0].lstrip().startswith(">>> "):
    return 0, []
  end = 0
  while end < len(lines) and lines[end].strip():
    end += 1
  pad = " " * _indent(lines[0])
  return end, ["", f"{pad}```pycon", *lines[:end], f"{pad}```", ""]


def _labelled(lines, before):
  """``Reference: ...`` and the like: a paragraph, and no box of its own."""
  del before
  found = _LABEL.match(lines[0])
  if not found:
    return 0, []
  pad, label, text = found.groups()
  end = 1
  while end < len(lines) and lines[end].strip():
    if _ITEM.match(lines[end]) or _LABEL.match(lines[end]):
      break
    end += 1
  rest = " ".join(x.strip() for x in [text, *lines[1:end]])
  return end, ["", f"{pad}**{label}:** {_inline(rest).strip()}".rstrip(), ""]


def _literal(lines, before):
  """An indented block after a paragraph, as code."""
  head = lines[0]
  if not head.strip() or not before or before[-1].strip():
    return 0, []
  above = next((x for x in reversed(before) if x.strip()), "")
  if _ITEM.match(above) or _indent(head) <= _indent(above):
    return 0, []
  if _ITEM.match(head):
    return 0, []
  end = _block(lines, _indent(above))
  pad = " " * _indent(above)
  own = _indent(head)
  body = [pad + x[own:] if x.strip() else "" for x in lines[:end]]
  return end, [f"{pad}```text", *body, f"{pad}```", ""]
