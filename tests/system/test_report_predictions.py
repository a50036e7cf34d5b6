"""The report's parts on single predictions: pictures, tables, examples."""

import functools
import json
import re

import numpy as np
import pytest
from matplotlib.image import imread

import fake_runs
from dmg_jax.report import (
  diagrams,
  html,
  predictions,
  reading,
  style,
  write_report,
)
from dmg_jax.tracking.logging import write_json
from pages import Page

ALL = {
  "loss", "alpha", "accuracy", "gap", "reliability", "confusion", "classes",
}  # fmt: skip
EVIL = '<script>alert("& $x_1$")</script>'


def written(folder):
  """The page and the names of its pictures."""
  path = write_report(folder)
  names = {p.stem for p in path.parent.glob("*.png")}
  return Page(path.read_text(encoding="utf-8")), names


def make(folder, modalities=("image", "text"), **options):
  """A finished run with predictions; what they are."""
  fake_runs.run(folder, modalities, epochs=2)
  rng = np.random.default_rng(0)
  return fake_runs.predictions(folder, modalities, rng, **options)


def test_all_parts(tmp_path, unrendered):
  made, labels = make(tmp_path)
  fake_runs.readouts(tmp_path, ("image", "text"))
  page, names = written(tmp_path)
  assert names == ALL
  found = reading.read(tmp_path)
  assert found.runs[0].examples is not None
  samples = len(found.runs[0].examples["index"])
  assert 12 <= samples <= 16 and len(page.images) == len(ALL) + samples
  ece = 100 * diagrams.errors(found)["fused"][0]
  assert f"{ece:.1f}" in page.text and "a text of" in page.text
  assert page.text.count("Label: class") == samples
  marks = page.text.count("✓ right:") + page.text.count("✗ wrong:")
  assert marks == 3 * samples
  counts = diagrams.matrix(found)
  assert counts is not None and counts.sum() == len(labels)
  assert np.trace(counts) == (made["fused"].argmax(-1) == labels).sum()


def test_pictures(tmp_path):
  """Of the right size, neither blank nor full."""
  make(tmp_path)
  found, folder = reading.read(tmp_path), tmp_path / "pictures"
  folder.mkdir()
  kinds = (diagrams.reliability, diagrams.confusion, diagrams.classes)
  drawn = style.save_all(
    {f.__name__: functools.partial(f, found) for f in kinds}, folder
  )
  for path in drawn.values():
    image = imread(path)
    assert image.shape[1] == 990
    assert 0.02 < (image[..., :3].min(axis=-1) < 0.9).mean() < 0.7
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
  assert len(list(folder.iterdir())) == 6


def test_probabilities_are_shown_as_they_are(tmp_path, unrendered):
  made, labels = make(tmp_path)
  page, _ = written(tmp_path)
  text = (tmp_path / "report" / "report.html").read_text()
  wrong = made["fused"].argmax(-1) != labels
  row = int(np.flatnonzero(wrong)[made["fused"][wrong].max(-1).argmax()])
  assert f"a text of {row}" in page.text
  card = text[text.index(f"a text of {row}<") :].partition("</article>")[0]
  widths = re.findall(r"width:([\d.]+)%", card)
  heads = ("image", "text", "fused")
  want = [f"{100 * made[h][row].max():.1f}" for h in heads]
  assert widths == want and card.count("✗") >= 1


def test_old_runs_have_no_such_parts(tmp_path, unrendered):
  fake_runs.run(tmp_path, epochs=2)
  page, names = written(tmp_path)
  assert names == {"loss", "alpha", "accuracy", "gap"}
  assert "No predictions of single test samples" in page.text
  assert page.text.count("No predictions of single") == 1
  assert "--mode=readouts" in page.text and "examples" not in page.ids


def test_seeds_are_put_together(tmp_path, unrendered):
  fake_runs.seeds(tmp_path, 2)
  rng = np.random.default_rng(1)
  for i in range(2):
    folder = tmp_path / f"seed_{i}"
    fake_runs.predictions(folder, ("image", "text"), rng)
    fake_runs.readouts(folder, ("image", "text"), 0.1 * i)
  page, names = written(tmp_path)
  assert names == ALL
  assert "45.0 ± 7.1 / 35.0 ± 7.1" in page.text
  assert "no <feature> is of one modality alone" in page.text
  assert "A & B" in page.text and "chosen by rules (seed 0)" in page.text
  found = reading.read(tmp_path)
  counts = diagrams.matrix(found)
  assert counts is not None and counts.sum() == 460
  errors = 100 * np.array(diagrams.errors(found)["text"])
  shown = f"{errors.mean():.1f} ± {errors.std(ddof=1):.1f}"
  assert shown in page.text


def test_many_classes_are_listed_not_drawn(tmp_path, unrendered):
  make(tmp_path, k=40)
  page, names = written(tmp_path)
  assert names == ALL - {"confusion"} and "true class" in page.text
  made = diagrams.by_class(reading.read(tmp_path))
  assert made is not None and len(made[0]) == 30
  make(tmp_path, k=24)
  assert written(tmp_path)[1] == ALL
  text = (tmp_path / "report" / "report.html").read_text()
  assert text.count('<figure class="wide">') == 1


@pytest.mark.slow
def test_one_and_three_modalities(tmp_path, unrendered):
  make(tmp_path / "one", ("text",))
  page, names = written(tmp_path / "one")
  assert names == ALL - {"classes"} and "Modalities disagree" not in page.text
  make(tmp_path / "three", ("image", "audio", "text"))
  page, names = written(tmp_path / "three")
  assert names == ALL and len(page.images) > 2 * 12


def test_names_are_escaped(tmp_path, unrendered):
  make(tmp_path, (EVIL, "text"), classes=[EVIL, *"bcdefg", "R&D > all"])
  stored = json.loads((tmp_path / "config.json").read_text())
  stored["config"]["recipe"] = EVIL
  write_json(tmp_path / "config.json", stored)
  page, _ = written(tmp_path)
  assert EVIL in page.text and "R&D > all" in page.text


def test_nan_says_nothing(tmp_path, unrendered):
  make(tmp_path)
  path = tmp_path / predictions.FILE
  with np.load(path, allow_pickle=False) as file:
    stored = dict(file)
  stored["probabilities"][:] = np.nan
  np.savez(path, **stored)
  page, _ = written(tmp_path)
  assert "nothing (NaN)" in page.text


def test_the_headline_is_a_claim(tmp_path, unrendered):
  make(tmp_path)
  path = tmp_path / "results.json"
  results = json.loads(path.read_text())
  scores = {"fused": 0.62, "image": 0.39, "text": 0.565}
  path.write_text(json.dumps({**results, "test": fake_runs.metrics(scores)}))
  said = html.headline(reading.read(tmp_path))
  assert said == (
    "Test accuracy: fused 62.0 %, image 39.0 %, text 56.5 %. Gap between the "
    "modalities: 17.5 points. Fusion is 5.5 points better than text "
    "alone."
  )


def test_damaged_files_are_named(tmp_path):
  make(tmp_path)
  for name in ("test_predictions", "test_examples"):
    path = tmp_path / f"{name}.npz"
    before = path.read_bytes()
    path.write_bytes(before[:40])
    with pytest.raises(ValueError, match=rf"{name}\.npz is damaged"):
      write_report(tmp_path)
    path.write_bytes(before)
