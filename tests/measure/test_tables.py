"""Tables are code, too: fed with a score that is wrong in a known way, each number has a closed form."""

import math

import numpy as np
import pytest

from refscore import VE, VP, Denoising, ExactScore, GaussianMixture
from refscore.arrays import per_sample
from refscore.laws.affine_chain import Gaussian, wasserstein
from refscore.laws.examples import mixture
from refscore.likelihood.elbo import elbo
from refscore.matching.times import FixedTime, UniformLogSNR, UniformTime
from refscore.matching.weights import g_squared, sigma_squared
from refscore.measure.distance import fisher_divergence, mode_weights, score_error
from refscore.measure.floor import denoising_floor
from refscore.measure.tables import excess_loss, flow_samples, sample_table, score_table
from refscore.noise.prior import prior_mismatch
from refscore.noise.sde import log_ratio
from tests.oracles.marks import each_sde
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import assert_spread, assert_within
from tests.oracles.strategies import random_mixture

TILTED, T_MIN = mixture("tilted"), 1e-3
DOUBLE, SINGLE = np.dtype("float64"), np.dtype("float32")


def noise_off_by(c, sde, p=TILTED):
    """A score whose predicted noise is off by c in the first coordinate, everywhere."""
    exact = ExactScore(p, sde)
    return lambda x, t: exact(x, t) + c / per_sample(sde.sigma(t), x) * np.eye(p.dim, dtype=x.dtype)[0]


# ------------------------------------------------------------------ excess loss


@each_sde
def test_excess_of_a_biased_noise_is_its_square_in_log_snr(sde):
    """λ = g², noise off by c: ∫ g² c²/2σ² dt = c² (ℓ(1) - ℓ(t_min)) over 1 - t_min, whichever law draws the times.

    By `UniformLogSNR` every draw is that number; by `UniformTime` their mean.
    """
    c = 0.3
    wanted = c**2 * (log_ratio(sde, 1.0) - log_ratio(sde, T_MIN)) / (1 - T_MIN)
    score, rng = noise_off_by(c, sde), np.random.default_rng(0)
    even = excess_loss(score, TILTED, sde, Denoising(weight=g_squared, times=UniformLogSNR(T_MIN)), rng, DOUBLE, n=500)
    assert even.value == pytest.approx(wanted, rel=1e-9)  # the inverse of σ/α, and s + δ - s
    assert even.error <= 1e-9 * wanted
    uniform = excess_loss(
        score, TILTED, sde, Denoising(weight=g_squared, times=UniformTime(T_MIN)), rng, DOUBLE, n=50_000
    )
    # the heavy tail of g²/σ² at small t makes a mean of 5e4 draws less than normal: hence 8 and not 6.1
    assert_within(uniform.value, wanted, uniform.error, alpha=1e-15, sees=0.6 * wanted, n=50_000)


def test_excess_weighted_with_sigma_squared_is_the_half_square_whatever_the_times():
    """λ = σ²: ½ c², exactly, at one time and over uniform ones; in float32 to its rounding."""
    sde, c = VP(), 0.3
    for times in (FixedTime(0.4), UniformTime(T_MIN)):
        objective = Denoising(weight=sigma_squared, times=times)
        for dtype, rel in ((DOUBLE, 1e-10), (SINGLE, 0.01)):
            found = excess_loss(noise_off_by(c, sde), TILTED, sde, objective, np.random.default_rng(1), dtype, n=400)
            assert found.value == pytest.approx(0.5 * c * c, rel=rel)


