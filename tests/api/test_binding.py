"""A problem of any pure function, and any method on it in a loop."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import dmg_jax
import toys
from dmg_jax.errors import InputError, UnsuitableError
from dmg_jax.model import registry
from dmg_jax.training import optim, steps
from dmg_jax.types import Batch

METHODS = registry.known("methods")
TWO_ONLY = {"greedy"}
# Finite derivatives where a weight never had a gradient, for lb_forward.
ADAM = optax.adam(1e-2, eps_root=1e-30)


def count(name):
  return 2 if name in TWO_ONLY else 3


def bound(name, norm="batch", dropout=0.3, **changes):
  """The toy classifier with a method's fusion, through ``bind``."""
  modalities = count(name)
  options = toys.fusion_of(name)
  problem, params, stats = toys.problem(
    modalities, norm=norm, dropout=dropout, **options
  )

  def apply(params, stats, inputs, *, train, key):
    outputs, stats = problem.forward(params, stats, inputs, key, train)
    return {
      "logits": outputs.logits,
      "unimodal": outputs.unimodal,
      "features": outputs.features,
      "extra": outputs.extra,
    }, stats

  def fuse(params, stats, features, *, train, key):
    return problem.fuse(params, stats, features, key, train)

  given = {
    "owner": problem.owner,
    "inputs": toys.batch(modalities).inputs,
    "stats": stats,
    "fuse": fuse,
    "samples": toys.SAMPLES,
    "readout": problem.readout,
    **changes,
  }
  return dmg_jax.bind(apply, params, **given), problem


QUICK = {"joint", "lb", "mla", "ogm_ge"}


def slow(name):
  return pytest.param(name, marks=pytest.mark.slow)


def options_of(name):
  return {
    "unimodal": {"modality": None},
    "lb": {"iterations": 1},
  }.get(name, {})


def numpy_batch(name, seed=0, index=True):
  batch = toys.batch(count(name), seed=seed)
  made = {m: np.asarray(x) for m, x in batch.inputs.items()}
  made["labels"] = np.asarray(batch.labels)
  return {**made, "index": np.arange(8)} if index else made


def splits(name):
  return {
    "train": [numpy_batch(name, 10), numpy_batch(name, 11)],
    "outer": lambda: iter([numpy_batch(name, 20)]),
    "val": [numpy_batch(name, 30)],
  }


