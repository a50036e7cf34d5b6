"""Predictions for sequences of any length, and the exported program."""

import json

import flax.linen as nn
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import dmg_jax
import helpers
from configs import manifest
from data_pipelines import core
from dmg_jax.model.encoders import small
from dmg_jax.serving import program

LENGTHS = [1, 30, 7, 4, 200, 13, 2, 9, 32]
WORDS = ["an ant", "a bee", "", "cat", "ant bee", "a", "the cat", "bee", "x"]
KINDS = ("caption:text", "sensor:array")


class Steps(nn.Module):
  """The mean over steps, the last one added; ``whole`` needs a known length."""

  whole: bool = False

  @nn.compact
  def __call__(self, x, train: bool):
    values, mask = x["values"], x["mask"]
    if self.whole:
      mask = mask * jnp.ones((1, int(mask.shape[1])), mask.dtype)
    z = nn.relu(nn.Dense(8)(values)) * mask[..., None]
    count = jnp.maximum(mask.sum(axis=1), 1)
    last = jnp.take_along_axis(
      z, (count.astype(int) - 1)[:, None, None], axis=1
    )
    return z.sum(axis=1) / count[:, None] + last[:, 0]


def sequences(lengths, seed=0):
  rng = np.random.default_rng(seed)
  return [rng.normal(5, 2, (t, 3)).astype(np.float32) for t in lengths]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
  """{missing or not: table}."""
  folder = tmp_path_factory.mktemp("steps")
  whole = helpers.write_manifest(folder, 48, KINDS, name="whole.csv")
  rows = helpers.read_table(whole)
  made = sequences([2 + (7 * i * i) % 40 for i in range(len(rows))])
  for row, x in zip(rows, made, strict=True):
    np.save(folder / row["sensor:array"], x)
  for i in (1, 3, 6):
    rows[i]["sensor:array"] = ""
  rows[2]["caption:text"] = ""
  return {
    "refuse": whole,
    "allow": helpers.write_table(folder / "lacking.csv", rows),
  }


def folder_of(tables, folder, missing, encoder):
  config = manifest.get_config("multitask")
  config.update_from_flattened_dict({
    "data.manifest": str(tables[missing]),
    "data.missing": missing,
    "data.dir": str(folder / "data"),
    "encoders.text.features": 8,
    "encoders.text.width": 8,
    "eval.batch_size": 8,
  })  # fmt: skip
  return helpers.write_run(config, folder / "run", {"sensor": encoder})


@pytest.fixture(scope="module", params=["refuse", "allow"])
def missing(request):
  return request.param


@pytest.fixture(scope="module")
def run(missing, tables, quick, tmp_path_factory):
  del quick
  made = tmp_path_factory.mktemp(missing)
  folder = folder_of(tables, made, missing, Steps())
  return dmg_jax.load(folder, encoders={"sensor": Steps()})


@pytest.fixture(scope="module")
def new(missing):
  """Samples of any length, more than a batch of them."""
  x = {"sensor": sequences(LENGTHS, 1), "caption": list(WORDS)}
  x["caption"][2] = "" if missing == "allow" else "bee"
  x["sensor"][5] = None if missing == "allow" else x["sensor"][5]
  return x


@pytest.fixture(scope="module")
def found(run, new):
  return run.predict(new)


def same(one, other):
  assert one.missing == other.missing
  for h, p in one.probabilities.items():
    np.testing.assert_allclose(p, other.probabilities[h], atol=1e-6)


def test_padding_and_neighbours_have_no_influence(run, new, found, missing):
  for i, (sequence, words) in enumerate(zip(*new.values(), strict=True)):
    alone = run.predict({"sensor": [sequence], "caption": [words]})
    for h, p in alone.probabilities.items():
      np.testing.assert_allclose(p[0], found.probabilities[h][i], atol=1e-6)
  assert (found.missing is None) == (missing == "refuse")
  # Lengths tell: the mean is over the steps of the sample.
  assert np.nanstd(found.probabilities["sensor"], axis=0).max() > 1e-3


def test_a_table_of_several_lengths(run, new, found, tmp_path):
  rows = [
    {"caption:text": words, "sensor:array": "" if x is None else f"{i}.npy"}
    for i, (x, words) in enumerate(zip(*new.values(), strict=True))
  ]
  for i, x in enumerate(new["sensor"]):
    if x is not None:
      np.save(tmp_path / f"{i}.npy", x)
  same(run.predict(helpers.write_table(tmp_path / "new.csv", rows)), found)


def test_as_evaluation(run, tables, missing):
  rows = helpers.read_table(tables[missing])
  rows = [{c: r[c] for c in KINDS} for r in rows if r["split"] == "test"]
  path = helpers.write_table(tables[missing].with_name("test.csv"), rows)
  same(run.predict(split="test"), run.predict(path))


