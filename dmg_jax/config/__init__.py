"""Configs: defaults, recipes, and the string after a config file's colon."""
