"""CLIP's towers against transformers in torch, on random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dmg_jax.model.encoders import clip

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LAYERS = {
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 4,
  "intermediate_size": 24,
}
CONFIG = transformers.CLIPConfig(
  vision_config={**LAYERS, "image_size": 12, "patch_size": 4},
  text_config={
    **LAYERS,
    "vocab_size": 30,
    "max_position_embeddings": 10,
    "hidden_act": "gelu",
    "eos_token_id": 29,
  },
  projection_dim=6,
)


@pytest.fixture(scope="module")
def theirs():
  """A small CLIP whose weights are all random, biases and norms too."""
  torch.manual_seed(0)
  model = transformers.CLIPModel(CONFIG).eval()
  with torch.no_grad():
    for weight in model.parameters():
      weight.add_(0.1 * torch.randn_like(weight))
  return model


@pytest.fixture(scope="module")
def stored(theirs, tmp_path_factory):
  """Its config.json and tensors, through a folder."""
  folder = tmp_path_factory.mktemp("clip")
  theirs.save_pretrained(folder, safe_serialization=True)
  config = json.loads((folder / "config.json").read_text())
  return config, load_file(folder / "model.safetensors")


def pictures():
  return np.random.default_rng(0).integers(0, 256, (3, 12, 12, 3), np.uint8)


def texts():
  """One with an end, one with two, one without padding behind its end."""
  x = np.random.default_rng(0).integers(1, 29, (3, 7)).astype(np.int32)
  x[0, 4], x[1, 2:], x[2, 6] = 29, 29, 29
  return x


def scaled(x):
  """Pictures as torch gets them, by CLIP's published constants."""
  mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
  deviation = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
  x = (x.astype(np.float32) / 255 - mean) / deviation
  return torch.tensor(np.moveaxis(x, -1, -3))


def features_of(model, x):
  """What any of transformers' CLIP classes makes of pictures or texts."""
  if x.dtype == np.uint8:
    inputs, name = {"pixel_values": scaled(x)}, "image"
  else:
    inputs, name = {"input_ids": torch.tensor(x).long()}, "text"
  if hasattr(model, "get_image_features"):
    return getattr(model, f"get_{name}_features")(**inputs).pooler_output
  outputs = model(**inputs)
  return getattr(outputs, f"{name}_embeds", None), outputs


def assert_same(ours, theirs, tolerance):
  ours, theirs = (
    v.detach().numpy() if torch.is_tensor(v) else v for v in (ours, theirs)
  )
  np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def run(ours, variables, x, *args):
  return jax.jit(ours.apply, static_argnums=(2, 3, 4))(
    variables, jnp.asarray(x), False, *args
  )


TOWERS = [(clip.ClipVision, pictures), (clip.ClipText, texts)]


@pytest.mark.parametrize(("tower", "inputs"), TOWERS)
def test_outputs_gradients_and_export(tower, inputs, theirs, stored, tmp_path):
  config, tensors = stored
  ours, x = tower(**tower.options_of(config)), inputs()
  variables = ours.from_tensors(tensors)

  @jax.jit
  def slopes(params):
    def loss(params):
      features = ours.apply({"params": params}, jnp.asarray(x), False)
      return (features**2).sum(), features

    return jax.grad(loss, has_aux=True)(params)

  grads, features = slopes(variables["params"])
  expected = features_of(theirs, x)
  assert_same(features, expected, 1e-5)
  theirs.zero_grad()
  (expected**2).sum().backward()
  weights = dict(theirs.named_parameters())
  flat, _ = ours.to_tensors({"params": grads})
  assert len(flat) == sum(p.grad is not None for p in weights.values())
  for key, slope in flat.items():
    assert_same(slope, weights[key].grad, 1e-4)
  # Exported, torch loads it and computes the same; so do we.
  tensors, config = ours.to_tensors(variables)
  save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
  (tmp_path / "config.json").write_text(json.dumps(config))
  name = config["architectures"][0]
  again = getattr(transformers, name).from_pretrained(tmp_path).eval()
  assert name.endswith("WithProjection")
  assert_same(features_of(again, x)[0], expected, 1e-6)
  assert tower.options_of(config) == tower.options_of(stored[0])
  copied = ours.from_tensors(tensors)
  jax.tree.map(np.testing.assert_array_equal, copied, variables)


