"""Draws the pictures of the site and of README.

python docs/_site/pictures.py [FOLDER]

Accuracies are read from the tables of ``docs/results/openmoji.md``, costs from
``docs/results/regime.json``; everything else is computed here from the
equations. Takes a quarter of a minute.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
import numpy as np

_DOCS = Path(__file__).resolve().parent.parent
OUT = _DOCS / "pictures"
# Colours of Okabe and Ito, which colour-blind readers can distinguish.
BLUE, RED, GREEN, GREY, BLACK = (
  "#0072B2", "#D55E00", "#009E73", "#6b6b6b", "#000000",
)  # fmt: skip
_STYLE = {
  "svg.fonttype": "none",
  "svg.hashsalt": "dmg_jax",
  "font.family": "sans-serif",
  "font.size": 9,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "legend.frameon": False,
}


def accuracies(label: str) -> dict[str, float]:
  """A row of OpenMoji's tables: {column: mean in %}, its last occurrence."""
  text = (_DOCS / "results" / "openmoji.md").read_text("utf-8")
  found, header = {}, []
  for line in text.splitlines():
    cells = [c.strip() for c in line.split("|")[1:-1]]
    if not cells:
      header = []
    elif not header:
      header = cells
    elif cells[0] == label and "read-out" in header and not found:
      for name, cell in zip(header, cells, strict=True):
        number = re.search(r"[\d.]+(?= ±)", cell)
        if number:
          found[name.removesuffix(" accuracy")] = float(number[0])
  return found


def overview():
  """What the project does: a network with two losses, and what comes of it."""
  figure, (left, right) = plt.subplots(
    1, 2, figsize=(8.6, 2.9), width_ratios=(1.75, 1)
  )
  _network(left)
  rows = {"joint": "Constant, α = 0", "lb": "Ours-LB"}
  _bars(right, {n: accuracies(r) for n, r in rows.items()})
  right.set_title("OpenMoji, accuracy on test, %", fontsize=9)
  figure.tight_layout(w_pad=0.5)
  return figure


def _network(axes):
  axes.set(xlim=(0, 10), ylim=(0, 5.2))
  axes.axis("off")
  for y, name, colour in ((3.6, "image", BLUE), (1.2, "text", RED)):
    _box(axes, 0.1, y, 1.5, 0.8, name, "white", colour)
    _box(axes, 2.3, y, 1.7, 0.8, "encoder", colour, colour, "white")
    _arrow(axes, (1.6, y + 0.4), (2.3, y + 0.4))
    _arrow(axes, (4.0, y + 0.4), (5.0, 2.8 if y > 2 else 2.4))
  _box(axes, 5.0, 2.15, 1.5, 0.9, "fusion,\nheads", "white", BLACK)
  _box(axes, 7.3, 2.9, 2.5, 0.8, "classification", GREY, GREY, "white")
  _box(axes, 7.3, 1.2, 2.5, 0.8, "matching", GREEN, GREEN, "white")
  _arrow(axes, (6.5, 2.7), (7.3, 3.2))
  axes.annotate(
    "", (7.3, 1.5), (4.0, 1.4),
    arrowprops={"arrowstyle": "->", "color": GREEN},
  )  # fmt: skip
  axes.annotate(
    "", (7.3, 1.8), (4.0, 3.75),
    arrowprops={"arrowstyle": "->", "color": GREEN,
                "connectionstyle": "arc3,rad=0.28"},
  )  # fmt: skip
  axes.text(7.15, 3.55, "1 − α", ha="right", va="center")
  axes.text(7.15, 1.1, "α", ha="right", va="center")
  axes.text(
    8.55, 4.75, "held-out samples\nlearn α", ha="center", va="center", color=RED
  )
  _arrow(axes, (8.55, 4.3), (8.55, 3.75), RED)
  axes.text(5, 0.3, "loss = (1 − α) classification + α matching", ha="center")


def _bars(axes, rows):
  names = {"accuracy": BLACK, "image": BLUE, "text": RED}
  for i, (name, colour) in enumerate(names.items()):
    x = np.arange(len(rows)) + 0.27 * (i - 1)
    y = [row[name] for row in rows.values()]
    label = {"accuracy": "fused"}.get(name, name)
    bars = axes.bar(x, y, 0.25, color=colour, label=label)
    axes.bar_label(bars, fmt="%.0f", padding=2)
  axes.set_xticks(range(len(rows)), rows)
  axes.set(ylim=(0, 92), yticks=[])
  axes.spines["left"].set_visible(False)
  axes.legend(loc="upper center", ncol=3, columnspacing=1, handlelength=1)


