"""A rule works with any fusion that gives it what it needs, or refuses."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import toys
from benchmarks import composition
from data_pipelines import core
from dmg_jax.model import registry
from dmg_jax.training import steps

PAGE = composition.recorded(composition.DOCS.read_text(encoding="utf-8"))
AGAIN = "run python benchmarks/composition.py"
RULES = ("mla",)
# Of each kind: gradients, passes, turns, an order, teachers, memory, a game.
SEVERAL = ("agm", "bss", "cggm", "cpsc", "g2d", "lb", "mcr", "mla", "pmr")
# With these, and with what refuses it, each method is tried again.
USUAL = ("concat", "own_heads", "sum")
METHODS, FUSIONS = registry.known("methods"), registry.known("fusion")


def fast(rule, *others):
  """A case; of one rule in the fast suite, of the others in the slow one."""
  marks = [] if rule in RULES else [pytest.mark.slow]
  return pytest.param(rule, *others, marks=marks)


def test_the_page_has_every_method():
  columns = {*FUSIONS, *composition.CONDITIONS}
  assert PAGE.keys() == set(METHODS), AGAIN
  assert all(row.keys() == columns for row in PAGE.values()), AGAIN
  for _, test in composition.CONDITIONS.values():
    assert Path(__file__).with_name(f"{test}.py").exists()


@pytest.mark.parametrize(
  ("rule", "fusion"),
  [
    fast(r, f)
    for r in METHODS
    for f in FUSIONS
    if f in USUAL or not PAGE.get(r, {}).get(f)
  ],
)
def test_traces_or_refuses_by_name(rule, fusion):
  assert composition.fits(rule, fusion) == PAGE[rule][fusion], AGAIN
  if not PAGE[rule][fusion]:
    with pytest.raises(ValueError, match="fusion"):
      jax.eval_shape(toys.Run(toys.make_method(rule), 2, fusion).fresh)


@pytest.mark.parametrize("rule", [fast(r) for r in METHODS])
def test_conditions(rule):
  for name, (trial, _) in composition.CONDITIONS.items():
    if name in composition.REFUSABLE:
      assert trial(rule) == PAGE[rule][name], (name, AGAIN)
    else:  # Others compare numbers, for one of each kind.
      assert PAGE[rule][name], (name, AGAIN)


@pytest.mark.parametrize("rule", [fast(r) for r in SEVERAL])
def test_seeds_at_once_are_those_one_by_one(rule):
  """``jax.vmap`` over two states gives each of them its own numbers."""
  run = toys.Run(
    toys.make_method(rule), 2, optimiser="sgd", **toys.fusion_of(rule)
  )
  step = steps.make_train_step(run.problem, run.method, run.apply, True)
  both = (run.fresh(), run.fresh())
  own = [toys.batch(2, seed=s) for s in (0, 1)]
  one = [run.step(s, b)[0] for s, b in zip(both, own, strict=True)]
  state, batch = (
    jax.tree.map(lambda *x: jnp.stack(x), *t)
    for t in ((run.fresh(), run.fresh()), own)
  )
  found, _ = step(state, batch, jnp.zeros(2, jnp.int32))
  for i, wanted in enumerate(one):
    got = jax.tree.map(lambda x, i=i: x[i], found)
    toys.assert_close(got.params, wanted.params, rtol=1e-4, atol=1e-5)


def test_every_kind_has_its_encoders_and_every_encoder_its_kinds():
  kinds = {e: set(registry.encoder_class(e).kinds) for e in registry.encoders()}
  assert all(own and own <= set(core.KINDS) for own in kinds.values())
  assert set.union(*kinds.values()) == set(core.KINDS)
  assert {"bert.Bert", "resnet.ResNet", "small.MLP"} < set(kinds)
  for encoder, own in kinds.items():
    for kind in core.KINDS:
      if kind in own:
        registry.check_input(encoder, "m", kind, (8, 8, 3))
      else:
        with pytest.raises(ValueError, match=f"{encoder}.* 'm' is {kind}"):
          registry.check_input(encoder, "m", kind, (8, 8, 3))


@pytest.mark.parametrize("encoder", ["small.ConvNet", "resnet.ResNet"])
def test_maps_are_not_read_from_rows_of_numbers(encoder):
  with pytest.raises(ValueError, match=r"'m' are \[6\]: give it small.MLP"):
    registry.check_input(encoder, "m", "array", (6,))
  registry.check_input("small.MLP", "m", "array", (6,))
