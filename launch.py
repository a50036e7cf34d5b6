"""The command line, see ``dmg_jax/cli/main.py`` or ``--help``."""

from dmg_jax.cli.main import entry

if __name__ == "__main__":
  entry()
