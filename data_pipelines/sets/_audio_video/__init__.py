"""What data sets of sound and video share."""
