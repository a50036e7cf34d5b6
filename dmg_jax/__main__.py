"""``python -m dmg_jax`` does what ``python launch.py`` does."""

from dmg_jax.cli.main import entry

if __name__ == "__main__":
  entry()
