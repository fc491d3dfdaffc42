"""Distances: against closed forms, against the definition written as loops, and their errors."""

import math
from dataclasses import astuple
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import erf

from refscore import VE, ExactScore, GaussianMixture
from refscore.laws.expectation import Estimate
from refscore.measure.distance import (
    energy_distance,
    fisher_divergence,
    mode_weights,
    score_error,
    sliced_wasserstein,
    sliced_wasserstein_floor,
)
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import assert_mean, assert_spread, assert_within
from tests.oracles.strategies import mixtures, random_mixture, seeds

# ------------------------------------------------------------------ score error


@given(mixtures(), seeds, st.floats(-2.0, 2.0))
def test_score_error_of_a_scaled_score_is_the_square_of_the_excess(p, seed, c):
    sde = VE(0.01, 10.0)
    exact = ExactScore(p, sde)
    x = p.sample(np.random.default_rng(seed), 20)
    estimate = score_error(lambda x, t: (1 + c) * exact(x, t), exact, x, 0.5)
    c = (1 + c) - 1  # what is left of a small one
    rounding = 4e-15 * abs(c) + 1e-30  # u |s| in (1 + c) s, beside c s
    assert estimate.value == pytest.approx(c**2, rel=1e-12, abs=rounding)
    assert estimate.error <= 1e-7 * c**2 + rounding  # the same excess at every x: no sampling error


@given(seeds, st.integers(1, 3))
def test_score_error_is_a_ratio_of_mean_squares(seed, dim):
    rng = np.random.default_rng(seed)
    x, b = rng.standard_normal((30, dim)), rng.standard_normal(dim)
    estimate = score_error(lambda x, t: -x + b * t[:, None], lambda x, t: -x, x, 0.5)
    assert estimate.value == pytest.approx(0.25 * np.sum(b**2) / np.mean(np.sum(x**2, axis=1)), rel=1e-12)


def test_score_error_states_its_standard_error():
    def wrong(x, t):
        return -x + 0.3 * x**2

    rng = np.random.default_rng(0)
    runs = [score_error(wrong, lambda x, t: -x, rng.standard_normal((2000, 2)), 0.5) for _ in range(400)]
    spread = np.std([run.value for run in runs])
    assert_spread([run.value for run in runs], [run.error for run in runs])
    # E off = .09 Σ E x⁴ = .27 per coordinate, E size = 1 per coordinate
    assert_within(np.mean([run.value for run in runs]), 0.27, spread / 20, bias=0.002, n=400)


def test_score_error_takes_images():
    x = np.random.default_rng(0).standard_normal((6, 3, 3, 2))
    estimate = score_error(lambda x, t: -1.5 * x, lambda x, t: -x, x, 0.1)
    assert estimate.value == pytest.approx(0.25, rel=1e-14)


# ------------------------------------------------------------------ sliced Wasserstein


@given(seeds, st.integers(1, 4), st.integers(1, 40))
def test_sliced_wasserstein_of_a_shifted_sample_is_the_shift_seen_along_each_direction(seed, dim, n):
    rng = np.random.default_rng(seed)
    x, c, directions = rng.standard_normal((n, dim)), rng.standard_normal(dim), rng.standard_normal((dim, 9))
    u = directions / np.linalg.norm(directions, axis=0)
    value = sliced_wasserstein(x, x + c, ReplayRng(directions), directions=9)
    assert value == pytest.approx(math.sqrt(np.mean((c @ u) ** 2)), rel=1e-12)
    if dim == 1:
        assert value == pytest.approx(abs(c[0]), rel=1e-12)


def test_sliced_wasserstein_of_a_shift_tends_to_the_shift_over_root_d():
    """E (u·c)² = |c|²/D for a uniform direction u: the directions have length one and no preference."""
    n, D = 5, 3
    c = np.asarray([1.0, 2.0, -2.0])
    x = np.random.default_rng(0).standard_normal((n, D))
    value = sliced_wasserstein(x, x + c, np.random.default_rng(1), directions=100_000)
    # (u·c)² has mean 3 and, like 9 Beta(½, 1), deviation 9 √(4/45)
    assert_within(value**2, 3.0, 9 * math.sqrt(4 / 45) / math.sqrt(100_000), n=100_000)


@given(seeds, st.integers(2, 5))
def test_sliced_wasserstein_in_one_dimension_is_the_best_assignment(seed, n):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 1)), rng.standard_normal((n, 1))
    best = min(np.mean((x[:, 0] - y[list(order), 0]) ** 2) for order in permutations(range(n)))
    assert sliced_wasserstein(x, y, rng, directions=3) == pytest.approx(math.sqrt(best), rel=1e-12)


