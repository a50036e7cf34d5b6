"""The model: an encoder per modality and a fusion, found by name."""
