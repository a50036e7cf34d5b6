"""The report from files alone: finished, unfinished, and odd runs."""

import itertools
import json
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from dmg_jax.report import figures, html, reading, write_report
from dmg_jax.report.curves import _spread, look
from dmg_jax.report.features import load_features
from dmg_jax.tracking.logging import MetricsFile, write_json
from fake_runs import STEPS, config, features, run, seeds
from pages import Page

PICTURES = {"loss", "alpha", "accuracy", "gap"}


def check(workdir, expected):
  """Writes the report and checks the page; returns it."""
  path = write_report(workdir)
  text = path.read_text(encoding="utf-8")
  assert path == workdir / "report" / "report.html"
  assert len(Page(text).images) == len(expected)
  assert {p.stem for p in path.parent.glob("*.png")} == expected
  assert {p.stem for p in path.parent.glob("*.pdf")} == expected
  return text.replace("&nbsp;", " ")


def check_pictures(workdir):
  """Of the right size, neither blank nor full."""
  for png in (workdir / "report").glob("*.png"):
    image = imread(png)
    assert image.shape[1] == 990  # 3.3 in at 300 dpi.
    assert 0.01 < (image[..., :3].min(axis=-1) < 0.9).mean() < 0.6
    pdf = png.with_suffix(".pdf").read_bytes()
    assert pdf.startswith(b"%PDF") and len(pdf) > 2000


def test_complete(tmp_path):
  results = run(tmp_path)
  text = check(tmp_path, PICTURES)
  for m in ("fused", "image", "text"):
    shown = f"{100 * results['test'][m]['accuracy']:.1f}"
    assert f"{m} {shown} %" in text and f"<td>{shown}</td>" in text
  assert "R1 split head" in text and "0123abc" in text
  assert "python launch.py --config=configs/openmoji.py:lb" in text
  assert "±" not in text and "nfinished" not in text
  check_pictures(tmp_path)
  files = sorted((tmp_path / "report").iterdir())
  before = [p.read_bytes() for p in files]
  write_report(tmp_path)
  assert [p.read_bytes() for p in files] == before


def test_a_loss_of_many_scales_has_plain_numbers(tmp_path):
  """Text is never taken for formulas, those of matplotlib included."""
  config(tmp_path, ["image", "text"])
  file = MetricsFile(tmp_path)
  for epoch in range(1, 5):
    place = {"step": epoch, "epoch": epoch}
    file.write({**place, "split": "train", "loss": 10.0 ** (1 - epoch)})
    file.write({**place, "split": "val", "fused/loss": 1.0})
  file.close()
  with look():
    figure = figures.loss(reading.read(tmp_path))
    figure.draw_without_rendering()
  axes = figure.axes[0]
  shown = [t.get_text() for t in axes.get_yticklabels() if t.get_text()]
  assert axes.get_yscale() == "log" and shown
  assert all(float(text) > 0 for text in shown)


def test_unfinished(tmp_path, unrendered):
  run(tmp_path, epochs=4, done=False)
  text = check(tmp_path, PICTURES - {"gap"})
  assert "unfinished: 4 of 30 epochs" in text
  assert "No test results" in text and "<table>" not in text


def test_nothing_logged_and_torn_line(tmp_path, unrendered):
  config(tmp_path, ("image", "text"))
  assert "unfinished: 0 of 30" in check(tmp_path, set())
  (tmp_path / "metrics.jsonl").write_text('{"step": 3, "epo')
  assert "unfinished: 0 of 30" in check(tmp_path, set())


def test_one_epoch_and_old_pictures_go(tmp_path, unrendered):
  run(tmp_path, epochs=1)
  check(tmp_path, PICTURES)
  (tmp_path / "test_features.npz").unlink()
  check(tmp_path, PICTURES - {"gap"})


def test_no_alpha(tmp_path, unrendered):
  run(tmp_path, alpha=False)
  text = check(tmp_path, PICTURES - {"alpha"})
  assert "this method has none" in text


def test_one_modality(tmp_path, unrendered):
  run(tmp_path, ("text",), alpha=False)
  text = check(tmp_path, PICTURES - {"alpha"})
  assert "Gap between" not in text and ">gap<" not in text


