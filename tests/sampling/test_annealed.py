"""Chapter 6: noise at many scales. Noised laws, weighted divergences, and the exact law of annealed Langevin dynamics.

The modes of ⅘ N((5, 5), v I) + ⅕ N((-5, -5), v I) lie on the diagonal, and all components are round. So along the
diagonal, u = (x₁ + x₂)/√2, a Langevin chain is a chain of its own, with the score of a mixture in one dimension: how
much of its law ends on which side is a matter of matrix products. Across, it is Gaussian.
"""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from refscore import (
    EMA,
    MLP,
    VE,
    VP,
    Adam,
    AnnealedLangevin,
    Denoising,
    ExactScore,
    Explicit,
    GaussianMixture,
    Langevin,
    ScoreModel,
    fit,
    simulate,
)
from refscore.laws.expectation import gauss_legendre, quadrature_grid
from refscore.laws.grid_chain import GridLaw, gap, grid_law, langevin_law
from refscore.matching.times import FixedTime, Levels
from refscore.matching.weights import SigmaPower, sigma_squared
from refscore.measure.distance import score_error
from refscore.measure.floor import denoising_floor, mean_posterior_variance
from refscore.measure.tables import excess_loss
from refscore.noise.exact_score import FastExactScore
from refscore.noise.grids import geometric_levels, level_times
from refscore.noise.reverse import denoise
from refscore.noise.suggest import suggest_schedule
from refscore.sampling.compose import First, Repeat, Stay
from refscore.sampling.langevin import LevelStep
from refscore.sampling.loop import last
from refscore.training.optim import WarmupCosine
from tests.oracles.affine import law, probe
from tests.oracles.close import assert_close
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import BEYOND, assert_share, quantile
from tests.oracles.strategies import mixtures, random_mixture, sdes, seeds

VES = VE(0.01, 50.0)
REACH = math.sqrt(50)  # where the modes are, along the diagonal
SIGMAS = st.floats(0.05, 20.0)


def line(variance):
    """The two modes along the diagonal."""
    return GaussianMixture(np.array([0.8, 0.2]), np.array([[REACH], [-REACH]]), np.full(2, variance))


def plane(variance):
    """The two modes."""
    return GaussianMixture(np.array([0.8, 0.2]), np.array([[5.0, 5.0], [-5.0, -5.0]]), np.full(2, variance))


# ------------------------------------------------------------------ one noise level


@given(seeds, st.integers(1, 3), SIGMAS)
def test_noise_is_a_convolution(seed, components, sigma):
    """Eq. (6.1): p_σ(x) = ∫ p(x - σz) N(z) dz, the right side by the trapezoid rule in z."""
    p = random_mixture(seed, 1, components, low=0.2)
    z = np.linspace(-9, 9, 4001 if sigma < 2 else 30_001)
    x = np.linspace(-3, 3, 5) * (1 + sigma)
    values = np.exp(p.log_prob((x[:, None] - sigma * z[None, :]).reshape(-1, 1))).reshape(5, -1)
    convolved = (z[1] - z[0]) * values @ (np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi))
    np.testing.assert_allclose(convolved, np.exp(p.log_prob(x[:, None], 1.0, sigma)), rtol=0, atol=1e-12)


@given(seeds, st.integers(1, 2), st.integers(1, 4), st.floats(0.1, 4.0))
def test_noise_keeps_mean_and_weights_and_widens_by_its_variance(seed, dim, components, sigma):
    """Eq. (6.2): moments of p_σ by quadrature; the weights as E r_k, what a sample of p_σ would say of them."""
    p = random_mixture(seed, dim, components, low=0.2, high=1.0, box=2.0)
    x, cell = quadrature_grid(p.diffuse(1.0, sigma))
    mass = cell * np.exp(p.log_prob(x, 1.0, sigma))
    full = np.asarray(p.covariances)
    mean = p.weights @ p.means
    spread = p.means - mean
    cov = np.einsum("k,kij->ij", p.weights, full) + (p.weights * spread.T) @ spread
    np.testing.assert_allclose(mass @ x, mean, atol=1e-10)
    np.testing.assert_allclose((mass * (x - mean).T) @ (x - mean), cov + sigma**2 * np.eye(dim), atol=1e-9)
    np.testing.assert_allclose(mass @ p.responsibilities(x, 1.0, sigma), p.weights, atol=1e-10)
    np.testing.assert_array_equal(p.diffuse(1.0, sigma).weights, p.weights)


@given(mixtures(max_dim=2, low=0.2, high=1.0, box=2.0), st.floats(0.1, 10.0))
def test_weighted_by_the_noise_every_level_counts_at_most_the_dimension(p, sigma):
    """Eq. (6.5): σ² E‖∇log p_σ‖² = D - E tr Cov[x₀ | x]/σ², between 0 and D. Left side by quadrature of the score."""
    x, cell = quadrature_grid(p.diffuse(1.0, sigma))
    mass = cell * np.exp(p.log_prob(x, 1.0, sigma))
    size = sigma**2 * float(mass @ np.sum(p.score(x, 1.0, sigma) ** 2, axis=1))
    rest = mean_posterior_variance(p, 1.0, sigma).value / sigma**2
    assert abs(size - (p.dim - rest)) <= 1e-5 * p.dim  # quadrature near the poles of the score
    assert 0 < size < p.dim


