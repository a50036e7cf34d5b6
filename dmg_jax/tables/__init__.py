"""Grids of runs, rows × seeds, and the tables made of them."""