@pytest.mark.parametrize(("tower", "inputs"), TOWERS)
def test_stages_without_projection(tower, inputs, theirs, stored, tmp_path):
  config, tensors = stored
  ours = tower(**{**tower.options_of(config), "projection": 0})
  variables, x = ours.from_tensors(tensors), inputs()
  parts = jnp.asarray(x)
  assert ours.stages == 2
  for i in range(3):
    parts = run(ours, variables, parts, i, i + 1)
    places = 10 if tower is clip.ClipVision else 7
    assert parts.shape == ((3, places, 16) if i < 2 else (3, 16))
  tensors, config = ours.to_tensors(variables)
  save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
  (tmp_path / "config.json").write_text(json.dumps(config))
  again = transformers.AutoModel.from_pretrained(tmp_path).eval()
  assert type(again).__name__ == config["architectures"][0]
  assert_same(parts, features_of(again, x)[1].pooler_output, 1e-5)
  assert tower.options_of(config)["projection"] == 0


def test_frames_are_averaged(stored):
  config, tensors = stored
  ours = clip.ClipVision(**clip.ClipVision.options_of(config), features=5)
  variables = ours.from_tensors(tensors)
  x, rng = pictures(), np.random.default_rng(1)
  variables["params"]["project"] = {
    "kernel": rng.normal(size=(6, 5)).astype(np.float32),
    "bias": np.zeros(5, np.float32),
  }
  # Floats are taken as they are.
  single = run(ours, variables, np.moveaxis(scaled(x).numpy(), -3, -1))
  clips = run(ours, variables, np.stack([x, x[::-1]], axis=1))
  assert single.shape == clips.shape == (3, 5)
  assert_same(clips, (single + single[::-1]) / 2, 1e-5)


def test_end_of_text(stored):
  """What is behind it has no influence; an empty text is finite."""
  config, tensors = stored
  ours = clip.ClipText(**clip.ClipText.options_of(config))
  x, changed = texts(), texts()
  changed[0, 5:], changed[1] = 0, 0
  features = run(ours, ours.from_tensors(tensors), np.stack([*x, *changed]))
  features = np.asarray(features).reshape(2, 3, 6)
  assert np.isfinite(features).all()
  assert_same(features[1][[0, 2]], features[0][[0, 2]], 1e-6)
  assert np.abs(features[1, 1] - features[0, 1]).max() > 0.01
  # With eos_token_id 2, of old configs, it is the largest number's place.
  old = ours.clone(eos=2)
  x = jnp.asarray(x)
  np.testing.assert_array_equal(ours._text(x), old._text(x))
  np.testing.assert_array_equal(
    old._text(jnp.array([[3, 9, 9, 1]])), [[True, True, False, False]]
  )


def test_errors(stored):
  config, tensors = stored
  vision = clip.ClipVision(**clip.ClipVision.options_of(config))
  with pytest.raises(ValueError, match="image_size to 12"):
    vision.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3), np.uint8), False)
  with pytest.raises(ValueError, match=r"\(10, 16\), not \(17, 16\)"):
    vision.clone(image_size=16).from_tensors(tensors)
  with pytest.raises(ValueError, match=r"missing: visual_projection\.weight"):
    vision.from_tensors(
      {k: v for k, v in tensors.items() if k[:8] != "visual_p"}
    )
  with pytest.raises(ValueError, match=r"no weight 'embeddings\.class_emb"):
    vision.from_tensors({"conv1.weight": np.zeros(3)})
  text = clip.ClipText(**clip.ClipText.options_of(config))
  with pytest.raises(ValueError, match=r"11 tokens.*10 positions.*max_words"):
    text.init(jax.random.key(0), jnp.zeros((1, 11), np.int32), False)
  with pytest.raises(ValueError, match="'siglip' is not a CLIP"):
    clip.ClipVision.options_of({"model_type": "siglip"})
  with pytest.raises(ValueError, match="image_size must be one number"):
    clip.ClipVision.options_of(
      {"model_type": "clip_vision_model", "image_size": [224, 112]}
    )


def test_sizes_of_vit_b_32():
  with torch.device("meta"):
    theirs = (
      transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig()
      ),
      transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig()),
    )
  for model, ours, x in (
    (theirs[0], clip.ClipVision(), jnp.zeros((1, 224, 224, 3), np.uint8)),
    (theirs[1], clip.ClipText(49408), jnp.zeros((1, 4), np.int32)),
  ):
    size = sum(p.numel() for p in model.parameters())
    made = jax.eval_shape(
      lambda k, ours=ours, x=x: ours.init(k, x, False), jax.random.key(0)
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == size
    assert size == (87_849_216 if x.ndim == 4 else 63_428_096)
