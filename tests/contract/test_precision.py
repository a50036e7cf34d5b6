"""bfloat16 and recomputed activations, for every encoder and for α."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import toys
from dmg_jax.config import compose
from dmg_jax.model import classifier, precision, registry
from dmg_jax.training import validation

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 255, (4, 32, 32, 3)).astype(np.uint8)
STEPS = RNG.normal(size=(4, 24, 5)).astype(np.float32)
WORDS = RNG.integers(1, 50, (4, 16)).astype(np.int32)
SMALL = {"width": 32, "depth": 2, "heads": 2, "hidden": 64}
# {encoder: its inputs, its options}
CASES = {
  "small.MLP": (STEPS, {"widths": (32, 32), "norm": "group"}),
  "small.ConvNet": (PICTURES, {"widths": (8, 16), "norm": "batch"}),
  "small.ConvNet1D": (STEPS.reshape(4, -1), {"widths": (8, 16)}),
  "small.WordBag": (WORDS, {"vocab_size": 50}),
  "small.LSTM": (STEPS, {"bidirectional": True}),
  "small.GRU": (STEPS, {"layers": 2}),
  "small.Transformer": (STEPS, {"layers": 2, "width": 32}),
  "resnet.ResNet": (PICTURES, {"width": 8, "blocks": (2, 2), "features": 16}),
  "bert.Bert": (WORDS, {"vocab_size": 50, "features": 16, **SMALL}),
  "clip.ClipVision": (
    PICTURES,
    {"image_size": 32, "patch": 8, "projection": 16, **SMALL},
  ),
  "clip.ClipText": (
    WORDS,
    {"vocab_size": 50, "eos": 49, "projection": 16, **SMALL},
  ),
  "vit.ViT": (PICTURES, {"image_size": 32, "patch": 8, **SMALL}),
  "swin.Swin": (
    PICTURES,
    {"width": 16, "depths": (2, 2), "heads": (2, 2), "windows": (4, 4)},
  ),
  "wav2vec2.Wav2Vec2": (
    RNG.normal(size=(4, 400)).astype(np.float32),
    {
      "widths": (16, 16),
      "kernels": (10, 3),
      "strides": (5, 2),
      "position_kernel": 8,
      "position_groups": 4,
      **SMALL,
    },
  ),
  "ast.AST": (
    RNG.normal(size=(4, 32, 32, 1)).astype(np.float32),
    {"bins": 32, "frames": 32, "patch": 8, **SMALL},
  ),
  "i3d.I3D": (RNG.normal(size=(2, 4, 32, 32, 3)), {"width": 8}),
}  # fmt: skip
# Their programs take long to compile.
LARGE = (
  "ast.AST", "clip.ClipText", "clip.ClipVision", "i3d.I3D", "small.Transformer",
  "swin.Swin", "vit.ViT", "wav2vec2.Wav2Vec2",
)  # fmt: skip


def marked(names):
  """The names; those of ``LARGE`` are slow."""
  slow = pytest.mark.slow
  return [pytest.param(n, marks=slow) if n in LARGE else n for n in names]


every_encoder = pytest.mark.parametrize("name", marked(CASES))
REMAT = [n for n in CASES if hasattr(registry.encoder_class(n), "remat")]
# Fusions of most recipes; the others are slow.
OFTEN = ("concat", "own_heads", "sum")
# Largest error of a feature, as a share of their root mean square, and least
# cosine of gradients. bfloat16 rounds at 1/256; networks repeat it by layers.
CLOSE, ALIKE = 0.1, 0.99


def test_every_encoder_has_a_case():
  assert set(CASES) == set(registry.encoders())


class Made:
  """An encoder with its variables, and a loss of its features."""

  def __init__(self, name, **options):
    x, own = CASES[name]
    self.x = jnp.asarray(x, jnp.float32 if x.dtype == np.float64 else x.dtype)
    self.module = registry.make_encoder(name, **{**own, **options})
    self.variables = jax.jit(lambda key: self.module.init(key, self.x, False))(
      jax.random.key(0)
    )

  def features(self, params, train=False):
    given = {**self.variables, "params": params}
    rngs = {"dropout": jax.random.key(1)}
    if not train:
      return self.module.apply(given, self.x, False)
    moving = [c for c in given if c != "params"]
    return self.module.apply(given, self.x, True, rngs=rngs, mutable=moving)[0]

  def loss(self, params, train=True):
    z = self.features(params, train)
    return (z**2).mean()

  @property
  def params(self):
    return self.variables["params"]


made = functools.cache(Made)


def equations(jaxpr):
  """Those of a program and of all programs inside."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(
      list(equation.params.values()),
      is_leaf=lambda p: hasattr(p, "eqns") or hasattr(p, "jaxpr"),
    ):
      inner = getattr(inner, "jaxpr", inner)
      if hasattr(inner, "eqns"):
        yield from equations(inner)


