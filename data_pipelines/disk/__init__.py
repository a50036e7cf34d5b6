"""Folders that are full, gone, shared or damaged.

Here are the one place where an error of writing becomes a line for the user
(``faults``), locks between processes (``locks``) and checksums (``checksums``).
"""