def test_sigma_squared_lets_every_level_count_and_one_only_the_smallest():
    """Eqs. (6.3), (6.5): shares of L(0) = Σ λ ½E‖∇log p_σ‖²/L on the ladder of the chapter."""
    levels, p = geometric_levels(20.0, 0.5, 10), plane(1.0)
    sizes = np.array([2 / s**2 - mean_posterior_variance(p, 1.0, s).value / s**4 for s in levels])
    alike, plain = sizes * np.square(levels), sizes
    assert 0.02 < (alike / alike.sum()).min() < 0.03
    assert 0.13 < (alike / alike.sum()).max() < 0.14
    assert plain[-1] / plain.sum() == pytest.approx(0.34, abs=5e-3)
    assert plain[0] / plain.sum() == pytest.approx(0.001, abs=1e-4)


def test_a_law_on_a_line_has_no_score_until_it_has_noise():
    """The manifold cured: at σ > 0 the score is there, bounded by D/σ² in the mean."""
    C = np.array([[[1.0, 1.0], [1.0, 1.0]]])
    p = GaussianMixture(np.ones(1), np.zeros((1, 2)), C)
    with pytest.raises(ValueError, match="the density does not exist"):
        p.score(np.ones((1, 2)))
    for sigma in (1.0, 0.1, 0.01):
        # N(0, σ²) across, N(0, 2 + σ²) along: E‖s‖² = 1/σ² + 1/(2 + σ²)
        x = p.sample(np.random.default_rng(0), 4) + sigma
        across = (x[:, 0] - x[:, 1]) / 2
        np.testing.assert_allclose(p.score(x, 1.0, sigma) @ [0.5, -0.5], -across / sigma**2, atol=1e-9 / sigma**2)


# ------------------------------------------------------------------ many levels


class Linear:
    """s(x, t) = θ₁ x/(1 + σ²) + θ₂: a model of two parameters that an expectation can be written for."""

    sde = VES
    shapes = {"a": (), "b": ()}  # noqa: RUF012

    def forward(self, params, x, t):
        unit = x / (1 + self.sde.sigma(t).reshape(-1, 1) ** 2)
        return params["a"] * unit + params["b"], unit

    def backward(self, params, cache, dy):
        return (None,), {"a": np.sum(dy * cache), "b": np.sum(dy)}


def expected_losses(power, levels, theta):
    """(1/L) Σ λ F and (1/L) Σ λ ½E‖s_θ + z/σ‖² on ⅘/⅕ in 1-D, by quadrature, with no help from the objectives."""
    p = line(1.0)
    explicit = denoising = 0.0
    for s in levels:
        x, cell = quadrature_grid(p.diffuse(1.0, s))
        mass = cell * np.exp(p.log_prob(x, 1.0, s))
        off = theta[0] * x / (1 + s**2) + theta[1] - p.score(x, 1.0, s)
        explicit += s**power * 0.5 * float(mass @ np.sum(off**2, axis=1)) / len(levels)
        # E‖s_θ + z/σ‖² with x₀ in component k: x = m + y + σz, y of variance 1: moments of a Gaussian, exact
        for w, m in zip(p.weights, p.means[:, 0], strict=True):
            c = theta[0] / (1 + s**2)
            denoising += s**power / len(levels) * 0.5 * w * ((c * m + theta[1]) ** 2 + c**2 + (c * s + 1 / s) ** 2)
    return explicit, denoising


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("theta", [(-1.0, 0.0), (-0.4, 0.3), (0.0, 0.0)])
def test_denoising_over_levels_is_the_weighted_sum_of_fisher_divergences_and_the_floor(power, theta):
    """Eqs. (6.3), (6.4): loss = Σ λ F/L + floor; the objectives average to both sides over noise replayed per level."""
    levels, p = (8.0, 2.0, 0.5), line(1.0)
    explicit, denoising = expected_losses(power, levels, np.array(theta))
    objective = Denoising(times=Levels(levels), weight=SigmaPower(power))
    floor = denoising_floor(objective, p, VES)
    scale = 1 + denoising
    assert abs(denoising - explicit - floor.value) <= 2 * floor.error + 1e-6 * scale
    # The code, at deterministic draws: Gauss-Hermite in y and in z, once for each level and component. Each row is
    # weighed through the factor that undoes the law of the times.
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)  # exact: the loss is quadratic in y and z
    y, z = (a.reshape(-1, 1) for a in np.meshgrid(nodes, nodes))
    share = np.outer(weights, weights).ravel() / weights.sum() ** 2
    total = 0.0
    for u in (np.arange(3) + 0.5) / 3:
        t, factor = objective.times.at(VES, np.array([u]))
        for w, m in zip(p.weights, p.means[:, 0], strict=True):
            loss, _ = objective.at(Linear(), np.array(theta), m + y, t, z, w * share * len(y) * factor)
            total += float(loss) / 3
    assert abs(total - denoising) <= 1e-12 * scale


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_the_explicit_objective_over_levels_is_the_weighted_sum(power):
    """Eq. (6.3), the code at quadrature nodes instead of samples."""
    levels, p, theta = (8.0, 2.0, 0.5), line(1.0), np.array([-0.4, 0.3])
    exact = ExactScore(p, VES)
    total = 0.0
    objective = Explicit(score=exact, times=Levels(levels), weight=SigmaPower(power))
    for u in (np.arange(3) + 0.5) / 3:
        t, factor = objective.times.at(VES, np.array([u]))
        x, cell = quadrature_grid(p.diffuse(1.0, float(VES.sigma(t[0]))))
        mass = cell * np.exp(p.log_prob(x, 1.0, float(VES.sigma(t[0]))))
        # a mean over rows: multiply each row by its mass through the factor
        loss, _ = objective.at(Linear(), theta, x, t, mass * len(x) * factor)
        total += float(loss) / 3
    assert abs(total - expected_losses(power, levels, theta)[0]) <= 1e-12 * (1 + total)


