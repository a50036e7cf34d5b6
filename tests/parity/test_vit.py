"""Vision transformers against transformers in torch, on random weights."""

import copy
import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from against_torch import assert_same, random_weights, run
from dmg_jax.model.encoders import pretrained
from dmg_jax.model.encoders._layers import patches
from dmg_jax.model.encoders.vit import ViT

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
  "hidden_size": 24,
  "num_hidden_layers": 1,
  "num_attention_heads": 3,
  "image_size": 16,
  "patch_size": 5,
}
CONFIGS = {
  "vit": transformers.ViTConfig(**SIZES, intermediate_size=20),
  "plain": transformers.ViTConfig(
    **SIZES, intermediate_size=20, qkv_bias=False, hidden_act="relu"
  ),
  "dinov2": transformers.Dinov2Config(**SIZES, mlp_ratio=2),
  "gated": transformers.Dinov2Config(
    **SIZES, mlp_ratio=2, use_swiglu_ffn=True, num_channels=1
  ),
  "registers": transformers.Dinov2WithRegistersConfig(
    **SIZES, mlp_ratio=2, num_register_tokens=3
  ),
}


def fresh(config, model=transformers.AutoModel):
  """A model whose weights are all random."""
  return random_weights(lambda: model.from_config(config))


def pictures(height=16, width=16, channels=3):
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, height, width, channels)).astype(np.float32)


def expected(model, x, **options):
  with torch.no_grad():
    return model(torch.tensor(np.moveaxis(x, -1, 1)), **options)


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_other_sizes_and_export(name, tmp_path):
  theirs = fresh(CONFIGS[name])
  theirs.save_pretrained(tmp_path / "theirs")
  channels = CONFIGS[name].num_channels
  ours = ViT(
    **pretrained.complete(ViT, {"pretrained": str(tmp_path / "theirs")})
  )
  tensors = load_file(tmp_path / "theirs" / "model.safetensors")
  variables = ours.from_tensors(tensors)
  x = pictures(channels=channels)
  states = expected(theirs, x).last_hidden_state
  features = run(ours, variables, x)
  assert features.dtype == jnp.float32
  assert_same(features, states[:, 0])
  # Another size: the positions are interpolated.
  large = pictures(23, 31, channels)
  kind = CONFIGS[name].model_type == "vit"
  options = {"interpolate_pos_encoding": True} if kind else {}
  states = expected(theirs, large, **options).last_hidden_state
  mean = ours.clone(pooling="mean")
  assert_same(
    run(mean, variables, large), states[:, 1 + ours.registers :].mean(1)
  )
  # Exported, torch loads it and computes the same; so do we.
  pretrained.write(tmp_path / "ours", ours, variables)
  again = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
  assert type(again) is type(theirs)
  assert_same(features, expected(again, x).last_hidden_state[:, 0])
  options = pretrained.complete(ViT, {"pretrained": str(tmp_path / "ours")})
  assert ViT(**options).clone(pretrained=ours.pretrained) == ours


def test_slopes_stages_frames_and_features(tmp_path):
  """Slopes of Σ features² with respect to the pixels."""
  theirs = fresh(CONFIGS["registers"])
  theirs.save_pretrained(tmp_path)
  ours = ViT(**pretrained.complete(ViT, {"pretrained": str(tmp_path)}))
  variables = ours.from_tensors(load_file(tmp_path / "model.safetensors"))
  variables = jax.tree.map(jnp.asarray, variables)
  x = pictures()

  @jax.jit
  def slopes(x):
    return jax.grad(lambda x: (ours.apply(variables, x, True) ** 2).sum())(x)

  given = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
  (theirs(given).last_hidden_state[:, 0] ** 2).sum().backward()
  assert_same(slopes(x), np.moveaxis(given.grad.numpy(), 1, -1), 1e-4)
  whole, parts = run(ours, variables, x), jnp.asarray(x)
  assert ours.stages == 2
  for i in range(3):
    parts = run(ours, variables, parts, i, i + 1)
    assert parts.shape == ((2, 13, 24) if i < 2 else (2, 24))
  assert_same(parts, whole)
  clips = run(ours, variables, np.stack([x, x[::-1]], axis=1))
  assert_same(clips, (whole + whole[::-1]) / 2)
  half = ours.clone(dtype="bfloat16")
  assert run(half, variables, x).dtype == jnp.float32
  assert_same(run(half, variables, x), whole, 0.2)


