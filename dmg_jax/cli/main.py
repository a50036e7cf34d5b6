"""Train, evaluate and compare multimodal classifiers under imbalance.

  python launch.py --config=configs/openmoji.py:lb

The word after the colon is a recipe (a row of a table), keys may follow it:
configs/openmoji.py:lb,seed=3,epochs=20. Any field of the config can be set:
--config.optimiser.learning_rate=3e-4. A whole table, recipes × seeds:

  python launch.py --config=configs/tables.py:table1,dataset=openmoji,seeds=3

A figure of the paper, its runs and the drawing:

  python launch.py --config=configs/figures.py:figure1,dataset=openmoji,seeds=3
"""

from __future__ import annotations

import sys

from absl import flags, logging
from ml_collections import config_flags

from dmg_jax.cli import failure
from dmg_jax.cli.flags import Help, UsageError, parse

MODES = (
  "train", "evaluate", "predict", "readouts", "prepare", "report", "export",
)  # fmt: skip

config_flags.DEFINE_config_file(
  "config", None, "FILE.py:RECIPE[,key=value...]", lock_config=True
)
flags.DEFINE_string(
  "workdir",
  None,
  "folder of the run; default runs/<data set>-<recipe> or runs/<table>-<data "
  "set>",
)
flags.DEFINE_enum(
  "mode",
  "train",
  MODES,
  "train (or go on, or show again); evaluate or predict with the best "
  "checkpoint (split: --config.eval.split; new samples: "
  "--config.eval.manifest); readouts: what each modality says, by every "
  "read-out and a linear probe; prepare the data only; report: "
  "draw the pictures again; export: its encoders as safetensors and "
  "the model as a program",
)
flags.DEFINE_bool("quiet", False, "no progress, no tables")
flags.DEFINE_bool("traceback", False, "show where an error comes from")


def main(arguments: list[str]) -> int:
  """Runs the mode; an error of the user's is one line and exit code 1.

  What is wrong with the user's own data has a line each. Anything but a
  ``UserError`` is a bug: its traceback and what to send.
  """
  del arguments
  from dmg_jax.cli import modes  # Late: it loads what trains.

  logging.set_verbosity(logging.ERROR)
  f = flags.FLAGS
  try:
    return modes.run(f.mode, f.config, f.workdir, f.quiet)
  except KeyboardInterrupt:  # Before or after training, which saves and ends.
    sys.stderr.write("interrupted: the same command goes on from here\n")
    return 130
  except Exception as error:
    if f.traceback:
      raise
    sys.stderr.write(failure.text(error))
    return 1


def entry() -> None:
  """Parses flags, then ``main``; a wrong flag is one line, exit code 2."""
  try:
    arguments = parse(sys.argv)
  except Help as text:
    sys.stdout.write(f"{text}\n")
    sys.exit(0)
  except UsageError as error:
    sys.stderr.write(f"error: {error}\n")
    sys.exit(2)
  sys.exit(main(arguments))
