"""Evaluation: metrics of a split, read-outs, probes, statistics over seeds."""
