"""Discrepancies of a kernel: against loops, against their closed forms, and what they are blind to."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import GaussianMixture
from refscore.laws.empirical import empirical
from refscore.laws.expectation import expectation
from refscore.measure.distance import energy_distance, fisher_divergence
from refscore.measure.kernels import kernel_mean, mmd, stein_discrepancy
from tests.oracles.statistics import assert_spread, assert_within
from tests.oracles.strategies import random_mixture, seeds

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
widths = st.floats(0.3, 3.0)


def kernel(x, y, h):
    return math.exp(-np.sum((x - y) ** 2) / (2 * h**2))


def one(mean, variance):
    return GaussianMixture(np.ones(1), np.array([[mean]]), np.array([variance]))


def line(weights, distance):
    return GaussianMixture(np.array(weights), np.array([[0.0], [distance]]), np.ones(2))


# ------------------------------------------------------------------ two samples


@given(seeds, st.integers(2, 6), st.integers(2, 6), st.integers(1, 3), widths)
def test_mmd_is_the_definition_pair_by_pair(seed, n, m, dim, h):
    """Eq. (20.5)."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, dim)), rng.standard_normal((m, dim))
    xx = np.mean([kernel(a, b, h) for a, b in itertools.permutations(x, 2)])
    yy = np.mean([kernel(a, b, h) for a, b in itertools.permutations(y, 2)])
    xy = np.mean([kernel(a, b, h) for a in x for b in y])
    assert mmd(x, y, h).value == pytest.approx(xx + yy - 2 * xy, rel=1e-10, abs=1e-14)


@given(seeds, st.sampled_from([(1, 1), (2, 3), (3, 2)]), st.sampled_from([1, 2]), widths)
def test_the_mean_of_the_kernel_is_a_closed_form(seed, sizes, dim, h):
    """Eq. (20.6): the mean over y is a mixture's density, that over x a quadrature; of points, the mean over pairs."""
    p, q = (random_mixture(seed + i, dim, k) for i, k in enumerate(sizes))
    factor = (2 * math.pi * h**2) ** (dim / 2)
    integral = expectation(p, lambda x: factor * np.exp(q.log_prob(x, 1.0, h)), np.random.default_rng(0), 10)
    if integral.error < 1e-9:  # else the grid would be too large
        assert kernel_mean(p, q, h) == pytest.approx(integral.value, abs=1e-9)
    x, y = (np.random.default_rng(seed + i).standard_normal((k, dim)) for i, k in enumerate(sizes))
    pairs = np.mean([kernel(a, b, h) for a in x for b in y])
    assert kernel_mean(empirical(x), empirical(y), h) == pytest.approx(pairs, rel=1e-11)


@pytest.mark.parametrize(("sizes", "h"), [((2, 2), 0.5), ((2, 3), 2.0)])
def test_over_all_samples_of_one_law_the_bias_with_the_pairs_of_a_point_with_itself_is_known(sizes, h):
    """Eq. (20.7): the law is of three points, so that all its samples can be counted; without those pairs it is 0."""
    atoms, (n, m) = np.random.default_rng(0).standard_normal((3, 1)), sizes
    with_own, without = [], []
    for which in itertools.product(range(3), repeat=n + m):
        x, y = atoms[list(which[:n])], atoms[list(which[n:])]
        p, q = empirical(x), empirical(y)
        with_own.append(kernel_mean(p, p, h) + kernel_mean(q, q, h) - 2 * kernel_mean(p, q, h))
        without.append(mmd(x, y, h).value)
    law = empirical(atoms)
    assert np.mean(with_own) == pytest.approx((1 / n + 1 / m) * (1 - kernel_mean(law, law, h)), rel=1e-9)
    assert abs(np.mean(without)) < 1e-12