def train(name, loop, number=2):
  """Steps as in a user's loop; the state and the metrics of each step."""
  state, seen = loop.init(), []
  for epoch in range(2):
    state = loop.between_epochs(state, splits(name), epoch)
    order = loop.order(state, epoch)
    assert order is None or len(order) >= toys.SAMPLES
    for i in range(number // 2):
      state, metrics = loop.step(state, numpy_batch(name, i))
      seen.append({k: float(v) for k, v in metrics.items()})
    if loop.has_outer:
      state, extra = loop.outer_step(
        state, numpy_batch(name, 0), numpy_batch(name, 9)
      )
      seen.append({k: float(v) for k, v in extra.items()})
  return state, seen


@pytest.mark.parametrize(
  "name", [n if n in QUICK else slow(n) for n in METHODS]
)
def test_every_method_trains_a_bound_problem(name):
  problem, _ = bound(name)
  loop = dmg_jax.Loop(problem, name, ADAM, epochs=2, **options_of(name))
  state, seen = train(name, loop)
  assert int(state.step) == 2 and loop._step._cache_size() == 1
  assert toys.finite((state.params, seen))
  assert not toys.same(state.params, loop.init().params)
  logits = loop.predict(state, toys.batch(count(name)).inputs)
  assert logits.shape == (8, toys.CLASSES)
  assert loop.epochs >= 2 and loop.ready(state) in (True, False)


@pytest.mark.parametrize(
  "name", ["ogm_ge", *map(slow, ("lb", "mla", "gblend"))]
)
def test_seeds_are_reproducible(name):
  problem, _ = bound(name)
  runs = [
    train(name, dmg_jax.Loop(problem, name, ADAM, seed=s, **options_of(name)))
    for s in (1, 1, 2)
  ]
  assert toys.same(runs[0][0], runs[1][0])
  assert not toys.same(runs[0][0].params, runs[2][0].params)


def to64(tree):
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


@pytest.mark.parametrize(
  "name", ["joint", "lb", *map(slow, ("ogm_ge", "mla", "agm"))]
)
def test_the_same_as_the_library_in_float64(name):
  """Gradients through the optimiser, and lb's hypergradient."""
  problem, plain = bound(name)
  modalities = count(name)
  inputs64 = to64(toys.batch(modalities).inputs)
  start = to64(problem.start)
  method = registry.make_method(name, **options_of(name))
  init_opt, apply = optim.make(
    plain.owner, lambda step: 0.05, name="sgd", momentum=0.9
  )
  theirs = steps.init_state(plain, method, *start, init_opt, 0)
  step = steps.make_train_step(plain, method, apply)
  loop = dmg_jax.Loop(
    problem, method, optax.chain(optax.trace(0.9), optax.scale(-0.05))
  )
  mine = loop.init(*start)
  batch = toys.batch(modalities).replace(inputs=inputs64)
  for _ in range(2):
    theirs, one = step(theirs, batch, 0)
    mine, two = loop.step(mine, batch)
  toys.assert_close(one, two, rtol=1e-12, atol=1e-13)
  toys.assert_close(theirs.params, mine.params, rtol=1e-12, atol=1e-13)
  toys.assert_close(theirs.stats, mine.stats, rtol=1e-12, atol=1e-13)
  assert jax.tree.leaves(mine.params)[0].dtype == jnp.float64
  if method.outer_step is not None:
    outer = steps.make_outer_step(plain, method)
    other = toys.batch(modalities, seed=9)
    other = other.replace(inputs=to64(other.inputs))
    _, one = outer(theirs, batch, other, 0)
    _, two = loop.outer_step(mine, batch, other)
    assert abs(float(two["hypergradient"])) > 0
    np.testing.assert_allclose(
      one["hypergradient"], two["hypergradient"], rtol=1e-10
    )


@pytest.mark.slow
def test_the_outer_step_leaves_weights_and_statistics_alone():
  problem, _ = bound("lb")
  loop = dmg_jax.Loop(problem, "lb", ADAM, iterations=1)
  state, _ = loop.step(loop.init(), numpy_batch("lb"))
  after, metrics = loop.outer_step(
    state, numpy_batch("lb"), numpy_batch("lb", 5)
  )
  assert toys.same((state.params, state.stats), (after.params, after.stats))
  assert float(metrics["alpha"]) != float(state.method.value)


# A toy without a network: what a model gives is chosen in each test.


def weights():
  rng = np.random.default_rng(0)
  return {
    "image": {"w": rng.normal(size=(5, 4)).astype(np.float32)},
    "text": {"w": rng.normal(size=(4, 4)).astype(np.float32)},
    "head": rng.normal(size=(4, toys.CLASSES)).astype(np.float32),
  }


OWNER = {"image": "image", "text": "text", "head": "shared"}


def two(give=("logits",), owner=OWNER, stats=None, **changes):
  def apply(params, inputs, *, train, key):
    z = {m: jnp.tanh(inputs[m] @ params[m]["w"]) for m in ("image", "text")}
    o = {m: x @ params["head"] for m, x in z.items()}
    logits = o["image"] + o["text"]
    found = {"logits": logits, "unimodal": o, "features": z}
    return {k: found[k] for k in give}

  def moving(params, stats, inputs, *, train, key):
    return apply(params, inputs, train=train, key=key), stats

  return dmg_jax.bind(
    changes.pop("apply", moving if stats is not None else apply),
    weights(),
    owner=owner,
    inputs=toys.batch(2).inputs,
    stats=stats,
    **changes,
  )


@pytest.mark.parametrize(
  ("name", "give", "message"),
  [
    ("ogm_ge", ("logits",), "^ogm_ge needs unimodal logits: return 'unimodal'"),
    ("lb", ("logits",), "^lb needs features: return 'features'"),
    ("pmr", ("logits", "unimodal"), "^pmr needs features"),
    ("amco", ("logits", "unimodal", "features"), "^amco needs .*fuse="),
    ("opm", ("logits", "unimodal", "features"), "^opm needs .*fuse="),
    ("cml", ("logits", "unimodal", "features"), "^cml needs .*fuse="),
    ("bss", ("logits", "unimodal", "features"), "^bss needs .*samples="),
    ("valuation", ("logits", "unimodal", "features"), "^valuation.*samples="),
    ("aug", ("logits", "unimodal", "features"), "aug needs .*'boosters'"),
    ("greedy", ("logits", "unimodal", "features"), "greedy needs"),
  ],
)
def test_what_a_method_needs_and_the_model_lacks_is_named(name, give, message):
  loop = dmg_jax.Loop(two(give), name, ADAM)
  with pytest.raises(InputError, match=message):
    loop.step(loop.init(), toys.batch(2))


def test_splits_and_steps_that_are_not_given_are_named():
  whole = ("logits", "unimodal", "features")
  loop = dmg_jax.Loop(two(whole), "mslr", ADAM)
  state = loop.init()
  with pytest.raises(UnsuitableError, match=r"^mslr needs the split 'val'"):
    for epoch in range(10):
      state = loop.between_epochs(state, {}, epoch)
  loop = dmg_jax.Loop(two(whole), "lb", ADAM)
  with pytest.raises(UnsuitableError, match=r"^lb needs the number of steps"):
    loop.between_epochs(loop.init(), {}, 0)
  loop = dmg_jax.Loop(two(whole), "lb", ADAM, steps_per_epoch=3)
  loop.between_epochs(loop.init(), {}, 0)


def test_joint_needs_logits_only():
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  state, metrics = loop.step(loop.init(), toys.batch(2))
  assert np.isfinite(metrics["loss"])
  assert loop.predict(state, toys.batch(2).inputs).shape == (8, 3)


def test_owner_by_a_function_a_pytree_and_a_prefix():
  by_path = two(owner=lambda path: OWNER[path[0]]).owner
  whole = two(owner={**OWNER, "image": {"w": "image"}, "text": {"w": "text"}})
  assert by_path == whole.owner == two().owner
  assert by_path["image"] == {"w": "image"}


BAD = {
  "an owner": ({"owner": {**OWNER, "head": "haed"}},
               "unknown owner of the weight head 'haed'"),
  "owners of another structure": ({"owner": {"image": "image"}},
                                  "owner must be a pytree like params"),
  "no logits": ({"give": ("features",)}, "'logits' .* got features"),
  "no dictionary": ({"apply": lambda params, inputs, *, train, key: 3.0},
                    "must return a dictionary"),
  "another output": (
    {"apply": lambda p, i, *, train, key: {"logits": i["text"], "logit": 1}},
    "unknown output 'logit'",
  ),
  "logits of one sample": (
    {"apply": lambda p, i, *, train, key: {"logits": i["text"][0]}},
    r"logits must be floats \[b k\].*2 samples; got float32\[4\]",
  ),
  "labels": (
    {"apply": lambda p, i, *, train, key: {
      "logits": i["text"].argmax(axis=1)[:, None]}},
    r"logits must be floats .*got int",
  ),
  "a modality": (
    {"apply": lambda p, i, *, train, key: {
      "logits": i["text"], "features": {"sound": i["text"]}}},
    "unknown modality in 'features' 'sound'",
  ),
  "half of the modalities": (
    {"apply": lambda p, i, *, train, key: {
      "logits": i["text"], "unimodal": {"text": i["text"]}}},
    "'unimodal' lacks image",
  ),
  "unimodal logits of other classes": (
    {"apply": lambda p, i, *, train, key: {
      "logits": i["text"], "unimodal": i}},
    r"unimodal\['image'\] must be floats .*float32\[2, 5\] beside",
  ),
  "no statistics": (
    {"stats": {"n": np.zeros(())},
     "apply": lambda p, s, i, *, train, key: {"logits": i["text"]}},
    r"apply must return \(outputs, stats\)",
  ),
  "other statistics": (
    {"stats": {"n": np.zeros(())},
     "apply": lambda p, s, i, *, train, key: ({"logits": i["text"]}, {})},
    "statistics like those",
  ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_bound_is_refused(case):
  changes, message = BAD[case]
  with pytest.raises(InputError, match=message):
    two(**changes)


def test_a_method_of_other_modalities_is_refused():
  with pytest.raises(UnsuitableError, match="unimodal trains a model of image"):
    dmg_jax.Loop(two(), "unimodal", ADAM, modality="image")


def test_what_a_loop_refuses():
  problem = two()
  with pytest.raises(InputError, match=r"unknown method 'jiont'.*joint"):
    dmg_jax.Loop(problem, "jiont", ADAM)
  with pytest.raises(InputError, match=r"option of method 'ogm_ge' 'alhpa'"):
    dmg_jax.Loop(problem, "ogm_ge", ADAM, alhpa=1)
  with pytest.raises(InputError, match="gradient transformation of optax"):
    dmg_jax.Loop(problem, "joint", 1e-3)  # type: ignore[arg-type]
  with pytest.raises(InputError, match="options alpha are for a method by"):
    dmg_jax.Loop(problem, registry.make_method("joint"), ADAM, alpha=1)
  loop = dmg_jax.Loop(problem, "joint", ADAM)
  with pytest.raises(InputError, match="joint has no outer level"):
    loop.outer_step(loop.init(), toys.batch(2), toys.batch(2))


FORMS = {
  "pair": lambda x, y: (x, y),
  "nested": lambda x, y: {"inputs": x, "labels": y},
  "flat": lambda x, y: {**x, "label": y},
  "batch": lambda x, y: Batch(x, y, np.ones(8), np.arange(8)),
  "jax": lambda x, y: (
    {m: jnp.asarray(v) for m, v in x.items()},
    jnp.asarray(y),
  ),
  "masked": lambda x, y: {**x, "labels": y, "mask": np.ones(8, bool)},
}


def test_every_form_of_a_batch_is_the_same():
  batch = numpy_batch("greedy", index=False)
  labels = batch.pop("labels").astype(np.int64)
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  found = [
    loop.step(loop.init(), make(batch, labels))[0] for make in FORMS.values()
  ]
  assert all(toys.same(found[0], other) for other in found[1:])


def test_batches_of_a_torch_loader():
  torch = pytest.importorskip("torch")
  batch = numpy_batch("greedy", index=False)
  labels = batch.pop("labels").astype(np.int64)
  data = torch.utils.data.StackDataset(
    **{m: torch.tensor(x) for m, x in batch.items()},
    labels=torch.tensor(labels),
  )
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  for given in torch.utils.data.DataLoader(data, batch_size=8):
    state, _ = loop.step(loop.init(), given)
  assert toys.same(state, loop.step(loop.init(), (batch, labels))[0])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"sound": np.zeros((8, 2))}, "unknown modality of a batch 'sound'"),
    ({"text": None}, "needs the modalities image, text; got image"),
    ({"labels": np.zeros(8)}, r"whole numbers \[b\], got float64\[8\]"),
    ({"labels": np.full(8, 3)}, r"labels must lie in \[0, 2\].* got 3"),
    ({"labels": np.zeros(7, int)}, r"7 labels, but 8 at \['image'\]"),
    ({"labels": None}, "needs 'labels', got image, text"),
    ({"mask": np.ones(7)}, r"8 labels, but 7 at \['mask'\]"),
  ],
)
def test_a_batch_that_cannot_be_used_is_refused(change, message):
  batch = {**numpy_batch("greedy", index=False), **change}
  batch = {k: v for k, v in batch.items() if v is not None}
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  with pytest.raises(InputError, match=message):
    loop.step(loop.init(), batch)


