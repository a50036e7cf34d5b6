"""More rules that change the loss, against their official implementations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import golden
from dmg_jax import losses
from dmg_jax.fusion import mmcosine, own_heads
from dmg_jax.methods import _terms, domfn, joint, lfm_code, mbsd
from dmg_jax.types import SHARED, Outputs

# MBSD: unimodal logits are the parameters, fused logits their sum.


@pytest.mark.parametrize(("x", "y"), golden.cases("mbsd"))
def test_mbsd(x, y):
  """The toolkit's loss, terms and gradients: ``faithful=True``."""
  names = tuple(x["names"])

  def forward(params, inputs, present):
    del inputs, present
    return Outputs(_terms.total(params), params, params)

  owner = {m: m for m in names}
  made = golden.problem(x["unimodal_logits"], owner, forward, names)
  start, batch = golden.state(x["unimodal_logits"]), golden.batch(x["label"])
  rule = mbsd.make(faithful=True)
  grads, metrics, _ = golden.step(rule, made, start, batch)
  golden.close(metrics["loss"], y["loss"])
  golden.close(metrics["cls"], y["ce_fused"])
  own = {m: metrics[f"cls_{m}"] for m in names}
  golden.close(own, y["ce_unimodal"])
  golden.close(metrics["distil"], y["loss_rs"] + y["loss_kl"])
  golden.close(grads, y["grad_unimodal_logits"])
  out, _ = made.forward(start.params, {}, {}, None, True)
  golden.close(out.logits, y["fused_logits"])


@pytest.mark.parametrize(("x", "y"), golden.cases("mbsd"))
def test_mbsd_weights(x, y):
  """w of every pair, which our own term and the toolkit's share."""
  logits = [jnp.asarray(x["unimodal_logits"][m]) for m in x["names"]]
  labels = jnp.asarray(x["label"], jnp.int32)
  keys = {(0, 1): "w" if len(logits) == 2 else "w1", (0, 2): "w2", (1, 2): "w3"}
  for (i, j), key in keys.items():
    if j < len(logits):
      w, _ = mbsd._weights(logits[i], logits[j], labels)
      golden.close(w, y[key])


# MMCosine: features are the parameters.


@pytest.mark.parametrize(("x", "y"), golden.cases("mmcosine"))
def test_mmcosine(x, y):
  """Cosine logits, loss and gradients. The head's bias is unused there too."""
  names = tuple(x["names"])
  head = golden.split_head(names, x["z"], x["W"], None)
  params = {"features": x["z"], "fusion": head}
  made = golden.on_features(mmcosine.Fusion(4, x["scaling"]), params)
  out, _ = made.forward(params, {}, {}, None, True)
  golden.close(out.logits, y["logits"])
  golden.close(out.unimodal, y["unimodal_logits"])
  batch = golden.batch(x["label"])
  start = golden.state(params)
  grads, metrics, _ = golden.step(joint.make(), made, start, batch)
  golden.close(metrics["loss"], y["loss"])
  golden.close(grads["features"], y["grad_z"])
  golden.close(golden.joined_head(names, grads["fusion"]), y["grad_W"])


# The paper's released code.


@pytest.mark.parametrize(("x", "y"), golden.cases("lfm", "alignment"))
def test_lfm_alignment(x, y):
  """The divergence of unimodal predictions and its gradients."""
  a, b = jnp.asarray(x["logits_a"]), jnp.asarray(x["logits_v"])
  value, grads = jax.value_and_grad(losses.divergence, argnums=(0, 1))(
    a, b, jnp.ones(len(a))
  )
  golden.close(value, y["loss"])
  golden.close(grads, (y["grad_a"], y["grad_v"]))


def lfm_model(x, rows):
  """tanh encoders and own heads averaged, under torch's names."""
  inputs = {m: jnp.asarray(x[f"x_{m}"][:rows]) for m in ("a", "v")}
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
  owner = {k: short[k.partition(".")[0]] for k in x["params"]}
  made = golden.problem(x["params"], owner, forward, ("a", "v"), inputs=inputs)
  return made, golden.batch(x["label"][:rows], inputs)


