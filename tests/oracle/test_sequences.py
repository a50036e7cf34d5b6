"""Encoders of sequences: their equations in NumPy, and padding to the bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.model.encoders import small

LENGTHS = (0, 1, 8, 17, 100)
MODELS = {
  "LSTM": (small.LSTM, {"layers": 2, "bidirectional": True}),
  "GRU": (small.GRU, {"layers": 2, "bidirectional": True}),
  "LSTM-last": (small.LSTM, {"pooling": "last", "bidirectional": True}),
  "GRU-last": (small.GRU, {"pooling": "last", "layers": 2}),
  "Transformer": (small.Transformer, {"heads": 2}),
  "Transformer-cls": (
    small.Transformer,
    {"heads": 4, "pooling": "cls", "positions": "learned", "layers": 1},
  ),
}


def model(name, **more):
  cls, options = MODELS[name]
  return cls(features=3, width=8, **{**options, **more})


def batch(steps, junk, lengths=LENGTHS, dtype=np.float32):
  """Samples of these lengths, with ``junk`` in their padding."""
  rng = np.random.default_rng(0)
  values = np.full((len(lengths), steps, 5), junk, dtype)
  mask = np.zeros((len(lengths), steps), np.float32)
  for i, n in enumerate(lengths):
    values[i, :n] = rng.normal(size=(n, 5))
    mask[i, :n] = 1
  return {"values": jnp.asarray(values), "mask": jnp.asarray(mask)}


def drawn(encoder, x, dtype=np.float64):
  """Random weights, biases too."""
  rng = np.random.default_rng(1)
  shapes = jax.eval_shape(lambda: encoder.init(jax.random.key(0), x, False))
  return jax.tree.map(
    lambda s: jnp.asarray(0.4 * rng.normal(size=s.shape), dtype), shapes
  )


def features(encoder, variables, x, train=False, seed=0):
  def run(v, x):
    return encoder.apply(v, x, train, rngs={"dropout": jax.random.key(seed)})

  return jax.jit(run)(variables, x)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def lstm(p, x, width):
  h = c = np.zeros(width)
  found = []
  for step in x:
    a = p["input"].T @ step + p["state"].T @ h + p["bias"]
    i, f, g, o = (a[k * width : (k + 1) * width] for k in range(4))
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    h = sigmoid(o) * np.tanh(c)
    found.append(h)
  return found


def gru(p, x, width):
  h, found = np.zeros(width), []
  parts = [slice(k * width, (k + 1) * width) for k in range(3)]
  for step in x:
    ours = [p["input"][:, k].T @ step + p["bias"][k] for k in parts]
    state = [p["state"][:, k].T @ h for k in parts]
    r, z = (sigmoid(ours[k] + state[k]) for k in range(2))
    n = np.tanh(ours[2] + r * (state[2] + p["state_bias"]))
    h = (1 - z) * n + z * h
    found.append(h)
  return found


def recurrent(run, encoder, p, x):
  """Features of one sample [t d], before the last linear layer."""
  width, last = encoder.width, []
  for i in range(encoder.layers):
    ways = [np.array(run(p[f"forward_{i}"], x, width)).reshape(-1, width)]
    last = [ways[0][-1] if len(x) else np.zeros(width)]
    if encoder.bidirectional:
      back = np.array(run(p[f"backward_{i}"], x[::-1], width))
      ways.append(back.reshape(-1, width)[::-1])
      last.append(ways[1][0] if len(x) else np.zeros(width))
    x = np.concatenate(ways, axis=1)
  if encoder.pooling == "last":
    return np.concatenate(last)
  return x.mean(axis=0) if len(x) else np.zeros(x.shape[1])


def normed(x, p):
  centred = x - x.mean(axis=-1, keepdims=True)
  deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
  return centred / deviation * p["scale"] + p["bias"]


def affine(x, p):
  return x @ p["kernel"] + p["bias"]


def places(encoder, p, count):
  if encoder.positions == "learned":
    return p["positions"][:count]
  found = np.zeros((count, encoder.width))
  for t in range(count):
    for i in range(0, encoder.width, 2):
      angle = t / 10000 ** (i / encoder.width)
      found[t, i : i + 2] = np.sin(angle), np.cos(angle)
  return found.astype(np.float32)


def transformer(encoder, p, x):
  h = affine(x, p["embed"])
  if encoder.pooling == "cls":
    h = np.concatenate([p["cls"][None], h])
  h = h + places(encoder, p, len(h))
  size = encoder.width // encoder.heads
  for i in range(encoder.layers if len(h) else 0):
    own = p[f"layer_{i}"]
    n = normed(h, own["norm_0"])
    q, k, v = (affine(n, own[m]) for m in ("query", "key", "value"))
    mixed = np.zeros_like(q)
    for j in range(encoder.heads):
      at = slice(j * size, (j + 1) * size)
      scores = np.exp(q[:, at] @ k[:, at].T / np.sqrt(size))
      mixed[:, at] = scores / scores.sum(axis=1, keepdims=True) @ v[:, at]
    h = h + affine(mixed, own["out"])
    hidden = np.maximum(affine(normed(h, own["norm_1"]), own["hidden"]), 0)
    h = h + affine(hidden, own["shrunk"])
  h = normed(h, p["norm"])
  if encoder.pooling == "cls":
    return h[0]
  return h.mean(axis=0) if len(h) else np.zeros(encoder.width)


@pytest.mark.parametrize("name", MODELS)
def test_equations(name):
  encoder, x = model(name), batch(104, np.nan, dtype=np.float64)
  variables = drawn(encoder, x)
  p = jax.tree.map(np.asarray, variables["params"])
  found = features(encoder, variables, x)
  for i, n in enumerate(LENGTHS):
    own = np.asarray(x["values"])[i, :n]
    if name.startswith("Transformer"):
      pooled = transformer(encoder, p, own)
    else:
      run = lstm if name.startswith("LSTM") else gru
      pooled = recurrent(run, encoder, p, own)
    expected = affine(pooled, p["project"])
    np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-9)


def same(a, b):
  """Bit for bit; zero is zero with either sign."""
  jax.tree.map(np.testing.assert_array_equal, a, b)


def compare(name, lengths, pads, train=False, **options):
  """Features and gradients with such padding are those without junk."""
  encoder = model(name, dropout=0.3 * train, **options)
  variables = drawn(encoder, batch(8, 0, (1,)), np.float32)

  def loss(v, x):
    z = encoder.apply(v, x, train, rngs={"dropout": jax.random.key(2)})
    return (z**2).sum(), z

  both = jax.jit(jax.grad(loss, has_aux=True))
  first, *others = (
    both(variables, batch(*pad, lengths)) for pad in [(pads[0][0], 0.0), *pads]
  )
  assert all(np.isfinite(y).all() for y in jax.tree.leaves(first))
  assert np.abs(first[1]).max() > 0.01
  for other in others:
    same(first, other)


@pytest.mark.parametrize("name", MODELS)
def test_features_know_nothing_of_padding(name):
  """As the tests compile, and for lengths up to a hundred."""
  encoder = model(name)
  variables = drawn(encoder, batch(8, 0, (1,)), np.float32)
  first, *others = (
    features(encoder, variables, batch(*pad))
    for pad in ((104, 0.0), (104, np.nan), (168, 7.0))
  )
  assert np.isfinite(first).all() and np.abs(first).max() > 0.01
  for other in others:
    same(first, other)


@pytest.mark.parametrize(
  "name",
  [
    pytest.param(m, marks=[pytest.mark.slow] * m.startswith("Transformer"))
    for m in MODELS
  ],
)
def test_gradients_know_nothing_of_padding(optimised, name):
  """Those of the weights, and features, compiled as JAX does by default.

  On a CPU. Other devices may add in another order, but have no reason to change
  it with T: no shape in the loops does.
  """
  compare(name, (0, 1, 8, 17), [(24, np.nan), (80, np.inf)])


@pytest.mark.parametrize(
  "name", ["GRU", pytest.param("Transformer", marks=pytest.mark.slow)]
)
def test_a_single_block_is_as_several(optimised, name):
  """With dropout, whose draws do not depend on T either."""
  pads = [(8, np.nan), (40, 1.0)]
  compare(name, (0, 3, 8), pads, train=True, layers=1)


def test_dropout_drops():
  for name in ("LSTM", "Transformer"):
    encoder, x = model(name, dropout=0.5), batch(24, 0, (8, 17))
    variables = drawn(encoder, x, np.float32)
    once, twice = (features(encoder, variables, x, True, k) for k in range(2))
    assert np.abs(once - twice).max() > 1e-3


@pytest.mark.parametrize("name", ["LSTM", "Transformer"])
def test_plain_arrays_are_sequences_without_padding(name):
  encoder, x = model(name), batch(17, 0, (17, 17))
  variables = drawn(encoder, x, np.float32)
  same(*(features(encoder, variables, v) for v in (x, x["values"])))


@pytest.mark.parametrize("name", ["GRU", "Transformer"])
def test_words(name):
  """Word 0 is padding; other words have vectors of their own."""
  encoder = model(name, vocab_size=6)
  short = jnp.asarray([[1, 5, 2, 0], [3, 0, 0, 0], [0, 0, 0, 0]])
  variables = drawn(encoder, short, np.float32)
  assert variables["params"]["words"]["embedding"].shape == (6, 8)
  long = jnp.pad(short, ((0, 0), (0, 9)))
  found = features(encoder, variables, short)
  same(found, features(encoder, variables, long))
  turned = features(encoder, variables, short.at[0, :2].set([5, 1]))
  assert np.abs(turned[0] - found[0]).max() > 1e-3
  same(turned[1:], found[1:])


@pytest.mark.parametrize(("name", "width"), [("LSTM", 16), ("Transformer", 8)])
def test_runs_in_stages(name, width):
  encoder, x = model(name), batch(24, 0, (3, 17))
  variables = drawn(encoder, x, np.float32)

  @jax.jit
  def parts(v, x):
    pooled = encoder.apply(v, x, False, 0, encoder.stages)
    return pooled, encoder.apply(v, pooled, False, encoder.stages)

  pooled, end = parts(variables, x)
  assert pooled.shape == (2, width)
  same(end, features(encoder, variables, x))


@pytest.mark.parametrize(
  ("cls", "options", "said"),
  [
    (small.GRU, {"pooling": "max"}, "pooling of GRU.*'max'.*last, mean"),
    (small.LSTM, {"layers": 0}, "layers of LSTM must be a whole number"),
    (small.LSTM, {"dropout": 1.0}, r"dropout of LSTM must lie in \[0, 1\)"),
    (small.Transformer, {"pooling": "last"}, "'last'.*cls"),
    (small.Transformer, {"positions": "rotary"}, "'rotary'.*sinusoidal"),
    (small.Transformer, {"heads": 3}, "width .* multiple of heads, got 64"),
    (small.Transformer, {"longest": 0}, "longest of Transformer"),
  ],
)
def test_bad_options(cls, options, said):
  with pytest.raises(ValueError, match=said):
    cls(**options)


def test_bad_inputs():
  encoder = small.Transformer(positions="learned", longest=16)
  x = jnp.zeros((2, 24, 3))
  with pytest.raises(ValueError, match=r"16 learned positions.*24 steps"):
    encoder.init(jax.random.key(0), x, False)
  encoder.init(jax.random.key(0), x[:, :16], False)
  with pytest.raises(ValueError, match=r"\[2, 24\]: .* small.MLP"):
    small.GRU().init(jax.random.key(0), x[..., 0], False)
