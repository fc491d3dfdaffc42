"""Chapter 13: conditional scores, guidance, inpainting, each against its exact answer."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp
from scipy.interpolate import PchipInterpolator
from scipy.stats import norm

from refscore import (
    DDIM,
    VE,
    VP,
    Ancestral,
    EulerMaruyama,
    ExactScore,
    GaussianMixture,
    Heun,
    Rectified,
    Reverse,
    prior,
    simulate,
)
from refscore.arrays import at
from refscore.laws.affine_chain import Gaussian, law_of, probe
from refscore.laws.examples import mixture
from refscore.laws.expectation import quadrature_grid
from refscore.laws.grid_chain import grid_law
from refscore.laws.posterior import component, linear_posterior, observe
from refscore.noise.grids import karras_times, log_snr_times, uniform_times
from refscore.noise.reverse import denoise
from refscore.noise.sde import LinearVE
from refscore.sampling.guidance import Guided, Replace
from refscore.sampling.loop import last
from refscore.sampling.transitions import SAMPLERS
from tests.oracles.close import assert_close
from tests.oracles.marks import each_sampler
from tests.oracles.mixtures import PAIR, log_normal, observation
from tests.oracles.statistics import assert_law, assert_mean
from tests.oracles.strategies import mixtures, points, random_mixture, seeds

ONE = np.ones(1)


# ------------------------------------------------------------------ the conditional score


def log_likelihood_of_noisy(p, H, y, R):
    """log p_t(y | x): observe the posterior of x₀ given x."""

    def value(x, alpha, sigma):
        eye = np.eye(p.dim)
        posterior = linear_posterior(p, alpha * eye, x, sigma**2 * eye)
        return float(observe(posterior, H, R).log_prob(y[None, :])[0])

    return value


@given(seed=seeds, t=st.floats(0.05, 1.0))
def test_labels_dropped_unequally_teach_another_unconditional_score(seed, t):
    """Eq. (22.7): what is learned without a label is the mixture of the classes in the shares in which they lost it."""
    p, sde = random_mixture(seed, 2, 3), VP()
    dropped = np.random.default_rng(seed).uniform(0.05, 0.9, len(p.weights))
    shares = p.weights * dropped / np.sum(p.weights * dropped)
    x = points(p, sde.alpha(t), sde.sigma(t), seed)
    # least squares on weighted data: E[z | x, no label], from the joint law of class, label and x
    joint = p.responsibilities(x, sde.alpha(t), sde.sigma(t)) * dropped
    each = np.stack([component(p, k).score(x, sde.alpha(t), sde.sigma(t)) for k in range(len(p.weights))], axis=1)
    wanted = np.sum((joint / joint.sum(axis=1, keepdims=True))[..., None] * each, axis=1)
    found = GaussianMixture(shares, p.means, p.covariances).score(x, sde.alpha(t), sde.sigma(t))
    assert_close(found, wanted, 1e-9 * (1 + np.max(np.abs(wanted))))


@given(p=mixtures(max_dim=3, low=0.2), alpha=st.floats(0.2, 1.0), sigma=st.floats(0.3, 2.0), seed=seeds)
def test_conditional_score_is_score_plus_gradient_of_the_noisy_likelihood(p, alpha, sigma, seed):
    """Eqs. (13.1), (13.2), (13.5): the likelihood of the posterior of x₀, and its gradient by differences."""
    H, y, R = observation(seed, 1 + seed % 2, p.dim)
    post, value = linear_posterior(p, H, y, R), log_likelihood_of_noisy(p, H, y, R)
    x = points(p, alpha, sigma, seed)[:2]
    bayes = post.log_prob(x, alpha, sigma) + observe(p, H, R).log_prob(y[None, :]) - p.log_prob(x, alpha, sigma)
    found = [value(row, alpha, sigma) for row in x]
    np.testing.assert_allclose(found, bayes, rtol=1e-9, atol=1e-9)
    difference = post.score(x, alpha, sigma) - p.score(x, alpha, sigma)
    h = 1e-3
    for row, wanted in zip(x, difference, strict=True):
        for d, e in enumerate(np.eye(p.dim)):
            one, two = ((value(row + k * h * e, alpha, sigma) - value(row - k * h * e, alpha, sigma)) / (2 * k * h)
                        for k in (1, 2))  # fmt: skip
            # Richardson: h⁴ times the fifth derivative over 30, and 1e-13 |log p| / h
            assert abs((4 * one - two) / 3 - wanted[d]) <= 1e-6 * (1 + np.max(np.abs(wanted)) ** 2)


def test_noisy_likelihood_is_the_average_over_the_posterior_by_quadrature():
    """Eq. (13.2), in one dimension, for a likelihood that is not linear too: Bayes' rule knows no difference."""
    p, alpha, sigma = random_mixture(3, 1, 3, low=0.3, box=1.5), 0.7, 0.6
    x0, cell = quadrature_grid(p)
    likelihood = norm.cdf(2 * np.sin(x0[:, 0]))  # of a yes or no
    prior_density = np.exp(p.log_prob(x0))
    conditional = prior_density * likelihood / (cell * prior_density @ likelihood)
    for x in (-1.0, 0.4, 1.7):

        def average(x):
            kernel = prior_density * norm.pdf(x, alpha * x0[:, 0], sigma)
            return float(kernel @ likelihood / kernel.sum())

        weight = conditional * norm.pdf(x, alpha * x0[:, 0], sigma)
        s_y = weight @ (alpha * x0[:, 0] - x) / sigma**2 / weight.sum()
        h = 1e-3
        one, two = ((math.log(average(x + k * h)) - math.log(average(x - k * h))) / (2 * k * h) for k in (1, 2))
        s = p.score(np.array([[x]]), alpha, sigma)[0, 0]
        assert abs(s + (4 * one - two) / 3 - s_y) <= 1e-9


