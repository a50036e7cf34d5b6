"""The model: one encoder per modality and a fusion, looked up by name."""
