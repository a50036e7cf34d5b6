"""Fusions against NumPy: logits, read-outs, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, softmax

import toys
from dmg_jax.model import registry
from dmg_jax.model.fusion import channel

CLASSES, SAMPLES = 4, 5
EQUAL, UNEQUAL = (3, 3, 3), (3, 2, 5)


def randomised(tree, seed=1):
  """The same tree of NumPy arrays with no zeros, biases neither."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(size=x.shape), tree)


@functools.cache
def made(name, count=3, sizes=EQUAL, **options):
  """Features, weights, what the fusion makes of them, and itself."""
  rng = np.random.default_rng(0)
  z = {
    m: rng.normal(size=(SAMPLES, d))
    for m, d in zip("abc"[:count], sizes, strict=False)
  }
  module = registry.make_fusion(name, CLASSES, **options)
  # Flax starts an LSTM with zeros in float32, whatever it is given.
  dtype = jnp.float32 if name == "ml_lstm" else jnp.float64

  def cast(tree):
    return {
      m: jax.tree.map(lambda x: jnp.asarray(x, dtype), v)
      for m, v in tree.items()
    }

  def shapes():
    return module.init(jax.random.key(0), cast(z), True)["params"]

  def run(features, params):
    return module.apply({"params": cast(params)}, cast(features), True)

  params = randomised(jax.eval_shape(shapes))
  return z, params, run(z, params), run


def dense(x, p):
  return x @ p["kernel"] + p.get("bias", 0)


def only(z, m):
  return {j: x if j == m else 0 * x for j, x in z.items()}


def close(got, expected):
  toys.assert_close(got, expected, rtol=1e-9, atol=1e-9)


uneven = functools.partial(made, sizes=UNEQUAL)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_concat_and_its_split_head(count):
  z, p, fused, run = uneven("concat", count)
  blocks = np.concatenate([p[f"head_{m}"] for m in z])
  logits = np.concatenate(list(z.values()), axis=1) @ blocks + p["bias"]
  close(fused.logits, logits)
  close(sum(fused.unimodal.values()), logits)
  for m, x in z.items():
    close(fused.unimodal[m], x @ p[f"head_{m}"] + p["bias"] / count)
    ablated = run(only(z, m), p).logits - fused.unimodal[m]
    close(ablated, np.tile(p["bias"] * (1 - 1 / count), (SAMPLES, 1)))


@pytest.mark.parametrize("mean", [False, True])
def test_sum(mean):
  z, p, fused, _ = uneven("sum", mean=mean)
  own = {m: dense(x, p[f"head_{m}"]) for m, x in z.items()}
  close(fused.unimodal, own)
  close(fused.logits, sum(own.values()) / (3 if mean else 1))


@pytest.mark.parametrize("hidden", [0, 7])
def test_own_heads(hidden):
  z, p, fused, _ = uneven("own_heads", hidden=hidden)
  x = np.concatenate(list(z.values()), axis=1)
  if hidden:
    x = np.maximum(dense(x, p["hidden"]), 0)
  close(fused.logits, dense(x, p["fused"]))
  close(fused.unimodal, {m: dense(x, p[f"head_{m}"]) for m, x in z.items()})


@pytest.mark.parametrize(
  ("count", "conditioner"), [(1, ""), (2, ""), (3, ""), (3, "b")]
)
def test_affine(count, conditioner):
  z, p, fused, _ = uneven("affine", count, conditioner=conditioner)
  by = conditioner or "abc"[count - 1]

  def film(z):
    if len(z) == 1:
      return dense(z[by], p["out"])
    x = np.concatenate([z[m] for m in z if m != by], axis=1)
    gamma, beta = np.split(dense(z[by], p["film"]), 2, axis=1)
    return dense(gamma * x + beta, p["out"])

  close(fused.logits, film(z))
  close(fused.unimodal, {m: film(only(z, m)) for m in z})