def test_levels_weighed_by_sigma_squared_add_up_to_the_kullback_leibler_divergence():
    """Eq. (6.6): KL(p_σL‖q_σL) - KL(p_σ1‖q_σ1) = 2 ∫ σ² F(p_σ‖q_σ) d log σ; ladders are rules for this integral."""
    p = line(1.0)
    q = GaussianMixture(np.array([0.5, 0.5]), np.array([[REACH], [1 - REACH]]), np.array([1.0, 1.5]))

    def divergences(s):
        x, cell = quadrature_grid(p.diffuse(1.0, s), spacing=0.1)
        mass = cell * np.exp(p.log_prob(x, 1.0, s))
        off = p.score(x, 1.0, s) - q.score(x, 1.0, s)
        return (
            float(mass @ (p.log_prob(x, 1.0, s) - q.log_prob(x, 1.0, s))),
            0.5 * float(mass @ np.sum(off**2, axis=1)),
        )

    high, low = 20.0, 0.5
    fall = divergences(low)[0] - divergences(high)[0]
    nodes, weights = gauss_legendre(np.zeros(1), 48)
    integral = 2 * math.log(high / low) * sum(
        float(w) * s**2 * divergences(s)[1] for w, s in zip(weights, low * (high / low) ** nodes, strict=True)
    )  # fmt: skip
    assert abs(integral / fall - 1) <= 1e-9  # Gauss-Legendre with 48 nodes has converged
    errors = {}
    for L in (10, 40):
        levels = geometric_levels(high, low, L)
        terms = [s**2 * divergences(s)[1] for s in levels]
        ends = 0.5 * (terms[0] + terms[-1])  # the two ends count half
        errors[L] = abs(2 * math.log(levels[0] / levels[1]) * (sum(terms) - ends) / fall - 1)
    assert errors[10] <= 0.02
    assert errors[40] <= errors[10] / 8  # second order in log γ: a factor of 18
    assert 0.1 < fall < 1.0


def test_weights_are_seen_in_the_middle_of_the_ladder():
    """Eq. (6.6) on .8/.2 against .5/.5: 1e-9 at σ = .5, but 0.1723 nats over the ladder, from levels above 2.5."""
    p, levels = line(1.0), geometric_levels(20.0, 0.5, 10)
    q = GaussianMixture(np.array([0.5, 0.5]), p.means, p.covariances)
    terms, kl = [], []
    for s in (*levels, 2.5):
        x, cell = quadrature_grid(p.diffuse(1.0, s), spacing=0.1)
        mass = cell * np.exp(p.log_prob(x, 1.0, s))
        off = p.score(x, 1.0, s) - q.score(x, 1.0, s)
        terms.append(s**2 * 0.5 * float(mass @ np.sum(off**2, axis=1)))
        kl.append(float(mass @ (p.log_prob(x, 1.0, s) - q.log_prob(x, 1.0, s))))
    terms.pop()
    middle = kl.pop()
    assert terms[-1] / 0.25 == pytest.approx(1.3e-9, rel=0.02)
    assert kl[-1] - kl[0] == pytest.approx(0.1723, abs=5e-5)
    assert (middle - kl[0]) / (kl[-1] - kl[0]) == pytest.approx(0.985, abs=5e-4)  # from noise above 2.5
    rule = 2 * math.log(levels[0] / levels[1]) * (sum(terms) - 0.5 * (terms[0] + terms[-1]))
    assert rule == pytest.approx(0.1715, abs=5e-5)
    equal = 2 * math.log(levels[0] / levels[1]) * sum(terms) * (len(levels) - 1) / len(levels)
    assert equal / (kl[-1] - kl[0]) == pytest.approx(0.94, abs=0.01)  # (6.3) counts the ends in full


# ------------------------------------------------------------------ the algorithm, to the last bit


LADDER, MOVES = (3.0, 1.0, 0.4), 4


@pytest.mark.parametrize("sde", [VP(), VES], ids=["vp", "ve"])
def test_annealed_langevin_is_its_algorithm_to_the_last_bit(sde):
    """Eq. (6.7): three ways to write one chain, with the same noise."""
    levels = LADDER if isinstance(sde, VE) else (0.9, 0.5, 0.1)
    score, times, rng = ExactScore(plane(1.0), sde), level_times(sde, levels), np.random.default_rng(0)
    step, low = 0.02 * levels[-1] ** 2, levels[-1]
    start, z = 3 * rng.standard_normal((6, 2)), rng.standard_normal((3 * MOVES, 6, 2))

    whole = last(simulate(AnnealedLangevin(score, sde, step, low, MOVES), start, times, ReplayRng(*z)))
    parts = First(Repeat(Langevin(score, LevelStep(sde, step, low)), MOVES), Stay())
    assert np.array_equal(whole, last(simulate(parts, start, times, ReplayRng(*z))))

    x, noise = start, iter(z)
    for t in times[:-1]:
        eps = step * (sde.sigma(t) / low) ** 2
        for _ in range(MOVES):
            x = x + eps * score(x, np.array([t])) + math.sqrt(2 * eps) * next(noise)
    assert np.array_equal(whole, x)


