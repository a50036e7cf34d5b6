"""G2D against its official code: one convolution below each fusion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import g2d, umt
from dmg_jax.model.fusion import concat
from dmg_jax.model.fusion import sum as late

SIDES = {"a": "audio_net", "v": "visual_net"}
HEAD = "fusion_module.fc"


def params_of(kind, found):
  """Our parameters from torch's; convolutions keep their layout."""
  features = {
    m: {p: found[f"{net}.{p}"] for p in ("weight", "bias")}
    for m, net in SIDES.items()
  }
  if kind == "concat":
    z = dict.fromkeys(SIDES, np.zeros((1, 3)))
    whole = found[f"{HEAD}_out.weight"], found[f"{HEAD}_out.bias"]
    return {"features": features, "fusion": golden.split_head(SIDES, z, *whole)}
  fusion = {}
  for m, letter in (("a", "x"), ("v", "y")):
    kernel = found[f"{HEAD}_{letter}.weight"].T
    fusion[f"head_{m}"] = {
      "kernel": kernel,
      "bias": found[f"{HEAD}_{letter}.bias"],
    }
  return {"features": features, "fusion": fusion}


def torch_names(kind, grads):
  """Our gradients under torch's names."""
  found = {
    f"{SIDES[m]}.{p}": g
    for m, tree in grads["features"].items()
    for p, g in tree.items()
  }
  head = grads["fusion"]
  if kind == "concat":
    found[f"{HEAD}_out.weight"] = golden.joined_head(tuple(SIDES), head)
    found[f"{HEAD}_out.bias"] = head["bias"]
    return found
  for m, letter in (("a", "x"), ("v", "y")):
    found[f"{HEAD}_{letter}.weight"] = head[f"head_{m}"]["kernel"].T
    found[f"{HEAD}_{letter}.bias"] = head[f"head_{m}"]["bias"]
  return found


@golden.program("kind", "options")
def run(params, teacher, x, labels, stage, kind, options):
  """A step of phase 2; ``(gradients, scale, metrics)``."""

  def encode(m, p):
    flat = x[m].reshape(len(x[m]), -1)
    kernel = p["weight"].reshape(len(p["weight"]), -1)
    return jnp.tanh(flat @ kernel.T + p["bias"][None])

  fusion = concat.Fusion(3) if kind == "concat" else late.Fusion(3, mean=True)
  made = golden.on_features(fusion, params, tuple(SIDES), encode)
  rule = g2d.make(**dict(options))
  phase = umt.State(jnp.ones(()), jnp.zeros((), jnp.int32), (teacher, {}), ())
  start = golden.state(params, g2d.State(phase, stage))
  key, batch = jax.random.key(0), golden.batch(labels)
  after, metrics = rule.step(made, start, batch, key, golden.capture)
  grads, scale = after.opt_state[-1]
  return grads, scale, metrics


@pytest.mark.parametrize("faithful", [True, False])
@pytest.mark.parametrize(("x", "y"), golden.cases("g2d"))
def test_g2d(x, y, faithful):
  """The loss, whose turn it is, and every gradient.

  By default a whole encoder is frozen; officially its convolution has a
  gradient of zero.
  """
  kind, names = x["fusion"], ("feature_weight", "logit_weight", "temperature")
  options = (*((k, x[k]) for k in names), ("faithful", faithful))
  params, teacher = (params_of(kind, x[k]) for k in ("params", "teacher"))
  inputs = {m: x[f"x_{m}"] for m in SIDES}
  ended = x["epoch"] > x["modulation_ends"]
  stage = np.int32(1 if ended else 0)
  grads, scale, metrics = run(
    params, teacher, inputs, x["label"], stage, kind, options
  )
  golden.close(metrics["loss"], y["loss"])
  moves = {m: 1 if ended else y[f"coeff_{m}"] for m in SIDES}
  golden.close({m: metrics[f"moves_{m}"] for m in SIDES}, moves)
  found = torch_names(kind, grads)
  if faithful:
    assert scale is None
    golden.close(found, y["grads"])
    return
  golden.close(scale, moves)
  for m, net in SIDES.items():
    weight = found.pop(f"{net}.weight")
    if moves[m]:
      golden.close(weight, y["grads"][f"{net}.weight"])
  golden.close(found, {k: y["grads"][k] for k in found})
