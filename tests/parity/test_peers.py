"""The driver of peers' code, on checkouts that the tests write."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.peers import __main__ as peers  # noqa: E402
from benchmarks.peers import arrays, checkout, towers  # noqa: E402
from data_pipelines.errors import DataError  # noqa: E402
from dmg_jax.model import registry  # noqa: E402

RNG = np.random.default_rng(0)
SIZES = {"train": 128, "outer": 20, "val": 8, "test": 16}

FUSION = """
import torch
class ConcatFusion(torch.nn.Module):
  def __init__(self, input_dim, output_dim):
    super().__init__()
    self.fc_out = torch.nn.Linear(input_dim, output_dim)
  def forward(self, x, y):
    return x, y, self.fc_out(torch.cat((x, y), dim=1))
"""
INIT = """
import torch
def weight_init(m):
  if isinstance(m, torch.nn.Linear):
    torch.nn.init.constant_(m.bias, 0.5)
"""
OGM_GE = """
import torch
from torch.utils.tensorboard import SummaryWriter
from dataset.CramedDataset import CramedDataset
from torchvision import transforms
torch.autograd.set_detect_anomaly(True)
some = transforms.Compose([transforms.ToTensor()])
SEEN = []
def train_epoch(args, epoch, model, device, loader, optimizer, scheduler):
  for spec, image, label in loader:
    a, v, out = model(spec.unsqueeze(1).float(), image.float().cuda())
    loss = torch.nn.CrossEntropyLoss().cuda()(out, label)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
  weight = model.module.fusion_module.fc_out.weight
  names = {n.split(".")[1] for n, _ in model.named_parameters()}
  SEEN.append((args.modulation, epoch, len(loader), weight.shape, names))
  scheduler.step()
"""
LFM = """
import torch
from geomloss import SamplesLoss
from model.AudioVideo import AVClassifier
from tqdm import tqdm
SEEN = []
def getAlpha_Learnable(epoch, batch, model, alpha, lr_alpha=1e-4):
  SEEN.append((epoch, batch, list(alpha)))
  print("never seen")
  return [alpha[0] + 0.1, alpha[1] - 0.1], lr_alpha
def getAlpha_Learnable_Fitted(epoch):
  return [0.2, 0.8]
def train_audio_video(epoch, loader, model, optimizer, logger, cls_k):
  for sound, image, y in tqdm(loader):
    one, a, v, _, _ = model(sound.unsqueeze(1).float(), image.float().cuda())
    torch.testing.assert_close(one, a + v)
  SEEN.append((epoch, list(cls_k)))
"""
TRAINER = """
import torch
import lightning as L
from lightning.fabric.loggers import CSVLogger
from ..models.avclassify_model import BaseClassifierModel
from ..evaluation.complex import FLOPsMonitor
from typing import Union
class {name}Trainer:
  def __init__(self, fabric, method_dict, para_dict):
    self.flops, self.settings = FLOPsMonitor(), method_dict
  def train_loop(self, model: L.LightningModule, optimizer, loader,
                 other: Union[L.fabric.utilities.types.LR, int] = 1):
    for batch in loader:
      model(batch)
      loss = torch.nn.functional.cross_entropy(
        model.unimodal_result["output"], batch["label"])
      loss.backward()
      optimizer.step()
"""
MODEL = """
import torch
from ..encoders import create_encoders
class BaseClassifierModel(torch.nn.Module):
  def __init__(self, args):
    super().__init__()
    self.encoders = torch.nn.ModuleDict(create_encoders(args["encoders"]))
    self.head = torch.nn.Linear(sum(args["modality_size"].values()),
                                args["n_classes"])
  def forward(self, batch):
    z = [e(batch[m]) for m, e in self.encoders.items()]
    self.unimodal_result = {"output": self.head(torch.cat(z, 1))}
