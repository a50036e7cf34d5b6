"""wav2vec 2.0 and HuBERT against transformers in torch, on random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from against_torch import assert_same, random_weights, run
from data_pipelines.transforms import audio
from dmg_jax.model.encoders import pretrained
from dmg_jax.model.encoders.wav2vec2 import Wav2Vec2

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
  "hidden_size": 24,
  "num_hidden_layers": 1,
  "num_attention_heads": 3,
  "intermediate_size": 20,
  "conv_dim": (7, 9),
  "conv_kernel": (5, 3),
  "conv_stride": (3, 2),
  "num_feat_extract_layers": 2,
  "num_conv_pos_embedding_groups": 4,
}
CONFIGS = {
  "group": transformers.Wav2Vec2Config(**SIZES, num_conv_pos_embeddings=6),
  "layer": transformers.Wav2Vec2Config(
    **SIZES,
    num_conv_pos_embeddings=5,
    feat_extract_norm="layer",
    do_stable_layer_norm=True,
    conv_bias=True,
  ),
  "mixed": transformers.Wav2Vec2Config(
    **SIZES, num_conv_pos_embeddings=4, do_stable_layer_norm=True
  ),
  "hubert": transformers.HubertConfig(
    **SIZES, num_conv_pos_embeddings=6, feat_proj_layer_norm=False
  ),
}


def fresh(config, model=transformers.AutoModel):
  """A model whose weights are all random."""
  return random_weights(lambda: model.from_config(config))


def sounds(length=83):
  return np.random.default_rng(0).normal(size=(3, length)).astype(np.float32)


def expected(model, x):
  with torch.no_grad():
    return model(torch.tensor(x)).last_hidden_state.mean(1).numpy()


def options(folder, **given):
  return pretrained.complete(Wav2Vec2, {"pretrained": str(folder), **given})


@pytest.mark.parametrize("name", CONFIGS)
def test_outputs_slopes_and_export(name, tmp_path):
  theirs = fresh(CONFIGS[name])
  theirs.save_pretrained(tmp_path / "theirs")
  ours = Wav2Vec2(**options(tmp_path / "theirs"))
  tensors = load_file(tmp_path / "theirs" / "model.safetensors")
  variables = jax.tree.map(jnp.asarray, ours.from_tensors(tensors))
  x = sounds()

  @jax.jit
  def both(x):
    def loss(x):
      features = ours.apply(variables, x, False)
      return (features**2).sum(), features

    return jax.grad(loss, has_aux=True)(x)

  slopes, features = both(jnp.asarray(x))
  assert_same(features, expected(theirs, x))
  given = torch.tensor(x, requires_grad=True)
  (theirs(given).last_hidden_state.mean(1) ** 2).sum().backward()
  assert_same(slopes, given.grad.numpy(), 1e-4)
  pretrained.write(tmp_path / "ours", ours, variables)
  again = transformers.AutoModel.from_pretrained(tmp_path / "ours").eval()
  assert type(again) is type(theirs)
  assert_same(expected(again, x), features)
  made = Wav2Vec2(**options(tmp_path / "ours"))
  assert made.clone(pretrained=ours.pretrained) == ours
  copied = made.from_tensors(pretrained.read_tensors(tmp_path / "ours"))
  jax.tree.map(np.testing.assert_array_equal, copied, variables)


def test_old_names_prefixes_stages_and_features(tmp_path):
  config = CONFIGS["layer"]
  theirs = fresh(config, transformers.AutoModelForAudioClassification)
  theirs.save_pretrained(tmp_path)
  ours = Wav2Vec2(**options(tmp_path, features=5))
  tensors = load_file(tmp_path / "model.safetensors")
  assert any(name.startswith("wav2vec2.") for name in tensors)
  variables = ours.clone(features=0).from_tensors(tensors)
  module, x = ours.clone(features=0), sounds()
  whole, parts = run(module, variables, x), jnp.asarray(x)
  assert_same(whole, expected(theirs.wav2vec2, x))
  assert ours.stages == 2
  for i in range(3):
    parts = run(module, variables, parts, i, i + 1)
    assert parts.shape == ((3, 13, 24) if i < 2 else (3, 24))
  assert_same(parts, whole)
  old = "wav2vec2.encoder.pos_conv_embed.conv."
  for new, name in (("original0", "weight_g"), ("original1", "weight_v")):
    found = tensors.pop(f"{old}parametrizations.weight.{new}")
    tensors[f"{old}{name}"] = found
  again = module.from_tensors(tensors)
  jax.tree.map(np.testing.assert_array_equal, again, variables)
  start = ours.init(jax.random.key(0), jnp.asarray(x), False)
  save_file(tensors, tmp_path / "model.safetensors")
  found, what = pretrained.load(ours, tmp_path, start)
  assert "not in the file: project" in what
  assert run(ours, found, x).shape == (3, 5)
  half = module.clone(dtype="bfloat16")
  assert run(half, variables, x).dtype == jnp.float32
  assert_same(run(half, variables, x), whole, 0.2)


def test_what_does_not_fit_is_named(tmp_path):
  theirs = fresh(CONFIGS["group"])
  theirs.save_pretrained(tmp_path)
  ours = Wav2Vec2(**options(tmp_path))
  tensors = load_file(tmp_path / "model.safetensors")

  def fails(tensors, *parts):
    with pytest.raises(ValueError) as error:
      ours.from_tensors(tensors)
    assert all(part in str(error.value) for part in parts), error.value

  name = "encoder.pos_conv_embed.conv.parametrizations.weight.original0"
  fails({k: v for k, v in tensors.items() if k != name}, "missing:", name)
  extra = {**tensors, "encoder.layers.3.layer_norm.bias": np.zeros(24)}
  fails(extra, "in the file only: encoder.layers.3.layer_norm.bias")
  wide = {**tensors, name: np.zeros((1, 1, 9))}
  fails(wide, f"{name} has shape (1, 1, 9), not (1, 1, 6)")
  conv = "feature_extractor.conv_layers.1.conv.weight"
  fails({**tensors, conv: np.zeros((9, 7, 4))}, "(9, 7, 4), not (9, 7, 3)")
  fails({"conv1.weight": np.zeros(3)}, "no tensor", "does not belong")
  for config, said in (
    ({"model_type": "whisper"}, "'whisper', which is neither"),
    ({"architecture": "resnet18"}, "'resnet18', which is neither"),
    ({"model_type": "wav2vec2", "add_adapter": True}, "sets add_adapter"),
    ({"model_type": "hubert", "conv_pos_batch_norm": True}, "pos_batch_norm"),
  ):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=said):
      options(tmp_path)
  assert ours.shortest == 11
  key, x = jax.random.key(0), jnp.zeros((1, 10))
  with pytest.raises(ValueError, match=r"of 10 samples, .* needs 11"):
    ours.init(key, x, False)
  with pytest.raises(ValueError, match="unknown conv_norm 'batch'"):
    ours.clone(conv_norm="batch").init(key, x, False)
  with pytest.raises(ValueError, match="one number for each"):
    ours.clone(strides=(2,)).init(key, x, False)


def test_sounds_are_those_of_the_feature_extractor():
  wave = 0.1 + sounds(50)[0]
  extractor = transformers.Wav2Vec2FeatureExtractor()
  theirs = extractor(wave, sampling_rate=16000).input_values[0]
  ours = audio.standardised(wave, 50)
  assert ours.dtype == np.float32
  assert_same(ours, theirs)
  assert_same(
    audio.standardised(wave[:20], 50),
    extractor(np.resize(wave[:20], 50), sampling_rate=16000).input_values[0],
  )
  assert not audio.standardised(np.zeros(3, np.float32), 7).any()


def test_sizes_of_the_base_models():
  for kind, model in (("Wav2Vec2", "wav2vec2"), ("Hubert", "hubert")):
    with torch.device("meta"):
      config = getattr(transformers, f"{kind}Config")()
      theirs = getattr(transformers, f"{kind}Model")(config)
    size = sum(p.numel() for p in theirs.parameters())
    made = jax.eval_shape(
      lambda k, m=model: Wav2Vec2(model_type=m).init(
        k, jnp.zeros((1, 400)), False
      ),
      jax.random.key(0),
    )
    ours = sum(leaf.size for leaf in jax.tree.leaves(made))
    assert size - ours in (0, 768)  # The vector of masked frames.
