"""Weights from a folder into a run, and from the run into a folder."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from huggingface_hub import constants
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from dmg_jax.config import compose
from dmg_jax.model import classifier, registry
from dmg_jax.model.encoders import pretrained, resnet
from dmg_jax.tracking.logging import Console
from dmg_jax.training import experiment, runner, validation

LAYOUT = {"depth": 18, "blocks": (1,), "widths": (12,), "width": 8}
CONFIG = {"architecture": "resnet18"}


def initialised(module, seed=0, channels=3):
  """Random variables of the module's shapes."""
  x, rng = jnp.zeros((1, 8, 8, channels)), np.random.default_rng(seed)
  key = jax.random.key(0)
  shapes = jax.eval_shape(lambda: module.init(key, x, False))
  return jax.tree.map(
    lambda s: jnp.asarray(rng.uniform(0.5, 1, s.shape), s.dtype), shapes
  )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Weights of a tiny net; not to be changed."""
  path = tmp_path_factory.mktemp("weights") / "tiny"
  module = resnet.ResNet(**LAYOUT)
  pretrained.write(path, module, initialised(module))
  return path


def with_net(config, folder, **changes):
  net = compose.encoder("resnet.ResNet", pretrained=str(folder), **changes)
  with config.unlocked():
    config.encoders.image = net
  return config


def test_what_is_written_is_read_again(folder, tmp_path):
  """Same variables, whatever the number of features."""
  options = pretrained.complete(resnet.ResNet, {"pretrained": str(folder)})
  assert {k: tuple(options[k]) for k in ("blocks", "widths")} == {
    k: LAYOUT[k] for k in ("blocks", "widths")
  }
  module = resnet.ResNet(**options)
  variables = initialised(resnet.ResNet(**LAYOUT))
  found, what = pretrained.load(module, folder, initialised(module, 1))
  jax.tree.map(np.testing.assert_array_equal, found, variables)
  assert what == f"{len(jax.tree.leaves(variables))} tensors"

  projected = resnet.ResNet(**LAYOUT, features=5)
  found, what = pretrained.load(projected, folder, initialised(projected, 1))
  assert "not in the file: project" in what
  pretrained.write(tmp_path / "out", projected, found)
  options = pretrained.complete(
    resnet.ResNet, {"pretrained": str(tmp_path / "out")}
  )
  assert options["features"] == 5
  own = {"pretrained": str(tmp_path / "out"), "features": 3}
  assert pretrained.complete(resnet.ResNet, own)["features"] == 3
  again, _ = pretrained.load(
    resnet.ResNet(**options), tmp_path / "out", initialised(projected, 2)
  )
  jax.tree.map(np.testing.assert_array_equal, again, found)
  assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_other_numbers_of_input_channels(folder):
  module = resnet.ResNet(**LAYOUT)
  found, what = pretrained.load(module, folder, initialised(module, 1, 1))
  assert "input channels 3 -> 1" in what
  kernel = load_file(folder / "model.safetensors")["conv1.weight"]
  expected = kernel.sum(axis=1, keepdims=True).transpose(2, 3, 1, 0)
  fitted = found["params"]["conv1"]["kernel"]
  np.testing.assert_allclose(fitted, expected, rtol=1e-5, atol=1e-7)


def test_run_export_and_reload(quick, tiny, folder, tmp_path, words, command):
  """The weights start the run, and end it as files that torch loads."""
  del quick
  own = tmp_path / "own"
  shutil.copytree(folder, own)
  config = with_net(tiny("joint", {"train.epochs": 1}), own, features=4)
  setup = experiment.assemble(config)
  start = classifier.encoder_variables(
    (state := setup.fresh()).params, state.stats, "image"
  )
  conv = load_file(own / "model.safetensors")["conv1.weight"]
  np.testing.assert_array_equal(
    start["params"]["conv1"]["kernel"], conv.transpose(2, 3, 1, 0)
  )
  mean = load_file(own / "model.safetensors")["bn1.running_mean"]
  np.testing.assert_array_equal(start["batch_stats"]["bn1"]["mean"], mean)
  work = tmp_path / "work"
  runner.run(config, work, Console(quiet=True))
  stored = json.loads((work / "config.json").read_text())
  assert stored["encoders"]["image"]["blocks"] == [1]
  assert stored["config"]["encoders"]["image"]["blocks"] == []
  shutil.rmtree(own)  # Not needed any more.

  code, out, err = command(*words("joint", work), "--mode=export")
  assert (code, err) == (0, "")
  assert "not written: text (small.WordBag has no export)" in out
  exported = work / "export" / "image"
  assert {p.name for p in exported.iterdir()} == {
    "config.json",
    "model.safetensors",
  }
  assert f"{exported}" in "".join(out.split())
  check_features(work, exported)


def check_features(work, exported):
  """The run's, the reloaded encoder's and torch's are the same."""
  from dmg_jax.training.checkpoint import Checkpoints

  checkpoints = Checkpoints(work)
  raw = checkpoints._manager.restore(checkpoints.best())
  checkpoints.close()
  own = classifier.encoder_variables(raw["params"], raw["stats"], "image")
  options = pretrained.complete(resnet.ResNet, {"pretrained": str(exported)})
  assert options["features"] == 4
  module = resnet.ResNet(**options)
  again, _ = pretrained.load(module, exported, initialised(module))
  x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
  apply = jax.jit(lambda v: module.apply(v, jnp.asarray(x), False))
  np.testing.assert_array_equal(apply(own), apply(again))

  torch = pytest.importorskip("torch")
  import torch_resnet

  net = torch_resnet.ResNet((1,), (12,), False, width=8, classes=4)
  state = load_file(exported / "model.safetensors")
  net.load_state_dict({k: torch.tensor(v) for k, v in state.items()})
  scaled = (x / 255 - resnet.IMAGENET_MEAN) / resnet.IMAGENET_STD
  with torch.no_grad():
    theirs = net.eval()(torch.tensor(scaled.transpose(0, 3, 1, 2)).float())
  np.testing.assert_allclose(apply(own), theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_sizes_of_an_encoder_are_checked(tiny):
  """0 and none are the architecture's own, also when read from JSON."""
  config = with_net(tiny("joint"), "")
  validation.check(ConfigDict(json.loads(json.dumps(config.to_dict()))))
  for field, value in (("features", -1), ("width", 0), ("widths", (8, 0))):
    with pytest.raises(ValueError, match=f"encoders.image.{field} must be"):
      validation.check(with_net(tiny("joint"), "", **{field: value}))
  for field, value in (("depth", 17), ("norm", "layer"), ("dtype", "float16")):
    with pytest.raises(ValueError, match=f"unknown {field} {value!r}"):
      validation.check(with_net(tiny("joint"), "", **{field: value}))


def test_words_of_the_data_and_of_the_weights():
  options = {"name": "small.WordBag"}
  found = registry.with_vocabulary(options, 9)
  assert found == {**options, "vocab_size": 9}
  known = {**options, "vocab_size": 30}
  assert registry.with_vocabulary(known, 9) == known
  with pytest.raises(ValueError, match=r"know 30 words, the data have 31"):
    registry.with_vocabulary(known, 31)


def folder_of(path, config=CONFIG, **tensors):
  path.mkdir()
  (path / "config.json").write_text(json.dumps(config))
  if tensors:
    save_file(tensors, path / "model.safetensors")
  return path


def test_what_is_wrong_is_said(folder, tmp_path):
  def fails(*parts, **options):
    with pytest.raises(ValueError) as error:
      pretrained.complete(resnet.ResNet, options)
    assert all(part in str(error.value) for part in parts), error.value

  one = {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
  fails("no folder", "./nowhere", pretrained="./nowhere")
  empty = tmp_path / "empty"
  empty.mkdir()
  (empty / "pytorch_model.bin").write_bytes(b"")
  fails("model.safetensors", ".bin", "save_file", pretrained=str(empty))
  save_file(one, empty / "model.safetensors")
  fails("config.json", '"architecture"', pretrained=str(empty))
  (empty / "config.json").write_text("{")
  fails("config.json", "not JSON", pretrained=str(empty))
  other = folder_of(tmp_path / "vit", {"architecture": "vit_base"}, **one)
  fails("'vit_base'", "resnet50", pretrained=str(other))
  fails("blocks=(2, 2)", "(1,)", blocks=(2, 2), pretrained=str(folder))
  plain = folder_of(tmp_path / "plain", **one)
  foreign = folder_of(tmp_path / "foreign", {"dmg_jax": {"heads": 8}}, **one)
  fails("heads=8", "ResNet", pretrained=str(foreign))
  fails("norm='group'", "'batch'", norm="group", pretrained=str(plain))
  with pytest.raises(ValueError, match=r"encoders.image: norm='group'"):
    options = {"name": "resnet.ResNet", "norm": "group"}
    registry.complete_encoders({"image": {**options, "pretrained": str(plain)}})


def test_tensors_that_do_not_fit_are_named(folder, tmp_path):
  tensors = load_file(folder / "model.safetensors")
  module = resnet.ResNet(**LAYOUT)

  def fails(tensors, *parts):
    with pytest.raises(ValueError) as error:
      module.from_tensors(tensors)
    assert all(part in str(error.value) for part in parts), error.value

  fails({"bert.x": np.zeros(1)}, "'conv1.weight'")
  less = {k: v for k, v in tensors.items() if k != "layer1.0.bn1.running_var"}
  fails(less, "lack 1", "'layer1.0.bn1.running_var'")
  more = {**tensors, "layer1.1.conv1.weight": np.zeros((1, 1, 3, 3))}
  fails(more, "also hold 1", "'layer1.1.conv1.weight'", "depth=18")
  wide = {**tensors, "bn1.weight": np.zeros(9)}
  fails(wide, "'bn1.weight'", "(9,)", "(8,)")
  prefixed = {f"module.{k}": v for k, v in tensors.items()}
  prefixed["module.fc.weight"] = np.zeros((1000, 12), np.float32)
  found = module.from_tensors(prefixed)
  jax.tree.map(
    np.testing.assert_array_equal, found, module.from_tensors(tensors)
  )


def test_half_precision_shards_and_damage(tmp_path):
  half = {"a": np.ones(3, np.float16), "n": np.array(3)}
  path = folder_of(tmp_path / "shards")
  save_file({"b": np.ones(2, jnp.bfloat16)}, path / "model-1.safetensors")
  save_file(half, path / "model-2.safetensors")
  index = {"a": "model-2.safetensors", "b": "model-1.safetensors"}
  index["n"] = index["a"]
  (path / "model.safetensors.index.json").write_text(
    json.dumps({"weight_map": index})
  )
  found = pretrained.read_tensors(path)
  assert {k: v.dtype for k, v in found.items()} == {
    "a": np.float32, "b": np.float32, "n": np.int64,
  }  # fmt: skip
  np.testing.assert_array_equal(found["b"], [1, 1])
  (path / "model-2.safetensors").write_bytes(b"damaged")
  with pytest.raises(ValueError, match=r"model-2.safetensors is damaged"):
    pretrained.read_tensors(path)
  (path / "model-2.safetensors").unlink()
  with pytest.raises(ValueError, match=r"no model-2.safetensors"):
    pretrained.read_tensors(path)


def test_hub_and_its_cache(tmp_path, monkeypatch):
  """Offline, what was downloaded before is found, the rest explained."""
  monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
  monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
  with pytest.raises(ValueError, match="could not be downloaded") as error:
    pretrained.resolve("timm/resnet50.tv_in1k")
  assert "hf download timm/resnet50.tv_in1k" in str(error.value)
  assert "pretrained=DIR" in str(error.value)
  repository = tmp_path / "models--timm--resnet50.tv_in1k"
  (repository / "refs").mkdir(parents=True)
  (repository / "refs" / "main").write_text("0" * 40)
  (repository / "snapshots").mkdir()
  one = {"conv1.weight": np.zeros((64, 3, 7, 7), np.float32)}
  config = {
    "architecture": "resnet50",
    "num_classes": 1000,
    "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
  }
  kept = folder_of(repository / "snapshots" / ("0" * 40), config, **one)
  options = pretrained.complete(
    resnet.ResNet, {"pretrained": "timm/resnet50.tv_in1k"}
  )
  assert options == {
    "pretrained": str(kept), "depth": 50, "norm": "batch",
    "mean": (0.5,) * 3, "std": (0.2,) * 3,
  }  # fmt: skip