@given(sdes, st.floats(1e-6, 1.0), st.floats(0.01, 0.9))
def test_the_step_is_the_same_share_of_the_noise_at_every_level(sde, step, share):
    """Eq. (6.7): ε(t)/σ(t)² = ε/σ_L², and ε at σ_L."""
    low = share * sde.sigma(1.0)
    rule = LevelStep(sde, step, low)
    for t in (0.1, 0.5, 1.0):
        assert rule(t) / sde.sigma(t) ** 2 == pytest.approx(step / low**2, rel=1e-14)
    assert rule(float(sde.time(low))) == pytest.approx(step, rel=1e-11)


def test_levels_are_walked_downwards_and_the_last_is_kept():
    """σ = 3, 1, .4 are visited MOVES times each; at t = 0, where there is no noise, nothing moves."""
    seen = []

    def score(x, t):
        seen.append(float(VES.sigma(float(t[0]))))
        return -x

    step = AnnealedLangevin(score, VES, 1e-3, 0.4, MOVES)
    states = list(simulate(step, np.ones((1, 1)), level_times(VES, LADDER), np.random.default_rng(0)))
    assert len(states) == 3
    np.testing.assert_allclose(seen, np.repeat(LADDER, MOVES), rtol=1e-12)


@pytest.mark.parametrize(
    ("step", "low", "moves", "words"),
    [
        (0.0, 1.0, 3, "step must be positive"),
        (-1.0, 1.0, 3, "step must be positive"),
        (math.nan, 1.0, 3, "step must be positive"),
        (0.1, 0.0, 3, "last must be positive"),
        (0.1, math.inf, 3, "last must be positive"),
        (0.1, 1.0, 0, "moves must be an integer of at least 1, got 0"),
    ],
)
def test_walks_that_are_none_are_refused(step, low, moves, words):
    with pytest.raises(ValueError, match=words):
        AnnealedLangevin(ExactScore(plane(1.0), VES), VES, step, low, moves)


def test_annealed_langevin_is_the_same_on_every_backend_and_keeps_float32(any_backend):
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((5, 2)), rng.standard_normal((3 * MOVES, 5, 2))
    found = []
    for dtype, asarray in (("float64", np.asarray), ("float32", any_backend.asarray)):
        p = GaussianMixture(*(asarray(a, dtype=dtype) for a in ([0.8, 0.2], [[5.0, 5], [-5, -5]], [1.0, 1])))
        step = AnnealedLangevin(ExactScore(p, VES), VES, 0.01, 0.4, MOVES)
        replay = ReplayRng(*(asarray(zn, dtype=dtype) for zn in z))
        found.append(last(simulate(step, asarray(x, dtype=dtype), level_times(VES, LADDER), replay)))
    assert str(found[1].dtype).endswith("float32")
    got = any_backend.to_numpy(found[1])
    np.testing.assert_allclose(got, found[0], rtol=0, atol=1e-5 * np.max(np.abs(found[0])))  # float32, 12 moves


# ------------------------------------------------------------------ its law on a Gaussian, exactly


@pytest.mark.parametrize("sde", [VP(), VES], ids=["vp", "ve"])
@given(seed=seeds, e=st.floats(0.01, 0.5), moves=st.integers(1, 5), L=st.integers(1, 5), flat=st.booleans())
def test_a_ladder_has_the_law_of_its_moment_recursion(sde, seed, e, moves, L, flat):
    """Eq. (6.8): along each axis of the data, of variance ν, S = α²ν + σ² and q = 1 - ε/S,

    m <- α m₀ + qⁿ (m - α m₀),  v <- v∞ + q²ⁿ (v - v∞),  v∞ = S/(1 - ε/2S), level after level; from the code by probing.
    """
    rng = np.random.default_rng(seed)
    U = np.linalg.qr(rng.standard_normal((2, 2)))[0]
    lam = np.exp(rng.uniform(-4, 1, 2)) * (not flat)  # flat: a point
    C = (U * lam) @ U.T
    target = GaussianMixture(np.ones(1), rng.standard_normal((1, 2)), 0.5 * (C + C.T)[None])
    top, low = (5.0, 0.5) if isinstance(sde, VE) else (0.95, 0.2)
    levels = geometric_levels(top, low, L) if L > 1 else (low,)
    times = level_times(sde, levels)
    step = AnnealedLangevin(ExactScore(target, sde), sde, e * low**2, low, moves)
    m, S0 = np.array([1.0, -2.0]), 9 * np.eye(2)
    found = law(probe(lambda x, r: last(simulate(step, x, times, r)), 2, moves * L), m, S0)

    mean, v = U.T @ m, np.full(2, 9.0)  # in the axes of the data
    for t in times[:-1]:
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        S, eps, centre = alpha**2 * lam + sigma**2, e * sigma**2, alpha * (U.T @ target.means[0])
        q, limit = 1 - eps / S, S / (1 - eps / (2 * S))
        mean, v = centre + q**moves * (mean - centre), limit + q ** (2 * moves) * (v - limit)
    assert_close(found[0], U @ mean, 1e-12 * 10)
    assert_close(found[1], (U * v) @ U.T, 1e-12 * 10, "of the largest number on the way, 9 + σ²")


