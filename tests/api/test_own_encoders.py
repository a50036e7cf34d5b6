"""Encoders of the user's own: Linen and NNX modules in a run."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import unflatten_dict

import dmg_jax
import helpers
import toys
from configs import manifest
from dmg_jax.config import compose
from dmg_jax.errors import InputError
from dmg_jax.evaluation import readouts
from dmg_jax.model import classifier, own, registry
from dmg_jax.serving import export, predictor
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, optim, restore, runner, steps

FEATURES, RATE = 6, 1e-2


class Linen(nn.Module):
  """Dense, BatchNorm, dropout, Dense."""

  features: int = FEATURES
  rate: float = 0.0

  @nn.compact
  def __call__(self, x, train: bool):
    x = nn.Dense(8, name="first")(x.reshape(len(x), -1))
    x = nn.BatchNorm(not train, momentum=0.9, name="norm")(x)
    x = nn.Dropout(self.rate, deterministic=not train)(nn.relu(x))
    return nn.Dense(self.features, name="last")(x)


class Nnx(nnx.Module):
  """The same in NNX."""

  def __init__(self, inputs, rate=0.0, *, rngs):
    self.first = nnx.Linear(inputs, 8, rngs=rngs)
    self.norm = nnx.BatchNorm(8, momentum=0.9, rngs=rngs)
    self.drop = nnx.Dropout(rate, rngs=rngs)
    self.last = nnx.Linear(8, FEATURES, rngs=rngs)

  def __call__(self, x):
    x = self.norm(self.first(x.reshape(len(x), -1)))
    return self.last(self.drop(nnx.relu(x)))


def factory(rate=0.0):
  return lambda rngs: Nnx(5, rate, rngs=rngs)


def pair(fusion="sum", **modules):
  """A bound problem with own encoders: ``(problem, params, stats)``."""
  inputs = toys.batch(2).inputs
  encoders = {m: own.wrap(m, module) for m, module in modules.items()}
  small = {"name": "small.MLP", "features": FEATURES, "widths": (8,)}
  options = {m: own.options(encoders[m]) if m in encoders else small
             for m in inputs}  # fmt: skip
  model = registry.make_classifier(
    options, {"name": fusion}, toys.CLASSES, encoders
  )
  params, stats = classifier.make_init(model, inputs)(0)
  params, stats, _ = registry.load_weights(options, params, stats, encoders)
  readout = registry.readout(fusion)
  bound = classifier.bind(model, params, stats, inputs, 16, readout)
  return bound, params, stats


class Trained:
  """A problem with a method's compiled steps."""

  def __init__(self, method, problem, params, stats):
    self.problem = problem
    params, stats = jax.tree.map(jnp.copy, (params, stats))  # Steps take them.
    method = toys.make_method(method, **options_of(method))
    init_opt, apply = optim.make(problem.owner, lambda step: jnp.float32(RATE))
    self.state = steps.init_state(problem, method, params, stats, init_opt, 0)
    self.step = steps.make_train_step(problem, method, apply)
    self.outer = method.outer_step and steps.make_outer_step(problem, method)


def options_of(method):
  return {"matching": "divergence"} if method == "lb" else {}


MODULES = {
  "linen": Linen(),
  "nnx": factory(),
  "instance": Nnx(5, rngs=nnx.Rngs(7)),
}
every_kind = pytest.mark.parametrize("kind", MODULES)


@every_kind
def test_weights_have_their_owner(kind):
  problem, params, _ = pair(image=MODULES[kind])
  owners = set(jax.tree.leaves(problem.owner["encoders_image"]))
  assert owners == {"image"}
  assert set(params["encoders_image"]["module"]) == {"first", "norm", "last"}
  assert problem.sizes == {"image": FEATURES, "text": FEATURES}


