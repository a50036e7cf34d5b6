r"""Every weight learned: the hypergradient of a vector, by one linear solve.

.. math:: \min_{h \in H} L_{CLS}^{out}(\theta^*(h)) \quad \text{s.t.} \quad
  \theta^*(h) \in \arg\min_\theta L(\theta, h), \qquad
  h = (\alpha_p, w_m, \tau, s, \lambda_g)
.. math:: L = (1 - \bar\alpha) \Bigl(\mathrm{CE}_s(o) +
  \sum_m w_m \mathrm{CE}_s(o_m)\Bigr) + \frac1P \sum_p \alpha_p L_p(\tau) +
  \sum_g \frac{\lambda_g}{2} \lVert\theta_g\rVert^2
.. math:: g = -\nabla^2_{h\theta} L\, [\nabla^2_{\theta\theta} L]^{-1}
  \nabla_\theta L_{CLS}^{out}

``learn`` names what is learned, joined by ``+``; the rest stays at its start.

===============  ==========================================  =================
name             what                                        range
===============  ==========================================  =================
``alpha``        α_p of each pair of modalities              [0, 1]
``unimodal``     w_m of each modality's own cross-entropy    [.01, 100], log
``temperature``  τ of the matching loss                      [.01, 1], log
``smoothing``    s of label smoothing, in every CE of L      [0, .5]
``decay``        λ_g of each owner of weights (an encoder,   [1e-7, .1], log
                 its head, what modalities share)
===============  ==========================================  =================

After every ``inner_iters`` steps of θ (one epoch) comes one of h: ``H q = v``
is solved once, one mixed product gives g for all, and each h moves by a
normalised step that is the same share of its range (``bilevel.vector``). The
held-out loss is plain cross-entropy of the fused prediction: no smoothing, no
weight decay. With ``learn=alpha`` and two modalities it is ``lb``.

``form=forward`` is the trajectory form of ``lb_forward``: one tangent of
weights and moments for each entry of h goes along all steps, so a step costs
about one more step for each, and memory likewise. It is exact for the steps
taken, with any optimiser. (Reverse mode would have one pass for all of h, but
has to keep the batches and weights of the steps it goes through.)

Reference: this project, after Lorraine, Vicol and Duvenaud, AISTATS 2020
(implicit) and Franceschi et al., ICML 2017 (forward).

Deviations from ``lb``, whose numbers hold here, too:
1. λ is coupled: its term is part of L, so its gradient goes through the
   optimiser's moments, with ``adamw`` as well. ``optimiser.weight_decay`` comes
   on top. The implicit form does not see it, be it coupled or not, since it is
   no part of L: leave it at 0 there. ``form=forward`` does see it.
2. ``replay`` trains by values that another run has learned, one row an epoch;
   nothing is learned then and ``outer`` is not read. Rows are stretched over
   the epochs of the run.
"""

from __future__ import annotations

import functools

from dmg_jax.bilevel import VectorOptimiser, solver_by_name
from dmg_jax.bilevel.alpha import RATE
from dmg_jax.errors import InputError, unknown
from dmg_jax.methods import _named
from dmg_jax.methods._adapters import check_range
from dmg_jax.methods._learner import Learner
from dmg_jax.methods._matching import Matching
from dmg_jax.methods.lb import COUNT, outer_split
from dmg_jax.types import Card, Method

CARD = Card(
  "matching",
  "(1-α) (CE(o) + Σ w_m CE(o_m)) + Σ α_p L_p(τ) + Σ λ/2 |θ|², all learned",
  "this project",
)
FORMS = ("implicit", "forward")
DECAY = 1e-4  # Where λ starts if it is learned.
DIAGNOSTICS = (
  "hypergradient", "learned", "lambda_max", "curvature", "cosine", "status",
  "residual",
)  # fmt: skip


def make(
  *,
  learn: str = "alpha+unimodal",
  form: str = "implicit",
  start: float = 0.5,
  unimodal_weight: float = 1.0,
  temperature: float = 0.1,
  smoothing: float = 0.0,
  decay: float | None = None,
  rate: float | None = None,
  normalise: str = "rms",
  optimiser: str = "sgd",
  momentum: float = 0.0,
  solver: str = "neumann",
  iterations: int = 5,
  damping: float = 0.0,
  inner_iters: int | None = None,
  outer: str = "heldout",
  matching: str = "info_nce",
  scaled: bool = True,
  replay: tuple = (),
) -> Method:
  """Args:
  learn: names of the table above, joined by ``+``.
  form: ``implicit`` or ``forward``.
  start: α of every pair before the first update, or for good.
  unimodal_weight, temperature, smoothing: w of every modality, τ, s; likewise.
  decay: λ of every owner, likewise; ``None`` is 1e-4 if learned, else 0.
  rate: share of its range that a value moves by; ``None``: as ``lb``.
  normalise, optimiser, momentum: see ``bilevel.VectorOptimiser``.
  solver, iterations, damping: as for ``lb``; the forward form has none.
  inner_iters, outer: as for ``lb``.
  matching, scaled: the matching loss, see ``Matching``.
  replay: learned values of all epochs, row after row; see ``replayed``.
  """
  kinds = _named.kinds_of(learn)
  if form not in FORMS:
    raise unknown("form", form, FORMS)
  if "temperature" in kinds and matching == "divergence":
    raise InputError("matching=divergence has no temperature to learn")
  learner = Learner(
    kinds=kinds,
    first=_first(kinds, start, unimodal_weight, temperature, smoothing, decay),
    chain=VectorOptimiser(
      _named.RANGES, RATE if rate is None else rate, normalise, optimiser,
      momentum,
    ),
    matching=Matching(matching, scaled=scaled),
    forward=form == "forward" and not replay,
    replay=tuple(replay),
  )  # fmt: skip
  count = COUNT.get(solver, "iterations")
  inverse = solver_by_name(solver, **({count: iterations} if count else {}))
  check_range("damping", damping, 0, 1e12)
  implicit = functools.partial(learner.outer_implicit, inverse, damping)
  outer_step = learner.outer_forward if learner.forward else implicit
  return Method(
    step=learner.step_forward if learner.forward else learner.step,
    init=learner.init,
    between_epochs=functools.partial(learner.between, rate, inner_iters),
    outer_step=None if replay else outer_step,
    inner_iters=inner_iters,
    outer_split=outer_split(outer, inner_iters),
    diagnostics=DIAGNOSTICS,
  )


def _first(kinds, alpha, weight, temperature, smoothing, decay):
  """{kind: first value}, checked."""
  if decay is None:
    decay = DECAY if "decay" in kinds else 0.0
  # {kind: option, value, bounds where it is not learned}
  given = {
    "alpha": ("start", alpha, 0, 1),
    "unimodal": ("unimodal_weight", weight, 0, 1e6),
    "temperature": ("temperature", temperature, 1e-3, 1e3),
    "smoothing": ("smoothing", smoothing, 0, 0.99),
    "decay": ("decay", decay, 0, 1e6),
  }
  for kind, (name, value, low, high) in given.items():
    check_range(name, value, low, high)
    if kind in kinds:
      _named.RANGES[kind].check(name, value)
  return {kind: float(value) for kind, (_, value, *_) in given.items()}
