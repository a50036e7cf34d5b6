"""What a trained run is good for: predictions, a Python object, a program."""
