"""Real processes on this machine that make one run together."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import launch

ROOT = Path(launch.__file__).parent
TIMEOUT = 600  # Seconds; none should come near it.
# Processes of all tests share what they compile; it goes at the end.
_COMPILED = tempfile.TemporaryDirectory(prefix="dmg_jax_compiled_")


def free_port():
  """A port that nobody listens at now."""
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def environment(devices=1):
  """That of a process with so many CPU devices, all its own."""
  support = str(ROOT / "tests" / "support")
  return {
    **os.environ,
    "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    "PYTHONPATH": os.pathsep.join([str(ROOT), support]),
    "JAX_ENABLE_COMPILATION_CACHE": "true",
    "JAX_COMPILATION_CACHE_DIR": _COMPILED.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }


class Group:
  """Processes that were started together.

  Args:
    commands: words of each.
    folder: for what they print.
    variables: of each process's environment, besides the usual ones.
  """

  def __init__(self, commands, folder, devices=1, variables=None):
    folder.mkdir(parents=True, exist_ok=True)
    self.files = [folder / f"{i}.txt" for i in range(len(commands))]
    self.processes = []
    for i, (words, file) in enumerate(zip(commands, self.files, strict=True)):
      own = variables[i] if variables else {}
      with file.open("wb") as output:
        self.processes.append(
          subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            env={**environment(devices), **own},
            stdout=output,
            stderr=subprocess.STDOUT,
          )
        )

  def wait(self):
    """Exit codes of all; none outlives this call."""
    try:
      return [p.wait(TIMEOUT) for p in self.processes]
    finally:
      self.kill()

  def kill(self):
    """Ends those that still run."""
    for process in self.processes:
      process.kill()
      process.wait()

  def texts(self):
    """What each has printed so far."""
    return [f.read_text(encoding="utf-8") for f in self.files]


def launched(count, folder, *words, devices=1):
  """``launch.py`` with the flags of ``count`` processes; not waited for."""
  address = f"127.0.0.1:{free_port()}"
  flags = [
    [
      f"--coordinator_address={address}",
      f"--process_count={count}",
      f"--process_index={i}",
    ]
    for i in range(count)
  ]
  several = [["launch.py", *words, *f] for f in flags]
  commands = several if count > 1 else [["launch.py", *words]]
  return Group(commands, folder, devices)


def until(condition, seconds=TIMEOUT):
  """Waits until a condition holds."""
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end, "waited too long"
    time.sleep(0.05)


def fields(manifest, workdir):
  """Arguments for a manifest's run."""
  return [
    f"--config.data.manifest={manifest}",
    f"--config.data.dir={manifest.parent / 'data'}",
    f"--workdir={workdir}",
  ]
