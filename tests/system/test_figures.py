"""Figures from the command line, and checkpoints that stay."""

import csv
import types

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

from dmg_jax.config.rows.figures import FIGURES
from dmg_jax.evaluation import selection
from dmg_jax.training import restore
from dmg_jax.training.checkpoint import Checkpoints
from dmg_jax.types import TrainState

FIGURE = "--config=configs/figures.py:"
ONE, FOUR = "figure1,dataset=openmoji", "figure4,dataset=openmoji"

# Figure, flag, exit code, and what the line must say.
WRONG = [
  ("", "", 2, "no figure", "figure4"),
  ("figure9,dataset=openmoji", "", 2, "'figure9'", "figure1"),
  ("figure1", "", 2, "no data set", "openmoji"),
  ("figure1,dataset=openmojii", "", 2, "'openmojii'", "'openmoji'"),
  (f"{ONE},rows=joint", "", 2, "'rows'", "weights"),
  (f"{ONE},weights=0+2", "", 2, "[0, 1]", "'0+2'"),
  (f"{ONE},weights=a", "", 2, "[0, 1]", "'a'"),
  ("figure2,dataset=openmoji,rows=joint+bl", "", 2, "'bl'", "'lb'"),
  ("figure2,dataset=openmoji,rows=unimodal", "", 2, "unimodal_image", "no gap"),
  ("figure3,datasets=openmoji+openmoji", "", 2, "twice"),
  ("figure3,dataset=openmoji,datasets=crema_d", "", 2, "not both"),
  ("figure3,datasets=openmoji,rows=joint", "", 2, "α 'joint'", "lb_forward"),
  (ONE, "--config.figure.name=figure2", 2, "figure.name", "colon"),
  (ONE, "--config.figure.samples=a", 2, "figure.samples"),
  (ONE, "--config.trian.epochs=3", 2, "'train.epochs'"),
  (ONE, "--mode=predict", 1, "predict", "one run", "figure"),
  (ONE, "--config.train.keep=(0,)", 1, "train.keep", "from 1 on"),
  (FOUR, "--config.figure.samples=1F600x", 1, "sample '1F600x'", "test sample"),
  (FOUR, "--config.figure.target=labl", 1, "'label'", "predicted"),
  (FOUR, "--config.figure.epochs=(1,99)", 1, "figure.epochs", "[1, 30]"),
]


@pytest.mark.parametrize(
  "figure,word,code,parts", [(*w[:3], w[3:]) for w in WRONG]
)
def test_what_is_wrong_is_one_line(
  command, data_dir, tmp_path, figure, word, code, parts
):
  work = tmp_path / "work"
  given = [FIGURE + figure, f"--workdir={work}", *([word] if word else [])]
  if figure in (ONE, FOUR):
    given += [f"--config.data.dir={data_dir}"]
  found, out, err = command(*given)
  assert (found, out) == (code, "") and err.count("\n") == 1, err
  assert err.startswith("error: ") and len(err) < 1200
  for part in parts:
    assert part in err, err
  assert not work.exists()


def test_help_lists_figures(command):
  code, out, _ = command("--help")
  assert code == 0
  for name in FIGURES:
    assert f"  {name} " in out


def test_report_of_nothing(command, tmp_path, data_dir):
  code, out, _ = command(
    FIGURE + ONE,
    "--mode=report",
    f"--workdir={tmp_path}/work",
    f"--config.data.dir={data_dir}",
  )
  assert code == 0 and "nothing to draw" in out
  assert not (tmp_path / "work").exists()


def state_at(step):
  return TrainState(jnp.int32(step), {"w": jnp.full(2, 1.0 * step)}, {}, (), ())


@pytest.mark.parametrize("score", ["accuracy", "macro_f1"])
def test_checkpoints_that_are_kept(tmp_path, score):
  """The last, the best and those of ``keep``, also after a restart."""
  keep = [1, 4]
  for steps in (range(1, 4), range(4, 7)):
    checkpoints = Checkpoints(tmp_path, latest=1, keep=keep, score=score)
    for step in steps:
      value = 1.0 if step == 3 else 0.5
      checkpoints.save(state_at(step), {selection.key(score): value})
    checkpoints.close()
  checkpoints = Checkpoints(tmp_path, score=score)
  assert checkpoints.steps() == [1, 3, 4, 6]
  assert (checkpoints.best(), checkpoints.last()) == (3, 6)
  assert checkpoints.restore(4, state_at(0)).params["w"][0] == 4.0
  checkpoints.close()
  loader = types.SimpleNamespace(steps_per_epoch=2)
  config = types.SimpleNamespace(train=types.SimpleNamespace(select_by=score))
  setup = types.SimpleNamespace(
    batch_size=8, loader=lambda *_, **__: loader, fresh=lambda: state_at(0),
    config=config,
  )  # fmt: skip
  # Without the check of types, which a setup that is none would not pass.
  read = getattr(restore.at_epochs, "__wrapped__", restore.at_epochs)
  assert [int(s.step) for s in read(tmp_path, setup, (2, 3))] == [4, 6]
  with pytest.raises(ValueError, match=r"of epoch 1 \(there are .* 2, 3\)"):
    list(read(tmp_path, setup, (1,)))