@given(p=mixtures(), seed=seeds, t=st.floats(0.05, 1.0))
def test_the_mixture_is_its_own_classifier(p, seed, t):
    """Eqs. (13.1), (13.6): ∇ log r_k = g_k - s, by the complex step."""
    sde = VP()
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x = points(p, alpha, sigma, seed)
    k = seed % p.n_components
    r = p.responsibilities(x, alpha, sigma)[:, k]
    usual = r > 1e-200
    wanted = ExactScore(component(p, k), sde)(x, t) - p.score(x, alpha, sigma)
    for d, e in enumerate(np.eye(p.dim)):
        step = p.responsibilities(x + 1e-30j * e, alpha, sigma)[:, k]
        found = step[usual].imag * 1e30 / r[usual]
        scale = 1 + np.max(np.abs(x)) / (sigma**2 + alpha**2 * p.least_variance)
        np.testing.assert_allclose(found, wanted[usual, d], rtol=0, atol=1e-11 * scale)


def test_a_classifier_that_never_saw_noise_pulls_too_hard():
    """Eqs. (13.2), (13.6): between two modes, at σ = 1, ∇ log p(1 | x) is 2, and of the noisy x it is 2/3."""
    zero = np.zeros((1, 1))
    for sigma, wanted in ((0.0, 2.0), (1.0, 2 / 3)):
        gradient = component(TWO, 0).score(zero, 1.0, sigma) - TWO.score(zero, 1.0, sigma)
        assert abs(gradient[0, 0] - wanted) <= 1e-14


@given(p=mixtures(max_components=4), seed=seeds, t=st.floats(0.05, 1.0), w=st.floats(-1.0, 10.0))
def test_guided_score_is_of_the_product_at_each_time(p, seed, t, w):
    """Eq. (13.7): w = 0 is unconditional, w = 1 conditional, any w the score of p_t(x) p_t(y|x)^w."""
    sde = VP()
    H, y, R = observation(seed, 1, p.dim)
    s, s_y = ExactScore(p, sde), ExactScore(linear_posterior(p, H, y, R), sde)
    x = points(p, sde.alpha(t), sde.sigma(t), seed)
    scale = np.max(np.abs(s(x, t))) + np.max(np.abs(s_y(x, t)))
    np.testing.assert_array_equal(Guided(s, s_y, 0.0)(x, t), s(x, t))
    np.testing.assert_allclose(Guided(s, s_y, 1.0)(x, t), s_y(x, t), rtol=0, atol=1e-15 * scale)
    wanted = (1 - w) * s(x, t) + w * s_y(x, t)  # (1 - w) log p_t + w log p_t(x | y): the same product
    np.testing.assert_allclose(Guided(s, s_y, w)(x, t), wanted, rtol=0, atol=1e-14 * (1 + abs(w)) * scale)


