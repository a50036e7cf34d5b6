"""The pages: links, words, pictures, equations, and what README leaves out."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

import site_pages
from dmg_jax.config.recipes import RECIPES

sys.path.insert(0, str(site_pages.DOCS / "_site"))

PAGES = [*site_pages.PAGES, *site_pages.OTHERS]
each = pytest.mark.parametrize(
  "page", PAGES, ids=lambda p: p.relative_to(site_pages.ROOT).as_posix()
)
# Phrases that readers could not follow, or that mean something else.
PHRASES = [
  r"\+ [\d.]+/α",
  r"\bthe bits of\b",
  r"\bon these (test )?samples\b",
  r"\bbeyond (these samples|them)\b",
  r"\bis told\b",
  r"\bweights of then\b",
  r"\bsteps leave alone\b",
  r"\bto be had\b",
  r"\b(the|our|these|other) figures? (above|beside|below)\b",
  r"\bfigures of different\b",
]
# In prose alone: in code they may be names.
WORDS = [r"\btells\b", r"\bfor its sake\b", r"\bpaper's figure beside\b"]


def test_readme_is_short():
  lines = (site_pages.ROOT / "README.md").read_text("utf-8").splitlines()
  assert len(lines) <= 150


@each
def test_links_lead_somewhere(page):
  for link in site_pages.links(page):
    if "://" in link:
      pytest.fail(f"{link}: a page of another site can go")
    file, _, anchor = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    assert target.exists(), link
    if anchor:
      known = site_pages.anchors(target)
      known |= set(RECIPES) if target.name == "methods.md" else set()
      assert anchor in known, link


def test_every_page_of_the_site_is_in_its_navigation():
  text = (site_pages.ROOT / "mkdocs.yml").read_text("utf-8")
  listed = set(re.findall(r": ([\w/]+\.md)$", text, re.M))
  there = {
    p.relative_to(site_pages.DOCS).as_posix()
    for p in site_pages.DOCS.rglob("*.md")
  }
  assert listed == there


@each
def test_no_phrase_that_readers_could_not_follow(page):
  text = site_pages.prose(page)
  for phrase in [*PHRASES, *WORDS]:
    assert not re.search(phrase, " ".join(text.split())), phrase


def _strings(path):
  """Docstrings and messages of a file, blanks joined."""
  for node in ast.walk(ast.parse(path.read_text("utf-8"))):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield " ".join(node.value.split())


@pytest.mark.parametrize("folder", ["dmg_jax", "data_pipelines", "configs"])
def test_nor_in_the_package(folder):
  found = [
    f"{path.relative_to(site_pages.ROOT)}: {phrase}"
    for path in sorted((site_pages.ROOT / folder).rglob("*.py"))
    for text in _strings(path)
    for phrase in PHRASES
    if re.search(phrase, text)
  ]
  assert not found


def test_nor_in_notebooks():
  for path in sorted((site_pages.ROOT / "notebooks").glob("*.ipynb")):
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
      text = " ".join("".join(cell["source"]).split())
      for phrase in PHRASES:
        assert not re.search(phrase, text), (path.name, cell["id"], phrase)


def test_results_name_their_read_out_of_every_table():
  for page in sorted((site_pages.DOCS / "results").glob("*.md")):
    if page.name not in ("index.md", "lb_defaults.md"):
      text = page.read_text("utf-8")
      assert text.count("| read-out |") >= 1 and "## " in text + "## "
      assert "index.md#conditions" in text and "python" in text, page.name


# --- what the site makes -----------------------------------------------------


def test_pictures_are_small_and_all_are_used():
  import pictures

  there = {p.stem for p in (site_pages.DOCS / "pictures").iterdir()}
  assert there == set(pictures.PICTURES)
  text = "".join(p.read_text("utf-8") for p in site_pages.PAGES)
  for path in (site_pages.DOCS / "pictures").iterdir():
    assert path.stat().st_size < 60_000, path.name
    assert f"pictures/{path.name})" in text, path.name


@pytest.mark.filterwarnings("ignore")
def test_pictures_are_drawn(tmp_path):
  import pictures

  files = pictures.draw(tmp_path)
  assert len(files) == len(pictures.PICTURES)
  assert all("<svg" in f.read_text("utf-8") for f in files)


def test_pictures_show_the_numbers_of_the_page():
  import pictures

  assert pictures.accuracies("Ours-LB")["image"] == 50.3
  assert pictures.accuracies("Image alone") == {
    "accuracy": 52.6, "macro-F1": 37.5, "image": 52.6
  }  # fmt: skip


DOCSTRING = """\
One line with ``code`` and *emphasis*, θ* and a <tag>.

.. math:: a_m = \\frac{1}{2}
  + b

=====  =========
``b``  samples
``d``  features
       of one
=====  =========

Deviations:
1. First.
2. Second.

>>> 1 + 1
2
"""


def test_docstrings_become_markdown():
  import rst

  text = rst.to_markdown(DOCSTRING)
  assert "`code` and *emphasis*, θ\\* and a &lt;tag>" in text
  assert text.count("<math") == 1 and "mfrac" in text and ".. math" not in text
  assert "| `b` | samples |" in text and "| `d` | features of one |" in text
  assert "**Deviations:**\n\n1. First.\n2. Second." in text
  assert "```pycon\n>>> 1 + 1\n2\n```" in text


def test_equations_of_a_page():
  import rst

  text = "so $a_m$ is\n\n$$\nb^2\n$$\n\n```text\n$x $y\n```\n`$z`, 3 $"
  made = rst.in_page(text)
  assert made.count("<math") == 2 and made.count('class="equation"') == 1
  assert "$x $y" in made and "`$z`, 3 $" in made


def test_every_recipe_has_a_section():
  import methods_page
  from benchmarks import methods

  text = methods_page.sections()
  for row in methods.rows():
    assert f"\n### {row.names[0]} {{#" in f"\n{text}", row.names[0]
  parts = text.split("\n### ")
  assert all("<math" in part for part in parts)
  assert ".. math" not in text and "``" not in text.replace("```", "")


def test_names_no_place_of_this_machine():
  for page in PAGES:
    text = page.read_text("utf-8")
    assert not re.search(r"(?<![\w./])/(home|root|work|tmp)/", text), page
  assert Path(site_pages.DOCS / "CITATION.cff").is_file()


def test_options_have_their_meaning():
  import methods_page
  from benchmarks import methods

  counts = {}
  for row in methods.rows():
    table = methods_page._options(row, methods_page._source(row))
    lines = table.splitlines()[2:]
    counts[row.names[0]] = len(lines)
    for line in lines:
      name, default, meaning = (c.strip() for c in line.split(" | "))
      assert name.startswith("| `") and default.startswith("`")
      assert len(meaning) > 5, (row.names[0], name)
  assert counts["lb"] >= 10 and counts["lb_forward"] >= 10
