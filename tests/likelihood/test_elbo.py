"""Chapter 12: the evidence lower bound of a diffusion is its score loss; for the exact score it becomes an equality."""

import itertools
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import VE, VP, Ancestral, Denoising, ExactScore
from refscore.laws.expectation import gauss_legendre
from refscore.likelihood.elbo import decoder, discrete_loss, elbo, noise_error
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.noise.grids import log_snr_times, uniform_times
from refscore.noise.parametrisation import PARAMETRISATIONS, affine, convert
from refscore.noise.prior import gaussian_prior, prior_kl
from refscore.noise.sde import SDES, CosineVP, LinearVE, log_ratio
from refscore.sampling.transitions import transition
from tests.oracles.close import assert_close
from tests.oracles.marks import each_sde
from tests.oracles.mixtures import UNLIKE
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import assert_within
from tests.oracles.strategies import random_mixture, seeds

P = UNLIKE
NODES = np.linspace(-8, 8, 641)  # of z: the trapezoid rule, for what decays like exp(-z²/2)
DENSITY = np.exp(-0.5 * NODES**2) / math.sqrt(2 * math.pi) * (NODES[1] - NODES[0])
X0 = np.array([-1.4, 0.1, 0.9])


def over_noise(f):
    """E f(x₀, z) over z for each of X0, f of (B, 1) arrays, B = all pairs."""
    x0, z = (a.reshape(-1, 1) for a in np.meshgrid(X0, NODES, indexing="ij"))
    return f(x0, z).reshape(len(X0), -1) @ DENSITY


def mean_error(sde, t, score=None):
    """e(t) = E‖z - ẑ‖² at each of X0."""
    return over_noise(lambda x0, z: noise_error(score or ExactScore(P, sde), sde, x0, t, z))


def loss(sde, t_min, n=64):
    """∫ e dℓ from t_min to 1, Gauss-Legendre in ℓ."""
    low, high = log_ratio(sde, t_min), log_ratio(sde, 1.0)
    u, w = gauss_legendre(np.ones(1), n)
    times = [min(float(sde.time_at_log_ratio(low + (high - low) * v)), 1.0) for v in u]
    return (high - low) * sum(weight * mean_error(sde, t) for weight, t in zip(w, times, strict=True))


