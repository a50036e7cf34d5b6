"""``--mode=readouts`` on a run's folder."""

import json

import pytest

import helpers
from dmg_jax.evaluation import metrics as evaluate
from dmg_jax.evaluation import readouts
from dmg_jax.report.tables import readouts as shown
from dmg_jax.training import restore
from fake_runs import metrics


@pytest.fixture(scope="module")
def folder(quick, tiny, tmp_path_factory):
  """A run that stopped at once and counts as finished."""
  del quick
  made = helpers.write_run(tiny("lb"), tmp_path_factory.mktemp("runs") / "run")
  scores = metrics({"fused": 0.5, "image": 0.4, "text": 0.3})
  results = {"recipe": "lb", "dataset": "openmoji", "test": scores}
  (made / "results.json").write_text(json.dumps(results))
  return made


def test_mode(folder, words, command):
  code, out, err = command(
    *words("lb", folder), "--mode=readouts", "--config.loader.resident=off"
  )
  assert (code, err) == (0, "")
  assert "R2 own head" in out and "R3 feature ablation" in out
  assert "chance" in out and "readouts.json" in out
  path = folder / shown.FILE
  found = json.loads(path.read_text())
  assert set(found["scores"]) == {"fused", "image", "text"}
  assert set(found["scores"]["image"]) == set(shown.NAMES)
  assert found["absent"] == {} and found["samples"] == 340
  page = (folder / "report" / "report.html").read_text()
  probe = found["scores"]["text"]["linear_probe"]
  assert f"{100 * probe['accuracy']:.1f} / " in page
  # Words tell categories even where no weight is trained.
  assert probe["accuracy"] > found["chance"]["accuracy"] + 0.05
  # The same figures as the evaluation's, and the same again.
  setup, state = restore.restore(folder, {})
  step = evaluate.make_eval_step(setup.problem, setup.method)
  want = evaluate.evaluate(step, state, setup.batches("test"))
  for head in ("fused", "image", "text"):
    own = found["scores"][head]["own"]
    scores = ("accuracy", "balanced_accuracy", "macro_f1")
    assert own == {k: want[head][k] for k in scores}


def test_test_is_not_read_before_its_time(tmp_path):
  with pytest.raises(ValueError, match="is not finished"):
    next(readouts.of_runs([tmp_path], {}))
  (tmp_path / "results.json").write_text('{"val": {}}')
  with pytest.raises(ValueError, match=r"eval\.test=true"):
    next(readouts.of_runs([tmp_path], {}))
