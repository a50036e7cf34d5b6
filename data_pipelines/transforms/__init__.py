"""Pure functions from files, texts and arrays to numbers."""
