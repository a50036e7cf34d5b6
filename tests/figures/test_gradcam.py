"""Grad-CAM against closed forms, and which samples are shown how."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data_pipelines import core
from data_pipelines.core import Dataset, ModalitySpec, Spec, hidden
from dmg_jax.config import compose
from dmg_jax.figures import _panels, _samples, figure4, gradcam
from dmg_jax.model import classifier, registry
from dmg_jax.training import experiment
from helpers import CLASSES, toy_dataset


def maps(shape=(2, 3, 4, 5)):
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.normal(size=shape))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 6, 3, 4, 5)])
def test_linear_after_global_pooling(shape):
  """o = v · mean of the places: each weight is v_c over their number."""
  a, v = maps(shape), maps((5,))
  places = tuple(range(1, a.ndim - 1))
  heat = gradcam.cam(lambda x: x.mean(axis=places) @ v, a)
  count = np.prod(shape[1:-1])
  expected = np.maximum((np.asarray(a) * np.asarray(v)).sum(-1) / count, 0)
  np.testing.assert_allclose(heat, expected, rtol=1e-12)


def test_weights_are_the_mean_gradient_over_places():
  """o = Σ u_pc a_pc: w_c is the mean of u over places, not u itself."""
  a, u = maps(), maps((3, 4, 5)) ** 2
  heat = gradcam.cam(lambda x: (x * u[None]).sum(axis=(1, 2, 3)), a)
  weights = np.asarray(u).mean(axis=(0, 1))
  expected = np.maximum((np.asarray(a) * weights).sum(-1), 0)
  np.testing.assert_allclose(heat, expected, rtol=1e-12)


def test_one_hot_spot():
  """A map with one active place is hot there alone, or nowhere."""
  a = jnp.zeros((1, 3, 4, 2)).at[0, 1, 2, 0].set(5.0)

  def pooled(sign, x):
    return sign * x.mean(axis=(1, 2))[:, 0]

  heat = np.asarray(gradcam.cam(functools.partial(pooled, 1.0), a))
  assert heat[0, 1, 2] == pytest.approx(5.0 / 12)
  assert np.count_nonzero(heat) == 1
  assert not gradcam.cam(functools.partial(pooled, -1.0), a).any()


def test_half_precision_is_summed_in_single():
  a = maps().astype(jnp.bfloat16)
  heat = gradcam.cam(lambda x: x.mean(axis=(1, 2, 3)), a)
  assert heat.dtype == jnp.float32


@pytest.fixture(scope="module")
def setup():
  """Picture and array; dropout and batch statistics in the encoder."""
  config = compose.base()
  config.data.name = "toy"
  image = {"features": 4, "widths": (8,), "norm": "batch", "dropout": 0.5}
  config.encoders = {
    "array": compose.encoder("small.MLP", features=4, widths=(4,)),
    "image": compose.encoder("small.ConvNet", **image),
  }
  config.train.update(batch_size=16, outer_batch_size=8)
  config.eval.batch_size = 16
  config.loader.update(resident="off", workers=0)
  config = compose.with_recipe(config, "joint")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(experiment, "load", lambda config, method: toy_dataset())
    return experiment.assemble(config)


def test_of_a_run(setup):
  """The last map enters the fused logit linearly: w = K H_y / places."""
  state = jax.device_get(setup.fresh())
  stats = jax.tree.map(lambda x: 0.2 + 1.5 * x, state.stats)
  state = state.replace(stats=stats)
  found = _samples.read(setup.dataset, [3, 4, 5])
  explain = gradcam.explainer(setup, "image")
  heat, logits = explain(state, found.inputs, found.labels)
  own = classifier.encoder_variables(state.params, state.stats, "image")
  encoder = registry.make_encoder(**setup.encoders["image"])
  pixels = jnp.asarray(found.inputs["image"])
  last = np.asarray(encoder.apply(own, pixels, False, 0, 1))
  head = state.params["fusion"]["head_image"]
  weights = own["params"]["Dense_0"]["kernel"] @ head / 16
  expected = np.einsum("bhwc,cb->bhw", last, weights[:, found.labels])
  np.testing.assert_allclose(heat, np.maximum(expected, 0), rtol=1e-4)
  assert heat.shape == (3, 4, 4) and (np.asarray(heat) > 0).any()
  inputs = jax.tree.map(jnp.asarray, found.inputs)
  outputs, _ = setup.problem.forward(
    state.params, state.stats, inputs, None, False
  )
  np.testing.assert_allclose(logits, outputs.logits, rtol=1e-5, atol=1e-6)


def test_what_a_sample_lacks_has_no_map(setup):
  """The others' are those of ``present``; garbage changes no bit."""
  data = hidden.hide(toy_dataset(), "image:0.4+array:0.4", seed=1)
  places = list(range(8))
  found = _samples.read(data, places)
  gone = [core.missing(data.sources["test"][i]) for i in places]
  assert {m for lost in gone for m in lost} == {"image", "array"}
  for i, lost in enumerate(gone):
    assert [m for m in ("array", "image") if not found.has(i, m)] == [*lost]
  state = jax.device_get(setup.fresh())
  explain = gradcam.explainer(setup, "image")
  heat, logits = explain(state, found.inputs, found.labels, found.present)
  there = np.array([found.has(i, "image") for i in places])
  heat = np.asarray(heat)
  assert not heat[~there].any() and heat[there].any()
  outputs, _ = setup.problem.forward(
    state.params, state.stats, jax.tree.map(jnp.asarray, found.inputs), None,
    False, jax.tree.map(jnp.asarray, found.present),
  )  # fmt: skip
  np.testing.assert_allclose(logits, outputs.logits, rtol=1e-5, atol=1e-6)
  garbage = dict(found.inputs)
  for m, other in (("image", 77), ("array", np.nan)):
    for i in places:
      if not found.has(i, m):
        garbage[m][i] = other
  again = explain(state, garbage, found.labels, found.present)
  np.testing.assert_array_equal(heat, again[0])
  np.testing.assert_array_equal(logits, again[1])


