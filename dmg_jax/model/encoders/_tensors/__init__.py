"""Conversion of weights and config.json from and to other libraries."""
