"""Measures of chapter 20 that stood before it: what they are on laws that can be computed, and what they can see."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtri
from scipy.stats import norm

from refscore import GaussianMixture
from refscore.experiments.measuring import GENERATORS, judged, power
from refscore.laws.expectation import expectation
from refscore.measure.distance import energy_distance, sliced_wasserstein
from refscore.measure.neighbours import two_sample_test
from tests.oracles.book import ROOT
from tests.oracles.statistics import assert_mean, assert_share, assert_within
from tests.oracles.strategies import random_mixture, seeds


@given(st.floats(0.2, 3.0), st.floats(0.2, 3.0), seeds)
def test_the_sliced_distance_of_round_gaussians_is_shift_over_d_and_the_difference_of_deviations(a, b, seed):
    """Eq. (20.3): on a line by quantiles; that a shift c in D dimensions is |c|²/D is another test's."""
    z, shift = ndtri((np.arange(20_000) + 0.5) / 20_000)[:, None], np.random.default_rng(seed).standard_normal()
    found = sliced_wasserstein(a * z, shift + b * z, np.random.default_rng(0), 1)
    assert found**2 == pytest.approx(shift**2 + (a - b) ** 2, rel=1e-3, abs=1e-9)


def test_two_samples_of_the_uniform_law_are_some_distance_apart():
    """Eq. (20.4): the squared distance is 1/(3(n + 1)) on average."""
    for n in (1, 3, 20):
        rng = np.random.default_rng(n)
        runs = [[sliced_wasserstein(*rng.random((2, n, 1)), rng, 1) ** 2] for _ in range(4000)]
        assert_mean(runs, 1 / (3 * (n + 1)), sees=0.25 / (n + 1))


def folded(m, v):
    """E|N(m, v)|."""
    s = math.sqrt(v)
    return s * math.sqrt(2 / math.pi) * math.exp(-m * m / (2 * v)) + m * (1 - 2 * norm.cdf(-m / s))


@pytest.mark.parametrize("d", [1.0, 6.0])
def test_lost_weight_costs_the_energy_distance_its_square_times_that_of_the_modes(d):
    """Eq. (20.9) on a line: 2 ∫ (F - G)², whose integrand is (w - v)² times that of the modes."""
    at = np.linspace(-12, d + 12, 60_001)
    F, G = (w * norm.cdf(at) + (1 - w) * norm.cdf(at - d) for w in (0.8, 0.5))
    area = 2 * np.sum((F - G) ** 2) * (at[1] - at[0])
    assert area == pytest.approx(0.3**2 * (2 * folded(d, 2) - 2 * folded(0, 2)), rel=1e-9)
    rng = np.random.default_rng(0)
    runs = [
        [energy_distance(*(rng.standard_normal((80, 1)) + d * (rng.random((80, 1)) > w) for w in (0.8, 0.5))).value]
        for _ in range(400)
    ]
    assert_within(np.mean(runs), area, np.std(runs) / 20, n=400)


@given(st.integers(0, 50))
def test_the_best_classifier_is_right_in_half_and_half_the_total_variation(seed):
    """Eq. (20.12): the larger of the two densities; for N(0, 1) and N(d, 1) it is Φ(d/2)."""
    p, q = random_mixture(seed, 1, 2), random_mixture(seed + 100, 1, 2)
    x = np.linspace(-60, 60, 200_001)[:, None]
    a, b = (np.exp(law.log_prob(x)) * (x[1, 0] - x[0, 0]) for law in (p, q))
    assert 0.5 * np.maximum(a, b).sum() == pytest.approx(0.5 + 0.5 * (0.5 * np.abs(a - b).sum()), abs=1e-9)
    d = 1.3
    best = 0.5 * (norm.cdf(d / 2) + 1 - norm.cdf(d / 2, d))
    cells = np.abs(norm.pdf(x) - norm.pdf(x, d)).sum() * (x[1, 0] - x[0, 0])
    assert best == pytest.approx(0.5 + 0.25 * cells, abs=1e-6)


def test_the_nearest_neighbour_is_right_in_its_limit_and_less_often_than_the_best():
    """Eq. (20.13)."""
    p, q = (GaussianMixture(np.ones(1), np.array([[m]]), np.ones(1)) for m in (0.0, 1.3))
    limit = 0.5 + 0.25 * expectation(p, lambda x: _square_over_sum(p, q, x), None, 0).value
    best = 0.5 + 0.25 * expectation(p, lambda x: np.abs(1 - np.exp(q.log_prob(x) - p.log_prob(x))), None, 0).value
    rng = np.random.default_rng(0)
    runs = [[two_sample_test(p.sample(rng, 500), q.sample(rng, 500)).value] for _ in range(200)]
    assert_mean(runs, limit, bias=0.005)
    assert 2 * (1 - best) * best >= 1 - limit - 0.02  # Cover and Hart's bound
    assert 0.5 < limit < best


def _square_over_sum(p, q, x):
    """(p - q)²/(p + q), over p."""
    r = np.exp(q.log_prob(x) - p.log_prob(x))
    return (1 - r) ** 2 / (1 + r)


# ------------------------------------------------------------------ all of them


def test_what_copies_are_taken_for():
    """The training points are a true sample: to measures beside fresh data they are a right generator."""
    found = judged("copies", 0, 200)
    assert found["memorised"] == 1.0
    assert abs(found["classifier"] - 0.5) < 0.1
    assert set(judged("true", 0, 50)) == set(found)


def rows():
    """The table of power in chapter 20: a measure, and shares beside it."""
    text = (ROOT / "docs" / "chapters" / "20-measuring-a-model.md").read_text(encoding="utf-8")
    lines = text[text.index("| at n = 1000 | ") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {name: dict(zip(GENERATORS, map(float, row), strict=True)) for name, *row in cells}


@pytest.mark.slow
def test_the_power_is_as_the_table_says():
    """A hundred runs of each, as the table was made; what differs is the last bit."""
    for measure, row in power(1000, 100).items():
        for name, share in row.items():
            assert share == pytest.approx(rows()[measure][name], abs=0.03), (measure, name)


def test_power_counts_what_is_outside_of_the_quantiles(monkeypatch):
    from refscore.experiments import measuring

    draws = {name: np.random.default_rng(i) for i, name in enumerate(GENERATORS)}
    monkeypatch.setattr(
        measuring, "judged", lambda name, seed, n: {"one": draws[name].random() + 2 * (name == "narrow")}
    )
    found = power(10, 200, level=0.2)["one"]
    assert found["narrow"] == 1.0
    assert_share(np.arange(200) < 200 * found["true"], 0.2, bias=0.05, alpha=1e-6)
