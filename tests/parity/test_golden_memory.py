"""Rules with a memory or a solver, against their official implementations."""

import types

import jax
import jax.numpy as jnp
import pytest

import golden
from dmg_jax.fusion import shared_head
from dmg_jax.methods import greedy, mla, mmpareto
from dmg_jax.types import SHARED

# MLA: features are the parameters, so that nothing but the head is learned.


def mla_steps(x, y):
  """Recorded substeps, as one list per batch."""
  pairs = list(zip(x["substeps"], y["substeps"], strict=True))
  count = 1 + max(int(i["modality"]) for i, _ in pairs)
  return [pairs[i : i + count] for i in range(0, len(pairs), count)]


def mla_turns(x, y, projection):
  """``(recorded, gradient of the head, factors of the update)`` of turns."""
  head = {"head": {"kernel": x["W"].T, "bias": x["b"]}}
  rule, made, memory = mla.make(projection=projection), None, None
  epoch = types.SimpleNamespace(steps_per_epoch=x["n_batches_per_epoch"])
  for turns in mla_steps(x, y):
    z = {f"m{int(i['modality'])}": i["z"] for i, _ in turns}
    params = {"features": z, "fusion": head}
    made = made or golden.on_features(shared_head.Fusion(len(x["b"])), params)
    start = golden.state(params, memory)
    if memory is None:
      start = start.replace(method=rule.init(made, start, None))
      start = rule.between_epochs(made, start, epoch, 0)
    batch = golden.batch(turns[0][0]["label"])
    _, _, after = golden.step(rule, made, start, batch)
    memory = after.method
    for (_, theirs), (grads, scale) in zip(turns, after.opt_state, strict=True):
      yield theirs, grads["fusion"]["head"], scale
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
  logits = {f"m{i}": jnp.asarray(o) for i, o in enumerate(x["logits"])}
  golden.close(mla.fuse(logits), y["fused_row"])


# MMPareto: recorded gradients of both tasks.


@pytest.mark.parametrize(("x", "y"), golden.cases("mmpareto", "step"))
def test_mmpareto(x, y):
  """Weights and the gradients that the optimiser sees, tensor by tensor."""
  sides = ("audio", "visual")
  fused = {m: x[f"g_mm_{m}"] for m in sides}
  own = {m: x[f"g_uni_{m}"] for m in sides}
  owner = {m: dict.fromkeys(fused[m], m) for m in sides}
  made = types.SimpleNamespace(owner=owner, modalities=sides)
  fused, own = jax.tree.map(jnp.asarray, (fused, own))
  balance = jax.jit(lambda a, b: mmpareto.balance(made, a, b, x["gamma"]))
  grads, weights = balance(fused, own)
  golden.close(grads, {m: y[f"g_{m}"] for m in sides}, rtol=1e-9)
  golden.close(weights, {m: y[f"k_{m}"][0] for m in sides})


def test_mmpareto_solver():
  """Weights of the official solver on pairs that disagree.

  On pairs that agree it is never called: the rule has ½ there.
  """
  x, y = golden.cases("mmpareto", "solver")[0].values
  compared = 0
  for pair, k, norm in zip(
    x["pairs"], y["k"], y["min_norm_squared"], strict=True
  ):
    one, two = jnp.asarray(pair["g0"]), jnp.asarray(pair["g1"])
    ours = mmpareto.min_norm(one, two)
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


def greedy_problem(params):
  owner = {
    k: next(o for part, o in _GREEDY.items() if part in k) for k in params
  }
  return types.SimpleNamespace(owner=owner, modalities=("m0", "m1"))


@pytest.mark.parametrize(("x", "y"), golden.cases("greedy"))
def test_greedy(x, y):
  """Accumulated speeds, d, and who is curated, after every step.

  The accumulators are float32. Our ``care`` is -1 where the official code
  clears a flag and leaves the modality of old or unused decisions behind.
  """
  made = greedy_problem(x["params"])
  rule = greedy.make(
    epsilon=x["epsilon"],
    window=x["curation_windowsize"],
    start=x["starting_epoch"] - 1,
  )
  full = types.SimpleNamespace(modalities=made.modalities)
  start = golden.state(x["params"]).replace(stats={"gates": {}})
  start = start.replace(method=rule.init(full, start, None))
  observe = jax.jit(
    lambda memory, grads, params: greedy.observe(
      made, memory, grads, params, x["epsilon"], x["curation_windowsize"]
    )
  )
  for x_t, y_t in zip(x["steps"], y["steps"], strict=True):
    start = rule.between_epochs(full, start, None, x_t["epoch_1based"] - 1)
    grads = jax.tree.map(jnp.asarray, x_t["grads"])
    memory, d = observe(start.method, grads, start.params)
    golden.close(memory.bypass, y_t["M_bypass"], rtol=5e-7)
    golden.close(memory.main, y_t["M_main"], rtol=5e-7)
    golden.close(d, y_t["d_BDR"], atol=5e-7)
    assert (memory.care >= 0) == y_t["curation_mode"]
    if y_t["curation_mode"]:
      assert memory.care == y_t["caring_modality"]
    start = start.replace(method=memory)
