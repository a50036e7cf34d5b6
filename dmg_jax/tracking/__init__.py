"""Tracking: metrics files, the console, experiment trackers."""
