"""Costs of training, hypergradients, input and start-up, as ratios."""
