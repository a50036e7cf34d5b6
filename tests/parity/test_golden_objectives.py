"""More rules that change the loss, against their official implementations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax import losses
from dmg_jax.methods import _terms, domfn, joint, lfm_code, mbsd
from dmg_jax.model.fusion import mmcosine, own_heads
from dmg_jax.types import SHARED, Outputs

# MBSD: unimodal logits are the parameters, fused logits their sum.


@golden.program("names")
def run_mbsd(logits, labels, names):
  def forward(params, inputs, present):
    del inputs, present
    return Outputs(_terms.total(params), params, params)

  made = golden.problem(logits, {m: m for m in names}, forward, names)
  start, batch = golden.state(logits), golden.batch(labels)
  rule = mbsd.make(faithful=True)
  grads, metrics, _ = golden.step(rule, made, start, batch)
  pairs = itertools.combinations([logits[m] for m in names], 2)
  w = [mbsd.weights(a, b, batch.labels) for a, b in pairs]
  return grads, metrics, made.forward(logits, {}, {}, None, True)[0].logits, w


@pytest.mark.parametrize(("x", "y"), golden.cases("mbsd"))
def test_mbsd(x, y):
  """The toolkit's loss, terms and gradients: ``faithful=True``.

  The weights w are those of our own term as well.
  """
  names = tuple(x["names"])
  logits = x["unimodal_logits"]
  grads, metrics, fused, w = run_mbsd(logits, x["label"], names)
  golden.close(metrics["loss"], y["loss"])
  golden.close(metrics["cls"], y["ce_fused"])
  own = {m: metrics[f"cls_{m}"] for m in names}
  golden.close(own, y["ce_unimodal"])
  golden.close(metrics["distil"], y["loss_rs"] + y["loss_kl"])
  golden.close(grads, y["grad_unimodal_logits"])
  golden.close(fused, y["fused_logits"])
  keys = ("w",) if len(w) == 1 else ("w1", "w2", "w3")
  golden.close(w, [y[key] for key in keys])


# MMCosine: features are the parameters.


@golden.program("names", "scale")
def run_mmcosine(params, labels, names, scale):
  made = golden.on_features(mmcosine.Fusion(4, scale), params, names)
  start, batch = golden.state(params), golden.batch(labels)
  out, _ = made.forward(params, {}, {}, None, True)
  return out, *golden.step(joint.make(), made, start, batch)[:2]


@pytest.mark.parametrize(("x", "y"), golden.cases("mmcosine"))
def test_mmcosine(x, y):
  """Cosine logits, loss and gradients. The head's bias is unused there too."""
  names = tuple(x["names"])
  head = golden.split_head(names, x["z"], x["W"], None)
  params = {"features": x["z"], "fusion": head}
  out, grads, metrics = run_mmcosine(params, x["label"], names, x["scaling"])
  golden.close(out.logits, y["logits"])
  golden.close(out.unimodal, y["unimodal_logits"])
  golden.close(metrics["loss"], y["loss"])
  golden.close(grads["features"], y["grad_z"])
  golden.close(golden.joined_head(names, grads["fusion"]), y["grad_W"])


# The paper's released code.


@golden.program()
def run_divergence(a, b):
  return jax.value_and_grad(losses.divergence, argnums=(0, 1))(
    a, b, jnp.ones(len(a))
  )


@pytest.mark.parametrize(("x", "y"), golden.cases("lfm", "alignment"))
def test_lfm_alignment(x, y):
  """The divergence of unimodal predictions and its gradients."""
  value, grads = run_divergence(x["logits_a"], x["logits_v"])
  golden.close(value, y["loss"])
  golden.close(grads, (y["grad_a"], y["grad_v"]))


def lfm_model(params, inputs):
  """tanh encoders and own heads averaged, under torch's names."""
  names = {"a": "audio", "v": "visual"}

  def forward(params, inputs, present):
    del present
    logits, z = {}, {}
    for m, name in names.items():
      bias = params[f"{name}.bias"][None]
      z[m] = jnp.tanh(inputs[m] @ params[f"{name}.weight"].T + bias)
      bias = params[f"cls_{m}.bias"][None]
      logits[m] = z[m] @ params[f"cls_{m}.weight"].T + bias
    return Outputs((logits["a"] + logits["v"]) / 2, logits, z)

  short = {"audio": "a", "visual": "v", "cls_a": "a/head", "cls_v": "v/head"}
  owner = {k: short[k.partition(".")[0]] for k in params}
  return golden.problem(params, owner, forward, ("a", "v"), inputs=inputs)


@golden.program()
def run_alpha(params, inputs, labels, alpha, rate):
  """Everything that k's update is made of, and k after it."""
  made, batch = lfm_model(params, inputs), golden.batch(labels, inputs)
  start = golden.state(params, lfm_code.State(alpha))

  def run(params):
    return made.forward(params, {}, batch.inputs, None, False)[0]

  def half(params):
    return 0.5 * lfm_code.objective(run(params), batch, start.method)[0]

  def cls(params):
    return _terms.cross_entropy(run(params).logits, batch)

  v = jax.grad(cls)(params)
  total, product = jax.jvp(jax.grad(half), (params,), (v,))
  slope = lfm_code.first_tensor(made, product).mean()
  after, _ = lfm_code.moved(made, start, batch, rate, False)
  return run(params).unimodal, v, total, product, slope, after


