"""One Gaussian on the line: its laws, and the maps x -> a x + b z + c that the steps of a chain make of it."""

from itertools import pairwise
from typing import Any

import numpy as np

from refscore import ExactScore, GaussianMixture
from tests.oracles.replay import ReplayRng


def gaussian(m: float, v: float) -> GaussianMixture:
    return GaussianMixture(np.ones(1), np.array([[m]]), np.array([v]))


def maps(step: Any, t: float, s: float) -> tuple[float, float, float]:
    """a, b, c of the step x -> a x + b z + c in one dimension, from one call of the real code."""
    x, z = np.array([[0.0], [1.0], [0.0]]), np.array([[0.0], [0.0], [1.0]])
    y = step(x, t, s, ReplayRng(z))[0][:, 0]
    return float(y[1] - y[0]), float(y[2] - y[0]), float(y[0])


def moments(step: Any, times: list[float], m: float, v: float) -> list[tuple[float, float]]:
    """Mean and variance after each step, from those at times[0]."""
    found = []
    for t, s in pairwise(times):
        a, b, c = maps(step, t, s)
        m, v = a * m + c, a * a * v + b * b
        found.append((m, v))
    return found


def marginal(sde: Any, t: float, m0: float, v0: float) -> tuple[float, float]:
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    return alpha * m0, alpha**2 * v0 + sigma**2


def score_of(m: float, v: float, sde: Any) -> Any:
    """Of N(m, v) under the SDE; told floats, for which a chain answers without making arrays of all its numbers."""
    exact = ExactScore(gaussian(m, v), sde)
    return lambda x, t: exact(x, t if isinstance(t, float) else float(t[0]))


class Scaled:
    """s(x, t) = θ x: a model of one parameter."""

    shapes = {"a": ()}  # noqa: RUF012

    def __init__(self, sde: Any) -> None:
        self.sde = sde

    def forward(self, params: Any, x: Any, t: Any) -> tuple[Any, Any]:
        return params["a"] * x, x

    def backward(self, params: Any, cache: Any, dy: Any) -> tuple[Any, Any]:
        return (None,), {"a": np.sum(dy * cache)}
