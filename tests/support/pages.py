"""A strict reader of the pages that reports and tables write."""

import re
from html.parser import HTMLParser

from matplotlib.figure import Figure

VOID = {"meta", "img"}
# What may not be inside a paragraph or a phrase.
BLOCK = {
  "p", "table", "figure", "section", "ul", "pre", "div", "dl", "h1", "h2", "h3",
  "article", "nav", "details",
}  # fmt: skip
PHRASES = {"p", "h1", "h2", "h3", "span", "strong", "b", "q", "a", "summary"}


def without_pictures(patch):
  """Pictures are drawn up but not rendered, while ``patch`` lasts."""

  def savefig(figure, file, **options):
    del figure, options
    file.write(b"picture")

  patch.setattr(Figure, "savefig", savefig)


class Page(HTMLParser):
  """Balanced tags in their places; ``images``, ``links`` and visible ``text``.

  Anything that is loaded from elsewhere, or that runs, is an error.
  """

  def __init__(self, text):
    super().__init__(convert_charrefs=True)
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    assert not re.search(
      r"https?://|//cdn|<script|@import|url\(|\son\w+=", text
    )
    self.open, self.ids, self.images, self.links = [], [], [], []
    self.tags, self.parts, self.titles = [], [], []
    self.feed(text)
    self.close()
    assert not self.open
    assert len(self.ids) == len(set(self.ids))
    assert all(x.startswith("data:image/png;base64,") for x in self.images)
    anchors = [x[1:] for x in self.links if x.startswith("#")]
    assert set(anchors) <= set(self.ids)
    assert self.tags.count("h1") == self.tags.count("main") == 1

  @property
  def text(self):
    """What is read, with plain spaces."""
    return " ".join(" ".join(self.parts).split())

  def handle_starttag(self, tag, attrs):
    found = dict(attrs)
    assert len(found) == len(attrs), f"<{tag}> has an attribute twice"
    if tag in BLOCK:
      assert not PHRASES & set(self.open), (tag, self.open)
    self.tags.append(tag)
    self.ids += [found["id"]] if "id" in found else []
    if tag == "img":
      assert found.get("alt")
      self.images.append(found["src"])
    if tag == "a":
      self.links.append(found["href"])
    assert tag not in ("link", "iframe", "object", "base", "form")
    if tag not in VOID:
      self.open.append(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if "style" not in self.open:
      self.parts.append(data)
