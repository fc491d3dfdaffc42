"""docs/which-sampler.md is measured: every number of its tables is computed again, by exact laws, without a sample.

On a Gaussian the chain's own law, Eq. (10.11), and its 2-Wasserstein distance, Eq. (10.12). On a mixture on the line a
deterministic sampler is a map: where it takes the quantiles of p₁ is its law; 4000 of them give two digits.
"""

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from refscore import ExactScore, GaussianMixture, simulate
from refscore.commands.samplers import EVALUATIONS
from refscore.laws.affine_chain import Gaussian, probe, wasserstein
from refscore.measure.work_precision import GAUSSIAN, LOW, evaluations_per_step, gaussian_error
from refscore.noise.grids import karras_times, log_snr_times, quadratic_times, uniform_times
from refscore.noise.reverse import denoise
from refscore.noise.sde import SDES
from refscore.sampling.loop import NO_NOISE, last
from refscore.sampling.transitions import SAMPLERS

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "which-sampler.md").read_text(encoding="utf-8")
NAMES = {
    "DPM-Solver++(2M)": "dpm-solver++2m",
    "its SDE": "sde-dpm-solver++2m",
    "DDIM": "ddim",
    "EDM (Heun in σ/α)": "edm",
    "RK4 in t": "rk4",
    "Euler in t": "euler",
    "Heun in t": "heun",
    "midpoint in t": "midpoint",
    "Euler-Maruyama": "euler-maruyama",
    "ancestral, small variance": "ancestral",
    "ancestral, large variance": "ancestral-large",
}


def on_the_line(weights, means, variances):
    return GaussianMixture(np.array(weights), np.array(means)[:, None], np.array(variances))


LAWS = {
    "a Gaussian": GAUSSIAN,
    "a thin one": GaussianMixture(np.ones(1), np.array([[1.5, -0.5]]), np.array([[[1.0, 0.0], [0.0, 0.01]]])),
    "two modes": on_the_line([0.8, 0.2], [2.0, -2.0], [0.25, 0.25]),
    "two narrow ones": on_the_line([0.3, 0.7], [-1.5, 1.0], [0.06, 0.06]),
    "three": on_the_line([0.5, 0.3, 0.2], [-2.0, 0.0, 1.5], [0.09, 0.25, 0.01]),
}
GRIDS = {
    "log SNR": log_snr_times,
    "(10.18)": lambda sde, n, low: [1.0, *karras_times(sde, n + 1, float(sde.sigma(1.0) / sde.alpha(1.0)), LOW)[1:-1]],
    "t": lambda sde, n, low: uniform_times(n, low),
    "√t": lambda sde, n, low: quadratic_times(n, low),
}


def table(first):
    """The cells of the table whose header begins so, row by row."""
    lines = PAGE[PAGE.index(first) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def printed(number):
    """A number of two digits, as the page rounds it."""
    return pytest.approx(number, rel=0.06)


def error(law, sde, name, grid, budget):
    """2-Wasserstein distance to the data after `budget` evaluations at most, from the true law at t = 1."""
    low = float(sde.time_at_log_ratio(math.log(LOW)))
    times = GRIDS[grid](sde, (budget - 1) // evaluations_per_step(name), low)
    score = ExactScore(law, sde)

    def walk(x, rng):
        return denoise(score, sde, last(simulate(SAMPLERS[name](sde, score), x, times, rng)), times[-1])

    alpha, sigma = float(sde.alpha(1.0)), float(sde.sigma(1.0))
    if law.dim == 2:
        m, C = law.means[0], law.covariances[0]
        made = probe(walk, m).law(Gaussian(alpha * m, alpha**2 * C + sigma**2 * np.eye(2)))
        return float(wasserstein(made, Gaussian(m, C)))
    start, data = quantiles(law, alpha, sigma), quantiles(law, 1.0, 0.0)
    end = np.sort(walk(start[:, None], NO_NOISE)[:, 0])
    return float(np.sqrt(np.mean((end - data) ** 2)))


def quantiles(law, alpha, sigma, n=4000):
    reach = 8 * (1 + sigma)
    x = np.linspace(-reach, reach, 20_001)
    std = np.sqrt(alpha**2 * law.variances[:, 0] + sigma**2)
    return np.interp((np.arange(n) + 0.5) / n, ndtr((x[:, None] - alpha * law.means[:, 0]) / std) @ law.weights, x)


@pytest.mark.slow
def test_the_table_of_budgets_is_what_the_library_measures():
    sde = SDES["vp"]
    of, score = gaussian_error(sde), ExactScore(GAUSSIAN, sde)
    rows = table("| | 8 |")
    assert len(rows) == 9
    for label, *cells in rows:
        each = evaluations_per_step(NAMES[label])
        measured = [of(score, NAMES[label], (b - 1) // each, False) for b in EVALUATIONS]
        measured.append(of(score, NAMES[label], (EVALUATIONS[-1] - 1) // each, True))
        assert [float(cell) for cell in cells] == [printed(number) for number in measured], label


def test_the_table_of_laws_is_what_the_library_measures():
    rows = table("| SDE |")
    for name, label, grid, *cells in rows:
        for cell, law in zip(cells, LAWS.values(), strict=True):
            for number, budget in zip(cell.split(" / "), (8, 16, 32), strict=True):
                assert float(number) == printed(error(law, SDES[name.lower()], NAMES[label], grid, budget)), label
    assert len(rows) == 10


def test_heuns_second_evaluation_pays_where_t_is_a_good_clock_and_nowhere_else():
    """At 15 evaluations against the 16 of DPM-Solver++(2M): ahead on every law under VP, 100 times behind under VE."""
    for law in LAWS.values():
        vp, ve = ([error(law, SDES[name], "heun", "√t", 16), *solver(law, SDES[name])] for name in ("vp", "ve"))
        assert 1.15 < min(vp[1:]) / vp[0] < 3.4
        assert 100 < ve[0] / min(ve[1:]) < 15_000


def solver(law, sde):
    return [error(law, sde, "dpm-solver++2m", grid, 16) for grid in ("log SNR", "√t")]
