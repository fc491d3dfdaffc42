"""EDM is Algorithm 2 of Karras et al. 2022, written down here from the paper, in its letters."""

import math
from itertools import pairwise

import numpy as np
import pytest

from refscore import EDM, ExactScore, simulate
from refscore.laws.examples import mixture
from refscore.noise.chains import from_sigmas
from refscore.noise.grids import karras_times
from refscore.noise.sde import LinearVE
from refscore.sampling.loop import last

LINEAR = LinearVE(80.0)
LEVELS = [80.0, *(LINEAR.sigma(t) for t in karras_times(LINEAR, 9)[1:])]


def algorithm_2(D, x, levels, gamma, low, high, S_noise, rng):
    """x_i at t_i -> x_N at t_N, as printed."""
    for t, t_next in pairwise(levels):
        gamma_i = gamma if low <= t <= high else 0.0
        t_hat = t + gamma_i * t
        x_hat = x
        if gamma_i > 0:
            x_hat = x + math.sqrt(t_hat**2 - t**2) * S_noise * rng.standard_normal(x.shape)
        d = (x_hat - D(x_hat, t_hat)) / t_hat
        x = x_hat + (t_next - t_hat) * d
        if t_next != 0:
            d_prime = (x - D(x, t_next)) / t_next
            x = x_hat + (t_next - t_hat) * (0.5 * d + 0.5 * d_prime)
    return x


@pytest.mark.parametrize("kind", ["linear-ve", "chain"])
@pytest.mark.parametrize(
    ("gamma", "low", "high", "S_noise"), [(0.0, 0.0, math.inf, 1.0), (0.4, 0.05, 50.0, 1.003), (0.2, 0.0, 10.0, 0.9)]
)
def test_edm_is_the_printed_algorithm(kind, gamma, low, high, S_noise):
    p = mixture("tilted")
    sde = LINEAR if kind == "linear-ve" else from_sigmas(LEVELS)
    times = [s / 80.0 for s in LEVELS] if kind == "linear-ve" else sde.times
    x = 80 * np.random.default_rng(0).standard_normal((7, 2))
    found = last(simulate(EDM(sde, ExactScore(p, sde), gamma, low, high, S_noise), x, times, np.random.default_rng(1)))
    D = lambda x, t: x + t**2 * p.score(x, 1.0, t)  # noqa: E731
    wanted = algorithm_2(D, x, LEVELS, gamma, low, high, S_noise, np.random.default_rng(1))
    assert np.max(np.abs(found - wanted)) <= 1e-11  # x starts at 80: u·80, and the inverse of the raised level
