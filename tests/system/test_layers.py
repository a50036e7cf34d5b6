"""Import layers and rules of style, held by reading the source."""

import ast
from pathlib import Path

import pytest

import launch

ROOT = Path(launch.__file__).parent
PACKAGES = ("dmg_jax", "data_pipelines", "configs")
FILES = {
  p.relative_to(ROOT).as_posix(): p
  for package in PACKAGES
  for p in sorted((ROOT / package).rglob("*.py"))
}
FILES["launch.py"] = ROOT / "launch.py"
TREES = {f: ast.parse(p.read_text(encoding="utf-8")) for f, p in FILES.items()}
ALL = {
  p.relative_to(ROOT).as_posix(): p.read_text(encoding="utf-8")
  for folder in (*PACKAGES, "tests", "benchmarks")
  for p in sorted((ROOT / folder).rglob("*.py"))
}
ALL["launch.py"] = FILES["launch.py"].read_text(encoding="utf-8")

# A layer may import those before it, and files of its own.
LAYERS = [
  ("types", "errors"),
  ("losses", "missing", "processes", "spheres", "trees"),
  ("bilevel", "model"),
  ("methods",),
  ("config", "report", "tracking"),
  ("training", "evaluation", "serving"),
  ("tables",),
  ("figures",),
  ("api",),
  ("cli",),
  ("launch",),
]  # fmt: skip
LEVEL = {name: i for i, names in enumerate(LAYERS) for name in names}


def module_of(file):
  return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(f) for f in FILES}


def imports(file):
  """Full names of what a file imports, anywhere in it."""
  found = set()
  for node in ast.walk(TREES[file]):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{file} imports relatively"
      for alias in node.names:
        full = f"{node.module}.{alias.name}"
        found.add(full if full in MODULES else node.module)
  return found


def layer(module):
  """``dmg_jax.bilevel.alpha`` is of ``bilevel``; others have no layer."""
  parts = module.split(".")
  if module == "dmg_jax.__main__":
    return "launch"
  return parts[1] if parts[0] == "dmg_jax" and len(parts) > 1 else parts[0]


OWN = sorted(f for f in FILES if f.startswith("dmg_jax/") or f == "launch.py")


@pytest.mark.parametrize("file", [f for f in OWN if f != "dmg_jax/__init__.py"])
def test_layers(file):
  own = layer(module_of(file))
  assert own in LEVEL, f"{file}: name its layer in this test"
  for module in imports(file):
    other = layer(module)
    if other in LEVEL and other != own and module.startswith("dmg_jax"):
      assert LEVEL[other] <= LEVEL[own], f"{file} imports {module}"


def test_what_must_not_be_imported():
  forbidden = {
    "dmg_jax/": ("configs", "launch", "torch"),
    "dmg_jax/methods/": (
      "data_pipelines", "dmg_jax.training", "dmg_jax.tracking",
      "dmg_jax.evaluation", "dmg_jax.model", "ml_collections",
    ),
    "dmg_jax/bilevel/": ("data_pipelines", "dmg_jax.methods", "ml_collections"),
    "dmg_jax/model/encoders/": ("data_pipelines", "dmg_jax.methods"),
    "dmg_jax/model/fusion/": ("data_pipelines", "dmg_jax.methods"),
    "dmg_jax/report/": ("jax", "flax", "optax", "data_pipelines"),
    "data_pipelines/": ("configs", "tensorflow", "torch", "jax", "flax"),
  }  # fmt: skip
  for folder, names in forbidden.items():
    for file in (f for f in FILES if f.startswith(folder)):
      for module in imports(file):
        bad = [n for n in names if module == n or module.startswith(f"{n}.")]
        assert not bad, f"{file} imports {module}"


def test_only_the_entrance_imports_training():
  users = {f for f in FILES if "dmg_jax.training.runner" in imports(f)}
  tables = {"dmg_jax/tables/cells.py", "dmg_jax/tables/grid.py"}
  assert users <= {"dmg_jax/api/fitting.py", *tables}


def test_flags_are_defined_by_the_entrance_only():
  for file, text in ALL.items():
    if file not in ("dmg_jax/cli/main.py", "tests/system/test_layers.py"):
      assert "flags.DEFINE" not in text, file


def definitions(file, kinds):
  return [n for n in ast.walk(TREES[file]) if isinstance(n, kinds)]


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def length(node):
  """Lines of a function without its docstring."""
  body = node.body
  lines = node.end_lineno - node.lineno + 1
  if ast.get_docstring(node) is not None:
    lines -= body[0].end_lineno - body[0].lineno + 1
  return lines


# Closures of a factory are short each; together they may have more.
FACTORIES = {"make", "bind"}


def test_functions_are_short():
  for file in FILES:
    for node in definitions(file, FUNCTIONS):
      limit = 60 if node.name in FACTORIES else 40
      assert length(node) <= limit, f"{file}: {node.name}, {length(node)} lines"


