"""What is wrong is said in one line, before anything is done."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import launch
from configs import openmoji
from data_pipelines import core
from dmg_jax.cli import modes
from dmg_jax.config.recipes import RECIPES
from dmg_jax.training import loop

ROOT = Path(launch.__file__).parent
FIELD = "--config."

# Recipe, flag or field, and what the line must say. Nothing is loaded for it.
PARSED = [
  ("bl", "", "'bl'", "'lb'", "unimodal"),
  ("lb,seedz=3", "", "'seedz'", "'seed'", "seeds", "temperature"),
  ("lb,", "", "key=value"),
  ("lb,epochs=", "", "key=value", "'epochs='"),
  ("", "", "no recipe", "lb_forward"),
  ("joint,seeds=three", "", "seeds", "int", "'three'"),
  ("joint,epochs=1.5", "", "epochs", "int", "1.5"),
  ("joint,epochs=true", "", "epochs", "int", "True"),
  ("joint,seed=none", "", "seed", "int", "None"),
  ("joint,learning_rate=nan", "", "learning_rate", "'nan'"),
  ("lb,temperature=no", "", "temperature", "float", "'no'"),
  ("lb,inner_iters=2.5", "", "inner_iters", "int", "2.5"),
  ("lb,scaled=2", "", "scaled", "bool", "2"),
  ("gblend,weights=1+x", "", "weights", "joined by +", "'1+x'"),
  ("gblend,weights=true", "", "weights", "tuple", "True"),
  ("joint", "--mode=trian", "trian", "'train'", "evaluate", "report"),
  ("joint", "--modee=train", "modee", "'mode'", "workdir"),
  ("joint", "--nope", "nope", "workdir"),
  ("joint", "--quiet=maybe", "quiet", "maybe"),
  ("joint", "extra", "'extra'"),
  ("joint", "--config.train.epochs=abc", "train.epochs", "abc"),
  ("joint", "--config.trian.epochs=3", "trian.epochs", "'train.epochs'"),
  ("joint", "--config.train=3", "config.train", "train.epochs"),
  ("joint", "--config.encoders.audio.name=x", "encoders.audio.name"),
  ("joint", "--config=configs/openmoji.py:bl", "'bl'", "'lb'"),
  ("joint", "--config=configs/openmojj.py:lb", "'configs/openmoji.py'"),
  ("joint", "--config=dmg_jax/config/compose.py:lb", "get_config"),
  ("joint", "--config=README.md:lb", "README.md"),
  ("joint", "--config=", "no config file"),
  ("joint", "--config.fusion.name=conct", "'concat'", "shared_head"),
  ("joint", "--config.method.name=lb", "method.name", "'lb'", "ogm_ge"),
  ("joint", "--config.variant=h", "variant", "'h'", "colon"),
  ("joint,fusion=conct", "", "'conct'", "'concat'", "shared_head"),
  ("joint,encoder.image=small.ConvNot", "", "'small.ConvNet'", "small.MLP"),
  ("joint,encoder.img=small.MLP", "", "'encoder.img'", "'encoder.image'"),
  ("h", "--config.encoders.image.name=x", "has options", "h,encoder.image=x"),
]
# Field, value, and what the line must say besides them.
RANGES = [
  ("seed", -1, "[0, "),
  ("seeds", 0, "[1, "),
  ("train.epochs", 0, "[1, "),
  ("train.batch_size", 0, "[1, "),
  ("train.log_steps", 0, "[1, "),
  ("train.checkpoint_steps", -1, "[0, "),
  ("eval.batch_size", 0, "[1, "),
  ("optimiser.learning_rate", -1, "(0, "),
  ("optimiser.learning_rate", 0, "(0, "),
  ("optimiser.learning_rate", "inf", "(0, "),
  ("optimiser.learning_rate", "nan", "(0, "),
  ("optimiser.momentum", -0.1, "[0, 1)"),
  ("optimiser.momentum", 1.0, "[0, 1)"),
  ("optimiser.weight_decay", "nan", "[0, "),
  ("optimiser.warmup_epochs", -1, "[0, "),
  ("optimiser.clip_norm", 0, "(0, "),
  ("encoders.image.features", 0, "at least 1"),
  ("encoders.image.widths", "()", "at least 1"),
  ("encoders.image.widths", "(8, -8)", "at least 1"),
  ("encoders.text.width", -3, "at least 1"),
  ("encoders.text.dropout", 1.5, "[0, 1)"),
  ("optimiser.name", "adan", "'adam'", "sgd"),
  ("optimiser.schedule", "cosin", "'cosine'", "constant"),
  ("train.select", "bst", "'best'", "last"),
  ("eval.split", "tset", "'test'", "outer"),
  ("track", "wandbb", "'wandb'", "mlflow"),
]
METHODS = [
  ("constant,alpha=1.5", "alpha", "[0, 1]", "1.5"),
  ("lb,start=2", "start", "[0, 1]", "2"),
  ("gblend,weights=0+0+0", "weights", "all be 0"),
  ("lb,rate=0", "rate", "positive"),
  ("lb,inner_iters=0", "inner_iters", "0"),
  ("lb,temperature=0", "temperature", "0"),
  ("lb,solver=cgg", "'cgg'", "'cg'", "neumann"),
  ("lb,matching=infonce", "'infonce'", "info_nce", "divergence"),
  ("lb_forward,outer=tran", "'tran'", "heldout", "train"),
  ("mla,projection=of", "'of'", "scalar"),
  ("stepwise,p=-1", "p must", "[0, 1]", "-1"),
  ("label_fitting,weight=7", "weight", "[0, 1]", "7"),
  ("ogm_ge,alpha=-1", "alpha", "-1"),
  ("ogm_ge,start=-4", "start", "-4"),
  ("lb,damping=-1", "damping", "-1"),
  ("umt,teacher_epochs=-1", "teacher_epochs", "-1"),
  ("valuation,level=smaple", "'smaple'", "modality, sample"),
  ("joint,seed=2147483647,seeds=2", "seed", "2147483648"),
]
# These need the data, but neither a step nor a folder.
BUILT = [
  ("joint", "data.image_size=1", "image_size", "8 to 72", "1"),
  ("joint", "data.word_dropout=2.0", "word_dropout", "[0, 1)", "2.0"),
  ("joint", "data.name=openmojii", "'openmojii'", "'openmoji'"),
  ("joint", "encoders.image.norm=batchh", "'batchh'", "group"),
  ("joint", "encoders.image.widths=(7,)", "7"),
  ("unimodal,modality=audio", "seed=0", "'audio'", "image, text"),
  ("mla,fusion=sum", "seed=0", "shared_head"),
  ("etmc,fusion=concat", "seed=0", "etmc", "'evidential'"),
  ("greedy,fusion=sum", "seed=0", "gates", "fusion=channel"),
  ("reconboost,fusion=sum", "seed=0", "'scale'", "fusion=boost"),
  ("unimodal,fusion=concat", "seed=0", "fusion=sum"),
  ("joint", "train.batch_size=63", "63", "8 devices"),
  ("joint", "eval.batch_size=63", "63", "8 devices"),
]


@pytest.fixture(autouse=True)
def never(monkeypatch):
  """No run begins here; samples are not decoded before they are read."""
  monkeypatch.setattr(core, "cache_if_small", lambda source, modalities: source)
  monkeypatch.delattr(loop.Trainer, "run")


@pytest.fixture
def refused(command, words, tmp_path):
  """One line on standard error that says ``parts``, and nothing done."""

  def check(recipe, word, parts, code):
    # A field given twice is no test of the field.
    field, _, value = word.removeprefix(FIELD).partition("=")
    fields = {field: value} if word.startswith(FIELD) else {}
    given = words(recipe, tmp_path / "runs" / "work", **fields)
    given += [word] if word and not fields else []
    found, out, err = command(*given)
    assert found == code and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert err.endswith("\n") and "Traceback" not in err
    for part in parts:
      assert part in err, err
    assert list(tmp_path.iterdir()) == []

  return check


def _rows(table):
  """The first two columns, and the rest of them as one."""
  return [(first, second, rest) for first, second, *rest in table]


@pytest.mark.parametrize("recipe,word,parts", _rows(PARSED))
def test_command_line(refused, recipe, word, parts):
  refused(recipe, word, parts, 2)


@pytest.mark.parametrize("field,value,parts", _rows(RANGES))
def test_fields(refused, field, value, parts):
  named = f"'{value}'" if field.endswith(("name", "schedule")) else field
  refused("joint", f"{FIELD}{field}={value}", [named, str(value), *parts], 1)


@pytest.mark.parametrize("recipe,parts", [(a, b) for a, *b in METHODS])
def test_options_of_methods(refused, recipe, parts):
  refused(recipe, "", parts, 1)


@pytest.mark.parametrize("recipe,field,parts", _rows(BUILT))
def test_what_only_the_data_tell(refused, recipe, field, parts):
  refused(recipe, FIELD + field, parts, 1)


def test_a_config_file_is_executed_once(command, tmp_path, monkeypatch):
  file, seen, calls = tmp_path / "own.py", [], tmp_path / "calls"
  file.write_text(
    "from configs import openmoji\n"
    "def note(word):\n"
    f"  with open({str(calls)!r}, 'a') as file:\n"
    "    print(word, file=file)\n"
    "note('executed')\n"
    "def get_config(arg=None):\n"
    "  note('called')\n"
    "  return openmoji.get_config(arg)\n"
  )

  def run(mode, config, workdir, quiet):
    seen.append((config.recipe, config.train.epochs, config.is_locked))
    return 0

  monkeypatch.setattr(modes, "run", run)
  for epochs in (4, 5):  # Each command executes it anew.
    calls.unlink(missing_ok=True)
    given = (f"--config={file}:h,epochs=3", f"{FIELD}train.epochs={epochs}")
    assert command(*given) == (0, "", "")
    assert calls.read_text().split() == ["executed", "called"]
    assert seen.pop() == ("h", epochs, True)


def test_nothing_given(command, tmp_path):
  code, out, err = command()
  assert (code, out) == (2, "") and err.count("\n") == 1
  assert err.startswith("error: ") and "--config=configs/openmoji.py:lb" in err


def test_where_an_error_comes_from(command, words, tmp_path):
  with pytest.raises(ValueError, match=r"train\.epochs"):
    command(
      *words("joint", tmp_path / "work"), f"{FIELD}train.epochs=0",
      "--traceback",
    )  # fmt: skip


@pytest.mark.parametrize("mode", ["evaluate", "predict", "readouts", "report"])
def test_modes_that_need_a_run(command, words, tmp_path, mode):
  work = tmp_path / "work"
  code, _, err = command(*words("joint", work), f"--mode={mode}")
  assert code == 1 and err.count("\n") == 1 and str(work) in err
  assert not work.exists()


@pytest.mark.parametrize(
  "text,value",
  [("1+2+0.5", (1, 2, 0.5)), ("2", (2,)), ("1e-1+0", (0.1, 0))],
)
def test_several_numbers_behind_a_recipe(text, value):
  config = openmoji.get_config(f"gblend,weights={text}")
  assert config.method.weights == value


def test_interrupted_before_training(command, words, tmp_path, monkeypatch):
  def interrupted(*args):
    del args
    signal.raise_signal(signal.SIGINT)

  monkeypatch.setattr(modes, "run", interrupted)
  # A shell's background jobs ignore the signal, and so would these tests.
  before = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    code, out, err = command(*words("joint", tmp_path / "work"))
  finally:
    signal.signal(signal.SIGINT, before)
  assert (code, out, err.count("\n")) == (130, "", 1)


def test_help(tmp_path):
  done = subprocess.run(
    [sys.executable, ROOT / "launch.py", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stderr == "" and "configs/openmoji.py" in done.stdout
  for name in (*RECIPES, "--mode", "--workdir", "--config", "seeds"):
    assert name in done.stdout