def test_an_index_is_asked_for_where_samples_are_counted():
  loop = dmg_jax.Loop(two(samples=16), "joint", ADAM)
  with pytest.raises(InputError, match="every batch needs 'index'"):
    loop.step(loop.init(), numpy_batch("greedy", index=False))
  loop.step(loop.init(), numpy_batch("greedy"))


def test_padding_has_no_influence():
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  found = []
  for garbage in (0.0, 9.0):
    batch = numpy_batch("greedy", index=False)
    batch["image"] = np.concatenate(
      [batch["image"][:5], np.full((3, 5), garbage)]
    )
    mask = np.array([1, 1, 1, 1, 1, 0, 0, 0])
    found.append(loop.step(loop.init(), {**batch, "mask": mask})[0])
  toys.assert_close(*found)


OPTIMISERS = {
  "adam": optax.adam(1e-2),
  "chain": optax.chain(
    optax.clip(0.1),
    optax.add_decayed_weights(1e-2),
    optax.trace(0.9),
    optax.scale_by_schedule(optax.linear_schedule(-1e-2, -1e-3, 5)),
  ),
  "lion": optax.lion(1e-3),
  "adafactor": optax.adafactor(1e-2),
}


def functions(name="adam"):
  problem = two()
  init_opt, apply = optim.from_optax(problem.owner, OPTIMISERS[name])
  params = problem.start[0]
  state = steps.init_state(
    problem,
    registry.make_method("joint"),
    params,
    {},
    init_opt,
    0,  # type: ignore
  )
  rng = np.random.default_rng(1)
  grads = jax.tree.map(
    lambda p: jnp.asarray(rng.normal(size=p.shape), p.dtype), params
  )
  return state, grads, apply


