"""Recipes on a toy problem, and batches with all that a batch can have."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import toys
from dmg_jax import losses
from dmg_jax.config.recipes import RECIPES

# {(method, fusion, their options): the first recipe that has them}
ROWS = {
  repr((r.fusion, r.method, r.options, r.fusion_options)): name
  for name, r in reversed(RECIPES.items())
}
# One of each kind: learned weight, modulated gradients, shared heads, teachers.
FEW = ("lb", "ogm_ge", "mla", "umt")
# And order, hooks between epochs, memory of samples, a game, turns, mixtures:
# for what differs by kind and takes long.
KINDS = (
  *FEW, "bss", "cpsc", "g2d", "gblend", "igm", "joint", "mcr", "pmr", "remix",
)  # fmt: skip
every_kind = pytest.mark.parametrize(
  "name",
  [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in KINDS],
)


def run_of(name, **options):
  recipe = RECIPES[name]
  method = toys.make_method(recipe.method, **recipe.options)
  given = tuple(recipe.fusion_options.items())
  modalities = 2 if recipe.method == "greedy" else 3
  fusion = {"fusion": recipe.fusion, "fusion_options": given}
  # Adam makes steps of gradients that are nothing but rounding.
  return toys.Run(method, modalities, optimiser="sgd", **{**fusion, **options})


def batches(run, seed):
  """Samples of other weights, of which some lack a modality; some padding."""
  modalities = len(run.problem.modalities)
  weights = np.arange(1.0, toys.CLASSES + 1)
  batch = toys.batch(modalities, seed=seed)
  batch = losses.with_class_weights(batch, weights)
  first = run.problem.modalities[0]
  there = jnp.array([1, 1, 0, 1, 1, 1, 0, 1], jnp.float32)
  mask = jnp.array([1, 1, 1, 1, 1, 1, 1, 0], jnp.float32)
  return batch.replace(present={first: there}, mask=mask)
