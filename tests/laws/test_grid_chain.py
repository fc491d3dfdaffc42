"""The law of a 1-D sampler on a grid: what it conserves, how exact it is, what it refuses.

One rule is at work: the sum over points of width h of a Gaussian of deviation c differs from its integral by
2 exp(-2π² c²/h²), relatively (Poisson). ALIAS is that number. It is below rounding for h <= 0.7 c.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import norm

from refscore import VE, ExactScore, GaussianMixture, Langevin, simulate
from refscore.laws.grid_chain import GridLaw, gap, grid_law, langevin_law
from refscore.noise.grids import geometric_levels, level_times
from refscore.sampling.compose import First, Repeat, Stay
from refscore.sampling.loop import last
from tests.oracles.mixtures import TWO
from tests.oracles.statistics import assert_cdf, dkw


def alias(h, c):
    return 2 * math.exp(-2 * (math.pi * c / h) ** 2)


def cells(half, h):
    return math.ceil(2 * half / h)


# ------------------------------------------------------------------ one step


@given(ratio=st.floats(0.5, 0.999), shift=st.floats(-1.0, 1.0))
def test_a_row_is_a_gaussian_of_the_given_mean_and_variance(ratio, shift):
    """Eq. (2.8): total 1, mean m and variance c², up to ALIAS times 1, 2π c²/h and (2π c²/h)²."""
    c, half = 0.3, 6.0
    law = grid_law(-half, half, cells(half, ratio * c), ndtr)
    row = law.transition(lambda x: 0 * x + shift, c)[0]
    x, h = law.centres, law.width
    wave, room = 2 * math.pi * c**2 / h, alias(h, c) + 1e-14  # derivatives of the aliased wave; rounding
    assert abs(row.sum() - 1) <= room
    assert abs(row @ (x - shift)) <= room * wave
    assert abs(row @ (x - shift) ** 2 - c**2) <= room * (wave**2 + c**2)


def test_the_bound_on_the_aliasing_is_reached():
    """At h = c the worst row is off by 5.4e-9: the bound above is no larger than it has to be."""
    c, n = 0.25, 64
    law = GridLaw(-8.0, 8.0, np.full(n, 1 / n))
    assert law.width == c
    for shift, sign in ((0.5 * c, 1), (0.0, -1)):  # on a centre, on an edge
        row = law.transition(lambda x, shift=shift: 0 * x + shift, c)[0]
        assert abs((row.sum() - 1) / (sign * alias(c, c)) - 1) <= 1e-6


@given(shift=st.floats(-4.0, 4.0))
def test_what_leaves_the_interval_is_lost_and_nothing_else(shift):
    """Near the end of the interval to the order of the rectangle rule, h²/24 times the slope there."""
    c = 0.3
    law = GridLaw(-3.0, 3.0, np.eye(40)[20])
    after = law.push(law.transition(lambda x: 0 * x + shift, c))
    inside = float(ndtr((3 - shift) / c) - ndtr((-3 - shift) / c))
    assert abs(1 - after.lost - inside) <= law.width**2 / 24 * 0.242 / c**2 * 2 + 1e-9  # max |φ'| = 0.242
    assert abs(after.mass.sum() + after.lost - 1) <= 1e-15


def test_mass_is_kept_over_ten_thousand_steps():
    law = grid_law(-6.0, 6.0, 120, lambda x: ndtr(x / 0.7))
    step = law.transition(lambda x: x + 0.02 * TWO.score(x[:, None])[:, 0], 0.2)
    assert abs(law.push(step, 10_000).lost) <= 10_000 * 1e-15 + law.lost + 1e-12  # a rounding a step; h = c/2


def test_many_steps_at_once_are_many_steps():
    law = grid_law(-4.0, 4.0, 60, lambda x: ndtr(x - 1))
    step = law.transition(lambda x: 0.9 * x, 0.3)
    assert np.array_equal(law.push(step, 0).mass, law.mass)
    mass = law.mass
    for _ in range(241):
        mass = mass @ step
    np.testing.assert_allclose(law.push(step, 241).mass, mass, rtol=1e-11)  # by squaring: more than 4 n
    np.testing.assert_allclose(law.push(step, 100).push(step, 141).mass, mass, rtol=1e-12)


# ------------------------------------------------------------------ the law of Langevin dynamics


@pytest.mark.parametrize("ratio", [0.5, 0.7, 0.98])
@pytest.mark.parametrize("n", [1, 4, 40, 2000])
def test_on_a_gaussian_the_grid_has_the_closed_law(n, ratio):
    """Eqs. (2.5), (2.8). Cells at the start add h²/12 to v₀, and nothing else ever does.

    v_n = v_∞ + (1 - ε/σ²)²ⁿ (v₀ + h²/12 - v_∞)
    """
    variance, mean, eps, half = 0.5, 0.3, 0.1, 7.0
    c, a = math.sqrt(2 * eps), 1 - eps / variance
    start = grid_law(-half, half, cells(half, ratio * c), lambda x: ndtr((x - 1.0) / 0.6))
    law = langevin_law(start, lambda x, t: (mean - x) / variance, [0.5], lambda t: eps, n)
    limit = variance / (1 - eps / (2 * variance))
    found = law.mean(lambda x: x)
    v = law.mean(lambda x: (x - found) ** 2)
    h = start.width
    # Every step errs by ALIAS (2π c²/h)² in the second moment; steps are forgotten at the rate 1 - a². The centres
    # drift out of phase with the mass, whence n in the total.
    wave = (2 * math.pi * c**2 / h) ** 2
    allowed = alias(h, c) * (wave / (1 - a**2) + n) + 1e-12
    assert abs(law.lost) <= n * alias(h, c) + 1e-12
    assert abs(found - (mean + a**n * (1.0 - mean))) <= allowed
    assert abs(v - (limit + a ** (2 * n) * (0.36 + h**2 / 12 - limit))) <= allowed


def test_tails_keep_their_relative_precision():
    """Eleven orders of magnitude beyond where 1 - (1 - tiny) is lost: no number here is a difference."""
    variance, eps, half = 0.5, 0.1, 14.0
    c, a = math.sqrt(2 * eps), 1 - eps / variance
    n = cells(half, 0.5 * c)
    start = GridLaw(-half, half, 2 * half / n * norm.pdf(np.linspace(-half, half, 2 * n + 1)[1::2], 0, 0.8))
    for times in (1, 3, 30):
        law = langevin_law(start, lambda x, t: -x / variance, [0.5], lambda t: eps, times)
        limit = variance / (1 - eps / (2 * variance))
        v = limit + a ** (2 * times) * (0.64 - limit)
        seen = np.abs(law.centres) < 8  # the start was cut at 14
        exact = law.width * norm.pdf(law.centres, 0, math.sqrt(v))
        assert exact[seen].min() < 1e-17
        np.testing.assert_allclose(law.mass[seen], exact[seen], rtol=1e-12)


def test_the_eigenvalues_are_those_of_the_gaussian_chain():
    """1, a, a² ..., a = 1 - ε/σ²: the gap is ε/σ², and 2 - ε/σ² where the step overshoots."""
    for variance, eps in ((0.5, 0.1), (2.0, 0.1), (0.1, 0.17)):
        c = math.sqrt(2 * eps)
        half = 9 * math.sqrt(variance / (1 - eps / (2 * variance)))
        law = grid_law(-half, half, cells(half, 0.5 * c), ndtr)
        step = law.transition(lambda x, r=eps / variance: (1 - r) * x, c)
        assert abs(gap(step) - min(eps / variance, 2 - eps / variance)) <= 1e-11


def test_the_grid_is_the_law_of_the_real_code_on_a_mixture():
    """50 steps of `Langevin` under `simulate` from N(0, 1), against the grid.

    A chain with 1.1 times the noise would be 0.017 away, allowed are 0.0105: the test tells them apart.
    """
    eps, moves, n = 0.04, 50, 100_000
    score = ExactScore(TWO, VE(0.01, 10.0))
    step = First(Repeat(Langevin(score, eps), moves), Stay())
    rng = np.random.default_rng(0)
    x = last(simulate(step, rng.standard_normal((n, 1)), [0.0, 1e-9], rng))[:, 0]

    start = grid_law(-6.0, 6.0, 200, ndtr)
    law = langevin_law(start, score, [0.0], lambda t: eps, moves)
    exact = np.concatenate([[0], np.cumsum(law.mass)])
    # mass is at centres: h²/24 of the slope of the density
    assert_cdf(x, lambda edges: exact, at=start.edges, bias=1e-4)

    step_up = start.transition(lambda x: x + eps * TWO.score(x[:, None])[:, 0], 1.1 * math.sqrt(2 * eps))
    louder = np.concatenate([[0], np.cumsum(start.push(step_up, moves).mass)])
    assert np.max(np.abs(exact - louder)) > dkw(n) + dkw(n, 1e-3) + 1e-4  # seen in 999 of 1000 runs


def test_the_levels_are_walked_in_order():
    """The moments of an annealed chain on N(0, s²) + noise, level by level, each with its own step."""
    p, sde = GaussianMixture(np.ones(1), np.array([[0.7]]), np.array([0.3])), VE(0.01, 10.0)
    times = level_times(sde, geometric_levels(2.0, 0.5, 4))[:-1]

    def eps(t):
        return 0.1 * sde.sigma(t) ** 2

    start = grid_law(-25.0, 25.0, 500, lambda x: ndtr((x - 3) / 2))
    law = langevin_law(start, ExactScore(p, sde), times, eps, 5)
    m, v = start.mean(lambda x: x), start.mean(lambda x: x * x) - start.mean(lambda x: x) ** 2
    for t in times:
        for _ in range(5):
            a = 1 - eps(t) / (0.3 + sde.sigma(t) ** 2)
            m, v = 0.7 + a * (m - 0.7), a**2 * v + 2 * eps(t)
    assert abs(law.mean(lambda x: x) - m) <= 1e-10
    assert abs(law.mean(lambda x: x * x) - m * m - v) <= 1e-10


# ------------------------------------------------------------------ the grid


def test_cells_edges_centres_and_means():
    law = grid_law(-1.0, 2.0, 3, lambda x: (x + 1) / 3)
    assert law.width == 1
    assert np.array_equal(law.edges, [-1, 0, 1, 2])
    assert np.array_equal(law.centres, [-0.5, 0.5, 1.5])
    np.testing.assert_allclose(law.mass, 1 / 3, rtol=1e-15)
    assert abs(law.mean(lambda x: x) - 0.5) <= 1e-15
    assert abs(law.mean(lambda x: x > 0) - 2 / 3) <= 1e-15
    assert abs(grid_law(-1.0, 1.0, 8, ndtr).lost - 2 * norm.sf(1)) <= 1e-15


@pytest.mark.parametrize(("noise", "wanted"), [(0.0999, "take n >= 81"), (0.01, "take n >= 800"), (0.0, "no n is")])
def test_cells_wider_than_the_noise_are_refused(noise, wanted):
    law = grid_law(-4.0, 4.0, 80, ndtr)
    with pytest.raises(ValueError, match=f"cells of width 0.1, .* too wide for noise of deviation .*: {wanted}"):
        law.transition(lambda x: x, noise)


def test_cells_whose_neighbours_land_far_apart_are_refused():
    """h <= c is not enough: at ε = 0.2 a step stretches the place between the modes of TWO by 1 + 32 ε = 7.4."""
    eps, c = 0.2, math.sqrt(0.4)

    def move(x):
        return x + eps * TWO.score(x[:, None])[:, 0]

    with pytest.raises(ValueError, match=r"cells of width 0.3, .* land up to 1.41 apart, .*: take n >= 45"):
        grid_law(-6.0, 6.0, 40, ndtr).transition(move, c)
    means, apart = [], []
    for n in (46, 90, 150, 600):
        law = grid_law(-6.0, 6.0, n, ndtr)
        means.append(law.push(law.transition(move, c), 1000).mean(lambda x: x))
        apart.append(float(np.max(np.diff(move(law.centres)))) / c)
    assert np.all(np.abs(np.array(apart[:3]) - [1.96, 1.47, 0.88]) < 0.01)
    assert np.all(np.abs(np.array(means[:3]) - means[3]) < [3e-2, 3e-3, 1e-5])


def test_the_number_of_cells_that_the_refusal_names_is_enough():
    law = grid_law(-4.0, 4.0, 80, ndtr)
    for slope, wanted in ((1, 267), (4, 534)):
        with pytest.raises(ValueError, match=f"take n >= {wanted}"):
            law.transition(lambda x, a=slope: a * x, 0.03)
        grid_law(-4.0, 4.0, wanted, ndtr).transition(lambda x, a=slope: a * x, 0.03)
    grid_law(-0.01, 0.01, 1, ndtr).transition(lambda x: x, 0.03)  # one cell has no neighbour


BAD = [
    (1.0, 1.0, [1.0], "need low < high, got 1.0, 1.0"),
    (2.0, 1.0, [1.0], "need low < high"),
    (0.0, math.nan, [1.0], "need low < high"),
    (0.0, 1.0, [0.5, -1e-20], "masses must not be negative"),
    (0.0, 1.0, [0.5, math.nan], "finite numbers"),
]


@pytest.mark.parametrize(("low", "high", "mass", "message"), BAD)
def test_what_is_no_law_is_refused(low, high, mass, message):
    with pytest.raises(ValueError, match=message):
        GridLaw(low, high, np.array(mass))
