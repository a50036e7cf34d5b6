"""Losses on features that do not belong together, against official code."""

import math

import numpy as np
import pytest

import golden
from dmg_jax.methods import tcmax
from dmg_jax.model.fusion import affine, concat, sum

_AV = ("a", "v")


# TCMax: features are the parameters.


@golden.program("kind", "classes")
def run_tcmax(params, labels, kind, classes):
  fusion = {
    "concat": concat.Fusion(classes),
    "sum": sum.Fusion(classes),
    "film": affine.Fusion(classes, conditioner="a"),
  }[kind]
  made = golden.on_features(fusion, params, _AV)
  start, batch = golden.state(params), golden.batch(labels)
  out, _ = made.forward(params, {}, {}, None, True)
  return out.logits, *golden.step(tcmax.make(), made, start, batch)[:2]


def of_torch(kind, z, weights):
  """Torch's parameters, under the names and in the layouts of ours."""
  if kind == "concat":
    return golden.split_head(_AV, z, weights["fc_out.weight"], _bias(weights))
  theirs = {
    "sum": {"fc_x": "head_a", "fc_y": "head_v"},
    "film": {"fc": "film", "fc_out": "out"},
  }[kind]
  return {
    ours: {
      "kernel": weights[f"{name}.weight"].T,
      "bias": weights[f"{name}.bias"],
    }
    for name, ours in theirs.items()
  }


def _bias(weights):
  return weights["fc_out.bias"]


@pytest.mark.parametrize(("x", "y"), golden.cases("tcmax"))
def test_tcmax(x, y):
  """Loss and gradients; the official sum over pairs is a mean here.

  That is deviation 1: with two modalities it is smaller by log n.
  """
  kind, z = x["kind"], x["z"]
  params = {"features": z, "fusion": of_torch(kind, z, x["weights"])}
  logits, grads, metrics = run_tcmax(params, x["label"], kind, x["classes"])
  golden.close(logits, y["logits"])
  golden.close(metrics["loss"] + math.log(len(x["label"])), y["loss"])
  golden.close(grads["features"], y["grad_z"])
  theirs = of_torch(kind, z, y["grad_weights"])
  for name, value in theirs.items():
    golden.close(grads["fusion"][name], value)
  assert len(grads["fusion"]) == len(theirs)
  assert np.abs(np.asarray(grads["features"]["a"])).max() > 1e-3
