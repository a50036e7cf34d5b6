"""Encoders: inputs of one modality to features [b d]; one file a family."""
