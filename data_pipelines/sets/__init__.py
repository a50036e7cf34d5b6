"""Data sets: a folder each, with ``prepare`` and ``load``."""