def test_the_width_of_a_wide_direction_is_decided_where_the_noise_is_as_wide():
    """Eq. (6.8): at levels of σ² << ν a direction of variance ν stands still, and what it lacks there it keeps."""
    levels, e = geometric_levels(20.0, 0.1, 20), 0.1

    def widths(lam, moves):
        """Variance over ν + σ², less 1, after each level; from N(0, σ₁² I)."""
        v, found = levels[0] ** 2, []
        for s in levels:
            S, eps = lam + s**2, e * s**2
            limit = S / (1 - eps / (2 * S))
            v = limit + (1 - eps / S) ** (2 * moves) * (v - limit)
            found.append(v / S - 1)
        return found

    thin, wide, wider = (widths(lam, 10)[-1] for lam in (0.0, 1.0, 10.0))
    assert (thin, wide, wider) == pytest.approx((0.174, 0.404, 0.407), abs=5e-4)
    assert widths(0.0, 100)[-1] == pytest.approx(0.0526, abs=5e-5)  # 1/(1 - e/2) - 1: only the step's bias is left
    assert widths(1.0, 100)[-1] == pytest.approx(0.0289, abs=5e-5)
    v = [w * (1 + s**2) for w, s in zip(widths(1.0, 10), levels, strict=True)]  # variance above 1 + σ²
    assert v[-1] > 0.9 * v[-6]  # hardly changed over the last five levels, σ = .4 to .1
    assert v[0] > 20 * v[-6]


# ------------------------------------------------------------------ weights: the grid law of the chain


def triangle(x):
    """Distribution function of (x₁ + x₂)/√2 for x uniform on [-8, 8]²."""
    y = np.clip(x / (8 * math.sqrt(2)), -1, 1)
    return np.where(y < 0, 0.5 * (1 + y) ** 2, 1 - 0.5 * (1 - y) ** 2)


STARTS = {
    "uniform": (triangle, lambda rng, n: rng.uniform(-8, 8, (n, 2))),
    "minor": (lambda x: ndtr(x + REACH), lambda rng, n: rng.standard_normal((n, 2)) - 5),
    "major": (lambda x: ndtr(x - REACH), lambda rng, n: rng.standard_normal((n, 2)) + 5),
}


def transitions(variance, levels, e, moves=1000, least=500):
    """For each level a grid, and the matrix of one move with ε = e σ².

    The chain is pulled to a point between the modes, so it is never further out than the mode and the chain of one
    Gaussian: the grid is eight of that one's deviations, at the level's beginning, wider than the modes. It is so fine
    that neighbours land no further apart than the noise of a move, also where the score stretches most, between the
    modes: there 1e-5 of the mass goes astray.
    """
    score, made, v = ExactScore(line(variance), VES), [], variance + levels[0] ** 2
    for s in levels:
        t, eps, S = float(VES.time(s)), e * s**2, variance + s**2
        limit = S / (1 - eps / (2 * S))
        half = REACH + 8 * math.sqrt(v)
        v = limit + (1 - eps / S) ** (2 * moves) * (v - limit)
        stretch = max(1.0, 1 - eps / S + eps * (REACH / S) ** 2)
        n = max(least, 2 * math.ceil(half * max(1.25, stretch) / math.sqrt(2 * eps)))
        grid = GridLaw(-half, half, np.full(n, 1 / n))
        made.append(
            (grid, grid.transition(lambda u, t=t, eps=eps: u + eps * score(u[:, None], t)[:, 0], (2 * eps) ** 0.5))
        )
    return made


def right_sides(variance, levels, e, moves):
    """P(u > 0 at the end) of annealed Langevin dynamics, by start and moves a level; no sampling.

    Backwards: f(u) = P(the chain ends on the right | it is at u), pulled through the matrices from the last level to
    the first. It is smooth, so it is interpolated from grid to grid, and one pass serves all starts.
    """
    found = {}
    for n in moves:
        made = transitions(variance, levels, e, n)
        where = made[-1][0].centres
        f = (where > 0) * 1.0
        for grid, matrix in reversed(made):
            f = np.interp(grid.centres, where, f)
            for _ in range(n):
                f = matrix @ f
            where = grid.centres
        first = made[0][0]
        for name, (cdf, _) in STARTS.items():
            found[name, n] = float(grid_law(first.low, first.high, len(first.mass), cdf).mass @ f)
    return found


# (variance of the modes, σ₁, σ_L, L, e = ε/σ²); the first is the experiment of Song and Ermon 2019: two points under
# noise, whose .1 (σ/σ_L)² is twice our ε.
SCHEDULES = {
    "paper": (0.0, 20.0, 1.0, 10, 0.05),
    "wide modes": (1.0, 20.0, 0.5, 10, 0.05),
    "few levels": (1.0, 20.0, 1.0, 4, 0.05),
    "many levels": (0.0, 20.0, 1.0, 30, 0.05),
    "starts too low": (1.0, 3.0, 0.5, 8, 0.05),
    "large step": (0.0, 20.0, 1.0, 10, 0.2),
}


@cache
def predicted(name, moves):
    variance, high, low, L, e = SCHEDULES[name]
    return right_sides(variance, geometric_levels(high, low, L), e, moves)


def test_the_recorded_weights_of_the_papers_experiment():
    """From the uniform box, and from N(∓(5, 5), I): the minor and the major mode."""
    found = predicted("paper", (10, 30, 100, 300))
    recorded = {
        "uniform": (0.678, 0.752, 0.782, 0.7925), "minor": (0.639, 0.751, 0.782, 0.7925),
        "major": (0.715, 0.753, 0.782, 0.7925),
    }  # fmt: skip
    for start, weights in recorded.items():
        for n, w in zip((10, 30, 100, 300), weights, strict=True):
            assert found[start, n] == pytest.approx(w, abs=6e-4), (start, n)  # the digits that were recorded