@pytest.mark.parametrize("name", OPTIMISERS)
def test_an_optimiser_of_optax_moves_as_optax_does(name):
  state, grads, apply = functions(name)
  tx = OPTIMISERS[name]
  params, memory = state.params, tx.init(state.params)
  for _ in range(3):
    state = apply(state, grads)
    updates, memory = tx.update(grads, memory, params)
    params = optax.apply_updates(params, updates)
  toys.assert_close(state.params, params)


@pytest.mark.parametrize("name", OPTIMISERS)
@pytest.mark.parametrize("traced", [False, True])
def test_scale_is_a_learning_rate_and_zero_freezes(name, traced):
  state, grads, apply = functions(name)
  value = (lambda x: jnp.float32(x)) if traced else float
  whole = apply(state, grads)
  half = apply(state, grads, {"image": value(0.5), "text": value(0.0)})
  moved = jax.tree.map(
    lambda a, b: np.asarray(b - a), state.params, whole.params
  )
  scaled = jax.tree.map(
    lambda a, b: np.asarray(b - a), state.params, half.params
  )
  toys.assert_close(
    scaled["image"], jax.tree.map(lambda x: x / 2, moved["image"])
  )
  toys.assert_close(scaled["head"], moved["head"])
  assert toys.same(half.params["text"], state.params["text"])
  inner = [s.opt_state.inner_states for s in (state, whole, half)]
  assert toys.same(inner[0]["text"], inner[2]["text"])
  assert toys.same(inner[1]["image"], inner[2]["image"])


