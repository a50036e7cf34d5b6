"""Metrics files, the console and experiment trackers."""
