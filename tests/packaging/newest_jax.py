"""Runs the suite with the newest JAX, on the newest Python that is here.

Without arguments it runs the contracts of all methods, hypergradients, loops
and fits of the API and whole runs of the command, which is what fits CI's
limit. With
arguments of pytest (``-n 2``) it runs everything.

JAX drops old versions of Python, so its newest release needs another Python
than its oldest. It is looked for on PATH and among pyenv's versions.

    python tests/packaging/newest_jax.py [--allow-missing] [pytest's arguments]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
MINORS = range(12, 20)
COMPUTES = (
  "api/test_fit.py", "api/test_loop.py", "bilevel", "contract/test_methods.py",
  "system/test_checkpoint.py", "system/test_run.py",
)  # fmt: skip
ASK = "import sys, ensurepip, venv; print(*sys.version_info[:2])"
VERSIONS = (
  "import sys, jax, jaxlib, flax, optax; from importlib import metadata\n"
  "print('Python', sys.version.split()[0], 'jax', jax.__version__, 'jaxlib', "
  "jaxlib.__version__, 'flax', flax.__version__, 'optax', optax.__version__, "
  "'orbax-checkpoint', metadata.version('orbax-checkpoint'), flush=True)"
)


def candidates():
  """Names and paths that may be a Python."""
  yield from (f"python3.{minor}" for minor in MINORS)
  pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
  yield from map(str, (pyenv / "versions").glob("3.*/bin/python"))
  yield sys.executable


def newest() -> tuple[tuple[int, int], str]:
  """Version and path of the newest Python that can make an environment."""
  found = []
  for name in candidates():
    try:
      told = subprocess.run(
        [name, "-c", ASK], capture_output=True, text=True, check=True
      ).stdout
    except (OSError, subprocess.CalledProcessError):
      continue
    major, minor = map(int, told.split())
    found.append(((major, minor), name))
  return max(found)


def main(arguments: list[str]) -> int:
  """The exit code of pytest; 1 without a newer Python."""
  version, python = newest()
  if version <= sys.version_info[:2]:
    sys.stderr.write(
      f"newest_jax: no Python newer than {version[0]}.{version[1]} was found "
      "on PATH or in pyenv; the suite did not run with the newest JAX. "
      "Install one, or pass --allow-missing.\n"
    )
    return 0 if "--allow-missing" in arguments else 1
  rest = [x for x in arguments if x != "--allow-missing"]
  with tempfile.TemporaryDirectory() as folder:
    subprocess.run([python, "-m", "venv", folder], check=True)
    own = str(Path(folder) / "bin" / "python")
    install = [own, "-m", "pip", "install", "--quiet", "--upgrade"]
    subprocess.run([*install, "pip"], check=True)
    eager = ["--upgrade-strategy", "eager", "jax"]
    subprocess.run([*install, *eager, "-e", ".[test]"], cwd=ROOT, check=True)
    subprocess.run([own, "-c", VERSIONS], check=True)
    chosen = ["-n", "2", *(f"tests/{name}" for name in COMPUTES)]
    pytest = [own, "-m", "pytest", *(rest or chosen)]
    # Parity with torch does not depend on JAX's version, torch is not there.
    pytest.append("--ignore=tests/parity")
    return subprocess.run(pytest, cwd=ROOT).returncode


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