def test_clip_norm_is_of_the_whole_gradient():
  problem = two()
  batch = toys.batch(2)
  sgd = optax.sgd(1.0)
  moved = []
  for clip in (None, 0.1):
    loop = dmg_jax.Loop(problem, "joint", sgd, clip_norm=clip)
    state = loop.init()
    after, _ = loop.step(state, batch)
    moved.append(
      jax.tree.map(lambda a, b: np.asarray(b - a), state.params, after.params)
    )
  norm = float(optax.global_norm(moved[0]))
  np.testing.assert_allclose(optax.global_norm(moved[1]), 0.1, rtol=1e-4)
  toys.assert_close(
    jax.tree.map(lambda x: x * (0.1 / norm), moved[0]), moved[1], atol=1e-6
  )


def test_a_state_is_kept_unless_donated():
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  state = loop.init()
  before = jax.tree.map(np.asarray, state)
  loop.step(state, toys.batch(2))
  assert toys.same(before, state)
  loop = dmg_jax.Loop(two(), "joint", ADAM, donate=True)
  one, _ = loop.step(loop.init(), toys.batch(2))
  two_, _ = loop.step(loop.init(), toys.batch(2))
  assert toys.same(one, two_)


def test_ablations_of_a_bound_problem():
  """``keep`` and ``shown``, as the read-outs use them; ``present``."""
  problem, plain = bound("joint")
  params, stats = problem.start
  inputs, ones = toys.batch(3).inputs, jnp.ones(8)
  flags = {"image": 0 * ones, "text": ones}
  for name in ("keep", "shown", "present"):
    mine, theirs = (
      p.forward(params, stats, inputs, None, False, **{name: flags})[0]
      for p in (problem, plain)
    )
    np.testing.assert_allclose(mine.logits, theirs.logits, rtol=1e-6)
  with pytest.raises(UnsuitableError, match="fuse="):
    p = two(("logits", "features"))
    p.forward(p.start[0], {}, toys.batch(2).inputs, None, False, keep=flags)


