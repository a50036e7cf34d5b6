"""Missing modalities from Python: what is refused, and what is trained on."""

import numpy as np
import pytest

import dmg_jax
from tiny_samples import SMALL, samples


def lacking(rows):
  """Samples that lack the note, or else the sensor, in some rows."""
  x, y = samples()
  x["sensor"] = list(x["sensor"])
  for i, name in rows.items():
    x[name][i] = None
  return x, y


@pytest.mark.parametrize(
  "rows, keys, said",
  [
    (
      {1: "note"},
      {},
      r"row 2, column 'note:text': the cell is empty(.|\n)*missing='allow'",
    ),
    ({1: "note"}, {"missing": "alow"}, "'alow'; did you mean 'allow'"),
    ({1: "note"}, {"drop": {"note": 1}}, r"'note' must lie in \[0, 1\)"),
    ({}, {"drop": {"not": 0.5}}, "'not'; did you mean 'note'"),
    (
      dict.fromkeys(range(24), "note"),
      {"missing": "allow"},
      "the kind of 'note' does not follow",
    ),
  ],
)
def test_refused(rows, keys, said):
  x, y = lacking(rows)
  with pytest.raises(dmg_jax.UserError, match=said):
    dmg_jax.fit(x, y, recipe="joint", **keys)


def test_no_sample_without_anything():
  x, y = lacking({2: "note"})
  x["sensor"][2] = np.full(3, np.nan)
  with pytest.raises(dmg_jax.UserError, match="row 3: all modalities are miss"):
    dmg_jax.fit(x, y, recipe="joint", missing="allow")


def test_a_data_set_without_the_option():
  with pytest.raises(dmg_jax.UserError, match="unknown key of recipe 'joint'"):
    dmg_jax.fit("configs/openmoji.py", recipe="joint", missing="allow")


@pytest.mark.slow
def test_the_estimator_predicts_what_lacks_something():
  x, y = lacking({1: "note", 4: "sensor"})
  clf = dmg_jax.MultimodalClassifier(
    "joint",
    epochs=1,
    random_state=0,
    options={"missing": "allow"},
    config=SMALL,
  )
  clf.fit(x, y)
  new, _ = lacking({0: "sensor", 1: "note"})
  p = clf.predict_proba(new)
  assert p.shape == (len(y), 2) and np.isfinite(p).all()
  only = clf.predict_proba({"note": new["note"][:1]})
  np.testing.assert_allclose(only, p[:1], atol=1e-6)
  with pytest.raises(dmg_jax.UserError, match="row 1: all modalities are miss"):
    clf.predict({"sensor": [None], "note": [float("nan")]})
