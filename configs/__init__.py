"""What to run: one file per data set, one recipe per row of a table."""