def lstm(sequence, p):
  """Hidden states of Hochreiter & Schmidhuber's cell with a forget gate."""
  h = c = np.zeros((SAMPLES, p["hi"]["kernel"].shape[0]))
  states = []
  for x in sequence:
    i, f, g, o = (
      x @ p[f"i{gate}"]["kernel"] + dense(h, p[f"h{gate}"]) for gate in "ifgo"
    )
    c = expit(f) * c + expit(i) * np.tanh(g)
    h = expit(o) * np.tanh(c)
    states.append(h)
  return states


@pytest.mark.parametrize(("count", "layers"), [(1, 1), (3, 2)])
def test_ml_lstm(count, layers):
  z, p, fused, _ = uneven("ml_lstm", count, width=4, layers=layers)

  def head(z):
    sequence = [dense(x, p[f"head_{m}"]) for m, x in z.items()]
    for i in range(layers):
      sequence = lstm(sequence, p[f"lstm_{i}"])
    return dense(sequence[-1], p["out"])

  toys.assert_close(fused.logits, head(z))
  toys.assert_close(fused.unimodal, {m: head(only(z, m)) for m in z})


@pytest.mark.parametrize("weight_on", ["prediction", "feature"])
def test_weight(weight_on):
  z, p, fused, _ = made("weight", weight_on=weight_on)
  score = {
    m: dense(np.maximum(dense(x, p["attend"]), 0), p["score"])
    for m, x in z.items()
  }
  w = softmax(np.concatenate(list(score.values()), axis=1), axis=1)
  own = {m: dense(x, p[f"head_{m}"]) for m, x in z.items()}
  what = z if weight_on == "feature" else own
  logits = sum(w[:, [i]] * v for i, v in enumerate(what.values()))
  if weight_on == "feature":
    logits = dense(logits, p["fused"])
  close(fused.logits, logits)
  close(fused.unimodal, own)
  close(fused.extra["weights"], {m: w[:, i] for i, m in enumerate(z)})


def test_mmcosine_sees_directions_only():
  z, p, fused, run = uneven("mmcosine", scale=7.0)
  cos = {
    m: (x @ p[f"head_{m}"])
    / np.linalg.norm(x, axis=1)[:, None]
    / np.linalg.norm(p[f"head_{m}"], axis=0)
    for m, x in z.items()
  }
  close(fused.unimodal, {m: 7 * c for m, c in cos.items()})
  close(fused.logits, 7 * sum(cos.values()))
  scaled = run(
    {m: 3 * x for m, x in z.items()}, {m: 5 * w for m, w in p.items()}
  )
  close(scaled.logits, fused.logits)


def test_boost_adds_up_one_heads_predictions():
  z, p, fused, _ = made("boost", hidden=6)
  own = {
    m: dense(np.maximum(dense(x, p["hidden"]), 0), p["head"])
    for m, x in z.items()
  }
  close(fused.unimodal, own)
  close(fused.logits, p["scale"] * sum(own.values()))
  close(fused.extra["scale"], p["scale"])


# Channel.


def squeeze_and_excite(maps, p, scale):
  """Gates of all modalities."""
  maps = {m: np.asarray(a) for m, a in maps.items()}
  means = [a.mean(axis=tuple(range(1, a.ndim - 1))) for a in maps.values()]
  h = np.maximum(dense(np.concatenate(means, axis=1), p["squeeze"]), 0)
  return {m: scale * expit(dense(h, p[f"gate_{m}"])) for m in maps}


