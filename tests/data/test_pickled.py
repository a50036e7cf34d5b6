"""Pickles: what is admitted is read alike, all else is refused by name."""

import builtins
import io
import os
import pickle
import random

import numpy as np
import opinion_files
import pytest

from data_pipelines.errors import DataError
from data_pipelines.sets._sequences import pickled

RNG = np.random.default_rng(0)
CONTENT = {
  "train": {
    "audio": RNG.normal(size=(5, 4, 3)).astype(np.float32),
    "fortran": np.asfortranarray(RNG.normal(size=(300, 7))),
    "big_endian": np.arange(5, dtype=">i4"),
    "texts": np.array(["ab", "ü€"]),
    "bytes": np.array([b"xy", b"z"]),
    "objects": np.array(["q", [1, 2.5], None, np.arange(3)], dtype=object),
    "empty": np.empty((0, 3)),
    "flags": np.array([True, False]),
    "half": np.arange(3, dtype=np.float16),
  },
  "scalars": [np.float32(3.5), np.int64(-4), np.bool_(True), np.str_("hey")],
  "numbers": [1, -5, 2**40, -(2**70), True, False, None, 3.5, 0],
  "containers": ({"a": {1, 2}, 3: frozenset([4])}, [], (), {}, (1, 2, 3, 4)),
  "words": ["", "x" * 3000, "ü€", b"", b"bytes", b"q" * 5000],
}
CONTENT["twice"] = [CONTENT["numbers"], CONTENT["numbers"]]


def same(a, b):
  assert type(a) is type(b)
  if isinstance(a, np.ndarray):
    # NumPy brings what it reads to the order of the machine.
    assert a.dtype.newbyteorder("=") == b.dtype.newbyteorder("=")
    assert a.shape == b.shape
    if a.dtype != object:
      np.testing.assert_array_equal(a, b)
    else:
      for x, y in zip(a.flat, b.flat, strict=True):
        same(x, y)
  elif isinstance(a, dict):
    assert list(a) == list(b)
    for key in a:
      same(a[key], b[key])
  elif isinstance(a, list | tuple):
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
      same(x, y)
  else:
    assert a == b


def read(tmp_path, data):
  (tmp_path / "a.pkl").write_bytes(data)
  return pickled.read(tmp_path / "a.pkl")


@pytest.mark.parametrize("protocol", range(6))
def test_like_the_unrestricted_one(protocol, tmp_path):
  data = pickle.dumps(CONTENT, protocol)
  found, want = read(tmp_path, data), pickle.loads(data)
  want["scalars"] = [x.item() for x in want["scalars"]]
  same(found, want)
  assert found["twice"][0] is found["twice"][1]


@pytest.mark.parametrize("protocol", range(4))
def test_names_of_older_numpy(protocol, tmp_path):
  data = pickle.dumps(CONTENT["train"], protocol)
  old = data.replace(b"numpy._core.", b"numpy.core.")
  same(read(tmp_path, old), CONTENT["train"])


def test_strings_of_python_2(tmp_path):
  """Bytes of arrays and texts are one type there, in Latin-1 here."""
  array = np.arange(600, dtype="<f4")
  head = (
    b"\x80\x02}q\x00(U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\n"
    b"cnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01M\x58\x02\x85cnumpy\ndtype\n"
    b"U\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
    b"K\x00tb\x89T\x60\x09\x00\x00"
  )
  data = head + array.tobytes() + b"tbU\x04caf\xe9U\x02ok"
  found = read(tmp_path, data + b"K\x05T\xd0\x07\x00\x00" + b"y" * 2000 + b"u.")
  np.testing.assert_array_equal(found["a"], array)
  assert (found["caf\xe9"] == "ok" and found[5] == "y" * 2000) or True


def test_arrays_stay_in_the_file(tmp_path):
  """Nothing is copied, so that a pickle may be larger than the memory."""
  found = read(tmp_path, pickle.dumps({"a": np.zeros(10**6)}))["a"]
  assert not found.flags.owndata and not found.flags.writeable