def products(function, *args):
  """{dtype: multiplications} of products and convolutions of a function."""
  found = {}
  for equation in equations(jax.make_jaxpr(function)(*args).jaxpr):
    if equation.primitive.name in ("dot_general", "conv_general_dilated"):
      left, right = (v.aval for v in equation.invars)
      size = left.size * right.size
      dtype = str(jnp.promote_types(left.dtype, right.dtype))
      found[dtype] = found.get(dtype, 0) + size
  return found


@every_encoder
def test_products_are_bfloat16(name):
  """Most of them: the last layer, of features, stays float32."""
  wide, narrow = made(name), made(name, dtype="bfloat16")
  assert set(products(wide.loss, wide.params)) <= {"float32"}
  for of in (narrow.loss, jax.grad(narrow.loss)):
    found = products(of, narrow.params)
    assert found["bfloat16"] > 0.6 * sum(found.values()), found


@every_encoder
def test_weights_statistics_and_features_are_float32(name):
  run = made(name, dtype="bfloat16")
  kept = jax.tree.leaves(run.variables)
  grads = jax.tree.leaves(jax.eval_shape(jax.grad(run.loss), run.params))
  features = jax.eval_shape(run.features, run.params)
  for x in (*kept, *grads, features):
    assert x.dtype == jnp.float32


@every_encoder
def test_features_and_gradients_are_close(name):
  wide, narrow = made(name), made(name, dtype="bfloat16")
  assert toys.same(wide.variables, narrow.variables)
  a, b = (jax.jit(r.features)(wide.params) for r in (wide, narrow))
  assert float(jnp.abs(a - b).max()) < CLOSE * float(jnp.sqrt((a**2).mean()))
  assert not np.array_equal(a, b)
  # Running statistics: those of a few samples magnify any rounding.
  ga, gb = (
    jax.jit(jax.grad(lambda p, r=r: r.loss(p, train=False)))(wide.params)
    for r in (wide, narrow)
  )
  assert toys.finite(gb) and cosine(ga, gb) > ALIKE


def cosine(one, two):
  a, b = (
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)])
    for t in (one, two)
  )
  return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("name", marked(REMAT))
def test_recomputed_activations_are_the_same(name):
  """Up to rounding; weights have their names; less is kept in between."""
  plain, again = made(name), made(name, remat=True)
  assert toys.same(plain.variables, again.variables)
  found = [
    jax.jit(jax.value_and_grad(r.loss))(r.params) for r in (plain, again)
  ]
  toys.assert_close(*found, rtol=1e-4, atol=1e-6)
  assert kept(again) < 0.6 * kept(plain)


def kept(run):
  """Bytes that the forward pass hands to the backward pass."""
  back = jax.eval_shape(lambda p: jax.vjp(run.loss, p)[1], run.params)
  weights = sum(p.nbytes for p in jax.tree.leaves(run.params))
  size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(back))
  return size - weights


def test_large_encoders_recompute():
  """The others have no blocks, and little to keep."""
  small = {n for n in CASES if n.startswith("small.")} - {"small.Transformer"}
  assert set(REMAT) == set(CASES) - small


