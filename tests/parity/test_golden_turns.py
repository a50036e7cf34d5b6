"""Rules that train one modality at a time, against their official code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import _routing, igm
from dmg_jax.model.fusion import sum as late
from dmg_jax.types import Outputs

# IGM: encoders are tanh(x A), heads are linear.
SIDES = ("audio", "video")


def igm_params(recorded):
  """Our parameters of torch's; what torch has no gradient for is zero."""

  def get(name, like):
    return recorded[name] if name in recorded else np.zeros(like)

  found = {"encoders": {}, "fusion": {}}
  d, k = 3, 3
  for m in SIDES:
    found["encoders"][m] = get(f"{m}_encoder.A", (4, d))
    head = f"cls_{m[0]}.0"
    kernel, bias = get(f"{head}.weight", (k, d)).T, get(f"{head}.bias", k)
    found["fusion"][f"head_{m}"] = {"kernel": kernel, "bias": bias}
  return found


def igm_model(params, inputs):
  def fuse(params, z):
    return late.Fusion(3, mean=True).apply(
      {"params": params["fusion"]}, z, True
    )

  def forward(params, inputs, present):
    del present
    z = {m: jnp.tanh(inputs[m] @ params["encoders"][m]) for m in SIDES}
    f = fuse(params, z)
    return Outputs(f.logits, f.unimodal, z)

  owner = {"encoders": {m: m for m in SIDES}}
  owner["fusion"] = {
    f"head_{m}": dict.fromkeys(("kernel", "bias"), f"{m}/head") for m in SIDES
  }
  return golden.problem(params, owner, forward, SIDES, fuse, inputs)


@golden.program("rho", "flat")
def run_igm(params, inputs, labels, memory, rho, flat):
  """One step of the official rule, and the prediction before it."""
  made = igm_model(params, inputs)
  rule = igm.make(rho=rho, flat=flat, faithful=True)
  batch, start = golden.batch(labels, inputs), golden.state(params, memory)
  out, _ = made.run(params, {}, batch)
  grads, metrics, after = golden.step(rule, made, start, batch)
  scale = after.opt_state[-1][1]
  return igm.make().predict(out, memory), grads, metrics, after.params, scale


@pytest.mark.parametrize(("x", "y"), golden.cases("igm"))
def test_igm(x, y):
  """P of one modality, and a step of the other with it and without."""
  params = igm_params(x["params"])
  made = igm_model(params, x["x"])
  labels = np.zeros(len(x["label"]))
  sweep = [
    golden.batch(labels, jax.tree.map(jnp.asarray, s)) for s in x["sweep"]
  ]
  seen = _routing.covariance(made, golden.state(params), sweep, x["first"])
  golden.close(seen, y["covariance"])
  p = _routing.matrix(seen, x["temperature"])
  golden.close(p, y["P"])
  knobs = {"rho": float(x["rho"]), "flat": float(x["flat"])}
  turn, whole = np.int32(SIDES.index(x["now"])), np.eye(len(p))
  for matrix, theirs in ((p, "grads"), (whole, "grads_without_P")):
    memory = igm.State(turn, dict.fromkeys(SIDES, matrix))
    logits, grads, metrics, moved, scale = run_igm(
      params, x["x"], x["label"], memory, **knobs
    )
    golden.close(grads, igm_params(y[theirs]))
    golden.close(moved, igm_params(y["params"]))
    golden.close(metrics["loss"], y["loss"])
    golden.close(np.exp(logits), y["prediction"])
    still = x["first"]
    assert scale[still] == scale[f"{still}/head"] == 0
