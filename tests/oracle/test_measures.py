"""Calibration, confusion and per-class gaps against numbers done by hand."""

from pathlib import Path

import numpy as np
import pytest

from dmg_jax.report import diagrams, measures
from dmg_jax.report.examples import EACH, choose
from dmg_jax.report.predictions import predicted
from dmg_jax.report.reading import RunFiles, Workdir


def two(confidences, right):
  """Two classes: class 1 with this probability; labels by what is right."""
  p = np.array(confidences)
  return np.stack([1 - p, p], axis=1), np.where(right, 1, 0)


def test_ece_by_hand():
  """Bins (.5333, .6], (.7333, .8] and (.9333, 1] hold 2, 2 and 1 of 5."""
  p, labels = two([0.55, 0.59, 0.75, 0.79, 0.99], [1, 0, 1, 1, 0])
  found = measures.reliability(p, labels)
  assert found.count.tolist() == [0] * 8 + [2, 0, 0, 2, 0, 0, 1]
  np.testing.assert_allclose(found.accuracy[[8, 11, 14]], [0.5, 1, 0])
  np.testing.assert_allclose(found.confidence[[8, 11, 14]], [0.57, 0.77, 0.99])
  assert np.isnan(found.accuracy[0])
  want = 2 / 5 * 0.07 + 2 / 5 * 0.23 + 1 / 5 * 0.99
  assert found.ece == pytest.approx(want)


def test_bins_hold_their_upper_end():
  p, labels = two([0.6, 0.8, 1.0], [1, 1, 1])
  count = measures.reliability(p, labels, bins=5).count
  assert count.tolist() == [0, 0, 1, 1, 1]
  assert measures.reliability(p, labels, bins=1).count.tolist() == [3]


def test_perfect_calibration_and_nothing():
  p, labels = two([0.75] * 4, [1, 1, 1, 0])
  assert measures.reliability(p, labels).ece == pytest.approx(0)
  p[:] = np.nan
  assert np.isnan(measures.reliability(p, labels).ece)


P = np.eye(3)[[0, 0, 1, 2, 2, 2]] * 0.7 + 0.1
LABELS = np.array([0, 1, 1, 2, 1, 0])


def test_confusion():
  want = [[1, 0, 1], [1, 1, 1], [0, 0, 1]]
  assert measures.confusion(P, LABELS).tolist() == want
  found = measures.most_confused(np.array(want), ["a", "b", "c"])
  assert [tuple(x) for x in found] == [
    ("a", "c", 1, 2), ("b", "a", 1, 3), ("b", "c", 1, 3)
  ]  # fmt: skip
  assert measures.most_confused(np.diag([3, 2]), ["a", "b"]) == []


def test_nan_is_no_prediction():
  p = P.copy()
  p[0] = np.nan
  assert predicted(p).tolist() == [-1, 0, 1, 2, 2, 2]
  assert measures.confusion(p, LABELS).sum() == 5
  assert measures.by_class(p, LABELS)[0] == 0


def test_by_class_and_gaps():
  own = measures.by_class(P, LABELS)
  np.testing.assert_allclose(own, [1 / 2, 1 / 3, 1])
  other = np.array([0.9, 0.1, np.nan])
  gap = measures.gaps(np.stack([own, other]))
  np.testing.assert_allclose(gap, [0.4, 1 / 3 - 0.1, np.nan])
  absent = measures.by_class(np.full((2, 3), 1 / 3), np.array([0, 0]))
  np.testing.assert_array_equal(absent, [1, np.nan, np.nan])


def workdir(heads, labels):
  """A work directory of one run, as far as it is read here."""
  stored = {
    "heads": np.array(list(heads)),
    "probabilities": np.stack(list(heads.values())),
    "labels": labels,
    "classes": np.array(["x", "y", "z"]),
  }
  own = {h: {} for h in heads if h != "fused"}
  run = RunFiles("", [], {"test": own}, None, stored)
  return Workdir(Path(), {}, None, [run])


def test_classes_are_sorted_by_which_modality_leads():
  exact = np.eye(3)[LABELS]
  zeros = np.eye(3)[np.zeros(6, int)]
  a = np.where((LABELS == 1)[:, None], exact, zeros)  # Right on 0 and 1.
  b = np.where((LABELS == 2)[:, None], exact, np.eye(3)[[2] * 6])
  found = workdir({"fused": exact, "a": a, "b": b}, LABELS)
  compared = diagrams.by_class(found)
  assert compared is not None
  order, own, fused = compared
  assert order == [0, 1, 2] and fused.tolist() == [1, 1, 1]
  assert own["a"].tolist() == [1, 1, 0] and own["b"].tolist() == [0, 0, 1]
  assert diagrams.errors(found)["fused"] == [0]
  assert diagrams.by_class(workdir({"fused": exact, "a": a}, LABELS)) is None


def test_long_names_lose_their_middles():
  names = ["short", "playing the instrument 12", "playing the instrument 13"]
  short = diagrams._short(names)
  assert short[0] == "short" and len(set(short)) == 3
  assert {len(x) for x in short[1:]} == {20}


def test_examples_are_chosen_by_rule():
  """Each sample once: wrong ones then disagreement, then right ones."""
  sure = np.linspace(0.95, 0.55, 24)
  right = np.arange(24) % 3 != 0
  fused, labels = two(sure, right)
  other = two(np.linspace(0.6, 0.9, 24), right)[0][:, ::-1]
  found = choose({"fused": fused, "a": fused, "b": other}, labels)
  rows = {}
  for row, rule in found:
    rows.setdefault(rule, []).append(row)
  assert rows["sure and wrong"] == [0, 3, 6, 9]
  least = np.minimum(fused.max(axis=1), other.max(axis=1))
  rest = [i for i in np.argsort(-least) if i not in (0, 3, 6, 9)]
  assert rows["disagreement"] == rest[:EACH]
  free = [i for i in range(24) if right[i] and i not in rest[:EACH]]
  assert rows["right, barely"] == free[::-1][:EACH]
  assert (
    rows["sure and right"]
    == [i for i in free if i not in rows["right, barely"]][:EACH]
  )
  assert len({row for row, _ in found}) == len(found)
  alone = choose({"fused": fused, "a": fused}, labels)
  assert "disagreement" not in {rule for _, rule in alone}
