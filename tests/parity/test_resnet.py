"""ResNet in numbers: torch's outputs, gradients and running statistics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toys
from dmg_jax.model.encoders import pretrained, resnet

torch = pytest.importorskip("torch")

import torch_resnet  # noqa: E402

RNG = np.random.default_rng(0)
# Depth, blocks and widths of nets with both kinds of shortcut.
TINY = {
  18: {"blocks": (1, 1), "widths": (8, 12), "width": 8},
  50: {"blocks": (1, 1), "widths": (16, 24), "width": 16},
}
COUNTS = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032}


def pair(depth, channels=3, **options):
  """The same net in torch and here, in float64."""
  layout = TINY[depth]
  theirs = torch_resnet.random_statistics(
    torch_resnet.ResNet(bottleneck=depth >= 50, channels=channels, **layout)
  ).double()
  ours = resnet.ResNet(depth=depth, **layout, **options)
  tensors = torch_resnet.arrays(theirs)
  variables = jax.tree.map(jnp.asarray, ours.from_tensors(tensors))
  return theirs, ours, variables


def to_torch(x):
  return torch.tensor(np.moveaxis(np.asarray(x), -1, -3))


@pytest.mark.parametrize("depth", [18, 50])
def test_training_is_torchs(depth):
  """Outputs, gradients of weights and input, and running statistics."""
  theirs, ours, variables = pair(depth, channels=2)
  x, w = (
    RNG.normal(size=(3, 21, 18, 2)),
    RNG.normal(size=(3, ours.channels[-1])),
  )

  @jax.jit
  def run(params, stats, x):
    z, new = ours.apply(
      {"params": params, "batch_stats": stats}, x, True, mutable="batch_stats"
    )
    return (z * w).sum(), (z, new["batch_stats"])

  grad = jax.value_and_grad(run, argnums=(0, 2), has_aux=True)
  params, stats = variables["params"], variables["batch_stats"]
  (_, (z, stats)), (by_params, by_x) = grad(params, stats, jnp.asarray(x))
  given = to_torch(x).requires_grad_()
  expected = theirs.train()(given)
  (expected * torch.tensor(w)).sum().backward()
  np.testing.assert_allclose(z, expected.detach().numpy(), rtol=1e-5, atol=1e-9)
  expected = {n: p.grad.numpy() for n, p in theirs.named_parameters()}
  found, _ = ours.to_tensors({"params": by_params})
  assert set(found) == set(expected)
  for name, value in expected.items():
    atol = 1e-5 * np.abs(value).max()
    np.testing.assert_allclose(found[name], value, 1e-4, atol, err_msg=name)
  toys.assert_close(by_x, np.moveaxis(given.grad.numpy(), 1, -1), 1e-8, 1e-10)
  found, _ = ours.to_tensors({"params": params, "batch_stats": stats})
  for name, value in torch_resnet.arrays(theirs).items():
    if "running" in name:
      np.testing.assert_allclose(found[name], value, 1e-6, err_msg=name)


@pytest.mark.parametrize("depth", [18, 50])
def test_evaluation_is_torchs(depth):
  """``uint8`` clips, scaled; frames are pictures until features are pooled."""
  theirs, ours, variables = pair(depth)
  x = RNG.integers(0, 256, (2, 3, 20, 17, 3), np.uint8)
  z = jax.jit(lambda v, x: ours.apply(v, x, False))(variables, jnp.asarray(x))
  mean, std = (
    torch.tensor(v).reshape(3, 1, 1)
    for v in (resnet.IMAGENET_MEAN, resnet.IMAGENET_STD)
  )
  frames = (to_torch(x).double() / 255 - mean) / std
  with torch.no_grad():
    expected = theirs.eval()(frames.reshape(-1, 3, 20, 17)).reshape(2, 3, -1)
  np.testing.assert_allclose(z, expected.mean(dim=1).numpy(), rtol=1e-5)


def test_counts_of_parameters_are_exact():
  for depth, count in COUNTS.items():
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    model = resnet.ResNet(depth)
    shapes = jax.eval_shape(
      lambda x, m=model: m.init(jax.random.key(0), x, False), x
    )
    leaves = jax.tree.leaves(shapes["params"])
    assert sum(leaf.size for leaf in leaves) == count
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_full_size(depth):
  layout = resnet.LAYOUTS[depth]
  ours = resnet.ResNet(depth)
  theirs = torch_resnet.random_statistics(
    torch_resnet.ResNet(layout, ours.channels, depth >= 50)
  ).eval()
  x = RNG.normal(size=(2, 97, 97, 3)).astype(np.float32)
  variables = ours.from_tensors(torch_resnet.arrays(theirs))
  with torch.no_grad():
    expected = theirs(to_torch(x)).numpy()
  found = jax.jit(lambda x: ours.apply(variables, x, False))(jnp.asarray(x))
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found / scale, expected / scale, 1e-5, 1e-5)


def test_stages_are_the_whole():
  """Layers return maps, channels last; the head returns features."""
  model = resnet.ResNet(18, **TINY[18], features=3, norm="group")
  x = jnp.asarray(RNG.normal(size=(2, 3, 17, 33, 1)))

  @jax.jit
  def run(x):
    variables = model.init(jax.random.key(0), x, False)
    maps = [x]
    for i in range(model.stages + 1):
      maps.append(model.apply(variables, maps[-1], False, i, i + 1))
    return maps[1:], model.apply(variables, x, False)

  maps, whole = run(x)
  shapes = [m.shape for m in maps]
  assert shapes == [(2, 3, 5, 9, 8), (2, 3, 3, 5, 12), (2, 3)]
  np.testing.assert_allclose(maps[-1], whole, rtol=1e-6)


def test_four_layers_halve_and_double():
  def maps(depth, last):
    x = jnp.zeros((2, 4, 64, 96, 2), jnp.float32)
    model = resnet.ResNet(depth, blocks=(1,) * 4)
    init, key = model.init_with_output, jax.random.key(0)
    return jax.eval_shape(lambda: init(key, x, False, 0, last)[0]).shape

  assert resnet.ResNet(50).stages == 4
  for i, channels in enumerate((64, 128, 256, 512)):
    size = (2, 4, 16 // 2**i, 24 // 2**i)
    assert maps(18, i + 1) == (*size, channels)
  assert maps(50, 4) == (2, 4, 2, 3, 2048)
  assert maps(18, None) == (2, 512) and maps(50, None) == (2, 2048)


def test_bfloat16_is_for_maps_only():
  """Weights, statistics and features stay float32."""
  half, full = (
    resnet.ResNet(18, blocks=(1,), width=8, dtype=d)
    for d in ("bfloat16", "float32")
  )
  x = jnp.asarray(RNG.integers(0, 256, (2, 16, 16, 3), np.uint8))

  @jax.jit
  def run(x):
    variables = half.init(jax.random.key(0), x, False)
    made = half.apply(variables, x, True, mutable="batch_stats")
    y, _ = full.apply(variables, x, True, mutable="batch_stats")
    return variables, made, y, half.apply(variables, x, False, 0, 1)

  variables, (z, stats), y, maps = run(x)
  leaves = jax.tree.leaves((variables, stats, z, y))
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.float32)}
  assert maps.dtype == jnp.bfloat16
  assert 0 < np.abs(z - y).max() < 0.05 * np.abs(y).max()


def test_first_weights_are_torchvisions():
  """Normal, of variance 2 / (outputs · size²)."""
  model = resnet.ResNet(18, blocks=(1,), norm="none")
  init = jax.jit(lambda k: model.init(k, jnp.zeros((1, 8, 8, 9)), False))
  v = init(jax.random.key(0))["params"]
  for kernel, fan_out in (
    (v["conv1"]["kernel"], 64 * 49),
    (v["layer1_0"]["conv2"]["kernel"], 64 * 9),
  ):
    assert np.std(kernel) == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)
    assert np.abs(kernel).max() > 3 * (2 / fan_out) ** 0.5  # Not truncated.


@pytest.mark.parametrize("channels", [1, 2])
def test_first_convolution_of_other_channels(channels):
  """Equal channels give what three equal ones give with the file's weights."""
  theirs, ours, _ = pair(18)
  kernel = ours.from_tensors(torch_resnet.arrays(theirs))["params"]["conv1"]
  grey = RNG.normal(size=(1, 9, 9, 1))
  expected = theirs.conv1(to_torch(np.repeat(grey, 3, -1)))
  fitted = pretrained.with_channels(kernel["kernel"], channels)
  assert fitted.shape == (7, 7, channels, 8)
  found = torch.nn.functional.conv2d(
    to_torch(np.repeat(grey, channels, -1)),
    torch.tensor(fitted.transpose(3, 2, 0, 1)),
    stride=2,
    padding=3,
  )
  np.testing.assert_allclose(
    found.detach().numpy(), expected.detach().numpy(), rtol=1e-9, atol=1e-12
  )