def test_three_modalities(tmp_path, unrendered):
  run(tmp_path, ("image", "text", "audio"))
  text = check(tmp_path, PICTURES)
  for pair in ("image–text", "image–audio", "text–audio"):
    assert pair in text


def test_own_data_have_encoders_by_kind(tmp_path, unrendered):
  """Modalities are shown by their names; the command names the table."""
  run(tmp_path, ("photo", "caption", "speech"), epochs=2, done=False)
  kinds = ("image", "text", "audio", "video", "array")
  data = {"name": "manifest", "manifest": "my data/pairs.csv"}
  config(tmp_path, kinds, data=data)
  text = check(tmp_path, PICTURES - {"gap"}).partition("<h2>Configuration")[0]
  assert "photo" in text and "speech" in text
  assert "audio" not in text and "video" not in text
  command = html.command(reading.read(tmp_path))
  assert command == (
    "python launch.py --config=configs/manifest.py:lb "
    "'--config.data.manifest=my data/pairs.csv'"
  )


def test_several_seeds(tmp_path):
  runs = seeds(tmp_path)
  text = check(tmp_path, PICTURES)
  own = [100 * r["test"]["fused"]["accuracy"] for r in runs]
  shown = f"{np.mean(own):.1f} ± {np.std(own, ddof=1):.1f}"
  assert f"<td>{shown}</td>" in text and f"3 seeds: fused {shown} %" in text
  check_pictures(tmp_path)


def test_seeds_unfinished(tmp_path, unrendered):
  seeds(tmp_path)
  (tmp_path / "results.json").unlink()
  (tmp_path / "seed_2" / "results.json").unlink()
  text = check(tmp_path, PICTURES)
  assert "Unfinished: 2 of the seeds" in text


def test_everything_is_escaped(tmp_path, unrendered):
  evil = "<script>alert('$x_1$ & \"y\"')"
  run(tmp_path, (evil, "text"))
  stored = json.loads((tmp_path / "config.json").read_text())
  stored["git"] = evil
  stored["versions"][evil] = evil
  stored["config"] |= {"recipe": evil, "variant": evil, evil: evil}
  write_json(tmp_path / "config.json", stored)
  check(tmp_path, PICTURES)


def test_nan_is_drawn_around(tmp_path, unrendered):
  run(tmp_path)
  file = MetricsFile(tmp_path)
  place = {"step": 31 * STEPS, "epoch": 31}
  file.write({**place, "split": "train", "loss": float("nan")})
  file.write({**place, "split": "val", "fused/loss": float("inf")})
  file.close()
  check(tmp_path, PICTURES)


def test_features_of_other_sizes_are_left_out(tmp_path, unrendered):
  run(tmp_path, ("image", "text", "audio"))
  rng = np.random.default_rng(0)
  features(tmp_path, {"image": 64, "text": 64, "audio": 10}, rng)
  text = check(tmp_path, PICTURES)
  assert "of another size: audio" in text
  features(tmp_path, {"image": 64, "text": 1}, rng)
  check(tmp_path, PICTURES)


def test_projection(tmp_path):
  """PCA by the SVD, distances as the evaluation has them."""
  rng = np.random.default_rng(0)
  found = features(tmp_path, {"a": 9, "b": 9}, rng, n=40)
  saved = load_features(tmp_path)
  rows = np.concatenate([found["a"], found["b"]])
  centred = rows - rows.mean(axis=0)
  _, s, vt = np.linalg.svd(centred, full_matrices=False)
  got = saved["points"].reshape(80, 2)
  want = centred @ vt[:2].T
  np.testing.assert_allclose(np.abs(got), np.abs(want), atol=1e-6)
  np.testing.assert_allclose(saved["explained"], (s**2 / (s**2).sum())[:2])
  distance = np.linalg.norm(found["a"].mean(axis=0) - found["b"].mean(axis=0))
  np.testing.assert_allclose(saved["distances"][0, 1], distance)
  np.testing.assert_allclose(
    saved["centroids"], saved["points"].mean(axis=1), atol=1e-6
  )
  assert saved["classes"].tolist() == [str(i) for i in range(8)]


