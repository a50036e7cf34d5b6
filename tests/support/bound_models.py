"""Models through ``bind``, for tests."""

import jax.numpy as jnp
import numpy as np
import optax

import dmg_jax
import toys

TWO_ONLY = {"greedy"}
# Finite derivatives where a weight never had a gradient, for lb_forward.
ADAM = optax.adam(1e-2, eps_root=1e-30)


def count(name):
  return 2 if name in TWO_ONLY else 3


def bound(name, norm="batch", dropout=0.3, **changes):
  """The toy classifier with a method's fusion, through ``bind``."""
  modalities = count(name)
  options = toys.fusion_of(name)
  problem, params, stats = toys.problem(
    modalities, norm=norm, dropout=dropout, **options
  )

  def apply(params, stats, inputs, *, train, key):
    outputs, stats = problem.forward(params, stats, inputs, key, train)
    return {
      "logits": outputs.logits,
      "unimodal": outputs.unimodal,
      "features": outputs.features,
      "extra": outputs.extra,
    }, stats

  def fuse(params, stats, features, *, train, key):
    return problem.fuse(params, stats, features, key, train)

  given = {
    "owner": problem.owner,
    "inputs": toys.batch(modalities).inputs,
    "stats": stats,
    "fuse": fuse,
    "samples": toys.SAMPLES,
    "readout": problem.readout,
    **changes,
  }
  return dmg_jax.bind(apply, params, **given), problem


def numpy_batch(name, seed=0, index=True):
  """A batch for a method, as NumPy arrays in a flat dictionary."""
  batch = toys.batch(count(name), seed=seed)
  made = {m: np.asarray(x) for m, x in batch.inputs.items()}
  made["labels"] = np.asarray(batch.labels)
  return {**made, "index": np.arange(8)} if index else made


def weights():
  rng = np.random.default_rng(0)
  return {
    "image": {"w": rng.normal(size=(5, 4)).astype(np.float32)},
    "text": {"w": rng.normal(size=(4, 4)).astype(np.float32)},
    "head": rng.normal(size=(4, toys.CLASSES)).astype(np.float32),
  }


OWNER = {"image": "image", "text": "text", "head": "shared"}


def two(give=("logits",), owner=OWNER, stats=None, **changes):
  """Two modalities without a network, which give what is asked for."""

  def apply(params, inputs, *, train, key):
    z = {m: jnp.tanh(inputs[m] @ params[m]["w"]) for m in ("image", "text")}
    o = {m: x @ params["head"] for m, x in z.items()}
    logits = o["image"] + o["text"]
    found = {"logits": logits, "unimodal": o, "features": z}
    return {k: found[k] for k in give}

  def moving(params, stats, inputs, *, train, key):
    return apply(params, inputs, train=train, key=key), stats

  return dmg_jax.bind(
    changes.pop("apply", moving if stats is not None else apply),
    weights(),
    owner=owner,
    inputs=toys.batch(2).inputs,
    stats=stats,
    **changes,
  )
