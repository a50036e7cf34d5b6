"""Losses on features that do not belong together, against official code."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import mcr, tcmax
from dmg_jax.model.fusion import affine, concat, sum
from dmg_jax.types import SHARED, Fused, Outputs

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


# MCR: features are parameters, and players own a block of the fused head.


def mcr_problem(params):
  def fuse(params, features):
    logits = jnp.stack([features[m] @ params[f"W_{m}"].T for m in _AV]).sum(
      axis=0
    )
    own = {m: features[m] @ params[f"U_{m}"].T for m in _AV}
    return Fused(logits + params["b"][None], own)

  def forward(params, inputs, present):
    del inputs, present
    z = {m: params[f"z_{m}"] for m in _AV}
    return Outputs(*fuse(params, z)[:2], z)

  owner = {f"z_{m}": m for m in _AV} | {"b": SHARED}
  owner |= {f"{k}_{m}": f"{m}/head" for m in _AV for k in "WU"}
  return golden.problem(params, owner, forward, _AV, fuse)


@pytest.mark.parametrize(("x", "y"), golden.cases("mcr"))
def test_mcr(x, y, monkeypatch):
  """All gradients but, of independent players, that of the shared bias."""
  index = jnp.asarray(x["index"].astype(int))
  monkeypatch.setattr(mcr, "permutations", lambda *_: index)
  rule = mcr.make(
    players=x["kind"],
    weight=x["l"],
    contrast=x["contr_coeff"],
    temperature=x["temperature"],
    samples=len(index),
  )

  @golden.program()
  def run(params, labels):
    made = mcr_problem(params)
    return golden.step(rule, made, golden.state(params), golden.batch(labels))

  grads, metrics, _ = run(x["params"], x["label"])
  golden.close(metrics["dependence_a"], y["js_0"])
  golden.close(metrics["dependence_v"], y["js_1"])
  own = [metrics[k] for k in ("cls", "cls_a", "cls_v")]
  golden.close(own, list(y["ce"]))
  if x["contr_coeff"]:
    golden.close(metrics["contrast"], y["contrast"])
  if x["kind"] == "independent":  # Deviation 2.
    del grads["b"], y["grads"]["b"]
  golden.close(grads, y["grads"])
