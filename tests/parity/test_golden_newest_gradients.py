"""The newest rules that change the gradient, against their official code."""

import dataclasses

import jax.numpy as jnp
import pytest

import golden
from dmg_jax.methods import arl, dgl
from dmg_jax.model.fusion import concat
from dmg_jax.model.fusion import sum as late

SIDES = {"a": "audio", "v": "visual"}


def head_of(x):
  """Parameters of ``concat`` or ``sum`` from the recorded torch weights."""
  params, name = x["params"], "fusion_module.fc"
  if x["fusion"] == "concat":
    z = {m: params[f"{net}_net.weight"].T for m, net in SIDES.items()}
    whole = params[f"{name}_out.weight"], params[f"{name}_out.bias"]
    return golden.split_head(tuple(SIDES), z, *whole)
  return {
    f"head_{m}": {
      "kernel": params[f"{name}_{letter}.weight"].T,
      "bias": params[f"{name}_{letter}.bias"],
    }
    for m, letter in (("a", "x"), ("v", "y"))
  }


def torch_names(fusion, grads):
  """Our gradients of the model below under torch's names."""
  found = {
    f"{SIDES[m]}_net.{p}": g.T if p == "weight" else g
    for m, tree in grads["features"].items()
    for p, g in tree.items()
  }
  head, name = grads["fusion"], "fusion_module.fc"
  if fusion == "concat":
    found[f"{name}_out.weight"] = golden.joined_head(tuple(SIDES), head)
    found[f"{name}_out.bias"] = head["bias"]
    return found
  for m, letter in (("a", "x"), ("v", "y")):
    found[f"{name}_{letter}.weight"] = head[f"head_{m}"]["kernel"].T
    found[f"{name}_{letter}.bias"] = head[f"head_{m}"]["bias"]
  return found


def model_of(x):
  """Parameters, and a problem of tanh layers below a fusion."""
  classes = len(next(v for k, v in x["params"].items() if "fusion" in k))
  fusion = {"concat": concat, "sum": late}[x["fusion"]].Fusion(classes)
  params = {
    "features": {
      m: {
        "weight": x["params"][f"{net}_net.weight"].T,
        "bias": x["params"][f"{net}_net.bias"],
      }
      for m, net in SIDES.items()
    },
    "fusion": head_of(x),
  }

  def encode(m, p):
    return jnp.tanh(jnp.asarray(x[f"x_{m}"]) @ p["weight"] + p["bias"][None])

  def fuse(params, stats, features, key, train, present=None):
    del stats, key
    return fusion.apply({"params": params["fusion"]}, features, train, present)

  made = golden.on_features(fusion, params, tuple(SIDES), encode)
  return params, dataclasses.replace(made, fuse=fuse)


# DGL: a layer below each fusion of the official code.


@pytest.mark.parametrize(("x", "y"), golden.cases("dgl"))
def test_dgl(x, y):
  """The losses and every gradient of a step."""
  params, made = model_of(x)
  rule = dgl.make(alpha=x["alpha"])

  @golden.program()
  def run(params, labels):
    start = golden.state(params)
    grads, metrics, _ = golden.step(rule, made, start, golden.batch(labels))
    return grads, metrics

  grads, metrics = run(params, x["label"])
  golden.close(metrics["cls"], y["loss_f"])
  golden.close({m: metrics[f"cls_{m}"] for m in SIDES},
               {m: y[f"loss_{m}"] for m in SIDES})  # fmt: skip
  total = y["loss_f"] + x["alpha"] * (y["loss_a"] + y["loss_v"])
  golden.close(metrics["loss"], total)
  golden.close(torch_names(x["fusion"], grads), y["grads"])


# ARL: the same model; w as released (never used), and used in its own step.


@pytest.mark.parametrize(("x", "y"), golden.cases("arl"))
def test_arl(x, y):
  """w, the losses, and every gradient before and after the warm-up."""
  params, made = model_of(x)
  late = x["epoch"] > x["start"]
  options = {"gamma": x["gamma"], "temperature": x["T"]}
  rule = arl.make(**options, faithful=not x["assigned"])

  @golden.program()
  def run(params, labels, active):
    start, batch = golden.state(params, active), golden.batch(labels)
    grads, metrics, _ = golden.step(rule, made, start, batch)
    out, _ = made.forward(params, {}, {}, None, True)
    return grads, metrics, arl.weights(out.unimodal, batch, x["T"])

  grads, metrics, w = run(params, x["label"], jnp.float64(late))
  golden.close({m: metrics[f"cls_{m}"] for m in SIDES},
               {m: y[f"loss_{m}"] for m in SIDES})  # fmt: skip
  golden.close(metrics["loss"], y["loss"])
  if late:
    golden.close([w["a"], w["v"]], list(y["weight"]))
  found = torch_names(x["fusion"], grads)
  if x["fusion"] == "concat":
    # Of the shared bias, our unimodal read-outs have half (deviation 4).
    found.pop("fusion_module.fc_out.bias")
    y["grads"].pop("fusion_module.fc_out.bias")
  golden.close(found, y["grads"])
