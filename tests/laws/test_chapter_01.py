"""Chapter 1: every numbered equation, and the answers to its exercises."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import GaussianMixture, Langevin
from refscore.laws.examples import mixture
from refscore.laws.expectation import quadrature_grid
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import ALPHA, assert_mean
from tests.oracles.strategies import mixtures, random_mixture, seeds

NODES = np.linspace(-12, 12, 4001)  # trapezoid rule: converges faster than any power for what decays like this
CELL = NODES[1] - NODES[0]


def quartic(theta, x=NODES):
    return 0.5 * x**2 + 0.25 * theta * x**4


def log_normaliser(theta):
    return math.log(CELL * np.sum(np.exp(-quartic(theta))))


@given(theta=st.floats(0.1, 5.0))
def test_the_boltzmann_law_integrates_to_one_and_its_score_needs_no_normaliser(theta):
    """Eqs. (1.1), (1.6)."""
    log_p = -quartic(theta) - log_normaliser(theta)
    assert abs(CELL * np.sum(np.exp(log_p)) - 1) < 1e-12
    h = 1e-5
    x = NODES[1500:2500]
    slope = -(quartic(theta, x + h) - quartic(theta, x - h)) / (2 * h)
    score = -(x + theta * x**3)  # -E', in which Z does not appear
    np.testing.assert_allclose(slope, score, rtol=1e-6, atol=1e-7)  # central difference of a cubic: h² θ


@given(theta=st.floats(0.1, 5.0), x=st.floats(-2.0, 2.0))
def test_likelihood_gradient_is_data_term_plus_model_expectation(theta, x):
    """Eq. (1.2), by a Richardson difference of log p and by quadrature; exercise 6."""
    point = np.array([x])

    def log_p(value):
        return float(-quartic(value, point)[0]) - log_normaliser(value)

    def central(h):
        return (log_p(theta + h) - log_p(theta - h)) / (2 * h)

    difference = (4 * central(5e-4) - central(1e-3)) / 3
    p = np.exp(-quartic(theta) - log_normaliser(theta))
    expected = -0.25 * x**4 + CELL * np.sum(p * 0.25 * NODES**4)
    assert abs(difference - expected) < 1e-9 * (1 + abs(expected) + x**4)


@given(seed=seeds)
def test_chain_rule_of_an_autoregressive_model(seed):
    """Eq. (1.3), for a Gaussian, whose conditionals are known."""
    p = random_mixture(seed, dim=2, components=1)
    m, C = p.means[0], p.covariances[0]
    x = p.sample(np.random.default_rng(seed), 5)
    slope = C[1, 0] / C[0, 0]

    def log_normal(x, mean, variance):
        return -0.5 * (x - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)

    first = log_normal(x[:, 0], m[0], C[0, 0])
    second = log_normal(x[:, 1], m[1] + slope * (x[:, 0] - m[0]), C[1, 1] - slope * C[0, 1])
    np.testing.assert_allclose(first + second, p.log_prob(x), atol=1e-10)


@given(seed=seeds)
def test_change_of_variables_of_a_flow(seed):
    """Eq. (1.4), for an affine map of a mixture: the pushed-forward mixture is known."""
    base = random_mixture(seed, dim=2, components=3)
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((2, 2)) + 2 * np.eye(2)
    if abs(np.linalg.det(A)) < 0.1:
        A = 2 * np.eye(2)
    C = A @ base.covariances @ A.T
    pushed = GaussianMixture(base.weights, base.means @ A.T, 0.5 * (C + np.swapaxes(C, 1, 2)))
    u = base.sample(rng, 5)
    flow = base.log_prob(u) - math.log(abs(np.linalg.det(A)))
    # cancellation is that of the conditioning of A C Aᵀ
    np.testing.assert_allclose(pushed.log_prob(u @ A.T), flow, atol=1e-8)


@given(noise=st.floats(0.1, 2.0), x=st.floats(-3.0, 3.0), shift=st.floats(-1.0, 1.0), stretch=st.floats(0.5, 2.0))
def test_evidence_bound_is_tight_at_the_posterior_only(noise, x, shift, stretch):
    """Eq. (1.5): u ~ N(0, 1), x | u ~ N(u, noise²); the gap is KL(q ‖ posterior)."""
    mean, variance = x / (1 + noise**2), noise**2 / (1 + noise**2)  # of the posterior

    def log_normal(x, mean, variance):
        return -0.5 * (x - mean) ** 2 / variance - 0.5 * math.log(2 * math.pi * variance)

    def bound(m, v):
        u = m + math.sqrt(v) * NODES
        joint = log_normal(u, 0.0, 1.0) + log_normal(x, u, noise**2)
        weight = CELL * np.exp(log_normal(NODES, 0.0, 1.0))
        return float(np.sum(weight * (joint - log_normal(u, m, v))))

    evidence = float(log_normal(x, 0.0, 1 + noise**2))
    assert abs(bound(mean, variance) - evidence) < 1e-10 * (1 + abs(evidence))
    m, v = mean + shift, stretch * variance
    gap = 0.5 * (v / variance + shift**2 / variance - 1 - math.log(v / variance))
    assert abs(evidence - bound(m, v) - gap) < 1e-10 * (1 + abs(evidence) + gap)


def fisher_of_gaussians(p, q):
    P, Q = (np.linalg.inv(m.covariances[0]) for m in (p, q))
    shift = Q @ (p.means[0] - q.means[0])
    return 0.5 * float(np.trace((Q - P) @ p.covariances[0] @ (Q - P)) + shift @ shift)


@given(seed=seeds)
def test_fisher_divergence_of_two_gaussians(seed):
    """Eq. (1.7): closed form = quadrature = Monte Carlo; exercise 7."""
    p, q = (random_mixture(seed + i, dim=2, components=1, low=0.2, high=1.0, box=1.0) for i in range(2))
    x, cell = quadrature_grid(p)
    half = 0.5 * np.sum((p.score(x) - q.score(x)) ** 2, axis=1)
    closed = fisher_of_gaussians(p, q)
    assert abs(cell * np.sum(np.exp(p.log_prob(x)) * half) - closed) < 1e-10 * (1 + closed)
    draws = p.sample(np.random.default_rng(seed), 4000)
    assert_mean(0.5 * np.sum((p.score(draws) - q.score(draws)) ** 2, axis=1), closed, alpha=ALPHA / 25)


def test_fisher_divergence_is_not_symmetric():
    """Exercise 1: ½ v (1 - 1/v')², 0.28125 one way and 1.125 the other."""
    one, four = (GaussianMixture(np.ones(1), np.zeros((1, 2)), np.full((1,), v)) for v in (1.0, 4.0))
    p, q = (GaussianMixture(np.ones(1), np.zeros((1, 1)), np.full((1, 1, 1), v)) for v in (1.0, 4.0))
    assert abs(fisher_of_gaussians(p, q) - 0.28125) < 1e-15
    assert abs(fisher_of_gaussians(q, p) - 1.125) < 1e-15
    x, cell = quadrature_grid(one)
    half = 0.5 * np.sum((one.score(x) - four.score(x)) ** 2, axis=1)
    assert abs(cell * np.sum(np.exp(one.log_prob(x)) * half) - 2 * 0.28125) < 1e-12  # two coordinates


@given(seed=seeds, v=st.floats(0.05, 1.0))
def test_kl_falls_along_the_noise_by_the_fisher_divergence(seed, v):
    """Eq. (1.8), in one dimension: quadrature on one grid for both sides, and a 5-point difference in v."""
    p, q = (random_mixture(seed + i, dim=1, components=2, low=0.3, high=1.0, box=1.5) for i in range(2))
    x = np.linspace(-20, 20, 4001)[:, None]
    cell = float(x[1, 0] - x[0, 0])

    def kl(v):
        log_p, log_q = (m.log_prob(x, 1.0, math.sqrt(v)) for m in (p, q))
        return float(cell * np.sum(np.exp(log_p) * (log_p - log_q)))

    h = 1e-2 * (v + 0.3)
    slope = (8 * (kl(v + h) - kl(v - h)) - (kl(v + 2 * h) - kl(v - 2 * h))) / (12 * h)
    s_p, s_q = (m.score(x, 1.0, math.sqrt(v)) for m in (p, q))
    weight = cell * np.exp(p.log_prob(x, 1.0, math.sqrt(v)))
    fisher = 0.5 * float(np.sum(weight[:, None] * (s_p - s_q) ** 2))
    assert abs(slope + fisher) < 1e-6 * (1 + fisher)  # h⁴ of the difference: about 1e-8 relative


@pytest.mark.parametrize("v", [0.05, 1.0])
def test_the_identity_needs_no_densities_once_there_is_noise(v):
    """Eq. (1.8) for two lists of points, whose divergence at v = 0 is infinite; closed sums by fine quadrature."""
    p, q = (
        GaussianMixture(np.array(w), np.array(m), np.zeros(2))
        for w, m in (([0.7, 0.3], [[-1.0], [0.4]]), ([0.5, 0.5], [[-0.2], [1.1]]))
    )
    x = np.linspace(-12, 12, 12001)[:, None]
    cell = float(x[1, 0] - x[0, 0])

    def kl(v):
        log_p, log_q = (m.log_prob(x, 1.0, math.sqrt(v)) for m in (p, q))
        return float(cell * np.sum(np.exp(log_p) * (log_p - log_q)))

    h = 1e-3 * v
    slope = (8 * (kl(v + h) - kl(v - h)) - (kl(v + 2 * h) - kl(v - 2 * h))) / (12 * h)
    difference = p.score(x, 1.0, math.sqrt(v)) - q.score(x, 1.0, math.sqrt(v))
    fisher = 0.5 * cell * float(np.sum(np.exp(p.log_prob(x, 1.0, math.sqrt(v)))[:, None] * difference**2))
    assert slope == pytest.approx(-fisher, rel=1e-8)


@given(p=mixtures(max_dim=3), seed=seeds)
def test_mixture_score_is_the_responsible_average(p, seed):
    """Eqs. (1.9), (1.10), written out with inverse matrices."""
    alpha, sigma = 0.7, 0.6
    x = p.diffuse(alpha, sigma).sample(np.random.default_rng(seed), 4)
    C = p.covariances
    if C.ndim < 3:
        C = np.stack([c * np.eye(p.dim) for c in C])
    S = alpha**2 * C + sigma**2 * np.eye(p.dim)
    away = x[:, None, :] - alpha * p.means
    g = -np.einsum("kde,bke->bkd", np.linalg.inv(S), away)
    joint = p.weights * np.exp(0.5 * np.sum(g * away, axis=2)) / np.sqrt(np.linalg.det(2 * np.pi * S))
    r = joint / joint.sum(axis=1, keepdims=True)
    s = np.sum(r[..., None] * g, axis=1)
    np.testing.assert_allclose(p.score(x, alpha, sigma), s, atol=1e-10 * (1 + np.abs(g).max()))
    np.testing.assert_allclose(p.responsibilities(x, alpha, sigma), r, atol=1e-10)


@given(p=mixtures(max_dim=3), seed=seeds)
def test_score_jacobian_and_its_trace(p, seed):
    """Eqs. (1.11), (1.12), column by column against a Richardson difference of the score."""
    alpha, sigma, h = 0.7, 0.6, 1e-3
    x = p.diffuse(alpha, sigma).sample(np.random.default_rng(seed), 4)
    basis = np.eye(p.dim)
    J = p.score_jvp(x, basis[:, None, :] + 0 * x, alpha, sigma)  # (column, sample, row)

    def slope(e, h):
        return (p.score(x + h * e, alpha, sigma) - p.score(x - h * e, alpha, sigma)) / (2 * h)

    for e, column in zip(basis, J, strict=True):
        np.testing.assert_allclose(column, (4 * slope(e, h / 2) - slope(e, h)) / 3, atol=1e-7 * (1 + np.abs(J).max()))
    np.testing.assert_allclose(
        p.divergence(x, alpha, sigma), np.einsum("dbd->b", J), atol=1e-11 * (1 + np.abs(J).max())
    )


@given(p=mixtures(), seed=seeds, alpha=st.floats(0.05, 1.0), sigma=st.floats(0.05, 5.0))
def test_posterior_mean_is_a_step_along_the_score(p, seed, alpha, sigma):
    """Eq. (1.13), two ways; blind to the responsibilities, which they share."""
    x = p.diffuse(alpha, sigma).sample(np.random.default_rng(seed), 4)
    step = (x + sigma**2 * p.score(x, alpha, sigma)) / alpha
    np.testing.assert_allclose(
        step, p.posterior_mean(x, alpha, sigma), rtol=0, atol=1e-11 * (1 + np.abs(x).max() / alpha)
    )


@given(p=mixtures(), seed=seeds)
def test_score_jacobian_is_bounded_below(p, seed):
    """Exercise 8: by Tweedie α²/σ² Cov[x₀ | x] = I + σ² J, and a covariance has no negative eigenvalue."""
    alpha, sigma = 0.7, 0.6
    x = 2 * p.diffuse(alpha, sigma).sample(np.random.default_rng(seed), 4)
    J = p.score_jvp(x, np.eye(p.dim)[:, None, :] + 0 * x, alpha, sigma)
    assert np.linalg.eigvalsh(np.eye(p.dim) + sigma**2 * np.moveaxis(J, 0, -1)).min() > -1e-9


def test_a_langevin_step_is_what_the_chapter_says():
    """Eq. (1.14), and the variance σ²/(1 - ε/2σ²) that the text promises for N(0, σ²)."""
    variance, eps = 2.0, 0.3
    p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.full(1, variance))
    kernel = Langevin(lambda x, t: p.score(x), eps)
    x, z = np.array([[0.7], [-2.0]]), np.array([[1.0], [-0.5]])
    np.testing.assert_allclose(
        kernel(x, 0.0, ReplayRng(z)), x - eps * x / variance + math.sqrt(2 * eps) * z, rtol=1e-14
    )
    pull = kernel(np.ones((1, 1)), 0.0, ReplayRng(np.zeros((1, 1))))[0, 0]
    push = kernel(np.zeros((1, 1)), 0.0, ReplayRng(np.ones((1, 1))))[0, 0]
    assert abs(push**2 / (1 - pull**2) - variance / (1 - eps / (2 * variance))) < 1e-12  # v = pull² v + push²