def divergence_at(sde, t):
    """KL(q(x_t | x₀) ‖ p_t) at each of X0, by quadrature over z."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)

    def ratio(x0, z):
        q = -0.5 * z[:, 0] ** 2 - 0.5 * math.log(2 * math.pi * sigma**2)
        return q - P.log_prob(alpha * x0 + sigma * z, alpha, sigma)

    return over_noise(ratio)


# ------------------------------------------------------------------ the equality


@each_sde
def test_the_integral_is_the_information_that_noise_destroys(sde):
    """Eqs. (12.10), (12.12): with the exact score an equality at each x₀, whatever the schedule."""
    t_min = 0.01
    wanted = divergence_at(sde, t_min) - divergence_at(sde, 1.0)
    assert_close(loss(sde, t_min), wanted, 1e-8)


@each_sde
def test_the_bound_is_an_equality_for_the_exact_score_decoder_and_prior(sde):
    """Eq. (12.7): -log p(x₀) itself, with p_1 for the prior and the posterior of x₀ for the decoder."""
    t = 0.01
    alpha, sigma = sde.alpha(t), sde.sigma(t)

    def posterior(x0, z):  # Bayes
        x = alpha * x0 + sigma * z
        likelihood = -0.5 * z[:, 0] ** 2 - 0.5 * math.log(2 * math.pi * sigma**2)
        return P.log_prob(x0) + likelihood - P.log_prob(x, alpha, sigma)

    bound = over_noise(posterior) - loss(sde, t) - divergence_at(sde, 1.0)
    assert_close(bound, P.log_prob(X0[:, None]), 1e-8)


def test_the_gaussian_decoder_costs_what_it_does_not_know():
    """Eq. (12.11): averaged over data the price is KL(p(x₀ | x_ε) ‖ decoder), positive, and of order ε²."""
    sde, width = VP(), 0.01
    x0 = np.arange(-5, 5, width)[:, None]
    weight = width * np.exp(P.log_prob(x0))
    prices = []
    for t in (4e-4, 2e-4, 1e-4):
        alpha, sigma, score = sde.alpha(t), sde.sigma(t), ExactScore(P, sde)
        z, w = np.polynomial.hermite_e.hermegauss(24)
        price = 0.0
        for node, mass in zip(z, w / w.sum(), strict=True):
            noise = np.full_like(x0, node)
            x = alpha * x0 + sigma * noise
            kernel = -0.5 * node**2 - 0.5 * math.log(2 * math.pi * sigma**2)
            exact = P.log_prob(x0) + kernel - P.log_prob(x, alpha, sigma)
            price += mass * float(weight @ (exact - decoder(score, sde, x0, noise, t)))
        prices.append(price)
    assert min(prices) > 0
    assert np.all(np.diff(prices) < 0)
    ratios = np.array(prices[:-1]) / np.array(prices[1:])
    assert np.all(np.abs(ratios - 4) < 0.5), ratios  # σ² halves: the posterior's own variance is σ² (1 + σ² s')


# ------------------------------------------------------------------ one number


@given(seed=seeds, name=st.sampled_from(sorted(SDES)), n=st.integers(2, 6), dim=st.integers(1, 3))
def test_the_discrete_loss_is_one_number_in_every_parametrisation(seed, name, n, dim):
    """Eqs. (12.8), (12.9): ½ (SNR(s) - SNR(t)) ‖x₀ - x̂₀‖², and the same through v, F, the score and the velocity."""
    sde, p, rng = SDES[name], random_mixture(seed, dim, 2), np.random.default_rng(seed)
    x0, z = p.sample(rng, 4), rng.standard_normal((n, 4, dim))
    times = log_snr_times(sde, n, 0.01)
    score = lambda x, t: 0.9 * ExactScore(p, sde)(x, t)  # noqa: E731 - any score will do
    wanted = discrete_loss(score, sde, x0, z, times)
    for q in PARAMETRISATIONS:
        total = np.zeros(4)
        for (t, s), noise in zip(pairwise(times), z, strict=True):
            alpha, sigma = sde.alpha(t), sde.sigma(t)
            x = alpha * x0 + sigma * noise
            guess = convert(score(x, np.full(1, t)), x, t, sde, "score", q)
            truth = convert(-noise / sigma, x, t, sde, "score", q)
            snr = [(sde.alpha(u) / sde.sigma(u)) ** 2 for u in (t, s)]
            per_data = (sigma**2 / alpha / affine(q, sde, t)[1]) ** 2  # ‖x₀ - x̂₀‖² of ‖q - q*‖²
            total += 0.5 * (snr[1] - snr[0]) * per_data * np.sum((guess - truth) ** 2, axis=1)
        assert np.max(np.abs(total - wanted) / (1 + wanted)) <= 1e-10, q


@given(seed=seeds, name=st.sampled_from(sorted(SDES)), t=st.floats(0.1, 1.0), part=st.floats(0.1, 0.95))
def test_a_step_of_the_loss_is_the_divergence_of_two_gaussians(seed, name, t, part):
    """Eqs. (12.7), (12.8): KL(q(x_s | x_t, x₀) ‖ the ancestral step), means from the code, small variance."""
    sde, s, rng = SDES[name], part * t, np.random.default_rng(seed)
    x0, z = rng.standard_normal((2, 3, 2))
    p = transition(sde, t, s)
    x = p.alpha_t * x0 + p.sigma_t * z
    score = lambda y, time: np.sin(y)  # noqa: E731 - any score will do
    exactly = lambda y, time: -z / p.sigma_t  # noqa: E731 - of the kernel: then x̂₀ = x₀
    guess, truth = (Ancestral(sde, f)(x, t, s, ReplayRng(0 * z))[0] for f in (score, exactly))
    variance = p.sigma_s**2 * p.lost
    # the truth once more, by Bayes: precision-weighted x_t/a and α_s x₀
    a, left = p.a, p.sigma_t**2 * p.lost
    bayes = (a * x / left + p.alpha_s * x0 / p.sigma_s**2) / (a**2 / left + 1 / p.sigma_s**2)
    np.testing.assert_allclose(truth, bayes, rtol=1e-9, atol=1e-9 * (1 + np.max(np.abs(x))))
    np.testing.assert_allclose(variance, 1 / (a**2 / left + 1 / p.sigma_s**2), rtol=1e-9)
    kl = np.sum((guess - truth) ** 2, axis=1) / (2 * variance)
    found = discrete_loss(score, sde, x0, [z], [t, s])
    np.testing.assert_allclose(found, kl, rtol=1e-8)  # where h is small, both are differences


@given(seed=seeds, name=st.sampled_from(sorted(SDES)), n=st.integers(1, 6))
def test_prior_divergence_in_closed_form(seed, name, n):
    """Eq. (12.7): KL(N(α x₀, σ² I) ‖ N(0, prior_std² I)), by Gauss-Hermite of the log ratio, exact for squares."""
    sde, rng = SDES[name], np.random.default_rng(seed)
    x0 = rng.standard_normal((3, n))
    alpha, sigma = sde.alpha(1.0), sde.sigma(1.0)
    corners = np.array(list(itertools.product((-1.0, 1.0), repeat=n)))  # signs: exact for second moments
    total = np.zeros(3)
    for z in corners:
        q = -0.5 * np.sum(z**2) - 0.5 * n * math.log(2 * math.pi * sigma**2)
        total += (q - gaussian_prior(sde)(alpha * x0 + sigma * z)) / len(corners)
    np.testing.assert_allclose(prior_kl(sde, x0), total, rtol=0, atol=1e-12 * (1 + n))
    assert np.all(prior_kl(sde, x0) >= 0)


# ------------------------------------------------------------------ the schedule


def time_at(sde, ratio):
    return min(float(sde.time_at_log_ratio(ratio)), 1.0)


def in_time(sde, low, high, n=160):
    """∫ ½ g² E‖s + z/σ‖² dt between the times of two levels: an integrand that knows the schedule, Eq. (12.10)."""
    # √t as variable: near t = 0 the integrand is like 1/t
    a, b = (math.log(time_at(sde, level)) for level in (low, high))
    u, w = gauss_legendre(np.ones(1), n)
    total = np.zeros(len(X0))
    for node, weight in zip((a + (b - a) * u).tolist(), w, strict=True):
        t = math.exp(node)
        rate = 0.5 * sde.g(t) ** 2 / sde.sigma(t) ** 2
        total += (b - a) * weight * t * rate * mean_error(sde, t)
    return total


OTHERS = {"cosine": CosineVP(), "linear-ve": LinearVE(), "ve": VE(0.01, 50.0), "ou": SDES["ou"], "subvp": SDES["subvp"]}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_the_continuous_loss_knows_only_the_ends_of_the_schedule(other):
    """Eq. (12.10)."""
    low, high = -3.0, 2.5
    assert_close(in_time(VP(), low, high), in_time(other, low, high), 1e-8)
    # and step by step, too: the same error at the same level
    a, b = (mean_error(s, time_at(s, 0.3)) for s in (VP(), other))
    assert_close(a, b, 1e-10)


def discrete(sde, times):
    total = np.zeros(len(X0))
    for t, s in pairwise(times):
        h = log_ratio(sde, t) - log_ratio(sde, s)
        total += 0.5 * math.expm1(2 * h) * mean_error(sde, t)
    return total


def test_the_discrete_loss_knows_the_schedule_and_tends_to_the_continuous_one():
    """Eqs. (12.9), (12.13): error (L/T) [∫ e dℓ + ½ (e(1) - e(ε))] for equal steps of log σ/α, L their sum."""
    sde, t_min = VP(), 0.01
    limit = loss(sde, t_min)
    span = log_ratio(sde, 1.0) - log_ratio(sde, t_min)
    constant = span * (limit + 0.5 * (mean_error(sde, 1.0) - mean_error(sde, t_min)))
    found = {n: discrete(sde, log_snr_times(sde, n, t_min)) - limit for n in (64, 128, 256)}
    assert_close(np.log2(np.abs(found[128] / found[256])), 1, 0.1)
    extrapolated = 2 * 256 * found[256] - 128 * found[128]  # of n (L_n - L), free of 1/n
    np.testing.assert_allclose(extrapolated, constant, rtol=5e-3, atol=5e-3)
    # another grid between the same ends is another number
    uniform = discrete(sde, uniform_times(64, t_min)) - limit
    assert np.all(np.abs(uniform - found[64]) > 0.05)


def test_discrete_loss_of_the_library_is_that_sum():
    """Eq. (12.9)."""
    sde = VP()
    times = log_snr_times(sde, 5, 0.05)
    x0, z = (a.reshape(-1, 1) for a in np.meshgrid(X0, NODES, indexing="ij"))
    found = discrete_loss(ExactScore(P, sde), sde, x0, [z] * 5, times).reshape(len(X0), -1) @ DENSITY
    np.testing.assert_allclose(found, discrete(sde, times), rtol=1e-12)


# ------------------------------------------------------------------ score loss = ELBO


def test_likelihood_weighted_denoising_is_the_loss_of_the_bound():
    """Eqs. (12.10), (12.14): λ = g² and any law of times; here times uniform in log σ/α, for given noise."""
    sde, t_min, rng = VP(), 0.02, np.random.default_rng(0)
    x0, z, u = rng.standard_normal((50, 1)), rng.standard_normal((50, 1)), rng.random(50)
    law = UniformLogSNR(t_min)
    t, factor = law.at(sde, u)

    value, _ = Denoising(weight=g_squared).at(OfTheMixture(sde), np.zeros(1), x0, t, z, factor)
    span = log_ratio(sde, 1.0) - log_ratio(sde, t_min)
    found = span * np.mean(noise_error(ExactScore(P, sde), sde, x0, t, z))
    np.testing.assert_allclose((1 - t_min) * value, found, rtol=1e-12)
    # λ = σ² and uniform times: the same errors, ½ dt/dℓ = σ²/g² times as heavy
    plain, _ = Denoising().at(OfTheMixture(sde), np.zeros(1), x0, t, z)
    likely, _ = Denoising(weight=lambda sde, t: g_squared(sde, t) * (sde.sigma(t) / sde.g(t)) ** 2).at(
        OfTheMixture(sde), np.zeros(1), x0, t, z
    )
    np.testing.assert_allclose(plain, likely, rtol=1e-12)


class OfTheMixture:
    """The exact score as a model with one idle parameter, which the objectives' bookkeeping wants."""

    def __init__(self, sde):
        self.sde, self.shapes = sde, {"idle": (1,)}

    def forward(self, params, x, t):
        return ExactScore(P, self.sde)(x, t), None

    def backward(self, params, cache, dy):
        return (None,), {"idle": np.zeros(1)}