def same_weights():
  """The Linen and the NNX encoder in problems with the same weights."""
  linen = pair(image=MODULES["linen"])
  problem, params, stats = pair(image=MODULES["nnx"])
  (named,) = linen[2]["batch_stats"]["encoders_image"].values()
  params = {**params, **{k: v for k, v in linen[1].items() if "_ima" not in k}}
  params["encoders_image"] = linen[1]["encoders_image"]
  stats = {"batch_stats": {"encoders_image": {"module": named}}}
  return linen, (problem, params, stats)


def images(stats):
  tree = stats["batch_stats"]["encoders_image"]["module"]
  return tree["batch_stats"]


@pytest.mark.parametrize("method", ["ogm_ge", "lb"])
def test_nnx_and_linen_train_alike(method):
  one, two = (Trained(method, *found) for found in same_weights())
  batch, outer = toys.batch(2), toys.batch(2, seed=9)
  a, b = one.state, two.state
  for run, state in ((one, a), (two, b)):
    out, _ = run.problem.forward(
      state.params, state.stats, batch.inputs, None, False
    )
    np.testing.assert_array_equal(
      out.logits,
      one.problem.forward(a.params, a.stats, batch.inputs, None, False)[
        0
      ].logits,
    )
  for _ in range(2):
    a, _ = one.step(a, batch, 0)
    b, _ = two.step(b, batch, 0)
  toys.assert_close(a.params, b.params, rtol=1e-5, atol=1e-6)
  toys.assert_close(images(a.stats), images(b.stats), rtol=1e-5, atol=1e-6)
  assert not np.allclose(images(a.stats)["norm"]["mean"], 0)
  if one.outer is not None:
    assert two.outer is not None
    before = jax.tree.map(np.asarray, (a.stats, b.stats))
    a, x = one.outer(a, batch, outer, 0)
    b, y = two.outer(b, batch, outer, 0)
    np.testing.assert_allclose(
      x["hypergradient"], y["hypergradient"], rtol=1e-4
    )
    assert abs(float(x["hypergradient"])) > 0
    assert toys.same(before, (a.stats, b.stats))


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_hypergradient_is_that_of_finite_differences(kind):
  """In training mode, with BatchNorm: statistics are frozen, masks are one."""
  module = Linen(rate=0.3) if kind == "linen" else factory(0.3)
  problem, params, stats = pair(image=module)
  to64 = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), (params, stats))
  params, stats = to64
  batch, key = toys.batch(2), jax.random.key(3)
  inputs = {m: jnp.asarray(x, jnp.float64) for m, x in batch.inputs.items()}

  def loss(params):
    out, _ = problem.forward(params, stats, inputs, key, True)
    return (out.logits**2).mean()

  grad = jax.jit(jax.grad(loss))
  rng = np.random.default_rng(0)
  v = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), params)
  product = jax.jvp(grad, (params,), (v,))[1]
  eps = 1e-6
  moved = [
    grad(jax.tree.map(lambda p, d, e=e: p + e * d, params, v))
    for e in (eps, -eps)
  ]
  central = jax.tree.map(lambda a, b: (a - b) / (2 * eps), *moved)
  toys.assert_close(product, central, rtol=1e-4, atol=1e-6)
  assert toys.same(stats, to64[1])


@pytest.mark.parametrize("kind", ["linen", "nnx"])
def test_dropout_follows_the_key(kind):
  module = Linen(rate=0.5) if kind == "linen" else factory(0.5)
  problem, params, stats = pair(image=module)
  inputs = toys.batch(2).inputs

  def features(key, train=True):
    out, _ = problem.forward(params, stats, inputs, key, train)
    return np.asarray(out.features["image"])

  one, two = jax.random.key(0), jax.random.key(1)
  np.testing.assert_array_equal(features(one), features(one))
  assert not np.allclose(features(one), features(two))
  np.testing.assert_array_equal(
    features(None, train=False), features(one, train=False)
  )


