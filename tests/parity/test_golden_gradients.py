"""Rules that change the gradient, against their official implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import _terms, agm, amss, ogm_ge
from dmg_jax.model.fusion import concat
from dmg_jax.model.fusion import sum as late
from dmg_jax.types import SHARED, Outputs

SIDES = {"a": "audio", "v": "visual"}


# OGM-GE: one convolution per modality, its gradient replayed.


def ogm_params(x):
  """``(fusion, its parameters, features, gradients of convolutions)``."""
  z = {m: x[f"z_{m}"] for m in SIDES}
  grads = {
    m: {
      p: x["grad_before"][f"{name}_net.conv1.{p}"] for p in ("weight", "bias")
    }
    for m, name in SIDES.items()
  }
  if x["fusion"] == "concat":
    head = golden.split_head(tuple(SIDES), z, x["W"], x["b"])
    return concat.Fusion(4), head, z, grads
  head = {
    f"head_{m}": {"kernel": x[f"W_{m}"].T, "bias": x[f"b_{m}"]} for m in SIDES
  }
  return late.Fusion(4), head, z, grads


@golden.program("fusion", "alpha", "noise")
def run_ogm(head, z, recorded, labels, fusion, alpha, noise):
  """Outputs, what κ is made of, and one step."""
  zeros = jax.tree.map(jnp.zeros_like, recorded)
  params, batch = {"features": zeros, "fusion": head}, golden.batch(labels)
  made = golden.on_features(
    fusion,
    params,
    tuple(SIDES),
    lambda m, p: golden.replay(p, z[m], recorded[m]),
  )
  out, _ = made.forward(params, {}, {}, None, True)
  s = _terms.scores(out.unimodal, batch)
  kappa = ogm_ge.coefficients(out.unimodal, batch, alpha)
  rule = ogm_ge.make(alpha=alpha, noise=noise, faithful=True)
  start = golden.state(params, rule.init(made, None, None))
  grads, metrics, _ = golden.step(rule, made, start, batch)
  own = _terms.own(out, batch)
  return out, own, s, _terms.ratios(s), kappa, grads, metrics["loss"]


def torch_names(fusion, grads):
  """Our gradients of the OGM-GE model under torch's names."""
  found = {
    f"{SIDES[m]}_net.conv1.{p}": g
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


@pytest.mark.parametrize(("x", "y"), golden.cases("ogm_ge"))
def test_ogm_ge(x, y):
  """Logits, scores, coefficients, and every gradient after modulation."""
  fusion, head, z, recorded = ogm_params(x)
  knobs = {"fusion": fusion, "alpha": x["alpha"], "noise": False}
  out, own, s, rho, kappa, grads, loss = run_ogm(
    head, z, recorded, x["label"], **knobs
  )
  golden.close(out.logits, y["out"])
  golden.close(out.unimodal, {m: y[f"out_{m}"] for m in SIDES})
  golden.close(own, {m: y[f"loss_{m}"] for m in SIDES})
  golden.close(s, {m: y[f"score_{m}"] for m in SIDES})
  golden.close(rho, {m: y[f"ratio_{m}"] for m in SIDES})
  golden.close(kappa, {m: y[f"coeff_{m}"] for m in SIDES})
  after = y.get("grad_after") or y["grad_after_with_zero_noise"]
  golden.close(torch_names(x["fusion"], grads), after)
  golden.close(loss, y["loss"])


@golden.program()
def draw(g):
  """OGM-GE's noise on a gradient, in units of what was drawn."""
  key = jax.random.key(1)
  noise = ogm_ge._modulate(g, 0.0, key, noise=True)
  return noise / jax.random.normal(key, g.shape, g.dtype)


def test_ogm_ge_noise():
  """Noise of the recorded standard deviation, on the recorded tensors."""
  everything = [p.values for p in golden.cases("ogm_ge")]
  x, y = next(v for v in everything if v[0]["modulation"] == "OGM_GE")
  fusion, head, z, recorded = ogm_params(x)
  knobs = {"fusion": fusion, "alpha": x["alpha"], "noise": True}
  *_, grads, _ = run_ogm(head, z, recorded, x["label"], **knobs)
  grads = torch_names(x["fusion"], grads)
  for name in y["unchanged"]:
    golden.close(grads[name], y["grad_after_with_zero_noise"][name])
  for name in y["changed"]:
    before = x["grad_before"][name]
    assert not np.isclose(grads[name], before).any()
    golden.close(draw(before), np.full(before.shape, y["noise_std"][name]))


# AGM: the official net itself, three forward passes.


def agm_model(params, inputs, size):
  """f = fc([s_a tanh(A x_a); s_v tanh(V x_v)]) under torch's names."""

  def forward(params, inputs, present):
    z = {}
    for m, name in SIDES.items():
      there = 1.0 if present is None else present[m][:, None]
      net = inputs[m] * there @ params[f"{name}_net.weight"].T
      net = net + params[f"{name}_net.bias"][None]
      z[m] = size[m] * jnp.tanh(net)
    head = "fusion_module.fc_out"
    both = jnp.concatenate([z["a"], z["v"]], axis=1)
    f = both @ params[f"{head}.weight"].T + params[f"{head}.bias"][None]
    return Outputs(f, {}, z)

  short = {"audio_net": "a", "visual_net": "v"}
  owner = {k: short.get(k.partition(".")[0], SHARED) for k in params}
  return golden.problem(params, owner, forward, tuple(SIDES), inputs=inputs)


@golden.program("alpha")
def run_agm(params, inputs, size, labels, memory, alpha):
  """f of every subset, Shapley values, ratios, and one step."""
  made, batch = agm_model(params, inputs, size), golden.batch(labels, inputs)
  start = golden.state(params, memory)
  out, _ = made.forward(params, {}, inputs, None, True)
  f = agm.subsets(made, params, {}, batch, out)
  mu = agm.shapley(f)
  s = {m: agm.floored(v, batch) for m, v in mu.items()}
  ratios = agm.relative(s), agm.relative(memory.mean)
  rule = agm.make(alpha=alpha, clip=True)
  grads, metrics, after = golden.step(rule, made, start, batch)
  f = {"f_" + "".join(sorted(names)): v for names, v in f.items()}
  return f, mu, ratios, grads, metrics, after.method


def agm_close(x, y, f, mu, ratios, grads, metrics):
  """One step against the official one."""
  golden.close(f, {k: x[k] for k in f})
  golden.close(mu, {m: y[f"mu_{m}"] for m in SIDES})
  golden.close(mu["a"] + mu["v"], y["out"])
  now, best = ratios
  golden.close(now, {m: y[f"ratio_{m}"] for m in SIDES})
  golden.close(best, {m: y[f"optimal_ratio_{m}"] for m in SIDES})
  for m in SIDES:
    golden.close(metrics[f"kappa_{m}"], y[f"kappa_{m}"])
    golden.close(metrics[f"score_{m}"], y[f"s_{m}"])
  golden.close(metrics["loss"], y["loss"])
  loose = 2e-6 if y["clipped"] else golden.RTOL
  golden.close(grads, y["grads"], rtol=loose)


@pytest.mark.parametrize(("x", "y"), golden.cases("agm"))
def test_agm(x, y):
  """Every step: Shapley values, κ, gradients after the clip, running means.

  torch's clip divides by norm + 1e-6: gradients agree to that where it acts.
  """
  mean = {m: np.float64(x[f"tau_{m}"]) for m in SIDES}
  size = {m: np.float64(x[f"feature_scale_{m}"]) for m in SIDES}
  for x_t, y_t in zip(x["steps"], y["steps"], strict=True):
    count = np.float64(x_t["iteration"] - 1)
    memory = agm.State(mean, count, np.float64(1))
    inputs = {m: x_t[f"x_{m}"] for m in SIDES}
    *found, memory = run_agm(
      x["params"], inputs, size, x_t["label"], memory, x["alpha"]
    )
    agm_close(x_t, y_t, *found)
    mean = memory.mean
    golden.close(mean, {m: y_t[f"tau_{m}_after"] for m in SIDES})


# AMSS: recorded gradients of both encoders and the head, and who was drawn.


def amss_grads(recorded):
  """Our tensors of torch's."""
  grads = {}
  for m, name in (("a", "audio"), ("v", "video")):
    conv = f"{name}_net.layer1.conv1"
    kernel = recorded[f"{conv}.weight"].transpose(2, 3, 1, 0)
    grads[m] = {"kernel": kernel, "bias": recorded[f"{conv}.bias"]}
  z = {m: np.zeros((1, len(grads[m]["bias"]))) for m in grads}
  head = "fusion_module.fc_out"
  weight, bias = recorded[f"{head}.weight"], recorded[f"{head}.bias"]
  grads["fusion"] = golden.split_head(tuple("av"), z, weight, bias)
  return grads


def amss_noise(grads, units):
  """Noise that makes the recorded units the largest of the Gumbel trick."""
  noise = jax.tree.map(np.zeros_like, grads)
  for m, name in (("a", "audio"), ("v", "video")):
    noise[m]["kernel"][..., units[name].astype(int)] = 1e6
  return noise


@golden.program("temperature", "plus")
def run_amss(z, head, labels, grads, noise, temperature, plus):
  """ρ, and the gradients of the recorded subnetworks."""
  made = golden.on_features(
    concat.Fusion(head["bias"].shape[0]),
    {"features": z, "fusion": head},
    tuple("av"),
  )
  params = {"features": z, "fusion": head}
  out, _ = made.forward(params, {}, {}, None, True)
  batch = golden.batch(labels)
  ratio = amss.ratios(out, batch, temperature, True)
  entropy = amss.label_entropy(out.logits, batch, True)
  owner = {m: {"kernel": m, "bias": m} for m in "av"}
  owner["fusion"] = {"head_a": "a/head", "head_v": "v/head", "bias": SHARED}
  found = amss.thinned(owner, grads, noise, ratio, plus, True)
  return ratio, entropy, found


@pytest.mark.parametrize(("x", "y"), golden.cases("amss"))
def test_amss(x, y):
  """Significance and gradients with the units that were drawn there.

  The script draws units of the head as well, and does not use them.
  """
  head = golden.split_head(tuple("av"), x["z"], x["W"], x["b"])
  grads = amss_grads(x["grads"])
  noise = amss_noise(grads, x["units"])
  knobs = {"temperature": x["temperature"], "plus": x["plus"]}
  ratio, labels, found = run_amss(
    x["z"], head, x["label"], grads, noise, **knobs
  )
  golden.close(labels, y["HY"])
  golden.close(ratio, y["coeff"])
  golden.close(found, amss_grads(y["grads"]))