@pytest.mark.parametrize(("x", "y"), golden.cases("lfm", "alpha_step"))
def test_lfm_alpha(x, y):
  """k after its update, and what it is made of; k is float32 in the state.

  The official code uses the first half of its 16 samples: the rows given here.
  Its product of the whole network is compared as well as the tensor it reads.
  """
  made, batch = lfm_model(x, int(y["rows_used"]))
  memory = lfm_code.State(jnp.float32(x["alpha_align"]))
  start = golden.state(x["params"], memory)
  exact = lfm_code.State(jnp.float64(x["alpha_align"]))

  def run(params):
    return made.forward(params, {}, batch.inputs, None, False)[0]

  def half(params):
    return 0.5 * lfm_code.objective(run(params), batch, exact)[0]

  def cls(params):
    return _terms.cross_entropy(run(params).logits, batch)

  golden.close(run(start.params).unimodal["a"], y["logits_a"])
  golden.close(run(start.params).unimodal["v"], y["logits_v"])
  direction = jax.jit(jax.grad(cls))(start.params)
  golden.close(direction, y["grad_cls"])
  total, product = jax.jit(lambda p, v: jax.jvp(jax.grad(half), (p,), (v,)))(
    start.params, direction
  )
  golden.close(total, y["grad_total"])
  golden.close(product, y["hvp"])
  slope = lfm_code.first_tensor(made, product).mean()
  golden.close(slope, y["alpha_grad"])
  halved = 0.5 if x["epoch"] and x["epoch"] % 20 == 0 else 1.0
  rate = x["lr_alpha"] * halved
  golden.close(rate, y["lr_alpha_after"])
  after, _ = lfm_code.moved(made, start, batch, rate, x["epoch"] == 0)
  golden.close(after, y["alpha_align_after"], rtol=1e-6)
  golden.close(1 - after, y["alpha_cls_after"], rtol=1e-6)


def test_lfm_schedule():
  """The fitted polynomial, 0-based epochs."""
  x, y = golden.cases("lfm", "schedule")[0].values
  ours = np.array([lfm_code.polynomial(int(e)) for e in x["epoch"]])
  golden.close(ours, y["alpha_align"])
  golden.close(1 - ours, y["alpha_cls"])


# DOMFN: features and unimodal logits are parameters, the fused head is ours.


def domfn_model(x):
  names = tuple(x["features"])
  net = x["multi_encoder"]
  k = len(x["raw_logits"][names[0]][0])
  d = x["features"][names[0]].shape[1]
  unused = {"kernel": np.zeros((d, k)), "bias": np.zeros(k)}
  head = {f"head_{m}": unused for m in names}
  for ours, theirs in (("hidden", "0"), ("fused", "2")):
    weight, bias = net[f"{theirs}.weight"].T, net[f"{theirs}.bias"]
    head[ours] = {"kernel": weight, "bias": bias}
  fusion = own_heads.Fusion(k, hidden=len(net["0.bias"]))

  def forward(params, inputs, present):
    del inputs, present
    z, logits = (
      {m: params[part][m] for m in names} for part in ("features", "logits")
    )
    fused = fusion.apply({"params": params["fusion"]}, z, True)
    return Outputs(fused.logits, logits, z)

  params = {
    "features": x["features"],
    "logits": x["raw_logits"],
    "fusion": head,
  }
  owner = {k: {m: m for m in names} for k in ("features", "logits")}
  owner["fusion"] = jax.tree.map(lambda _: SHARED, head)
  return golden.problem(params, owner, forward, names), params


def domfn_loss(y):
  """The loss of the branch that is taken; without the gate Σ CE(o_m)."""
  apart = sum(y["celoss"].values())
  return y["joint_loss"] if y["gate"] else apart


@pytest.mark.parametrize(("x", "y"), golden.cases("domfn"))
def test_domfn(x, y):
  """δ, gate, loss, gradients and prediction of the joint phase."""
  made, params = domfn_model(x)
  start, batch = golden.state(params), golden.batch(x["label"])
  out, _ = made.forward(start.params, {}, {}, None, True)
  knobs = {"gamma": x["gamma"], "tau": x["tau"]}
  delta = domfn.divergences(out.unimodal, faithful=True)
  golden.close(delta, y["penalty"])
  assert domfn.gate(delta, **knobs) == y["gate"]
  q = {m: jax.nn.sigmoid(o) for m, o in out.unimodal.items()}
  golden.close(q, y["q"])
  golden.close(jax.nn.sigmoid(out.logits), y["multi_q"])
  best = domfn.decide(out, **knobs, faithful=True)
  golden.close(jax.nn.sigmoid(best), y["prediction"])
  rule = domfn.make(eta=x["eta"], **knobs, faithful=True)
  memory = domfn.State(jnp.float32(1), jnp.int32(0))
  start = start.replace(method=memory)
  grads, metrics, _ = golden.step(rule, made, start, batch)
  golden.close(metrics["loss"], np.squeeze(domfn_loss(y)))
  golden.close(grads["logits"], y["grad_raw_logits"])
  golden.close(grads["features"], y["grad_features"])
  for ours, theirs in (("hidden", "0"), ("fused", "2")):
    head, net = grads["fusion"][ours], y["grad_multi_encoder"]
    golden.close(head["kernel"].T, net[f"{theirs}.weight"])
    golden.close(head["bias"], net[f"{theirs}.bias"])
