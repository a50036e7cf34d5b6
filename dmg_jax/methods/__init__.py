"""Training rules; one file each, named as its recipe."""