def test_mmtm_gates_maps_and_counts_their_mean():
  rng = np.random.default_rng(0)
  shapes = {"a": (5, 3, 2, 4), "b": (5, 2, 6), "c": (5, 2)}
  batches = [
    {m: jnp.array(rng.normal(size=s)) for m, s in shapes.items()}
    for _ in range(3)
  ]
  module = channel.MMTM(ratio=4.0, gate_scale=2)
  start = jax.eval_shape(
    lambda: module.init(jax.random.key(0), batches[0], False)["params"]
  )
  p = randomised(start)
  assert p["squeeze"]["kernel"].shape == (12, 2 * 12 // 4)

  @functools.partial(jax.jit, static_argnums=2)
  def run(gates, maps, train):
    return module.apply({"params": p, **gates}, maps, train, mutable="gates")

  expected = [squeeze_and_excite(maps, p, 2) for maps in batches]
  gates = {}
  for maps, g in zip(batches, expected, strict=True):
    out, gates = run(gates, maps, True)
    for m, a in maps.items():
      close(out[m], a * g[m].reshape(5, *(1,) * (a.ndim - 2), -1))
  for m in shapes:
    mean = np.mean([g[m].mean(axis=0) for g in expected], axis=0)
    np.testing.assert_allclose(gates["gates"][f"mean_{m}"], mean, rtol=1e-6)
  cared = {"gates": {**gates["gates"], "care": jnp.int32(1)}}
  out, after = run(cared, batches[0], False)
  assert toys.same(after, cared)
  a, b = (np.asarray(batches[0][m]) for m in "ab")
  close(out["a"], a * expected[0]["a"][:, None, None, :])
  close(out["b"], b * np.asarray(gates["gates"]["mean_b"]))


def test_channel_exchanges_inside_the_encoders():
  bound, params, stats = toys.problem(3, "channel")
  params, inputs = randomised(params), toys.batch(3).inputs
  out, _ = bound.forward(params, stats, inputs, None, False)
  maps = {
    m: np.maximum(dense(np.asarray(x), params[f"encoders_{m}"]["Dense_0"]), 0)
    for m, x in inputs.items()
  }
  gates = squeeze_and_excite(
    maps, params["fusion"]["exchange"]["mmtm_0"], scale=1
  )
  z = {
    m: dense(a * gates[m], params[f"encoders_{m}"]["Dense_1"])
    for m, a in maps.items()
  }
  heads = params["fusion"]["heads"]
  own = {m: dense(x, heads[f"head_{m}"]) for m, x in z.items()}
  got = out.features, out.unimodal, out.logits
  toys.assert_close(got, (z, own, sum(own.values()) / 3))


def test_fuse_takes_features_in_any_order():
  """Dictionaries come out of a transform sorted, the heads do not."""
  bound, params, stats = toys.problem(3, "own_heads")
  inputs = toys.batch(3).inputs
  out, _ = bound.forward(params, stats, inputs, None, False)
  features = {m: out.features[m] for m in sorted(out.features)}
  assert list(features) != list(bound.modalities)
  fused = bound.fuse(params, stats, features, None, False)
  toys.assert_close(fused.logits, out.logits)


@pytest.mark.parametrize(
  ("name", "options", "words"),
  [
    ("weight", {"weight_on": "logits"}, "choose from feature, prediction"),
    ("weight", {"sizes": UNEQUAL}, "equal size"),
    ("boost", {"sizes": UNEQUAL}, "equal size"),
    ("affine", {"conditioner": "d"}, "choose from a, b, c"),
    ("mmcosine", {"scale": 0.0}, "scale must be positive"),
    ("ml_lstm", {"layers": 0}, "at least 1"),
    ("sum", {"scale": 2.0}, "num_classes, mean|mean, num_classes"),
  ],
)
def test_bad_options_are_refused(name, options, words):
  with pytest.raises(ValueError, match=words):
    made(name, **options)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"gate_scale": 3.0}, "choose from 1, 2"),
    ({"exchanges": -1}, "exchanges >= 0"),
    ({"ratio": 0.0}, "ratio > 0"),
  ],
)
def test_channel_refuses(options, words):
  with pytest.raises(ValueError, match=words):
    toys.problem(2, "channel", fusion_options=tuple(options.items()))
