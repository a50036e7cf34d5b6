"""Cost goals that do not depend on the machine: FLOPs and memory as compiled.

Nothing here is run: programs are compiled for CPU and asked what they cost.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from benchmarks import cases, measure, missing
from dmg_jax.bilevel import Neumann, hypergradient
from dmg_jax.methods.lb import heldout_loss
from dmg_jax.model.encoders.small import pictures

pytestmark = pytest.mark.usefixtures("optimised")

ROOT = Path(__file__).parents[2]
# CREMA-D: an epoch is 27 steps, the outer step has a quarter of a batch.
STEPS, BATCH, SHARE = 27, 64, 4
SMALL = BATCH // SHARE
slow = pytest.mark.slow  # Each compiles several optimised programs.
MODELS = ("openmoji", pytest.param("resnet-tiny", marks=slow))


def cost(function, *args):
  return measure.cost(measure.compiled(function, *args, analysis_only=True))


def alpha():
  return jnp.float32(0.5)


@functools.cache
def gradient(model):
  """∇ L_Total on a small batch, what all is measured in."""
  case = cases.make(model)
  inner, _ = case.objectives(SMALL)
  return cost(jax.grad(inner), case.params, alpha())


@functools.cache
def step(model, recipe="constant", size=SMALL):
  case = cases.make(model, recipe)
  return cost(case.train_step(), case.state(), case.batch(size))


@functools.cache
def outer_step(model, terms):
  """The whole update of α by ``lb``, both batches small."""
  case = cases.make(model, f"lb,iterations={terms}")
  batch = case.batch(SMALL)
  return cost(case.outer_step(), case.state(), batch, batch)


each_model = pytest.mark.parametrize("model", MODELS)


@slow
@each_model
def test_hessian_vector_product(model):
  """Goal 1: at most 2.65 gradients."""
  case = cases.make(model)
  inner, _ = case.objectives(SMALL)

  def product(params, direction):
    def slope(p):
      return jax.grad(inner)(p, alpha())

    return jax.jvp(slope, (params,), (direction,))[1]

  found = cost(product, case.params, case.params)
  assert found["flops"] <= 2.65 * gradient(model)["flops"]


# An exact product costs 6 forward passes and a gradient 3; a first convolution,
# whose input needs no derivative, 2 and 2. With a share s of the forward pass
# that makes (6 - 4s) / (3 - s), which is below the goal of 1.9 for s > 0.14
# only: 1.97 for the two ResNet-18 of CREMA-D (s = 0.04; 1.966 as compiled).
@pytest.mark.parametrize(
  ("model", "bound"),
  [
    pytest.param("openmoji", 1.9, marks=slow),
    pytest.param("resnet-tiny", 1.95, marks=pytest.mark.slow),
  ],
)
def test_one_more_neumann_term(model, bound):
  """Goal 2: at most 1.9 gradients; the forward pass is shared by all terms."""
  more = outer_step(model, 5)["flops"] - outer_step(model, 1)["flops"]
  assert more / 4 <= bound * gradient(model)["flops"]


@slow
@each_model
def test_update_of_alpha(model):
  """Goal 3: with five terms at most 11.5 gradients."""
  found = outer_step(model, 5)["flops"]
  assert found <= 11.5 * gradient(model)["flops"]


@slow
@each_model
def test_epoch_with_learned_alpha(model):
  """Goal 4: at most 1.12 epochs with a fixed α, in CREMA-D's proportions.

  Both batches of the outer step have a quarter of the training batch.
  """
  epoch = STEPS * step(model, size=BATCH)["flops"]
  learned = epoch + outer_step(model, 5)["flops"]
  assert learned <= 1.12 * epoch


@slow
@pytest.mark.parametrize(
  "model, repeating, keeping",
  [("openmoji", 2.4, 3.8), ("resnet-tiny", 2.1, 3.3)],
)
def test_memory_of_an_update_of_alpha(model, repeating, keeping):
  """Goal 9, in training steps: products that repeat it, and that keep it.

  A step of OpenMoji's networks keeps hardly more than the activations.
  """
  case = cases.make(model)
  inner, outer = case.objectives(SMALL)

  def repeated(params, alpha):
    solver = Neumann(terms=5)
    return hypergradient(
      inner, outer, params, alpha, solver=solver, matvec="jvp"
    )[0]

  base = step(model)["temp_bytes"]
  found = cost(repeated, case.params, alpha())["temp_bytes"]
  assert found <= repeating * base
  assert outer_step(model, 5)["temp_bytes"] <= keeping * base


@slow
def test_memory_beside_that_of_pooling_by_windows(monkeypatch):
  """Goal 9's ratios rose for OpenMoji as the step fell; in bytes all fell."""

  def windows(x, axis):
    pool = ((2, 2), (2, 2), "SAME")
    return nn.max_pool(x, *pool) if axis == 2 else x

  ours, update = step("openmoji"), outer_step("openmoji", 5)
  monkeypatch.setattr(pictures, "max_pool_pairs", windows)
  theirs = step.__wrapped__("openmoji")
  assert ours["temp_bytes"] <= 0.5 * theirs["temp_bytes"]
  assert update["temp_bytes"] <= 1.7 * theirs["temp_bytes"]


@slow
@each_model
def test_memory_of_a_large_outer_batch(model):
  """It goes in parts of the inner one's size: only the data take more."""
  case = cases.make(model, "lb")

  def memory(size):
    batch = case.batch(size)

    def loss(params):
      return heldout_loss(
        case.problem, params, case.stats, batch, SMALL, separate=True
      )

    found = cost(jax.grad(loss), case.params)["temp_bytes"]
    return found, sum(x.nbytes for x in jax.tree.leaves(batch))

  (small, _), (large, held) = memory(SMALL), memory(8 * SMALL)
  assert large <= 1.1 * small + held


@slow
@each_model
def test_step_that_carries_the_tangent(model):
  """``lb_forward``: at most 3.2 steps with a fixed α, and twice the memory.

  The product of the Hessian has the gradient inside. A joint step has 0.3 %
  less than one with a fixed α.
  """
  base, found = step(model), step(model, "lb_forward")
  assert found["flops"] <= 3.2 * base["flops"]
  assert found["temp_bytes"] <= 2 * base["temp_bytes"]


@pytest.mark.slow
def test_benchmarks_run(tmp_path):
  """The one command writes its results; the fastest part of it."""
  out = tmp_path / "costs.json"
  command = [sys.executable, "benchmarks/run.py", "--quick", "--only=training"]
  subprocess.run(
    [*command, f"--out={out}"], cwd=ROOT, check=True, capture_output=True
  )
  result = json.loads(out.read_text())
  assert result["schema"] == 1
  assert result["environment"]["versions"]["jax"] == jax.__version__
  names = {entry["name"]: entry for entry in result["entries"]}
  assert names["constant"]["base"] == "joint"
  assert names["constant"]["values"]["seconds"]["median"] > 0
  assert 0.9 < names["constant"]["ratios"]["flops"] < 1.1


@pytest.mark.parametrize("recipe", ["joint", pytest.param("lb", marks=slow)])
def test_masks_cost_nothing_where_nothing_is_missing(recipe):
  """The goal of 1.02, for data that may lack any modality and lack none."""
  case = cases.make("openmoji", recipe)
  batch = case.batch(SMALL)
  plain = cost(case.train_step(), case.state(), batch)
  masked = cost(case.train_step(), case.state(), missing.masked(batch))
  assert masked["flops"] <= 1.02 * plain["flops"]
  assert masked["temp_bytes"] <= 1.02 * plain["temp_bytes"]
