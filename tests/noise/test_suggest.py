"""Suggested ladders: the published numbers, brute force, and the exact law of the code that will walk them."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import chi, norm

from refscore import VE, VP, AnnealedLangevin, ExactScore, GaussianMixture, simulate
from refscore.noise import suggest as module
from refscore.noise.grids import geometric_levels, level_times
from refscore.noise.prior import prior_mismatch_bound
from refscore.noise.suggest import (
    RATIO_CAP,
    best_step,
    ladder_excess,
    level_excess,
    overlap,
    overlap_ratio,
    smallest_level,
    suggest_beta_max,
    suggest_schedule,
    suggest_sigma_max,
    walk_excess,
    walk_step,
)
from refscore.sampling.loop import last
from tests.oracles.affine import law, probe
from tests.oracles.close import assert_close
from tests.oracles.strategies import seeds

ratios, fractions, some_moves = st.floats(1.001, 3.0), st.floats(0.005, 0.95), st.integers(1, 12)
SIGMA = 0.05
POINT = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.zeros(1))
VES = VE(0.01, 500.0)


# ------------------------------------------------------------------ technique 2: the ratio of levels


@pytest.mark.parametrize(("dim", "ratio"), [(5, 19.5), (8, 4.0), (16, 2.13), (784, 1.082)])
def test_the_ratio_with_overlap_one_half(dim, ratio):
    """Eq. (6.12): recorded values, and that they solve the equation."""
    found = overlap_ratio(dim)
    assert found == pytest.approx(ratio, rel=3e-3)  # the digits that were recorded
    assert abs(overlap(found, dim) - 0.5) <= 1e-10


@pytest.mark.parametrize("dim", [1, 2, 3, 4])
def test_in_four_dimensions_and_fewer_every_level_overlaps_with_every_other(dim):
    """Eq. (6.12): as √(2D) < 3 both limits of the overlap move outwards with γ, so it never falls below its start."""
    assert overlap_ratio(dim) == math.inf
    assert min(overlap(float(r), dim) for r in np.geomspace(1, 1e6, 200)) == overlap(1, dim) > 0.997


def test_the_published_ladder_for_cifar_has_overlap_point_567():
    ratio = (50 / 0.01) ** (1 / 231)
    assert ratio == pytest.approx(1.03756, abs=5e-6)
    assert overlap(ratio, 3072) == pytest.approx(0.56697, abs=5e-6)


def test_the_overlap_is_a_mass_of_a_normal_law():
    """Eq. (6.12): the normal density integrated from √(2D)(γ - 1) - 3γ to √(2D)(γ - 1) + 3γ."""
    for dim, ratio in ((5, 2.0), (100, 1.1), (3072, 1.0376)):
        middle = math.sqrt(2 * dim) * (ratio - 1)
        mass, _ = quad(norm.pdf, middle - 3 * ratio, middle + 3 * ratio, epsabs=1e-12)
        assert overlap(ratio, dim) == pytest.approx(mass, abs=1e-11)


@pytest.mark.parametrize(("dim", "ratio"), [(784, 1.082), (3072, 1.03756), (3072, 1.02), (12288, 1.02)])
def test_the_overlap_is_the_share_of_the_smaller_noise_in_the_shell_of_the_larger(dim, ratio):
    """Eq. (6.12): the radius of N(0, σ² I) is σ chi; how much of it is within 3 γ/√2 of γ√D?"""
    shell = ratio * (math.sqrt(dim) + 3 / math.sqrt(2) * np.array([-1, 1]))
    share = float(np.diff(chi.cdf(shell, dim))[0])
    assert overlap(ratio, dim) == pytest.approx(share, abs=0.01)  # chi is normal but for 1/(4√D) in its mean


def test_the_ratio_solves_its_equation_in_every_dimension():
    """Eq. (6.12), from 5 dimensions on; it falls with D, as 1 + 3/√(2D)."""
    dims = [*range(5, 3073, 7), 12_288, 196_608, 10**9]
    found = [overlap_ratio(dim) for dim in dims]
    assert max(abs(overlap(r, dim) - 0.5) for r, dim in zip(found, dims, strict=True)) <= 1e-9
    assert all(a > b > 1 for a, b in pairwise(found))
    assert found[-1] - 1 == pytest.approx(3 / math.sqrt(2e9), rel=1e-3)


def test_dimensions_below_one_are_refused():
    with pytest.raises(ValueError, match="dim must be an integer of at least 1, got 0"):
        overlap_ratio(0)


# ------------------------------------------------------------------ technique 4: the step


def test_the_published_step_of_cifar_is_the_best_and_that_of_ncsn_is_far_from_it():
    """Eq. (6.13): CIFAR's ε is the least excess; NCSN's is far from it."""
    fraction, excess = best_step((50 / 0.01) ** (1 / 231), 5)
    assert fraction == pytest.approx(0.0618, abs=5e-5)
    assert excess == pytest.approx(1.0555, abs=5e-5)
    assert level_excess(6.2e-6 / 0.01**2, (50 / 0.01) ** (1 / 231), 5) == pytest.approx(excess, rel=1e-5)
    assert level_excess(2e-5 / 0.01**2, 100 ** (1 / 9), 100) == pytest.approx(1.1111, abs=5e-5)


@pytest.mark.parametrize(
    ("high", "L", "T", "step", "one", "many"),
    [
        (50, 232, 5, 6.2e-6, 1.0555, 1.128),
        (90, 500, 5, 3.3e-6, 1.0314, 1.121),
        (140, 788, 4, 4.9e-6, 1.0247, 1.079),
        (190, 1086, 3, 1.8e-6, 1.0174, 1.200),
        (348, 2311, 3, 9e-7, 1.0089, 1.200),
    ],
)
def test_what_published_ladders_leave_level_by_level_and_in_all(high, L, T, step, one, many):
    """Eqs. (6.13), (6.14): from the exact law of the level before, and along the whole ladder from N(0, σ₁²)."""
    e, ratio = step / 0.01**2, (high / 0.01) ** (1 / (L - 1))
    assert level_excess(e, ratio, T) == pytest.approx(one, abs=1e-4)
    assert ladder_excess(e, ratio, T) == pytest.approx(many, abs=1e-3)
    v = level_excess(e, 1.0, T)
    for _ in range(L - 1):
        v = level_excess(e, ratio * math.sqrt(v), T)  # begun with what the level before has left
    assert v == pytest.approx(ladder_excess(e, ratio, T), rel=1e-9)


@given(fractions, ratios, some_moves)
def test_level_excess_is_the_law_of_one_level_of_annealed_langevin(e, ratio, moves):
    """Eq. (6.13), from the code: noise of variance γ²σ² around a point, then the moves of one level."""
    step = AnnealedLangevin(ExactScore(POINT, VES), VES, e * SIGMA**2, SIGMA, moves)
    A, B, c = probe(lambda x, rng: step(x, VES.time(SIGMA), 0.0, rng)[0], 1, moves)
    variance = float(A[0, 0] ** 2 * (ratio * SIGMA) ** 2 + np.sum(B**2))
    assert abs(c[0]) <= 1e-15
    assert abs(variance / SIGMA**2 / level_excess(e, ratio, moves) - 1) <= 1e-12


@given(fractions, ratios, st.integers(1, 4), st.integers(2, 7))
def test_the_law_of_a_ladder_is_the_recursion_of_level_excesses(e, ratio, moves, L):
    """Eqs. (6.13), (6.14), from the code: each level begins with what the one before has left."""
    levels = [SIGMA * ratio**i for i in range(L - 1, -1, -1)]
    step = AnnealedLangevin(ExactScore(POINT, VES), VES, e * SIGMA**2, SIGMA, moves)
    times = level_times(VES, levels)
    A, B, _ = probe(lambda x, rng: last(simulate(step, x, times, rng)), 1, moves * L)
    variance = float(A[0, 0] ** 2 * (ratio * levels[0]) ** 2 + np.sum(B**2)) / SIGMA**2
    v = 1.0
    for _ in range(L):
        v = level_excess(e, ratio * math.sqrt(v), moves)
    assert abs(variance / v - 1) <= 1e-12
    settled, forgets = ladder_excess(e, ratio, moves), (ratio * (1 - e) ** moves) ** 2
    if math.isfinite(settled):  # v approaches it by the factor γ²a at each level
        gap = settled * (1 - forgets)  # multiplied out: near γ²a = 1 both are large
        assert abs((v - settled) * (1 - forgets) - forgets**L * ((1 - forgets) - gap)) <= 1e-12 * (1 + gap)
        assert abs(level_excess(e, ratio * math.sqrt(settled), moves) / settled - 1) <= 1e-12
    else:
        assert forgets >= 1


@given(ratios, st.integers(1, 300))
def test_the_best_step_is_the_best_of_many(ratio, moves):
    for excess in (level_excess, ladder_excess):
        e, least = best_step(ratio, moves, excess)
        tried = np.concatenate([np.geomspace(1e-7, 1, 2000, endpoint=False), np.linspace(0.01, 1.99, 1000)])
        assert least == excess(e, ratio, moves) > 1
        assert 0 < e < 1
        assert least <= min(excess(float(other), ratio, moves) for other in tried) * (1 + 1e-9)  # xatol, squared
    assert best_step(ratio, moves)[1] <= best_step(ratio, moves, ladder_excess)[1] * (1 + 1e-9)


@pytest.mark.parametrize(("ratio", "moves"), [(1.0, 5), (0.5, 5), (math.inf, 5), (math.nan, 5), (1.5, 0)])
def test_best_step_refuses_levels_that_do_not_fall_and_no_moves(ratio, moves):
    with pytest.raises(ValueError, match="need ratio > 1 and moves >= 1"):
        best_step(ratio, moves)


# ------------------------------------------------------------------ technique 4, for wide directions too


@given(fractions, ratios, st.integers(1, 3), st.integers(2, 5), seeds)
def test_what_a_walk_leaves_is_the_law_of_the_sampler(e, ratio, moves, L, seed):
    """Eq. (6.8), from the code by probing, in a thin direction and two wide ones."""
    levels = [SIGMA * ratio**i for i in range(L - 1, -1, -1)]
    d = np.array([0.0, *np.exp(np.random.default_rng(seed).uniform(-5, 1, 2))])
    target = GaussianMixture(np.ones(1), np.ones((1, 3)), d[None] ** 2)
    step = AnnealedLangevin(ExactScore(target, VES), VES, e * levels[-1] ** 2, levels[-1], moves)
    maps = probe(lambda x, rng: last(simulate(step, x, level_times(VES, levels), rng)), 3, moves * L)
    _, cov = law(maps, np.zeros(3), levels[0] ** 2 * np.eye(3))
    wanted = np.diag(cov) / (d**2 + levels[-1] ** 2)
    np.testing.assert_allclose(walk_excess(e, levels, moves, d), wanted, rtol=1e-11)


@given(fractions, ratios, some_moves)
def test_on_thin_data_the_walk_settles_at_the_excess_of_the_ladder(e, ratio, moves):
    """Eqs. (6.8), (6.14): ν = 0, and as many levels as it takes."""
    settled, forgets = ladder_excess(e, ratio, moves), (ratio * (1 - e) ** moves) ** 2
    if forgets < 0.99:
        levels = geometric_levels(1.0, ratio**-3000, 3001) if ratio < 1.2 else geometric_levels(1.0, ratio**-600, 601)
        assert walk_excess(e, levels, moves, [0.0])[0] == pytest.approx(settled, rel=1e-2)


@pytest.mark.parametrize(("L", "moves"), [(2, 1), (2, 50), (12, 1), (12, 80), (80, 12), (175, 5), (300, 1)])
def test_the_step_of_a_walk_is_the_best_of_many(L, moves):
    """The worst direction ends nearest to its variance: against 100 steps and 50 directions."""
    levels = geometric_levels(40.0, 0.1 if L > 2 else 20.0, L)
    e, worst = walk_step(levels, moves)
    deviations = np.concatenate([[0.0], np.geomspace(0.1, 20.0, 50)])
    every = np.max(walk_excess(e, levels, moves, deviations))
    assert worst <= every <= worst * (1 + 1e-3)  # what lies between the directions that were tried
    others = np.geomspace(1e-3, 1, 100, endpoint=False)
    assert every <= min(np.max(walk_excess(f, levels, moves, deviations)) for f in others) * (1 + 1e-3)


@pytest.mark.parametrize("M", [250, 1000])
def test_what_is_left_falls_with_the_root_of_the_budget(M):
    """At dense levels the least excess is about √(2 ln(σ₁/σ_L)/M), for M moves in all."""
    _, worst = walk_step(geometric_levels(40.0, 0.1, M), 1)
    assert worst - 1 == pytest.approx(math.sqrt(2 * math.log(400) / M), rel=0.2)  # terms of the next order, 1/√M


# ------------------------------------------------------------------ technique 1: the ends


def all_distances(x):
    x = x.reshape(len(x), -1)
    return np.sqrt(((x[:, None, :] - x[None, :, :]) ** 2).sum(axis=2))


@given(seeds, st.integers(2, 40), st.sampled_from([(1,), (2,), (7,), (3, 2), (2, 2, 2)]), st.floats(-6, 6))
def test_the_ends_are_told_by_the_largest_distance_and_the_median_neighbour(seed, n, shape, log_scale):
    x = math.exp(log_scale) * np.random.default_rng(seed).standard_normal((n, *shape))
    d = all_distances(x)
    s = suggest_schedule(x, smallest=1e-3 * d.max())
    assert s.levels[0] == pytest.approx(d.max(), rel=1e-14)
    assert s.levels[-1] == 1e-3 * d.max()
    np.fill_diagonal(d, math.inf)
    nearest = float(np.median(d.min(axis=1)))
    assert suggest_schedule(x).levels[-1] == pytest.approx(smallest_level(nearest, n, math.prod(shape)), rel=1e-14)


def test_of_many_rows_some_are_held_against_all(monkeypatch):
    """Then the largest distance is found up to a factor of two, by the triangle inequality; the rest by luck."""
    x = np.random.default_rng(0).standard_normal((500, 3))
    d = all_distances(x)
    monkeypatch.setattr(module, "NUMBERS", 100 * x.size)
    looked = d[[j * 500 // 100 for j in range(100)]]
    s = suggest_schedule(x)
    assert s.levels[0] == pytest.approx(looked.max(), rel=1e-14)
    assert d.max() / 2 <= s.levels[0] <= d.max()
    others = np.sort(looked, axis=1)[:, 1]
    assert s.levels[-1] == pytest.approx(smallest_level(float(np.median(others)), 500, 3), rel=1e-14)
    monkeypatch.setattr(module, "NUMBERS", 1)
    looked = d[[j * 500 // 16 for j in range(16)]]  # never fewer
    assert suggest_schedule(x).levels[0] == pytest.approx(looked.max(), rel=1e-14)


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8, 32, 128, 784, 3072])
def test_neighbours_tell_the_deviation_of_a_cloud_in_any_dimension(dim):
    """d N^{1/D}/√(2D) is s to 30 % on N(0, s² I), from 100 points and from 1000."""
    for n, seed in ((100, 0), (100, 1), (100, 2), (1000, 0))[: 4 if dim <= 32 else 1]:
        x = 7.0 * np.random.default_rng(seed).standard_normal((n, dim)).astype("float32")
        nearest, _ = module._distances(x)
        assert 0.7 * 7 <= nearest * n ** (1 / dim) / math.sqrt(2 * dim) <= 1.3 * 7
        assert smallest_level(nearest, n, dim) <= nearest


# ------------------------------------------------------------------ the suggestion, by its exact law


def end(s, lam):
    """Eq. (6.8): the variance that the exact score leaves where data have variance λ; from N(0, σ₁²)."""
    lam = np.asarray(lam, dtype=float)
    v, eta = np.full(lam.shape, s.levels[0] ** 2), s.step / s.levels[-1] ** 2
    for sigma in s.levels:
        S = lam + sigma**2
        limit = S / (1 - eta * sigma**2 / (2 * S))
        v = limit + (1 - eta * sigma**2 / S) ** (2 * s.moves) * (v - limit)
    return v


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 8, 32, 128, 784, 3072])
@pytest.mark.parametrize("budget", [1000, 10_000])
def test_a_suggested_walk_ends_with_the_variance_of_the_data(dim, budget):
    """N(0, I): the last noise adds one per cent at most, and the walk what it says, which four times the budget halves.

    (With a distance in D dimensions taken for the noise of one coordinate it ended at 1.2, 1.7, 3.3, 31, 183, 1409,
    5836 in D = 2, 5, 8, 32, 128, 784, 3072.)
    """
    for n in (20, 100, 500) if dim <= 32 else (100,):
        x = np.random.default_rng(dim).standard_normal((n, dim)).astype("float32")
        s = suggest_schedule(x, budget)
        last, v = s.levels[-1], float(end(s, 1.0))
        assert 1 <= v <= s.worst * (1 + last**2)
        assert last**2 <= 0.014  # .01 s², as far as so few points tell s
        assert s.worst - 1 <= {1000: 0.11, 10_000: 0.035}[budget]
        assert 1 <= v <= {1000: 1.12, 10_000: 1.05}[budget]
        assert float(end(s, 0.0)) <= s.worst * last**2 * (1 + 1e-12)  # and in thin directions


@pytest.mark.parametrize("dim", [1, 3, 32, 784])
def test_a_suggested_walk_forgets_where_it_began(dim):
    """Eq. (6.8), the mean: begun σ₁ off in any direction it ends within 1e-5 of the deviation that there is."""
    s = suggest_schedule(np.random.default_rng(dim).standard_normal((100, dim)))
    lam = np.array([0.0, 1.0, (s.levels[0] / 2) ** 2])
    off, eta = np.full(3, s.levels[0]), s.step / s.levels[-1] ** 2
    for sigma in s.levels:
        off = off * (1 - eta * sigma**2 / (lam + sigma**2)) ** s.moves
    assert_close(off, 0, 1e-5 * np.sqrt(lam + s.levels[-1] ** 2))


def test_what_the_refusal_of_a_budget_advises_helps():
    """Pictures of 256 x 256 x 3 want more levels than the default has evaluations; with so many it can be walked."""
    x = np.random.default_rng(0).standard_normal((4, 196_608)).astype("float32")
    with pytest.raises(
        ValueError, match=r"give a budget of \d+ or more, or a larger smallest level than 0\."
    ) as refused:
        suggest_schedule(x)
    advised = int(str(refused.value).split("give a budget of ")[1].split()[0])
    s = suggest_schedule(x, advised)
    assert (len(s.levels), s.moves) == (advised, 1)
    assert 1 <= float(end(s, 1.0)) <= 1.12


@pytest.mark.parametrize("rank", [1, 2, 10, 100, 784])
def test_on_a_plane_in_many_dimensions_both_the_plane_and_the_rest_end_right(rank):
    """Data of variance 1 in so many of 784 directions: 12 % too wide along, and across no more than that in all."""
    x = np.zeros((200, 784), dtype="float32")
    x[:, :rank] = np.random.default_rng(rank).standard_normal((200, rank))
    s = suggest_schedule(x)
    along, across = end(s, [1.0, 0.0])
    assert 1 <= along <= 1.12
    assert (784 - rank) * across <= 0.01 * rank
    assert along <= s.worst * (1 + s.levels[-1] ** 2)


def test_on_a_spectrum_as_pictures_have_it_little_is_lost():
    """28 x 28 pictures with spectrum 1/k²: the whole variance ends 12 % too large, and so does every wide direction.

    σ_L is 4 % of the root mean square; for CIFAR-10, whose pixels deviate by .25 in [0, 1], .01 was published.
    """
    k = np.hypot(*np.meshgrid(np.arange(28), np.arange(28))).ravel()
    lam = 1 / np.maximum(k, 1) ** 2
    lam = lam * 0.25**2 / lam.mean()
    x = (np.sqrt(lam) * np.random.default_rng(0).standard_normal((300, 784))).astype("float32")
    s = suggest_schedule(x)
    v = end(s, lam)
    assert 0.005 <= s.levels[-1] <= 0.02
    assert 1 <= v.sum() / lam.sum() <= 1.12
    assert np.all(v[lam >= lam.mean()] <= 1.12 * lam[lam >= lam.mean()])


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 128, 784])
@pytest.mark.parametrize("narrow", [0.1, 1e-3])
def test_modes_narrower_than_the_whole_keep_their_width(dim, narrow):
    """Two modes N(±1, w² I), each with half of the points: across the line between them the law is Gaussian, (6.8)."""
    rng = np.random.default_rng(dim)
    x = narrow * rng.standard_normal((200, dim))
    x[:, 0] += np.where(np.arange(200) % 2, 1.0, -1.0)
    s = suggest_schedule(x.astype("float32"))
    assert s.levels[0] >= 2  # to cross
    assert 1 <= float(end(s, narrow**2)) / narrow**2 <= 1.14


def test_a_suggestion_moves_and_scales_with_the_data():
    """Moved, the same; scaled by c, c times the levels and c² the step: exactly for powers of two, in both dtypes."""
    x = np.round(256 * np.random.default_rng(0).standard_normal((60, 5))) / 256  # so that sums are exact
    want = suggest_schedule(x)
    for move in (0.5, 3.0, -64.0):
        got = suggest_schedule(x + move)
        np.testing.assert_allclose(got.levels, want.levels, rtol=1e-14)
        assert (got.moves, got.ratio) == (want.moves, pytest.approx(want.ratio, rel=1e-14))
    for power in (-500, -80, -20, -10, 1, 10, 20, 80, 500):
        for dtype in ("float32", "float64") if abs(power) < 100 else ("float64",):
            got = suggest_schedule((x * 2.0**power).astype(dtype))
            np.testing.assert_allclose(got.levels, 2.0**power * np.array(want.levels), rtol=1e-6)
            assert got.moves == want.moves
            assert got.step / got.levels[-1] / 2.0**power == pytest.approx(want.step / want.levels[-1], rel=1e-5)
            assert got.worst == pytest.approx(want.worst, rel=1e-6)


@pytest.mark.parametrize("dim", [1, 2, 3, 32, 784, 3072])
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e-3, 1.0, 1e3, 1e6, 1e18])
def test_suggested_ends_of_an_sde_have_their_mismatch_at_every_scale(dim, scale):
    """Eq. (7.14): the bound at the suggestion is what was asked for; float32, whose squares leave its range."""
    data = (scale * np.random.default_rng(0).standard_normal((30, dim))).astype("float32")
    high, beta = suggest_sigma_max(data, 0.01), suggest_beta_max(data, 0.01)
    exact = np.sqrt(np.sum(data.astype("float64") ** 2) / 30 * 0.5 / 0.01)
    assert high == pytest.approx(exact, rel=1e-6)
    assert prior_mismatch_bound(VE(1e-3 * high, math.hypot(high, 1e-3 * high)), data) == pytest.approx(0.01, rel=1e-6)
    if beta > 0.1:
        assert prior_mismatch_bound(VP(0.1, beta), data) == pytest.approx(0.01, rel=1e-6)
    else:
        assert prior_mismatch_bound(VP(0.1, 0.1), data) <= 0.01


# ------------------------------------------------------------------ the suggestion


@given(seeds, st.integers(3, 30), st.integers(1, 40), st.integers(60, 3000))
def test_a_suggestion_keeps_its_promises(seed, n, dim, budget):
    x = np.random.default_rng(seed).standard_normal((n, dim))
    high = all_distances(x).max()
    s = suggest_schedule(x, budget, smallest=0.01 * high)
    L, wanted = len(s.levels), min(overlap_ratio(dim), RATIO_CAP)
    assert s.levels == geometric_levels(high, 0.01 * high, L)
    assert s.ratio <= wanted * (1 + 1e-12)
    assert 100 ** (1 / max(1, L - 2)) > wanted or L == 2  # one level fewer would leap too far
    assert max(a / b for a, b in pairwise(s.levels)) == pytest.approx(s.ratio, rel=1e-12)
    assert L * s.moves <= budget < L * (s.moves + 1)
    assert s.excess == ladder_excess(s.step / s.levels[-1] ** 2, s.ratio, s.moves) or s.excess == pytest.approx(
        ladder_excess(s.step / s.levels[-1] ** 2, s.ratio, s.moves), rel=1e-12
    )
    assert s.ema == 0.999
    text = str(s)
    assert text == "\n".join(s.reasons)
    for part in (f"{L} levels", f"{s.moves} moves", f"{s.ratio:.4g}", f"{s.step:.4g}", f"{s.excess:.4g}"):
        assert part in text
    assert ("at most 1.5" in text) == (overlap_ratio(dim) > RATIO_CAP)
    assert ("the overlap is above one half at any ratio" in text) == (dim <= 4)
    assert (f"the overlap is one half at {overlap_ratio(dim):.3g}" in text) == (dim > 4 and "at most 1.5" in text)
    assert "as given" in text
    if n > 4:
        text = str(suggest_schedule(x, 3000))
        capped = smallest_level(1.0, n, dim) == 1
        assert ("the median distance of neighbours, below which noised data fall apart" in text) == capped
        assert ("a tenth of the deviation of the data about a point" in text) == (not capped)
        assert "as given" not in text


def test_a_suggestion_can_be_walked():
    """Twelve points in the plane, from all noise to the points: where each is thin, noise of the promised variance."""
    x = np.random.default_rng(3).standard_normal((12, 2))
    s = suggest_schedule(x, 400)
    sde = VE(0.01, 2 * s.levels[0])
    cloud = GaussianMixture(np.full(12, 1 / 12), x, np.zeros(12))
    step = AnnealedLangevin(ExactScore(cloud, sde), sde, s.step, s.levels[-1], s.moves)
    rng = np.random.default_rng(4)
    end = last(simulate(step, s.levels[0] * rng.standard_normal((2000, 2)), level_times(sde, s.levels), rng))
    assert np.abs(end).max() < 6
    mean_log = float(np.mean(cloud.log_prob(end, 1.0, s.levels[-1])))
    fresh = cloud.sample(rng, 2000) + s.levels[-1] * rng.standard_normal((2000, 2))
    assert mean_log > float(np.mean(cloud.log_prob(fresh, 1.0, s.levels[-1]))) - 0.3  # not a law, a walk that arrives


def test_every_backend_and_precision_suggests_the_same(any_backend):
    x = np.random.default_rng(0).standard_normal((50, 3, 2)).astype("float32")
    want = suggest_schedule(x.astype("float64"))
    got = suggest_schedule(any_backend.asarray(x, dtype="float32"))
    np.testing.assert_allclose(got.levels, want.levels, rtol=1e-6)  # float32
    assert got.moves == want.moves
    assert got.step == pytest.approx(want.step, rel=1e-5)
    assert all(type(v) is float for v in (*got.levels, got.ratio, got.step, got.excess))


NAN, INF = np.ones((4, 2)), np.ones((4, 2))
NAN[2, 1], INF[1, 0] = math.nan, math.inf
RAMP = np.arange(8.0).reshape(4, 2)


@pytest.mark.parametrize(
    ("data", "kwargs", "error", "words"),
    [
        (NAN, {}, ValueError, r"data holds 1 values that are not finite, the first at data\[2, 1\]"),
        (INF, {}, ValueError, r"data holds 1 values that are not finite, the first at data\[1, 0\]"),
        (RAMP[:1], {}, ValueError, "at least two rows"),
        (RAMP[:0], {}, ValueError, "data is empty"),
        (RAMP[:, 0], {}, ValueError, "at least 2 axes"),
        (RAMP.astype(int), {}, TypeError, "must be float32 or float64"),
        ([[1.0, 2.0], [3.0, 4.0]], {}, TypeError, "must be an array"),
        (np.ones((4, 2)), {}, ValueError, "all rows of data are the same"),
        (RAMP[[0, 0, 0, 1]], {}, ValueError, "most rows of data have an equal twin"),
        (RAMP, {"smallest": 0.0}, ValueError, "smallest must lie between 0 and the largest distance"),
        (RAMP, {"smallest": -1.0}, ValueError, "smallest must lie between 0 and the largest distance"),
        (RAMP, {"smallest": math.nan}, ValueError, "smallest must lie between 0 and the largest distance"),
        (RAMP, {"smallest": 100.0}, ValueError, "got 100.0"),
        (RAMP, {"budget": 3}, ValueError, "less than one for each of the 10 levels: give a budget of 10"),
        (RAMP, {"budget": 0}, ValueError, "budget must be an integer of at least 1, got 0"),
        (RAMP, {"budget": 100.0}, ValueError, "budget must be an integer of at least 1, got 100.0"),
    ],
)
def test_what_cannot_be_helped_is_refused(data, kwargs, error, words):
    with pytest.raises(error, match=words):
        suggest_schedule(data, **kwargs)
    if words.startswith("most rows"):
        assert suggest_schedule(data, smallest=0.1).levels[-1] == 0.1
