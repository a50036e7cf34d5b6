"""Rules that change the loss, against their official implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax import losses
from dmg_jax.fusion import concat
from dmg_jax.fusion import etmc as evidence
from dmg_jax.methods import _terms, cml, etmc, pmr, reconboost
from dmg_jax.types import SHARED, Fused, Outputs

_AV = ("a", "v")
# torch's and JAX's trigamma agree to about 1e-9.
_TRIGAMMA = {"rtol": 1e-8, "atol": 1e-10}

# PMR: features are the parameters.


def pmr_parts(x, y, near, batch):
  """Similarities, scores, their ratio and both prototype losses."""
  golden.close(near, {m: y[f"sim_{m}"] for m in _AV})
  s = _terms.scores(near, batch)
  golden.close(s, {m: y[f"score_{m}_p"] for m in _AV})
  golden.close(s["a"] / s["v"], y["ratio_a_p"])
  for m, v in near.items():
    golden.close(_terms.cross_entropy(v, batch), y[f"loss_proto_{m}"])
  return pmr.coefficients(s, faithful=True)[0]


@pytest.mark.parametrize(("x", "y"), golden.cases("pmr", "loss"))
def test_pmr(x, y):
  """Scores, coefficients, loss and its gradients, in and out of the epochs."""
  z = {m: x[f"z_{m}"] for m in _AV}
  head = golden.split_head(_AV, z, x["W"], x["b"])
  params = {"features": z, "fusion": head}
  made = golden.on_features(concat.Fusion(4), params)
  batch, seen = golden.batch(x["label"]), jnp.ones(4)
  proto = {m: jnp.asarray(x[f"proto_{m}"]) for m in _AV}
  near = {m: pmr.nearness(z[m], proto[m], seen) for m in _AV}
  beta = pmr_parts(x, y, near, batch)
  acts = x["modulation_starts"] <= x["epoch"] <= x["modulation_ends"]
  for m in _AV:
    golden.close(acts * x["alpha"] * beta[m], y[f"coef_{m}"])
  memory = pmr.State(proto, seen, jnp.float32(3), jnp.float32(acts))
  rule = pmr.make(alpha=x["alpha"], faithful=True)
  start = golden.state(params, memory)
  grads, metrics, _ = golden.step(rule, made, start, batch)
  golden.close(metrics["loss"], y["loss"])
  golden.close(grads["features"], {m: y[f"grad_z_{m}"] for m in _AV})
  golden.close(golden.joined_head(_AV, grads["fusion"]), y["grad_W"])
  golden.close(grads["fusion"]["bias"], y["grad_b"])
  out, _ = made.forward(params, {}, {}, None, True)
  golden.close(out.logits, y["out"])
  golden.close(out.unimodal, {m: y[f"out_{m}"] for m in _AV})


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


def etmc_model(x):
  """``(problem, params)``: m0's features are its logits and the pseudo-view's.

  So the fusion's own heads return recorded logits, and gradients of features
  are gradients of logits.
  """
  logits, k = x["logits"], x["logits"]["m0"].shape[1]
  z = {"m0": np.hstack([logits["m0"], logits["pseudo"]]), "m1": logits["m1"]}
  eye, none = np.eye(k), np.zeros((k, k))
  kernels = {
    "head_m0": np.vstack([eye, none]),
    "head_m1": eye,
    "pseudo": np.vstack([none, eye, none]),
  }
  head = {h: {"kernel": w, "bias": np.zeros(k)} for h, w in kernels.items()}
  params = {"features": z, "fusion": head}
  return golden.on_features(evidence.Fusion(k), params), params


@pytest.mark.parametrize(("x", "y"), golden.cases("etmc"))
def test_etmc(x, y):
  """Dempster's rule, annealing, every view's loss, and all gradients."""
  made, params = etmc_model(x)
  rule, batch = etmc.make(anneal=x["annealing_step"]), golden.batch(x["label"])
  start = golden.state(params, rule.init(made, None, None))
  start = rule.between_epochs(made, start, None, x["global_step"])
  lam = min(1, x["global_step"] / x["annealing_step"])
  golden.close(start.method, lam, rtol=1e-7)
  start = start.replace(method=jnp.float64(lam))  # In the state: float32.
  grads, metrics, _ = golden.step(rule, made, start, batch)
  golden.close(metrics["loss"], y["total"])
  for view, theirs in y["ce_loss"].items():
    golden.close(metrics[f"edl_{view}"], theirs)
  k = x["logits"]["m0"].shape[1]
  m0, m1 = grads["features"]["m0"], grads["features"]["m1"]
  ours = {"m0": m0[:, :k], "m1": m1, "pseudo": m0[:, k:]}
  golden.close(ours, y["grad_total_logits"], **_TRIGAMMA)


@pytest.mark.parametrize(("x", "y"), golden.cases("etmc"))
def test_etmc_parts(x, y):
  """Dirichlet parameters, their fusion, KL, and gradients by parameters."""
  a = {v: jax.nn.softplus(jnp.asarray(o)) + 1 for v, o in x["logits"].items()}
  golden.close(a, y["alpha"])
  two = evidence.combine(a["m0"], a["m1"])
  golden.close(two, y["alpha_m0_m1"], rtol=1e-9)
  a["fused"] = evidence.combine(two, a["pseudo"])
  golden.close(a["fused"], y["alpha_fused"], rtol=1e-9)
  labels = jnp.asarray(x["label"], jnp.int32)
  wrong = jax.nn.one_hot(labels, two.shape[1], dtype=two.dtype)
  views = ("m0", "m1", "pseudo")
  kl = [etmc.divergence_from_uniform(wrong + (1 - wrong) * a[v]) for v in views]
  golden.close(jnp.stack(kl), y["kl"])
  lam = jnp.float64(min(1, x["global_step"] / x["annealing_step"]))
  grad = jax.grad(lambda v: etmc.evidential(v, labels, lam).mean())
  ours = {v: grad(w) for v, w in a.items()}
  golden.close(ours, y["grad_alpha"], **_TRIGAMMA)
  if "tmc_iclr_ce_loss_per_sample_m0" in y:
    each = etmc.evidential(a["m0"], labels, lam)
    golden.close(each, y["tmc_iclr_ce_loss_per_sample_m0"].ravel())


# CML: logits of the chain are the parameters.


def cml_problem(x):
  """Features that are ones, so that their zeros tell the place in the chain."""
  chain = x["chain_logits"]
  count, size, _ = chain.shape
  names = tuple(f"m{i}" for i in range(count))

  def forward(params, inputs, present):
    del inputs, present
    ones = {m: jnp.ones((size, 1)) for m in names}
    return Outputs(params["chain"][0], {}, ones)

  def fuse(params, features):
    left = sum(z[0, 0] for z in features.values()).astype(jnp.int32)
    return Fused(params["chain"][count - left], {})

  params = {"chain": chain}
  owner = {"chain": SHARED}
  return golden.problem(params, owner, forward, names, fuse), params


@pytest.mark.parametrize(("x", "y"), golden.cases("cml"))
def test_cml(x, y):
  """The rank loss of cpm, summed, and its gradient; confidences.

  miwae has the same value at ε = 0 and another gradient (the confidence of the
  larger set is a constant where it is wrong); ours is cpm.
  """
  chain = [jnp.asarray(o) for o in x["chain_logits"]]
  labels = jnp.asarray(x["label"], jnp.int32)
  for o, confidence, prediction in zip(
    chain, y["confidence"], y["prediction"], strict=True
  ):
    golden.close(_terms.largest(jax.nn.softmax(o)), confidence)
    np.testing.assert_array_equal(o.argmax(axis=-1), prediction)
  golden.close(cml.rank_loss(chain, labels).sum(), y["cpm_rank_loss"])
  if x["miwae_epsilon"] == 0:
    golden.close(cml.rank_loss(chain, labels).sum(), y["miwae_rank_loss"])
  made, params = cml_problem(x)
  batch = golden.batch(x["label"])
  rule = cml.make(weight=0.3, faithful=True)
  grads, metrics, _ = golden.step(rule, made, golden.state(params), batch)
  golden.close(metrics["rank"], y["cpm_rank_loss"])
  cls = jax.grad(lambda o: losses.cross_entropy(o, labels).mean())(chain[0])
  theirs = 0.3 * y["cpm_grad_logits"]
  theirs[0] += cls
  golden.close(grads["chain"], theirs)


# ReconBoost: logits are the parameters, λ_b is shared.


def boost_problem(x):
  names = tuple(x["names"])

  def forward(params, inputs, present):
    del inputs, present
    unimodal = {m: params[m] for m in names}
    scale = params["scale"]
    total = _terms.total(unimodal)
    z = {m: params[m] for m in names}
    return Outputs(scale * total, unimodal, z, {"scale": scale})

  params = {**x["logits"], "scale": np.float64(x["boost_rate"])}
  owner = {**{m: m for m in names}, "scale": SHARED}
  return golden.problem(params, owner, forward, names), params


def boost_run(x, within):
  """Gradients, factors and metrics at an epoch of the recorded stage."""
  made, params = boost_problem(x)
  rule = reconboost.make(
    first=x["weight1"],
    second=x["weight2"],
    alpha=x["alpha"],
    boost_epochs=4,
    joint_epochs=4,
    faithful=True,
  )
  start = golden.state(params)
  start = start.replace(method=rule.init(made, start, None))
  names = x["names"]
  stage = names.index(x["current"]) + (x["stage"] > 0) * len(names)
  assert x["previous"] == names[stage % len(names) - 1]
  start = rule.between_epochs(made, start, None, 8 * stage + within)
  batch = golden.batch(x["label"])
  grads, metrics, after = golden.step(rule, made, start, batch)
  return grads, after.opt_state[0][1], metrics


@pytest.mark.parametrize(("x", "y"), golden.cases("reconboost"))
def test_reconboost(x, y):
  """Both phases: loss, terms, gradients, and who is updated."""
  grads, scale, metrics = boost_run(x, 0)
  golden.close(metrics["loss"], y["loss"])
  for m in x["names"]:
    mine = m == x["current"]
    golden.close(grads[m], y["grad_current"] if mine else 0 * grads[m])
    assert scale[m] == mine
  made, params = boost_problem(x)
  batch = golden.batch(x["label"])
  out, _ = made.forward(golden.state(params).params, {}, {}, None, True)
  golden.close(out.logits, y["fused_logits"])
  own = reconboost.boosts(out, batch, x["weight1"], x["weight2"])
  golden.close(own[x["current"]], y["boosting_loss"])
  agree = reconboost.agreements(out, batch, True)[x["current"]]
  golden.close(agree * (x["stage"] > 0), y["agreement_loss"])
  grads, scale, metrics = boost_run(x, 4)
  golden.close(metrics["loss"], y["phase2_loss"])
  theirs = {**y["phase2_grad_logits"], "scale": y["phase2_grad_boost_rate"]}
  golden.close(grads, theirs)
  assert all(v == 1 for v in scale.values())
