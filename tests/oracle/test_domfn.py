"""DOMFN against NumPy: loss, gate, phases, rates and prediction."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

import given
import toys
from dmg_jax.methods import domfn
from dmg_jax.types import SHARED, Outputs

Y = np.asarray(given.batch().labels)
ROWS = np.arange(given.SAMPLES)
ETA, TAU = 0.5, 0.2


def each_ce(logits):
  return -log_softmax(logits, axis=1)[ROWS, Y]


def begun(method, value):
  bound = given.problem(value)
  return bound, given.start(method, bound, value)


def penalties(value, faithful):
  """{m: δ [b]}."""
  squash = expit if faithful else lambda o: softmax(o, axis=1)
  q = {m: squash(o) for m, o in value["unimodal"].items()}
  mean = np.mean(list(q.values()), axis=0)
  return {m: ((v - mean) ** 2).max(axis=1) for m, v in q.items()}


def gates(value, faithful):
  """γ such that the gate is open for about half, and where it is."""
  most = np.max(list(penalties(value, faithful).values()), axis=0) / TAU
  gamma = np.median(most[given.REAL]) + 1e-3
  return gamma, most < gamma


def domfn_loss(joint, faithful):
  quirk = expit if faithful else lambda o: o

  def loss(live, stopped):
    delta, opened = penalties(live, faithful), gates(stopped, faithful)[1]
    own = {m: each_ce(quirk(o)) for m, o in live["unimodal"].items()}
    apart = sum(own.values())
    together = apart + each_ce(quirk(live["logits"]))
    together += sum(0.5 * own[m] ** 2 - ETA * delta[m] for m in own)
    gated = np.where(opened, together, apart)
    return (gated if joint else apart)[given.REAL].mean()

  return loss


@pytest.mark.parametrize(
  ("count", "joint", "faithful"),
  [(1, 1, False), (2, 0, False), (2, 1, True), (3, 1, False), (3, 0, True)],
)
def test_domfn_loss(count, joint, faithful):
  value = given.values(count)
  gamma, opened = gates(value, faithful)
  assert count == 1 or 0 < opened[given.REAL].mean() < 1
  method = domfn.make(eta=ETA, gamma=gamma, tau=TAU, faithful=faithful)
  state = begun(method, value)[1]
  joint_now = state.method.replace(joint=jnp.float32(joint))
  state = state.replace(method=joint_now)
  given.check(method, value, domfn_loss(joint, faithful), state)


def test_domfn_phases_and_rates():
  value, data = given.values(2), toys.ToyData(2, epochs=4)
  method = domfn.make(pretrain_epochs=2, encoder_rate=0.25)
  bound, state = begun(method, value)
  seen = []
  for epoch in range(4):
    state = state.replace(step=jnp.int32(10 * epoch + 1))
    state = method.between_epochs(bound, state, data, epoch)
    _, state, _, scale, at = given.step(method, bound, state)
    scale = {o: float(s) for o, s in scale.items()}
    seen.append((method.ready(state.method), at, scale))
    assert int(state.step) == 10 * epoch + 1
  apart = dict.fromkeys(["a", "a/head", "b", "b/head"], 1.0) | {SHARED: 0.0}
  fused = dict.fromkeys(["a", "a/head", "b", "b/head"], 0.25) | {SHARED: 1.0}
  first = [(False, 1, apart), (False, 11, apart)]
  assert seen == [*first, (True, 0, fused), (True, 10, fused)]


@pytest.mark.parametrize(("epochs", "length"), [(None, 8), (3, 7), (0, 4)])
def test_domfn_length_and_turn(epochs, length):
  method = domfn.make(pretrain_epochs=epochs)
  assert method.length(4, 2) == length
  bound, state = begun(method, given.values(2))
  data = toys.ToyData(2, epochs=4)
  ready = []
  for epoch in range(length):
    state = method.between_epochs(bound, state, data, epoch)
    ready.append(method.ready(state.method))
  assert ready == [False] * (length - 4) + [True] * 4


@pytest.mark.parametrize("faithful", [False, True])
def test_domfn_predicts_fused_where_all_agree_else_the_surest(faithful):
  value = given.values(3, seed=4)
  # Sure by its sigmoid, not by its softmax: all of its logits are large.
  value["unimodal"]["a"][0] = [5.0, 4.9, 4.8, 4.7]
  value["unimodal"]["b"][0] = [3.0, -3.0, -3.0, -3.0]
  value["unimodal"]["c"][0] = [-4.0, 3.1, -1.0, -1.0]
  gamma, opened = gates(value, faithful)
  assert not opened[0] and opened.any()
  squash = expit if faithful else lambda o: softmax(o, axis=1)
  best = {m: squash(o).max(axis=1) for m, o in value["unimodal"].items()}
  expected = [
    value["logits"][i]
    if opened[i]
    else value["unimodal"][max(best, key=lambda m, i=i: best[m][i])][i]
    for i in ROWS
  ]
  method = domfn.make(eta=ETA, gamma=gamma, tau=TAU, faithful=faithful)
  bound, state = begun(method, value)
  outputs, _ = bound.forward(state.params, {}, {}, None, False)
  assert isinstance(outputs, Outputs)
  np.testing.assert_allclose(method.predict(outputs, state.method), expected)


@pytest.mark.parametrize(
  ("bad", "words"),
  [
    ({"pretrain_epochs": -1}, "at least 0"),
    ({"tau": 0.0}, "tau must lie"),
  ],
)
def test_bad_options_are_refused(bad, words):
  with pytest.raises(ValueError, match=words):
    toys.make_method("domfn", **bad)
