"""Moments and derivatives of mixtures by dense algebra: a second way to everything."""

from typing import Any

import numpy as np

from refscore import GaussianMixture
from refscore.protocols import Time

TWO = GaussianMixture(np.array([0.8, 0.2]), np.array([[1.5], [-1.5]]), np.array([0.25, 0.25]))
UNLIKE = GaussianMixture(np.array([0.7, 0.3]), np.array([[-1.0], [1.2]]), np.array([0.09, 0.25]))  # and of two widths
PAIR = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.array([[[1.0, 0.8], [0.8, 1.0]]]))


def full(p: GaussianMixture) -> Any:
    """Covariances (K, D, D) of any kind of mixture."""
    C: Any = p.covariances
    return C if C.ndim == 3 else C.reshape(p.n_components, -1)[..., None] * np.eye(p.dim)


def components(p: GaussianMixture, x: Any, a: Time, s: Time) -> tuple[Any, Any, Any]:
    """r (B, K), g (B, K, D) and S⁻¹ (K, D, D), by dense solves: a second way to everything."""
    S = a**2 * full(p) + s**2 * np.eye(p.dim)
    y = x[:, None, :] - a * p.means
    g = -np.linalg.solve(S, y[..., None])[..., 0]
    log = np.log(p.weights) - 0.5 * np.linalg.slogdet(S)[1] + 0.5 * np.sum(g * y, axis=-1)
    r = np.exp(log - log.max(axis=1, keepdims=True))
    return r / r.sum(axis=1, keepdims=True), g, np.linalg.inv(S)


def size_of_jacobian(p: GaussianMixture, x: Any, a: Time, s: Time) -> Any:
    """(B,): Σ r (|g|² + |S⁻¹|), the size of the terms that a Jacobian of the score sums up."""
    r, g, precision = components(p, x, a, s)
    return np.sum(r * (np.sum(g * g, axis=-1) + np.linalg.norm(precision, axis=(1, 2))), axis=1)


def jacobian(p: GaussianMixture, x: Any, a: Time, s: Time) -> Any:
    """(B, D, D), column d the derivative along x_d, from one call with a stack of tangents."""
    eye = np.broadcast_to(np.eye(p.dim)[:, None, :], (p.dim, *x.shape))
    return np.moveaxis(np.asarray(p.score_jvp(x, eye, a, s)), 0, -1)


def covariance(p: GaussianMixture) -> Any:
    """Of the mixture: within the components, and between them."""
    y = p.means - p.weights @ p.means
    return np.einsum("k,kij->ij", p.weights, full(p) + y[:, :, None] * y[:, None, :])


def observation(seed: int, M: int, D: int, low: float = 0.1) -> tuple[Any, Any, Any]:
    """H (M, D), y (M,), R (M, M), R's eigenvalues above `low`."""
    rng = np.random.default_rng([seed, 1])
    A = rng.standard_normal((M, M))
    return rng.standard_normal((M, D)), rng.uniform(-3, 3, M), 0.3 * A @ A.T + low * np.eye(M)


def log_normal(e: Any, R: Any) -> Any:
    """log N(e; 0, R) for rows e (B, M)."""
    return -0.5 * np.sum(e @ np.linalg.inv(R) * e, axis=1) - 0.5 * np.linalg.slogdet(2 * np.pi * R)[1]
