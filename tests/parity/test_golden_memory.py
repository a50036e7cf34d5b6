"""Rules with a memory or a solver, against their official implementations."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import _terms, greedy, mla, mmpareto, reconboost
from dmg_jax.model.fusion import shared_head
from dmg_jax.types import SHARED, Outputs

# MLA: features are the parameters, so that nothing but the head is learned.


def mla_steps(x, y):
  """Recorded substeps, as one list per batch."""
  pairs = list(zip(x["substeps"], y["substeps"], strict=True))
  count = 1 + max(int(i["modality"]) for i, _ in pairs)
  return [pairs[i : i + count] for i in range(0, len(pairs), count)]


@golden.program("names", "projection")
def run_mla(params, labels, memory, names, projection):
  """One step: the head's gradient and the factors of every turn; memory."""
  fusion = shared_head.Fusion(len(params["fusion"]["head"]["bias"]))
  made = golden.on_features(fusion, params, names)
  start, batch = golden.state(params, memory), golden.batch(labels)
  rule = mla.make(projection=projection)
  _, _, after = golden.step(rule, made, start, batch)
  turns = [(g["fusion"]["head"], scale) for g, scale in after.opt_state]
  return turns, after.method


def mla_memory(x):
  """The rule's memory before the first step of an epoch."""
  rule, d = mla.make(), x["W"].shape[1]
  params = {"head": x["W"].T}
  made = types.SimpleNamespace(
    owner={"head": SHARED}, readout=shared_head.READOUT
  )
  start = golden.state(params)
  start = start.replace(method=rule.init(made, start, None))
  epoch = types.SimpleNamespace(steps_per_epoch=x["n_batches_per_epoch"])
  memory = rule.between_epochs(made, start, epoch, 0).method
  assert memory.projection.shape == (d, d)
  return memory


def mla_turns(x, y, projection):
  """``(recorded, gradient of the head, factors of the update)`` of turns."""
  head, memory = {"kernel": x["W"].T, "bias": x["b"]}, mla_memory(x)
  for turns in mla_steps(x, y):
    z = {f"m{int(i['modality'])}": i["z"] for i, _ in turns}
    params = {"features": z, "fusion": {"head": head}}
    label = turns[0][0]["label"]
    found, memory = run_mla(params, label, memory, tuple(z), projection)
    for (_, theirs), (grads, scale) in zip(turns, found, strict=True):
      yield theirs, grads, scale
    if projection == "outer":
      golden.close(memory.projection, turns[-1][1]["P_after"])


@pytest.mark.parametrize(("x", "y"), golden.cases("mla", "projection"))
def test_mla_projection(x, y):
  """The head's gradient of every turn, and P after every batch.

  ``projection="outer"`` is the official update once its name test matches
  (deviations 1 and 2).
  """
  for theirs, head, _ in mla_turns(x, y, "outer"):
    golden.close(head["kernel"].T, theirs["grad_W_after"])
    golden.close(head["bias"], theirs["grad_b"])


def test_mla_as_released():
  """``projection="off"``: the released code, whose test never matches.

  Only the encoder whose turn it is and the head move (deviation 4).
  """
  x, y = golden.cases("mla", "projection")[0].values
  for theirs, head, scale in mla_turns(x, y, "off"):
    golden.close(head["kernel"].T, theirs["grad_W_before"])
    assert float(sum(scale.values())) == 2


@pytest.mark.parametrize(("x", "y"), golden.cases("mla", "dynamic"))
def test_mla_prediction(x, y):
  """The official weights on single rows, where its softmax is over classes.

  On a whole batch its entropy is over the batch (``*_batch``): deviation 3.
  """
  logits = {f"m{i}": o for i, o in enumerate(x["logits"])}
  golden.close(golden.program()(mla.fuse)(logits), y["fused_row"])


# MMPareto: recorded gradients of both tasks.


@golden.program("gamma")
def run_mmpareto(fused, own, gamma):
  owner = {m: dict.fromkeys(fused[m], m) for m in fused}
  made = types.SimpleNamespace(owner=owner, modalities=tuple(fused))
  return mmpareto.balance(made, fused, own, gamma)


@pytest.mark.parametrize(("x", "y"), golden.cases("mmpareto", "step"))
def test_mmpareto(x, y):
  """Weights and the gradients that the optimiser sees, tensor by tensor."""
  sides = ("audio", "visual")
  fused = {m: x[f"g_mm_{m}"] for m in sides}
  own = {m: x[f"g_uni_{m}"] for m in sides}
  grads, weights = run_mmpareto(fused, own, x["gamma"])
  golden.close(grads, {m: y[f"g_{m}"] for m in sides}, rtol=1e-9)
  golden.close(weights, {m: y[f"k_{m}"][0] for m in sides})


def test_mmpareto_solver():
  """Weights of the official solver on pairs that disagree.

  On pairs that agree it is never called: the rule has ½ there.
  """
  x, y = golden.cases("mmpareto", "solver")[0].values
  solve, compared = golden.program()(mmpareto.min_norm), 0
  for pair, k, norm in zip(
    x["pairs"], y["k"], y["min_norm_squared"], strict=True
  ):
    one, two = pair["g0"], pair["g1"]
    ours = solve(one, two)
    if one @ two > 0:
      golden.close(ours, 0.5)
      continue
    golden.close(ours, k[0])
    h = ours * one + (1 - ours) * two
    golden.close(h @ h, norm)
    compared += 1
  assert compared == 3