@pytest.mark.parametrize(("x", "y"), golden.cases("lfm", "alpha_step"))
def test_lfm_alpha(x, y):
  """k after its update, and what it is made of; k is float32 in the state.

  The official code uses the first half of its 16 samples: the rows given here.
  Its product of the whole network is compared as well as the tensor it reads.
  """
  rows = int(y["rows_used"])
  inputs = {m: x[f"x_{m}"][:rows] for m in "av"}
  halved = 0.5 if x["epoch"] and x["epoch"] % 20 == 0 else 1.0
  rate = np.float64(x["lr_alpha"] * halved)
  golden.close(rate, y["lr_alpha_after"])
  alpha = np.float64(x["alpha_align"])
  logits, v, total, product, slope, after = run_alpha(
    x["params"], inputs, x["label"][:rows], alpha, rate
  )
  golden.close(logits, {m: y[f"logits_{m}"] for m in "av"})
  golden.close(v, y["grad_cls"])
  golden.close(total, y["grad_total"])
  golden.close(product, y["hvp"])
  golden.close(slope, y["alpha_grad"])
  golden.close(after, y["alpha_align_after"], rtol=1e-6)
  golden.close(1 - after, y["alpha_cls_after"], rtol=1e-6)


def test_lfm_schedule():
  """The fitted polynomial, 0-based epochs."""
  x, y = golden.cases("lfm", "schedule")[0].values
  ours = np.array([lfm_code.polynomial(int(e)) for e in x["epoch"]])
  golden.close(ours, y["alpha_align"])
  golden.close(1 - ours, y["alpha_cls"])


# DOMFN: features and unimodal logits are parameters, the fused head is ours.

_NAMES = ("text", "vision", "audio")


def domfn_params(x):
  """Own heads are not used: their logits are parameters themselves."""
  net, k = x["multi_encoder"], len(x["raw_logits"]["text"][0])
  unused = {"kernel": np.zeros((4, k)), "bias": np.zeros(k)}
  head = {f"head_{m}": unused for m in _NAMES}
  for ours, theirs in (("hidden", "0"), ("fused", "2")):
    weight, bias = net[f"{theirs}.weight"].T, net[f"{theirs}.bias"]
    head[ours] = {"kernel": weight, "bias": bias}
  logits = x["raw_logits"]
  return {"features": x["features"], "logits": logits, "fusion": head}


@golden.program("eta", "gamma", "tau")
def run_domfn(params, labels, eta, gamma, tau):
  classes, hidden = params["logits"]["text"].shape[1], 6
  fusion = own_heads.Fusion(classes, hidden=hidden)

  def forward(params, inputs, present):
    del inputs, present
    z, logits = (
      {m: params[part][m] for m in _NAMES} for part in ("features", "logits")
    )
    fused = fusion.apply({"params": params["fusion"]}, z, True)
    return Outputs(fused.logits, logits, z)

  owner = {k: {m: m for m in _NAMES} for k in ("features", "logits")}
  owner["fusion"] = jax.tree.map(lambda _: SHARED, params["fusion"])
  made = golden.problem(params, owner, forward, _NAMES)
  out, _ = made.forward(params, {}, {}, None, True)
  delta = domfn.divergences(out.unimodal, faithful=True)
  opened = domfn.gate(delta, gamma, tau)
  best = domfn.decide(out, gamma, tau, faithful=True)
  q = [jax.nn.sigmoid(o) for o in (out.unimodal["text"], out.logits, best)]
  rule = domfn.make(eta=eta, gamma=gamma, tau=tau, faithful=True)
  memory = domfn.State(jnp.float32(1), jnp.int32(0))
  start = golden.state(params, memory)
  step = golden.step(rule, made, start, golden.batch(labels))
  return delta, opened, q, step[0], step[1]["loss"]


def domfn_loss(y):
  """The loss of the branch that is taken; without the gate Σ CE(o_m)."""
  apart = sum(y["celoss"].values())
  return np.squeeze(y["joint_loss"]) if y["gate"] else apart


@pytest.mark.parametrize(("x", "y"), golden.cases("domfn"))
def test_domfn(x, y):
  """δ, gate, loss, gradients and prediction of the joint phase."""
  knobs = {k: x[k] for k in ("eta", "gamma", "tau")}
  params = domfn_params(x)
  delta, opened, q, grads, loss = run_domfn(params, x["label"], **knobs)
  golden.close(delta, y["penalty"])
  assert opened == y["gate"]
  golden.close(q, [y["q"]["text"], y["multi_q"], y["prediction"]])
  golden.close(loss, domfn_loss(y))
  golden.close(grads["logits"], y["grad_raw_logits"])
  golden.close(grads["features"], y["grad_features"])
  for ours, theirs in (("hidden", "0"), ("fused", "2")):
    head, net = grads["fusion"][ours], y["grad_multi_encoder"]
    golden.close(head["kernel"].T, net[f"{theirs}.weight"])
    golden.close(head["bias"], net[f"{theirs}.bias"])