def test_epochs_counted_from_zero_or_one():
  def make(first):
    lines = [
      {"step": 10 * e, "epoch": e - 1 + first, "split": "val", "x": 1.0}
      for e in (1, 2, 3)
    ]
    return (
      reading.RunFiles("", lines, None, None).series("val", "x")[0].tolist()
    )

  assert make(0) == make(1) == [1, 2, 3]


def test_labels_are_moved_apart():
  given = [0.1, 0.11, 0.12, 0.5, 0.9]
  moved = _spread(given, 0.1)
  assert all(b - a > 0.1 - 1e-12 for a, b in itertools.pairwise(moved))
  np.testing.assert_allclose(moved, [0.01, 0.11, 0.21, 0.5, 0.9])


def test_errors_name_path_and_fix(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"no work directory .*nowhere"):
    write_report(tmp_path / "nowhere")
  with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
    write_report(tmp_path)
  (tmp_path / "config.json").write_text('{"config": ')
  with pytest.raises(ValueError, match=r"config\.json is damaged"):
    write_report(tmp_path)
  config(tmp_path, ("image", "text"))
  (tmp_path / "test_features.npz").write_bytes(b"PK no")
  with pytest.raises(ValueError, match=r"features\.npz is damaged"):
    write_report(tmp_path)


def test_stored_command_is_shown(tmp_path):
  run(tmp_path)
  stored = json.loads((tmp_path / "config.json").read_text())
  words = ["python", "launch.py", "--config=a b.py:lb"]
  write_json(tmp_path / "config.json", {**stored, "command": words})
  line = html.command(reading.read(tmp_path))
  assert line == "python launch.py '--config=a b.py:lb'"


def test_no_global_side_effects(tmp_path, unrendered):
  run(tmp_path, epochs=2, done=False)
  before = dict(matplotlib.rcParams)
  write_report(tmp_path)
  assert dict(matplotlib.rcParams) == before
  code = (
    "import sys; from dmg_jax.report import write_report; "
    f"write_report({str(tmp_path)!r}); "
    "sys.exit(bool({'jax', 'matplotlib.pyplot', 'sklearn'} & set(sys.modules)))"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


def _with_terms(folder, method, *terms):
  """A log of a run of ``method`` with these metrics on its train lines."""
  folder.mkdir(exist_ok=True)
  config(folder, ["image", "text"])
  stored = json.loads((folder / "config.json").read_text())
  stored["config"]["method"] = method
  write_json(folder / "config.json", stored)
  file = MetricsFile(folder)
  for step in range(1, 5):
    place = {"step": step, "epoch": step, "split": "train"}
    values = {t: 0.1 * (i + step) for i, t in enumerate(terms)}
    common = {"alpha": 0.5, "weight_norm": 20.0}
    file.write({**place, "loss": 1.0 / step, **values, **common})
  file.close()
  return reading.read(folder)


def test_a_term_of_any_name_is_drawn(tmp_path):
  """What is no loss term is declared by the method, not guessed by its name."""
  names = ("accord", "second_norm", "coefficient")
  found = _with_terms(tmp_path / "a", {"name": "joint"}, *names)
  assert found.runs[0].terms() == ["loss", *names]
  declared = ("cls", "kappa_image", "score_text")
  found = _with_terms(tmp_path / "b", {"name": "agm"}, *declared)
  assert found.runs[0].terms() == ["loss", "cls"]
  stored = json.loads((tmp_path / "b" / "config.json").read_text())
  stored |= {"diagnostics": ["cls"]}  # As runs write it.
  write_json(tmp_path / "b" / "config.json", stored)
  assert reading.read(tmp_path / "b").runs[0].terms() == [
    "loss", "kappa_image", "score_text",
  ]  # fmt: skip
  # Of another version, whose method or options are not known here.
  for method in ({"name": "gone"}, {"name": "agm", "gone": 1}, {}):
    found = _with_terms(tmp_path / repr(method), method, "cls")
    assert found.runs[0].terms() == ["loss", "cls"]


def test_terms_that_are_not_drawn_are_named(tmp_path, unrendered):
  names = ("cls", "accord", "rank", "boost", "distil", "proto")
  _with_terms(tmp_path, {"name": "joint"}, *names)
  text = write_report(tmp_path).read_text(encoding="utf-8")
  assert "Not drawn, but in metrics.jsonl: distil, proto." in text