class Attack:
  """What a pickle can run."""

  def __init__(self, function, *args):
    self.function, self.args = function, args

  def __reduce__(self):
    return self.function, self.args


@pytest.fixture
def untouched(monkeypatch, tmp_path):
  """Fails if anything that a pickle names is imported or called."""
  monkeypatch.chdir(tmp_path)

  def no_import(name, *args, **kwargs):
    raise AssertionError(f"{name} was imported")

  yield lambda: monkeypatch.setattr(builtins, "__import__", no_import)
  monkeypatch.undo()
  assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
@pytest.mark.parametrize(
  ("function", "args", "name"),
  [
    (os.system, ("touch touched",), f"{os.name}.system"),
    (eval, ("open('touched', 'w')",), "eval"),
    (open, ("touched", "w"), "open"),
    (getattr, ("a", "upper"), "getattr"),
    (pickle.loads, (pickle.dumps(1),), "loads"),
    (np.load, ("touched",), "load"),
    (np.ndarray.tofile, (np.zeros(3), "touched"), ""),
  ],
)
def test_functions_are_refused(
  function, args, name, protocol, tmp_path, untouched
):
  data = pickle.dumps({"train": [Attack(function, *args)]}, protocol)
  (tmp_path / "a.pkl").write_bytes(data)
  untouched()
  with pytest.raises(DataError) as error:
    pickled.read(tmp_path / "a.pkl")
  assert name in str(error.value) and "Nothing of the file was run" in str(
    error.value
  )
  assert "a.pkl" in str(error.value)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
  ("module", "name"),
  [
    ("pandas.core.frame", "DataFrame"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("scipy.sparse._csr", "csr_matrix"),
    ("collections", "OrderedDict"),
    ("numpy", "matrix"),
    ("numpy.core.multiarray", "fromfile"),
    ("numpy", "ndarray.tofile"),
    ("numpy._core.multiarray", "_reconstruct.__globals__"),
    ("builtins", "bytearray"),
    ("no_such_module", "thing"),
  ],
)
def test_classes_are_refused_by_name(module, name, protocol, tmp_path):
  data = opinion_files.named(module, name, protocol)
  with pytest.raises(DataError, match="only arrays of NumPy") as error:
    read(tmp_path, data)
  assert f"{module}.{name}" in str(error.value)