def test_forwards_and_backwards_are_one_law():
    """`langevin_law` pushes the start forwards on one grid; here a question is pulled backwards, from grid to grid."""
    levels = geometric_levels(20.0, 2.0, 7)
    start, times = grid_law(-150, 150, 700, STARTS["minor"][0]), level_times(VES, levels)[:-1]
    end = langevin_law(start, ExactScore(line(0.0), VES), times, LevelStep(VES, 0.2, 2.0), 10)
    assert abs(end.lost) <= 1e-6
    forwards, backwards = (
        end.mean(lambda u: (u > 0) * 1.0), right_sides(0.0, levels, 0.05, (10,))["minor", 10],
    )  # fmt: skip
    assert abs(forwards - backwards) <= 2e-4  # interpolation, and the cells of the start
    assert 0.5 < forwards < 0.7


def test_plain_langevin_hardly_moves_a_weight():
    """1000 moves at σ = 1: from .5 to .509; from the minor mode 2e-9 come over."""
    score = ExactScore(line(0.0), VES)
    t = float(VES.time(1.0))
    for name, right, slack in (("uniform", 0.5089, 1e-4), ("minor", 2e-9, 1e-9)):
        law = langevin_law(grid_law(-16, 16, 400, STARTS[name][0]), score, [t], lambda t: 0.05, 1000)
        assert law.mean(lambda u: (u > 0) * 1.0) == pytest.approx(right, abs=slack)


def walked(name, moves, n, seed, learned=None):
    """Share on the right of n chains from each start, walked by the real sampler in the plane."""
    variance, high, low, L, e = SCHEDULES[name]
    rng = np.random.default_rng(seed)
    x = np.concatenate([draw(rng, n) for _, draw in STARTS.values()])
    score = FastExactScore(plane(variance), VES) if learned is None else learned
    step = AnnealedLangevin(score, VES, e * low**2, low, moves)
    x = x if learned is None else x.astype("float32")
    end = last(simulate(step, x, level_times(VES, geometric_levels(high, low, L)), rng))
    return dict(zip(STARTS, (end.sum(axis=1) > 0).reshape(len(STARTS), n), strict=True))


def assert_weights(name, moves, n, seed):
    """Up to 1e-3, for the grid."""
    want = predicted(name, (moves,))
    for start, right in walked(name, moves, n, seed).items():
        assert_share(right, want[start, moves], bias=1e-3, why=start)


@pytest.mark.parametrize(
    ("name", "moves"),
    [("paper", 3), ("paper", 10), ("wide modes", 10), ("few levels", 20), ("starts too low", 10), ("large step", 5)],
)
def test_chains_end_with_the_weights_of_the_grid_law(name, moves):
    """From three starts each, against the law of the same chain and not against .8."""
    assert_weights(name, moves, 10_000, moves)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "moves"),
    [
        ("paper", 3), ("paper", 10), ("paper", 30), ("paper", 100), ("wide modes", 10), ("wide modes", 30),
        ("few levels", 20), ("many levels", 10), ("starts too low", 30), ("large step", 10),
    ],
)  # fmt: skip
def test_many_chains_end_with_the_weights_of_the_grid_law(name, moves):
    """Thirty schedules: ten ladders, three starts each, n = 40,000; half a minute."""
    assert_weights(name, moves, 40_000, 1000 + moves)


def test_the_test_of_weights_sees_a_step_twice_too_long():
    """Its power: the factor of two between the conventions, n = 10,000."""
    variance, high, low, L, e = SCHEDULES["paper"]
    other = right_sides(variance, geometric_levels(high, low, L), 2 * e, (10,))["uniform", 10]
    w = predicted("paper", (10,))["uniform", 10]
    assert abs(other - w) > (quantile() + BEYOND) * math.sqrt(w * (1 - w) / 10_000) + 1e-3


# ------------------------------------------------------------------ where the weights are decided


def side(variance, sigma):
    """P(u > 0) under p_σ."""
    s = REACH / math.sqrt(variance + sigma**2)
    return float(0.8 * ndtr(s) + 0.2 * ndtr(-s))


def relaxation(matrix):
    """-1/log μ₂, in moves."""
    return -1 / math.log1p(-gap(matrix))


def test_the_mass_on_a_side_is_not_the_weight_until_the_modes_part():
    """Eq. (6.9), by quadrature of p_σ: from .58 at σ = 20 to .8."""
    for sigma, right in ((20.0, 0.5828), (5.0, 0.7503), (2.0, 0.7995), (0.5, 0.8)):
        x = np.linspace(0, REACH + 12 * math.sqrt(1 + sigma**2), 40_001)
        density = np.exp(line(1.0).log_prob(x[:, None], 1.0, sigma))
        assert side(1.0, sigma) == pytest.approx(float(np.trapezoid(density, x)), abs=1e-6)
        assert side(1.0, sigma) == pytest.approx(right, abs=5e-5)


@cache
def levels_in_numbers():
    """σ, P(u > 0), τ down the ladder of the chapter, to where τ is a million."""
    levels = geometric_levels(20.0, 0.5, 10)[:8]
    made = transitions(1.0, levels, 0.05, least=200)  # enough for eigenvalues: sums converge fast
    return [(s, side(1.0, s), relaxation(matrix)) for s, (_, matrix) in zip(levels, made, strict=True)]


def test_crossing_takes_twenty_moves_at_large_noise_and_a_million_at_small():
    """Eq. (6.10): relaxation times level by level, as the chapter tells them."""
    taus = [tau for _, _, tau in levels_in_numbers()]
    assert all(a < b for a, b in pairwise(taus))
    # 1/e = 20 moves is what a single Gaussian of the noise's width needs.
    wanted = (21.2, 23.3, 28.8, 44.5, 102, 473, 8220, 7.5e5)
    np.testing.assert_allclose(taus, wanted, rtol=5e-3)