@given(C=st.floats(0.3, 3.0), other=st.floats(0.3, 3.0), w=st.floats(0.0, 6.0), low=st.floats(0.05, 0.4))
def test_guidance_in_an_interval_scales_by_what_it_meets_there(C, other, w, low):
    """Eqs. (22.8), (22.9): two scores of N(0, C) and N(0, other), guided between two levels; the flow's exact law."""
    sde, high = LinearVE(20.0), 0.6

    def score(variance):
        return lambda x, t: -x / (variance + sde.sigma(t) ** 2)

    flow = Reverse(sde, Guided(score(other), score(C), w, interval=(low, high)), 0.0)

    def rate(t, x):
        return flow.drift(np.array([[x[0]]]), float(t)).ravel()

    x = np.array([math.sqrt(C + 400.0)])
    for start, stop in ((1.0, high), (high - 1e-12, low), (low - 1e-12, 0.0)):
        x = solve_ivp(rate, (start, stop), x, rtol=1e-10, atol=1e-12).y[:, -1]
    before, after = (sde.sigma(t) ** 2 for t in (high, low))
    met = (C + after) * (other + before) / ((C + before) * (other + after))
    assert abs(x[0] ** 2 / (C * met ** (w - 1)) - 1) < 1e-6


def test_outside_its_interval_guidance_is_the_conditional_score_alone():
    """As one number and as one time a sample; the unconditional score is not asked where it does not count."""
    asked = []

    def s(x, t):
        asked.append(t)
        return -x

    x, t = np.ones((3, 2)), np.array([0.1, 0.3, 0.9])
    guided = Guided(s, lambda x, t: 1 - x, 3.0, interval=(0.2, 0.8))
    assert_close(guided(x, t), [[0, 0], [2, 2], [0, 0]], 0)
    for time, wanted in zip((0.1, 0.3, 0.9), (0, 2, 0), strict=True):
        assert_close(guided(x, time), np.full((3, 2), wanted), 0)
    assert len(asked) == 2
    with pytest.raises(ValueError, match="two times"):
        Guided(s, s, 1.0, interval=(0.5, 0.2))


def test_guidance_outside_its_interval_costs_and_changes_nothing_where_no_signal_is_left():
    """A walk from α = 0 down: outside the interval x̂₀ is the conditional one, and one score is asked, not two."""
    sde, asked = Rectified(), []
    free, given_y = (ExactScore(GaussianMixture(ONE, ONE[:, None] * m, ONE), sde) for m in (0.0, 1.0))
    guided = Guided(free, given_y, 3.0, interval=(0.2, 0.8))
    x = np.ones((3, 1))
    assert_close(guided.posterior_mean(x, 1.0), given_y.posterior_mean(x, 1.0), 0)
    assert_close(guided.posterior_mean(x, 0.5), 3 * given_y.posterior_mean(x, 0.5) - 2 * free.posterior_mean(x, 0.5), 0)

    def watched(x, t):
        asked.append(float(t[0]))
        return free(x, t)

    times = [1.0, 0.9, 0.7, 0.5, 0.3, 0.1, 0.0]
    last(simulate(DDIM(sde, Guided(FromMean(watched, free), given_y, 3.0, (0.2, 0.8))), x, times, None))
    assert asked == [0.7, 0.5, 0.3]


class FromMean:
    """A score that knows the mean of the data, and says when it is asked for the score."""

    def __init__(self, score, exact):
        self.score, self.posterior_mean = score, exact.posterior_mean

    def __call__(self, x, t):
        return self.score(x, t)


@given(p=mixtures(max_dim=2, low=0.3, high=1.5), seed=seeds, w=st.floats(0.2, 8.0))
def test_a_tempered_gaussian_likelihood_is_an_observation_with_less_noise(p, seed, w):
    """Eqs. (13.8), (13.9): p(x) p(y | x)^w is the posterior with R/w, but for a constant."""
    H, y, R = observation(seed, 1, p.dim)
    post = linear_posterior(p, H, y, R / w)
    x = post.sample(np.random.default_rng(seed), 50)
    constant = p.log_prob(x) + w * log_normal(y - x @ H.T, R) - post.log_prob(x)
    assert np.ptp(constant) <= 1e-9 * (1 + np.max(np.abs(constant)))


# ------------------------------------------------------------------ what guidance samples


TWO = GaussianMixture(np.array([0.5, 0.5]), np.array([[1.0], [-1.0]]), np.array([0.5, 0.5]))
SDE = VP()
S, S1 = ExactScore(TWO, SDE), ExactScore(component(TWO, 0), SDE)
EDGES = np.linspace(-6.0, 8.0, 701)
CENTRES = 0.5 * (EDGES[1:] + EDGES[:-1])