@each_sde
def test_the_rate_of_log_sigma_over_alpha(sde):
    """Eq. (12.10): dℓ/dt = g²/2σ², by a fourth-order difference."""
    t, h = 0.4, 1e-4
    d = lambda h: (log_ratio(sde, t + h) - log_ratio(sde, t - h)) / (2 * h)  # noqa: E731
    np.testing.assert_allclose((4 * d(h) - d(2 * h)) / 3, sde.g(t) ** 2 / (2 * sde.sigma(t) ** 2), rtol=1e-9)


# ------------------------------------------------------------------ Monte Carlo


def test_monte_carlo_is_within_its_own_error_of_quadrature():
    """Eqs. (12.7), (12.11), for each of three points."""
    sde, t_min = VP(), 0.01
    found = elbo(ExactScore(P, sde), sde, X0[:, None], np.random.default_rng(0), 1000, t_min)
    rebuilt = over_noise(lambda x0, z: decoder(ExactScore(P, sde), sde, x0, z, t_min))
    exact = rebuilt - loss(sde, t_min) - prior_kl(sde, X0[:, None])
    assert_within(found.value, exact, found.error, n=1000)


def test_what_is_averaged_is_the_bound():
    """Eqs. (12.7), (12.10), (12.11): draw by draw, with recorded times and noise, for data of two coordinates."""
    p, sde, t_min, rng = random_mixture(1, 2, 2), SDES["ou"], 0.02, np.random.default_rng(0)
    x0, u, z = rng.standard_normal((3, 2)), rng.random((4, 3)), rng.standard_normal((8, 3, 2))
    score = ExactScore(p, sde)
    found = elbo(score, sde, x0, ReplayRng(*z, uniforms=u), 4, t_min)
    low, high = log_ratio(sde, t_min), log_ratio(sde, 1.0)
    alpha, sigma = sde.alpha(t_min), sde.sigma(t_min)
    draws = []
    for i in range(4):
        t = sde.time_at_log_ratio(low + (high - low) * u[i])
        a, b = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        squares = np.sum((z[2 * i] + b * score(a * x0 + b * z[2 * i], t)) ** 2, axis=1)
        x = alpha * x0 + sigma * z[2 * i + 1]
        off = x0 - p.posterior_mean(x, alpha, sigma)  # the decoder, from the mixture's own posterior mean
        normal = -0.5 * np.sum(off**2, axis=1) / (sigma / alpha) ** 2 - math.log(2 * math.pi * (sigma / alpha) ** 2)
        draws.append(normal - (high - low) * squares)
    np.testing.assert_allclose(found.value, np.mean(draws, axis=0) - prior_kl(sde, x0), rtol=1e-10)
    np.testing.assert_allclose(found.error, np.std(draws, axis=0, ddof=1) / 2, rtol=1e-8)


