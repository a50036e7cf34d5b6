"""The Python interface; its public names are those of ``dmg_jax.__all__``."""
