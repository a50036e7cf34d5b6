"""Public data sets from the command line: raw tree, training, report."""

import json

import opinion_files
import pytest

import tweets

pytestmark = pytest.mark.slow


def food101(folder):
  """A release of three dishes."""
  rows = {"train": [], "test": []}
  for dish in ("apple_pie", "hot_dog", "pho"):
    for i in range(100):
      part = "test" if i > 79 else "train"
      name = f"{dish}_{i}.jpg"
      tweets.draw(folder / "images" / part / dish / name, 2 * i)
      rows[part].append(f'{name},"{dish}, number {i}",{dish}\n')
  (folder / "texts").mkdir()
  for part, lines in rows.items():
    (folder / "texts" / f"{part}_titles.csv").write_text("".join(lines))
  return ["--config.data.image_size=16", "--config.data.workers=0"]


def mosi(folder):
  """A pickle of MMSA, and 200 samples of it: words, and any length."""
  sizes = {"train": 120, "valid": 40, "test": 40}
  content = opinion_files.mmsa(aligned=False, sizes=sizes)
  opinion_files.write(folder / "Processed" / "unaligned_50.pkl", content)
  return ["--config.data.form=unaligned", "--config.data.text=raw"]


def mosei(folder):
  """A pickle of MulT, with -inf in its sound."""
  sizes = {"train": 120, "valid": 40, "test": 40}
  content = opinion_files.mult(sizes=sizes)
  opinion_files.write(folder / "mosei_senti_data.pkl", content, 2)
  return ["--config.data.labels=sign"]


@pytest.mark.parametrize("write", [food101, mosi, mosei])
def test_from_the_command_to_the_report(write, command, tmp_path):
  name, (raw, workdir) = write.__name__, (tmp_path / "raw", tmp_path / "run")
  raw.mkdir()
  more = write(raw)
  given = [
    f"--config=configs/{name}.py:joint,quick=true,batch_size=32",
    f"--config.data.raw={raw}", f"--config.data.dir={tmp_path / 'data'}",
    "--config.train.epochs=1", f"--workdir={workdir}", *more,
  ]  # fmt: skip
  code, out, err = command(*given, "--mode=prepare")
  assert code in (0, None), err
  assert "instead of" in out  # fewer than the official numbers
  code, out, err = command(*given)
  assert code in (0, None), err
  results = json.loads((workdir / "results.json").read_text())
  assert results["dataset"] == name
  assert results["test"]["fused"]["accuracy"] >= 0
  assert (workdir / "report" / "report.html").is_file()
