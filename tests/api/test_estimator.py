"""``MultimodalClassifier`` by scikit-learn's conventions."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import dmg_jax
from tiny_samples import SMALL, samples

ROOT = Path(__file__).parents[2]
# Check of scikit-learn -> why it does not fit.
LEFT_OUT = {
  "check_estimators_pickle": "a fitted estimator refuses to be pickled",
  "check_supervised_y_no_nan": "as the command does, it lists rows without a "
  "label in a DataError, which is no ValueError",
  "check_fit2d_1sample": "one sample is refused in the command's words: there "
  "must be two classes",
}
# Annotations are checked in tests alone, so it has a process without that.
UNCHECKED = "check_do_not_raise_errors_in_init_or_set_params"
# Those that take seconds, of estimators that are not fitted or on few inputs.
QUICK = {
  "check_estimator_cloneable",
  "check_estimator_repr",
  "check_estimator_tags_renamed",
  "check_estimators_unfitted",
  "check_get_params_invariance",
  "check_no_attributes_set_in_init",
  "check_parameters_default_constructible",
  "check_set_params",
  "check_valid_tag_types",
}


def make(**changes):
  return dmg_jax.MultimodalClassifier(
    **{
      "recipe": "joint",
      "epochs": 1,
      "config": SMALL,
      "random_state": 0,
      **changes,
    }
  )


@pytest.fixture(scope="module")
def fitted():
  x, y = samples()
  return make(recipe="h", options={"temperature": 0.2}).fit(x, y)


def test_fitted(fitted):
  x, y = samples()
  assert list(fitted.classes_) == ["down", "up"]
  assert fitted.run_.config.method.temperature == 0.2
  p = fitted.predict_proba(x)
  np.testing.assert_allclose(p.sum(axis=-1), 1, atol=1e-6)
  assert list(fitted.predict(x)) == [["down", "up"][i] for i in p.argmax(-1)]
  assert fitted.score(x, y) == np.mean(fitted.predict(x) == y)
  decision = fitted.decision_function(x)
  np.testing.assert_allclose(decision, np.log(p[:, 1] / p[:, 0]), rtol=1e-4)
  order = np.random.default_rng(0).permutation(24)
  other = fitted.predict_proba(dmg_jax.Modalities(x)[order])
  np.testing.assert_allclose(other, p[order], atol=1e-6)


def test_it_is_fit(fitted):
  x, y = samples()
  run = dmg_jax.fit(
    x, y, recipe="h", temperature=0.2, epochs=1, seed=0, config=SMALL
  )
  np.testing.assert_array_equal(
    run.predict(x).probabilities["fused"], fitted.predict_proba(x)
  )


def test_parameters():
  clf = make(workdir="somewhere", options={"temperature": 0.2})
  assert clone(clf).get_params() == clf.get_params()
  assert clf.set_params(epochs=3).epochs == 3
  again = pickle.loads(pickle.dumps(clf))
  assert again.get_params() == clf.get_params()
  with pytest.raises(NotFittedError):
    clf.predict(samples()[0])


def test_fitted_ones_are_not_pickled(fitted):
  for error in (TypeError, dmg_jax.UserError):
    with pytest.raises(error, match=r"export\(folder\).*dmg_jax\.load"):
      pickle.dumps(fitted)
  clone(fitted)


@pytest.mark.parametrize(
  "change,said",
  [
    ({"note": None}, r"modalities are sensor \(array\), note \(text\); got"),
    ({"sensor": np.zeros((24, 2))}, r"has shape \(2,\), those of training"),
    ({"note": ["a"]}, "as many rows: 'sensor' has 24, 'note' has 1"),
  ],
)
def test_other_samples_than_those_of_training(fitted, change, said):
  given = {**samples()[0], **change}
  given = {m: v for m, v in given.items() if v is not None}
  with pytest.raises(dmg_jax.UserError, match=said):
    fitted.predict(given)


def test_wrong_labels():
  x, y = samples()
  for labels, said in (
    ([float("nan"), *y[1:]], "row 1, column 'label': the cell is empty"),
    (pandas.Series([None, *y[1:]]), "row 1, column 'label'"),
    (["up"] * 24, "there must be two classes"),
    (np.linspace(0, 1, 24), "Unknown label type"),
    (y[:-1], "'label' has 23"),
    (None, "requires y to be passed"),
  ):
    with pytest.raises((dmg_jax.UserError, ValueError), match=said):
      make().fit(x, labels)


def test_labels_keep_their_type():
  x, _ = samples()
  y = np.array([10, 2, 1] * 8)
  clf = make().fit({"sensor": x["sensor"]}, y)
  assert (
    list(clf.classes_) == [1, 2, 10]
    and clf.predict({"sensor": x["sensor"]}).dtype == y.dtype
  )
  assert clf.predict_proba({"sensor": x["sensor"]}).shape == (24, 3)
  assert clf.decision_function({"sensor": x["sensor"]}).shape == (24, 3)


def test_class_weight_is_by_label():
  x, y = samples()
  number = (y == "up").astype(int)
  table = {0: 1, 1: 7.0}
  clf = make(class_weight=table).fit(x, number)
  assert clf.run_.config["train"]["class_weights"] == '{"0": 1.0, "1": 7.0}'
  assert clone(clf).get_params()["class_weight"] == table
  with pytest.raises(ValueError, match="unknown class of train"):
    make(class_weight={"up": 2}).fit(x, number)


def test_arrays_in_a_pipeline():
  x, y = samples()
  pipeline = make_pipeline(StandardScaler(), make()).fit(x["sensor"], y)
  assert pipeline.predict(x["sensor"]).shape == (24,)
  clf = pipeline[-1]
  assert clf.n_features_in_ == 3 and clf.run_.modalities == {"x": "array"}
  with pytest.raises(ValueError, match=r"X has 2 features.*expecting 3"):
    clf.predict(x["sensor"][:, :2])


def frame_of(x):
  return pandas.DataFrame({**x, "sensor": list(x["sensor"])})


def louder(frame):
  return frame.assign(note=frame["note"].str.upper())


@pytest.mark.slow
def test_a_frame_in_a_pipeline_and_in_cross_validation():
  x, y = samples()
  frame = frame_of(x)
  steps = FunctionTransformer(louder), make()
  scores = cross_val_score(make_pipeline(*steps), frame, y, cv=2)
  assert scores.shape == (2,) and np.isfinite(scores).all()
  clf = make().fit(frame, pandas.Series(y))
  assert list(clf.feature_names_in_) == ["sensor", "note"]
  with pytest.raises(ValueError, match="feature names"):
    clf.predict(frame.rename(columns={"note": "text"}))


@pytest.mark.slow
def test_a_search_on_a_dictionary():
  x, y = samples()
  search = GridSearchCV(make(), {"learning_rate": np.logspace(-3, -2, 2)}, cv=2)
  search.fit(dmg_jax.Modalities(x), y)
  assert search.best_params_["learning_rate"] in (1e-3, 1e-2)
  assert search.best_estimator_.run_.config.optimiser.learning_rate > 0
  assert search.predict(x).shape == (24,)


@pytest.mark.slow
def test_searches_in_several_processes():
  x, y = samples()
  scores = cross_val_score(make(), frame_of(x), y, cv=2, n_jobs=2)
  assert np.isfinite(scores).all()


def checks():
  """scikit-learn's checks of an estimator, each as a test."""
  seen = {}
  for estimator, check in estimator_checks_generator(
    make(epochs=4, learning_rate=0.03)
  ):
    name = check.func.__name__
    seen[name] = seen.get(name, 0) + 1
    marks = [] if name in QUICK else [pytest.mark.slow]
    yield pytest.param(estimator, check, id=f"{name}-{seen[name]}", marks=marks)


@pytest.mark.parametrize("estimator,check", checks())
@pytest.mark.filterwarnings("ignore")  # Some checks warn on purpose.
def test_the_checks_of_scikit_learn(estimator, check):
  if check.func.__name__ in LEFT_OUT:
    with pytest.raises((AssertionError, dmg_jax.UserError)):
      check(estimator)
  elif check.func.__name__ == UNCHECKED:
    code = (
      f"from sklearn.utils.estimator_checks import {UNCHECKED} as check\n"
      "import dmg_jax\n"
      "check('MultimodalClassifier', dmg_jax.MultimodalClassifier())"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
  else:
    check(estimator)


def test_what_is_left_out_is_a_check():
  names = {p.values[1].func.__name__ for p in checks()}
  assert {*LEFT_OUT, *QUICK} <= names