def tilted(w):
    """Masses of p(x) p(1 | x)^w, normalised, on the cells."""
    log_q = TWO.log_prob(CENTRES[:, None]) + w * np.log(TWO.responsibilities(CENTRES[:, None])[:, 0])
    q = np.exp(log_q - log_q.max())
    return q / q.sum()


def flow_law(w):
    """Masses where the probability flow of the guided score takes N(0, 1): in 1-D it moves quantiles."""
    velocity, z = Reverse(SDE, Guided(S, S1, w), 0.0), np.linspace(-8, 8, 401)
    x = solve_ivp(
        lambda t, x: velocity.drift(x[:, None], t)[:, 0], (1, 0), z, rtol=1e-8, atol=1e-10, first_step=1e-3
    ).y[:, -1]
    inside = np.clip(EDGES, x[0], x[-1])
    return np.diff(PchipInterpolator(x, norm.cdf(z))(inside))


def reverse_sde_law(w, N):
    """Masses after N Euler-Maruyama steps of the reverse SDE with the guided score: the law itself, no samples."""
    process = Reverse(SDE, Guided(S, S1, w))
    out = grid_law(EDGES[0], EDGES[-1], len(CENTRES), norm.cdf)
    for t, s in pairwise(uniform_times(N)):
        move = lambda x, t=t, s=s: x + (s - t) * process.drift(x[:, None], t)[:, 0]  # noqa: E731
        out = out.push(out.transition(move, math.sqrt(t - s) * SDE.g(t)))
    assert abs(out.lost) < 1e-6
    return out.mass


def mean_sd(q):
    m = float(q @ CENTRES)
    return m, math.sqrt(q @ (CENTRES - m) ** 2)


def tv(p, q):
    return 0.5 * float(np.sum(np.abs(p - q)))


def test_guided_score_is_not_the_score_of_the_diffused_tilted_law():
    """Eqs. (13.7), (13.8): at w = 3, σ = 1, x = 0 the truth is .88, and guidance says 2.00; at w = 1 they agree."""
    q, x0 = tilted(3.0), CENTRES
    kernel = q * norm.pdf(x0)
    truth = float(kernel @ x0 / kernel.sum())
    ve = VE(0.01, 10.0)
    t, zero = ve.time(1.0), np.zeros((1, 1))
    guided = [Guided(ExactScore(TWO, ve), ExactScore(component(TWO, 0), ve), w)(zero, t)[0, 0] for w in (1.0, 3.0)]
    assert abs(truth - 0.8823) <= 1e-4
    assert abs(guided[1] - 2.0) <= 1e-12
    kernel = tilted(1.0) * norm.pdf(x0)
    assert abs(kernel @ x0 / kernel.sum() - guided[0]) <= 1e-10


def test_the_flow_of_the_guided_score_overshoots_the_tilted_law():
    """Eqs. (13.7), (13.8): mean 1.73 for 1.19, TV .43 at w = 3. The measure itself is good to .003 at w = 1."""
    assert tv(flow_law(0.0), tilted(0.0)) <= 1e-4
    assert tv(flow_law(1.0), tilted(1.0)) <= 3e-3  # N(0, 1) for the law at t = 1, whose mean is .0066
    found, wanted = flow_law(3.0), tilted(3.0)
    np.testing.assert_allclose(mean_sd(wanted), (1.190, 0.592), atol=1e-3)
    np.testing.assert_allclose(mean_sd(found), (1.732, 0.446), atol=1e-3)
    assert abs(tv(found, wanted) - 0.434) <= 1e-3


@pytest.mark.slow
def test_the_reverse_sde_of_the_guided_score_overshoots_less():
    """Eqs. (13.7), (13.8): mean 1.45 for 1.19, TV .18 at w = 3, by the law on a grid; its own bias is .002."""
    assert tv(reverse_sde_law(1.0, 300), tilted(1.0)) <= 2e-3
    found, wanted = reverse_sde_law(3.0, 300), tilted(3.0)
    np.testing.assert_allclose(mean_sd(found), (1.449, 0.565), atol=2e-3)
    assert abs(tv(found, wanted) - 0.181) <= 2e-3


