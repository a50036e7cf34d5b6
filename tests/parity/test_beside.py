"""Both sides of the benchmark beside PyTorch train the same model."""

import jax
import pytest

from benchmarks.beside import models, ours

theirs = pytest.importorskip("benchmarks.beside.theirs")


@pytest.mark.parametrize("name", ["emoji", "digits", "arrays"])
def test_both_sides_have_the_same_weights(name):
  _, held, *_ = ours.make(name).args
  net, *_ = theirs.make(name).args
  mine = sorted(w.size for w in jax.tree.leaves(held[0].params))
  others = [w.numel() for w in net.parameters()]
  # Our head is a block for each modality.
  heads = net.head.weight.numel()
  others.remove(heads)
  others += [heads // len(models.MODELS[name].encoders)] * len(
    models.MODELS[name].encoders
  )
  assert mine == sorted(others)
