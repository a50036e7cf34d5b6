"""What stands in for the samples of a run."""
