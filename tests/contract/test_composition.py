"""A rule works with any fusion that gives it what it needs, or refuses."""

import jax
import pytest

import toys
from dmg_jax import build

RULES = ("mla",)
# Rules that need something of their fusion, and the fusions that have it.
NEEDS = {
  "aug": {"aug"},
  "etmc": {"etmc"},
  "greedy": {"channel"},
  "lfm_code": {"aug", "channel", "etmc", "own_heads", "sum", "weight"},
  "mla": {"shared_head"},
  "reconboost": {"boost"},
  "unimodal": {"mmcosine", "sum"},
}
EXCHANGE = {"mmpareto", "umt"}  # Refuse encoders that exchange something.
PAIRS = [
  pytest.param(rule, fusion, marks=[] if rule in RULES else [pytest.mark.slow])
  for rule in build.known("methods")
  for fusion in build.known("fusion")
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
