"""Swin transformers against transformers in torch, on random weights."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from against_torch import assert_same, random_weights, run
from dmg_jax.model.encoders import pretrained
from dmg_jax.model.encoders.swin import Swin

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = transformers.SwinConfig(
  image_size=32,
  patch_size=2,
  embed_dim=12,
  depths=[2, 1, 2],
  num_heads=[2, 3, 4],
  window_size=3,
  mlp_ratio=1.5,
)


@pytest.fixture(scope="module")
def theirs():
  """A model whose weights are all random; not to be changed."""
  return random_weights(lambda: transformers.SwinModel(CONFIG), 0.1)


@pytest.fixture(scope="module")
def stored(theirs, tmp_path_factory):
  folder = tmp_path_factory.mktemp("swin")
  theirs.save_pretrained(folder)
  return folder, load_file(folder / "model.safetensors")


def pictures(height=32, width=32):
  rng = np.random.default_rng(0)
  return rng.normal(size=(2, height, width, 3)).astype(np.float32)


def expected(model, x):
  with torch.no_grad():
    return model(torch.tensor(np.moveaxis(x, -1, 1))).pooler_output.numpy()


def options(folder, **given):
  return pretrained.complete(Swin, {"pretrained": str(folder), **given})


def test_outputs_and_export(theirs, stored, tmp_path):
  folder, tensors = stored
  ours = Swin(**options(folder))
  assert (ours.windows, ours.depths) == ((3, 3, 3), (2, 1, 2))
  variables, x = ours.from_tensors(tensors), pictures()
  features = run(ours, variables, x)
  assert_same(features, expected(theirs, x))
  odd = pictures(27, 37)
  assert_same(run(ours, variables, odd), expected(theirs, odd))
  pretrained.write(tmp_path / "ours", ours, variables)
  again = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
  assert type(again) is transformers.SwinModel
  assert_same(expected(again, x), features)
  made = Swin(**options(tmp_path / "ours"))
  assert made.clone(pretrained=ours.pretrained) == ours


@pytest.mark.slow
def test_slopes_stages_and_frames(theirs, stored):
  """Slopes of Σ features² with respect to the pixels."""
  folder, tensors = stored
  ours = Swin(**options(folder, drop_path=0.0))
  variables = jax.tree.map(jnp.asarray, ours.from_tensors(tensors))
  x = pictures()

  @jax.jit
  def slopes(x):
    return jax.grad(lambda x: (ours.apply(variables, x, True) ** 2).sum())(x)

  given = torch.tensor(np.moveaxis(x, -1, 1), requires_grad=True)
  (theirs(given).pooler_output ** 2).sum().backward()
  assert_same(slopes(x), np.moveaxis(given.grad.numpy(), 1, -1), 1e-4)
  whole, parts = run(ours, variables, x), jnp.asarray(x)
  assert ours.stages == 3
  for i in range(4):
    parts = run(ours, variables, parts, i, i + 1)
    side = 16 // 2**i
    maps = (2, side, side, 12 * 2**i)
    assert parts.shape == (maps if i < 3 else (2, 48))
  assert_same(parts, whole)
  clips = run(ours, variables, np.stack([x, x[::-1]], axis=1))
  assert_same(clips, (whole + whole[::-1]) / 2)
  half = ours.clone(dtype="bfloat16")
  assert run(half, variables, x).dtype == jnp.float32
  assert_same(run(half, variables, x), whole, 0.2)
  # A grid smaller than its windows: they see all of it.
  assert np.isfinite(run(ours, variables, pictures(4, 6))).all()


def test_parts_are_left_out_in_training(stored):
  folder, tensors = stored
  ours = Swin(**options(folder, drop_path=0.9))
  assert ours.drop_path == 0.9
  variables = jax.tree.map(jnp.asarray, ours.from_tensors(tensors))
  x = jnp.asarray(np.repeat(pictures(16, 16)[:1], 8, axis=0))
  rngs = {"dropout": jax.random.key(0)}
  found = jax.jit(lambda x: ours.apply(variables, x, True, rngs=rngs))(x)
  assert len(np.unique(np.asarray(found[:, 0]))) > 2


def in_timm(tensors, late):
  """Tensors of transformers under timm's names, new or old ones."""
  words = (
    ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
    ("embeddings.norm", "patch_embed.norm"),
    ("encoder.layers", "layers"),
    ("attention.self.relative", "attn.relative"),
    ("attention.output.dense", "attn.proj"),
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    ("intermediate.dense", "mlp.fc1"),
    ("output.dense", "mlp.fc2"),
    ("layernorm.", "norm."),
  )
  made = {}
  for name, array in tensors.items():
    if ".query." in name:
      three = [
        tensors[name.replace("query", p)] for p in ("query", "key", "value")
      ]
      name = name.replace("attention.self.query", "attn.qkv")
      made[name] = np.concatenate(three)
    elif ".key." not in name and ".value." not in name:
      made[name] = array
  for old, new in words:
    made = {name.replace(old, new): array for name, array in made.items()}
  if not late:
    made = {
      re.sub(
        r"layers\.(\d)\.downsample",
        lambda m: f"layers.{int(m[1]) + 1}.downsample",
        name,
      ): array
      for name, array in made.items()
    }
  return made