def words(figure, workdir, data_dir, *more):
  """A figure of short runs."""
  return [
    f"{FIGURE}{figure}",
    f"--workdir={workdir}",
    f"--config.data.dir={data_dir}",
    "--config.data.image_size=8",
    "--config.encoders.image.widths=(8,)",
    "--config.encoders.text.width=8",
    *more,
  ]


def read(path):
  with path.open(encoding="utf-8") as file:
    return list(csv.DictReader(file))


def check_picture(path, widest):
  """Not wider than asked for, neither blank nor full."""
  image = imread(path)
  assert image.shape[1] <= widest * 300 + 1
  assert 0.005 < (image[..., :3].min(axis=-1) < 0.9).mean() < 0.95
  assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_figure1_end_to_end(command, data_dir, tmp_path):
  keys = "figure1,dataset=openmoji,weights=0+0.5,seeds=2,epochs=2"
  code, out, err = command(*words(keys, tmp_path / "work", data_dir))
  assert code == 0, out + err
  lines = read(tmp_path / "work" / "figure1.csv")
  assert [line["weight"] for line in lines] == ["0", "0.5"]
  for line in lines:
    assert line["seeds"] == "2" and 0 < float(line["fused mean"]) < 100
  check_picture(tmp_path / "work" / "figure1.png", 3.3)


@pytest.mark.slow
def test_figure4_end_to_end(command, data_dir, tmp_path):
  keys, work = "figure4,dataset=openmoji,rows=joint+h,epochs=2", tmp_path / "w"
  code, out, err = command(*words(keys, work, data_dir))
  assert code == 0, out + err
  assert "text is left out: text has no height and width" in out
  per_epoch = min(
    int(p.name) for p in (work / "h/seed_0/checkpoints").iterdir()
  )
  for row in ("joint", "h"):
    kept = (work / row / "seed_0/checkpoints").iterdir()
    assert {int(p.name) for p in kept} == {per_epoch, 2 * per_epoch}
  with np.load(work / "figure4.npz", allow_pickle=False) as file:
    assert file["joint/image"].shape == (2, 3, 4, 4)
    assert file["h/image"].max() > 0
    assert file["epochs"].tolist() == [1, 2]
    ids = [str(x) for x in file["samples"]]
  lines = read(work / "figure4.csv")
  assert len(lines) == 12 and lines[0]["sample"] == ids[0]
  assert all(x["class"] == x["explained"] for x in lines)
  check_picture(work / "figure4.png", 6.8)
  # Drawn again for another sample, nothing is trained.
  before = (work / "h/seed_0/metrics.jsonl").stat().st_mtime_ns
  more = ("--mode=report", f"--config.figure.samples={ids[2]}")
  assert command(*words(keys, work, data_dir, *more))[0] == 0
  assert {x["sample"] for x in read(work / "figure4.csv")} == {ids[2]}
  assert (work / "h/seed_0/metrics.jsonl").stat().st_mtime_ns == before
  more = ("--mode=report", "--config.figure.target=predicted")
  assert command(*words(keys, work, data_dir, *more))[0] == 0
  lines = read(work / "figure4.csv")
  assert all(x["predicted"] == x["explained"] for x in lines)


@pytest.mark.slow
def test_figure4_of_samples_that_lack_pictures(command, data_dir, tmp_path):
  keys = "figure4,dataset=openmoji,rows=joint,epochs=1,drop=image:0.5"
  code, out, err = command(*words(keys, tmp_path / "w", data_dir))
  assert code == 0, out + err
  with np.load(tmp_path / "w/figure4.npz", allow_pickle=False) as file:
    heat, ids = file["joint/image"][0], [str(x) for x in file["samples"]]
  gone = [f"image is left out of sample {x}" in out for x in ids]
  assert any(gone) and not all(gone) and not heat[gone].any()
  assert check_picture(tmp_path / "w/figure4.png", 6.8) is None
