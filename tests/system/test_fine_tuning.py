"""Options of every encoder: frozen, a rate of its own, rates of its layers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.model import classifier, fine_tuning, registry
from dmg_jax.tracking.logging import Console
from dmg_jax.training import (
  optim,
  restore,
  run_folder,
  runner,
  validation,
)
from dmg_jax.types import TrainState

QUIET = Console(quiet=True)
TOWERS = {
  "bert.Bert": {"vocab_size": 9, "pooling": "pooled"},
  "clip.ClipText": {"vocab_size": 9, "eos": 8, "projection": 4},
  "vit.ViT": {"image_size": 8, "patch": 4},
  "clip.ClipVision": {"image_size": 8, "patch": 4, "projection": 4},
}
SMALL = {"depth": 3, "width": 4, "heads": 2, "hidden": 4, "features": 5}


def tower(name):
  return {"name": name, **TOWERS[name], **SMALL}


def weights_of(name):
  """{name of a weight: rate} of an encoder, and the classifier's owners."""
  options = {**tower(name), "learning_rate_scale": 0.5, "layer_decay": 0.7}
  model = registry.make_classifier({"m": options}, {"name": "concat"}, 2)
  x = {"m": np.ones((2, 4), np.int32)}
  if name in ("clip.ClipVision", "vit.ViT"):
    x = {"m": np.ones((2, 8, 8, 3), np.uint8)}
  params, _ = jax.eval_shape(lambda: classifier.make_init(model, x)(0))
  rates = fine_tuning.rates(
    classifier.owners(params), {"m": options}, model.encoders
  )
  found = {}
  for path, rate in jax.tree_util.tree_flatten_with_path(rates)[0]:
    found["/".join(entry.key for entry in path)] = rate
  return found


@pytest.mark.parametrize("name", sorted(TOWERS))
def test_the_rates_of_layers_fall_towards_the_input(name):
  """As ELECTRA and BEiT number them: three layers, so L is 4."""
  expected = {
    "embed": 4, "class": 4, "patch": 4, "position": 4, "token": 4, "word": 4,
    "first_norm": 4, "layer_0": 3, "layer_1": 2, "layer_2": 1, "pooler": 0,
    "last_norm": 0, "projection": 0, "project": 0,
  }  # fmt: skip
  seen = set()
  for path, rate in weights_of(name).items():
    owner, own = path.split("/")[:2]
    if owner != "encoders_m":
      assert rate == 1
      continue
    part = max((e for e in expected if own.startswith(e)), key=len)
    assert rate == pytest.approx(0.5 * 0.7 ** expected[part], rel=1e-12), path
    seen.add(expected[part])
  assert seen == {0, 1, 2, 3, 4}