@given(seeds, st.integers(2, 8), st.integers(2, 8))
def test_the_energy_distance_on_a_line_is_the_squared_area_between_the_distribution_functions(seed, n, m):
    """Eq. (20.8): of two lists of points, each pair counted, those of a point with itself as well."""
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, 1)), rng.standard_normal((m, 1))
    at = np.sort(np.concatenate([x, y])[:, 0])
    F, G = ((z <= at).mean(axis=0) for z in (x, y))
    area = 2 * np.sum((F - G)[:-1] ** 2 * np.diff(at))
    own = sum(np.abs(z - z.T).sum() / len(z) ** 2 / (len(z) - 1) for z in (x, y))
    assert energy_distance(x, y).value + own == pytest.approx(area, rel=1e-10, abs=1e-13)


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 20), widths)
def test_lost_weight_costs_its_square_times_the_distance_of_the_modes(w, v, d, h):
    """Eq. (20.9): for the kernel by closed forms; the energy by the distribution functions, exact for any kernel."""
    p, q, (a, b) = line([w, 1 - w], d), line([v, 1 - v], d), (one(0.0, 1.0), one(d, 1.0))

    def squared(p, q):
        return kernel_mean(p, p, h) + kernel_mean(q, q, h) - 2 * kernel_mean(p, q, h)

    assert squared(p, q) == pytest.approx((w - v) ** 2 * squared(a, b), abs=1e-12)
    assert squared(a, b) <= 2 * h / math.sqrt(h**2 + 2) + 1e-12


@pytest.mark.parametrize("law", ["one", "shifted"])
def test_the_stated_error_of_mmd_is_its_spread(law):
    rng, shift = np.random.default_rng(0), np.array([0.8, 0.0])
    if law == "one":  # the estimate is unbiased: its mean is 0
        values = np.array([mmd(*rng.standard_normal((2, 50, 2)), 1.0).value for _ in range(400)])
        assert_within(values.mean(), 0.0, values.std() / 20, n=400)
        return
    runs = [mmd(rng.standard_normal((150, 2)), shift + rng.standard_normal((150, 2)), 1.0) for _ in range(300)]
    assert_spread([run.value for run in runs], [run.error for run in runs])


# ------------------------------------------------------------------ a sample and a score


def stein_mean(p, score, h):
    """E u(x, x') for x, x' ~ N(m, v): u is the estimate of two points, the mean by Gauss-Hermite."""
    x = p.means[0, 0] + math.sqrt(p.covariances[0]) * NODES
    u = [[stein_discrepancy(score, np.array([[a], [b]]), h).value for b in x] for a in x]
    return float(WEIGHTS @ np.array(u) @ WEIGHTS)


@pytest.mark.parametrize(("m", "v"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.5), (-0.4, 1.5)])
def test_the_stein_discrepancy_is_the_kernel_mean_of_the_difference_of_the_scores(m, v):
    """Eqs. (20.10), (20.11): for N(m, v) beside the score of N(0, 1), by quadrature; 0 where they are one law."""
    p, h = one(m, v), 2.0
    x = m + math.sqrt(v) * NODES
    off = -x + (x - m) / v
    exact = (WEIGHTS * off) @ np.exp(-((x[:, None] - x) ** 2) / (2 * h**2)) @ (WEIGHTS * off)
    found = stein_mean(p, lambda x: -x, h)
    assert found == pytest.approx(exact, abs=1e-9)
    assert found <= 2 * fisher_divergence(p, lambda x: -x).value + 1e-9
    if v == 1:  # the difference m is the same everywhere
        assert found == pytest.approx(m**2 * kernel_mean(p, p, h), abs=1e-9)


