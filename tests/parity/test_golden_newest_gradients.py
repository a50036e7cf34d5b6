"""The newest rules that change the gradient, against their official code."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import arl, cggm, dgl, inforeg
from dmg_jax.model.fusion import concat, own_heads
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


# CGGM: the official head on the sum of features is ours with equal blocks.

INPUTS = ("text", "audio", "vision")


def cggm_params(x):
  """Parameters of ``own_heads`` from the recorded torch weights."""
  net, heads = x["params"], x["classifier"]
  kernel = np.concatenate([net["out_layer.weight"].T] * len(INPUTS))
  fusion = {"fused": {"kernel": kernel, "bias": net["out_layer.bias"]}}
  features = {}
  for i, m in enumerate(INPUTS):
    own, name = f"encoders.{i}", f"classifers.{i}.out_layer"
    bias = net[f"{own}.bias"]
    features[m] = {"weight": net[f"{own}.weight"].T, "bias": bias}
    bias = heads[f"{name}.bias"]
    fusion[f"head_{m}"] = {"kernel": heads[f"{name}.weight"].T, "bias": bias}
  return {"features": features, "fusion": fusion}


def cggm_names(grads):
  """Our gradients under torch's names: ``(net, classifiers)``."""
  net, heads = {}, {}
  for i, m in enumerate(INPUTS):
    own = grads["features"][m]
    net[f"encoders.{i}.weight"] = own["weight"].T
    net[f"encoders.{i}.bias"] = own["bias"]
    head, name = grads["fusion"][f"head_{m}"], f"classifers.{i}.out_layer"
    heads[f"{name}.weight"] = head["kernel"].T
    heads[f"{name}.bias"] = head["bias"]
  fused = grads["fusion"]["fused"]
  net["out_layer.weight"] = sum(np.split(fused["kernel"], len(INPUTS))).T
  net["out_layer.bias"] = fused["bias"]
  return net, heads


@golden.program("weight", "rho")
def run_cggm(params, x, last, weight, rho):
  """A step, and the next memory."""

  def encode(m, p):
    return jnp.tanh(x[m] @ p["weight"] + p["bias"][None])

  fusion = own_heads.Fusion(4)
  made = golden.on_features(fusion, params, INPUTS, encode)
  leaf = {f"head_{m}": f"{m}/head" for m in INPUTS}
  owner = made.owner["fusion"]
  made.owner["fusion"] = {
    k: {p: leaf.get(k, o) for p, o in v.items()} for k, v in owner.items()
  }
  rule = cggm.make(rho=rho, weight=weight, faithful=True)
  start = golden.state(params, last)
  batch = golden.batch(x["labels"])
  grads, metrics, after = golden.step(rule, made, start, batch)
  return grads, metrics, after.method


@pytest.mark.parametrize(("x", "y"), golden.cases("cggm"))
def test_cggm(x, y):
  """Three steps: accuracies, B, L_gm, and every gradient with and without it.

  What the official code adds in the next step is added in its own here.
  """
  params, steps = cggm_params(x), y["steps"]
  memory = {m: np.float64(0) for m in INPUTS}
  for t, (batch, out) in enumerate(zip(x["batches"], steps, strict=True)):
    last = memory
    grads, metrics, memory = run_cggm(params, batch, last, 0.0, x["rou"])
    golden.close([memory[m] for m in INPUTS], list(out["acc"]))
    found = [metrics[f"coefficient_{m}"] for m in INPUTS]
    golden.close(found, list(out["coeff"]))
    golden.close(metrics["direction"], out["l_gm"])
    net, heads = cggm_names(grads)
    golden.close(net, out["grads"])
    golden.close(heads, out["classifier_grads"])
    if t + 1 < len(steps):
      added = steps[t + 1]["lamda_2_adds_to_out_layer"]
      grads, *_ = run_cggm(params, batch, last, 0.2, x["rou"])
      both, _ = cggm_names(grads)
      golden.close(both["out_layer.weight"] - net["out_layer.weight"], added)
      both["out_layer.weight"] = net["out_layer.weight"]
      golden.close(both, net)


# InfoReg: an epoch of three steps below the fusion ``concat``.


def inforeg_step(x, **more):
  """A recorded step as the model above reads it."""
  names = {"head.weight": "fusion_module.fc_out.weight",
           "head.bias": "fusion_module.fc_out.bias"}  # fmt: skip
  params = {names.get(k, k): v for k, v in x["params"].items()}
  return {**x, "fusion": "concat", "params": params, **more}


@golden.program()
def run_inforeg(x, first, memory, began):
  """One step of an epoch, and the memory after it."""
  params, made = model_of(inforeg_step(x))
  rule = inforeg.make(strength=0.95, others=0.1, faithful=True)
  now = memory.replace(start=model_of(inforeg_step(first))[0])
  start = golden.state(params, now)
  if began is not None:
    past = memory.replace(current=began)
    start = start.replace(method=past)
    start = rule.between_epochs(made, start, None, 1)
  batch = golden.batch(x["label"])
  grads, metrics, after = golden.step(rule, made, start, batch)
  return grads, metrics, after.method


@pytest.mark.parametrize(("x", "y"), golden.cases("inforeg"))
def test_inforeg(x, y):
  """Every gradient of an epoch, its losses and the traces at its end."""
  one = dict.fromkeys(SIDES, np.float64(1))
  none = dict.fromkeys(SIDES, np.float64(0))
  traces, began = dict.fromkeys(SIDES, np.zeros(11)), None
  if x["epoch"]:
    past = np.concatenate([np.zeros(11), x["audio_traces"]])
    traces = dict.fromkeys(SIDES, past[-12:-1])
    began = dict.fromkeys(SIDES, past[-1])
  memory = inforeg.State((), traces, none, one)
  sums = {"loss": 0, "loss_a": 0, "loss_v": 0}
  for t, (step, expected) in enumerate(
    zip(x["steps"], y["grads"], strict=True)
  ):
    grads, metrics, memory = run_inforeg(
      step, x["steps"][0], memory, None if t else began
    )
    names = {"fusion_module.fc_out.weight": "head.weight",
             "fusion_module.fc_out.bias": "head.bias"}  # fmt: skip
    found = torch_names("concat", grads)
    golden.close({names.get(k, k): g for k, g in found.items()}, expected)
    sums["loss"] += metrics["cls"] / 3
    for m in SIDES:
      sums[f"loss_{m}"] += metrics[f"cls_{m}"] / 3
  golden.close(sums, {k: y[k] for k in sums})
  golden.close(memory.current, {m: y[f"trace_{m}"] for m in SIDES})
