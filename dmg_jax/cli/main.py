"""Train, evaluate and compare multimodal classifiers under imbalance.

  python launch.py --config=configs/openmoji.py:lb

The word after the colon is a recipe (a row of a table), and keys may follow it:
configs/openmoji.py:lb,seed=3,epochs=20. Any field of the config can be set:
--config.optimiser.learning_rate=3e-4. To run a whole table, recipes × seeds:

  python launch.py --config=configs/tables.py:table1,dataset=openmoji,seeds=3

To run and draw a figure of the paper:

  python launch.py --config=configs/figures.py:figure1,dataset=openmoji,seeds=3
"""

from __future__ import annotations

import sys
from logging import CRITICAL, getLogger

from absl import flags, logging
from ml_collections import config_flags

from dmg_jax.cli import failure, memory
from dmg_jax.cli.flags import Help, UsageError, config_file, parse

MODES = (
  "train", "evaluate", "predict", "readouts", "prepare", "report", "export",
)  # fmt: skip

config_flags.DEFINE_config_file(
  "config", None, "FILE.py:RECIPE[,key=value...]", lock_config=True
)
flags.FLAGS["config"].parser = config_file  # Executes the file once.
flags.DEFINE_string(
  "workdir",
  None,
  "folder of the run; by default runs/<data set>-<recipe> or "
  "runs/<table>-<data set>",
)
flags.DEFINE_enum(
  "mode",
  "train",
  MODES,
  "train: trains, resumes, or shows the results of a finished run. evaluate, "
  "predict: use the best checkpoint (split: --config.eval.split; new samples: "
  "--config.eval.manifest). readouts: the accuracy of each modality by every "
  "read-out and a linear probe. prepare: only prepares the data. report: draws "
  "the report again. export: writes the encoders as safetensors and the model "
  "as a program",
)
flags.DEFINE_bool("quiet", False, "print no progress and no tables")
flags.DEFINE_bool("traceback", False, "show the traceback of an error")
flags.DEFINE_string(
  "compilation_cache",
  "on",
  "compiled programs are kept for the next run in your cache folder (on), not "
  "at all (off), or in a folder of this name",
)
flags.DEFINE_string(
  "coordinator_address",
  None,
  "of several processes that make one run together, each started by the same "
  "command: host and free port of process 0, as 10.0.0.1:1234",
)
flags.DEFINE_integer("process_count", None, "how many processes there are")
flags.DEFINE_integer(
  "process_index", None, "which of them this one is, from 0; 0 writes all files"
)
flags.DEFINE_enum(
  "distributed",
  "off",
  ("auto", "off"),
  "auto: several processes, as the launcher says: torchrun, SLURM inside srun, "
  "Open MPI, Kubernetes, Cloud TPU",
)


def main(arguments: list[str]) -> int:
  """Runs the mode and returns the exit code: 0, or 1 after an error.

  A ``UserError`` is printed as one line, problems with the user's data as one
  line each. Any other error is a bug: its traceback is printed, with what to
  send. 130 is the exit code after Ctrl-C.
  """
  del arguments
  from dmg_jax import processes

  return processes.leave(_run())


def _run() -> int:
  """``main`` without the farewell to the other processes."""
  # Late: it loads the training code.
  from dmg_jax.cli import compiled, modes, several

  f = flags.FLAGS
  # What libraries log of an error, it says itself.
  logging.set_verbosity(logging.ERROR if f.traceback else logging.FATAL)
  if not f.traceback:
    sys.unraisablehook = failure.hook(sys.unraisablehook)
    # Arrays of a checkpoint are written at once; only one of those that fail
    # is waited for, and asyncio logs the others.
    getLogger("asyncio").setLevel(CRITICAL)
  try:
    compiled.keep(f.compilation_cache)
    several.join(f)
    return modes.run(f.mode, f.config, f.workdir, f.quiet)
  # Before or after training, which handles Ctrl-C itself and saves.
  except KeyboardInterrupt:
    sys.stderr.write("interrupted: run the same command again to resume\n")
    return 130
  except Exception as error:
    if f.traceback:
      raise
    sys.stderr.write(several.named(failure.text(error, f.config)))
    return 1


def entry() -> None:
  """Parses the flags and runs ``main``; exits with 2 after a wrong flag."""
  try:
    arguments = parse(sys.argv)
  except Help as text:
    sys.stdout.write(f"{text}\n")
    sys.exit(0)
  except UsageError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)
  memory.keep()
  sys.exit(main(arguments))
