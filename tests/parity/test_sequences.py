"""Encoders of sequences give the numbers of PyTorch's with their weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dmg_jax.model.encoders import small

torch = pytest.importorskip("torch")

LENGTHS = (1, 8, 17, 5)
WIDTH, FEATURES, SIZE = 8, 3, 5


def batch():
  rng = np.random.default_rng(0)
  values = rng.normal(size=(len(LENGTHS), 24, SIZE)).astype(np.float32)
  mask = np.arange(24)[None] < np.array(LENGTHS)[:, None]
  return values * mask[..., None], mask


def ours(encoder):
  """Features of the batch, and the weights for torch."""
  values, mask = batch()
  x = {"values": jnp.asarray(values), "mask": jnp.asarray(mask, jnp.float32)}
  found, variables = jax.jit(
    lambda x: encoder.init_with_output(jax.random.key(0), x, False)
  )(x)
  p = jax.tree.map(lambda v: torch.tensor(np.asarray(v)), variables["params"])
  return found, p


def projected(pooled, p):
  return (pooled @ p["project"]["kernel"] + p["project"]["bias"]).numpy()


def filled(module, weights):
  """``module`` with these weights; each one of its own must be given."""
  module.load_state_dict(weights, strict=True)
  return module.eval()


def recurrent_weights(p, layers, gru):
  found = {}
  for i in range(layers):
    for way, suffix in (("forward", ""), ("backward", "_reverse")):
      own, end = p[f"{way}_{i}"], f"_l{i}{suffix}"
      bias = torch.zeros(own["state"].shape[1])
      if gru:
        bias[2 * WIDTH :] = own["state_bias"]
      found |= {
        f"weight_ih{end}": own["input"].T,
        f"weight_hh{end}": own["state"].T,
        f"bias_ih{end}": own["bias"],
        f"bias_hh{end}": bias,
      }
  return found


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_recurrent(name, pooling):
  """Packed sequences, two layers in both directions."""
  encoder = getattr(small, name)(
    features=FEATURES, width=WIDTH, layers=2, bidirectional=True,
    pooling=pooling,
  )  # fmt: skip
  found, p = ours(encoder)
  module = filled(
    getattr(torch.nn, name)(
      SIZE, WIDTH, num_layers=2, bidirectional=True, batch_first=True
    ),
    recurrent_weights(p, 2, name == "GRU"),
  )
  values, _ = batch()
  with torch.no_grad():
    packed = torch.nn.utils.rnn.pack_padded_sequence(
      torch.tensor(values), LENGTHS, batch_first=True, enforce_sorted=False
    )
    output, state = module(packed)
    last = state[0] if name == "LSTM" else state
    pooled = torch.cat([last[-2], last[-1]], dim=1)
    if pooling == "mean":
      steps, _ = torch.nn.utils.rnn.pad_packed_sequence(
        output, batch_first=True
      )
      pooled = steps.sum(dim=1) / torch.tensor(LENGTHS)[:, None]
  np.testing.assert_allclose(found, projected(pooled, p), rtol=1e-5, atol=1e-5)


def layer_weights(p):
  q, k, v = (p[name] for name in ("query", "key", "value"))
  found = {
    "self_attn.in_proj_weight": torch.cat([x["kernel"].T for x in (q, k, v)]),
    "self_attn.in_proj_bias": torch.cat([x["bias"] for x in (q, k, v)]),
  }
  affine = {"self_attn.out_proj": "out", "linear1": "hidden"}
  for theirs, name in {**affine, "linear2": "shrunk"}.items():
    found[f"{theirs}.weight"] = p[name]["kernel"].T
    found[f"{theirs}.bias"] = p[name]["bias"]
  for i in range(2):
    found[f"norm{i + 1}.weight"] = p[f"norm_{i}"]["scale"]
    found[f"norm{i + 1}.bias"] = p[f"norm_{i}"]["bias"]
  return found


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_transformer(pooling):
  encoder = small.Transformer(
    features=FEATURES, width=WIDTH, layers=2, heads=2, pooling=pooling,
    positions="learned", longest=24,
  )  # fmt: skip
  found, p = ours(encoder)
  values, mask = batch()
  real = torch.tensor(mask)
  with torch.no_grad():
    h = torch.tensor(values) @ p["embed"]["kernel"] + p["embed"]["bias"]
    if pooling == "cls":
      h = torch.cat([p["cls"].expand(len(h), 1, -1), h], dim=1)
      real = torch.cat([torch.ones(len(h), 1, dtype=bool), real], dim=1)
    h = h + p["positions"]
    for i in range(2):
      layer = torch.nn.TransformerEncoderLayer(
        WIDTH, 2, 4 * WIDTH, batch_first=True, norm_first=True
      )
      layer = filled(layer, layer_weights(p[f"layer_{i}"]))
      h = layer(h, src_key_padding_mask=~real)
    norm = p["norm"]["scale"], p["norm"]["bias"]
    h = torch.nn.functional.layer_norm(h, (WIDTH,), *norm)
    pooled = h[:, 0]
    if pooling == "mean":
      pooled = (h * real[..., None]).sum(dim=1) / real.sum(dim=1)[:, None]
  np.testing.assert_allclose(found, projected(pooled, p), rtol=1e-5, atol=1e-5)