def imbalance():
  """Accuracy of each modality: alone, joint, with losses of their own."""
  alone = {
    "image": accuracies("Image alone")["image"],
    "text": accuracies("Text alone")["text"],
  }
  rows = {
    "trained alone": alone,
    "joint training\n(read-out R1)": accuracies("Constant, α = 0"),
    "own heads, matching: lb\n(read-out R2)": accuracies("Ours-LB"),
  }
  figure, axes = plt.subplots(figsize=(6.4, 2.8))
  for i, (name, colour) in enumerate({"image": BLUE, "text": RED}.items()):
    x = np.arange(len(rows)) + 0.3 * (i - 0.5)
    y = [row[name] for row in rows.values()]
    bars = axes.bar(x, y, 0.28, color=colour, label=name)
    axes.bar_label(bars, fmt="%.1f", padding=2)
  axes.set_xticks(range(len(rows)), rows)
  axes.set(ylabel="accuracy on test, %", ylim=(0, 75))
  axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
  figure.tight_layout()
  return figure


def readouts():
  """Which part of the network each read-out uses; what is zeroed is crossed."""
  figure, grid = plt.subplots(1, 5, figsize=(9.2, 2.7))
  titles = (
    "R1 split head", "R2 own head", "R3 feature\nablation",
    "R4 input\nablation", "R5 shared head",
  )  # fmt: skip
  for number, (axes, title) in enumerate(zip(grid, titles, strict=True), 1):
    _readout(axes, number)
    axes.set_title(title, fontsize=9)
  figure.tight_layout(w_pad=0.3)
  return figure


def _readout(axes, number):
  axes.set(xlim=(0, 4), ylim=(0, 6.6), aspect="equal")
  axes.axis("off")
  light = "#dddddd"
  for x, name, colour in ((0.2, "x m", BLUE), (2.2, "other", GREY)):
    runs = colour == BLUE or number == 4
    zero = number == 4 and colour == GREY
    edge = RED if zero else colour if runs else light
    name = "0" if zero else name
    _box(axes, x, 0.1, 1.6, 0.9, name, "white", edge, RED if zero else BLACK)
    fill = colour if runs else light
    _box(axes, x, 1.6, 1.6, 0.9, "encoder", fill, fill, "white")
    if runs:
      _arrow(axes, (x + 0.8, 1.0), (x + 0.8, 1.6))
  if number == 3:
    axes.text(3.0, 3.05, "0", color=RED, fontsize=12, ha="center", va="center")
    _arrow(axes, (3.0, 3.3), (3.0, 3.7), RED)
  if number == 4:
    _arrow(axes, (3.0, 2.5), (3.0, 3.7))
  head = {1: "block m", 2: "head m", 5: "one head for all"}
  wide = number not in (1, 2)
  width = 3.6 if wide else 1.75
  text = head.get(number, "fusion, head")
  _box(axes, 0.2, 3.7, width, 0.9, text, BLUE, BLUE, "white")
  if number == 1:
    _box(axes, 2.05, 3.7, 1.75, 0.9, "block", light, light, "white")
  _arrow(axes, (1.0, 2.5), (1.0, 3.7))
  x = 2.0 if number in (3, 4) else 1.0
  _arrow(axes, (x, 4.6), (x, 5.3))
  axes.text(x, 5.7, "logits of m", ha="center", va="center", color=BLUE)


def splits():
  """The four splits in proportion, and what each decides."""
  parts = (
    ("train", 60, GREY, "weights"),
    ("outer", 10, RED, "α"),
    ("val", 10, GREEN, "checkpoint,\ntuning"),
    ("test", 20, BLACK, "nothing:\nread once"),
  )
  figure, axes = plt.subplots(figsize=(7, 1.9))
  start = 0
  for name, share, colour, decides in parts:
    axes.barh(0, share - 0.6, left=start, height=0.6, color=colour)
    middle = start + share / 2 - 0.3
    axes.text(middle, 0, name, ha="center", va="center", color="white")
    axes.text(middle, -0.45, decides, ha="center", va="top", color=colour)
    start += share
  axes.text(0, 0.45, "OpenMoji: 60 % / 10 % / 10 % / 20 %", color=GREY)
  axes.set(xlim=(0, 100), ylim=(-1.3, 0.8))
  axes.axis("off")
  figure.tight_layout()
  return figure


