"""Other projects' code on the tensors of this one, out of a user's checkout."""
