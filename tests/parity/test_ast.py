"""Audio spectrogram transformers against transformers in torch."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from against_torch import assert_same, random_weights, run
from dmg_jax.model.encoders import pretrained
from dmg_jax.model.encoders.ast import AST

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CONFIG = transformers.ASTConfig(
  hidden_size=24,
  num_hidden_layers=1,
  num_attention_heads=3,
  intermediate_size=20,
  patch_size=4,
  frequency_stride=3,
  time_stride=2,
  max_length=19,
  num_mel_bins=14,
)


@pytest.fixture(scope="module")
def theirs():
  """A classifier whose weights are all random; not to be changed."""
  made = random_weights(lambda: transformers.ASTForAudioClassification(CONFIG))
  return made.audio_spectrogram_transformer, made


@pytest.fixture(scope="module")
def stored(theirs, tmp_path_factory):
  folder = tmp_path_factory.mktemp("ast")
  theirs[0].save_pretrained(folder / "plain")
  theirs[1].save_pretrained(folder / "head")
  return folder, load_file(folder / "plain" / "model.safetensors")


def spectrograms(bins=14, frames=19):
  rng = np.random.default_rng(0)
  return rng.normal(size=(3, bins, frames, 1)).astype(np.float32)


def expected(model, x):
  with torch.no_grad():
    return model(torch.tensor(x[..., 0]).mT).pooler_output.numpy()


def options(folder, **given):
  return pretrained.complete(AST, {"pretrained": str(folder), **given})


def test_outputs_stages_and_export(theirs, stored, tmp_path):
  folder, tensors = stored
  ours, x = AST(**options(folder / "plain")), spectrograms()
  variables = ours.from_tensors(tensors)
  features = run(ours, variables, x)
  assert_same(features, expected(theirs[0], x))
  parts = jnp.asarray(x)
  assert ours.stages == 2
  for i in range(3):
    parts = run(ours, variables, parts, i, i + 1)
    assert parts.shape == ((3, 34, 24) if i < 2 else (3, 24))
  assert_same(parts, features)
  pretrained.write(tmp_path / "ours", ours, variables)
  again = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
  assert type(again) is transformers.ASTModel
  assert_same(expected(again, x), features)
  made = AST(**options(tmp_path / "ours"))
  assert made.clone(pretrained=ours.pretrained) == ours
  start = ours.clone(features=5)
  fresh = start.init(jax.random.key(0), jnp.asarray(x), False)
  found, what = pretrained.load(start, folder / "head", fresh)
  assert "not in the file: project" in what
  jax.tree.map(
    np.testing.assert_array_equal,
    {k: v for k, v in found["params"].items() if k != "project"},
    dict(variables["params"]),
  )
  half = ours.clone(dtype="bfloat16")
  assert run(half, variables, x).dtype == jnp.float32
  assert_same(run(half, variables, x), features, 0.2)


def test_slopes_and_other_sizes(theirs, stored):
  """Slopes of Σ features²; positions are interpolated as torch does."""
  folder, tensors = stored
  ours = AST(**options(folder / "plain"))
  variables = jax.tree.map(jnp.asarray, ours.from_tensors(tensors))
  x = spectrograms()

  @jax.jit
  def slopes(x):
    return jax.grad(lambda x: (ours.apply(variables, x, True) ** 2).sum())(x)

  given = torch.tensor(x[..., 0], requires_grad=True)
  (theirs[0](given.mT).pooler_output ** 2).sum().backward()
  assert_same(slopes(x)[..., 0], given.grad.numpy(), 1e-4)
  large = spectrograms(21, 30)
  table = torch.tensor(tensors["embeddings.position_embeddings"])
  grid = table[0, 2:].reshape(1, 4, 8, 24).permute(0, 3, 1, 2)
  grid = torch.nn.functional.interpolate(
    grid, (6, 14), mode="bicubic", align_corners=False
  )
  grid = grid.permute(0, 2, 3, 1).reshape(1, -1, 24)
  wide = transformers.ASTConfig(
    **{**CONFIG.to_dict(), "num_mel_bins": 21, "max_length": 30}
  )
  other = transformers.ASTModel(wide).eval()
  state = theirs[0].state_dict()
  name = "embeddings.position_embeddings"
  state[name] = torch.cat([table[:, :2], grid], 1)
  other.load_state_dict(state)
  assert_same(run(ours, variables, large), expected(other, large))


def test_what_does_not_fit_is_named(stored, tmp_path):
  folder, tensors = stored
  ours = AST(**options(folder / "plain"))

  def fails(tensors, *parts):
    with pytest.raises(ValueError) as error:
      ours.from_tensors(tensors)
    assert all(part in str(error.value) for part in parts), error.value

  name = "embeddings.distillation_token"
  fails({k: v for k, v in tensors.items() if k != name}, f"missing: {name}")
  extra = {**tensors, "encoder.layer.9.output.dense.bias": np.zeros(24)}
  fails(extra, "in the file only: encoder.layer.9.output.dense.bias")
  name = "embeddings.position_embeddings"
  fails({**tensors, name: np.zeros((1, 9, 24))}, "(1, 9, 24), not (1, 34, 24)")
  fails({"conv1.weight": np.zeros(3)}, "no tensor", "does not belong")
  (tmp_path / "model.safetensors").write_bytes(b"")
  (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
  with pytest.raises(ValueError, match="'vit', which is not an AST"):
    options(tmp_path)
  key = jax.random.key(0)
  with pytest.raises(ValueError, match=r"\[3, 19, 1\] has no patch of 4 × 4"):
    ours.init(key, jnp.zeros((1, 3, 19, 1)), False)