@pytest.mark.parametrize("layer_type", ["basic", "bottleneck"])
def test_transformers_weights(layer_type, tmp_path):
  """A folder that ``save_pretrained`` wrote."""
  transformers = pytest.importorskip("transformers")
  config = transformers.ResNetConfig(
    embedding_size=8,
    hidden_sizes=[8, 12, 16],
    depths=[1, 2, 1],
    layer_type=layer_type,
  )
  theirs = transformers.ResNetForImageClassification(config)
  torch_resnet.random_statistics(theirs).eval().save_pretrained(tmp_path)
  options = pretrained.complete(resnet.ResNet, {"pretrained": str(tmp_path)})
  ours = resnet.ResNet(**options)
  variables = ours.from_tensors(pretrained.read_tensors(tmp_path))
  x = RNG.normal(size=(2, 25, 30, 3)).astype(np.float32)
  with torch.no_grad():
    expected = theirs.resnet(to_torch(x)).pooler_output.numpy()[..., 0, 0]
  found = jax.jit(lambda x: ours.apply(variables, x, False))(jnp.asarray(x))
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_options_by_config():
  """Of timm and of transformers; other architectures are refused."""
  of = resnet.ResNet.options_of
  assert of({"architecture": "resnet34"}) == {"depth": 34, "norm": "batch"}
  usual = {
    "model_type": "resnet",
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
  }
  usual["hidden_sizes"] = [64, 128, 256, 512]
  assert of(usual) == {"depth": 18, "norm": "batch", "width": 64}
  assert of({"model_type": "resnet"})["depth"] == 50
  assert of({**usual, "depths": [1, 2]})["blocks"] == (1, 2)
  for config, part in (
    ({"architecture": "resnet50d"}, "'resnet50d'"),
    ({"model_type": "bert"}, "'bert'"),
    ({}, "None"),
    ({**usual, "hidden_act": "gelu"}, "'gelu'"),
    ({**usual, "downsample_in_bottleneck": True}, "downsample_in_bottleneck"),
  ):
    with pytest.raises(ValueError, match=part):
      of(config)
