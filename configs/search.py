"""Search space: the learning rate of all recipes, and one or two options each.

``configs/tables.py:table1,dataset=...,trials=4`` gives every recipe the same
number of trials. Trial 0 is the defaults; the others are drawn from the spaces
below. Trial i has the same learning rate in every recipe: the data set's
default times 0.447, 2.24, 0.299, 1.5, ..., spread evenly. The other options are
drawn at random, seeded by recipe and trial, so more trials leave the first ones
as they are. A recipe without options here (joint training, most fusions) tunes
only the learning rate. An option that a table row fixes, such as the α of
``constant_50``, is not tuned in that row.
"""

from __future__ import annotations

from dmg_jax.config.search import Knob, Log, OneOf, Space, Uniform

# As a factor of the data set's default.
LEARNING_RATE = Log(0.2, 5.0)

_TEMPERATURE = Log(0.03, 0.5)

# {recipe: {option of its method: distribution}}
SPACES: dict[str, dict[str, Knob]] = {
  "multitask": {"weight": Log(0.1, 10)},
  "weight": {"fused": Log(0.5, 4), "diversity": Log(1e-3, 0.1)},
  "etmc": {"anneal": OneOf((1, 5, 10, 20))},
  "tmc": {"anneal": OneOf((1, 5, 10, 20))},
  "label_fitting": {"weight": Uniform(0.05, 0.6)},
  "constant": {"alpha": Uniform(0.1, 0.9), "temperature": _TEMPERATURE},
  "stepwise": {"p": Uniform(0.5, 1), "temperature": _TEMPERATURE},
  "h": {"temperature": _TEMPERATURE},
  "h_heads": {"temperature": _TEMPERATURE},
  "lb": {"rate": Log(5e-3, 0.1), "temperature": _TEMPERATURE},
  "lb_concat": {"rate": Log(5e-3, 0.1), "temperature": _TEMPERATURE},
  "lb_forward": {"rate": Log(5e-3, 0.1), "temperature": _TEMPERATURE},
  "auto": {"rate": Log(5e-3, 0.1), "temperature": _TEMPERATURE},
  "auto_forward": {"rate": Log(5e-3, 0.1), "temperature": _TEMPERATURE},
  "lfm_paper": {"rate": Log(0.01, 1), "temperature": _TEMPERATURE},
  "lfm_code": {"rate": Log(1e-5, 1e-3), "start": Uniform(0.3, 0.95)},
  "lfm_code_fitted": {"start": Uniform(0.3, 0.95)},
  "mses": {"patience": OneOf((2, 5, 10)), "unimodal_weight": Log(0.3, 3)},
  "gblend": {"probe_epochs": OneOf((1, 2, 4))},
  "gblend_online": {"super_epoch": OneOf((5, 10, 20))},
  "ogm": {"alpha": Log(0.1, 1.5)},
  "ogm_ge": {"alpha": Log(0.1, 1.5)},
  "greedy": {"epsilon": Log(1e-3, 0.1), "window": OneOf((3, 5, 10))},
  "domfn": {"eta": Log(0.1, 2), "gamma": Uniform(0.3, 2)},
  "mslr": {"window": OneOf((2, 5, 10))},
  "pmr": {"alpha": Log(0.1, 4), "momentum": Uniform(0.1, 0.9)},
  "agm": {"alpha": Log(0.1, 4)},
  "mla": {"weights": OneOf(("entropy", "equal"))},
  "opm": {"base": Uniform(0.2, 0.8), "strength": Log(0.1, 1)},
  "amco": {"cap": Uniform(0.1, 0.9), "threshold": Uniform(0.3, 0.8)},
  "umt": {"weight": Log(1, 100)},
  "mbsd": {"weight": Log(0.1, 10)},
  "cml": {"weight": Log(0.01, 1)},
  "mmpareto": {"gamma": Uniform(1, 2)},
  "reconboost": {"first": Log(1, 10), "alpha": Log(0.1, 2)},
  "relearning": {"every": OneOf((5, 10, 20)), "strength": Log(0.5, 5)},
  "valuation": {"warmup": OneOf((2, 5, 10))},
  "valuation_modality": {"alpha": Log(0.3, 3), "warmup": OneOf((2, 5, 10))},
  "aug": {"sigma": Uniform(0.2, 0.9), "margin": Log(1e-3, 0.1)},
  "bss": {"unimodal_weight": Log(0.3, 3)},
  "bss_heuristic": {
    "initial": Uniform(0.1, 0.5),
    "grow_epochs": OneOf((5, 20, 40)),
  },
  "mcr": {"weight": Log(0.01, 1), "contrast": Log(0.1, 3)},
  "dgl": {"alpha": Log(0.5, 10)},
  "arl": {"gamma": Log(0.5, 8), "temperature": Log(1, 16)},
  "cggm": {"rho": Uniform(0.5, 2), "weight": Log(0.01, 1)},
  "inforeg": {"strength": Log(0.05, 5)},
  "g2d": {"feature_weight": Log(0.1, 10), "alone": Uniform(0, 0.8)},
  "iprm": {"alpha": Uniform(0.5, 0.95)},
  "amss": {"temperature": Log(0.05, 2)},
  "igm": {"rho": Log(0.01, 0.2), "temperature": Log(0.1, 2)},
  "cpsc": {"alpha": Uniform(0.05, 0.4), "start": OneOf((2, 5, 10))},
  "remix": {"gamma": Log(0.3, 3), "warmup": OneOf((2, 5, 10))},
}

SPACE = Space(LEARNING_RATE, SPACES)
