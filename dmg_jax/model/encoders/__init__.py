"""Encoders: inputs of one modality to features [b d]; one file per family.

The class attribute ``kinds`` lists the kinds of modalities that an encoder
accepts. ``axes`` is the smallest number of axes of a sample, for encoders whose
kinds do not determine it.
"""
