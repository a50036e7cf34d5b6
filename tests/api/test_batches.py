"""The forms of batches that a loop takes."""

import jax.numpy as jnp
import numpy as np
import pytest

import dmg_jax
import toys
from bound_models import ADAM, numpy_batch, two
from dmg_jax.errors import InputError
from dmg_jax.types import Batch

FORMS = {
  "pair": lambda x, y: (x, y),
  "nested": lambda x, y: {"inputs": x, "labels": y},
  "flat": lambda x, y: {**x, "label": y},
  "batch": lambda x, y: Batch(x, y, np.ones(8), np.arange(8)),
  "jax": lambda x, y: (
    {m: jnp.asarray(v) for m, v in x.items()},
    jnp.asarray(y),
  ),
  "masked": lambda x, y: {**x, "labels": y, "mask": np.ones(8, bool)},
}


def test_every_form_of_a_batch_is_the_same():
  batch = numpy_batch("greedy", index=False)
  labels = batch.pop("labels").astype(np.int64)
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  found = [
    loop.step(loop.init(), make(batch, labels))[0] for make in FORMS.values()
  ]
  assert all(toys.same(found[0], other) for other in found[1:])


def test_batches_of_a_torch_loader():
  torch = pytest.importorskip("torch")
  batch = numpy_batch("greedy", index=False)
  labels = batch.pop("labels").astype(np.int64)
  data = torch.utils.data.StackDataset(
    **{m: torch.tensor(x) for m, x in batch.items()},
    labels=torch.tensor(labels),
  )
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  for given in torch.utils.data.DataLoader(data, batch_size=8):
    state, _ = loop.step(loop.init(), given)
  assert toys.same(state, loop.step(loop.init(), (batch, labels))[0])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"sound": np.zeros((8, 2))}, "unknown modality of a batch 'sound'"),
    ({"text": None}, "needs the modalities image, text; got image"),
    ({"labels": np.zeros(8)}, r"whole numbers \[b\], got float64\[8\]"),
    ({"labels": np.full(8, 3)}, r"labels must lie in \[0, 2\].* got 3"),
    ({"labels": np.zeros(7, int)}, r"7 labels, but 8 at \['image'\]"),
    ({"labels": None}, "needs 'labels', got image, text"),
    ({"mask": np.ones(7)}, r"8 labels, but 7 at \['mask'\]"),
  ],
)
def test_a_batch_that_cannot_be_used_is_refused(change, message):
  batch = {**numpy_batch("greedy", index=False), **change}
  batch = {k: v for k, v in batch.items() if v is not None}
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  with pytest.raises(InputError, match=message):
    loop.step(loop.init(), batch)


def test_an_index_is_asked_for_where_samples_are_counted():
  loop = dmg_jax.Loop(two(samples=16), "joint", ADAM)
  with pytest.raises(InputError, match="every batch needs 'index'"):
    loop.step(loop.init(), numpy_batch("greedy", index=False))
  loop.step(loop.init(), numpy_batch("greedy"))


def test_padding_has_no_influence():
  loop = dmg_jax.Loop(two(), "joint", ADAM)
  found = []
  for garbage in (0.0, 9.0):
    batch = numpy_batch("greedy", index=False)
    batch["image"] = np.concatenate(
      [batch["image"][:5], np.full((3, 5), garbage)]
    )
    mask = np.array([1, 1, 1, 1, 1, 0, 0, 0])
    found.append(loop.step(loop.init(), {**batch, "mask": mask})[0])
  toys.assert_close(*found)
