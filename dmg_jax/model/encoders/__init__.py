"""Encoders: inputs of one modality to features [b d]; one file a family.

``kinds`` of a class are the kinds of modalities that it reads, ``axes`` the
fewest axes of a sample, where that is not said by the kind.
"""