def guided_moments(C, R, y, w, lam):
    """Mean and variance at the end of the guided process on N(0, C), y = x + e: the score is affine, so probe it."""
    ve = VE(0.01, 1e6)
    one = GaussianMixture(ONE, np.zeros((1, 1)), np.array([C]))
    post = linear_posterior(one, np.eye(1), np.array([y]), np.array([[R]]))
    reverse = Reverse(ve, Guided(ExactScore(one, ve), ExactScore(post, ve), w), lam)
    n = 4000  # steps of RK4 from t = 1 to 0, the drift asked at their ends and middles in one call
    t = np.linspace(1, 0, 2 * n + 1)
    offset = reverse.drift(np.zeros((2 * n + 1, 1)), t)[:, 0]
    a = reverse.drift(np.ones((2 * n + 1, 1)), t)[:, 0] - offset
    rate = np.stack([a, 2 * a], axis=1)  # of mean and variance
    source = np.stack([offset, -((lam * ve.g(t)) ** 2)], axis=1)
    x, h = np.array([0.0, ve.sigma(1.0) ** 2]), -1 / n
    for i in range(0, 2 * n, 2):
        k1 = rate[i] * x + source[i]
        k2 = rate[i + 1] * (x + h / 2 * k1) + source[i + 1]
        k3 = rate[i + 1] * (x + h / 2 * k2) + source[i + 1]
        k4 = rate[i + 2] * (x + h * k3) + source[i + 2]
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


@pytest.mark.parametrize(("C", "R", "y", "w"), [(1.0, 1.0, 1.0, 3.0), (0.5, 2.0, -1.5, 2.0), (2.0, 1.0, 1.0, 7.5)])
def test_guidance_on_a_gaussian_in_closed_form(C, R, y, w):
    """Eqs. (13.10), (13.11), and that a stronger noise λ brings the tilted law."""
    gamma = C / R
    flow, sde = guided_moments(C, R, y, w, 0.0), guided_moments(C, R, y, w, 1.0)
    integral = quad(lambda v: 2 * (1 + v * v) ** ((w - 1) / 2), 0, math.sqrt(gamma))[0]  # u = v²
    mean = y * w / 2 * math.sqrt(gamma) * (1 + gamma) ** (-(w + 1) / 2) * integral
    np.testing.assert_allclose(flow, [mean, C * (1 + gamma) ** -w], rtol=1e-5)  # σ_max is 1e6, not infinite
    wanted = [y * (1 - (1 + gamma) ** -w), C * (1 - (1 + gamma) ** (1 - 2 * w)) / ((2 * w - 1) * gamma)]
    np.testing.assert_allclose(sde, wanted, rtol=1e-6)
    exact = linear_posterior(
        GaussianMixture(ONE, np.zeros((1, 1)), np.array([C])), np.eye(1), np.array([y]), np.array([[R / w]])
    )
    target = np.array([exact.means[0, 0], exact.covariances[0, 0, 0]])
    np.testing.assert_allclose(target, [y * w * gamma / (1 + w * gamma), C / (1 + w * gamma)], rtol=1e-13)
    far, near = (np.abs(guided_moments(C, R, y, w, lam) / target - 1) for lam in (4.0, 8.0))
    assert abs(guided_moments(1.0, 1.0, 1.0, 5.0, 0.0)[0] - 7 / 6) <= 1e-5  # the flow's mean overshoots y = 1
    assert np.all(near <= 0.3 * far)  # the gap falls as 1/λ²
    assert np.all(near <= 0.02)


# ------------------------------------------------------------------ sampling with the conditional score


def test_a_sampler_with_the_conditional_score_has_the_conditional_law():
    """Eq. (13.1): the characteristic function, alpha 1e-9; Heun's own bias at 60 steps is below .005."""
    p, sde = mixture("tilted"), VP()
    post = linear_posterior(p, np.array([[1.0, 1.0]]), np.array([0.5]), np.array([[0.5]]))
    assert np.min(post.weights) > 0.01  # a mixture still
    rng = np.random.default_rng(0)
    velocity = Reverse(sde, ExactScore(post, sde), 0.0).drift
    x = last(simulate(Heun(velocity), prior(sde, (8000, 2), rng, "float64"), log_snr_times(sde, 60, 1e-4), rng))
    frequencies = np.array([[0.5, 0.0], [0.0, 0.5], [1.0, 1.0], [-1.0, 1.0], [1.5, -0.5]])
    assert_law(x, post, frequencies, bias=0.005)
    with pytest.raises(AssertionError, match="numbers are off"):  # and it is not the unconditional one
        assert_law(x, p, frequencies, bias=0.005)