def test_the_bound_lies_below_the_likelihood_and_near():
    """Eq. (12.7)."""
    sde = VP()
    bound = (
        over_noise(lambda x0, z: decoder(ExactScore(P, sde), sde, x0, z, 1e-3))
        - loss(sde, 1e-3)
        - prior_kl(sde, X0[:, None])
    )
    gap = P.log_prob(X0[:, None]) - bound
    assert np.all(
        np.abs(gap) < 5e-3
    )  # VP ends within 1e-4 nats of its prior; the decoder's price at a point is of order ε


def test_a_worse_score_makes_a_looser_bound_on_average_over_data():
    """Eq. (12.14): the excess of e over that of the exact score is σ² E‖s - s*‖²; at one x₀ it may be negative."""
    sde, width = VP(), 0.02
    x0 = np.arange(-5, 5, width)
    weight = width * np.exp(P.log_prob(x0[:, None]))
    pairs = [a.reshape(-1, 1) for a in np.meshgrid(x0, NODES[::4], indexing="ij")]
    worse = lambda x, t: 0.8 * ExactScore(P, sde)(x, t)  # noqa: E731
    for t in (0.05, 0.3):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        bad, good = (
            noise_error(f, sde, pairs[0], t, pairs[1]).reshape(len(x0), -1) @ (4 * DENSITY[::4])
            for f in (worse, ExactScore(P, sde))
        )
        x = np.arange(-8, 8, width)[:, None]
        square = width * np.sum(np.exp(P.log_prob(x, alpha, sigma)) * P.score(x, alpha, sigma)[:, 0] ** 2)
        assert abs(weight @ (bad - good) - 0.04 * sigma**2 * square) <= 1e-9
        assert np.min(bad - good) < 0


