"""Encoders beside their reference in torch, on random weights."""

import jax
import jax.numpy as jnp
import numpy as np


def random_weights(make, scale=0.2):
  """What ``make`` makes, for evaluation, with no weight at a usual value."""
  import torch

  torch.manual_seed(0)
  made = make().eval()
  with torch.no_grad():
    for weight in made.parameters():
      weight.add_(scale * torch.randn_like(weight))
  return made


def run(module, variables, x, *stages):
  """Features, or maps between ``stages``, in evaluation."""
  apply = jax.jit(lambda v, x: module.apply(v, x, False, *stages))
  return apply(variables, jnp.asarray(x))


def assert_same(ours, theirs, tolerance=1e-5):
  """Arrays, or tensors of torch."""
  if hasattr(theirs, "detach"):
    theirs = theirs.detach().numpy()
  np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
