"""Every block of code that says it can be run is run.

Those are all ``python`` blocks, and ``bash`` blocks with ``title="run"``, of
README and of the site. A page's blocks run top to bottom in one process with
one namespace, in a folder that holds ``configs``, ``launch.py`` and prepared
data. ``title="run slow"``, or ``<!-- blocks: slow -->`` for a whole page, is
for what takes more than some seconds.
"""

import json
import os
import subprocess
import sys

import pytest

import site_pages

# Runs the blocks of a page; a failure names the page and the line.
_RUN = """
import json, subprocess, sys


def main():
  page, given = sys.argv[1], json.load(open(sys.argv[2], encoding="utf-8"))
  names = {"__name__": "page"}
  for line, language, text in given:
    if language == "python":
      code = compile("\\n" * line + text, page, "exec")
      exec(code, names)
    else:
      subprocess.run(["bash", "-euo", "pipefail", "-c", text], check=True)


if __name__ == "__main__":
  main()
"""


def _slow(page, block):
  return "slow" in block.title or "<!-- blocks: slow -->" in page.read_text()


def _cases():
  for page in site_pages.PAGES:
    found = site_pages.runnable(page)
    name = page.relative_to(site_pages.ROOT).as_posix()
    quick = [b for b in found if not _slow(page, b)]
    if quick:
      yield pytest.param(page, quick, id=name)
    if len(quick) < len(found):
      mark = pytest.mark.slow
      yield pytest.param(page, found, id=f"{name}-slow", marks=mark)


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
  """Where pages that train the same network find its compiled programs."""
  return tmp_path_factory.mktemp("compiled")


@pytest.mark.parametrize(("page", "found"), _cases())
def test_blocks_run(page, found, data_dir, compiled, tmp_path):
  if any("torch" in b.text for b in found):
    pytest.importorskip("torch")  # Of the extra parity.
  place = tmp_path / "work"
  place.mkdir()
  for name in ("configs", "launch.py"):
    (place / name).symlink_to(site_pages.ROOT / name)
  (place / "data").mkdir()
  for folder in data_dir.iterdir():
    (place / "data" / folder.name).symlink_to(folder)
  script, given = tmp_path / "run.py", tmp_path / "blocks.json"
  script.write_text(_RUN, "utf-8")
  given.write_text(json.dumps([[b.line, b.language, b.text] for b in found]))
  run = subprocess.run(
    [sys.executable, str(script), page.name, str(given)],
    cwd=place,
    env=environment(compiled),
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert run.returncode == 0, (run.stdout + run.stderr)[-4000:]


def environment(compiled):
  """As a user has it, but for programs that are compiled quickly, or once."""
  return {
    **os.environ,
    "PYTHONPATH": str(site_pages.ROOT),
    "JAX_PLATFORMS": "cpu",
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": str(compiled),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    "MPLBACKEND": "agg",
  }


def test_the_convention_finds_blocks():
  found = {p.name: site_pages.runnable(p) for p in site_pages.PAGES}
  assert len(found["README.md"]) == 1 and len(found["own_data.md"]) >= 5
  assert any(b.language == "bash" for b in found["own_data.md"])


def test_what_cannot_run_is_not_fenced_as_if_it_could():
  known = {"", "python", "bash", "sh", "text"}
  for page in site_pages.PAGES:
    for block in site_pages.blocks(page):
      assert block.language in known, (page, block.line)
      if block.language == "bash":
        assert block.title.startswith("run"), (page, block.line)


@pytest.mark.slow
def test_first_command_of_readme(data_dir, compiled, tmp_path):
  """Installing is what the environment of the tests has done."""
  text = (site_pages.ROOT / "README.md").read_text("utf-8")
  first = "pip install -e '.[demo]' && python launch.py "
  assert f"```\n{first}--config=configs/openmoji.py:lb\n```" in text
  (tmp_path / "data").symlink_to(data_dir)
  (tmp_path / "configs").symlink_to(site_pages.ROOT / "configs")
  command = [sys.executable, str(site_pages.ROOT / "launch.py")]
  command.append("--config=configs/openmoji.py:lb")
  run = {"cwd": tmp_path, "env": environment(compiled), "check": True}
  subprocess.run(command, **run)
  assert (tmp_path / "runs/openmoji-lb/report/report.html").is_file()
