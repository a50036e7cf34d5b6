"""A problem of any pure function."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

import dmg_jax
import toys
from bound_models import ADAM, OWNER, bound, two
from dmg_jax.errors import InputError, UnsuitableError


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