def test_excess_of_a_linear_field_is_its_second_moment():
    """s + A x at one time: ½ tr(A Aᵀ E x xᵀ), E x xᵀ of α x₀ + σ z; the constant is not in the exact score."""
    sde, t, A = VP(), 0.3, np.array([[0.2, -0.1], [0.4, 0.3]])
    exact, alpha, sigma = ExactScore(TILTED, sde), sde.alpha(0.3), sde.sigma(0.3)
    w, m, C = TILTED.weights, TILTED.means, TILTED.covariances
    second = alpha**2 * (np.einsum("k,kij->ij", w, C) + (w[:, None] * m).T @ m) + sigma**2 * np.eye(2)
    objective = Denoising(weight=g_squared, times=FixedTime(t))
    found = excess_loss(
        lambda x, t: exact(x, t) + x @ A.T, TILTED, sde, objective, np.random.default_rng(2), DOUBLE, n=20_000
    )
    wanted = 0.5 * sde.g(t) ** 2 * float(np.trace(A @ second @ A.T))
    assert_within(found.value, wanted, found.error, sees=0.2 * wanted, n=20_000)


def test_a_score_without_error_has_no_excess():
    sde = VE()
    objective = Denoising(weight=g_squared, times=UniformLogSNR(T_MIN))
    found = excess_loss(ExactScore(TILTED, sde), TILTED, sde, objective, np.random.default_rng(0), DOUBLE, n=100)
    assert (found.value, found.error) == (0.0, 0.0)


# ------------------------------------------------------------------ errors that are stated


LINE = random_mixture(1, 3, 2, "isotropic", low=0.5)
VE_10 = VE(0.01, 10.0)


def wrong(x, t):
    return 1.2 * ExactScore(LINE, VE_10)(x, t)


ESTIMATES = {
    "excess loss": lambda rng: excess_loss(wrong, LINE, VE_10, Denoising(times=UniformTime(0.1)), rng, DOUBLE, n=200),
    "score table": lambda rng: (
        score_table(
            lambda x, t: ExactScore(LINE, VE_10)(x, t) + 0.2 * x, LINE, VE_10, rng, DOUBLE, n=200, levels=(0.5,)
        )[0].error
    ),
    "score error": lambda rng: score_error(
        lambda x, t: np.tanh(x), lambda x, t: LINE.score(x), LINE.sample(rng, 200), 0.5
    ),
    "fisher divergence": lambda rng: fisher_divergence(LINE, lambda x: np.tanh(x), rng, samples=200),
    "prior mismatch": lambda rng: prior_mismatch(LINE, VE(0.01, 1.0), rng, samples=200),
    "mode weights": lambda rng: mode_weights(LINE, LINE.sample(rng, 200))[0],
    "denoising floor": lambda rng: denoising_floor(Denoising(times=FixedTime(0.5)), LINE, VE_10, rng, samples=200),
}


@pytest.mark.parametrize("estimate", ESTIMATES.values(), ids=ESTIMATES)
def test_the_error_of_an_estimate_is_the_spread_of_its_value(estimate):
    """Over 200 seeds the variance of the values is the mean of the squared errors, up to χ² with 199 degrees."""
    found = [estimate(np.random.default_rng([7, seed])) for seed in range(200)]
    assert_spread([f.value for f in found], [f.error for f in found])


def test_the_error_of_the_evidence_bound_is_the_spread_of_its_value():
    x0, score = np.tile(LINE.means[:1, :], (200, 1)), ExactScore(LINE, VE_10)
    found = elbo(score, VE_10, x0, np.random.default_rng(3), samples=100, t_min=0.1)  # 200 rows for 200 seeds
    assert_spread(found.value, found.error)


# ------------------------------------------------------------------ the table of scores


@each_sde
def test_a_score_wrong_on_one_side_of_the_mean_is_half_wrong_at_every_level(sde):
    """s + c e₁ where x₁ > α m₁: E‖s - s*‖² = ½ c², and E‖s*‖² = tr S⁻¹, S = α² C + σ² I. The points must be of p_t."""
    p = GaussianMixture(np.ones(1), np.array([[3.0, -1.0]]), np.array([[0.5, 0.2]]))
    exact, c = ExactScore(p, sde), 0.7

    def score(x, t):
        right = x[:, :1] > 3.0 * per_sample(sde.alpha(t), x)
        return exact(x, t) + c * right * np.array([1.0, 0.0])

    levels = (0.05, 0.3, 1.0, 2.0, 1e9)
    rows = score_table(score, p, sde, np.random.default_rng(0), DOUBLE, n=4000, levels=levels)
    assert [row.level for row in rows] == list(levels[:4])  # beyond σ(1)/α(1) there is no time
    for row in rows:
        alpha, sigma = sde.alpha(row.t), sde.sigma(row.t)
        assert sigma / alpha == pytest.approx(row.level, rel=1e-9)
        wanted = 0.5 * c * c / np.sum(1 / (alpha**2 * p.covariances[0] + sigma**2))
        assert_within(row.error.value, wanted, row.error.error, sees=0.3 * wanted, n=4000)


