"""Mean average precision against scikit-learn, class by class."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from dmg_jax.evaluation.scores import mean_average_precision


@pytest.mark.parametrize("levels", [0, 2, 5])  # 0: no ties
@pytest.mark.parametrize(("n", "k"), [(1, 3), (50, 2), (200, 7)])
def test_scikit_learn(n, k, levels):
  rng = np.random.default_rng([n, k, levels])
  labels = rng.integers(0, k, n)
  labels[labels == 1] = 0  # a class that does not occur
  p = rng.uniform(size=(n, k)).astype(np.float32)
  if levels:
    p = np.round(p * levels) / levels
  each = [average_precision_score(labels == c, p[:, c]) for c in set(labels)]
  got = mean_average_precision(labels, p)
  np.testing.assert_allclose(got, np.mean(each), rtol=1e-12)


def test_by_hand():
  labels = np.array([0, 0, 1, 1])
  first = np.array([0.9, 0.4, 0.6, 0.4])
  # Ranks of class 0: its .9 has precision 1/1, its .4 is tied at the end, 2/4.
  # Of class 1, scores .1 .6 .4 .6: one .6 of two is right, then 2/3.
  p = np.stack([first, 1 - first], axis=1)
  zero = (1 / 1 + 2 / 4) / 2
  one = (1 / 2 + 2 / 3) / 2
  assert mean_average_precision(labels, p) == pytest.approx((zero + one) / 2)
  assert np.isnan(mean_average_precision(labels, p * np.nan))
