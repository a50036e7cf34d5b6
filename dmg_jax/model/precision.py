"""In what numbers encoders compute, and what they keep for the gradient.

``precision=bf16`` is mixed precision: products and maps of every encoder are
bfloat16 (8 bits of mantissa, the exponents of float32, so no scaling of losses
is needed). Weights, batch statistics, moments of norms, softmax, sums over time
and states of recurrent networks, features, heads, losses, metrics, gradients,
moments of the optimiser and hypergradients are float32.

An encoder's own option ``dtype`` comes first, so that one encoder can differ
from the others; empty, as it is by default, it follows ``precision``. The same
holds for ``remat``: the run's is for all encoders that can, an encoder's own
for that one. Modules of the user's own know neither.

Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018; Chen, Xu,
Zhang and Guestrin, "Training Deep Nets with Sublinear Memory Cost", 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# {value of the config: dtype of an encoder}
PRECISIONS = {"float32": "float32", "bf16": "bfloat16"}
FIELD = "precision"


def dtype(own: str, precision: str) -> str:
  """Of an encoder's computation: its own, else that of the run."""
  return own or PRECISIONS.get(precision, precision)


def chosen(
  options: Mapping[str, Any], precision: str, remat: bool
) -> dict[str, Any]:
  """An encoder's options with those of the run filled in.

  Args:
    options: of the encoder; what has neither ``dtype`` nor ``remat`` is left.
    precision, remat: of the run.
  """
  made = dict(options)
  if "dtype" in made:
    made["dtype"] = dtype(made["dtype"], precision)
  if "remat" in made:
    made["remat"] = bool(remat or made["remat"])
  return made


def filled(encoder: Mapping[str, Any]) -> dict[str, Any]:
  """``encoder``, the default options of one, with its dtype left to the run."""
  return {**encoder, "dtype": ""} if "dtype" in encoder else dict(encoder)
