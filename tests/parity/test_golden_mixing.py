"""Rules that mix, part or choose features, against their official code."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import _conformal, cpsc, iprm, remix
from dmg_jax.model.fusion import components, own_heads, slerp
from dmg_jax.types import Outputs

# IPRM: features are the parameters. The official code adds 1e-8 to sin θ.
close_iprm = functools.partial(golden.close, rtol=1e-6, atol=1e-7)


def dense(recorded, name):
  """Our layer of a recorded torch layer."""
  kernel = recorded[f"{name}.weight"].T
  return {"kernel": kernel, "bias": recorded[f"{name}.bias"]}


def iprm_heads(x):
  """``(our parameters, {their head: ours})``; the third is read by head_m2."""
  if x["kind"] == "two":
    names = {"head_audio": "head_a", "head_video": "head_v"}
    names["head_mixup"] = "mixed_a_v"
    return {o: dense(x["heads"], h) for h, o in names.items()}, names
  names = {f"head_m{m}": f"head_{m}" for m in "12"}
  names |= {"head_mixup_1": "mixed_1_2", "head_mixup_2": "mixed_1_3"}
  names["head_mixup_3"] = "mixed_2_3"
  ours = {o: dense(x["heads"], h) for h, o in names.items()}
  return {**ours, "head_3": ours["head_2"]}, names


@golden.program("alpha", "names")
def run_iprm(z, heads, labels, memory, alpha, names):
  """One step, and the prediction with the memory before it."""
  fusion = slerp.Fusion(heads[f"head_{names[0]}"]["bias"].shape[0])
  params = {"features": z, "fusion": heads}
  made = golden.on_features(fusion, params, names)
  rule = iprm.make(alpha=alpha)
  start = golden.state(params, memory)
  out, _ = made.forward(params, {}, {}, None, False)
  found = golden.step(rule, made, start, golden.batch(labels))
  return rule.predict(out, memory), *found


def iprm_memory(names):
  """The rule's memory before the first step."""
  half = np.float64(0.5)
  start = {
    a: dict.fromkeys(names[i + 1 :], half) for i, a in enumerate(names[:-1])
  }
  return iprm.State(start, start)


def shares(recorded, names):
  """Recorded shares as ours."""
  if not isinstance(recorded, dict):
    return {names[0]: {names[1]: recorded}}
  found = {}
  for pair, value in recorded.items():
    found.setdefault(pair[0], {})[pair[1]] = value
  return found


def as_theirs(grads, theirs, names):
  """Our gradients of the heads under torch's names."""
  fusion = dict(grads["fusion"])
  if "3" in names:  # Theirs has one head for both.
    both = (fusion["head_2"], fusion.pop("head_3"))
    fusion["head_2"] = jax.tree.map(np.add, *both)
  found = {}
  for name, own in theirs.items():
    found[f"{name}.weight"] = fusion[own]["kernel"].T
    found[f"{name}.bias"] = fusion[own]["bias"]
  return found


@pytest.mark.parametrize(("x", "y"), golden.cases("iprm"))
def test_iprm(x, y):
  """Losses, shares and gradients of several steps, and the prediction."""
  names = ("a", "v") if x["kind"] == "two" else ("1", "2", "3")
  heads, theirs = iprm_heads(x)
  memory = iprm_memory(names)
  for x_t, y_t in zip(x["steps"], y["steps"], strict=True):
    _, grads, metrics, after = run_iprm(
      x_t["z"], heads, x_t["label"], memory, alpha=x["alpha"], names=names
    )
    memory = after.method
    close_iprm(metrics["loss"], y_t["loss"])
    close_iprm(memory.probed, shares(y_t["lam"], names))
    close_iprm(memory.found, shares(y_t["lam_hat"], names))
    close_iprm(grads["features"], y_t["grad_z"])
    close_iprm(as_theirs(grads, theirs, names), y_t["grad"])
  if "valid" in x:
    labels = np.zeros(len(x["valid"]["a"]), int)
    logits, *_ = run_iprm(
      x["valid"], heads, labels, memory, alpha=x["alpha"], names=names
    )
    close_iprm(logits, y["prediction"])


# Remix: features are the parameters.
REMIX = {"audio_net": "audio", "visual_net": "video"}


def remix_params(x):
  """Our parameters of the official ones."""
  head = {"audio": "head_audio", "video": "head_video"}
  return {
    "features": {m: x[f"{net}.z"] for net, m in REMIX.items()},
    "fusion": {
      "fused": dense(x, "head"),
      **{f"head_{m}": dense(x, name) for m, name in head.items()},
    },
  }


