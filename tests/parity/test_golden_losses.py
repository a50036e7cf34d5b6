"""Rules that change the loss, against their official implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax.methods import _terms, cml, etmc, pmr
from dmg_jax.model.fusion import concat
from dmg_jax.model.fusion import etmc as evidence
from dmg_jax.types import SHARED, Fused, Outputs

_AV = ("a", "v")
# torch's and JAX's trigamma agree to about 1e-9.
_TRIGAMMA = {"rtol": 1e-8, "atol": 1e-10}

# PMR: features are the parameters.


@golden.program("alpha")
def run_pmr(params, proto, acts, labels, alpha):
  """One step, and what its loss is made of."""
  made = golden.on_features(concat.Fusion(4), params, _AV)
  batch, seen = golden.batch(labels), jnp.ones(4)
  z = params["features"]
  near = {m: pmr.nearness(z[m], proto[m], seen) for m in _AV}
  s = _terms.scores(near, batch)
  beta = pmr.coefficients(s, faithful=True)[0]
  own = {m: _terms.cross_entropy(v, batch) for m, v in near.items()}
  memory = pmr.State(proto, seen, jnp.float32(3), acts)
  rule = pmr.make(alpha=alpha, faithful=True)
  grads, metrics, _ = golden.step(
    rule, made, golden.state(params, memory), batch
  )
  out, _ = made.forward(params, {}, {}, None, True)
  return out, near, s, beta, own, grads, metrics["loss"]


@pytest.mark.parametrize(("x", "y"), golden.cases("pmr", "loss"))
def test_pmr(x, y):
  """Scores, coefficients, loss and its gradients, in and out of the epochs."""
  z, proto = ({m: x[f"{k}_{m}"] for m in _AV} for k in ("z", "proto"))
  head = golden.split_head(_AV, z, x["W"], x["b"])
  params = {"features": z, "fusion": head}
  acts = x["modulation_starts"] <= x["epoch"] <= x["modulation_ends"]
  out, near, s, beta, own, grads, loss = run_pmr(
    params, proto, np.float32(acts), x["label"], x["alpha"]
  )
  golden.close(out.logits, y["out"])
  golden.close(out.unimodal, {m: y[f"out_{m}"] for m in _AV})
  golden.close(near, {m: y[f"sim_{m}"] for m in _AV})
  golden.close(s, {m: y[f"score_{m}_p"] for m in _AV})
  golden.close(s["a"] / s["v"], y["ratio_a_p"])
  golden.close(own, {m: y[f"loss_proto_{m}"] for m in _AV})
  for m in _AV:
    golden.close(acts * x["alpha"] * beta[m], y[f"coef_{m}"])
  golden.close(loss, y["loss"])
  golden.close(grads["features"], {m: y[f"grad_z_{m}"] for m in _AV})
  golden.close(golden.joined_head(_AV, grads["fusion"]), y["grad_W"])
  golden.close(grads["fusion"]["bias"], y["grad_b"])


@pytest.mark.parametrize(("x", "y"), golden.cases("pmr", "prototypes"))
def test_pmr_prototypes(x, y):
  """Class means with momentum, of the batches that the official code read.

  A class that they lack is NaN there and keeps its prototype here
  (deviation 2). Which batches are read differs (deviation 3). Official epoch
  0 measures twice, before and after, so epoch e is measurement e + 2.
  """
  z = {m: x[f"z_{m}"].reshape(-1, 4) for m in _AV}
  found = {"labels": x["label"].ravel().astype(int), "features": z}
  old = {m: jnp.asarray(x[f"old_proto_{m}"]) for m in _AV}
  times = jnp.float32(x["epoch"] + 1)
  memory = pmr.State(old, jnp.ones(x["n_classes"]), times, jnp.float32(1))
  after = pmr.measured(memory, found, x["momentum_coef"])
  absent = y["nan_class"][:, None]
  for m in _AV:
    theirs = np.where(absent, old[m], y[f"proto_{m}"])
    golden.close(after.prototypes[m], theirs)


# ETMC: heads that pick their logits out of the features.

_VIEWS = ("m0", "m1", "pseudo")


def etmc_params(logits):
  """m0's features are its logits and the pseudo-view's.

  So the fusion's own heads return recorded logits.
  """
  k = logits["m0"].shape[1]
  z = {"m0": np.hstack([logits["m0"], logits["pseudo"]]), "m1": logits["m1"]}
  eye, none = np.eye(k), np.zeros((k, k))
  kernels = {
    "head_m0": np.vstack([eye, none]),
    "head_m1": eye,
    "pseudo": np.vstack([none, eye, none]),
  }
  head = {h: {"kernel": w, "bias": np.zeros(k)} for h, w in kernels.items()}
  return {"features": z, "fusion": head}


def views(logits):
  """Dirichlet parameters of the views, the fused ones last."""
  a = {v: jax.nn.softplus(logits[v]) + 1 for v in _VIEWS}
  two = evidence.combine(a["m0"], a["m1"])
  fused = evidence.combine(two, a["pseudo"])
  return jnp.stack([*a.values(), fused]), two


@golden.program()
def run_evidence(logits, slopes):
  """Views, and the gradient by logits where that by views is ``slopes``."""
  stacked, pull, two = jax.vjp(views, logits, has_aux=True)
  return stacked, two, pull(slopes)[0]


@golden.program()
def run_etmc(stacked, labels, lam):
  """The loss of every view, its KL, and gradients by views."""

  def total(a):
    each = jax.vmap(etmc.evidential, (0, None, None))(a, labels, lam)
    return each.mean(axis=1).sum(), each

  slopes, each = jax.grad(total, has_aux=True)(stacked)
  y = jax.nn.one_hot(labels, stacked.shape[2], dtype=stacked.dtype)[None]
  return (
    each,
    etmc.divergence_from_uniform(
      (y + (1 - y) * stacked).reshape(-1, stacked.shape[2])
    ),
    slopes,
  )


@pytest.mark.parametrize(("x", "y"), golden.cases("etmc"))
def test_etmc(x, y):
  """Dempster's rule, annealing, every view's loss, and all gradients."""
  lam = min(1, x["global_step"] / x["annealing_step"])
  rule = etmc.make(anneal=x["annealing_step"])
  start = rule.between_epochs(None, golden.state({}), None, x["global_step"])
  golden.close(start.method, lam, rtol=1e-7)  # float32 in the state.
  four = np.stack([*y["alpha"].values(), y["alpha_fused"]])
  each, kl, slopes = run_etmc(four, x["label"], np.float64(lam))
  a, two, grads = run_evidence(x["logits"], slopes)
  golden.close(list(a[:3]), [y["alpha"][v] for v in _VIEWS])
  golden.close(two, y["alpha_m0_m1"])
  golden.close(a[3], y["alpha_fused"])
  golden.close(kl.reshape(4, -1)[:3], y["kl"])
  order = (*_VIEWS, "fused")
  golden.close(list(each.mean(axis=1)), [y["ce_loss"][v] for v in order])
  golden.close(each.mean(axis=1).sum(), y["total"])
  golden.close(list(slopes), [y["grad_alpha"][v] for v in order], **_TRIGAMMA)
  golden.close(grads, y["grad_total_logits"], **_TRIGAMMA)
  theirs = y.get("tmc_iclr_ce_loss_per_sample_m0")
  if theirs is not None:
    golden.close(each[0], theirs.ravel())


@golden.program()
def run_etmc_step(params, labels, lam):
  k = params["fusion"]["head_m1"]["kernel"].shape[1]
  made = golden.on_features(evidence.Fusion(k), params, ("m0", "m1"))
  start, batch = golden.state(params, lam), golden.batch(labels)
  return golden.step(etmc.make(), made, start, batch)[1]


def test_etmc_step():
  """Losses of the fusion and the rule together, on the first case."""
  x, y = golden.cases("etmc")[0].values
  lam = np.float64(x["global_step"] / x["annealing_step"])
  metrics = run_etmc_step(etmc_params(x["logits"]), x["label"], lam)
  golden.close(metrics["loss"], y["total"])
  for view, theirs in y["ce_loss"].items():
    golden.close(metrics[f"edl_{view}"], theirs)


# CML: logits of the chain are the parameters.


def cml_problem(params):
  """Features that are ones, so that their zeros tell the place in the chain."""
  count, size, _ = params["chain"].shape
  names = tuple(f"m{i}" for i in range(count))

  def forward(params, inputs, present):
    del inputs, present
    ones = {m: jnp.ones((size, 1)) for m in names}
    return Outputs(params["chain"][0], {}, ones)

  def fuse(params, features):
    left = sum(z[0, 0] for z in features.values()).astype(jnp.int32)
    return Fused(params["chain"][count - left], {})

  return golden.problem(params, {"chain": SHARED}, forward, names, fuse)


@golden.program()
def run_rank(chain, labels):
  """The rank loss, its gradient, and confidences."""

  def rank(chain):
    return cml.rank_loss(list(chain), labels).sum()

  confidence = [_terms.largest(jax.nn.softmax(o)) for o in chain]
  return *jax.value_and_grad(rank)(chain), jnp.stack(confidence)


@pytest.mark.parametrize(("x", "y"), golden.cases("cml"))
def test_cml(x, y):
  """The rank loss of cpm, summed, and its gradient; confidences.

  miwae has the same value at ε = 0 and another gradient (the confidence of the
  larger set is a constant where it is wrong); ours is cpm.
  """
  rank, grads, confidence = run_rank(x["chain_logits"], x["label"])
  golden.close(confidence, y["confidence"])
  golden.close(x["chain_logits"].argmax(axis=-1), y["prediction"])
  golden.close(rank, y["cpm_rank_loss"])
  golden.close(grads, y["cpm_grad_logits"])
  if x["miwae_epsilon"] == 0:
    golden.close(rank, y["miwae_rank_loss"])


@golden.program()
def run_cml(params, labels):
  made, batch = cml_problem(params), golden.batch(labels)
  rule = cml.make(weight=0.3, faithful=True)
  grads, metrics, _ = golden.step(rule, made, golden.state(params), batch)
  cls = jax.grad(_terms.cross_entropy)(params["chain"][0], batch)
  return grads["chain"], metrics, cls


def test_cml_step():
  """``faithful=True``: the sum over samples along a chain of three sets."""
  x, y = golden.cases("cml")[1].values
  params = {"chain": x["chain_logits"]}
  grads, metrics, cls = run_cml(params, x["label"])
  golden.close(metrics["rank"], y["cpm_rank_loss"])
  theirs = 0.3 * y["cpm_grad_logits"]
  theirs[0] += cls
  golden.close(grads, theirs)