def test_the_conditional_flow_is_exact_on_a_gaussian_to_second_order():
    """Eq. (13.1), by affine probing: no samples. Heun from the true law at t = 1."""
    p, sde = random_mixture(2, 2, 1, low=0.3), VP()
    post = linear_posterior(p, np.array([[1.0, -1.0]]), np.array([1.0]), np.array([[0.2]]))
    errors = []
    for N in (100, 200):
        times = log_snr_times(sde, N, 1e-3)
        step = Heun(Reverse(sde, ExactScore(post, sde), 0.0).drift)
        start, end = post.diffuse(sde.alpha(1.0), sde.sigma(1.0)), post.diffuse(sde.alpha(1e-3), sde.sigma(1e-3))
        mean, cov = law_of(step, times, Gaussian(start.means[0], start.covariances[0]))
        errors.append(np.linalg.norm(mean - end.means[0]) + np.linalg.norm(cov - end.covariances[0]))
    assert errors[1] <= 1e-3
    assert abs(math.log2(errors[0] / errors[1]) - 2) <= 0.1, errors


# ------------------------------------------------------------------ inpainting


RHO, Y = 0.8, 1.5
MASK, KNOWN = np.array([0.0, 1.0]), np.array([0.0, 1.5])
PAIR_SCORE = ExactScore(PAIR, SDE)
EULER = EulerMaruyama(Reverse(SDE, PAIR_SCORE))


def exact_law(step, times, prior_std=1.0):
    """Mean and covariance of a chain, step by step: each is affine in x and its noise, so the code tells them."""
    return law_of(step, times, Gaussian(np.zeros(2), prior_std**2 * np.eye(2)))


def inpainted(step, times, moves=1):
    """The exact law of inpainting by replacement."""
    return exact_law(Replace(step, SDE, KNOWN, MASK, moves), times)


def replacement_limit(n, rho=RHO, y=Y):
    """Eq. (13.14): what it tends to with infinitely many steps of n moves each."""
    m = quad(lambda a: a**n * (1 - (rho * a) ** 2) ** (-1 - n / 2), 0, 1, epsabs=1e-13)[0]
    v = quad(lambda a: a ** (2 * n - 2) * (1 - (rho * a) ** 2) ** -n, 0, 1, epsabs=1e-13)[0]
    return n * rho * y * (1 - rho**2) ** (n / 2) * m, (2 * n - 1) * (1 - rho**2) ** n * v


def test_the_limit_of_replacement_is_that_of_every_linear_sde():
    """Eq. (13.14), for VE: in x/α, with the noise level as the time, all linear SDEs are one."""
    ve = VE(0.01, 200.0)
    step = Replace(EulerMaruyama(Reverse(ve, ExactScore(PAIR, ve))), ve, KNOWN, MASK)
    found = [exact_law(step, log_snr_times(ve, N, 1e-4), ve.prior_std) for N in (200, 400)]
    ends = np.array([[mean[0], cov[0, 0]] for mean, cov in found])
    assert_close(2 * ends[1] - ends[0], replacement_limit(1), 3e-3, "what 1/N leaves")


def test_known_coordinates_end_as_they_are():
    """Eq. (13.12): at t = 0 exactly, before it with noise of their own level, not seen by the others."""
    mean, cov = inpainted(EULER, uniform_times(20))
    assert mean[1] == Y
    assert abs(cov[1, 1]) + abs(cov[0, 1]) == 0
    mean, cov = inpainted(EULER, uniform_times(20, 0.3))
    assert abs(mean[1] - SDE.alpha(0.3) * Y) <= 1e-14
    assert abs(cov[1, 1] - SDE.sigma(0.3) ** 2) <= 1e-14
    assert abs(cov[0, 1]) <= 1e-14  # the truth is not 0 for x_t given y; only x₀ and z of each coordinate are apart


