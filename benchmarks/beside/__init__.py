"""Training steps and loaders beside PyTorch's, in turns, a process each."""
