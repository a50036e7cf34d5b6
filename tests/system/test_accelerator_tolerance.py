"""On an accelerator, float32 gets the tolerance of its products; no more."""

import numpy as np
import pytest

import device

CLOSE = device.loosened(np.testing.assert_allclose, device.TF32)
WANTED = np.array([100.0, -1.0, 0.0])


def off(by, dtype):
  return (WANTED * (1 + by)).astype(dtype)


def test_narrow_numbers_are_within_the_least_tolerance():
  CLOSE(off(device.TF32 / 2, np.float32), WANTED, rtol=1e-6)
  # Near nothing, by the largest: an error of a sum is that of its terms.
  CLOSE(np.float32([100, -1, 0.5]), WANTED, rtol=1e-6)
  with pytest.raises(AssertionError):
    CLOSE(off(4 * device.TF32, np.float32), WANTED, rtol=1e-6)


def test_a_wider_tolerance_of_the_test_stays():
  CLOSE(off(4 * device.TF32, np.float32), WANTED, rtol=5 * device.TF32)


def test_wide_numbers_keep_their_own():
  with pytest.raises(AssertionError):
    CLOSE(off(1e-5, np.float64), WANTED, rtol=1e-6)


def test_a_cpu_loosens_nothing(monkeypatch):
  monkeypatch.setattr(device, "NAME", "cpu")
  assert device.tolerance(1e-9) == 1e-9
  monkeypatch.setattr(device, "NAME", "gpu")
  monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "highest")
  assert device.tolerance(1e-9) == device.FLOAT32
  monkeypatch.setenv("JAX_DEFAULT_MATMUL_PRECISION", "")
  assert device.tolerance(1e-9) == device.TF32
