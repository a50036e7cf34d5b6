"""The learning rate's fall on a plateau, against torch and a hand count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.training import optim
from dmg_jax.training.optim import Plateau
from dmg_jax.types import TrainState

LOSSES = [3.0, 2.0, 2.0, 1.9999, 2.1, 1.0, 1.0, 1.0, 0.5, 0.6, 0.6, 0.6, 0.6]


def _state(plateau: Plateau) -> TrainState:
  state = TrainState(jnp.int32(0), jnp.ones(2), {}, (), ())
  return jax.device_put(state.replace(plateau=plateau.start()))


def _scales(plateau, losses):
  state, scales = _state(plateau), []
  for loss in losses:
    state = plateau.observe(state, loss)
    scales.append(float(state.plateau.scale))
  return scales


def test_hand_count():
  found = _scales(Plateau(factor=0.1, patience=2), LOSSES)
  # 1.9999 is no fall by a ten-thousandth.
  falls = [0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4]
  np.testing.assert_allclose(found, 0.1 ** np.array(falls), rtol=1e-6)


def test_is_torch_s_with_one_epoch_less_of_patience():
  torch = pytest.importorskip("torch")
  optimiser = torch.optim.SGD([torch.zeros(1)], lr=1.0)
  scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
    optimiser, factor=0.5, patience=2, threshold=1e-2, eps=0
  )
  losses = np.random.default_rng(0).random(60) + 1 / np.arange(1, 61)
  expected = []
  for loss in losses:
    scheduler.step(loss)
    expected.append(optimiser.param_groups[0]["lr"])
  plateau = Plateau(factor=0.5, patience=3, threshold=1e-2)
  found = _scales(plateau, losses)
  assert found[-1] < 0.1
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_scales_the_step_and_keeps_the_placement():
  plateau = Plateau(factor=0.25, patience=1)
  owner = "shared"
  init, apply = optim.make(
    owner, optim.learning_rate("plateau", 1.0, 9), name="sgd", momentum=0.0
  )
  state = _state(plateau)
  state = state.replace(opt_state=init(state.params))
  for _ in range(2):
    state = plateau.observe(state, 1.0)
  like = _state(plateau).plateau
  for new, old in zip(
    jax.tree.leaves(state.plateau), jax.tree.leaves(like), strict=True
  ):
    assert (new.dtype, new.sharding) == (old.dtype, old.sharding)
  moved = apply(state, jnp.ones(2)).params
  np.testing.assert_allclose(moved, 0.75, rtol=1e-6)


@pytest.mark.parametrize(
  "options", [{"factor": 1.0}, {"patience": 0}, {"threshold": 0.0}]
)
def test_refuses(options):
  (name,) = options
  with pytest.raises(ValueError, match=f"optimiser.plateau.{name}"):
    Plateau(**options)
