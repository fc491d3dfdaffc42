"""Memorising and generalising: the bias and variance of memory, when modes part, and when points are told apart."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import GaussianMixture
from refscore.laws.empirical import collapse_level, empirical
from refscore.laws.expectation import expectation
from refscore.measure.kernels import kernel_mean
from tests.oracles.statistics import assert_within
from tests.oracles.strategies import seeds

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
ONE = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
levels = st.floats(0.2, 4.0)


@given(seeds, st.integers(1, 5), st.integers(1, 3), levels)
def test_the_empirical_score_points_to_a_mean_of_the_points(seed, n, dim, sigma):
    """Eq. (21.1), as loops."""
    rng = np.random.default_rng(seed)
    points, x = rng.standard_normal((n, dim)), rng.standard_normal(dim)
    near = [math.exp(-np.sum((x - p) ** 2) / (2 * sigma**2)) for p in points]
    mean = sum(w * p for w, p in zip(near, points, strict=True)) / sum(near)
    found = empirical(points).score(x[None], 1.0, sigma)[0]
    assert found == pytest.approx((mean - x) / sigma**2, rel=1e-9, abs=1e-12)


# ------------------------------------------------------------------ bias and variance


def square(p, q, sigma):
    """∫ (p - q)² of two laws with noise: the kernel of width √2 σ, but for a factor."""
    h = math.sqrt(2) * sigma
    mean = kernel_mean(p, p, h) + kernel_mean(q, q, h) - 2 * kernel_mean(p, q, h)
    return mean / (2 * math.pi * h**2) ** (p.dim / 2)


@pytest.mark.parametrize(("n", "dim", "sigma"), [(1, 1, 0.5), (2, 2, 0.3), (3, 1, 2.0)])
def test_memory_is_an_unbiased_density_and_all_its_error_is_variance(n, dim, sigma):
    """Eq. (21.2): the law is of three points, so that all sets of n can be counted."""
    atoms, at = np.random.default_rng(0).standard_normal((3, dim)), np.random.default_rng(1).standard_normal((4, dim))
    law = empirical(atoms)
    sets = [empirical(atoms[list(which)]) for which in itertools.product(range(3), repeat=n)]
    mean = np.mean([np.exp(p.log_prob(at, 1.0, sigma)) for p in sets], axis=0)
    assert mean == pytest.approx(np.exp(law.log_prob(at, 1.0, sigma)), rel=1e-12)
    own = (4 * math.pi * sigma**2) ** (-dim / 2)
    size = own * kernel_mean(law, law, math.sqrt(2) * sigma)  # ∫ p_σ²
    assert np.mean([square(p, law, sigma) for p in sets]) == pytest.approx((own - size) / n, rel=1e-9)


@given(st.integers(1, 1000), st.integers(1, 40), levels)
def test_the_relative_error_of_memory_is_the_likelihood_ratio_over_n(n, dim, sigma):
    """Eq. (21.3): for N(0, I), by Eq. (21.2), and about 1 at the collapse level."""
    law = GaussianMixture(np.ones(1), np.zeros((1, dim)), np.ones(1))
    size = kernel_mean(law, law, math.sqrt(2) * sigma)  # ∫ p_σ² over (4πσ²)^(-D/2)
    assert (1 - size) / (n * size) == pytest.approx(((1 + sigma**-2) ** (dim / 2) - 1) / n, rel=1e-7)
    if n > 2:
        c = collapse_level(n, dim)
        assert ((1 + c**-2) ** (dim / 2) - 1) / n == pytest.approx((n - 2) / n, rel=1e-7)


def widened(n, sigma, h, dim=1):
    S, v = 1 + sigma**2, sigma**2 + h**2
    variance = ((4 * math.pi * v) ** (-dim / 2) - (4 * math.pi * (S + h**2)) ** (-dim / 2)) / n
    cross = 2 * (2 * math.pi * (2 * S + h**2)) ** (-dim / 2)
    return variance, (4 * math.pi * (S + h**2)) ** (-dim / 2) - cross + (4 * math.pi * S) ** (-dim / 2)


@given(st.integers(1, 50), st.floats(0.1, 2.0), st.floats(0.0, 1.5))
def test_the_error_of_widened_memory_is_variance_and_squared_bias(n, sigma, h):
    """Eq. (21.4): both by quadrature on a line; without width it is Eq. (21.2)."""

    def normal(x, v):
        return np.exp(-(x**2) / (2 * v)) / np.sqrt(2 * math.pi * v)

    x = np.linspace(-12, 12, 1201)
    cell, v = x[1] - x[0], sigma**2 + h**2
    mean = normal(x, 1 + v)
    second = cell * normal(x[:, None] - x, v / 2) @ normal(x, 1.0) / math.sqrt(4 * math.pi * v)
    variance, bias = widened(n, sigma, h)
    assert variance == pytest.approx(cell * np.sum(second - mean**2) / n, rel=1e-6)
    assert bias == pytest.approx(cell * np.sum((mean - normal(x, 1 + sigma**2)) ** 2), rel=1e-6, abs=1e-12)
    assert widened(n, sigma, 0.0)[1] == pytest.approx(0.0, abs=1e-14)


def test_the_widened_law_is_the_empirical_one_with_width():
    """Eq. (21.4) in the plane, by means over sets of points."""
    n, sigma, h, rng = 5, 0.4, 0.3, np.random.default_rng(0)
    law, found = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.ones(1)), []
    for _ in range(400):
        p = GaussianMixture(np.full(n, 1 / n), rng.standard_normal((n, 2)), np.full(n, h**2))
        found.append(square(p, law, sigma))
    assert_within(np.mean(found), sum(widened(n, sigma, h, 2)), np.std(found) / math.sqrt(400), n=400)


@given(levels, seeds, st.integers(2, 6))
def test_what_memory_costs_on_fresh_data_with_one_point_and_at_large_noise(sigma, seed, n):
    """Eq. (21.5): by Gauss-Hermite over the point and the fresh x; and 2 σ⁴ times it tends to |mean of the points|²."""
    S = 1 + sigma**2
    x, total = math.sqrt(S) * NODES[:, None], 0.0
    for w, point in zip(WEIGHTS, NODES, strict=True):
        off = empirical(np.array([[point]])).score(x, 1.0, sigma) - ONE.score(x, 1.0, sigma)
        total += w * 0.5 * float(WEIGHTS @ off[:, 0] ** 2)
    assert total == pytest.approx((1 + 1 / S) / (2 * sigma**4), rel=1e-9)
    points, far = np.random.default_rng(seed).standard_normal((n, 1)), 1e3
    off = empirical(points).score(far * NODES[:, None], 1.0, far) - ONE.score(far * NODES[:, None], 1.0, far)
    assert far**4 * (WEIGHTS @ off[:, 0] ** 2) == pytest.approx((points.sum() / n) ** 2, abs=1e-4)


# ------------------------------------------------------------------ when modes part


@given(st.floats(0.5, 4.0), st.floats(0.05, 0.9), st.integers(1, 3), levels)
def test_the_middle_turns_from_a_top_into_a_pass_at_the_speciation_level(size, share, dim, sigma):
    """Eq. (21.6): the slope of the score at 0 along the modes, and the rest points of the flow on that line."""
    m, v = size * np.eye(dim)[0], share * size**2
    p = GaussianMixture(np.full(2, 0.5), np.stack([m, -m]), np.full(2, v))
    S = v + sigma**2
    slope = p.score_jvp(np.zeros((1, dim)), m[None] / size, 1.0, sigma)[0, 0]
    assert slope == pytest.approx((size**2 - S) / S**2, rel=1e-9, abs=1e-12)
    level = math.sqrt(size**2 - v)
    for factor, rests in ((1.05, 1), (0.95, 3)):
        line = np.linspace(-1.2, 1.2, 4000)[:, None] * m
        s = p.score(line, 1.0, factor * level)[:, 0]
        assert np.sum(np.diff(np.sign(s)) != 0) == rests


@given(st.floats(0.5, 4.0), levels)
def test_two_completions_agree_on_the_mode_with_a_chance_that_depends_on_one_number(size, sigma):
    """Eq. (21.7): the chance by responsibilities on a grid, and by one normal integral of κ = |m|²/S."""
    v = 0.3
    p = GaussianMixture(np.full(2, 0.5), np.array([[size], [-size]]), np.full(2, v)).diffuse(1.0, sigma)
    exact = expectation(p, lambda x: np.sum(p.responsibilities(x) ** 2, axis=1), None, 0).value
    kappa, z = size**2 / (v + sigma**2), np.linspace(-9, 9, 4001)
    normal = np.exp(-(z**2) / 2) * (z[1] - z[0]) / math.sqrt(2 * math.pi)
    found = 0.5 + 0.5 * normal @ np.tanh(kappa + math.sqrt(kappa) * z) ** 2
    assert found == pytest.approx(exact, abs=1e-6)
    assert found == pytest.approx(0.5 + 0.5 * normal @ np.tanh(kappa + math.sqrt(kappa) * z), abs=1e-6)


# ------------------------------------------------------------------ when points are told apart


@given(seeds, st.integers(2, 6), st.floats(0.3, 2.0))
def test_the_weight_of_the_origin_is_the_sum_of_squares_of_the_weights(seed, n, sigma):
    """Eq. (21.8): the index is drawn from the weights, given x; both sides by quadrature, for any points."""
    points = np.random.default_rng(seed).uniform(-1, 1, (n, 1))
    p = empirical(points)
    own = np.mean([WEIGHTS @ p.responsibilities(a + sigma * NODES[:, None], 1.0, sigma)[:, i]
                   for i, a in enumerate(points)])  # fmt: skip
    q = p.diffuse(1.0, sigma)
    assert own == pytest.approx(
        expectation(q, lambda x: np.sum(q.responsibilities(x) ** 2, axis=1), None, 0).value, abs=1e-6
    )


@given(st.integers(3, 10**6), st.integers(1, 500))
def test_at_the_collapse_level_a_noisy_point_tells_as_much_as_the_number_of_the_others(n, dim):
    """Eq. (21.9): the mutual information of x₀ and x₀ + σ z is log(n - 1)."""
    sigma = collapse_level(n, dim)
    assert 0.5 * dim * math.log1p(sigma**-2) == pytest.approx(math.log(n - 1), rel=1e-9)


def log_odds(n, sigma, x0, z):
    """The others' expected weight against that of the origin, in the log."""
    dim, S = x0.shape[1], 1 + sigma**2
    away = np.sum(z**2, axis=1) - np.sum((x0 + sigma * z) ** 2, axis=1) / S
    return math.log(n - 1) - 0.5 * dim * math.log1p(sigma**-2) + 0.5 * away