def test_the_second_eigenvalue_is_the_rate_at_which_a_start_is_forgotten():
    """Eq. (6.10): between two starts the difference of the right sides shrinks by μ₂ a move, in the long run."""
    s = 5.85
    ((grid, matrix),) = transitions(1.0, [s], 0.05)
    a, b = (grid_law(grid.low, grid.high, len(grid.mass), STARTS[n][0]).push(matrix, 200) for n in ("minor", "major"))
    gaps = []
    for _ in range(2):
        gaps.append((b.mass - a.mass) @ (grid.centres > 0))
        a, b = a.push(matrix, 10), b.push(matrix, 10)
    assert gaps[1] / gaps[0] == pytest.approx(math.exp(-10 / relaxation(matrix)), rel=1e-6)


@pytest.mark.parametrize("moves", [30, 100, 300])
def test_weights_freeze_where_crossing_takes_as_long_as_a_level_lasts(moves):
    """Eqs. (6.9), (6.10): the weight at the end is P_σ(u > 0) of a level with τ within a factor of two of the moves."""
    end = predicted("wide modes", (30, 100, 300))["uniform", moves]
    log_tau = np.log([tau for _, _, tau in levels_in_numbers()])
    sides = [s for _, s, _ in levels_in_numbers()]
    frozen = float(np.exp(np.interp(end, sides, log_tau)))
    assert moves / 2 <= frozen <= 2 * moves, frozen


def test_the_bias_of_the_step_is_in_the_weights_too():
    """Where the step is finite the limit of the chain has another side mass: .7266 at σ = 5.85, p_σ has .7300."""
    ((grid, matrix),) = transitions(1.0, [5.848], 0.05)
    limit = grid_law(grid.low, grid.high, len(grid.mass), STARTS["uniform"][0]).push(matrix, 3000)
    assert limit.mean(lambda u: (u > 0) * 1.0) == pytest.approx(0.7266, abs=1e-4)
    assert side(1.0, 5.848) == pytest.approx(0.7300, abs=5e-5)


@given(seeds, st.floats(0.0, 2.0), st.integers(1, 6), st.floats(0.01, 0.9))
def test_a_chain_is_never_further_out_than_a_mode_and_one_gaussian(seed, variance, L, e):
    """Why the grids are wide enough: with the same noise, |u - y| <= the distance of a mode, y the chain of N(0, S)."""
    rng = np.random.default_rng(seed)
    levels = geometric_levels(20.0, 1.0, L) if L > 1 else (3.0,)
    start, z = rng.uniform(-7, 7, (20, 1)), rng.standard_normal((5 * L, 20, 1))
    one = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.array([variance]))
    ends = [
        last(
            simulate(
                AnnealedLangevin(ExactScore(p, VES), VES, e * levels[-1] ** 2, levels[-1], 5), x, times, ReplayRng(*z)
            )
        )
        for p, x, times in ((q, x, level_times(VES, levels)) for q, x in ((line(variance), start), (one, 0 * start)))
    ]
    assert_close(ends[0], ends[1], REACH * (1 + 1e-12))


def test_from_too_small_a_first_level_the_start_decides():
    """Technique 1, the reason: with σ₁ = 20, 7, 3, 1 the start is forgotten, half, hardly, not at all."""
    gap = {}
    for high in (20.0, 7.0, 3.0, 1.0):
        found = right_sides(1.0, geometric_levels(high, 0.5, 10), 0.05, (30,))
        gap[high] = found["major", 30] - found["minor", 30]
    assert gap[20.0] == pytest.approx(0.005, abs=5e-4)
    assert gap[7.0] == pytest.approx(0.12, abs=5e-3)
    assert gap[3.0] == pytest.approx(0.837, abs=5e-3)
    assert gap[1.0] > 0.9999


