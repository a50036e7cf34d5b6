"""Rules about features, data and weights, against the official code."""

import itertools
import types
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import _terms, opm, relearning, valuation
from dmg_jax.model.fusion import channel, concat
from dmg_jax.types import SHARED, Outputs

# MMTM: maps are channels-first there, channels-last here.

_PARTS = {"squeeze": "squeeze", "visual": "gate_0", "skeleton": "gate_1"}


def last(x):
  return np.moveaxis(x, 1, -1)


@golden.program("ratio")
def run_mmtm(params, maps, cotangent, ratio):
  """Gated maps, gradients of weights and of maps."""
  module = channel.MMTM(ratio=ratio, gate_scale=1.0)
  gates = {"care": jnp.full((), -1, jnp.int32), "seen": jnp.float32(0)}
  for i, a in maps.items():
    gates[f"mean_{i}"] = jnp.zeros(a.shape[-1])

  def gated(params, maps):
    return module.apply({"params": params, "gates": gates}, maps, False)

  out, pull = jax.vjp(gated, params, maps)
  return out, *pull(cotangent)


@pytest.mark.parametrize(("x", "y"), golden.cases("mmtm"))
def test_mmtm(x, y):
  """Gated maps, size of the squeeze, gradients of maps and weights."""
  params = {
    ours: {
      "kernel": x["weights"][f"fc_{theirs}.weight"].T,
      "bias": x["weights"][f"fc_{theirs}.bias"],
    }
    for theirs, ours in _PARTS.items()
  }
  maps, cotangent, y_maps, slopes = (
    {i: last(part[f"{name}_{i}"]) for i in "01"}
    for part, name in ((x, "x"), (x, "cotangent"), (y, "y"), (y, "grad_x"))
  )
  out, weights, grads = run_mmtm(params, maps, cotangent, float(x["ratio"]))
  golden.close(out, y_maps)
  golden.close(grads, slopes)
  assert weights["squeeze"]["bias"].size == y["dim_hidden"]
  for theirs, ours in _PARTS.items():
    tree = y["grad_weights"]
    golden.close(weights[ours]["kernel"].T, tree[f"fc_{theirs}.weight"])
    golden.close(weights[ours]["bias"], tree[f"fc_{theirs}.bias"])


# OPM: features are the parameters, the mask that was drawn is given.

_ONE_TWO = ("1", "2")


def drawing(keep):
  """``jax.random.bernoulli`` that always acts and draws the columns in turn."""
  columns = itertools.cycle(keep.T)

  def draw(key, p, shape=None):
    del key, p
    return jnp.array(True) if shape is None else next(columns) > 0

  return draw


@golden.program("base", "strength", "probability")
def run_opm(params, keep, labels, base, strength, probability):
  """Outputs, scores, rates, what is left of the features, and one step."""
  made = golden.on_features(concat.Fusion(3), params, _ONE_TWO)
  batch = golden.batch(labels)
  out, _ = made.forward(params, {}, {}, None, True)
  s = _terms.scores(out.unimodal, batch)
  q = opm.drop_rates(out.unimodal, batch, base, strength)
  rule = opm.make(base=base, strength=strength, probability=probability)
  start = golden.state(params, jnp.float32(1))
  with mock.patch.object(jax.random, "bernoulli", drawing(keep)):
    kept, mask = opm.drop(out.features, batch.mask, q, jax.random.key(0))
    grads, metrics, _ = golden.step(rule, made, start, batch)
  fused = made.fuse(params, {}, kept, None, True)
  return out, s, q, kept, mask > 0, fused.logits, grads, metrics["loss"]


@pytest.mark.parametrize(("x", "y"), golden.cases("opm"))
def test_opm(x, y):
  """q, θ, features after the drop, rows in the loss, loss and gradients."""
  z = {m: x[f"z_{m}"] for m in _ONE_TWO}
  head = golden.split_head(_ONE_TWO, z, x["W"], x["b"])
  params = {"features": z, "fusion": head}
  knobs = {"base": x["q_base"], "strength": x["lam"]}
  knobs["probability"] = x["p_exe"]
  out, s, q, kept, rows, logits, grads, loss = run_opm(
    params, x["keep"], x["label"], **knobs
  )
  golden.close(out.unimodal, {m: y[f"logits_{m}"] for m in _ONE_TWO})
  golden.close(s, {m: y[f"performance_{m}"] for m in _ONE_TWO})
  golden.close(np.stack([q[m] for m in _ONE_TWO]), y["q"])
  np.testing.assert_array_equal(rows, y["in_loss"])
  for m in _ONE_TWO:
    golden.close(kept[m][rows], y[f"z_{m}_out"])
    golden.close(grads["features"][m], y[f"grad_z_{m}"])
  golden.close(logits[rows], y["logits"])
  golden.close(loss, y["loss"])


