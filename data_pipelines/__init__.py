"""Data sets: a raw download becomes records once, records become batches.

Each data set is one module here with ``prepare(data_dir, **options) -> Report``
and ``load(data_dir, **options) -> Dataset``, found by name by
``catalog.dataset``.
"""
