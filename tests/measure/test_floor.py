"""The floor of denoising score matching: closed forms, an independent quadrature, Monte Carlo."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from refscore import VE, VP, Denoising, GaussianMixture
from refscore.laws.examples import mixture
from refscore.laws.expectation import gauss_legendre, quadrature_grid
from refscore.matching.times import FixedTime, Levels, UniformLogSNR, UniformTime
from refscore.matching.weights import g_squared, sigma_squared, unweighted
from refscore.measure.floor import denoising_floor, mean_posterior_variance
from tests.oracles.statistics import assert_mean, assert_within, quantile
from tests.oracles.strategies import KINDS, mixtures, random_mixture, sdes, seeds

WEIGHTS = (sigma_squared, g_squared, unweighted)


def fisher_information(p, a, s):
    """E|∇ log p_t|² in 1-D, by a rule fine enough for the poles of the score."""
    sd = np.sqrt(a**2 * p.variances + s**2)
    m = a * p.means
    x = np.arange(float(np.min(m - 12 * sd)), float(np.max(m + 12 * sd)), 0.05 * float(sd.min()))[:, None]
    return float((x[1, 0] - x[0, 0]) * np.sum(np.exp(p.log_prob(x, a, s)) * p.score(x, a, s)[:, 0] ** 2))


@given(mixtures(max_dim=1, max_components=3, low=0.1), sdes, st.floats(0.1, 1.0), st.sampled_from(WEIGHTS))
def test_floor_is_what_the_score_cannot_know(p, sde, t, weight):
    """½ λ (D/σ² - E|s|²), the other form of the same number."""
    a, s = sde.alpha(t), sde.sigma(t)
    lam = weight(sde, t)
    floor = denoising_floor(Denoising(weight=weight, times=FixedTime(t)), p, sde)
    expected = 0.5 * lam * (1 / s**2 - fisher_information(p, a, s))
    # the stated error of the trapezoid rule; the difference loses what D/σ² is larger by
    assert floor.error == pytest.approx(0.5 * lam * 1e-6 / s**2, rel=1e-12)
    assert abs(floor.value - expected) <= floor.error + 1e-11 * 0.5 * lam / s**2


def test_floor_has_the_recorded_value():
    """.8 N(2, ¼) + .2 N(-2, ¼), variances ¼, at σ = .7."""
    p = GaussianMixture(np.asarray([0.8, 0.2]), np.asarray([[2.0], [-2.0]]), np.asarray([0.25, 0.25]))
    sde = VE()
    objective = Denoising(weight=unweighted, times=FixedTime(sde.time(0.7)))
    assert denoising_floor(objective, p, sde).value == pytest.approx(0.431049, abs=5e-7)


def one_gaussian(variances, a, s):
    """½ (α²/σ⁴) tr Cov[x₀ | x_t] = ½ Σ α² v / (σ² (α² v + σ²))."""
    return 0.5 * float(np.sum(a**2 * variances / (s**2 * (a**2 * variances + s**2))))


@given(seeds, st.integers(1, 2), st.sampled_from(KINDS), sdes, st.floats(0.05, 1.0), st.sampled_from(WEIGHTS))
def test_floor_of_one_gaussian_is_closed(seed, dim, kind, sde, t, weight):
    p = random_mixture(seed, dim, 1, kind)
    v = np.broadcast_to(p.variances, (1, dim))
    floor = denoising_floor(Denoising(weight=weight, times=FixedTime(t)), p, sde)
    expected = weight(sde, t) * one_gaussian(v, sde.alpha(t), sde.sigma(t))
    assert floor.value == pytest.approx(expected, rel=1e-11)  # no poles: the rule is exact to rounding


@pytest.mark.parametrize("sde", [VP(), VE(0.01, 10.0)], ids=str)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("times", [UniformTime(0.05), UniformLogSNR(0.05)])
def test_floor_over_times_is_the_integral_over_uniform_time(sde, weight, times):
    """The law of the times is undone by its factor: both have the same expected loss."""
    p = random_mixture(5, 1, 1)
    v = np.asarray(p.variances)

    def at(t):
        return weight(sde, t) * one_gaussian(v, sde.alpha(t), sde.sigma(t))

    expected = quad(at, 0.05, 1.0, epsabs=0, epsrel=1e-10)[0] / 0.95
    floor = denoising_floor(Denoising(weight=weight, times=times), p, sde)
    assert floor.value == pytest.approx(expected, rel=1e-6)
    assert abs(floor.value - expected) <= 2 * floor.error + 1e-9 * expected


def test_floor_of_a_ladder_is_the_mean_of_its_levels_floors(backend):
    p, sde, levels = mixture("tilted", backend.asarray), VP(), (0.9, 0.5, 0.2)
    each = [denoising_floor(Denoising(times=FixedTime(sde.time(s))), p, sde).value for s in levels]
    assert denoising_floor(Denoising(times=Levels(levels)), p, sde).value == pytest.approx(sum(each) / 3, rel=1e-12)


@pytest.mark.recorded("two levels beside one are an estimate: on other mixtures the error is up to twice what they say")
def test_floor_judges_its_time_quadrature():
    p, sde = random_mixture(5, 1, 2, low=0.2), VP()
    reference = denoising_floor(Denoising(), p, sde, levels=64).value
    for levels in (2, 4, 8):
        rough = denoising_floor(Denoising(), p, sde, levels=levels)
        assert 0 < abs(rough.value - reference) <= rough.error


@pytest.mark.parametrize("kind", KINDS)
def test_floor_in_three_dimensions_is_monte_carlo_within_its_error(kind):
    one, sde, t = random_mixture(7, 3, 1, kind), VP(), 0.3
    exact = sde.sigma(t) ** 2 * one_gaussian(np.broadcast_to(one.variances, (1, 3)), sde.alpha(t), sde.sigma(t))
    objective = Denoising(times=FixedTime(t))
    floor = denoising_floor(objective, one, sde, np.random.default_rng(0))
    # One Gaussian: the posterior variance is the same at every x, so there is no Monte Carlo error.
    assert floor.value == pytest.approx(exact, rel=1e-10)
    assert floor.error <= 1e-10 * exact

    p = random_mixture(8, 3, 3, kind)
    floor = denoising_floor(objective, p, sde, np.random.default_rng(1), samples=20_000)
    assert 0 < floor.error < 0.02 * floor.value
    again = denoising_floor(objective, p, sde, np.random.default_rng(2), samples=20_000)
    assert_within(floor.value - again.value, 0.0, math.hypot(floor.error, again.error), n=20_000)


@pytest.mark.parametrize(("dim", "n"), [(1, 100_000), (2, 100_000), (3, 100_000)])
def test_floor_is_the_loss_of_the_exact_score(dim, n):
    """½ σ² E|s(x_t) + z/σ|² from draws of x₀ and z: the definition."""
    p, sde, t = random_mixture(9, dim, 3), VP(), 0.2
    a, s = sde.alpha(t), sde.sigma(t)
    rng = np.random.default_rng(3)
    z = rng.standard_normal((n, dim))
    loss = 0.5 * s**2 * np.sum((p.score(a * p.sample(rng, n) + s * z, a, s) + z / s) ** 2, axis=1)
    floor = denoising_floor(Denoising(times=FixedTime(t)), p, sde, np.random.default_rng(4), samples=200_000)
    assert_mean(loss, floor.value, bias=quantile() * floor.error)


def test_floor_over_times_adds_the_errors_of_its_levels():
    p, sde = random_mixture(10, 3, 2), VP()
    objective = Denoising(times=UniformTime(0.1))
    values = [denoising_floor(objective, p, sde, np.random.default_rng(i), 8, 500) for i in range(40)]
    spread = float(np.std([v.value for v in values], ddof=1))
    # 40 runs give the deviation to 11 %; the stated error has the difference to half the levels too, up to 4.2 of these
    assert 0.6 * spread < np.mean([v.error for v in values]) < 5 * spread


def test_monte_carlo_wants_an_rng():
    p = random_mixture(1, 3, 2)
    with pytest.raises(ValueError, match="give an rng"):
        denoising_floor(Denoising(times=FixedTime(0.5)), p, VP())


@given(mixtures(max_dim=2), st.floats(0.1, 1.0), st.floats(0.1, 2.0))
def test_best_denoiser_beats_the_linear_and_the_trivial(p, a, s):
    mse = mean_posterior_variance(p, a, s, np.random.default_rng(0)).value
    C = (
        p.covariances
        if p.covariances.ndim == 3
        else p.covariances.reshape(p.n_components, -1)[..., None] * np.eye(p.dim)
    )
    y = p.means - p.weights @ p.means
    total = np.einsum("k,kij->ij", p.weights, C + y[:, :, None] * y[:, None, :])
    lam = np.linalg.eigvalsh(total)
    linear = float(np.sum(lam * s**2 / (a**2 * lam + s**2)))  # the best affine denoiser
    oracle = float(
        p.weights @ np.sum(np.broadcast_to(p.variances * s**2 / (a**2 * p.variances + s**2), p.means.shape), axis=1)
    )
    assert oracle * (1 - 1e-6) <= mse <= linear * (1 + 1e-6)  # who knows the component does better still


@pytest.mark.parametrize("s", [0.6, 0.4, 0.3, 0.25, 0.2, 0.154])  # 3 to 13 standard deviations apart
def test_denoiser_of_points_errs_by_no_more_than_it_says(s):
    """Two points ±1: E tr Cov = 1 - E tanh², by quadrature. Modes apart are where the rule is worst."""
    p = GaussianMixture(np.asarray([0.5, 0.5]), np.asarray([[-1.0], [1.0]]), np.zeros(2))

    def integrand(x):
        density = 0.5 * sum(math.exp(-0.5 * ((x - m) / s) ** 2) for m in (-1, 1)) / (s * math.sqrt(2 * math.pi))
        return density / math.cosh(x / s**2) ** 2

    expected = quad(integrand, -8, 8, epsabs=1e-13, epsrel=1e-12, points=[0.0])[0]
    found = mean_posterior_variance(p, 1.0, s)
    assert found.error == pytest.approx(1e-6 * s**2)
    assert abs(found.value - expected) <= found.error


# ------------------------------------------------------------------ the rules


@pytest.mark.parametrize("n", [1, 2, 3, 5, 12, 48])
def test_gauss_legendre_is_exact_for_polynomials(n):
    nodes, weights = gauss_legendre(np.zeros(1), n)
    assert nodes.shape == weights.shape == (n,)
    assert np.all((nodes > 0) & (nodes < 1))
    for degree in range(2 * n):
        assert weights @ nodes**degree == pytest.approx(1 / (degree + 1), rel=1e-12)
    if n < 8:  # and no further: the error of x²ⁿ is (n!)⁴ / ((2n + 1) (2n)!²)
        missed = math.factorial(n) ** 4 / ((2 * n + 1) * math.factorial(2 * n) ** 2)
        assert 1 / (2 * n + 1) - weights @ nodes ** (2 * n) == pytest.approx(missed, rel=1e-6)
    expected_nodes, expected_weights = np.polynomial.legendre.leggauss(n)
    assert nodes == pytest.approx(0.5 * (1 + expected_nodes), abs=1e-14)
    assert weights == pytest.approx(0.5 * expected_weights, abs=1e-13)


def test_gauss_legendre_keeps_dtype():
    nodes, weights = gauss_legendre(np.zeros(1, dtype="float32"), 5)
    assert nodes.dtype == weights.dtype == np.float32


@given(mixtures(max_dim=2, low=0.1))
def test_quadrature_grid_integrates_the_density_and_its_moments(p):
    grid = quadrature_grid(p)
    assert grid is not None
    x, cell = grid
    mass = cell * np.exp(p.log_prob(x))
    assert mass.sum() == pytest.approx(1.0, abs=1e-13)
    assert mass @ x == pytest.approx(p.weights @ p.means, abs=1e-11)


def test_quadrature_grid_knows_when_it_is_too_fine():
    far = GaussianMixture(np.asarray([0.5, 0.5]), np.asarray([[0.0, 0.0], [1.0, 0.0]]), np.asarray([1e-8, 1.0]))
    assert quadrature_grid(far) is None
    assert quadrature_grid(GaussianMixture(np.ones(1), np.zeros((1, 1)), np.zeros(1))) is None
    nodes, _ = quadrature_grid(random_mixture(0, 2, 2), budget=1e6)
    assert quadrature_grid(random_mixture(0, 2, 2), budget=2 * len(nodes) * 0.9) is None
    # Too fine a grid falls back on Monte Carlo.
    p = GaussianMixture(far.weights, far.means, np.asarray([1e-12, 1.0]))
    estimate = mean_posterior_variance(p, 1.0, 1e-5, np.random.default_rng(0), samples=2000)
    assert estimate.error > 0


def test_floor_on_every_backend(backend):
    p = random_mixture(11, 2, 3)
    moved = GaussianMixture(*(backend.asarray(a) for a in (p.weights, p.means, p.covariances)))
    objective = Denoising(times=UniformTime(0.1))
    expected = denoising_floor(objective, p, VP(), levels=6)
    assert denoising_floor(objective, moved, VP(), levels=6).value == pytest.approx(expected.value, rel=1e-12)


def weight_of_one(sde, t):
    """A weight that forgets to follow t: a float, not an array."""
    return 1.0


def test_a_constant_weight_may_be_a_float():
    p = random_mixture(12, 1, 2)
    mine, theirs = (denoising_floor(Denoising(weight=w, times=UniformTime(0.1)), p, VP(), levels=6).value
                    for w in (weight_of_one, unweighted))  # fmt: skip
    assert mine == pytest.approx(theirs, rel=1e-14)