TWO = {"depth": 2, "width": 4, "heads": 2, "hidden": 4, "features": 5}
SOUND = {"widths": (4,), "kernels": (3,), "strides": (2,)}
SOUND |= {"position_kernel": 2, "position_groups": 2}
GRIDS = {"width": 4, "depths": (1, 1), "heads": (2, 2), "windows": (2, 2)}
INPUTS = {"vit": (1, 8, 8, 3), "ast": (1, 8, 8, 1), "wav2vec2": (1, 20)}
OTHERS = {
  "vit.ViT": {"image_size": 8, "patch": 4, "registers": 1, **TWO},
  "ast.AST": {"bins": 8, "frames": 8, "patch": 4, **TWO},
  "wav2vec2.Wav2Vec2": {**SOUND, **TWO},
  "swin.Swin": {"patch": 2, "features": 5, **GRIDS},
}
ABOVE = {
  "vit.ViT": {
    "class_token": 3, "registers": 3, "position_embedding": 3,
    "patch_embedding": 3, "last_norm": 0,
  },
  "ast.AST": {
    "class_token": 3, "distillation_token": 3, "position_embedding": 3,
    "patch_embedding": 3, "last_norm": 0,
  },
  "wav2vec2.Wav2Vec2": {
    "conv_0": 3, "conv_0_norm": 3, "projection_norm": 3,
    "feature_projection": 3, "position_conv": 3, "norm": 3,
  },
  "swin.Swin": {
    "patch_embedding": 3, "patch_norm": 3, "merge_1": 1, "last_norm": 0,
  },
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_layers_above_each_weight(name):
  module = registry.make_encoder(name, **OTHERS[name])
  x = jnp.zeros(INPUTS.get(name.partition(".")[0], (1, 8, 8, 3)))
  made = jax.eval_shape(lambda k: module.init(k, x, False), jax.random.key(0))
  found = {part: module.layers_above((part,)) for part in made["params"]}
  assert found == {"layer_0": 2, "layer_1": 1, "project": 0, **ABOVE[name]}


def test_every_encoder_with_layers_has_been_looked_at():
  hook = fine_tuning.HOOK
  found = {
    e for e in registry.encoders() if hasattr(registry.encoder_class(e), hook)
  }
  assert {*TOWERS, *OTHERS} <= found


@pytest.mark.parametrize("name", optim.OPTIMISERS)
def test_the_update_is_multiplied_after_the_optimiser(name):
  """Moments are those of a rate of 1; the decay of ``adamw`` is scaled."""
  owner = {"a": "m", "b": "m", "c": "shared"}
  factors = {"a": 0.25, "b": 1.0, "c": 1.0}
  rng = np.random.default_rng(0)

  def drawn():
    return {k: jnp.asarray(rng.normal(size=3)) for k in owner}

  params, steps = drawn(), [drawn(), drawn()]
  found = {}
  for key, given in (("plain", None), ("scaled", factors)):
    init, apply = optim.make(
      owner, lambda s: 0.1, name=name, weight_decay=0.1, factors=given
    )
    state = TrainState(jnp.zeros((), int), params, {}, init(params), ())
    found[key] = [state := apply(state, g) for g in steps]
  plain, scaled = found["plain"], found["scaled"]
  for k in owner:
    moved = [s[0].params[k] - params[k] for s in (plain, scaled)]
    np.testing.assert_allclose(moved[1], factors[k] * moved[0], rtol=1e-12)
  one, two = plain[0].opt_state, scaled[0].opt_state
  jax.tree.map(np.testing.assert_array_equal, one, two)
  for k in ("b", "c"):  # To the bit as if there were no factors.
    np.testing.assert_array_equal(plain[1].params[k], scaled[1].params[k])


def test_what_cannot_be_is_refused_by_name(tiny):
  for fields, match in (
    ({"learning_rate_scale": 0.0}, r"set encoders\.image\.frozen=true"),
    ({"learning_rate_scale": -1.0}, r"learning_rate_scale must lie in \(0,"),
    ({"layer_decay": 1.5}, r"layer_decay must lie in \(0, 1\], got 1.5"),
    ({"layer_decay": 0.0}, r"layer_decay must lie in \(0, 1\], got 0"),
    ({"layer_decay": 0.9}, r"small.ConvNet has no layers.*bert.Bert, clip"),
    ({"frozen": True, "learning_rate_scale": 0.1}, "has no learning rate"),
  ):
    changes = {f"encoders.image.{k}": v for k, v in fields.items()}
    with pytest.raises(ValueError, match=match):
      validation.check(tiny("joint", changes))


def test_options_stand_behind_the_recipe_too(tiny):
  config = tiny(
    "joint,encoder.text.layer_decay=0.5,encoder.text=bert.Bert,"
    "encoder.image.frozen=true,encoder.text.depth=2"
  )
  text, image = config.encoders.text, config.encoders.image
  assert (text.name, text.layer_decay, text.depth) == ("bert.Bert", 0.5, 2)
  assert image.frozen is True and image.learning_rate_scale == 1
  for keys, match in (
    (
      "encoder.image.frozn=true",
      "option of encoder.image .* 'frozn'.*'frozen'",
    ),
    ("encoder.audio.frozen=true", "no encoder 'audio'.*encoder.audio=NAME"),
    ("encoder.image.frozen=7", "encoder.image: frozen must be of type bool"),
  ):
    with pytest.raises(ValueError, match=match):
      tiny(f"joint,{keys}")


def test_runs_older_than_the_options_go_on(tiny, tmp_path):
  """Other values are refused, as for every field."""
  config = tiny("joint")
  there = config.to_dict()
  for options in there["encoders"].values():
    for name in fine_tuning.OPTIONS:
      del options[name]
  text = json.dumps({"config": there})
  (tmp_path / run_folder.FILE).write_text(text, encoding="utf-8")
  run_folder.check_config(config, tmp_path)
  for name, value in {"frozen": True, "learning_rate_scale": 0.5}.items():
    path = f"encoders.text.{name}"
    with pytest.raises(ValueError, match=path):
      run_folder.check_config(tiny("joint", {path: value}), tmp_path)
  options = {**tower("bert.Bert"), "depth": 1}
  assert fine_tuning.of(options) == fine_tuning.OPTIONS


@pytest.mark.slow
def test_a_run_keeps_the_frozen_weights_and_reads_them_back(tiny, tmp_path):
  """Checkpoints hold the whole model; a rate of its own moves less."""
  fields = {"encoders.image.frozen": True}
  fields["encoders.text.learning_rate_scale"] = 1e-3
  config = tiny("lb", fields)
  runner.run(config, tmp_path / "run", QUIET, page=False)
  setup, state = restore.restore(tmp_path / "run", {})
  fresh = setup.fresh()
  for m, most in (("image", 0.0), ("text", 1e-3)):
    own = [
      classifier.encoder_variables(s.params, s.stats, m) for s in (fresh, state)
    ]
    moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), *own)
    largest = max(jax.tree.leaves(moved))
    assert largest <= most and (largest > 0) == (m == "text")
