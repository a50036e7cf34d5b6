"""Multimodal classification under modality imbalance, in JAX and Flax."""

__version__ = "0.1.0"
