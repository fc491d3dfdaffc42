"""One Gaussian: its laws under an SDE, and the affine map that a sampler makes of it, by probing the code."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refscore import GaussianMixture, simulate
from refscore.sampling.loop import last
from tests.oracles.replay import ReplayRng

ONE = np.ones(1)


def gaussian(m: Any, C: Any) -> GaussianMixture:
    return GaussianMixture(ONE, np.asarray(m)[None, :], np.asarray(C)[None, ...])


M, C = np.array([1.5, -0.5]), np.array([[0.8, 0.3], [0.3, 0.4]])
TARGETS = {"gaussian": gaussian(M, C), "point": gaussian(M, 0 * C)}


def probe(run: Callable[[Any, Any], Any], D: int, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x -> A x + Σ_n B_n z_n + c: the maps A (D, D), B (N, D, D) and c of run(x, rng), from one call.

    Row 0 is the origin, then come a unit vector for each coordinate of x, and for each of each noise. (Rows do not
    know of each other: a law of its own in tests/sampling/test_samplers.py.)
    """
    rows = 1 + D + N * D
    x, z = np.zeros((rows, D)), np.zeros((N, rows, D))
    x[1 : 1 + D] = np.eye(D)
    for n in range(N):
        z[n, 1 + D + n * D : 1 + D + (n + 1) * D] = np.eye(D)
    rng = ReplayRng(*z)
    y = run(x, rng)
    assert not rng.normals, "less noise was drawn than a step a draw"
    images = y[1:] - y[0]
    return images[:D].T, np.swapaxes(images[D:].reshape(N, D, D), 1, 2), y[0]


def law(maps: tuple[np.ndarray, np.ndarray, np.ndarray], m: np.ndarray, S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of A x + Σ B_n z_n + c for x of mean m and covariance S."""
    A, B, c = maps
    return A @ m + c, A @ S @ A.T + np.einsum("nij,nkj->ik", B, B)


def start(sde: Any, target: GaussianMixture) -> tuple[np.ndarray, np.ndarray]:
    """The true law at t = 1."""
    return marginal(sde, target, 1.0)


def marginal(sde: Any, target: GaussianMixture, t: float) -> tuple[np.ndarray, np.ndarray]:
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    return alpha * target.means[0], alpha**2 * target.covariances[0] + sigma**2 * np.eye(2)


Gaussian = tuple[np.ndarray, np.ndarray]


class Counting:
    """Zeros for noise; counts how often it is asked."""

    def __init__(self) -> None:
        self.n = 0

    def standard_normal(self, size: Any = None, dtype: Any = None) -> np.ndarray:
        self.n += 1
        return np.zeros(size)


def law_of(step: Any, times: list[float], at_start: Gaussian) -> Gaussian:
    """Mean and covariance that the real code ends with, by probing."""

    def run(x: Any, rng: Any) -> Any:
        return last(simulate(step, x, times, rng))

    counting = Counting()
    run(np.zeros((1, 2)), counting)
    if counting.n == 0:
        A, _, c = probe(run, 2, 0)
        return A @ at_start[0] + c, A @ at_start[1] @ A.T
    return law(probe(run, 2, counting.n), *at_start)
