"""What data sets of tweets with pictures share."""