def in_timm(tensors):
  """Tensors of transformers' DINOv2 under timm's names."""
  words = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.register_tokens", "reg_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("encoder.layer", "blocks"),
    ("attention.output.dense", "attn.proj"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("weights_in", "fc1"),
    ("weights_out", "fc2"),
    ("layernorm.", "norm."),
  )
  made = {}
  for name, array in tensors.items():
    if ".query." in name:
      parts = [
        tensors[name.replace("query", p)] for p in ("query", "key", "value")
      ]
      made[name.replace("attention.attention.query", "attn.qkv")] = (
        np.concatenate(parts)
      )
    elif ".key." not in name and ".value." not in name:
      made[name] = array
  for old, new in words:
    made = {name.replace(old, new): array for name, array in made.items()}
  return {
    name: array
    for name, array in made.items()
    if not name.startswith(("pooler", "embeddings.mask_token"))
  }


TIMM = {
  "architecture": "vit_tiny_patch16_224",
  "num_classes": 7,
  "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
  "model_args": {"num_heads": 3},
}


@pytest.mark.parametrize(
  "name", ["vit", "plain", "dinov2", "gated", "registers"]
)
def test_names_of_timm(name, tmp_path):
  config = copy.deepcopy(CONFIGS[name])
  config.layer_norm_eps, config.hidden_act = 1e-6, "gelu"
  theirs = fresh(config)
  theirs.save_pretrained(tmp_path / "theirs")
  tensors = in_timm(load_file(tmp_path / "theirs" / "model.safetensors"))
  rng = np.random.default_rng(1)
  tensors["head.weight"] = rng.normal(size=(7, 24)).astype(np.float32)
  tensors["head.bias"] = rng.normal(size=7).astype(np.float32)
  folder = tmp_path / "timm"
  folder.mkdir()
  save_file(tensors, folder / "model.safetensors")
  x = pictures(channels=config.num_channels)
  states = expected(theirs, x).last_hidden_state
  bare = ViT(
    **pretrained.complete(ViT, {"pretrained": str(folder), "heads": 3})
  )
  assert_same(run(bare, bare.from_tensors(tensors), x), states[:, 0])
  (folder / "config.json").write_text(json.dumps(TIMM))
  module = ViT(
    **pretrained.complete(ViT, {"pretrained": str(folder), "features": 7})
  )
  assert (module.mean, module.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
  logits = run(module, module.from_tensors(tensors), x)
  assert_same(
    logits, states[:, 0] @ tensors["head.weight"].T + tensors["head.bias"]
  )


def test_positions_are_those_of_torch():
  rng = np.random.default_rng(0)
  grid = rng.normal(size=(12, 2)).astype(np.float32)
  cases = ((7, 5), (2, 9), (1, 1), (3, 4))
  for new, antialias in itertools.product(cases, (False, True)):
    theirs = torch.nn.functional.interpolate(
      torch.tensor(grid.reshape(1, 3, 4, 2)).permute(0, 3, 1, 2),
      size=new,
      mode="bicubic",
      align_corners=False,
      antialias=antialias,
    )
    theirs = theirs.permute(0, 2, 3, 1).reshape(-1, 2)
    ours = patches.positions(jnp.asarray(grid), (3, 4), new, antialias)
    assert_same(ours, theirs)


def test_pooler_mean_before_norm_and_foreign_classifier(tmp_path):
  torch.manual_seed(0)
  config = transformers.ViTConfig(**SIZES, intermediate_size=20, num_labels=4)
  theirs = transformers.ViTForImageClassification(config).eval()
  theirs.save_pretrained(tmp_path / "a")
  folder = str(tmp_path / "a")
  tensors = load_file(tmp_path / "a" / "model.safetensors")
  x = pictures()
  ours = ViT(**pretrained.complete(ViT, {"pretrained": folder, "features": 4}))
  assert_same(run(ours, ours.from_tensors(tensors), x), expected(theirs, x)[0])
  other = ours.clone(features=5).from_tensors(tensors)
  assert "project" not in other["params"]
  (tmp_path / "a" / "preprocessor_config.json").write_text(
    json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.1, 0.2, 0.3]})
  )
  options = pretrained.complete(ViT, {"pretrained": folder})
  assert (options["mean"], options["std"]) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))

  bare = fresh(config)
  bare.save_pretrained(tmp_path / "b")
  tensors = load_file(tmp_path / "b" / "model.safetensors")
  ours = ViT(**ViT.options_of(config.to_dict()), pooling="pooled")
  found = run(ours, ours.from_tensors(tensors), x)
  assert_same(found, expected(bare, x).pooler_output)
  with pytest.raises(ValueError, match=r"missing: pooler\.dense\.bias"):
    ours.from_tensors(
      {k: v for k, v in tensors.items() if k != "pooler.dense.bias"}
    )
  # timm's fc_norm; position 0 of the table is the class token's.
  tensors = in_timm(tensors)
  for leaf in ("weight", "bias"):
    tensors[f"fc_norm.{leaf}"] = tensors.pop(f"norm.{leaf}")
  tensors["pos_embed"] = tensors["pos_embed"][:, 1:]
  (tmp_path / "c").mkdir()
  save_file(tensors, tmp_path / "c" / "model.safetensors")
  given = {"pretrained": str(tmp_path / "c"), "heads": 3}
  ours = ViT(**pretrained.complete(ViT, given))
  assert ours.pool_first
  variables = ours.from_tensors(tensors)
  pretrained.write(tmp_path / "d", ours, variables)
  given = {"pretrained": str(tmp_path / "d")}
  again = ViT(**pretrained.complete(ViT, given))
  copied = again.from_tensors(pretrained.read_tensors(tmp_path / "d"))
  jax.tree.map(np.testing.assert_array_equal, copied, variables)
  with torch.no_grad():
    bare.embeddings.position_embeddings[:, 0] = 0
    states = []
    bare.layernorm.register_forward_pre_hook(lambda _, x: states.append(x[0]))
    expected(bare, x)
    wanted = bare.layernorm(states[0][:, 1:].mean(1))
  assert_same(run(again, copied, x), wanted)