# Greedy: recorded gradients, constant weights.

_GREEDY = {
  "net_view_0": "m0",
  "net_view_1": "m1",
  "fc_squeeze": SHARED,
  "fc_visual": "m0/gate",
  "fc_skeleton": "m1/gate",
}


@golden.program("epsilon", "window")
def run_greedy(memory, grads, params, epsilon, window):
  owner = {
    k: next(o for part, o in _GREEDY.items() if part in k) for k in params
  }
  made = types.SimpleNamespace(owner=owner, modalities=("m0", "m1"))
  return greedy.observe(made, memory, grads, params, epsilon, window)


@pytest.mark.parametrize(("x", "y"), golden.cases("greedy"))
def test_greedy(x, y):
  """Accumulated speeds, d, and who is curated, after every step.

  The accumulators are float32. Our ``care`` is -1 where the official code
  clears a flag and leaves the modality of old or unused decisions behind.
  """
  knobs = {"epsilon": x["epsilon"], "window": x["curation_windowsize"]}
  rule = greedy.make(**knobs, start=x["starting_epoch"] - 1)
  made = types.SimpleNamespace(modalities=("m0", "m1"))
  start = golden.state(x["params"]).replace(stats={"gates": {}})
  start = start.replace(method=rule.init(made, start, None))
  for x_t, y_t in zip(x["steps"], y["steps"], strict=True):
    start = rule.between_epochs(made, start, None, x_t["epoch_1based"] - 1)
    memory, d = run_greedy(start.method, x_t["grads"], x["params"], **knobs)
    golden.close(memory.bypass, y_t["M_bypass"], rtol=5e-7)
    golden.close(memory.main, y_t["M_main"], rtol=5e-7)
    golden.close(d, y_t["d_BDR"], atol=5e-7)
    assert (memory.care >= 0) == y_t["curation_mode"]
    if y_t["curation_mode"]:
      assert memory.care == y_t["caring_modality"]
    start = start.replace(method=memory)


# ReconBoost: logits are the parameters, λ_b is shared.


@golden.program("names", "first", "second", "alpha")
def run_boost(params, labels, memory, names, first, second, alpha):
  """Outputs, both terms of each modality, and one step."""

  def forward(params, inputs, present):
    del inputs, present
    unimodal = {m: params[m] for m in names}
    scale, total = params["scale"], _terms.total(unimodal)
    return Outputs(scale * total, unimodal, unimodal, {"scale": scale})

  owner = {**{m: m for m in names}, "scale": SHARED}
  made = golden.problem(params, owner, forward, names)
  rule = reconboost.make(first=first, second=second, alpha=alpha, faithful=True)
  start, batch = golden.state(params, memory), golden.batch(labels)
  grads, metrics, after = golden.step(rule, made, start, batch)
  out, _ = made.forward(params, {}, {}, None, True)
  own = reconboost.boosts(out, batch, first, second)
  agree = reconboost.agreements(out, batch, True)
  scale = after.opt_state[0][1]
  return out.logits, own, agree, grads, metrics["loss"], scale


def boost_memory(x, within):
  """The rule's memory at an epoch of a stage like the recorded one."""
  names = tuple(x["names"])
  stage = names.index(x["current"]) + (x["stage"] > 0) * len(names)
  assert x["previous"] == names[stage % len(names) - 1]
  zero = jnp.float32(0)
  memory = reconboost.State(jnp.int32(0), zero, zero, ())
  rule = reconboost.make(boost_epochs=4, joint_epochs=4)
  made = types.SimpleNamespace(modalities=names)
  start = golden.state({}, memory)
  return rule.between_epochs(made, start, None, 8 * stage + within).method


@pytest.mark.parametrize(("x", "y"), golden.cases("reconboost"))
def test_reconboost(x, y):
  """Both phases: loss, terms, gradients, and who is updated."""
  params = {**x["logits"], "scale": np.float64(x["boost_rate"])}
  knobs = {"first": x["weight1"], "second": x["weight2"], "alpha": x["alpha"]}
  knobs["names"] = tuple(x["names"])
  logits, own, agree, grads, loss, scale = run_boost(
    params, x["label"], boost_memory(x, 0), **knobs
  )
  golden.close(logits, y["fused_logits"])
  golden.close(own[x["current"]], y["boosting_loss"])
  now = agree[x["current"]] * (x["stage"] > 0)
  golden.close(now, y["agreement_loss"])
  golden.close(loss, y["loss"])
  for m in x["names"]:
    mine = m == x["current"]
    golden.close(grads[m], y["grad_current"] if mine else 0 * grads[m])
    assert scale[m] == mine
  _, _, _, grads, loss, scale = run_boost(
    params, x["label"], boost_memory(x, 4), **knobs
  )
  golden.close(loss, y["phase2_loss"])
  theirs = {**y["phase2_grad_logits"], "scale": y["phase2_grad_boost_rate"]}
  golden.close(grads, theirs)
  assert all(v == 1 for v in scale.values())
