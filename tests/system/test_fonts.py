"""Names in scripts that the first font of pictures does not have."""

import warnings

import pytest

from dmg_jax.report import fonts
from dmg_jax.report.curves import new_figure
from dmg_jax.report.style import save_all

IN_STIX = "\u1d81"  # Matplotlib brings STIX; DejaVu Sans lacks this one.


def makers(text):
  def draw():
    figure = new_figure(1)
    figure.suptitle(text)
    return figure

  return {"a": draw, "b": draw}


def test_missing_characters_are_told_together(tmp_path):
  with pytest.warns(UserWarning) as caught:
    save_all(makers(f"é \u65e5\u672c {IN_STIX}"), tmp_path)
  assert len(caught) == 1
  said = str(caught[0].message)
  assert f" has \u65e5\u672c{IN_STIX}: drawn as boxes" in said
  assert "--mode=report" in said
  assert sorted(p.name for p in tmp_path.iterdir()) == [
    "a.pdf",
    "a.png",
    "b.pdf",
    "b.png",
  ]


def test_an_installed_font_fills_in(tmp_path, monkeypatch):
  monkeypatch.setattr(fonts, "OTHERS", ("Not Installed", "STIXGeneral"))
  assert fonts.families() == [fonts.FIRST, "STIXGeneral"]
  save_all(makers(f"é {IN_STIX}"), tmp_path)  # Warnings are errors here.


def test_other_warnings_stay():
  with (
    pytest.warns(UserWarning, match="another"),
    fonts.one_warning(),
  ):
    warnings.warn("another", stacklevel=1)
