"""What data sets of pictures with texts share: tweets, Food-101."""
