"""Data sets: a raw download is prepared once, prepared data become batches.

Each data set is a folder of ``sets`` with two functions, which
``core.catalog`` finds by its name::

  prepare(data_dir, **options) -> PreparedSummary
  load(data_dir, **options) -> Dataset

``manifest`` does the same for tables of the user's own.
"""
