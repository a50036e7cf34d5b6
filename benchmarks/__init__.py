"""Benchmarks of training, hypergradients, data loading and start-up."""
