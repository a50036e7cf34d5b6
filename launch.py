"""The command line: see ``--help`` or ``dmg_jax/cli/main.py``."""

from dmg_jax.cli.main import entry

if __name__ == "__main__":
  entry()