@given(seed=seeds)
def test_score_has_mean_zero_and_correlates_with_x_as_minus_identity(seed):
    """Exercise 5 (Stein): E s = 0, E[s xᵀ] = -I."""
    p = random_mixture(seed, dim=2, components=3, low=0.2, high=1.0, box=1.0)
    x, cell = quadrature_grid(p)
    weighted = cell * np.exp(p.log_prob(x))[:, None] * p.score(x)
    np.testing.assert_allclose(weighted.sum(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(weighted.T @ x, -np.eye(2), atol=1e-10)


def test_figure_fisher_divergence_forgets_the_weights():
    """The numbers that the text reads off the second figure; exercise 9: F -> √(2π)/40 d e^{-d²/8}, error O(1/d²)."""
    for d in (10.0, 14.0, 20.0):
        kl, fisher = weights_seen(d)
        assert abs(kl - (0.8 * math.log(1.6) + 0.2 * math.log(0.4))) < 1e-4
        assert abs(fisher / (math.sqrt(2 * math.pi) / 40 * d * math.exp(-(d**2) / 8)) - 1) < 1.5 / d**2
        if d == 10:
            assert fisher == pytest.approx(2.310e-6, rel=1e-3)


@pytest.mark.parametrize("d", [4.0, 10.0, 14.0])
def test_the_figures_quadrature_is_fine_enough_for_what_it_shows(d):
    """The poles of the score between the modes: a spacing of 1/16 where 1/4 errs by 1.4 % at d = 10 and 12 % at 14."""
    assert weights_seen(d) == pytest.approx(weights_seen(d, spacing=1 / 40), rel=1e-8)


def weights_seen(d, spacing=1 / 16):
    """KL and Fisher divergence of .8/.2 from .5/.5, unit modes d apart, as docs/figures/chapter01.py has them."""
    means = np.array([[d / 2], [-d / 2]])
    p, q = (GaussianMixture(np.array(w), means, np.ones(2)) for w in ([0.8, 0.2], [0.5, 0.5]))
    x, cell = quadrature_grid(p, spacing=spacing)
    weight = cell * np.exp(p.log_prob(x))
    kl = float(np.sum(weight * (p.log_prob(x) - q.log_prob(x))))
    return kl, 0.5 * float(np.sum(weight[:, None] * (p.score(x) - q.score(x)) ** 2))


def test_the_mean_of_two_points_is_a_tangent():
    """Exercise 2: E[x₀ | x] = tanh x, and the score tanh x - x."""
    p, x = GaussianMixture(np.array([0.5, 0.5]), np.array([[-1.0], [1.0]]), np.zeros(2)), np.array([[1.0], [-0.3]])
    np.testing.assert_allclose(p.posterior_mean(x, 1.0, 1.0), np.tanh(x), atol=1e-14)
    np.testing.assert_allclose(p.score(x, 1.0, 1.0), np.tanh(x) - x, atol=1e-14)
    assert float(np.tanh(1.0)) == pytest.approx(0.762, abs=5e-4)


@pytest.mark.recorded("what the solutions of the book say of these seeds")
@pytest.mark.parametrize(
    ("eps", "noise", "found"),
    [(0.005, 2.0, -2.2), (0.005, 0.0, -1.3), (0.005, 1.0, -1.7), (0.15, 2.0, None)],
)
def test_what_a_changed_loop_does(eps, noise, found):
    """Exercises 3 and 4, with the seed of the chapter."""
    p, rng = mixture("tilted"), np.random.default_rng(4)
    x = rng.uniform(-4, 4, size=(500, 2))
    for _ in range(600):
        x = x + eps * p.score(x) + math.sqrt(noise * eps) * rng.standard_normal(x.shape)
    if found is None:
        share = np.bincount(p.responsibilities(x).argmax(axis=1), minlength=3) / 500
        np.testing.assert_allclose(share, [0.04, 0.0, 0.96], atol=0.006)
    else:
        assert p.log_prob(x).mean() == pytest.approx(found, abs=0.051)
