"""All that an accelerator is to show, in one command: ``accelerator.sh``."""