@pytest.mark.parametrize("late", [False, True])
def test_names_of_timm(late, theirs, stored, tmp_path):
  tensors = in_timm(stored[1], late)
  rng = np.random.default_rng(1)
  head = "head" if late else "head.fc"
  tensors[f"{head}.weight"] = rng.normal(size=(7, 48)).astype(np.float32)
  tensors[f"{head}.bias"] = rng.normal(size=7).astype(np.float32)
  if late:
    name = "layers.0.blocks.1.attn"
    tensors[f"{name}.relative_position_index"] = np.zeros((9, 9), np.int64)
    tensors["layers.0.blocks.1.attn_mask"] = np.zeros((4, 9, 9), np.float32)
  save_file(tensors, tmp_path / "model.safetensors")
  x = pictures()
  states = expected(theirs, x)
  bare = Swin(**options(tmp_path))
  assert (bare.windows, bare.heads) == ((3, 3, 3), (2, 3, 4))
  assert_same(run(bare, bare.from_tensors(tensors), x), states)
  config = {
    "architecture": "swin_tiny_patch4_window7_224",
    "pretrained_cfg": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
  }
  (tmp_path / "config.json").write_text(json.dumps(config))
  module = Swin(**options(tmp_path, features=7))
  assert (module.mean, module.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
  logits = run(module, module.from_tensors(tensors), x)
  weight, bias = (tensors[f"{head}.{leaf}"] for leaf in ("weight", "bias"))
  assert_same(logits, states @ weight.T + bias, 2e-5)


def test_windows_that_differ_are_written_with_names_of_timm(stored, tmp_path):
  tensors = in_timm(stored[1], False)
  for name in tensors:
    if name.startswith("layers.2") and "bias_table" in name:
      tensors[name] = tensors[name][:9]
  save_file(tensors, tmp_path / "model.safetensors")
  ours = Swin(**options(tmp_path))
  assert ours.windows == (3, 3, 2)
  variables = ours.from_tensors(tensors)
  pretrained.write(tmp_path / "out", ours, variables)
  again = Swin(**options(tmp_path / "out"))
  assert again.clone(pretrained=ours.pretrained) == ours
  copied = again.from_tensors(pretrained.read_tensors(tmp_path / "out"))
  jax.tree.map(np.testing.assert_array_equal, copied, variables)


def test_what_does_not_fit_is_named(stored, tmp_path):
  folder, tensors = stored
  ours = Swin(**options(folder))

  def fails(tensors, *parts):
    with pytest.raises(ValueError) as error:
      ours.from_tensors(tensors)
    assert all(part in str(error.value) for part in parts), error.value

  name = "encoder.layers.1.downsample.reduction.weight"
  fails({k: v for k, v in tensors.items() if k != name}, "missing:", name)
  extra = {**tensors, "encoder.layers.1.blocks.4.layernorm_after.bias": 0}
  fails(extra, "in the file only: encoder.layers.1.blocks.4.layernorm_after")
  table = (
    "encoder.layers.2.blocks.1.attention.self.relative_position_bias_table"
  )
  fails({**tensors, table: np.zeros((9, 4))}, f"{table} has shape (9, 4)")
  timm = in_timm(tensors, False)
  name = "layers.2.downsample.norm.weight"
  fails({k: v for k, v in timm.items() if k != name}, f"missing: {name}")
  fails({"conv1.weight": np.zeros(3)}, "no tensor", "does not belong")
  save_file(timm, tmp_path / "model.safetensors")
  for config, said in (
    ({"model_type": "swinv2"}, "'swinv2', which is not a Swin"),
    ({"architecture": "swinv2_tiny"}, "'swinv2_tiny', which is not a Swin"),
    ({"model_type": "swin", "use_absolute_embeddings": True}, "absolute"),
  ):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=said):
      options(tmp_path)
  with pytest.raises(ValueError, match="must be a multiple of its heads"):
    Swin(width=10).init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), False)


def test_size_of_swin_t():
  with torch.device("meta"):
    config = transformers.SwinConfig()
    theirs = transformers.SwinModel(config)
  size = sum(p.numel() for p in theirs.parameters())
  made = jax.eval_shape(
    lambda k: Swin().init(k, jnp.zeros((1, 32, 32, 3)), False),
    jax.random.key(0),
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(made)) == size
  assert size == 27_519_354