def test_on_every_back_end_and_shape(any_backend):
    x0 = any_backend.asarray(0.1 * np.arange(12.0).reshape(3, 2, 2), dtype="float32")
    found = elbo(lambda x, t: -x, VP(), x0, any_backend.rng(0), 4, 0.01)
    for a in found:
        assert a.shape == (3,)
        assert a.dtype == x0.dtype
        assert type(a) is type(x0)


@pytest.mark.parametrize(
    ("x0", "samples", "t_min", "message"),
    [
        (np.zeros(3), 10, 0.01, "at least 2 axes"),
        (np.zeros((1, 1)), 1, 0.01, "samples must be an integer of at least 2, got 1"),
        (np.zeros((1, 1)), 10, 0.0, "t_min must lie in"),
    ],
)
def test_what_cannot_be_is_refused(x0, samples, t_min, message):
    with pytest.raises(ValueError, match=message):
        elbo(ExactScore(P, VP()), VP(), x0, np.random.default_rng(0), samples, t_min)


def test_a_grid_and_its_noise_go_together():
    with pytest.raises(ValueError, match=r"2 steps.*1 noises"):
        discrete_loss(ExactScore(P, VP()), VP(), np.zeros((1, 1)), [np.zeros((1, 1))], [1.0, 0.5, 0.1])