@given(seeds, st.integers(1, 3), st.floats(0.1, 10.0))
def test_sliced_wasserstein_is_a_distance_between_sets(seed, dim, c):
    rng = np.random.default_rng(seed)
    x, y, z = rng.standard_normal((3, 12, dim))
    directions = rng.standard_normal((dim, 6))

    def d(x, y):
        return sliced_wasserstein(x, y, ReplayRng(directions), directions=6)

    assert d(x, x[rng.permutation(12)]) <= 1e-15
    assert d(x, y) == pytest.approx(d(y, x), rel=1e-14)
    assert d(c * x, c * y) == pytest.approx(c * d(x, y), rel=1e-12)
    assert d(x, z) <= d(x, y) + d(y, z) + 1e-14


def test_sliced_wasserstein_floor_is_the_mean_and_deviation_of_its_runs():
    p = random_mixture(0, 2, 3)
    floor = sliced_wasserstein_floor(p, 50, np.random.default_rng(3), directions=16, repeats=7)
    rng = np.random.default_rng(3)
    values = []
    for _ in range(7):
        x, y = p.sample(rng, 50), p.sample(rng, 50)
        values.append(sliced_wasserstein(x, y, rng, directions=16))
    assert floor.value == pytest.approx(np.mean(values), rel=1e-13)
    assert floor.error == pytest.approx(np.std(values, ddof=1), rel=1e-12)


def test_sliced_wasserstein_floor_falls_with_the_sample():
    p = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.ones(1))
    few, many = (sliced_wasserstein_floor(p, n, np.random.default_rng(1), 32).value for n in (100, 1600))
    # 1/√n, but for the logarithm that normal tails add
    assert 2.5 < few / many < 5


# ------------------------------------------------------------------ energy distance


def by_loops(x, y):
    """The definition, pair by pair."""

    def mean(a, b, skip):
        d = [np.linalg.norm(p - q) for i, p in enumerate(a) for j, q in enumerate(b) if not (skip and i == j)]
        return float(np.mean(d))

    return 2 * mean(x, y, False) - mean(x, x, True) - mean(y, y, True)


@given(seeds, st.integers(1, 3), st.integers(2, 9), st.integers(2, 9))
def test_energy_distance_is_its_definition(seed, dim, n, m):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, dim)), 1 + rng.standard_normal((m, dim))
    assert energy_distance(x, y).value == pytest.approx(by_loops(x, y), rel=1e-12, abs=1e-14)
    assert energy_distance(x, y).value == pytest.approx(energy_distance(y, x).value, rel=1e-12, abs=1e-14)