@pytest.mark.parametrize("moves", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_replacement_does_not_tend_to_the_conditional_law(moves):
    """Eqs. (13.12), (13.13), (13.14): as N grows its law tends to another one, with an error in 1/N."""
    limit = np.array(replacement_limit(moves))
    errors = []
    for N in (100, 200, 400):
        mean, cov = inpainted(EULER, uniform_times(N), moves)
        errors.append(np.array([mean[0], cov[0, 0]]) - limit)
    first, second = 2 * errors[1] - errors[0], 2 * errors[2] - errors[1]  # Richardson: what 1/N leaves
    assert_close(errors[2], 0, 0.01)
    assert_close(second, 0, 3e-3)
    assert_close(second, 0, 0.5 * np.max(np.abs(first)))
    gap = limit - np.array([RHO * Y, 1 - RHO**2])
    assert abs(gap[0]) > 5 * abs(errors[2][0])  # the gap is no error of discretisation


def test_what_replacement_makes_of_two_correlated_coordinates():
    """Eq. (13.14): with one move it is elementary, with many it tends to the truth as 1/n; at small ρ n/(n + 1)."""
    m, v = replacement_limit(1)
    assert abs(m - Y / RHO * (1 - math.sqrt(1 - RHO**2))) <= 1e-12
    assert abs(v - (1 - RHO**2) * math.atanh(RHO) / RHO) <= 1e-12
    np.testing.assert_allclose((m, v), (0.75, 0.4944), atol=1e-4)  # for 1.2 and .36
    gaps = np.array([np.array(replacement_limit(n)) - (RHO * Y, 1 - RHO**2) for n in (20, 40)])
    assert_close(gaps[0] / gaps[1], 2, 0.15)
    for n in (1, 2, 9):
        assert abs(replacement_limit(n, rho=1e-3, y=1.0)[0] / 1e-3 - n / (n + 1)) <= 1e-5


def test_the_averaged_score_is_what_moves_the_unknown_coordinate():
    """Eq. (13.13): noise drawn afresh at every step averages out of a step of size h, as √h against h."""
    t, n = 0.4, 400_000
    z = np.random.default_rng(1).standard_normal(n)
    alpha, sigma = SDE.alpha(t), SDE.sigma(t)
    u = 0.3
    x = np.stack([np.full(n, u), alpha * Y + sigma * z], axis=1)
    c = (alpha**2 * RHO) ** 2
    averaged = -(u - alpha**3 * RHO * Y) / (1 - c)
    draws = PAIR_SCORE(x, t)[:, 0]
    assert_mean(draws, averaged)
    exact = -(u - alpha * RHO * Y) / (1 - alpha**2 * RHO**2)  # of x_t's first coordinate given y
    post = linear_posterior(PAIR, np.array([[0.0, 1.0]]), np.array([Y]), np.zeros((1, 1)))
    assert abs(post.score(np.array([[u, 0.0]]), alpha, sigma)[0, 0] - exact) <= 1e-12
    assert abs(exact - averaged) > 0.3


def test_the_exact_conditional_score_inpaints_exactly():
    """Eq. (13.4) at R = 0, for the same task: mean and variance with an error in 1/N only."""
    post = linear_posterior(PAIR, np.array([[0.0, 1.0]]), np.array([Y]), np.zeros((1, 1)))
    errors = []
    for N in (200, 400):
        mean, cov = exact_law(EulerMaruyama(Reverse(SDE, ExactScore(post, SDE))), uniform_times(N, 1e-4))
        errors.append(max(abs(mean[0] - RHO * Y), abs(cov[0, 0] - (1 - RHO**2))))
    assert errors[1] <= 0.005
    assert errors[1] <= 0.6 * errors[0]


def test_a_final_denoising_that_keeps_the_noisy_unknown_part_does_nothing():
    """The published inpainting loop returns x where it means x's mean: the last step's noise, g² h, stays."""
    t, s = 2e-3, 1e-3  # the last of a thousand steps

    class Silent:
        drift = staticmethod(EULER.process.drift)

        def noise(self, x, t):
            return 0.0

    def variance(step):
        return float(probe(lambda x, rng: Replace(step, SDE, KNOWN, MASK)(x, t, s, rng)[0], np.zeros(2)).noise[0, 0])

    excess = variance(EULER) - variance(EulerMaruyama(Silent()))
    assert abs(excess - SDE.g(t) ** 2 * (t - s)) <= 1e-15
    assert abs(math.sqrt(excess) - 0.0118) <= 1e-4  # in data units
    # a right end: the best guess of the unknown part, and the known part as it is
    x = np.array([[0.7, SDE.alpha(s) * Y]])
    ended = MASK * KNOWN + (1 - MASK) * denoise(PAIR_SCORE, SDE, x, s)
    assert ended[0, 1] == Y
    assert abs(ended[0, 0] - PAIR.posterior_mean(x, SDE.alpha(s), SDE.sigma(s))[0, 0]) <= 1e-12


def test_replace_works_on_every_backend_and_keeps_dtypes(backend):
    p = [backend.asarray(v, "float32") for v in (PAIR.weights, PAIR.means, PAIR.covariances, KNOWN, MASK)]
    score = ExactScore(GaussianMixture(*p[:3]), SDE)
    step = Replace(Ancestral(SDE, score), SDE, p[3], p[4], moves=2)
    rng = backend.rng(0)
    x = last(simulate(step, prior(SDE, (5, 2), rng, p[1].dtype), uniform_times(10), rng))
    assert x.dtype == p[1].dtype
    np.testing.assert_array_equal(backend.to_numpy(x)[:, 1], np.float32(Y))
    guided = Guided(score, score, 2.0)
    np.testing.assert_array_equal(backend.to_numpy(guided(x, at(0.5, x))), backend.to_numpy(score(x, at(0.5, x))))


UNKNOWN, SEEN = np.diag([1.0, 0.0]), np.diag([0.0, 1.0])


def replaced(start, t, s, moves):
    """Eq. (13.12) on paper: move, put the known coordinate back; noise up from s to t, move and put back again."""
    one = probe(lambda x, rng: EULER(x, t, s, rng)[0], np.zeros(2))
    alpha, sigma = SDE.alpha(s), SDE.sigma(s)
    a = SDE.alpha(t) / alpha
    up = SDE.sigma(t) ** 2 - (a * sigma) ** 2  # the variance that x_t has given x_s
    mean, cov = start
    for move in range(moves):
        if move:
            mean, cov = a * mean, a**2 * cov + up * np.eye(2)
        mean, cov = one.law(Gaussian(mean, cov))
        mean = UNKNOWN @ mean + alpha * SEEN @ KNOWN
        cov = UNKNOWN @ cov @ UNKNOWN + sigma**2 * SEEN
    return Gaussian(mean, cov)


@pytest.mark.parametrize("moves", [1, 2, 5])
def test_replacement_is_the_chain_of_its_moves_each_with_noise_of_its_own(moves):
    step = Replace(EULER, SDE, KNOWN, MASK, moves)
    law = wanted = Gaussian(np.zeros(2), np.eye(2))
    for t, s in pairwise(uniform_times(20, 0.01)):
        law = probe(lambda x, rng, t=t, s=s: step(x, t, s, rng)[0], np.zeros(2)).law(law)
        wanted = replaced(wanted, t, s, moves)
        for found, right in zip(law, wanted, strict=True):
            assert_close(found, right, 1e-12)


def test_replacement_moves_at_least_once():
    with pytest.raises(ValueError, match="moves"):
        Replace(EULER, SDE, KNOWN, MASK, moves=0)


@each_sampler
def test_more_moves_come_nearer_under_every_sampler(name):
    """Multistep methods, too: twenty moves with a memory of the level before would end at a mean of 6·10⁴."""
    times = [1.0, *karras_times(SDE, 20, float(SDE.sigma(1.0) / SDE.alpha(1.0)), 0.002)[1:-1]]
    step = SAMPLERS[name](SDE, PAIR_SCORE)
    one, twelve = (exact_law(Replace(step, SDE, KNOWN, MASK, moves), times) for moves in (1, 12))
    assert abs(twelve.mean[0] - RHO * Y) < 0.3 * abs(one.mean[0] - RHO * Y)
    assert 0.15 < twelve.cov[0, 0] < 0.5  # .36 is the truth


def test_a_multistep_method_that_keeps_its_memory_from_move_to_move_diverges():
    """The numbers of section 13.4: what `Replace` would do if it handed the memory on."""
    times = [1.0, *karras_times(SDE, 40, float(SDE.sigma(1.0) / SDE.alpha(1.0)), 0.002)[1:-1]]
    solver = SAMPLERS["dpm-solver++2m"](SDE, PAIR_SCORE)

    def kept(moves):
        def step(x, t, s, rng, memory=None):
            one = Replace(solver, SDE, KNOWN, MASK)
            a = SDE.alpha(t) / SDE.alpha(s)
            back = math.sqrt(max(SDE.sigma(t) ** 2 - (a * SDE.sigma(s)) ** 2, 0.0))
            for move in range(moves):
                x = a * x + back * rng.standard_normal(x.shape) if move else x
                x, found = one(x, t, s, rng, memory)
            return x, found

        return exact_law(step, times)

    assert kept(1).mean[0] == pytest.approx(0.527, abs=1e-3)
    assert kept(5).cov[0, 0] == pytest.approx(0.828, abs=1e-3)
    assert kept(20).mean[0] > 6e4