def test_what_does_not_fit_is_named(tmp_path):
  theirs = fresh(CONFIGS["dinov2"])
  theirs.save_pretrained(tmp_path)
  ours = ViT(**pretrained.complete(ViT, {"pretrained": str(tmp_path)}))
  tensors = load_file(tmp_path / "model.safetensors")

  def fails(tensors, *parts):
    with pytest.raises(ValueError) as error:
      ours.from_tensors(tensors)
    assert all(part in str(error.value) for part in parts), error.value

  name = "encoder.layer.0.layer_scale1.lambda1"
  fails({k: v for k, v in tensors.items() if k != name}, "missing:", name)
  extra = {**tensors, "encoder.layer.7.norm1.weight": np.zeros(24)}
  fails(extra, "in the file only: encoder.layer.7.norm1.weight")
  wide = {**tensors, "embeddings.cls_token": np.zeros((1, 1, 9))}
  fails(wide, "embeddings.cls_token has shape (1, 1, 9), not (1, 1, 24)")
  timm = in_timm(tensors)
  name = "blocks.0.attn.qkv.bias"
  fails({k: v for k, v in timm.items() if k != name}, f"missing: {name}")
  wide = {**timm, name: np.zeros(70)}
  fails(wide, f"{name} has shape (70,), not (72,)")
  fails({"conv1.weight": np.zeros(3)}, "no tensor", "does not belong")

  config = {"model_type": "siglip_vision_model"}
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match="'siglip_vision_model', which is not"):
    pretrained.complete(ViT, {"pretrained": str(tmp_path)})
  save_file(timm, tmp_path / "model.safetensors")
  config = {"architecture": "eva02_tiny_patch14_224"}
  (tmp_path / "config.json").write_text(json.dumps(config))
  with pytest.raises(ValueError, match="'eva02_tiny_patch14_224', which is"):
    pretrained.complete(ViT, {"pretrained": str(tmp_path)})
  (tmp_path / "config.json").unlink()
  options = pretrained.complete(ViT, {"pretrained": str(tmp_path)})
  with pytest.raises(ValueError, match="not known for width 24: set heads"):
    ViT(**options).head_count  # noqa: B018
  with pytest.raises(ValueError, match=r"4 × 9 pixels are smaller than"):
    ours.init(jax.random.key(0), jnp.zeros((1, 4, 9, 3)), False)
  with pytest.raises(ValueError, match="unknown pooling 'max'"):
    ViT(pooling="max").init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), False)
