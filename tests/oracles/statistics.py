"""Stochastic assertions that declare their false-alarm rate."""

import math

import numpy as np
from scipy.stats import norm

from refscore import GaussianMixture
from tests.oracles.mixtures import full

ALPHA = 1e-9  # of each assertion, unless it says otherwise
QUANTILE = float(norm.isf(ALPHA / 2))  # 6.11 deviations of a normal: a false alarm in 1e9


def assert_mean(x: np.ndarray, mu: float, alpha: float = ALPHA, bias: float = 0.0) -> None:
    """The mean of independent x is mu, up to `bias` and the normal quantile of false-alarm rate alpha."""
    n = len(x)
    assert n >= 1000, "the normal quantile needs a larger sample"
    error = abs(float(np.mean(x)) - mu)
    allowed = bias + norm.isf(alpha / 2) * float(np.std(x)) / math.sqrt(n)
    assert error <= allowed, f"mean off by {error:.3g}, allowed {allowed:.3g} (n = {n}, alpha = {alpha})"


def assert_law(
    x: np.ndarray, mixture: GaussianMixture, frequencies: np.ndarray, alpha: float = ALPHA, bias: float = 0.0
) -> None:
    """The characteristic function of the sample is that of the mixture at every frequency (Hoeffding).

    Cosines and sines are bounded, so this holds at every n and in any dimension.
    """
    w, m = np.asarray(mixture.weights), np.asarray(mixture.means)
    C = full(mixture)
    n, count = len(x), 2 * len(frequencies)
    allowed = bias + math.sqrt(2 * math.log(2 * count / alpha) / n)
    for u in frequencies:
        exact = np.sum(w * np.exp(-0.5 * np.einsum("d,kde,e->k", u, C, u) + 1j * (m @ u)))
        sample = np.mean(np.exp(1j * (x @ u)))
        error = max(abs(exact.real - sample.real), abs(exact.imag - sample.imag))
        assert error <= allowed, f"characteristic function off by {error:.3g} at {u}, allowed {allowed:.3g}"