@golden.program("alpha", "gamma")
def run_remix(params, labels, group, alpha, gamma):
  """One step."""
  fusion = own_heads.Fusion(params["fusion"]["fused"]["bias"].shape[0])
  made = golden.on_features(fusion, params, tuple(REMIX.values()))
  rule = remix.make(alpha=alpha, gamma=gamma)
  start = golden.state(params, remix.State(group))
  grads, metrics, _ = golden.step(rule, made, start, golden.batch(labels))
  return grads, metrics


@pytest.mark.parametrize(("x", "y"), golden.cases("remix", "step"))
def test_remix(x, y):
  """Losses and gradients of the warm-up and of batches of one modality."""
  group = {"warm": -1, "audio": 0, "video": 1}[x["mode"]]
  grads, metrics = run_remix(
    remix_params(x["params"]),
    x["label"],
    np.full(len(x["label"]), group, np.int32),
    alpha=float(x["alpha"]),
    gamma=float(x["gamma"]),
  )
  golden.close(metrics["loss"], y["loss"])
  golden.close(grads, remix_params(y["grads"]))


@pytest.mark.parametrize(("x", "y"), golden.cases("remix", "remix"))
def test_remix_groups(x, y):
  """Which samples go to which modality."""
  logits = {"audio": x["a"], "video": x["v"]}

  def forward(params, inputs, present):
    return Outputs(inputs["audio"], dict(inputs), {})

  made = golden.problem({}, {}, forward, tuple(logits), inputs=logits)
  batch = golden.batch(np.zeros(len(x["a"])), jax.tree.map(jnp.asarray, logits))
  found = np.asarray(remix.weakest(made, {}, {}, batch)["group"])
  np.testing.assert_array_equal(np.flatnonzero(found == 0), y["audio"])
  np.testing.assert_array_equal(np.flatnonzero(found == 1), y["video"])


# CPSC: features are the parameters.
CPSC = {"a": "audio", "v": "video"}


def cpsc_heads(recorded):
  """Our parameters of the fusion ``components``."""
  found = {}
  for m, name in CPSC.items():
    made = {
      "hidden": f"feature_generator.{name}_mlp.0",
      "variants": f"feature_generator.{name}_mlp.2",
      "out": f"cls_{m}",
    }
    found[f"head_{m}"] = {k: dense(recorded, v) for k, v in made.items()}
  return found


def cpsc_threshold(x, m):
  """The official τ of a modality, by our rule."""
  found = x["calibration"]
  logits = found["z"][m] @ x["old"][f"cls_{m}.weight"].T
  logits = logits + x["old"][f"cls_{m}.bias"]
  p = np.exp(logits - logits.max(axis=1, keepdims=True))
  p = p / p.sum(axis=1, keepdims=True)
  doubt = 1 - p[np.arange(len(p)), found["label"]]
  return _conformal.threshold(doubt, x["alpha"], True)


@golden.program("names")
def run_cpsc(params, old, limit, active, labels, names):
  """One step of the official rule."""
  bias = params["fusion"]["head_a"]["out"]["bias"]
  fusion = components.Fusion(bias.shape[0], hidden=2)
  made = golden.on_features(fusion, params, names)
  heads = cpsc.own_heads(made, {**params, "fusion": old})
  start = golden.state(params, cpsc.State(active, heads, limit))
  rule = cpsc.make(faithful=True)
  grads, metrics, _ = golden.step(rule, made, start, golden.batch(labels))
  return grads, metrics


@pytest.mark.parametrize(("x", "y"), golden.cases("cpsc"))
def test_cpsc(x, y):
  """Thresholds, and losses and gradients before and after they are used."""
  limit = {m: cpsc_threshold(x, m) for m in CPSC}
  golden.close(limit, y["threshold"])
  heads = cpsc_heads(x["params"])
  old = cpsc_heads({**x["params"], **x["old"]})
  params = {"features": x["z"], "fusion": heads}
  grads, metrics = run_cpsc(
    params,
    old,
    {**limit, "fused": np.float64(0)},
    np.float64(x["active"]),
    x["label"],
    names=tuple(CPSC),
  )
  golden.close(metrics["loss"], y["loss"])
  golden.close(metrics["matching"], y["alignment"])
  golden.close(metrics["variants"], y["ib"])
  if x["active"]:
    golden.close(metrics["reliability"], y["reliability"])
  theirs = y["grads"]
  features = {m: theirs[f"{n}_encoder.z"] for m, n in CPSC.items()}
  golden.close(grads["features"], features)
  golden.close(grads["fusion"], cpsc_heads(theirs))
