"""One of several processes that train recipes one after another.

``several_worker.py ADDRESS COUNT INDEX MANIFEST FOLDER RECIPE...`` trains each
recipe for two epochs, by ``dmg_jax.fit``, into ``FOLDER/RECIPE``. With a COUNT
of 1 it joins nobody.
"""

import sys
from pathlib import Path

import dmg_jax
from dmg_jax import processes

EPOCHS, BATCH = 2, 8


def main(address, count, index, manifest, folder, *recipes):
  """Trains all recipes; a sentence for each that refuses the data."""
  if int(count) > 1:
    processes.join(processes.Position(address, int(count), int(index)))
  for recipe in recipes:
    dmg_jax.fit(
      manifest,
      recipe=recipe,
      workdir=Path(folder) / recipe,
      epochs=EPOCHS,
      batch_size=BATCH,
      config={
        "data.dir": str(Path(manifest).parent / "data"),
        "eval.batch_size": BATCH,
        "train.log_steps": 1,
      },
    ).close()
  return processes.leave(0)


if __name__ == "__main__":
  sys.exit(main(*sys.argv[1:]))