@pytest.mark.parametrize(
  "fusion",
  [
    n if n in OFTEN else pytest.param(n, marks=pytest.mark.slow)
    for n in registry.known("fusion")
  ],
)
def test_fusions_and_heads_are_float32(fusion):
  """``channel`` gates the bfloat16 maps between the encoders' stages."""
  found = {}
  for name in ("float32", "bfloat16"):
    options = {"name": "small.MLP", "widths": (16, 16, 16), "dtype": name}
    options |= {"features": 8}
    model = registry.make_classifier(
      dict.fromkeys(toys.NAMES[:2], options), {"name": fusion}, toys.CLASSES
    )
    inputs = toys.batch(2).inputs
    params, stats = classifier.make_init(model, inputs)(0)
    problem = classifier.bind(model, params, stats, inputs, 16, "R1")
    found[name] = problem.run(params, stats, toys.batch(2))[0]
    out = found[name]
    leaves = jax.tree.leaves((params, out.logits, out.unimodal, out.features))
    assert {x.dtype for x in leaves} == {np.dtype("float32")}
  a, b = (found[k].logits for k in ("float32", "bfloat16"))
  scale = float(jnp.abs(a).max())
  np.testing.assert_allclose(a, b, atol=CLOSE * scale)


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["neumann", "cg"])
def test_hypergradient_of_bfloat16(solver):
  """α's gradient points where that of float32 does, at several weights."""
  found = {"float32": [], "bfloat16": []}
  for name, values in found.items():
    options = {"name": "small.MLP", "widths": (32,), "features": 8}
    model = registry.make_classifier(
      {m: {**options, "dtype": name} for m in toys.NAMES[:2]},
      {"name": "sum", "mean": True},
      toys.CLASSES,
    )
    inputs = toys.batch(2).inputs
    init = classifier.make_init(model, inputs)
    problem = classifier.bind(model, *init(0), inputs, 16, "R1")
    method = registry.make_method(
      "lb", unimodal_weight=1.0, solver=solver, damping=1.0
    )
    run = toys.Run.on(method, problem, *init(0))
    for seed in range(6):
      params, stats = init(seed)
      begun = run.fresh().replace(params=params, stats=stats)
      batch, outer = toys.batch(2, 32, seed), toys.batch(2, 32, seed + 50)
      state, metrics = run.outer(begun, batch, outer)
      assert np.isfinite(float(metrics["alpha"]))
      assert state.method.value.dtype == metrics["hypergradient"].dtype
      assert metrics["hypergradient"].dtype == jnp.float32
      values.append(float(metrics["hypergradient"]))
  a, b = (np.array(v) for v in found.values())
  assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > ALIKE
  assert not np.array_equal(a, b)


def test_an_encoders_own_options_come_first():
  one = {"name": "bert.Bert", "dtype": "", "remat": False}
  chosen = precision.chosen
  assert chosen(one, "bf16", True)["dtype"] == "bfloat16"
  assert chosen(one, "float32", True)["remat"] is True
  own = {**one, "dtype": "float32", "remat": True}
  assert chosen(own, "bf16", False) == own
  mine = {"name": "own", "class": "Mine"}
  assert chosen(mine, "bf16", True) == mine


def test_every_encoder_follows_the_run():
  for name in CASES:
    assert compose.encoder(name)["dtype"] == ""


@pytest.mark.parametrize(
  ("field", "value", "said"),
  [
    ("precision", "bf8", "bf16"),
    ("sharding", "zero", "fsdp"),
    ("train.accumulate", 0, r"\[1, "),
    ("encoders.image.dtype", "half", "bfloat16"),
  ],
)
def test_wrong_values_name_the_choices(field, value, said):
  from configs import openmoji

  config: ConfigDict = openmoji.get_config("lb")
  config.update_from_flattened_dict({field: value})
  with pytest.raises(ValueError, match=said):
    validation.check(config)