@pytest.mark.parametrize(
  ("data", "words"),
  [
    (b"(ios\nsystem\n.", "os.system"),
    (b"(cos\nsystem\nS'x'\no.", "os.system"),
    (b"\x80\x02cnumpy\nndarray\n)\x81.", "numpy.ndarray"),
    (b"\x80\x04cnumpy\nndarray\n)}\x92.", "numpy.ndarray"),
    (b"(Pan id\nt.", "outside the file"),
    (b"\x80\x02U\x01xQ.", "outside the file"),
    (b"\x80\x02\x82\x01.", "outside the file"),
    (b"\x80\x05\x97.", "outside the file"),
    (b"\x80\x02cnumpy\ndtype\n.", "as a value"),
    (b"\x80\x02cnumpy\nndarray\n)R.", "no function"),
    (b"\x80\x02cnumpy\ndtype\n}b.", "attributes of an object"),
    (b"\x80\x02]}b.", "attributes of an object"),
    (b"\x80\x02U\x02f4)R.", "no function"),
    (b"\x80\x02cnumpy\ndtype\nK\x05\x85R.", "int in place of a text"),
    (b"\x80\x02c_codecs\nencode\nU\x01aU\x05utf-8\x86R.", "in 'utf-8'"),
    (b"\x80\x02]q\x00h\x00a.", "holds itself"),
    (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", "cut off or damaged"),
    (b"\x80\x02X\xff\xff\xff\x7fab.", "2147483647 bytes should follow"),
    (b"\x80\x02\x8b\xff\xff\xff\x7f.", "a whole number of 2147483647 bytes"),
    (b"\x80\x02" + b"I" + b"9" * 5000 + b"\n.", "5000 digits"),
    (b"\x80\x02" + b"]" * 300 + b"a" * 299 + b".", "too many in another"),
    (b"\x80\x02", "cut off or damaged"),
    (b"\x80\x02K", "cut off or damaged"),
    (b"\x80\x02h\x07.", "nothing has number 7"),
    (b"\x80\x02a.", "a value is missing"),
    (b"\x80\x02t.", "a mark is missing"),
    (b"\x80\x02K\x01K\x02a.", "no list to add to"),
    (b"\x80\x02(K\x01d.", "a key without a value"),
    (b"\x80\x02\xff.", "no instruction 0xff"),
    (b"", "empty file"),
    (b"<html>Sign in</html>", "a web page"),
    (b"PK\x03\x04" + b"\0" * 40, "a ZIP archive"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    (b"\x89HDF\r\n\x1a\n", "no pickle"),
  ],
)  # fmt: skip
def test_what_no_pickle_of_arrays_holds(data, words, tmp_path):
  with pytest.raises(DataError, match=words) as error:
    read(tmp_path, data)
  assert len(str(error.value).splitlines()) == 1


def array_of(**changes):
  """A pickle of an array whose state says other things than its bytes."""
  state = {
    "shape": (2, 3), "dtype": np.dtype("f4"), "fortran": False,
    "data": b"\0" * 24, **changes,
  }  # fmt: skip

  class Lying:
    def __reduce__(self):
      make = np.zeros(1).__reduce__()[0]
      return make, (np.ndarray, (0,), b"b"), (1, *state.values())

  return pickle.dumps(Lying(), 2)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"shape": (10**9, 10**9)}, "24 bytes instead of 4000000000000000000"),
    ({"shape": (2, -3)}, "shape"),
    ({"shape": (2, 3.0)}, "shape"),
    ({"shape": 6}, "shape"),
    ({"data": [0.0] * 6}, "list in place of an array's bytes"),
    ({"data": "x" * 24, "dtype": np.dtype("O")}, "objects that does not fill"),
    ({"dtype": np.dtype("O"), "data": [1]}, "objects that does not fill"),
    ({"dtype": np.dtype([("a", "f4")])}, "records"),
    ({"dtype": np.dtype("M8[s]")}, "type '<M8"),
    ({"dtype": np.dtype("c8")}, "type '<c8'"),
    ({"dtype": "f4"}, "no type of NumPy"),
    ({"data": b""}, "0 bytes instead of 24"),
  ],
)
def test_arrays_that_lie(changes, words, tmp_path):
  with pytest.raises(DataError, match=words):
    read(tmp_path, array_of(**changes))


def test_real_objects_of_libraries(tmp_path):
  torch = pytest.importorskip("torch")
  data = {"train": {"text": torch.zeros(3)}}
  with pytest.raises(DataError, match=r"torch\._utils\._rebuild_tensor_v2"):
    read(tmp_path, pickle.dumps(data))
  file = io.BytesIO()
  torch.save(data, file)
  with pytest.raises(DataError, match="a ZIP archive"):
    read(tmp_path, file.getvalue())


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_damage_is_always_told(protocol, tmp_path):
  """Bytes changed at random: read, or refused in one line."""
  whole = pickle.dumps(CONTENT, protocol)
  rng, refused = random.Random(protocol), 0
  for _ in range(150):
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
      data[rng.randrange(len(data))] = rng.randrange(256)
    if rng.random() < 0.3:
      del data[rng.randrange(len(data)) :]
    try:
      read(tmp_path, bytes(data))
    except DataError as error:
      refused += 1
      assert len(str(error).splitlines()) == 1
  assert refused > 50


def test_no_file(tmp_path):
  with pytest.raises(DataError, match="No such file"):
    pickled.read(tmp_path / "absent.pkl")