# Re-learning: inputs are the features, weights are the recorded ones.

_SIDES = ("audio", "visual")


def relearn_model(x):
  """Weights under torch's names, without the running statistics."""
  owner = {
    k: next((m for m in _SIDES if k.startswith(m)), SHARED)
    for k in x["params_init"]
    if "running" not in k
  }

  def forward(params, inputs, present):
    del params, present
    zeros = jnp.zeros((len(inputs["audio"]), x["n_classes"]))
    return Outputs(zeros, dict.fromkeys(_SIDES, zeros), dict(inputs))

  before = {k: x["params_before"][k] for k in owner}
  like = {m: jnp.zeros((2, 4)) for m in _SIDES}
  made = golden.problem(before, owner, forward, _SIDES, inputs=like)
  return made, before, {k: jnp.asarray(x["params_init"][k]) for k in owner}


def relearn_data(x):
  def batches(split):
    inputs = {m: jnp.asarray(x[f"{split}_{m}"]) for m in _SIDES}
    return iter([golden.batch(x[f"{split}_label"], inputs)])

  return types.SimpleNamespace(batches=batches)


@pytest.mark.parametrize(("x", "y"), golden.cases("relearning"))
def test_purity(x, y):
  """Scaling, k-means and purity of every set."""
  for name, theirs in y["purity"].items():
    labels = x[f"{name.partition('_')[0]}_label"].astype(int)
    ours = relearning.purity(x[name], labels, x["n_classes"])
    golden.close(ours, theirs)


@pytest.mark.parametrize(("x", "y"), golden.cases("relearning"))
def test_relearning(x, y, monkeypatch):
  """The weights after the mix, with the clusters that were recorded.

  Running statistics stay in both, and are no weights here.
  """
  order = iter([f"{s}_{m}" for m in _SIDES for s in ("train", "val")])

  class Recorded:
    def __init__(self, n_clusters, random_state, n_init):
      assert (n_clusters, random_state) == (x["n_classes"], 0)

    def fit_predict(self, scaled):
      assert np.allclose((scaled.min(0), scaled.max(0)), [[-1], [1]])
      return y["cluster"][next(order)].astype(int)

  monkeypatch.setattr(relearning, "KMeans", Recorded)
  made, before, start = relearn_model(x)
  rule = relearning.make(every=2, strength=x["move_lambda"])
  state = golden.state(before, relearning.State(start, jnp.int32(0)))
  after = rule.between_epochs(made, state, relearn_data(x), 3)
  golden.close(after.params, {k: y["params_after"][k] for k in before})
  assert after.method.done == 1


# Valuation: right and wrong answers are given.


def phi(x):
  """{"a", "v"}: φ of each sample, in our words."""
  right = {"a": "audio_right", "v": "visual_right", "a/v": "joint_right"}
  return valuation.contributions({k: x[v] > 0 for k, v in right.items()})


@pytest.mark.parametrize(("x", "y"), golden.cases("valuation", "sample_level"))
def test_valuation_of_samples(x, y):
  """φ, its means, copies of every sample, length of an epoch."""
  ours = phi(x)
  golden.close(ours, {m: y[f"phi_{m}"] for m in "av"})
  golden.close(
    {m: v.mean() for m, v in ours.items()},
    {m: y[f"mean_phi_{m}"] for m in "av"},
  )
  copies = {m: valuation.per_sample(v) for m, v in ours.items()}
  np.testing.assert_array_equal(copies["a"], y["copies_audio_only"])
  np.testing.assert_array_equal(copies["v"], y["copies_visual_only"])
  total = len(x["joint_right"]) + sum(c.sum() for c in copies.values())
  assert total == y["dataset_length"]


@pytest.mark.parametrize(
  ("x", "y"), golden.cases("valuation", "modality_level")
)
def test_valuation_of_modalities(x, y):
  """Gaps, who is copied and how often: the official function ``linear``.

  The mean is over a random fifth there, which is handed to our function here
  (deviation 2), and the number of copies is rounded down there. ``tanh`` and
  ``square`` are not part of ours.
  """
  ours = phi(x)
  part = {m: v[x["subset"]] for m, v in ours.items()}
  for m in "av":
    golden.close(ours[m].mean(), y[f"mean_phi_{m}"])
    golden.close(part[m].mean(), y[f"part_phi_{m}"])
    golden.close(1 - part[m].mean(), y[f"gap_{m}"])
  expected = valuation.per_modality(part, x["alpha"])
  worst = max(expected, key=lambda m: expected[m][0])
  theirs = y["resample"]["linear"]
  assert theirs["kept"] == {"a": "audio", "v": "visual"}[worst]
  number = expected[worst][0] * len(x["joint_right"])
  assert int(number + 1e-9) == theirs["appended"]
