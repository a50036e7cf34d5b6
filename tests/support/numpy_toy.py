"""The network of ``toys`` in NumPy float64, forwards and backwards."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_softmax, softmax

import toys

MASK = np.array([1, 1, 1, 0, 1, 1, 0, 1.0])


def double(tree):
  """Every leaf as a float64 NumPy array."""
  return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def padded(modalities, seed=0):
  """A toy batch with two rows of padding."""
  batch = toys.batch(modalities, seed=seed)
  return batch.replace(mask=jnp.asarray(MASK, jnp.float32))


def encode(params, m, x):
  """Features of a modality."""
  p = params[f"encoders_{m}"]
  hidden = np.maximum(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
  return hidden @ p["Dense_1"]["kernel"] + p["Dense_1"]["bias"]


def features(params, batch):
  """{modality: features}."""
  inputs = double(batch.inputs)
  return {m: encode(params, m, x) for m, x in inputs.items()}


def encode_back(params, m, x, dz):
  """Gradient of an encoder's weights from that of its features."""
  p = params[f"encoders_{m}"]
  hidden = np.maximum(x @ p["Dense_0"]["kernel"] + p["Dense_0"]["bias"], 0)
  dh = (dz @ p["Dense_1"]["kernel"].T) * (hidden > 0)
  return {
    "Dense_0": {"kernel": x.T @ dh, "bias": dh.sum(axis=0)},
    "Dense_1": {"kernel": hidden.T @ dz, "bias": dz.sum(axis=0)},
  }


def each_ce(logits, labels):
  """Cross-entropy of each row."""
  return -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]


def ce(logits, batch):
  """Mean cross-entropy of the rows that are no padding."""
  return each_ce(logits, batch.labels)[np.asarray(batch.mask) > 0].mean()


def ce_back(logits, batch):
  """Gradient of ``ce``."""
  mask = np.asarray(batch.mask, np.float64)
  hot = np.eye(logits.shape[1])[np.asarray(batch.labels)]
  return (softmax(logits, axis=1) - hot) * (mask / mask.sum())[:, None]


def dense(p, z):
  """A linear layer."""
  return z @ p["kernel"] + p["bias"]


def dense_back(z, do):
  """Gradient of a linear layer's weights."""
  return {"kernel": z.T @ do, "bias": do.sum(axis=0)}


def add(*trees):
  """Sum of pytrees."""
  return jax.tree.map(lambda *x: sum(x), *trees)


def gradient(run, state, batch):
  """(what plain SGD of rate 1 took away, state after, metrics)."""
  before = double(state.params)
  state, metrics = run.step(state, batch)
  return add(before, jax.tree.map(lambda x: -x, double(state.params))), (
    state,
    metrics,
  )


SGD = {"optimiser": "sgd", "rate": 1.0, "momentum": 0.0}


def close(got, expected, rtol=2e-5, atol=1e-6):
  """Every leaf close: the package computes in float32."""
  assert jax.tree.structure(got) == jax.tree.structure(expected)
  toys.assert_close(got, expected, rtol=rtol, atol=atol)
