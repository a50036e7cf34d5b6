"""A training step of the same models in PyTorch, tuned for the device.

python -m benchmarks.accelerator.beside NAME PRECISION [--quick]

Encoders and a linear head under cross-entropy: the step of ``joint``, which
lacks the matching loss of ours. Maps are channels last, the optimiser is fused,
float32 is multiplied in TF32 as JAX does, bf16 is autocast.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.accelerator import sizes
from benchmarks.accelerator.says import say
from benchmarks.beside import theirs

NAMES = ("CREMA-D", "Sarcasm", "Sarcasm CLIP")
_SECONDS, _ROUNDS = 1.0, 3


class Frames(nn.Module):
  """Features of pictures, or the mean of those of a clip's frames."""

  def __init__(self, net: nn.Module):
    super().__init__()
    self.net = net

  def forward(self, x):
    clips = x.ndim == 5
    rows = x.flatten(0, 1) if clips else x
    features = self.net(rows)
    return features.unflatten(0, x.shape[:2]).mean(1) if clips else features


class Pooled(nn.Module):
  """The features of a model of transformers."""

  def __init__(self, net: nn.Module, key: str):
    super().__init__()
    self.net, self.key = net, key

  def forward(self, x):
    return getattr(self.net(x), self.key).flatten(1)


class Pair(nn.Module):
  """Encoders and a linear head on what they give, side by side."""

  def __init__(self, encoders: dict[str, nn.Module], classes: int):
    super().__init__()
    self.encoders = nn.ModuleDict(encoders)
    self.head = nn.LazyLinear(classes)

  def forward(self, inputs):
    made = [net(inputs[m]) for m, net in self.encoders.items()]
    return self.head(torch.cat(made, 1))


def encoders(name: str, quick: bool, side: int) -> dict[str, nn.Module]:
  """The models that the config names, with random weights.

  Args:
    name: of the size.
    quick: one layer.
    side: of the pictures.
  """
  if name == "CREMA-D":
    return {"audio": theirs.ResNet(1), "video": Frames(theirs.ResNet(3))}
  import transformers as hf

  small = {"num_hidden_layers": 1} if quick else {}
  if name == "Sarcasm CLIP":
    text = hf.CLIPTextConfig(projection_dim=512, **small)
    seen = hf.CLIPVisionConfig(projection_dim=512, image_size=side, **small)
    return {
      "image": Pooled(hf.CLIPVisionModelWithProjection(seen), "image_embeds"),
      "text": Pooled(hf.CLIPTextModelWithProjection(text), "text_embeds"),
    }
  picture = hf.ResNetModel(hf.ResNetConfig())  # ResNet-50.
  words = hf.BertModel(hf.BertConfig(**small))
  return {
    "image": Pooled(picture, "pooler_output"),
    "text": Pooled(words, "pooler_output"),
  }


def tensors(name: str, quick: bool, device):
  """Inputs as ours, channels first in memory order of channels last."""
  setup = sizes.make(name, "float32", quick)
  source = setup.dataset.sources["train"]
  samples = [source[i] for i in range(setup.batch_size)]
  inputs = {}
  for m in samples[0]["inputs"]:
    x = torch.from_numpy(np.stack([s["inputs"][m] for s in samples])).to(device)
    if x.dtype == torch.uint8:
      x = x.float() / 127.5 - 1
    inputs[m] = x.movedim(-1, -3) if x.ndim >= 4 else x.long()
  labels = torch.tensor([s["label"] for s in samples], device=device)
  return inputs, labels


def main(argv: list[str] | None = None) -> int:
  """Measures and tells."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("name", choices=NAMES)
  parser.add_argument("precision", choices=("float32", "bf16"))
  parser.add_argument("--quick", action="store_true")
  options = parser.parse_args(argv)
  card = torch.cuda.is_available()
  device = torch.device("cuda" if card else "cpu")
  torch.backends.cuda.matmul.allow_tf32 = True
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  inputs, labels = tensors(options.name, options.quick, device)
  side = next(x.shape[-1] for x in inputs.values() if x.ndim >= 4)
  made = encoders(options.name, options.quick, side)
  net = Pair(made, int(labels.max()) + 1)
  net = net.to(device).train()
  half = options.precision == "bf16"
  cast = torch.autocast(device.type, torch.bfloat16, enabled=half)
  with torch.no_grad(), cast:
    net(inputs)  # Gives the head its shape.
  net = net.to(memory_format=torch.channels_last)
  optimiser = torch.optim.Adam(net.parameters(), lr=1e-4, fused=True)
  step = stepper(net, optimiser, inputs, labels, cast)
  seconds = timed(step, torch.cuda.synchronize if card else lambda: None,
                  options.quick)  # fmt: skip
  say(
    "torch", version=torch.__version__, device=device.type, batch=len(labels),
    seconds=seconds, samples_per_second=len(labels) / seconds,
    peak_bytes=torch.cuda.max_memory_allocated() if card else None,
  )  # fmt: skip
  return 0


def stepper(net, optimiser, inputs, labels, cast):
  """A function that takes a step."""

  def step():
    optimiser.zero_grad(set_to_none=True)
    with cast:
      loss = F.cross_entropy(net(inputs), labels)
    loss.backward()
    optimiser.step()

  return step


def timed(step, wait, quick: bool) -> float:
  """Seconds of a step, the median of rounds; the first steps not counted."""
  for _ in range(1 if quick else 5):
    step()
  wait()
  begin = time.perf_counter()
  step()
  wait()
  once = time.perf_counter() - begin
  count = 1 if quick else max(1, round(_SECONDS / once))
  found = []
  for _ in range(1 if quick else _ROUNDS):
    begin = time.perf_counter()
    for _ in range(count):
      step()
    wait()
    found.append((time.perf_counter() - begin) / count)
  return statistics.median(found)


if __name__ == "__main__":
  sys.exit(main())
