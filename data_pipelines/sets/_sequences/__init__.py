"""What data sets of feature sequences in pickles share."""
