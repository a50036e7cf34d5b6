r"""Bi-level optimisation: hypergradients of any two scalar functions.

.. math::
  \min_h outer(θ^*(h), h) \quad \text{with} \quad
  θ^*(h) ∈ \arg\min_θ inner(θ, h)

Ridge regression with its closed form, ``θ* = (XᵀX + hI)⁻¹ Xᵀy``:

>>> import jax, jax.numpy as jnp
>>> X, y, h = jnp.array([[1., 2], [3, 4], [5, 7]]), jnp.array([1., 2, 3]), 0.5
>>> inner = lambda w, h: ((X @ w - y) ** 2).sum() / 2 + h * (w @ w) / 2
>>> outer = lambda w, h: (w @ w) / 2
>>> fit = lambda h: jnp.linalg.solve(X.T @ X + h * jnp.eye(2), X.T @ y)
>>> value, info = hypergradient(inner, outer, fit(h), h, ConjugateGradient())
>>> bool(jnp.allclose(value, jax.grad(lambda h: outer(fit(h), h))(h), 1e-4))
True

=====================  =========================  =============================
solver                 cost, memory               when
=====================  =========================  =============================
``Identity``           no product                 every step, cheap and biased
``Neumann``            ``terms`` products         default; fresh batches; robust
``ConjugateGradient``  products until ``rtol``    positive definite H, accuracy
``GMRES``              m products, m + 1 vectors  indefinite, nearly singular H
``Nystrom``            rank products, 2 rank      one sketch, strong damping
``Dense``              n products, n²             tests
``reverse_unroll``     T steps, memory T          many hyper-parameters, T small
``forward_unroll``     T tangent steps, memory 1  few hyper-parameters, any T
=====================  =========================  =============================

``info`` says how far to trust the answer: read ``info.status``.
"""

from dmg_jax.bilevel.curvature import GaussNewton, Operator
from dmg_jax.bilevel.hypergradient import hypergradient
from dmg_jax.bilevel.info import HypergradientInfo, Status, status_name
from dmg_jax.bilevel.krylov import GMRES, ConjugateGradient
from dmg_jax.bilevel.lowrank import Dense, Nystrom
from dmg_jax.bilevel.neumann import Identity, Neumann
from dmg_jax.bilevel.solvers import Solver, solver_by_name
from dmg_jax.bilevel.spectrum import largest_eigenvalue
from dmg_jax.bilevel.unrolled import (
  Iterate,
  Tangent,
  forward_unroll,
  optax_update,
  reverse_unroll,
  tangent_step,
  tangent_steps,
  zero_tangent,
)
from dmg_jax.bilevel.vector import Range, VectorOptimiser

__all__ = [
  "GMRES",
  "ConjugateGradient",
  "Dense",
  "GaussNewton",
  "HypergradientInfo",
  "Identity",
  "Iterate",
  "Neumann",
  "Nystrom",
  "Operator",
  "Range",
  "Solver",
  "Status",
  "Tangent",
  "VectorOptimiser",
  "forward_unroll",
  "hypergradient",
  "largest_eigenvalue",
  "optax_update",
  "reverse_unroll",
  "solver_by_name",
  "status_name",
  "tangent_step",
  "tangent_steps",
  "zero_tangent",
]