def alpha():
  """The schedule of ``h``; hypergradients of a small problem by the solver."""
  import jax
  import jax.numpy as jnp

  from dmg_jax.bilevel import ConjugateGradient, hypergradient

  start, target, other = jnp.array([2.0, 0.5]), jnp.zeros(2), jnp.ones(2)

  def inner(w, a):  # Two quadratic losses of different curvature.
    classify = jnp.sum(start * (w - target) ** 2)
    match = jnp.sum(start[::-1] * (w - other) ** 2)
    return (1 - a) * classify + a * match

  def best(a):
    weights = (1 - a) * start + a * start[::-1]
    return a * start[::-1] * other / weights

  goal = best(0.3)

  def outer(w, a):
    del a
    return jnp.sum((w - goal) ** 2)

  @jax.jit
  def slope(a):
    return hypergradient(inner, outer, best(a), a, ConjugateGradient())[0]

  figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.7))
  t = np.arange(1, 31)
  left.plot(t, 1 - np.exp(-1 / t), color=GREY, label="schedule, recipe h")
  path = [0.5]
  for _ in t[1:]:
    path.append(path[-1] - 0.02 * float(jnp.sign(slope(jnp.array(path[-1])))))
  left.plot(t, path, color=BLUE, label="learned, example right")
  left.set(xlabel="epoch", ylabel="α", ylim=(0, 1))
  left.legend()
  reached = jax.jit(jax.vmap(lambda a: outer(best(a), a)))
  grid = jnp.linspace(0, 1, 101)
  right.plot(grid, reached(grid), color=GREY)
  for a in (0.2, 0.5, 0.9):
    value, g = float(reached(jnp.array([a]))[0]), float(slope(jnp.array(a)))
    near = np.array([a - 0.12, a + 0.12])
    right.plot(near, value + g * (near - a), color=RED, lw=2)
    right.plot(a, value, "o", color=RED)
  right.set(xlabel="α", ylabel="outer loss after training")
  right.set_title("slopes: hypergradients", fontsize=9, color=RED)
  figure.tight_layout()
  return figure


def gap():
  """Features of two modalities before and after descent on InfoNCE."""
  import jax
  import jax.numpy as jnp

  from dmg_jax import losses

  key = jax.random.key(0)
  shared, own, apart = jax.random.split(key, 3)
  base = jax.random.normal(shared, (60, 8))
  noise = 0.3 * jax.random.normal(own, (60, 8))
  start = base, base + noise + 6 * losses.unit(jax.random.normal(apart, (1, 8)))

  def loss(pair):
    return losses.info_nce(*pair, jnp.ones(60), temperature=0.5)

  @jax.jit
  def train(pair):
    def step(pair, _):
      slopes = jax.grad(loss)(pair)
      return jax.tree.map(lambda z, g: z - 20 * g, pair, slopes), None

    return jax.lax.scan(step, pair, length=25)[0]

  before = np.stack([np.asarray(losses.unit(z)) for z in start])
  after = np.stack([np.asarray(losses.unit(z)) for z in train(start)])
  figure, both = plt.subplots(1, 2, figsize=(6.4, 3))
  pairs = zip(both, ("before", "after matching"), (before, after), strict=True)
  for axes, title, found in pairs:
    _plane(axes, found)
    size = np.linalg.norm(found[0].mean(axis=0) - found[1].mean(axis=0))
    axes.set_title(f"{title}: gap {size:.2f}", fontsize=9)
  both[1].legend(loc="center left", bbox_to_anchor=(1, 0.5))
  figure.tight_layout()
  return figure


def _plane(axes, found):
  """Features [2 b d] in the two components that vary most."""
  flat = found.reshape(-1, found.shape[-1])
  middle = flat.mean(axis=0)
  plane = np.linalg.svd(flat - middle, full_matrices=False)[2][:2].T
  means = [(z.mean(axis=0) - middle) @ plane for z in found]
  names = (("image", BLUE), ("text", RED))
  for z, mean, (name, colour) in zip(found, means, names, strict=True):
    axes.plot(*((z - middle) @ plane).T, "o", ms=3.5, alpha=0.6, color=colour)
    axes.plot(*mean, "o", ms=9, mec="k", color=colour, label=name)
  axes.plot(*np.array(means).T, "k-", lw=1.5, zorder=0)
  axes.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1), aspect="equal")
  axes.set(xticks=[], yticks=[])


def _box(axes, x, y, width, height, text, fill, edge, colour=BLACK):
  axes.add_patch(
    plt.Rectangle((x, y), width, height, facecolor=fill, edgecolor=edge)
  )
  axes.text(
    x + width / 2, y + height / 2, text, ha="center", va="center", color=colour,
    fontsize=8.5,
  )  # fmt: skip


def _arrow(axes, start, end, colour=BLACK):
  axes.annotate(
    "", end, start, arrowprops={"arrowstyle": "->", "color": colour}
  )


def regime():
  """Where imbalance costs, from the file of ``benchmarks/regime.py``."""
  from benchmarks import regime as measured

  text = (_DOCS / "results" / "regime.json").read_text("utf-8")
  return measured.figure(json.loads(text))


PICTURES = {
  f.__name__: f
  for f in (overview, imbalance, readouts, splits, alpha, gap, regime)
}  # fmt: skip


def draw(folder: Path) -> list[Path]:
  """Draws all pictures into a folder, as SVG."""
  folder.mkdir(parents=True, exist_ok=True)
  files = []
  with plt.rc_context(_STYLE):
    for name, make in PICTURES.items():
      figure = make()
      files.append(folder / f"{name}.svg")
      figure.savefig(files[-1], facecolor="white", metadata={"Date": None})
      plt.close(figure)
  return files


if __name__ == "__main__":
  sys.path.insert(0, str(_DOCS.parent))
  draw(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