"""
CHECKOUTS = {
  "ogm_ge": {
    "main.py": OGM_GE,
    "models/fusion_modules.py": FUSION,
    "utils/utils.py": INIT,
  },
  "lfm": {"Crema_epoch_learnable.py": LFM, "utils/tools.py": INIT},
  "balancebenchmark": {
    "balancemm/models/avclassify_model.py": MODEL,
    "balancemm/trainer/__init__.py": "raise ImportError('all trainers')",
    "balancemm/trainer/base_trainer.py": "",
    "balancemm/trainer/baseline_trainer.py": TRAINER.format(name="baseline"),
    "balancemm/trainer/OGM_trainer.py": TRAINER.format(name="OGM"),
  },
}


def small():
  """Words that name the class, and noise."""
  labels = {s: np.arange(n) % 2 for s, n in SIZES.items()}
  inputs = {
    s: {
      "name": np.stack([1 + y, 0 * y], 1).astype(np.int32),
      "photo": RNG.normal(size=(len(y), 8, 8, 3)).astype(np.float32),
    }
    for s, y in labels.items()
  }
  kinds = {"name": "words", "photo": "picture"}
  return arrays.Arrays(kinds, inputs, labels, 2, 3)


@pytest.fixture(autouse=True)
def one_thread():
  """Threads of torch wait for each other actively, which disturbs others."""
  before = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(before)


@pytest.fixture
def exported(tmp_path):
  path = tmp_path / "small.npz"
  arrays.save(path, small())
  return path


def written(peer, folder):
  for name, text in CHECKOUTS[peer].items():
    path = folder / "clone" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
  return folder / "clone"


def run(peer, clone, exported, *words):
  out = exported.with_suffix(".json")
  code = peers.main(
    [
      f"--peer={peer}",
      f"--checkout={clone}",
      f"--arrays={exported}",
      f"--out={out}",
      *words,
    ]
  )
  return code, json.loads(out.read_text()) if out.exists() else None


@pytest.mark.slow
def test_both_sides_are_trained_and_written(tmp_path, exported, capsys):
  clone = written("ogm_ge", tmp_path)
  words = ("--seeds=2", "--epochs=8", "--rows=Normal")
  code, made = run("ogm_ge", clone, exported, *words)
  assert code == 0
  (row,) = made["rows"]
  for side in ("theirs", "ours"):
    assert len(row[side]["accuracy"]) == 2
    assert len(row[side]["seconds"]) == 12  # Without the first two epochs.
    assert max(row[side]["accuracy"]) > 90  # Words name the class.
  assert "torchvision" in made["stubbed packages"]
  assert "| Normal | `joint` |" in capsys.readouterr().out


def test_nothing_of_a_checkout_stays_behind(tmp_path):
  clone = written("ogm_ge", tmp_path)
  before, path = set(sys.modules), list(sys.path)
  cuda = torch.Tensor.cuda
  from benchmarks.peers import ogm_ge

  with checkout.opened(clone, empty=ogm_ge.STUBBED):
    script = checkout.load("main")
    peer = ogm_ge.Peer(clone, "OGM", small(), 2)
    data = towers.tensors(small(), "train")
    peer.epoch(0, towers.Batches(data, 64, 0))
    (seen,) = script.SEEN
    assert not torch.is_anomaly_enabled()
  assert seen[:4] == ("OGM", 0, 2, (2, 128))
  assert seen[4] == {"fusion_module", "audio_net", "visual_net"}
  gone = {"main", "dataset", "models", "torchvision", "models.fusion_modules"}
  assert not gone & (set(sys.modules) - before)
  assert sys.path == path
  assert torch.Tensor.cuda is cuda


def test_lfm_gets_its_held_out_samples_and_its_alpha(tmp_path):
  from benchmarks.peers import lfm

  clone, data = written("lfm", tmp_path), small()
  with checkout.opened(clone, empty=lfm.STUBBED):
    script = checkout.load("Crema_epoch_learnable")
    peer = lfm.Peer(clone, "learned", data, 2)
    for epoch in range(2):
      peer.epoch(epoch, towers.Batches(towers.tensors(data, "train"), 64, 0))
  (_, batch, first), (_, used), (epoch, _, second), _ = script.SEEN
  np.testing.assert_array_equal(batch[0], data.inputs["outer"]["name"][:16])
  np.testing.assert_array_equal(batch[2], data.labels["outer"][:16])
  assert batch[1].shape == (16, 3, 8, 8)
  assert (epoch, first) == (1, [0.05, 0.95])
  np.testing.assert_allclose([used, second], [[0.15, 0.85]] * 2)


def test_balancebenchmark_runs_without_lightning(tmp_path, exported):
  clone = written("balancebenchmark", tmp_path)
  words = ("--side=theirs", "--seeds=1", "--epochs=2")
  code, made = run("balancebenchmark", clone, exported, *words)
  assert code == 0
  assert [row["row"] for row in made["rows"]] == ["baseline", "OGM"]
  assert "lightning" in made["stubbed packages"]


@pytest.mark.parametrize("peer", peers.PEERS)
def test_a_file_that_is_missing_is_named(peer, tmp_path, exported, capsys):
  clone = written(peer, tmp_path)
  name = next(iter(CHECKOUTS[peer]))
  (clone / name).unlink()
  assert run(peer, clone, exported)[0] == 1
  assert f"has no file {name}" in capsys.readouterr().err


def test_errors_name_the_rows_and_the_folder(tmp_path, exported, capsys):
  clone = written("lfm", tmp_path)
  assert run("lfm", clone, exported, "--rows=lerned")[0] == 1
  assert "learned, fitted" in capsys.readouterr().err
  assert run("lfm", tmp_path / "none", exported)[0] == 1
  assert "no folder" in capsys.readouterr().err


def test_an_import_that_nobody_has_is_named(tmp_path):
  (tmp_path / "script.py").write_text("import nobody_has_this")
  with (
    checkout.opened(tmp_path),
    pytest.raises(DataError, match="nobody_has_this"),
  ):
    checkout.load("script")


def test_arrays_come_back_and_objects_are_refused(exported, tmp_path, capsys):
  back, first = arrays.load(exported), small()
  assert (back.kinds, back.classes, back.words) == (first.kinds, 2, 3)
  assert list(back.kinds) == ["name", "photo"]
  np.testing.assert_array_equal(
    back.inputs["test"]["name"], first.inputs["test"]["name"]
  )
  bad = tmp_path / "bad.npz"
  np.savez(bad, names=np.array([{}], dtype=object))
  clone = written("lfm", tmp_path)
  assert run("lfm", clone, bad)[0] == 1
  assert "allow_pickle=False" in capsys.readouterr().err


@pytest.mark.slow
def test_the_encoders_are_those_of_ours():
  data = small()
  made = towers.encoders(data)
  inputs = {m: x[:4] for m, x in data.inputs["train"].items()}
  words = registry.make_encoder("small.WordBag", vocab_size=3)
  conv = registry.make_encoder("small.ConvNet", widths=(16, 32, 64))
  slots = dict(zip(data.kinds, towers.SLOTS, strict=True))
  batch = towers.tensors(data, "train")
  for m, encoder in {"name": words, "photo": conv}.items():
    x = jnp.asarray(inputs[m])
    params = encoder.init(jax.random.key(0), x, False)["params"]
    tower = made[slots[m]]
    _copy(params, tower.bag if m == "name" else tower)
    want = encoder.apply({"params": params}, x, False)
    with torch.no_grad():
      got = tower(batch[slots[m]][:4])
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_first_weights_are_drawn_as_ours():
  torch.manual_seed(0)
  bag = towers.Words(2000)
  bag.apply(towers._as_ours)
  for weight, fan in ((bag.bag.table, 128), (bag.bag.hidden, 128)):
    assert float(weight.weight.detach().std()) == pytest.approx(
      fan**-0.5, rel=0.02
    )
  assert not bag.bag.hidden.bias.any()


def _copy(params, tower):
  """Our weights, in the order of layers, into a tower of torch."""
  flat = jax.tree_util.tree_flatten_with_path(params)[0]
  ours = {"/".join(str(k.key) for k in path): v for path, v in flat}
  kernels = sorted(k for k in ours if k.endswith(("kernel", "embedding")))
  left = {k: np.asarray(v) for k, v in ours.items()}
  with torch.no_grad():
    for name, weight in tower.named_parameters():
      shape = tuple(weight.shape)
      found = next(k for k in _order(left, kernels) if _fits(left[k], shape))
      value = left.pop(found)
      if value.ndim == 4:
        value = value.transpose(3, 2, 0, 1)
      elif found.endswith("kernel"):
        value = value.T
      assert ("bias" in name) == found.endswith("bias"), (name, found)
      weight.copy_(torch.from_numpy(np.array(value)))
  assert not left


def _order(left, kernels):
  rest = sorted((k for k in left if k not in kernels), reverse=True)
  return [k for k in kernels if k in left] + rest


def _fits(value, shape):
  return value.shape in (shape, shape[::-1]) or (
    value.ndim == 4 and value.transpose(3, 2, 0, 1).shape == shape
  )
