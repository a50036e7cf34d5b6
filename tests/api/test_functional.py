"""An NNX model as a pure function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import dmg_jax
import toys
from dmg_jax.errors import InputError


class Towers(nnx.Module):
  """BatchNorm, dropout and a list, in NNX."""

  def __init__(self, rngs):
    self.image = nnx.List([nnx.Linear(5, 4, rngs=rngs)])
    self.norm = nnx.BatchNorm(4, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.text = nnx.Linear(4, 4, rngs=rngs)
    self.head = nnx.Linear(8, 3, rngs=rngs)

  def __call__(self, inputs):
    z = {
      "image": self.drop(self.norm(self.image[0](inputs["image"]))),
      "text": self.text(inputs["text"]),
    }
    return {"logits": self.head(jnp.concatenate(list(z.values()), -1))}


def test_an_nnx_model_is_a_function_and_back():
  model = Towers(nnx.Rngs(0))
  inputs = toys.batch(2).inputs
  f = dmg_jax.functional(model)
  out, stats = f.apply(f.params, f.stats, inputs, train=False, key=None)
  assert toys.same(stats, f.stats)
  model.eval()
  np.testing.assert_allclose(out["logits"], model(inputs)["logits"], rtol=1e-6)
  key, other = jax.random.key(0), jax.random.key(1)
  found = [
    f.apply(f.params, f.stats, inputs, train=True, key=k)
    for k in (key, key, other)
  ]
  assert toys.same(found[0], found[1])
  assert not toys.same(found[0][0], found[2][0])
  assert not toys.same(found[0][1], f.stats)
  back = f.module(f.params, found[0][1])
  assert toys.same(dmg_jax.functional(back).stats, found[0][1])


def test_functional_refuses_what_is_no_nnx_module():
  with pytest.raises(InputError, match="takes an NNX module, got int"):
    dmg_jax.functional(3)  # type: ignore[arg-type]