# Methods and fusions with more lines of code, and why.
LONG_FILES = {
  "dmg_jax/methods/agm.py": 110,  # Shapley values for any number.
  "dmg_jax/methods/cpsc.py": 125,  # Chooses features and weighs gradients.
  "dmg_jax/methods/gblend.py": 145,  # Probes within a run, twice over.
  "dmg_jax/methods/igm.py": 110,  # A second point, ours and the official one.
  "dmg_jax/methods/lb.py": 115,  # A solver's diagnostics; batches in parts.
  "dmg_jax/methods/pmr.py": 105,  # Prototypes of what samples have.
  "dmg_jax/methods/valuation.py": 105,  # Contributions of what they have.
}


def code_lines(file):
  """Lines that are no docstring, comment, import, or blank."""
  said: set[int] = set()
  for node in ast.walk(TREES[file]):
    kinds = (*FUNCTIONS, ast.ClassDef, ast.Module)
    if isinstance(node, kinds) and ast.get_docstring(node) is not None:
      said |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    elif isinstance(node, ast.Import | ast.ImportFrom):
      said |= set(range(node.lineno, node.end_lineno + 1))
  lines = enumerate(ALL[file].splitlines(), 1)
  return sum(
    i not in said and bool(x.strip()) and not x.strip().startswith("#")
    for i, x in lines
  )


@pytest.mark.parametrize("file", sorted(ALL))
def test_file(file):
  lines = ALL[file].splitlines()
  if file.startswith(("dmg_jax/methods/", "dmg_jax/model/fusion/")):
    assert code_lines(file) <= LONG_FILES.get(file, 100), file
  assert not any("\t" in x or x != x.rstrip() for x in lines), file


def public(file):
  """Public functions and classes, and the public methods of those classes."""
  for node in TREES[file].body:
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
      if node.name.startswith("_"):
        continue
      yield node.name, node
      for inner in node.body if isinstance(node, ast.ClassDef) else ():
        if isinstance(inner, FUNCTIONS) and not inner.name.startswith("_"):
          yield f"{node.name}.{inner.name}", inner


# Said once where they are declared, or by their name; longer than four lines.
UNSAID = {"solve", "matvec", "new_axes", "setup"}


@pytest.mark.parametrize("file", sorted(FILES))
def test_docstrings(file):
  tree = TREES[file]
  assert ast.get_docstring(tree) or not tree.body, f"{file} has no docstring"
  for name, node in public(file):
    tiny = node.end_lineno - node.lineno < 4 and isinstance(node, FUNCTIONS)
    if not tiny and name.rpartition(".")[2] not in UNSAID:
      assert ast.get_docstring(node), f"{file}: {name} has no docstring"


@pytest.mark.parametrize("file", sorted(FILES))
def test_never_in_the_tree(file):
  names = imports(file)
  assert not names & {"pickle", "dill", "joblib", "cloudpickle"}
  for node in ast.walk(TREES[file]):
    if isinstance(node, ast.Call):
      called = ast.unparse(node.func)
      assert called not in ("print", "eval", "exec", "torch.load"), file
      if called in ("np.load", "numpy.load"):
        options = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert options.get("allow_pickle") == "False", file
    if isinstance(node, ast.ExceptHandler):
      assert node.type is not None, f"{file}: bare except"
    if isinstance(node, ast.ImportFrom):
      assert all(alias.name != "*" for alias in node.names), file


def test_no_absolute_paths():
  for file, text in ALL.items():
    for node in ast.walk(ast.parse(text)):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        for start in ("work", "tmp", "home", "Users", "root", "mnt"):
          assert f"/{start}/" not in node.value, (file, node.value[:60])


def folders(package):
  """{folder: its modules} of a package, ``__init__.py`` counted."""
  found = {}
  for file in (f for f in FILES if f.startswith(f"{package}/")):
    found.setdefault(str(Path(file).parent), []).append(file)
  return found


OPEN_FOLDERS = {"dmg_jax/methods"}  # A file for each method, users' too.


@pytest.mark.parametrize("package", ["dmg_jax", "data_pipelines"])
def test_folders_are_small(package):
  for folder, files in folders(package).items():
    limit = 8 if folder == package else 16
    assert folder in OPEN_FOLDERS or len(files) <= limit, (folder, len(files))


def test_configs_are_for_users_only():
  for file in FILES:
    if not file.startswith("configs/"):
      assert not [m for m in imports(file) if layer(m) == "configs"], file


def test_no_cycle_between_packages():
  for file in (f for f in FILES if f.startswith("data_pipelines/")):
    assert not [m for m in imports(file) if m.split(".")[0] == "dmg_jax"], file


# One a file of ``model/fusion/`` and of ``methods/``.
EACH_HAS_ONE = {"Fusion", "State"}


def test_a_class_has_a_name_of_its_own():
  found = {}
  for file in (f for f in FILES if f.startswith("dmg_jax/")):
    for node in TREES[file].body:
      if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        found.setdefault(node.name, []).append(file)
  twice = {k: v for k, v in found.items() if len(v) > 1}
  assert set(twice) <= EACH_HAS_ONE, twice


@pytest.mark.parametrize("file", FILES)
def test_no_private_jax(file):
  """JAX's internals change without notice; contexts hide what is read."""
  private = ("jax._src", "jax.interpreters")
  found = [name for name in imports(file) if name.startswith(private)]
  assert not found
  if file.startswith(("dmg_jax/methods/", "dmg_jax/bilevel/")):
    assert not [n for n in imports(file) if n.startswith("contextvars")]
