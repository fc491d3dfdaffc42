"""Equations of the marginals in t and x, exactly: derivatives are complex steps of the code."""

from typing import Any

import numpy as np

from refscore import GaussianMixture
from refscore.protocols import SDE
from tests.oracles.close import assert_close
from tests.oracles.mixtures import size_of_jacobian
from tests.oracles.strategies import points

H = 1e-30


def dt(function: Any, t: float) -> Any:
    """d function / dt, exact to rounding."""
    return function(np.asarray([t + 1j * H])).imag / H


def terms(p: GaussianMixture, sde: SDE, t: float, seed: int) -> tuple[Any, ...]:
    """x, ∂_t log p, s, div s at points of p_t."""
    a, s = sde.alpha(t), sde.sigma(t)
    x = points(p, a, s, seed)
    change = dt(lambda t: p.log_prob(x, sde.alpha(t), sde.sigma(t)), t)
    return x, change, p.score(x, a, s), p.divergence(x, a, s)


def check_score_equation(p: GaussianMixture, sde: SDE, t: float, seed: int) -> None:
    """∂_t s = ∇[½ g² (div s + |s|²) - f x·s]."""
    a, s = sde.alpha(t), sde.sigma(t)
    x = points(p, a, s, seed)
    f, g = sde.f(t), sde.g(t)
    change = dt(lambda t: p.score(x, sde.alpha(t), sde.sigma(t)), t)

    def inside(x: Any) -> Any:
        score = p.score(x, a, s)
        return 0.5 * g**2 * (p.divergence(x, a, s) + np.sum(score**2, axis=1)) - f * np.sum(x * score, axis=1)

    gradient = np.stack([inside(x + 1j * H * e).imag / H for e in np.eye(p.dim)], axis=1)
    J = size_of_jacobian(p, x, a, s)
    # Third derivatives of log p: products of three offsets
    scale = (0.5 * g**2 * J * np.sqrt(J) + abs(f) * (np.sqrt(J) + J * np.abs(x).max(axis=1)))[:, None] + np.abs(change)
    assert_close(change, gradient, 1e-10 * scale)


def divergence_of(drift: Any, x: Any) -> Any:
    return sum(drift(x + 1j * H * e)[:, d].imag / H for d, e in enumerate(np.eye(x.shape[1])))
