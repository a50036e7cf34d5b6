"""I3D against the published net in torch."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from dmg_jax.model.encoders import pretrained
from dmg_jax.model.encoders.i3d import I3D

torch = pytest.importorskip("torch")
from i3d_torch import Reference, pool, reference, tensors_of  # noqa: E402

WEIGHTS = 12_287_264  # without the classifier, for three channels
SHAPE = (2, 9, 35, 34)  # odd sizes, so that padding is uneven


@functools.cache
def both():
  """A reference of two channels and the same net here, in float64."""
  net = reference(2, 8)
  model = I3D(width=8, dtype="float64")
  return net, model, model.from_tensors(tensors_of(net))


def clip(channels, shape=SHAPE, seed=1):
  return np.random.default_rng(seed).normal(size=(*shape, channels))


def torchs(x):
  return torch.tensor(np.moveaxis(np.asarray(x), -1, 1))


def test_outputs_and_maps_in_evaluation():
  net, model, variables = both()
  sizes = [(5, 18, 17), (5, 9, 9), (5, 5, 5), (3, 3, 3), (2, 2, 2)]

  @jax.jit
  def run(x):
    maps = [x]
    for stage in range(model.stages):
      last = stage + 1
      maps.append(model.apply(variables, maps[-1], False, stage, last))
    features = model.apply(variables, maps[-1], False, model.stages)
    return maps, features

  x = clip(2)
  maps, features = run(x)
  assert [z.shape[1:-1] for z in maps[1:]] == sizes
  theirs = net.eval()(torchs(x)).detach().numpy()
  assert features.shape == (2, 128)
  np.testing.assert_allclose(features, theirs, rtol=1e-9, atol=1e-12)


def train_alike(first, last, part, x):
  """Outputs, gradients and running statistics of stages of a training step."""
  net, model, variables = both()
  before = tensors_of(net)

  @jax.jit
  def step(params, x, weight):
    def loss(params):
      z, new = model.apply(
        {**variables, "params": params}, x, True, first, last,
        mutable=["batch_stats"],
      )  # fmt: skip
      return (z * weight).sum(), (z, new)

    return jax.grad(loss, has_aux=True)(params)

  theirs = part(net.train(), torchs(x))
  weight = np.random.default_rng(2).normal(size=theirs.shape)
  (theirs * torch.tensor(weight)).sum().backward()
  weight = np.moveaxis(weight, 1, -1)
  grads, (ours, new) = step(variables["params"], x, weight)
  ours = np.moveaxis(np.asarray(ours), -1, 1)
  np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-7)
  want = {k: v.grad for k, v in net.named_parameters() if v.grad is not None}
  stems = {k.rpartition(".bn.")[0] for k in want if ".bn." in k}
  want |= {
    k: v
    for k, v in net.named_buffers()
    if "running" in k and k.rpartition(".bn.")[0] in stems
  }
  found, _ = model.to_tensors({"params": grads, **new})
  for name, value in want.items():
    scale = max(np.abs(value.numpy()).max(), 1e-3)
    np.testing.assert_allclose(
      found[name] / scale, value / scale, rtol=1e-6, atol=1e-7, err_msg=name
    )
    if "running" in name:
      assert np.abs(value.numpy() - before[name]).max() > 1e-4, name
  net.load_state_dict({k: torch.tensor(v) for k, v in before.items()})
  net.zero_grad(set_to_none=True)
  return set(want)


def test_training_of_the_first_stages():
  def part(net, x):
    x = pool(net.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
    return net.Conv3d_2c_3x3(net.Conv3d_2b_1x1(x))

  assert len(train_alike(0, 2, part, clip(2))) == 15


def test_training_of_the_last_stages():
  def part(net, x):
    x = net.Mixed_5c(net.Mixed_5b(pool(x, (2, 2, 2), (2, 2, 2))))
    return x.mean((2, 3, 4))

  x = np.maximum(clip(832 // 8, (2, 3, 5, 4)), 0)
  assert len(train_alike(4, None, part, x)) == 60


@pytest.mark.slow
def test_maps_computed_again_change_nothing():
  x = jnp.asarray(clip(2))
  _, _, variables = both()

  def loss(params, remat):
    model = I3D(width=8, dtype="float64", remat=remat)
    z, new = model.apply(
      {**variables, "params": params}, x, True, mutable=["batch_stats"]
    )
    return (z**2).sum(), new

  step = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
  once, again = (step(variables["params"], r) for r in (False, True))
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10),
    again,
    once,
  )


@pytest.mark.slow
def test_training_of_the_whole():
  assert len(train_alike(0, None, lambda net, x: net(x), clip(2))) == 57 * 5


@pytest.mark.parametrize("channels", [1, 3])
def test_number_of_weights_as_published(channels):
  with torch.device("meta"):
    net = Reference(channels)
  theirs = sum(p.numel() for p in net.parameters())
  x = jax.ShapeDtypeStruct((1, 8, 32, 32, channels), jnp.uint8)
  model = I3D()
  made = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), x)
  ours = sum(p.size for p in jax.tree.leaves(made["params"]))
  assert ours == theirs == WEIGHTS - (3 - channels) * 64 * 7**3
  shapes = {tuple(v.shape) for v in net.state_dict().values()}
  assert (1024 // 8 * 3, 832, 1, 1, 1) in shapes


def test_pictures_are_centred_and_fresh_weights_are_torchs():
  model = I3D(width=8, features=7)
  x = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 1), np.uint8)
  x = jnp.asarray(x)
  stem = model.init(jax.random.key(0), x, False, last=1)
  ours = model.apply(stem, x, False, last=1)
  as_float = x.astype(jnp.float32) / 127.5 - 1
  again = model.apply(stem, as_float, False, last=1)
  np.testing.assert_allclose(ours, again, rtol=1e-5, atol=1e-6)
  first = stem["params"]["Conv3d_1a_7x7"]["conv3d"]["kernel"]
  bound = 1 / np.sqrt(7**3)
  assert 0.98 * bound < np.abs(first).max() <= bound
  model = I3D(width=8, features=7, dtype="bfloat16")
  half = model.apply(stem, x, False, last=1)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(float), ours, atol=0.02)
  made, _ = jax.eval_shape(
    lambda: model.init_with_output(jax.random.key(0), x, False)
  )
  assert made.shape == (2, 7) and made.dtype == jnp.float32


def test_weights_there_and_back():
  net, model, variables = both()
  tensors, config = model.to_tensors(variables)
  assert config["in_channels"] == 2
  assert I3D.options_of(config) == {"width": 8, "features": 0}
  want = tensors_of(net)
  assert tensors.keys() == want.keys()
  for name, value in tensors.items():
    np.testing.assert_array_equal(value, want[name])
  net.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()})
  tensors["logits.conv3d.weight"] = np.zeros((400, 128, 1, 1, 1))
  again = model.from_tensors(tensors)
  jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_a_folder_of_weights_for_other_channels(tmp_path):
  channels = 2
  tensors = {
    k: v.astype(np.float32) if v.ndim else v
    for k, v in tensors_of(reference(3, 8)).items()
  }
  save_file(tensors, tmp_path / "model.safetensors")
  config = {"model_type": "i3d", "dmg_jax": {"width": 8}}
  (tmp_path / "config.json").write_text(json.dumps(config))
  options = pretrained.complete(I3D, {"pretrained": str(tmp_path)})
  model = I3D(**options)
  x = jax.ShapeDtypeStruct((1, 8, 32, 32, channels), jnp.uint8)
  made = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, False), x)
  fresh = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), made)
  variables, note = pretrained.load(model, tmp_path, fresh)
  assert f"input channels 3 -> {channels}" in note
  first = variables["params"]["Conv3d_1a_7x7"]["conv3d"]["kernel"]
  rgb = tensors["Conv3d_1a_7x7.conv3d.weight"]
  # A grey clip has the response that it had.
  np.testing.assert_allclose(
    first.sum(3), rgb.sum(1).transpose(1, 2, 3, 0), atol=1e-6
  )
  np.testing.assert_array_equal(first[..., 0, :], first[..., -1, :])


def test_other_weights_are_refused():
  tensors = tensors_of(both()[0])
  with pytest.raises(ValueError, match=r"shape \(8,\).*more.*width=64"):
    I3D().from_tensors(tensors)
  del tensors["Mixed_4c.b1b.bn.bias"]
  tensors["Mixed_9z.b0.bn.bias"] = np.zeros(2)
  with pytest.raises(ValueError, match=r"4c\.b1b\.bn\.bias is missing.*9z"):
    I3D(width=8).from_tensors(tensors)
  with pytest.raises(ValueError, match="'conv1'"):
    I3D(width=8).from_tensors({"conv1": np.zeros(2)})
  with pytest.raises(ValueError, match="'resnet'"):
    I3D.options_of({"model_type": "resnet"})
  with pytest.raises(ValueError, match="multiple of 8"):
    I3D(width=12)


@pytest.mark.slow
def test_full_width():
  net = reference(3, 64)
  model = I3D(dtype="float64")
  variables = model.from_tensors(tensors_of(net))
  x = clip(3, (1, 8, 40, 40))
  theirs = net.eval()(torchs(x)).detach().numpy()
  ours = jax.jit(model.apply, static_argnums=2)(variables, x, False)
  np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-12)
  single = I3D().apply(variables, jnp.asarray(x), False)
  np.testing.assert_allclose(single, theirs, rtol=1e-4, atol=1e-5)
