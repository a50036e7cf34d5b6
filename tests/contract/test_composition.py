"""A rule works with any fusion that gives it what it needs, or refuses."""

import jax
import pytest

import toys
from data_pipelines import core
from dmg_jax.model import registry

RULES = ("mla",)
# Rules that need something of their fusion, and the fusions that have it.
NEEDS = {
  "aug": {"aug"},
  "cpsc": {"components"},
  "etmc": {"etmc"},
  "greedy": {"channel"},
  "igm": {
    "concat",
    "etmc",
    "mmcosine",
    "own_heads",
    "slerp",
    "sum",
    "weight",
  },
  "iprm": {"slerp"},
  "lfm_code": {
    "aug",
    "channel",
    "components",
    "etmc",
    "own_heads",
    "slerp",
    "sum",
    "weight",
  },
  "mla": {"shared_head"},
  "reconboost": {"boost"},
  "unimodal": {"components", "mmcosine", "sum"},
}
EXCHANGE = {"mmpareto", "umt"}  # Refuse encoders that exchange something.
PAIRS = [
  pytest.param(rule, fusion, marks=[] if rule in RULES else [pytest.mark.slow])
  for rule in registry.known("methods")
  for fusion in registry.known("fusion")
]


@pytest.mark.parametrize(("rule", "fusion"), PAIRS)
def test_traces_or_refuses_by_name(rule, fusion):
  run = toys.Run(toys.make_method(rule), 2, fusion)
  fits = fusion in NEEDS.get(rule, {fusion})
  fits &= not (rule in EXCHANGE and fusion == "channel")
  if not fits:
    with pytest.raises(ValueError, match=r"fusion"):
      run.fresh()
    return
  state, batch = run.fresh(), toys.batch(2)
  jax.eval_shape(run.step, state, batch)
  if run.outer is not None:
    jax.eval_shape(run.outer, state, batch, batch)


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
