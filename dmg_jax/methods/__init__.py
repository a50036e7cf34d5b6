"""Training rules; one file each, named as its recipe."""


class UnsuitableError(ValueError):
  """A method that is not for such data, whatever the rest of the config."""
