"""Arrays of NumPy's format, whose headers are not believed.

A header of some bytes can claim any number of numbers, and NumPy allocates what
it claims before it reads. So the claim is compared with what is there first.
"""

from __future__ import annotations

import math
import os
import zipfile
from typing import IO

import numpy as np

from data_pipelines.errors import InputError

MAGIC = b"\x93NUMPY"


def load(path: str | os.PathLike) -> np.ndarray:
  """The array of a ``.npy`` file; objects are refused.

  Raises:
    ValueError: it is none, or its header claims more than the file holds.
    OSError: the file is absent.
  """
  with open(path, "rb") as file:
    check(file, os.fstat(file.fileno()).st_size)
    file.seek(0)
    return np.load(file, allow_pickle=False)


def check_archive(path: str | os.PathLike) -> None:
  """Checks each array of an ``.npz`` file; of other members, nothing.

  Raises:
    ValueError: a header claims more than its member holds; or it is no archive.
    OSError: the file is absent.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      for member in archive.infolist():
        with archive.open(member) as file:
          if member.filename.endswith(".npy"):
            check(file, member.file_size, f"{member.filename}: ")
  except zipfile.BadZipFile as error:
    raise InputError(f"it is no .npz file, or damaged: {error}") from error


def check(file: IO[bytes], size: int, where: str = "") -> None:
  """Reads the header of an array and compares its claim with what is there.

  Args:
    file: at its beginning.
    size: bytes that there are, header included.
    where: what messages begin with.

  Raises:
    ValueError: no header of NumPy, or one that claims more than there is.
  """
  version = np.lib.format.read_magic(file)
  if version == (1, 0):
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
  elif version == (2, 0):
    shape, _, dtype = np.lib.format.read_array_header_2_0(file)
  else:  # Those are for fields with names, and no numbers.
    raise InputError(f"{where}an array of named fields is none of numbers")
  count = math.prod(shape)
  claimed, there = count * dtype.itemsize, size - file.tell()
  if min(shape, default=0) < 0 or (claimed > there and not dtype.hasobject):
    raise InputError(
      f"{where}its header claims {count:,} numbers of {dtype}, "
      f"{claimed:,} bytes, and {max(there, 0):,} bytes are there: it is "
      "damaged or cut off; write it again with numpy.save"
    )