def test_energy_distance_does_not_depend_on_its_chunks():
    """More rows than one chunk, and a remainder."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1100, 2)), 0.5 + rng.standard_normal((513, 2))

    def mean(a, b):
        return float(np.mean(np.linalg.norm(a[:, None] - b[None], axis=2)))

    expected = 2 * mean(x, y) - mean(x, x) * 1100 / 1099 - mean(y, y) * 513 / 512
    assert energy_distance(x, y).value == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("shift", "scale"), [(1.0, 1.0), (0.3, 2.0), (0.0, 1.5)])
def test_energy_distance_of_two_gaussians_is_closed(shift, scale):
    """E|N(μ, v)| = √(2v/π) exp(-μ²/2v) + μ erf(μ/√(2v))."""

    def folded(mu, v):
        return math.sqrt(2 * v / math.pi) * math.exp(-(mu**2) / (2 * v)) + mu * float(erf(mu / math.sqrt(2 * v)))

    exact = 2 * folded(shift, 1 + scale**2) - folded(0, 2) - folded(0, 2 * scale**2)
    rng = np.random.default_rng(4)
    estimate = energy_distance(rng.standard_normal((3000, 1)), shift + scale * rng.standard_normal((2500, 1)))
    assert 0 < estimate.error < 0.1
    assert_within(estimate.value, exact, estimate.error, n=2500)


def test_energy_distance_is_unbiased_and_states_its_error():
    rng = np.random.default_rng(5)
    shift = np.asarray([0.8, 0.0])
    runs = [energy_distance(rng.standard_normal((40, 2)), shift + rng.standard_normal((60, 2))) for _ in range(500)]
    values = np.asarray([run.value for run in runs])
    assert_spread(values, [run.error for run in runs])
    same = [energy_distance(*rng.standard_normal((2, 30, 2))).value for _ in range(1000)]
    assert_mean(same, 0.0)
    assert min(same) < 0  # without bias it must be, now and then


# ------------------------------------------------------------------ mode weights


def test_mode_weights_are_unbiased_where_modes_overlap():
    p = random_mixture(6, 2, 3, box=1.0)
    estimates = mode_weights(p, p.sample(np.random.default_rng(7), 50_000))
    assert len(estimates) == 3
    for w, estimate in zip(p.weights, estimates, strict=True):
        assert isinstance(estimate, Estimate)
        assert 0 < estimate.error < 0.5 / math.sqrt(50_000)
        assert_within(estimate.value, w, estimate.error, n=50_000)
    assert sum(e.value for e in estimates) == pytest.approx(1.0, abs=1e-12)


def test_mode_weights_count_where_modes_are_apart():
    p = GaussianMixture(np.asarray([0.8, 0.2]), np.asarray([[5.0, 5.0], [-5.0, -5.0]]), np.ones(2))
    x = np.concatenate([np.full((3, 2), 5.0), np.full((1, 2), -5.0)])
    first, second = mode_weights(p, x)
    assert first.value == pytest.approx(0.75, abs=1e-12)
    assert second.value == pytest.approx(0.25, abs=1e-12)
    assert first.error == pytest.approx(math.sqrt(0.75 * 0.25 / 4), rel=1e-10)


# ------------------------------------------------------------------ inputs, back ends


def test_every_distance_runs_on_every_backend(backend):
    rng = np.random.default_rng(8)
    p = random_mixture(9, 2, 3)
    q = GaussianMixture(*(backend.asarray(a) for a in (p.weights, p.means, p.covariances)))
    x, y, u = rng.standard_normal((20, 2)), rng.standard_normal((20, 2)), rng.standard_normal((2, 5))
    X, Y, V = (backend.asarray(a) for a in (x, y, u))
    sde = VE(0.01, 5.0)
    here, there = ExactScore(p, sde), ExactScore(q, sde)
    pairs = [
        (energy_distance(x, y), energy_distance(X, Y)),
        (mode_weights(p, x)[0], mode_weights(q, X)[0]),
        (score_error(lambda x, t: -x, here, x, 0.5), score_error(lambda x, t: -x, there, X, 0.5)),
    ]
    distance = sliced_wasserstein(X, Y, ReplayRng(V), 5)
    assert distance == pytest.approx(sliced_wasserstein(x, y, ReplayRng(u), 5), rel=1e-12)
    for mine, theirs in pairs:
        assert isinstance(theirs.value, float)
        assert astuple(theirs) == pytest.approx(astuple(mine), rel=1e-11, abs=1e-13)
    floor = sliced_wasserstein_floor(q, 10, backend.rng(1), 4, 3)
    assert floor.error > 0


def test_distances_run_without_float64(any_backend):
    rng = any_backend.rng(0)
    x, y = (rng.standard_normal((30, 2), dtype="float32") for _ in range(2))
    p = random_mixture(9, 2, 3)
    q = GaussianMixture(*(any_backend.asarray(a, dtype="float32") for a in (p.weights, p.means, p.covariances)))
    assert math.isfinite(energy_distance(x, y).value)
    assert sliced_wasserstein(x, y, rng) > 0
    assert sum(e.value for e in mode_weights(q, x)) == pytest.approx(1.0, abs=1e-5)
    assert score_error(lambda x, t: -1.1 * x, lambda x, t: -x, x, 0.5).value == pytest.approx(0.01, rel=1e-4)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (np.asarray([[0.0, math.nan], [0.0, 0.0]]), ValueError, r"1 values that are not finite.*\[0, 1\]"),
        (np.zeros(4), ValueError, "at least 2 axes"),
        (np.zeros((0, 2)), ValueError, "empty"),
        (np.zeros((4, 3)), ValueError, r"\(N, D\)|same shape"),
        (np.zeros((4, 2, 1)), ValueError, r"\(N, D\)"),
        (np.zeros((4, 2), dtype="float32"), TypeError, "float32"),
        (np.zeros((4, 2), dtype=int), TypeError, "int"),
        ([[0.0, 1.0]], TypeError, "list"),
    ],
)
def test_samples_that_do_not_fit_are_refused(which, bad, error, message):
    pair = [np.ones((4, 2)), np.ones((4, 2))]
    pair[which] = bad
    with pytest.raises(error, match=message):
        energy_distance(*pair)
    with pytest.raises(error, match=message):
        sliced_wasserstein(*pair, np.random.default_rng(0))


def test_samples_must_be_large_enough_and_alike():
    p = random_mixture(0, 2, 3)
    assert math.isfinite(fisher_divergence(p, p.score, np.random.default_rng(0), samples=2).error)
    with pytest.raises(ValueError, match="samples must be an integer of at least 2"):
        fisher_divergence(p, p.score, np.random.default_rng(0), samples=1)
    with pytest.raises(ValueError, match="at least 2 rows, got 1 and 4"):
        energy_distance(np.ones((1, 2)), np.ones((4, 2)))
    with pytest.raises(ValueError, match="at least 2 rows, got 4 and 1"):
        energy_distance(np.ones((4, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="same shape"):
        sliced_wasserstein(np.ones((3, 2)), np.ones((4, 2)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="not finite"):
        mode_weights(random_mixture(0, 2, 2), np.full((3, 2), math.inf))
    with pytest.raises(ValueError, match="not finite"):
        score_error(lambda x, t: x, lambda x, t: x, np.full((3, 2), math.inf), 0.5)