def test_a_network_is_asked_in_its_own_dtype_and_the_truth_in_double():
    asked = set()

    def score(x, t):
        asked.update((x.dtype, t.dtype))
        return -x

    rng = np.random.default_rng(0)
    score_table(score, TILTED, VP(), rng, SINGLE, n=50)
    excess_loss(score, TILTED, VP(), Denoising(), rng, SINGLE, n=50)
    assert asked == {SINGLE}


# ------------------------------------------------------------------ the table of samples


def test_each_column_of_the_sample_table_speaks_of_its_own_samples():
    """Learned samples moved by v and with their weights exchanged: both are seen, and in that column alone."""
    p = mixture("two-modes")
    rng, v = np.random.default_rng(0), np.array([0.3, 1.1])
    exchanged = GaussianMixture(p.weights[::-1].copy(), p.means, p.covariances)
    table = sample_table(exchanged.sample(rng, 1000) + v, p.sample(rng, 1000), p, rng)
    assert [row.weight for row in table.modes] == [0.8, 0.2]
    for row, other in zip(table.modes, (0.2, 0.8), strict=True):
        assert_within(row.learned.value, other, row.learned.error, sees=0.15, n=1000)
        assert_within(row.exact.value, row.weight, row.exact.error, sees=0.15, n=1000)
    assert table.learned > 1  # modes 14 apart whose weights differ by .6


def test_the_exact_column_lies_at_the_floor_and_a_shift_at_its_length_over_root_two():
    n, v = 1000, np.array([6.0, 8.0])
    rng = np.random.default_rng(1)
    exact = TILTED.sample(rng, n)
    table = sample_table(exact + v, exact, TILTED, rng)
    assert abs(table.exact - table.floor.value) <= 6 * table.floor.error  # its error is the deviation of one distance
    assert table.exact > 0.2 * table.floor.value  # two independent samples do not agree
    # E (u·v)² = ‖v‖²/2 over directions; of 128 of them its relative deviation is 1/√(2·128), that of the root half
    assert_within(table.learned, 10 / math.sqrt(2), 10 / math.sqrt(2) * 0.5 / math.sqrt(256), n=128)


def test_the_sample_table_takes_float32_samples():
    rng = np.random.default_rng(1)
    x, y = TILTED.sample(rng, 300), TILTED.sample(rng, 300)
    one, other = (sample_table(*(a.astype(d) for a in (x, y)), TILTED, np.random.default_rng(2))
                  for d in (SINGLE, DOUBLE))  # fmt: skip
    assert one.learned == pytest.approx(other.learned, rel=1e-5)
    assert one.floor == other.floor


@each_sde
def test_flow_samples_have_the_law_of_the_data(sde):
    """Without a sample: on one Gaussian the flow is affine in what the prior draws, and unit vectors tell the map."""
    p = GaussianMixture(np.ones(1), np.array([[1.5, -0.5]]), np.array([[[0.8, 0.3], [0.3, 0.4]]]))
    units = np.concatenate([np.zeros((1, 2)), np.eye(2)])
    y = flow_samples(ExactScore(p, sde), sde, 3, 2, ReplayRng(units), DOUBLE)
    A = (y[1:] - y[:1]).T
    # 64 steps of order 2; what the prior is off, Eq. (10.19); and the noise that is left at t_min
    off = wasserstein(Gaussian(y[0], A @ A.T), Gaussian(p.means[0], p.covariances[0]))
    assert off <= 0.05
