"""Peaks of accelerators, by the name that JAX gives the device.

Dense TFLOP/s of the data sheets, without sparsity: bfloat16 with float32 sums,
and TF32, which JAX multiplies float32 in unless it is told otherwise.
"""

from __future__ import annotations

# {part of the device's name: (bfloat16, TF32)}; the longest that fits counts.
PEAKS = {
  "A100": (312.0, 156.0),
  "A30": (165.0, 82.0),
  "A40": (149.7, 74.8),
  "H100": (989.4, 494.7),
  "H100 PCIe": (756.0, 378.0),
  "H100 NVL": (835.0, 417.5),
  "H200": (989.4, 494.7),
  "GH200": (989.4, 494.7),
  "L4": (121.0, 60.0),
  "L40": (181.0, 90.5),
  "L40S": (362.0, 183.0),
}


def peak(kind: str, precision: str, given: float | None) -> float | None:
  """TFLOP/s of a device in a precision; ``None`` if nobody knows.

  Args:
    kind: ``jax.Device.device_kind``.
    precision: ``bf16`` or ``float32``.
    given: of bfloat16, from the command line; TF32 is taken as half of it.
  """
  column = 0 if precision == "bf16" else 1
  if given is not None:
    return (given, given / 2)[column]
  words = kind.split()
  fits = [name for name in PEAKS if _begins(words, name.split())]
  return PEAKS[max(fits, key=len)][column] if fits else None


def _begins(words: list[str], name: list[str]) -> bool:
  """Whether a name's words are among them, in a row; A100-SXM4 is A100."""
  for i in range(len(words) - len(name) + 1):
    found = [w.partition("-")[0] for w in words[i : i + len(name)]]
    if found == name:
      return True
  return False