@given(seeds, levels, st.integers(1, 4))
def test_the_log_odds_of_the_others_have_a_symmetric_law(seed, sigma, dim):
    """Eq. (21.10): each term a product of two standard normal numbers; and the others' mean weight in closed form."""
    rng, n, S = np.random.default_rng(seed), 7, 1 + sigma**2
    x0, z = rng.standard_normal((2, 5, dim))
    u = (z - (x0 + sigma * z) / math.sqrt(S)) / math.sqrt(2 * (1 - sigma / math.sqrt(S)))
    v = (z + (x0 + sigma * z) / math.sqrt(S)) / math.sqrt(2 * (1 + sigma / math.sqrt(S)))
    found = log_odds(n, sigma, x0, z)
    told = math.log(n - 1) - 0.5 * dim * math.log1p(sigma**-2) + np.sum(u * v, axis=1) / math.sqrt(S)
    assert found == pytest.approx(told, rel=1e-6, abs=1e-6)
    # as linear maps of x0, z: variance 1 each, no covariance
    a, b = np.array([1.0, sigma]) / math.sqrt(S), np.array([0.0, 1.0])
    U, V = (b - a) / math.sqrt(2 - 2 * a @ b), (b + a) / math.sqrt(2 + 2 * a @ b)
    assert pytest.approx([1, 1, 0], abs=1e-9) == [U @ U, V @ V, U @ V]
    law = GaussianMixture(np.ones(1), np.zeros((1, dim)), np.ones(1))
    x = x0[:1] + sigma * z[:1]
    ratio = (n - 1) * kernel_mean(empirical(x), law, sigma) / math.exp(-0.5 * np.sum(z[0] ** 2))
    assert math.log(ratio) == pytest.approx(found[0], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("dim", [2, 8, 40])
def test_the_origin_weighs_more_than_the_bound_which_is_one_half_at_the_collapse_level(dim):
    """Eq. (21.10)."""
    n, rng = 60, np.random.default_rng(dim)
    for factor in (0.7, 1.0, 1.5):
        sigma = factor * collapse_level(n, dim)
        bound = 1 / (1 + np.exp(log_odds(n, sigma, *rng.standard_normal((2, 4000, dim)))))
        if factor == 1:
            assert_within(bound.mean(), 0.5, bound.std() / math.sqrt(4000), sees=0.1, n=4000)
        points, z = rng.standard_normal((300, n, dim)), rng.standard_normal((300, dim))
        away = np.sum((points[:, :1] + sigma * z[:, None] - points) ** 2, axis=2) / (2 * sigma**2)
        own = 1 / np.sum(np.exp(away[:, :1] - away), axis=1)
        short = min(own.mean() - bound.mean(), 0.0)
        assert_within(short, 0.0, math.hypot(own.std() / math.sqrt(300), bound.std() / math.sqrt(4000)), n=300)


@given(seeds, st.integers(3, 1000))
def test_with_unequal_variances_the_bound_is_one_half_where_the_information_is_log_of_the_others(seed, n):
    """Eq. (21.11): the others' weight in closed form; its log odds only change sign when noise and x are exchanged."""
    rng = np.random.default_rng(seed)
    lam, sigma = rng.uniform(0.1, 4.0, 3), rng.uniform(0.3, 2.0)
    law = GaussianMixture(np.ones(1), np.zeros((1, 3)), lam[None])
    z, other = rng.standard_normal((2, 1, 3))  # noise, and x over its deviations: exchangeable
    information = 0.5 * np.sum(np.log1p(lam / sigma**2))

    def odds(z, over):
        x = np.sqrt(lam + sigma**2) * over
        sum_of_others = math.log(n - 1) + math.log(kernel_mean(empirical(x), law, sigma))
        return sum_of_others + 0.5 * np.sum(z**2) - (math.log(n - 1) - information)

    assert odds(z, other) == pytest.approx(-odds(other, z), rel=1e-7, abs=1e-7)


def test_two_points_never_collapse_and_are_refused():
    for n, dim in ((2, 3), (5, 0)):
        with pytest.raises(ValueError, match="at least"):
            collapse_level(n, dim)
