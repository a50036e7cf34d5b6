"""Rules that change the gradient, against their official implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax import losses
from dmg_jax.fusion import concat
from dmg_jax.fusion import sum as late
from dmg_jax.methods import agm, ogm_ge
from dmg_jax.types import SHARED, Outputs

SIDES = {"a": "audio", "v": "visual"}


# OGM-GE: one convolution per modality, its gradient replayed.


def ogm_model(x):
  """``(problem, params)``: recorded features and convolution gradients."""
  z = {m: x[f"z_{m}"] for m in SIDES}
  grads = {
    m: {
      p: x["grad_before"][f"{name}_net.conv1.{p}"] for p in ("weight", "bias")
    }
    for m, name in SIDES.items()
  }
  if x["fusion"] == "concat":
    fusion = concat.Fusion(4)
    head = golden.split_head(tuple(SIDES), z, x["W"], x["b"])
  else:
    fusion = late.Fusion(4)
    head = {
      f"head_{m}": {"kernel": x[f"W_{m}"].T, "bias": x[f"b_{m}"]} for m in SIDES
    }
  zeros = jax.tree.map(np.zeros_like, grads)
  params = {"features": zeros, "fusion": head}
  made = golden.on_features(
    fusion, params, lambda m, p: golden.replay(p, jnp.asarray(z[m]), grads[m])
  )
  return made, params


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
  made, params = ogm_model(x)
  batch = golden.batch(x["label"])
  out, _ = made.forward(params, {}, {}, None, True)
  golden.close(out.logits, y["out"])
  golden.close(out.unimodal, {m: y[f"out_{m}"] for m in SIDES})
  for m, logits in out.unimodal.items():
    each = losses.cross_entropy(logits, batch.labels)
    golden.close(each.mean(), y[f"loss_{m}"])
  kappa = ogm_ge.coefficients(out.unimodal, batch, x["alpha"])
  golden.close(kappa, {m: y[f"coeff_{m}"] for m in SIDES})
  s = ogm_ge._terms.scores(out.unimodal, batch)
  golden.close(s, {m: y[f"score_{m}"] for m in SIDES})
  rho = ogm_ge._terms.ratios(s)
  golden.close(rho, {m: y[f"ratio_{m}"] for m in SIDES})
  rule = ogm_ge.make(alpha=x["alpha"], noise=False, faithful=True)
  start = golden.state(params, rule.init(made, None, None))
  grads, metrics, _ = golden.step(rule, made, start, batch)
  after = y.get("grad_after") or y["grad_after_with_zero_noise"]
  golden.close(torch_names(x["fusion"], grads), after)
  golden.close(metrics["loss"], y["loss"])


def noisy_case():
  return next(
    p for p in golden.cases("ogm_ge") if p.values[0]["modulation"] == "OGM_GE"
  )


def test_ogm_ge_noise():
  """Noise of the recorded standard deviation, on the recorded tensors."""
  x, y = noisy_case().values
  made, params = ogm_model(x)
  rule = ogm_ge.make(alpha=x["alpha"], faithful=True)
  start = golden.state(params, rule.init(made, None, None))
  grads, _, _ = golden.step(rule, made, start, golden.batch(x["label"]))
  grads = torch_names(x["fusion"], grads)
  for name in y["unchanged"]:
    golden.close(grads[name], y["grad_after_with_zero_noise"][name])
  for name in y["changed"]:
    assert not np.isclose(grads[name], x["grad_before"][name]).any()
    g, key = jnp.asarray(x["grad_before"][name]), jax.random.key(1)
    noise = ogm_ge._modulate(g, 0.0, key, noise=True)
    drawn = jax.random.normal(key, g.shape, g.dtype)
    golden.close(noise / drawn, np.full(g.shape, y["noise_std"][name]))


# AGM: the official net itself, three forward passes.


def agm_model(x, batch):
  """f = fc([s_a tanh(A x_a); s_v tanh(V x_v)]) under torch's names."""

  def forward(params, inputs, present):
    z = {}
    for m, name in SIDES.items():
      there = 1.0 if present is None else present[m][:, None]
      net = inputs[m] * there @ params[f"{name}_net.weight"].T
      net = net + params[f"{name}_net.bias"][None]
      z[m] = x[f"feature_scale_{m}"] * jnp.tanh(net)
    head = "fusion_module.fc_out"
    both = jnp.concatenate([z["a"], z["v"]], axis=1)
    f = both @ params[f"{head}.weight"].T + params[f"{head}.bias"][None]
    return Outputs(f, {}, z)

  short = {"audio_net": "a", "visual_net": "v"}
  owner = {k: short.get(k.partition(".")[0], SHARED) for k in x["params"]}
  return golden.problem(
    x["params"], owner, forward, tuple(SIDES), inputs=batch.inputs
  )


def agm_kappa(x, y, start, made, batch):
  """κ, scores and Shapley values of one step against the official ones."""
  out, _ = made.forward(start.params, {}, batch.inputs, None, True)
  f = agm.subsets(made, start.params, {}, batch, out)
  for names, key in (("av", "f_av"), ("a", "f_a"), ("v", "f_v")):
    golden.close(f[frozenset(names)], x[key])
  mu = agm.shapley(f)
  golden.close(mu, {m: y[f"mu_{m}"] for m in SIDES})
  golden.close(mu["a"] + mu["v"], y["out"])
  s = {m: agm.floored(v, batch) for m, v in mu.items()}
  golden.close(agm.relative(s), {m: y[f"ratio_{m}"] for m in SIDES})
  best = {m: y[f"optimal_ratio_{m}"] for m in SIDES}
  golden.close(agm.relative(start.method.mean), best)


@pytest.mark.parametrize(("x", "y"), golden.cases("agm"))
def test_agm(x, y):
  """Every step: Shapley values, κ, gradients after the clip, running means.

  torch's clip divides by norm + 1e-6: gradients agree to that where it acts.
  """
  rule = agm.make(alpha=x["alpha"], clip=True)
  for x_t, y_t in zip(x["steps"], y["steps"], strict=True):
    inputs = {m: jnp.asarray(x_t[f"x_{m}"]) for m in SIDES}
    batch = golden.batch(x_t["label"], inputs)
    if x_t is x["steps"][0]:
      made = agm_model(x, batch)
      mean = {m: jnp.float64(x[f"tau_{m}"]) for m in SIDES}
      memory = agm.State(mean, jnp.float64(0), jnp.float64(1))
    memory = memory.replace(count=jnp.float64(x_t["iteration"] - 1))
    start = golden.state(x["params"], memory)
    agm_kappa(x_t, y_t, start, made, batch)
    grads, metrics, after = golden.step(rule, made, start, batch)
    for m in SIDES:
      golden.close(metrics[f"kappa_{m}"], y_t[f"kappa_{m}"])
      golden.close(metrics[f"score_{m}"], y_t[f"s_{m}"])
    golden.close(metrics["loss"], y_t["loss"])
    loose = 2e-6 if y_t["clipped"] else golden.RTOL
    golden.close(grads, y_t["grads"], rtol=loose)
    memory = after.method
    golden.close(memory.mean, {m: y_t[f"tau_{m}_after"] for m in SIDES})