def test_two_streams_of_nnx_differ():
  class Two(nnx.Module):
    def __init__(self, rngs):
      self.drops = nnx.List([nnx.Dropout(0.5, rngs=rngs) for _ in range(2)])

    def __call__(self, x):
      return jnp.concatenate([d(jnp.ones_like(x)) for d in self.drops], -1)

  f = own.wrap("image", Two).functions
  x = jnp.ones((4, 30))
  params, stats = f.init(jax.random.key(0), x)
  y, _ = f.apply(params, stats, x, jax.random.key(0), True)
  assert not np.array_equal(y[:, :30], y[:, 30:])


def test_seeds_draw_from_a_factory_and_start_from_an_instance():
  (_, one, _), (_, two, _) = pair(image=factory()), pair(image=factory())
  assert toys.same(one, two)
  f = own.wrap("image", factory()).functions
  drawn = [f.init(jax.random.key(s), None)[0] for s in (0, 1)]
  assert not np.array_equal(drawn[0]["first"]["kernel"],
                            drawn[1]["first"]["kernel"])  # fmt: skip
  instance = MODULES["instance"]
  _, params, _ = pair(image=instance)
  given = params["encoders_image"]["module"]["first"]["kernel"]
  np.testing.assert_array_equal(given, instance.first.kernel[...])


def test_the_given_instance_is_left_alone():
  module = Nnx(5, 0.3, rngs=nnx.Rngs(1))
  before = jax.tree.map(
    np.asarray, nnx.to_pure_dict(nnx.state(module, nnx.Param))
  )
  run = Trained("joint", *pair(image=module))
  run.step(run.state, toys.batch(2), 0)
  after = nnx.to_pure_dict(nnx.state(module, nnx.Param))
  assert toys.same(before, after)


def test_an_instance_changed_later_starts_where_it_was_given():
  module = Nnx(5, rngs=nnx.Rngs(1))
  encoder = own.wrap("image", module)
  before = np.asarray(module.first.kernel[...])
  module.first.kernel[...] = jnp.zeros_like(module.first.kernel[...])
  found = own.start(encoder)
  assert found is not None
  np.testing.assert_array_equal(
    found["params"]["module"]["first"]["kernel"], before
  )


