"""Batches: shuffling, padding, augmentation, prefetching."""
