"""Fusions: from features of all modalities to fused and unimodal logits."""