def test_one_module_for_two_modalities_has_weights_of_its_own():
  class Flat(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(FEATURES)(x)

  shared = Flat()
  problem, params, _ = pair(image=shared, text=shared)
  assert params["encoders_image"]["module"]["Dense_0"]["kernel"].shape[0] == 5
  assert params["encoders_text"]["module"]["Dense_0"]["kernel"].shape[0] == 4
  assert set(jax.tree.leaves(problem.owner)) >= {"image", "text"}


class Deterministic(nn.Module):
  @nn.compact
  def __call__(self, x, deterministic: bool = True):
    return nn.Dropout(0.5)(x, deterministic=deterministic)


class DeterministicNnx(nnx.Module):
  def __init__(self, rngs):
    self.drop = nnx.Dropout(0.5, rngs=rngs)

  def __call__(self, x, *, deterministic=None):
    return self.drop(x, deterministic=deterministic)


@pytest.mark.parametrize("module", [Deterministic(), DeterministicNnx])
def test_the_signature_says_how_a_module_trains(module):
  f = own.wrap("image", module).functions
  x = jnp.ones((4, 30))
  params, stats = f.init(jax.random.key(0), x)
  y, _ = f.apply(params, stats, x, None, False)
  np.testing.assert_array_equal(y, x)
  y, _ = f.apply(params, stats, x, jax.random.key(0), True)
  assert 0 < (np.asarray(y) == 0).sum() < y.size


class Maps(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dense(3)(x[:, None])


class Whole(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x.astype(jnp.int32)


class Mean(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x.mean(axis=0, keepdims=True)


class Pair(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x, x


class Wants(nn.Module):
  @nn.compact
  def __call__(self, x, mask):
    return x


class Fails(nn.Module):
  @nn.compact
  def __call__(self, x):
    return x @ jnp.ones((3, 3))


BAD = {
  "a map": (Maps(), r"encoders\['image'\], Maps, returned float32\[2, 1, 3\] "
                    r"for inputs float32\[2, 5\]: .*\[b d\]"),
  "integers": (Whole(), r"Whole, returned int32\[2, 5\]"),
  "one row": (Mean(), r"Mean, returned float32\[1, 5\]"),
  "a tuple": (Pair(), r"Pair, returned \(float32"),
  "an argument": (Wants(), r"encoders\['image'\].*also asks for mask"),
  "its own error": (Fails(), r"Fails, failed on inputs float32\[2, 5\]: Type"),
  "a class": (Linen, r"must be a Flax module, got Linen.* as Linen\(\.\.\.\)"),
  "a number": (3, "must be a Flax module, got 3"),
  "a function": (lambda rngs: 3, "must make an NNX module of rngs"),
  "no function of rngs": (np.sum, "as a function of rngs it failed"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_encoder_is_refused_by_name(case):
  module, message = BAD[case]
  with pytest.raises(InputError, match=message):
    own.check("image", own.wrap("image", module), np.zeros((2, 5), np.float32))


# Whole runs.


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  folder = tmp_path_factory.mktemp("own")
  splits = ("train", "train", "train", "outer", "val", "test")
  columns = ("sensor:array", "caption:text")
  return helpers.write_manifest(folder, 96, columns, "own.csv", splits)


def config_of(table, recipe="lb", **changes):
  config = manifest.get_config(f"{recipe},epochs=2,batch_size=16")
  config.data.update(manifest=str(table), dir=str(table.parent / "data"))
  for name in ("text", "array"):
    config.encoders[name].features = FEATURES
  config.method.update(changes)
  return config


def six(rate=0.2):
  return lambda rngs: Nnx(6, rate, rngs=rngs)


class Quiet(Console):
  def __init__(self):
    super().__init__()
    self.notes = []

  def note(self, text):
    self.notes.append(text)


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
  """A finished run with an NNX encoder."""
  from unittest import mock

  folder = tmp_path_factory.mktemp("runs") / "one"
  with mock.patch("dmg_jax.report.write_report", lambda workdir: workdir):
    results = runner.run(
      config_of(table, iterations=1), folder, Quiet(),
      encoders={"sensor": six()},
    )  # fmt: skip
  return folder, results


@pytest.mark.slow
def test_a_run_reports_and_is_finished_for_the_same_module(
  run, table, unrendered
):
  folder, results = run
  assert 0 <= results["test"]["fused"]["accuracy"] <= 1
  stored = json.loads((folder / "config.json").read_text())["config"]
  kept = stored["encoders"]["sensor"]
  assert kept["name"] == "own" and kept["class"] == "Nnx"
  again = runner.run(
    config_of(table, iterations=1), folder, Quiet(), encoders={"sensor": six()}
  )
  assert again == results


def test_another_module_is_another_run(run, table):
  with pytest.raises(InputError, match=r"encoders\.sensor\.module"):
    runner.run(config_of(table, iterations=1), run[0], Quiet(),
               encoders={"sensor": six(0.5)})  # fmt: skip
  with pytest.raises(InputError, match=r"another config.*encoders\.sensor"):
    runner.run(config_of(table, iterations=1), run[0], Quiet())


def test_a_run_is_read_back_with_its_module(run):
  folder, results = run
  changes = {"eval": {"split": "test"}}
  _, found = restore.inference(folder, changes, {"sensor": six()})
  assert found.metrics["fused"] == results["test"]["fused"]
  with pytest.raises(
    InputError, match=r"give it again.*'sensor'.*dmg_jax.load"
  ):
    restore.inference(folder, changes)
  with pytest.raises(InputError, match=r"'sensor' was Nnx.*given now"):
    restore.inference(folder, changes, {"sensor": six(0.9)})


def test_readouts_and_predictions_with_the_module(run):
  folder, _ = run
  (made,) = readouts.of_runs([folder], {}, {"sensor": six()})
  assert set(made["scores"]) == {"fused", "sensor", "caption"}
  loaded = predictor.of_run(*restore.restore(folder, {}, {"sensor": six()}))
  found = loaded.predict(
    {"sensor": [np.ones((2, 3))], "caption": ["ant-like red"]}
  )
  assert found.probabilities["fused"].shape == (1, 3)


def test_export_writes_tensors_and_the_program(run, tmp_path):
  from safetensors.numpy import load_file

  folder, _ = run
  setup, state = restore.restore(folder, {}, {"sensor": six()})
  export.encoders(tmp_path, setup, state)
  found = load_file(tmp_path / "sensor" / "model.safetensors")
  assert set(found) == {
    "params.first.bias", "params.first.kernel", "params.last.bias",
    "params.last.kernel", "params.norm.bias", "params.norm.scale",
    "batch_stats.norm.mean", "batch_stats.norm.var",
  }  # fmt: skip
  export.predictor(tmp_path, setup, state)
  inputs = {"sensor": [np.ones((2, 3))] * 3, "caption": ["ant-like"] * 3}
  one = predictor.load(tmp_path).predict(inputs)
  two = predictor.of_run(setup, state).predict(inputs)
  toys.assert_close(one.probabilities, two.probabilities)


def test_exported_tensors_are_a_linen_modules_variables(tmp_path):
  problem, params, stats = pair(image=MODULES["linen"])
  inputs = toys.batch(2).inputs
  variables = classifier.encoder_variables(params, stats, "image")
  nested = unflatten_dict(own.tensors(variables), sep=".")
  out, _ = problem.forward(params, stats, inputs, None, False)
  y = Linen().apply(nested, inputs["image"], False)
  np.testing.assert_allclose(y, out.features["image"], rtol=1e-6)


def test_an_unknown_modality_is_refused_before_training(table, tmp_path):
  with pytest.raises(InputError, match=r"'senser'.*sensor"):
    runner.run(config_of(table), tmp_path / "x", Quiet(),
               encoders={"senser": six()})  # fmt: skip
  assert not (tmp_path / "x").exists()


def test_a_module_of_another_shape_is_refused_before_training(table, tmp_path):
  with pytest.raises(InputError, match=r"encoders\['sensor'\], Maps, returned"):
    runner.run(config_of(table), tmp_path / "x", Quiet(),
               encoders={"sensor": Maps()})  # fmt: skip
  assert not (tmp_path / "x").exists()


def test_seeds_at_once_have_weights_of_their_own(table):
  config = config_of(table, "joint")
  setup = experiment.assemble(config, encoders={"sensor": six()})
  one, two = (setup.with_seed(s).fresh() for s in (0, 1))
  kernel = [
    s.params["encoders_sensor"]["module"]["first"]["kernel"] for s in (one, two)
  ]
  assert not np.array_equal(*kernel)
  assert dataclasses.is_dataclass(setup)


def test_own_is_no_name_for_the_command_line():
  with pytest.raises(ValueError, match="unknown encoder 'own'"):
    compose.encoder("own")


def test_fit_and_load_take_modules(table, tmp_path):
  encoders = {"sensor": Linen(64), "caption": "small.WordBag"}
  kept = {"data.dir": str(table.parent / "data")}
  run = dmg_jax.fit(
    str(table), recipe="joint", epochs=1, batch_size=16, config=kept,
    workdir=tmp_path / "run", encoders=encoders,
  )  # fmt: skip
  inputs = {"sensor": [np.ones((2, 3))], "caption": ["ant-like red"]}
  again = dmg_jax.load(tmp_path / "run", encoders={"sensor": Linen(64)})
  one, two = (r.predict(inputs).probabilities for r in (run, again))
  toys.assert_close(one, two)
  with pytest.raises(InputError, match="give it again"):
    dmg_jax.load(tmp_path / "run").predict(inputs)