@given(seeds, st.integers(2, 7), st.integers(1, 3), widths)
def test_the_stein_kernel_is_two_derivatives_of_the_kernel(seed, n, dim, h):
    """Eq. (20.10), by difference quotients: (s(x) + ∇_x)·(s(y) + ∇_y) k(x, y)."""
    rng, eps, total = np.random.default_rng(seed), 1e-4, 0.0
    x, score = rng.standard_normal((n, dim)), lambda x: np.sin(x) - x
    for a, b in itertools.permutations(x, 2):
        s, t = score(a[None])[0], score(b[None])[0]
        for e in eps * np.eye(dim):
            up, down = kernel(a + e, b, h), kernel(a - e, b, h)
            mixed = (
                kernel(a + e, b + e, h) - kernel(a + e, b - e, h) - kernel(a - e, b + e, h) + kernel(a - e, b - e, h)
            )
            d = int(np.argmax(e))
            slope = (up - down) / (2 * eps)  # along x; along y it is the negative
            total += s[d] * t[d] * kernel(a, b, h) + (t[d] - s[d]) * slope + mixed / (4 * eps**2)
    assert stein_discrepancy(score, x, h).value == pytest.approx(total / (n * (n - 1)), abs=3e-5)


def test_the_stein_discrepancy_is_as_blind_as_the_fisher_divergence():
    """Eq. (20.11): of weights ½ for ⅘, falling as exp(-d²/8); the squared MMD stays."""
    found = []
    for d in (4.0, 8.0, 12.0):
        p, q = line([0.8, 0.2], d), line([0.5, 0.5], d)
        x = np.linspace(-8, d + 8, 1500)[:, None]
        mass = np.exp(p.log_prob(x)) * (x[1, 0] - x[0, 0])
        push = mass * (q.score(x) - p.score(x))[:, 0]
        found.append(push @ np.exp(-((x - x.T) ** 2) / 8) @ push)
        assert 0 < found[-1] <= 2 * fisher_divergence(p, q.score).value
        parted = kernel_mean(p, p, 2.0) + kernel_mean(q, q, 2.0) - 2 * kernel_mean(p, q, 2.0)
        assert parted > 0.05
    assert found[0] > 1e-3 > 1e-6 > found[1] > 1e-10 > found[2]


def test_the_stein_discrepancy_is_without_bias_and_states_its_error():
    rng, m = np.random.default_rng(1), np.array([0.5, 0.0])
    true = [stein_discrepancy(lambda x: -x, rng.standard_normal((60, 2)), 2.0).value for _ in range(400)]
    assert_within(np.mean(true), 0.0, np.std(true) / 20, n=400)
    runs = [stein_discrepancy(lambda x: -x, m + rng.standard_normal((150, 2)), 2.0) for _ in range(300)]
    p = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.ones(1))
    spread = np.std([run.value for run in runs])
    assert_within(np.mean([run.value for run in runs]), 0.25 * kernel_mean(p, p, 2.0), spread / math.sqrt(300), n=300)
    assert_spread([run.value for run in runs], [run.error for run in runs])


def test_blocks_change_nothing():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 1))  # more than one block
    s, gap = np.sin(x), x - x.T
    u = np.exp(-(gap**2) / 2) * (s * s.T + (s - s.T) * gap + 1 - gap**2)
    exact = (u.sum() - np.trace(u)) / (600 * 599)
    assert stein_discrepancy(np.sin, x, 1.0).value == pytest.approx(exact, rel=1e-10)


def test_what_does_not_fit_is_refused():
    x, p = np.zeros((3, 2)), random_mixture(0, 2, 2)
    for call in (
        lambda: mmd(x, x, 0.0), lambda: mmd(x, x[:1], 1.0), lambda: kernel_mean(p, random_mixture(0, 1, 2), 1.0),
        lambda: kernel_mean(p, p, -1.0), lambda: stein_discrepancy(p.score, x[:1], 1.0),
        lambda: stein_discrepancy(p.score, np.zeros((2, 2, 1)), 1.0), lambda: stein_discrepancy(np.sum, x, 1.0),
        lambda: stein_discrepancy(p.score, x, math.nan),
    ):  # fmt: skip
        with pytest.raises((ValueError, TypeError)):
            call()
    with pytest.raises(TypeError, match="function of x alone"):
        stein_discrepancy(p, x, 1.0)