@pytest.mark.parametrize("variance", [1.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_a_suggested_walk_ends_in_two_modes_of_the_right_width(variance):
    """The modes in eight dimensions, 14 and 45 deviations apart, and the chain along them: E(|u| - r)², and weights.

    Pulled back through the moves, as above. Across the modes it is (6.8), of which test_suggest has the tests.
    """
    rng = np.random.default_rng(0)
    x = math.sqrt(variance) * rng.standard_normal((500, 8))
    x[:, 0] += np.where(rng.random(500) < 0.8, REACH, -REACH)
    plan = suggest_schedule(x)
    eta, low = plan.step / plan.levels[-1] ** 2, plan.levels[-1]
    made = transitions(variance, plan.levels, eta, plan.moves)
    where = made[-1][0].centres
    f = np.stack([(np.abs(where) - REACH) ** 2, where > 0], axis=1)
    for grid, matrix in reversed(made):
        f = np.stack([np.interp(grid.centres, where, column) for column in f.T], axis=1)
        for _ in range(plan.moves):
            f = matrix @ f
        where = grid.centres
    first = made[0][0]
    start = grid_law(first.low, first.high, len(first.mass), lambda u: ndtr(u / plan.levels[0]))
    width, right = start.mass @ f
    assert variance <= width <= plan.worst * (variance + low**2) <= 1.08 * variance
    assert 0.76 <= right <= 0.8  # weights freeze, (6.10)


def test_a_budget_is_better_spent_on_levels_than_on_moves():
    """300 evaluations as 5 x 60, 10 x 30, 30 x 10, 100 x 3: from the uniform box, on the ladder 20 to .5."""
    found = [
        right_sides(1.0, geometric_levels(20.0, 0.5, L), 0.05, (300 // L,))["uniform", 300 // L]
        for L in (5, 10, 30, 100)
    ]
    np.testing.assert_allclose(found, [0.7186, 0.7412, 0.7480, 0.7492], atol=2e-4)


# ------------------------------------------------------------------ the last step


@given(seeds, st.integers(1, 3), sdes, st.floats(0.05, 0.95))
def test_denoising_is_the_posterior_mean(seed, dim, sde, t):
    """Eq. (6.11): (x + σ² s)/α, against the mean of the components' posteriors."""
    p = random_mixture(seed, dim, 3)
    x = sde.alpha(t) * p.sample(np.random.default_rng(seed), 5) + sde.sigma(t)
    found = denoise(ExactScore(p, sde), sde, x, t)
    scale = 1 + np.max(np.abs(x)) / sde.alpha(t)
    assert_close(found, p.posterior_mean(x, sde.alpha(t), sde.sigma(t)), 1e-11 * scale)


def test_denoising_removes_the_noise_where_data_are_thin_and_as_much_again_where_they_are_wide():
    """Eq. (6.11) on N(m, C): Cov = C (C + σ²I)⁻¹ C, from the code by probing: 0 across, ν - σ² + σ⁴/(ν + σ²) along."""
    sigma, lam = 0.1, np.array([0.0, 2.0])
    p = GaussianMixture(np.ones(1), np.array([[1.0, -1.0]]), lam[None])
    A, _, c = probe(lambda x, rng: denoise(ExactScore(p, VES), VES, x, float(VES.time(sigma))), 2, 0)
    mean, cov = A @ p.means[0] + c, A @ np.diag(lam + sigma**2) @ A.T
    assert_close(mean, p.means[0], 1e-12)
    assert_close(cov, np.diag(lam**2 / (lam + sigma**2)), 1e-12)
    assert cov[0, 0] <= 1e-24  # all of σ² is gone
    assert cov[1, 1] == pytest.approx(2 - sigma**2, abs=sigma**4)  # σ² too narrow, where it was σ² too wide


# ------------------------------------------------------------------ a trained network


def trained(times, weight, steps):
    p = GaussianMixture(*(np.asarray(a, dtype="float32") for a in ([0.8, 0.2], [[5.0, 5], [-5, -5]], [1.0, 1])))
    model = ScoreModel(MLP((2, 64, 64, 2), embed=16), VES, data_std=math.sqrt(26))
    objective, ema = Denoising(times=times, weight=weight, antithetic=True), EMA(0.995)
    adam = Adam(WarmupCosine(3e-3, steps, warmup=50, end=3e-5))
    state = last(fit(model, objective, p, adam, np.random.default_rng(0), steps=steps, ema=ema))
    return model.bind(ema.mean(state.average)), objective


def errors_by_level(score, levels):
    """E‖s - s*‖²/E‖s*‖² on 20,000 points of each p_σ."""
    rng, exact, found = np.random.default_rng(9), ExactScore(plane(1.0), VES), []
    for s in levels:
        x = plane(1.0).sample(rng, 20_000) + s * rng.standard_normal((20_000, 2))
        found.append(
            score_error(
                lambda x, t: score(x.astype("float32"), t.astype("float32")), exact, x, float(VES.time(s))
            ).value
        )
    return found


@pytest.mark.slow  # chapter 6 runs the same, and asserts its excess
def test_one_network_learns_every_level():
    """1000 steps over ten levels: within 4 % of the score at each, and the excess over the exact floor is small."""
    levels = geometric_levels(20.0, 0.5, 10)
    score, objective = trained(Levels(levels), sigma_squared, 1000)
    assert max(errors_by_level(score, levels)) <= 0.04  # four times the pilot's worst level
    excess = excess_loss(score, plane(1.0), VES, objective, np.random.default_rng(1), "float32", 20_000)
    floor = denoising_floor(objective, plane(1.0), VES)
    assert floor.value == pytest.approx(0.295203, abs=1e-6)
    assert 0 < excess.value + quantile() * excess.error < 0.03 * floor.value
    # Annealed, with the learned score: the weights are those of the exact one, to what a hundredth of error may do.
    want = right_sides(1.0, levels, 0.05, (10,))
    learned = walked("wide modes", 10, 4000, 3, score)
    for start, right in learned.items():
        assert_share(right, want[start, 10], bias=0.02, why=start)


def test_a_network_of_one_level_knows_no_other():
    levels = (20.0, 3.0, 0.5)
    score, _ = trained(FixedTime(float(VES.time(3.0))), sigma_squared, 500)
    errors = errors_by_level(score, levels)
    assert errors[1] <= 0.03
    assert min(errors[0], errors[2]) > 0.05


@pytest.mark.parametrize(("times", "words"), [
    ([0.9, 0.3, 0.1, 0.0], r"is the level σ = .*, below the last one"),  # another grid
    ([0.5, 0.9], "annealing goes from the largest noise to the least"),
])  # fmt: skip
def test_a_grid_that_is_not_of_the_levels_is_refused(times, words):
    sde = VE(0.01, 25.0)
    step = AnnealedLangevin(lambda x, t: -x, sde, step=0.1, last=1.0, moves=1)
    with pytest.raises(ValueError, match=words):
        _ = last(simulate(step, np.zeros((2, 2)), times, np.random.default_rng(0)))
