"""Methods that look at the data between epochs, against NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import numpy_toy as toy
import toys
from dmg_jax.methods import _epochs, mses, mslr, relearning


class Padded(toys.ToyData):
  """Batches with two rows of padding each."""

  def batches(self, split):
    for i, batch in enumerate(super().batches(split)):
      shifted = batch.replace(index=batch.index + 8 * i)
      yield shifted.replace(mask=jnp.asarray(toy.MASK, jnp.float32))


def test_sweep_leaves_padding_out():
  run, data = toys.run_of("joint"), Padded(2)
  state = run.fresh()
  found = _epochs.sweep(
    _epochs.outputs, run.problem, state, data.batches("val")
  )
  params, parts = toy.double(state.params), list(data.batches("val"))
  keep = toy.MASK > 0
  z = [toy.features(params, b) for b in parts]
  y = np.concatenate([np.asarray(b.labels)[keep] for b in parts])
  rows = {m: np.concatenate([f[m][keep] for f in z]) for m in z[0]}
  bias = params["fusion"]["bias"] / 2
  logits = {m: rows[m] @ params["fusion"][f"head_{m}"] + bias for m in rows}
  logits["fused"] = sum(logits.values())
  toys.assert_close(found["features"], rows)
  for h, o in logits.items():
    toys.assert_close(found["loss"][h], toy.each_ce(o, y))
    assert (found["correct"][h] == (o.argmax(axis=1) == y)).all()
  assert (found["labels"] == y).all()
  index = np.arange(8)[keep]
  assert (found["index"] == np.concatenate([index, index + 8])).all()
  assert _epochs.sweep(_epochs.outputs, run.problem, state, []) is None


def patched(monkeypatch, found):
  """``sweep`` gives ``found(split)`` or the next of an iterator."""
  monkeypatch.setattr(_epochs, "sweep", lambda *_: next(found))


def test_mslr_rates_follow_the_accuracies(monkeypatch):
  right = {"image": (3, 5, 6, 6, 8, 7, 0), "text": (0, 0, 0, 9, 2, 4, 6)}
  hits = (
    {
      "correct": {m: np.arange(10) < k[e] for m, k in right.items()},
      "present": {},
    }
    for e in range(7)
  )
  patched(monkeypatch, hits)
  factors = {"image": 0.9, "text": 1.1}
  method = mslr.make(factors=tuple(factors.values()), window=3, start=1, end=6)
  run, data = toys.Run(method, 2, "sum"), toys.ToyData(2)
  state = run.fresh()
  for epoch in range(8):
    state = run.between(state, data, epoch)
    for m, c in factors.items():
      known = np.array(right[m][:epoch]) / 10
      ratio = 1.0
      if epoch > 3 and known[-4:-1].mean() > 0:
        ratio = known[-1] / known[-4:-1].mean()
      expected = c * ratio if 1 <= epoch <= 6 else 1.0
      np.testing.assert_allclose(state.method.rates[m], expected, rtol=1e-5)


def test_mslr_rates_scale_updates_of_encoder_and_head():
  """With Adam, that a factor of the gradient would not reach."""
  method = mslr.make(strategy="keep", factors=(0.25, 2.0))
  run = toys.Run(method, 2, "sum")
  joint = toys.Run(toys.make_method("joint"), 2, "sum")
  state = run.between(run.fresh(), toys.ToyData(2), 5)
  one, _ = run.step(state, toys.batch(2))
  two, _ = joint.step(joint.fresh(), toys.batch(2))
  start = run.fresh().params

  def check(owner, p, a, b):
    rate = {"image": 0.25, "text": 2.0}[owner.split("/")[0]]
    np.testing.assert_allclose(a - p, rate * (b - p), rtol=1e-2, atol=1e-7)

  jax.tree.map(check, run.problem.owner, start, one.params, two.params)


VAL = {  # Of epochs 1, 2, ...; the image turns after 3, the text after 6.
  "image": (1, 0.5, 0.9, 0.9, 0.9, 0.9, 0, 0, 0, 0, 0),
  "text": (2, 1.8, 1.6, 1.4, 1.2, 1, 3, 3, 3, 3, 3),
}


def mses_oracle(patience):
  """{modality: (epoch of the best, epoch of the end)}."""
  found = {}
  for m, v in VAL.items():
    least, best = np.inf, 0
    for e in range(1, len(v) + 1):
      smooth = v[0] if e == 1 else 0.6 * v[e - 2] + 0.4 * v[e - 1]
      if smooth < least:
        least, best = smooth, e
      if e - best > patience:
        break
    found[m] = best, e
  return found


@pytest.mark.parametrize("faithful", [False, True])
def test_mses_restores_and_stops(monkeypatch, faithful):
  """Weights trained for e epochs are all 10 e."""
  assert mses_oracle(2) == {"image": (3, 6), "text": (6, 9)}
  losses = (
    {"loss": {m: np.array([v[e] - 0.1, v[e] + 0.1]) for m, v in VAL.items()}}
    for e in range(11)
  )
  patched(monkeypatch, losses)
  run = toys.Run(mses.make(patience=2, faithful=faithful), 2, "own_heads")
  state, data = run.between(run.fresh(), toys.ToyData(2), 0), toys.ToyData(2)

  def full(tree, epoch):
    return jax.tree.map(lambda p: jnp.full_like(p, 10 * epoch), tree)

  for epoch in range(1, 10):
    state = state.replace(
      params=full(state.params, epoch), opt_state=full(state.opt_state, epoch)
    )
    state = run.between(state, data, epoch)
    active = {m: float(a) for m, a in state.method.active.items()}
    assert active == {"image": epoch < 6, "text": epoch < 9}
    best = {6: ("image", 3), 9: ("text", 6)}.get(epoch, ("nobody", epoch))
    for p, o in zip(
      jax.tree.leaves(state.params),
      jax.tree.leaves(run.problem.owner),
      strict=True,
    ):
      back = faithful or o.split("/")[0] == best[0]
      assert (p == 10 * (best[1] if back else epoch)).all()
    moments = jax.tree.leaves(state.opt_state)[0]
    assert (moments == 10 * (best[1] if faithful else epoch)).all()


def test_mses_freezes_who_has_finished():
  run = toys.Run(mses.make(unimodal_weight=0.5), 2, "own_heads")
  for done in ({"image"}, {"image", "text"}):
    state = run.fresh()
    active = {m: jnp.float32(m not in done) for m in state.method.active}
    state = state.replace(method=state.method.replace(active=active))
    after, metrics = run.step(state, toys.batch(2))
    start = run.fresh()
    own = sum(float(metrics[f"cls_{m}"]) for m in active if m not in done)
    expected = float(metrics["cls"]) + 0.5 * own
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)
    for o, p, q in zip(
      jax.tree.leaves(run.problem.owner),
      jax.tree.leaves(start.params),
      jax.tree.leaves(after.params),
      strict=True,
    ):
      frozen = o.split("/")[0] in done or len(done) == 2
      assert bool((p == q).all()) == frozen
      moments = [s.opt_state.inner_states[o] for s in (start, after)]
      assert toys.same(*moments) == frozen


def clusters(where, seed):
  """Twelve samples in tight clusters at three corners."""
  corners = np.array([[0, 0], [5, 0], [0, 9]])[where]
  return corners + np.random.default_rng(seed).normal(size=(12, 2)) / 100


def test_relearning_blends_encoders_by_the_gap_of_purity(monkeypatch):
  """The image's clusters are those of the classes on train only."""
  four = np.repeat([0, 1, 2], 4)
  mixed = np.array([0, 0, 1, 2] * 3)
  image = clusters(four, 0)
  found = [
    {"features": {"image": image, "text": clusters(y, 1)}, "labels": y}
    for y in (four, mixed)
  ]
  assert relearning.purity(image, four, 3) == 1
  assert relearning.purity(image, mixed, 3) == 0.5
  run = toys.Run(relearning.make(every=2, times=2, strength=1.5), 2)
  state, data = run.fresh(), toys.ToyData(2)
  start, a = toy.double(state.params), np.tanh(1.5 * 0.5)
  for epoch in range(9):
    patched(monkeypatch, iter(found))
    trained = jax.tree.map(lambda p: p + 1, state.params)
    state = run.between(state.replace(params=trained), data, epoch)
    acts = epoch in (3, 5)
    mix = jax.tree.map(
      lambda o, acts=acts: a * (o == "image" and acts), run.problem.owner
    )
    expected = jax.tree.map(
      lambda m, s, p: m * s + (1 - m) * p, mix, start, toy.double(trained)
    )
    toys.assert_close(state.params, expected)
  assert int(state.method.done) == 2
