"""Files of a trained run for others: encoders' weights."""

from __future__ import annotations

from pathlib import Path

from dmg_jax import assemble, build, classifier
from dmg_jax.encoders import pretrained
from dmg_jax.encoders.pretrained import Pretrained
from dmg_jax.types import TrainState


def encoders(
  folder: Path, setup: assemble.Setup, state: TrainState
) -> list[str]:
  """Encoders as safetensors in ``folder/<modality>``; a sentence for each."""
  said = []
  for m, options in setup.encoders.items():
    encoder = build.make_encoder(**options)
    if not isinstance(encoder, Pretrained):
      said.append(f"not written: {m} ({options['name']} has no export)")
      continue
    own = classifier.encoder_variables(state.params, state.stats, m)
    pretrained.write(folder / m, encoder, own)
    said.append(f"written: {folder / m}")
  return said
