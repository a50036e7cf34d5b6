"""A model as a program that knows nothing of this package."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dmg_jax
import helpers
import toys
from dmg_jax.model import registry
from dmg_jax.serving import batching, export, predictor, program

HEADS = ("fused", "caption", "photo", "sensor")


def inputs_of(rows, loaded, folder):
  cells = {"photo": "photo:image", "sensor": "sensor:array"}
  made = {
    m: np.stack([loaded.preprocessors[m](folder / r[c]) for r in rows])
    for m, c in cells.items()
  }
  words = [loaded.preprocessors["caption"](r["caption:text"]) for r in rows]
  return {**made, "caption": np.stack(words)}


@pytest.fixture(scope="module")
def lowered(restored):
  variables, function = predictor.model(*restored)
  specs = restored[0].dataset.spec.modalities
  shapes = {m: (s.shape, s.dtype) for m, s in specs.items()}
  return program.lower(variables, function, shapes, 8)


def test_program(lowered, loaded, new, found):
  exported, notes = lowered
  assert notes == [] and exported.platforms == ("cpu", "cuda")
  assert {str(a.shape[0]) for a in exported.in_avals} == {"b"}
  assert {str(a.dtype) for a in exported.out_avals} == {"float32"}
  arrays = inputs_of(new[1], loaded, new[0].parent)
  for count in (1, len(new[1])):
    made = exported.call({m: x[:count] for m, x in arrays.items()})
    assert set(made) == set(HEADS)
    for h, p in made.items():
      np.testing.assert_allclose(
        p, found.probabilities[h][:count], rtol=1e-5, atol=1e-6
      )


def test_what_cannot_be_lowered_is_told():
  def function(scale, inputs):
    return {"fused": scale * inputs["x"].reshape(int(inputs["x"].shape[0]), -1)}

  shapes = {"x": ((3,), np.float32)}
  exported, notes = program.lower(np.float32(2), function, shapes, 4)
  assert exported.in_avals[0].shape == (4, 3)
  assert exported.platforms == ("cpu", "cuda")
  assert len(notes) == 2 and "not for b = b on cpu" in notes[0]

  def never(scale, inputs):
    raise RuntimeError("never")

  with pytest.raises(ValueError, match=r"cannot be exported.*never"):
    program.lower(np.float32(2), never, shapes, 4)


# ``channel`` needs encoders with stages. The others are much like these two.
FAST = ("aug", "sum")
FUSIONS = [
  f if f in FAST else pytest.param(f, marks=pytest.mark.slow)
  for f in registry.known("fusion")
  if f != "channel"
]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_what_is_missing_for_any_number_of_samples(fusion):
  """A program with masks: no bit of garbage gets through any fusion."""
  problem, params, stats = toys.problem(2, fusion)

  def function(variables, given):
    inputs, present = batching.separate(given)
    params, stats = jax.tree.map(jnp.asarray, variables)
    outputs, _ = problem.forward(params, stats, inputs, None, False, present)
    return {"fused": outputs.logits}

  shapes = {
    m: ((d,), np.float32)
    for m, d in zip(problem.modalities, toys.SIZES, strict=False)
  }
  variables = jax.device_get((params, stats))
  optional = problem.modalities[:1]
  exported, notes = program.lower(variables, function, shapes, 4, optional)
  assert notes == [] and {str(a.shape[0]) for a in exported.in_avals} == {"b"}
  for count in (1, 7):
    x = {m: np.asarray(v) for m, v in toys.batch(2, count).inputs.items()}
    there = np.arange(count, dtype=np.float32) % 2
    bad = {**x, "image": np.where(there[:, None] > 0, x["image"], np.nan)}
    mask = {"present/image": there}
    one, two = (exported.call({**v, **mask})["fused"] for v in (x, bad))
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, two)
    whole = exported.call({**x, "present/image": np.ones(count, np.float32)})
    same = (np.asarray(whole["fused"]) == one).all(axis=1)
    np.testing.assert_array_equal(same, there > 0)


ALONE = """
import json, sys
sys.modules.update(dict.fromkeys(("dmg_jax", "data_pipelines", "flax")))
import jax, jax.export, numpy as np
folder = sys.argv[1]
with open(folder + "/predictor.json", encoding="utf-8") as file:
  facts = json.load(file)
with open(folder + "/predictor.jaxexport", "rb") as file:
  exported = jax.export.deserialize(bytearray(file.read()))
with np.load(folder + "/inputs.npz", allow_pickle=False) as file:
  inputs = dict(file)
for m, facts in facts["modalities"].items():
  assert inputs[m].dtype == facts["dtype"], m
  assert list(inputs[m].shape[1:]) == facts["shape"], m
np.savez(folder + "/outputs.npz", **exported.call(inputs))
"""


def test_export_without_this_package(restored, loaded, new, found, tmp_path):
  """What deserialises it knows jax alone; so does Python's ``load``."""
  pytest.importorskip("flatbuffers")
  said = export.predictor(tmp_path, *restored)
  assert said[0].startswith("written: ") and len(said) == 1
  np.savez(tmp_path / "inputs.npz", **inputs_of(new[1], loaded, new[0].parent))
  subprocess.run(
    [sys.executable, "-c", ALONE, str(tmp_path)], check=True, cwd=tmp_path
  )
  with np.load(tmp_path / "outputs.npz", allow_pickle=False) as file:
    outputs = dict(file)
  assert set(outputs) == set(HEADS)
  for h, p in found.probabilities.items():
    np.testing.assert_allclose(outputs[h], p, rtol=1e-5, atol=1e-6)
  facts = json.loads((tmp_path / program.FACTS).read_text(encoding="utf-8"))
  assert facts["classes"] == list(helpers.CLASSES) and facts["batch"] == "b"
  assert "big" in facts["modalities"]["caption"]["preprocessing"]["words"]
  again = dmg_jax.load(tmp_path)
  one = again.predict({
    "photo": [new[0].parent / new[1][0]["photo:image"]],
    "caption": [new[1][0]["caption:text"]],
    "sensor": [new[0].parent / new[1][0]["sensor:array"]],
  })  # fmt: skip
  np.testing.assert_allclose(
    one.probabilities["fused"], found.probabilities["fused"][:1], rtol=1e-5
  )
  (tmp_path / program.PROGRAM).write_bytes(b"damaged")
  with pytest.raises(ValueError, match="write it again"):
    dmg_jax.load(tmp_path)


def test_export_says_what_is_missing(restored, monkeypatch, tmp_path):
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  (said,) = export.predictor(tmp_path, *restored)
  assert "not written" in said and "pip install flatbuffers" in said
