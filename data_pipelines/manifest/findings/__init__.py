"""What the checks of cells find: notes, and faults of a whole column."""
