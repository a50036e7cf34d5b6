"""UMT, ReconBoost and G-Blend against NumPy float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import numpy_toy as toy
import toys
from dmg_jax.methods import _epochs, _phases, gblend, reconboost, umt
from dmg_jax.training import optim, steps


class SplitData(toys.ToyData):
  """Names splits instead of reading them, for a ``sweep`` that is patched."""

  def batches(self, split):
    return split


def test_a_phase_counts_its_own_steps():
  seen = []

  def apply(state, grads, scale):
    seen.append((int(state.step), scale))
    return state.replace(params=grads)

  run = toys.run_of("joint")
  state = run.fresh().replace(step=jnp.int32(17))
  state = _phases.since(apply, jnp.int32(12))(state, "grads", {"a": 0.5})
  assert seen == [(5, {"a": 0.5})]
  assert int(state.step) == 17 and state.params == "grads"


def concat_back(params, batch, do, extra):
  """Gradient with concat, ``extra`` added to that of the features."""
  z, x = toy.features(params, batch), toy.double(batch.inputs)
  head = params["fusion"]
  fusion = {"bias": do.sum(axis=0)}
  fusion |= {f"head_{m}": z[m].T @ do for m in z}
  encoders = {
    f"encoders_{m}": toy.encode_back(
      params, m, x[m], do @ head[f"head_{m}"].T + extra[m]
    )
    for m in z
  }
  return {**encoders, "fusion": fusion}


def test_umt_distils_from_teachers_without_their_gradient():
  run = toys.Run(umt.make(weight=3.0), 3, "concat", **toy.SGD)
  batch, state = toy.padded(3), run.fresh()
  rng = np.random.default_rng(0)
  teacher = jax.tree.map(
    lambda p: p + jnp.asarray(rng.normal(size=p.shape) / 5, p.dtype),
    state.params,
  )
  memory = state.method.replace(distil=jnp.float32(1), other=(teacher, {}))
  params, far = toy.double(state.params), toy.double(teacher)
  got, (_, metrics) = toy.gradient(run, state.replace(method=memory), batch)
  z, goal = toy.features(params, batch), toy.features(far, batch)
  n = toy.MASK.sum()
  rows = toy.MASK[:, None]
  logits = sum(z[m] @ params["fusion"][f"head_{m}"] for m in z)
  logits = logits + params["fusion"]["bias"]
  apart = {m: (rows * (z[m] - goal[m]) ** 2).sum() / (n * 6) for m in z}
  extra = {m: 3.0 * 2 * rows * (z[m] - goal[m]) / (n * 6) for m in z}
  loss = toy.ce(logits, batch) + 3.0 * sum(apart.values())
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  for m, value in apart.items():
    np.testing.assert_allclose(metrics[f"distil_{m}"], value, rtol=1e-4)
  toy.close(got, concat_back(params, batch, toy.ce_back(logits, batch), extra))


def test_umt_students_start_afresh_and_its_teachers_alone():
  """Weight zero: phase 2 is a fresh joint run, to the last step."""
  run = toys.Run(umt.make(weight=0.0, teacher_epochs=1), 2)
  joint, data = toys.Run(toys.make_method("joint"), 2), toys.ToyData(2)
  state = run.between(run.fresh(), data, 0)
  assert not run.method.ready(state.method)
  z = toy.features(toy.double(state.params), toys.batch(2))
  fusion = toy.double(state.params["fusion"])
  own = [
    toy.ce(z[m] @ fusion[f"head_{m}"] + fusion["bias"] / 2, toys.batch(2))
    for m in z
  ]
  for seed in range(2):
    state, metrics = run.step(state, toys.batch(2, seed=0))
    if not seed:
      np.testing.assert_allclose(metrics["loss"], sum(own), rtol=1e-5)
  taught = jax.tree.map(np.asarray, state.params)
  state = run.between(state, data, 1)
  assert run.method.ready(state.method) and int(state.method.begin) == 2
  assert toys.same(state.params, run.fresh().params)
  assert toys.same(state.opt_state, run.fresh().opt_state)
  assert toys.same(state.method.other[0], taught)
  other = joint.fresh()
  for seed in range(3):
    state, _ = run.step(state, toys.batch(2, seed=seed))
    other, _ = joint.step(other, toys.batch(2, seed=seed))
  toys.assert_close(state.params, other.params, rtol=1e-6, atol=1e-7)
  assert toys.same(state.method.other[0], taught)
  assert umt.make().length(7, 2) == 14
  assert run.method.length(7, 2) == 8


def boost_outputs(seed=0):
  rng = np.random.default_rng(seed)
  batch = toy.padded(3)
  logits = {m: 2 * rng.normal(size=(8, 3)) for m in batch.inputs}
  return logits, batch


def test_reconboost_losses():
  logits, batch = boost_outputs()
  problem, _, _ = toys.problem(3, "boost")
  y, rows = np.asarray(batch.labels), toy.MASK > 0
  scale = 0.7

  def total(values, faithful=False):
    outputs = problem.outputs.replace(
      logits=jnp.zeros((8, 3)), unimodal=values, extra={"scale": values["λ"]}
    )
    outputs = outputs.replace(unimodal={m: values[m] for m in logits})
    boost = reconboost.boosts(outputs, batch, 5.0, 2.0)
    agree = reconboost.agreements(outputs, batch, faithful)
    return boost, agree

  values = {m: jnp.array(o) for m, o in logits.items()}
  values["λ"] = jnp.array(scale)
  boost, agree = jax.jit(total)(values)
  for before, m in zip(("audio", "image", "text"), logits, strict=True):
    others = sum(o for j, o in logits.items() if j != m)
    left = 5 - 2 * softmax(scale * others, axis=1)[np.arange(8), y]
    log_p = log_softmax(logits[m], axis=1)[np.arange(8), y]
    expected = np.mean((-left * log_p / 3)[rows])
    np.testing.assert_allclose(boost[m], expected, rtol=1e-6)
    p, q = softmax(logits[m], axis=1), softmax(logits[before], axis=1)
    np.testing.assert_allclose(
      agree[m], np.mean(((p - q) ** 2)[rows]), rtol=1e-6
    )
  slopes = jax.jit(jax.jacrev(lambda v: [*total(v), total(v, True)[1]]))(values)
  for kind, slope in zip(("boost", "agree", "none"), slopes, strict=True):
    for m, by in slope.items():
      touched = {j for j, g in by.items() if np.abs(g).max() > 0}
      assert touched == (set() if kind == "none" else {m})


def run_with_decay(method, modalities, fusion):
  """A run with SGD, momentum and weight decay."""
  run = toys.Run(method, modalities, fusion)
  run.init_opt, run.apply = optim.make(
    run.problem.owner,
    lambda step: jnp.float32(0.1),
    name="sgd",
    weight_decay=0.1,
  )
  run.step = functools.partial(
    steps.make_train_step(run.problem, method, run.apply), seed=0
  )
  return run


def test_reconboost_moves_who_has_its_turn_with_a_fresh_optimiser():
  method = reconboost.make(boost_epochs=1, joint_epochs=1)
  run, data = run_with_decay(method, 3, "boost"), toys.ToyData(3)
  state, fresh = run.fresh(), run.fresh()
  names = list(run.problem.modalities)
  for epoch in range(8):
    state = run.between(state, data, epoch)
    assert toys.same(state.opt_state, fresh.opt_state)
    before = jax.tree.map(np.asarray, state.params)
    state, _ = run.step(state, toys.batch(3, seed=epoch))
    stage, joint = divmod(epoch, 2)
    turn = set(names) if joint else {names[stage % 3]}
    for m in names:
      key = f"encoders_{m}"
      still = toys.same(before[key], state.params[key])
      assert still == (m not in turn)
    old, new = before["fusion"], state.params["fusion"]
    assert (float(old["scale"]) == float(new["scale"])) == (not joint)
    assert not toys.same(old["head"], new["head"])
    assert float(state.method.later) == (stage > 0)


def fake_losses(step, split):
  rng = np.random.default_rng([step, *split.encode()])
  return {h: rng.uniform(0.2, 2, 5) for h in ("image", "text", "fused")}


def fake_sweep(look, problem, state, batches):
  return {"loss": fake_losses(int(state.step), batches)}


def blend_oracle(before, after):
  """Weights from the step of N and the steps at the end of each probe."""

  def mean(step, split, h):
    return fake_losses(step, split)[h].mean()

  raw = {}
  for h, step in after.items():
    gain = mean(before, "val", h) - mean(step, "val", h)
    growth = [mean(s, "val", h) - mean(s, "train", h) for s in (before, step)]
    raw[h] = abs(gain) / ((growth[1] - growth[0]) ** 2 + 1e-8)
  return {h: v / sum(raw.values()) for h, v in raw.items()}


@pytest.mark.parametrize("online", [True, False])
def test_gblend_probes_and_goes_back(monkeypatch, online):
  """Every training epoch is three steps that add one to all weights."""
  monkeypatch.setattr(_epochs, "sweep", fake_sweep)
  n, main = (1, 2) if online else (2, 4)
  method = gblend.make(online=online, probe_epochs=n, super_epoch=2)
  run, data = toys.Run(method, 2, "own_heads"), SplitData(2)
  epochs = method.length(4, 2)
  assert epochs == 4 + (2 if online else 1) * 3 * n
  state = start = run.fresh()
  branches, done = ("image", "text", "fused"), 0
  for epoch in range(epochs):
    state = run.between(state, data, epoch)
    block = epoch % (3 * n + main)
    step = int(state.step)
    if block == 0:
      before, after = step, {}
    if block < 3 * n:
      after[branches[block // n]] = step + 3 * (n - block % n)
      expected = {h: float(h == branches[block // n]) for h in branches}
      trained = done + block % n
    else:
      expected = blend_oracle(before, after)
      trained = done
      done += 1
    assert method.ready(state.method) == (block >= 3 * n)
    got = {h: float(w) for h, w in state.method.weights.items()}
    toys.assert_close(got, expected, rtol=1e-4)
    for name in ("params", "opt_state"):
      toys.assert_close(
        getattr(state, name),
        jax.tree.map(lambda x, k=trained: x + k, getattr(start, name)),
      )
    assert step - int(state.method.begin) == 3 * trained
    up = jax.tree.map(lambda x: x + 1, (state.params, state.opt_state))
    state = state.replace(params=up[0], opt_state=up[1], step=state.step + 3)
  assert done == 4


def test_gblend_step_is_the_weighted_loss():
  weights = (0.2, 0.5, 0.3)
  run = toys.Run(gblend.make(weights=weights), 2, "own_heads", **toy.SGD)
  batch, state = toy.padded(2), run.fresh()
  params = toy.double(state.params)
  got, (_, metrics) = toy.gradient(run, state, batch)
  z, x = toy.features(params, batch), toy.double(batch.inputs)
  head, names = params["fusion"], list(batch.inputs)
  joined = np.concatenate([z[m] for m in names], axis=1)
  logits = toy.dense(head["fused"], joined)
  do = 0.3 * toy.ce_back(logits, batch)
  loss = 0.3 * toy.ce(logits, batch)
  expected = {"fusion": {"fused": toy.dense_back(joined, do)}}
  blocks = np.split(head["fused"]["kernel"], 2)
  for m, w, block in zip(names, weights, blocks, strict=False):
    p = head[f"head_{m}"]
    loss += w * toy.ce(toy.dense(p, z[m]), batch)
    own = w * toy.ce_back(toy.dense(p, z[m]), batch)
    expected["fusion"][f"head_{m}"] = toy.dense_back(z[m], own)
    dz = do @ block.T + own @ p["kernel"].T
    expected[f"encoders_{m}"] = toy.encode_back(params, m, x[m], dz)
  np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
  toy.close(got, expected)


@pytest.mark.parametrize(
  ("name", "options", "fusion", "words"),
  [
    ("umt", {"teacher_epochs": -1}, "concat", "teacher_epochs must be"),
    ("umt", {}, "channel", "own_heads"),
    ("reconboost", {}, "concat", "fusion=boost"),
    ("reconboost", {"boost_epochs": 0}, "boost", "boost_epochs must lie"),
    ("gblend", {"weights": (0.5, 0.5)}, "concat", "image, text, fused"),
    ("gblend", {"weights": (0.5, -1, 0)}, "concat", "weights must lie"),
    ("gblend", {"super_epoch": 0}, "concat", "super_epoch must lie"),
    ("unimodal", {"modality": None}, "concat", "fusion=sum"),
  ],
)
def test_what_cannot_work_is_refused(name, options, fusion, words):
  with pytest.raises(ValueError, match=words):
    toys.Run(toys.make_method(name, **options), 2, fusion).fresh()
