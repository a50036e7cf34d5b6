"""Files, texts and arrays to numbers; each function is pure."""
