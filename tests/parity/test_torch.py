"""The same numbers as PyTorch, which the reference codes are written in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toys
from dmg_jax import losses
from dmg_jax.model.encoders import small
from dmg_jax.training import optim
from dmg_jax.types import TrainState

torch = pytest.importorskip("torch")
F = torch.nn.functional


@pytest.mark.parametrize(
  ("name", "make"),
  [
    ("sgd", lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01)),
    ("adam", lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.01)),
    ("adamw", lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.01)),
  ],
)
def test_optimisers(name, make):
  rng = np.random.default_rng(0)
  start, grads = rng.normal(size=7), rng.normal(size=(5, 7))
  init, apply = optim.make(
    {"w": "shared"},
    optim.learning_rate("constant", 0.1, 5),
    name=name,
    weight_decay=0.01,
  )
  params = {"w": jnp.array(start)}
  state = TrainState(jnp.int32(0), params, {}, init(params), ())
  theirs = torch.nn.Parameter(torch.tensor(start))
  optimiser = make([theirs])
  for g in grads:
    state = apply(state, {"w": jnp.array(g)})
    theirs.grad = torch.tensor(g)
    optimiser.step()
  ours = state.params["w"]
  np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-6)


def test_info_nce_and_its_gradient():
  x, y = np.random.default_rng(1).normal(size=(2, 6, 4))
  a, b = (torch.tensor(v, requires_grad=True) for v in (x, y))
  s = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / 0.2
  rows = torch.arange(6)
  theirs = (F.cross_entropy(s, rows) + F.cross_entropy(s.T, rows)) / 2
  theirs.backward()
  ours, grads = jax.value_and_grad(losses.info_nce, argnums=(0, 1))(
    jnp.array(x), jnp.array(y), jnp.ones(6), 0.2
  )
  np.testing.assert_allclose(ours, theirs.item(), rtol=1e-10)
  toys.assert_close(grads, (a.grad.numpy(), b.grad.numpy()), 1e-8, 1e-12)


def test_divergence_is_kl_div_with_its_arguments_swapped():
  a, b = np.random.default_rng(2).normal(size=(2, 6, 4))
  p, q = (F.softmax(torch.tensor(v), dim=1) for v in (a, b))
  m = (p + q) / 2
  theirs = sum(F.kl_div(v.log(), m, reduction="batchmean") for v in (p, q)) / 2
  ours = losses.divergence(jnp.array(a), jnp.array(b), jnp.ones(6))
  np.testing.assert_allclose(ours, theirs.item(), rtol=1e-10)


def test_soft_cross_entropy():
  rng = np.random.default_rng(3)
  logits, targets = rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4), 5)
  theirs = F.cross_entropy(torch.tensor(logits), torch.tensor(targets))
  ours = losses.soft_cross_entropy(jnp.array(logits), jnp.array(targets))
  np.testing.assert_allclose(ours.mean(), theirs.item(), rtol=1e-10)


def test_conv_net():
  """Convolution, GroupNorm, pooling and mean as torch computes them."""
  model = small.ConvNet(features=5, widths=(8, 16))
  x = np.random.default_rng(4).integers(0, 256, (2, 12, 12, 3), np.uint8)
  variables = model.init(jax.random.key(0), jnp.asarray(x), False)
  p = jax.tree.map(lambda v: torch.tensor(np.asarray(v)), variables["params"])
  h = torch.tensor(x.transpose(0, 3, 1, 2), dtype=torch.float32) / 127.5 - 1
  for i in range(2):
    h = F.conv2d(h, p[f"Conv_{i}"]["kernel"].permute(3, 2, 0, 1), padding=1)
    norm = p[f"_Norm_{i}"]["GroupNorm_0"]
    h = F.group_norm(h, 8, norm["scale"], norm["bias"], eps=1e-6)
    h = F.max_pool2d(F.relu(h), 2)
  dense = p["Dense_0"]
  theirs = h.mean(dim=(2, 3)) @ dense["kernel"] + dense["bias"]
  ours = model.apply(variables, jnp.asarray(x), False)
  np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)