@pytest.mark.parametrize(
  "x, said",
  [
    (np.zeros((4, 2)), r"shape \(4, 2\).*3 numbers a step"),
    (np.zeros((0, 3)), "empty"),
    (np.zeros(3), r"sequences \[t d\]"),
  ],
)
def test_what_is_no_sequence(x, said, run):
  with pytest.raises(core.DataError, match=said):
    run.predict({"sensor": [np.zeros((2, 3)), x], "caption": ["a", "b"]})


def test_an_export_takes_any_length(run, new, found, missing, tmp_path):
  said = run.export(tmp_path)
  assert not [s for s in said if s.startswith("predictor:")]
  facts = json.loads((tmp_path / program.FACTS).read_text(encoding="utf-8"))
  about = facts["modalities"]["sensor"]
  assert about["steps"] == {"multiple_of": 8, "at_least": 64}
  assert facts["batch"] == "b"
  assert "steps" not in facts["modalities"]["caption"]
  assert ("present" in facts) == (missing == "allow")
  served = dmg_jax.load(tmp_path)
  for count in (1, 7, len(LENGTHS)):
    made = served.predict({m: x[:count] for m, x in new.items()})
    for h, p in made.probabilities.items():
      np.testing.assert_allclose(p, found.probabilities[h][:count], atol=1e-6)


@pytest.mark.parametrize("name", ["GRU", "Transformer"])
def test_our_encoders_are_exported_for_any_length(
  name, tables, quick, tmp_path
):
  del quick
  new = {"sensor": [*sequences(LENGTHS, 1)], "caption": list(WORDS)}
  new["sensor"][5] = None
  folder = folder_of(tables, tmp_path, "allow", getattr(small, name)(width=8))
  encoders = {"sensor": getattr(small, name)(width=8)}
  run = dmg_jax.load(folder, encoders=encoders)
  said = run.export(tmp_path / "served")
  assert not [s for s in said if s.startswith("predictor:")]
  served = dmg_jax.load(tmp_path / "served")
  same(served.predict(new), run.predict(new))


def test_a_program_by_itself(run, new, found, missing, tmp_path):
  """Garbage behind the end of a sequence changes no bit."""
  run.export(tmp_path)
  code = bytearray((tmp_path / program.PROGRAM).read_bytes())
  alone = jax.export.deserialize(code)
  given = {m: p(new[m][0]) for m, p in run.preprocessors.items()}
  values = np.zeros((1, 64, 3), np.float32)
  values[0, : LENGTHS[0]] = given["sensor"]
  mask = (np.arange(64) < LENGTHS[0])[None].astype(np.float32)
  x = {"caption": given["caption"][None]}
  if missing == "allow":
    one = np.ones(1, np.float32)
    x |= {"present/caption": one, "present/sensor": one}
  made = alone.call({**x, "sensor": {"values": values, "mask": mask}})
  values[0, LENGTHS[0] :] = 1e9
  again = alone.call({**x, "sensor": {"values": values, "mask": mask}})
  for h, p in made.items():
    np.testing.assert_allclose(p, found.probabilities[h][:1], atol=1e-6)
    np.testing.assert_array_equal(p, again[h])


def test_a_length_that_must_be_known(tables, quick, tmp_path):
  """Then it is that of the largest bucket, and a note says so."""
  del quick
  new = {"sensor": sequences(LENGTHS, 1), "caption": ["a bee"] * len(LENGTHS)}
  encoder = {"sensor": Steps(whole=True)}
  folder = folder_of(tables, tmp_path, "refuse", encoder["sensor"])
  run = dmg_jax.load(folder, encoders=encoder)
  expected = run.predict(new)
  said = run.export(tmp_path / "served")
  note = "predictor: not for b = b, T = 8*t_sensor of sensor on cpu, cuda: "
  assert any(s.startswith(note) for s in said)
  text = (tmp_path / "served" / program.FACTS).read_text(encoding="utf-8")
  facts = json.loads(text)
  assert facts["batch"] == "b"
  assert facts["modalities"]["sensor"]["steps"] == 40
  served = dmg_jax.load(tmp_path / "served")
  with pytest.raises(core.DataError, match=r"row 5.*200 steps.*at most 40"):
    served.predict(new)
  short = [i for i, n in enumerate(LENGTHS) if n <= 40]
  made = served.predict({m: [x[i] for i in short] for m, x in new.items()})
  for h, p in made.probabilities.items():
    np.testing.assert_allclose(p, expected.probabilities[h][short], atol=1e-6)