def test_what_a_sample_lacks_is_left_out():
  """A line for each modality that is there, the last of a sample marked."""
  data = hidden.hide(toy_dataset(), "image:0.6", seed=1)
  places = list(range(6))
  found = _samples.read(data, places)
  pictures = dict.fromkeys(("image", "second"), found.inputs["image"])
  present = {"image": found.present["image"], "second": np.ones(6)}
  found = found._replace(inputs=pictures, present=present)
  heat = {m: np.zeros((1, 6, 4, 4)) for m in pictures}
  kinds = dict.fromkeys(pictures, "image")
  seen = figure4.Seen(
    "h", "H", 0, found, kinds, heat, np.full((1, 6, 3), 1 / 3), CLASSES, []
  )
  lines = figure4._lines_of([seen])
  there = present["image"] > 0
  assert 0 < there.sum() < 6
  for i, name in enumerate(found.ids):
    own = [(x.modality, x.last) for x in lines if x.sample == i]
    only = [("second", True)]
    assert own == ([("image", False), *only] if there[i] else only)
    note = f"image is left out of sample {name}, which lacks it"
    assert (note in figure4._lacking(found, heat)) != there[i]


def test_samples_of_any_length():
  steps = ModalitySpec("array", (16, 2), np.float32, buckets=(8, 16))
  arrays = [np.ones((t, 2), np.float32) for t in (3, 12)]
  own = [{"inputs": {"s": x}, "label": 0, "id": f"{len(x)}"} for x in arrays]
  spec = Spec("x", {"s": steps}, CLASSES, {"test": 2})
  found = _samples.read(Dataset(spec, {"test": own}), [0, 1])
  np.testing.assert_array_equal(found.inputs["s"]["mask"].sum(axis=1), [3, 12])
  assert found.inputs["s"]["values"].shape == (2, 16, 2)
  assert found.present is None and found.has(0, "s")


def test_stages_and_modalities_without_maps(setup):
  with pytest.raises(ValueError, match=r"1 stages.*\[-1, 0\], got 1"):
    gradcam.explainer(setup, "image", 1)
  assert gradcam.without_maps(setup, "image") == ""
  assert "array has no height" in gradcam.without_maps(setup, "array")
  assert gradcam.joined_inside("channel")
  assert not gradcam.joined_inside("concat")


def test_notes_on_maps_of_low_resolution():
  heat = {"a": np.zeros((2, 3, 1, 8)), "b": np.zeros((2, 3, 5, 3, 3))}
  assert [note.partition(" have")[0] for note in figure4._coarse(heat)] == [
    "a: maps of 1 × 8"
  ]


def test_samples_are_drawn_by_seed_or_named():
  data = toy_dataset(n=96)
  drawn = _samples.choose(data, [], 3, 0)
  assert drawn == _samples.choose(data, [], 3, 0) == sorted(set(drawn))
  assert drawn != _samples.choose(data, [], 3, 1)
  assert _samples.choose(data, ["test-7", "test-2"], 3, 0) == [7, 2]
  assert _samples.read(data, [7, 2]).ids == ["test-7", "test-2"]
  with pytest.raises(ValueError, match="unknown sample 'test-99'; did you"):
    _samples.choose(data, ["test-1", "test-99"], 3, 0)
  with pytest.raises(ValueError, match=r"48 test samples\)$") as error:
    _samples.choose(data, ["x"], 3, 0)
  assert len(str(error.value)) < 400
  with pytest.raises(ValueError, match=r"count must lie in \[1, 48\]"):
    _samples.choose(data, [], 49, 0)


def test_samples_are_seen_as_evaluation_sees_them():
  data = toy_dataset(("array",))
  data.view["array"] = lambda x: x[:2] + 1
  found = _samples.read(data, [5])
  raw = data.sources["test"][5]["inputs"]["array"]
  np.testing.assert_array_equal(found.inputs["array"], raw[None, :2] + 1)


def test_pictures_of_inputs():
  colours = np.zeros((2, 2, 3), np.uint8)
  colours[0, 0] = 255, 0, 51
  np.testing.assert_allclose(
    _samples.picture(colours, "image")[0, 0], (1, 0, 0.2), rtol=1e-6
  )
  clip = np.stack([colours * 0, colours, colours * 0])
  assert _samples.picture(clip, "video")[0, 0, 0] == 1
  sound = np.array([[1.0, 1], [3, 2]], np.float32)[..., None]  # [pitch time 1]
  heard = _samples.picture(sound, "audio")
  np.testing.assert_allclose(heard[..., 0], [[1, 0.5], [0, 0]])
  np.testing.assert_array_equal(
    _samples.upright(sound[..., 0], "audio"), [[3, 2], [1, 1]]
  )
  flow = np.full((1, 2, 2, 2), 127, np.uint8)
  flow[0, 0, 1] = 255, 127
  assert _samples.picture(flow, "video")[0, :, 0].tolist() == [0, 1]


def test_overlay_leaves_cold_places_grey():
  picture = np.full((4, 4, 3), 0.5)
  cold = _panels.overlay(picture, np.zeros((2, 2), np.float32))
  np.testing.assert_allclose(cold, 0.5)
  hot = np.zeros((2, 2), np.float32)
  hot[0, 1] = 1e-6  # Scaled to its own largest value.
  shown = _panels.overlay(picture, hot)
  assert np.ptp(shown[0, -1]) > 0.2
  np.testing.assert_allclose(shown[-1, 0], 0.5)