class Towers(nnx.Module):
  """BatchNorm, dropout and a list, in NNX."""

  def __init__(self, rngs):
    self.image = nnx.List([nnx.Linear(5, 4, rngs=rngs)])
    self.norm = nnx.BatchNorm(4, rngs=rngs)
    self.drop = nnx.Dropout(0.5, rngs=rngs)
    self.text = nnx.Linear(4, 4, rngs=rngs)
    self.head = nnx.Linear(8, 3, rngs=rngs)

  def __call__(self, inputs):
    z = {
      "image": self.drop(self.norm(self.image[0](inputs["image"]))),
      "text": self.text(inputs["text"]),
    }
    return {"logits": self.head(jnp.concatenate(list(z.values()), -1))}


def test_an_nnx_model_is_a_function_and_back():
  model = Towers(nnx.Rngs(0))
  inputs = toys.batch(2).inputs
  f = dmg_jax.functional(model)
  out, stats = f.apply(f.params, f.stats, inputs, train=False, key=None)
  assert toys.same(stats, f.stats)
  model.eval()
  np.testing.assert_allclose(out["logits"], model(inputs)["logits"], rtol=1e-6)
  key, other = jax.random.key(0), jax.random.key(1)
  found = [
    f.apply(f.params, f.stats, inputs, train=True, key=k)
    for k in (key, key, other)
  ]
  assert toys.same(found[0], found[1])
  assert not toys.same(found[0][0], found[2][0])
  assert not toys.same(found[0][1], f.stats)
  back = f.module(f.params, found[0][1])
  assert toys.same(dmg_jax.functional(back).stats, found[0][1])


def test_functional_refuses_what_is_no_nnx_module():
  with pytest.raises(InputError, match="takes an NNX module, got int"):
    dmg_jax.functional(3)  # type: ignore[arg-type]


def test_any_number_of_modalities():
  for number in (1, 2, 3):
    names = list(itertools.islice(toys.NAMES, number))
    params = {m: np.zeros((d, 3), np.float32)
              for m, d in zip(names, toys.SIZES, strict=False)}  # fmt: skip

    def apply(params, inputs, *, train, key):
      o = {m: inputs[m] @ w for m, w in params.items()}
      return {"logits": sum(o.values()), "unimodal": o, "features": o}

    problem = dmg_jax.bind(
      apply,
      params,
      owner=lambda path: path[0],
      inputs=toys.batch(number).inputs,
    )
    assert problem.modalities == tuple(names)
    loop = dmg_jax.Loop(problem, "ogm_ge", ADAM)
    loop.step(loop.init(), toys.batch(number))
