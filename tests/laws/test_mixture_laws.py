"""Laws of the diffused Gaussian mixture: density, score, its derivatives, and the posterior of x₀.

Derivatives are complex steps, Im f(x + ih)/h with h = 1e-30: nothing is subtracted, so they are exact to
rounding and tolerances can be rounding errors, scaled by the largest term of the sum in question.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import GaussianMixture
from tests.oracles.close import assert_close
from tests.oracles.equations import H
from tests.oracles.mixtures import components, full, jacobian, size_of_jacobian
from tests.oracles.strategies import KINDS, mixtures, points, random_mixture, seeds

alphas = st.floats(0.05, 1.0)
sigmas = st.floats(-3.0, 3.0).map(lambda e: 10.0**e)


# ------------------------------------------------------------------ density and score


@given(mixtures(), alphas, sigmas, seeds)
def test_density_is_the_sum_of_gaussian_densities(p, a, s, seed):
    x = points(p, a, s, seed)
    S = a**2 * full(p) + s**2 * np.eye(p.dim)
    y = x[:, None, :] - a * p.means
    square = np.sum(y * np.linalg.solve(S, y[..., None])[..., 0], axis=-1)
    log = np.log(p.weights) - 0.5 * (square + np.linalg.slogdet(2 * math.pi * S)[1])
    assert p.log_prob(x, a, s) == pytest.approx(np.logaddexp.reduce(log, axis=1), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_density_integrates_to_one(kind):
    p = random_mixture(1, 2, 3, kind, low=0.3)
    a, s = 0.7, 0.4
    u = np.arange(-14, 14, 0.2)  # spacing under half a standard deviation: converged beyond rounding
    x = np.stack(np.meshgrid(u, u), axis=-1).reshape(-1, 2)
    assert np.exp(p.log_prob(x, a, s)).sum() * 0.2**2 == pytest.approx(1.0, abs=1e-13)


@given(mixtures(), alphas, sigmas, seeds)
def test_score_is_the_gradient_of_log_prob(p, a, s, seed):
    x = points(p, a, s, seed)
    score = p.score(x, a, s)
    size = 1 + np.sqrt(size_of_jacobian(p, x, a, s))
    sd = math.sqrt(a**2 * float(np.min(p.variances)) + s**2)
    for d in range(p.dim):
        e = np.eye(p.dim)[d]
        exact = p.log_prob(x + 1j * H * e, a, s).imag / H
        assert_close(exact, score[:, d], 1e-12 * size)
        h = 1e-5 * sd * e
        difference = (p.log_prob(x + h, a, s) - p.log_prob(x - h, a, s)) / (2e-5 * sd)
        # h² size³ ~ 1e-10 of the score; rounding of a log density z²/2 divided by h: 1e-16 z² / 1e-5 sd
        z = np.max(np.abs(x[:, None, :] - a * p.means), axis=(1, 2)) / sd
        assert_close(difference, score[:, d], 1e-6 * size + 1e-10 * (1 + z**2 + np.abs(x[:, d]) / sd * z) / sd)


@given(mixtures(), alphas, sigmas, seeds)
def test_score_is_the_responsibility_weighted_pull(p, a, s, seed):
    x = points(p, a, s, seed)
    r, g, _ = components(p, x, a, s)
    size = 1 + np.sqrt(size_of_jacobian(p, x, a, s))
    assert_close(p.score(x, a, s), np.sum(r[..., None] * g, axis=1), 1e-11 * size[:, None])
    assert p.responsibilities(x, a, s) == pytest.approx(r, abs=1e-11)
    assert np.sum(p.responsibilities(x, a, s), axis=1) == pytest.approx(1.0, abs=1e-14)


@given(mixtures(), alphas, sigmas, seeds)
def test_jvp_is_the_derivative_of_the_score(p, a, s, seed):
    x = points(p, a, s, seed)
    v = np.random.default_rng(seed).standard_normal(x.shape)
    exact = p.score(x + 1j * H * v, a, s).imag / H
    allowed = 1e-11 * (1 + size_of_jacobian(p, x, a, s)) * np.linalg.norm(v, axis=1)
    assert_close(p.score_jvp(x, v, a, s), exact, allowed[:, None])


@given(mixtures(), alphas, sigmas, seeds)
def test_jvp_of_a_stack_is_the_stack_of_jvps(p, a, s, seed):
    x = points(p, a, s, seed)
    V = np.random.default_rng(seed).standard_normal((3, *x.shape))
    stack = p.score_jvp(x, V, a, s)
    assert stack.shape == V.shape
    size = 1 + size_of_jacobian(p, x, a, s)[:, None]
    for v, out in zip(V, stack, strict=True):
        assert_close(p.score_jvp(x, v, a, s), out, 1e-13 * size)


@given(mixtures(), alphas, sigmas, seeds)
def test_jacobian_is_symmetric_and_divergence_its_trace(p, a, s, seed):
    x = points(p, a, s, seed)
    J = jacobian(p, x, a, s)
    size = 1 + size_of_jacobian(p, x, a, s)
    assert_close(J, np.swapaxes(J, 1, 2), 1e-12 * size[:, None, None])
    assert_close(np.trace(J, axis1=1, axis2=2), p.divergence(x, a, s), 1e-11 * size)
    hessian = sum(p.score(x + 1j * H * e, a, s)[:, d].imag / H for d, e in enumerate(np.eye(p.dim)))
    assert_close(hessian, p.divergence(x, a, s), 1e-11 * size)


# ------------------------------------------------------------------ the posterior of x₀


@given(mixtures(), alphas, sigmas, seeds)
def test_tweedie_gives_the_posterior_mean(p, a, s, seed):
    x = points(p, a, s, seed)
    tweedie = (x + s**2 * p.score(x, a, s)) / a
    # x/a and (s²/a) score cancel when s is large: rounding of either remains
    size = 1 + np.max(np.abs(x), axis=1, keepdims=True) / a
    assert_close(tweedie, p.posterior_mean(x, a, s), 1e-11 * size)


@given(mixtures(), alphas, sigmas, seeds)
def test_posterior_mean_conditions_jointly_gaussian_components(p, a, s, seed):
    x = points(p, a, s, seed)
    r, g, _ = components(p, x, a, s)
    means = p.means - a * np.einsum("kij,bkj->bki", full(p), g)
    size = 1 + np.max(np.abs(x), axis=1, keepdims=True) / a
    assert_close(p.posterior_mean(x, a, s), np.sum(r[..., None] * means, axis=1), 1e-11 * size)


@given(mixtures(), alphas, sigmas, seeds)
def test_second_order_tweedie_gives_the_posterior_covariance(p, a, s, seed):
    x = points(p, a, s, seed)
    cov = p.posterior_cov(x, a, s)
    inner = np.eye(p.dim) + s**2 * jacobian(p, x, a, s)
    # I and s² J cancel where the noise says little (s large): rounding of the terms of s² J remains
    size = 1 + s**2 * size_of_jacobian(p, x, a, s)
    assert_close(a**2 * cov, s**2 * inner, 1e-11 * s**2 * size[:, None, None])
    assert np.all(np.linalg.eigvalsh(inner) >= -1e-11 * size[:, None])


@given(mixtures(), alphas, sigmas, seeds)
def test_posterior_covariance_is_within_plus_between_components(p, a, s, seed):
    x = points(p, a, s, seed)
    r, g, precision = components(p, x, a, s)
    C = full(p)
    means = p.means - a * np.einsum("kij,bkj->bki", C, g)
    within = s**2 * C @ precision  # C - a² C S⁻¹ C
    between = means - np.sum(r[..., None] * means, axis=1, keepdims=True)
    expected = np.einsum("bk,kij->bij", r, within) + np.einsum("bk,bki,bkj->bij", r, between, between)
    cov = p.posterior_cov(x, a, s)
    size = 1 + np.sum(r * np.sum(means**2, axis=-1), axis=1)[:, None, None] + s**2 / a**2
    assert_close(cov, expected, 1e-11 * size)
    assert np.linalg.eigvalsh(cov).min() >= -1e-12 * size.max()


@given(mixtures(), alphas, sigmas, seeds)
def test_posterior_variance_is_the_trace_of_the_covariance(p, a, s, seed):
    x = points(p, a, s, seed)
    trace = np.trace(p.posterior_cov(x, a, s), axis1=1, axis2=2)
    assert p.posterior_variance(x, a, s) == pytest.approx(trace, rel=1e-12, abs=1e-13)


# ------------------------------------------------------------------ diffusion


@given(mixtures(), alphas, sigmas, alphas, sigmas)
def test_noising_twice_is_noising_once(p, a, s, b, t):
    twice = p.diffuse(a, s).diffuse(b, t)
    once = p.diffuse(a * b, math.sqrt(b**2 * s**2 + t**2))
    for name in ("weights", "means", "covariances"):
        x, y = getattr(twice, name), getattr(once, name)
        assert_close(x, y, 1e-14 * np.max(np.abs(y)), "a few roundings")


@given(mixtures(), alphas, sigmas, seeds)
def test_a_noise_level_is_the_diffused_mixture(p, a, s, seed):
    x = points(p, a, s, seed)
    q = p.diffuse(a, s)
    size = 1 + np.sqrt(size_of_jacobian(p, x, a, s))
    # An eigenvalue of the sum carries an error of the largest one: u κ, κ <= 100
    assert_close(q.score(x), p.score(x, a, s), 1e-11 * size[:, None])
    assert q.log_prob(x) == pytest.approx(p.log_prob(x, a, s), rel=1e-11, abs=1e-11)
    assert_close(q.divergence(x), p.divergence(x, a, s), 1e-11 * size**2)


@given(mixtures(), seeds, st.integers(1, 6), alphas, sigmas)
def test_levels_of_a_batch_are_levels_row_by_row(p, seed, n, a, s):
    rng = np.random.default_rng(seed)
    alpha, sigma = a * rng.uniform(0.5, 1, n), s * rng.uniform(0.5, 2, n)
    x = alpha[:, None] * p.sample(rng, n) + sigma[:, None] * rng.standard_normal((n, p.dim))
    v = rng.standard_normal((2, *x.shape))

    def all_of(x, v, a, s):
        return [
            p.log_prob(x, a, s), p.score(x, a, s), p.responsibilities(x, a, s), p.divergence(x, a, s),
            p.posterior_mean(x, a, s), p.posterior_cov(x, a, s), p.posterior_variance(x, a, s),
            np.moveaxis(p.score_jvp(x, v, a, s), 1, 0),
        ]  # fmt: skip

    size = 1 + max(size_of_jacobian(p, x[i : i + 1], alpha[i], sigma[i])[0] for i in range(n))
    size += np.max(np.abs(x / alpha[:, None])) ** 2
    together = all_of(x, v, alpha, sigma)
    for i in range(n):
        row, tangent = x[i : i + 1], v[:, i : i + 1]
        alone = all_of(row, tangent, float(alpha[i]), float(sigma[i]))
        as_array = all_of(row, tangent, alpha[i : i + 1], sigma[i : i + 1])
        for b, f, g in zip(together, alone, as_array, strict=True):
            assert_close(b[i], f[0], 1e-13 * size, "matrix products reorder sums")
            assert_close(g, f, 1e-13 * size)
    shared = all_of(x, v, alpha[:1], sigma[:1])  # (1,) serves a whole batch
    for b, f in zip(shared, all_of(x, v, float(alpha[0]), float(sigma[0])), strict=True):
        assert b == pytest.approx(f, rel=1e-12, abs=1e-13 * float(np.max(np.abs(f))))


# ------------------------------------------------------------------ integrals

narrow = {"low": 0.3, "high": 2.0, "box": 2.0}  # so that a product grid resolves every component


def grid(p, a, s, spacing=0.5):
    """Nodes (N, D) and cell of the trapezoid rule: half the smallest deviation, ±10 of the largest."""
    variances = a**2 * p.variances + s**2
    h, reach = spacing * math.sqrt(variances.min()), 10 * math.sqrt(variances.max())
    axes = [np.arange(a * m.min() - reach, a * m.max() + reach, h) for m in p.means.T]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, p.dim), h**p.dim


@given(mixtures(max_dim=2, max_components=3, **narrow), st.floats(0.3, 1.0), st.floats(0.05, 2.0))
def test_stein_and_fisher_identities(p, a, s):
    x, cell = grid(p, a, s)
    mass = cell * np.exp(p.log_prob(x, a, s))
    score, J = p.score(x, a, s), jacobian(p, x, a, s)
    size = max(1.0, 1 / (a**2 * float(p.variances.min()) + s**2))
    assert mass.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.abs(mass @ score).max() <= 1e-10 * size  # E s = 0
    assert np.abs((mass * score.T) @ x + np.eye(p.dim)).max() <= 1e-10 * size  # E s xᵀ = -I
    assert np.abs((mass * score.T) @ score + np.einsum("b,bij->ij", mass, J)).max() <= 1e-10 * size  # Fisher
    # The law of total expectation: E r = w, E D(x) = E x0; and E tr Cov + tr Cov D = tr Cov x0.
    assert mass @ p.responsibilities(x, a, s) == pytest.approx(p.weights, abs=1e-10)
    D = p.posterior_mean(x, a, s)
    mean = p.weights @ p.means
    assert mass @ D == pytest.approx(mean, abs=1e-10)
    total = p.weights @ (np.trace(full(p), axis1=1, axis2=2) + np.sum((p.means - mean) ** 2, axis=1))
    split = mass @ (p.posterior_variance(x, a, s) + np.sum((D - mean) ** 2, axis=1))
    assert split == pytest.approx(total, rel=1e-10)


@given(mixtures(max_dim=1, max_components=3, **narrow), st.floats(0.5, 2.0))
def test_entropy_grows_by_half_the_fisher_information(p, s):
    """De Bruijn: d H(x₀ + √v z) / dv = ½ E|score|²."""

    def entropy(v):
        # p log p is analytic only between the complex zeros of p, hence a finer grid than for p itself
        x, cell = grid(p, 1.0, math.sqrt(v), 0.05)
        log = p.log_prob(x, 1.0, math.sqrt(v))
        return -cell * float(np.sum(np.exp(log) * log))

    v, h = s**2, 2e-3 * s**2
    slope = (entropy(v - 2 * h) - 8 * entropy(v - h) + 8 * entropy(v + h) - entropy(v + 2 * h)) / (12 * h)
    x, cell = grid(p, 1.0, s, 0.05)
    fisher = cell * float(np.sum(np.exp(p.log_prob(x, 1.0, s)) * p.score(x, 1.0, s)[:, 0] ** 2))
    assert slope == pytest.approx(0.5 * fisher, rel=1e-7)  # five points: h⁴ ~ 1e-11; rounding 1e-14 / h


# ------------------------------------------------------------------ limits


@given(mixtures(), seeds, st.floats(3.0, 6.0))
def test_under_much_noise_the_score_points_to_the_mean(p, seed, exponent):
    s = 10.0**exponent
    x = np.random.default_rng(seed).standard_normal((5, p.dim))
    expected = -(x - p.weights @ p.means)
    # Relative corrections of order |S_0 + x xᵀ|/s², at most 3e2/s² in this domain
    spread = 1 + np.max(p.variances) + np.max(p.means**2) * p.dim + np.max(x**2) * p.dim
    error = np.abs(s**2 * p.score(x, 1.0, s) - expected)
    assert np.all(error <= 3 * spread**1.5 / s**2)


@given(mixtures(max_components=1), seeds, st.floats(-8.0, -5.0))
def test_without_noise_one_component_has_a_linear_score(p, seed, exponent):
    x = p.sample(np.random.default_rng(seed), 5)
    expected = -np.linalg.solve(full(p)[0], (x - p.means).T).T
    size = 1 + np.abs(expected).max()
    assert np.abs(p.score(x) - expected).max() <= 1e-11 * size
    assert np.abs(p.score(x, 1.0, 10.0**exponent) - expected).max() <= (1e-11 + 100 * 10.0 ** (2 * exponent)) * size


@given(mixtures(), seeds, st.floats(4.0, 140.0))
def test_far_out_the_least_precise_component_wins(p, seed, exponent):
    u = np.random.default_rng(seed).standard_normal(p.dim)
    u /= np.linalg.norm(u)
    precision = np.array([u @ np.linalg.solve(C, u) for C in full(p)])
    order = np.sort(precision)
    if len(order) > 1 and order[1] < 1.001 * order[0]:
        return  # no winner to speak of
    k = int(np.argmin(precision))
    x = 10.0**exponent * u[None, :]
    assert p.responsibilities(x)[0, k] == 1.0
    expected = -np.linalg.solve(full(p)[k], (x - p.means[k])[0])
    assert np.abs(p.score(x)[0] - expected).max() <= 1e-11 * np.abs(expected).max()


# ------------------------------------------------------------------ degenerate mixtures


@given(seeds, st.integers(1, 4), st.integers(1, 4), sigmas)
def test_points_have_the_score_of_gaussians_around_them(seed, dim, K, s):
    """Covariance 0: the score that denoising learns by heart from K training points."""
    rng = np.random.default_rng(seed)
    weights, means = np.full(K, 1 / K), rng.uniform(-3, 3, (K, dim))
    a = 0.8
    x = a * means[rng.integers(0, K, 6)] + s * rng.standard_normal((6, dim))
    noise = GaussianMixture(weights, a * means, np.full(K, s**2))
    reference = noise.score(x)
    for zero in (np.zeros(K), np.zeros((K, dim)), np.zeros((K, dim, dim))):
        p = GaussianMixture(weights, means, zero)
        assert np.abs(p.score(x, a, s) - reference).max() <= 1e-11 * (1 + np.abs(reference).max() + 1 / s)
        assert p.log_prob(x, a, s) == pytest.approx(noise.log_prob(x), rel=1e-11, abs=1e-11)
        r = p.responsibilities(x, a, s)
        assert p.posterior_mean(x, a, s) == pytest.approx(r @ means, abs=1e-12)
        assert np.all(p.posterior_variance(x, a, s) >= 0)
        assert p.sample(rng, 3).shape == (3, dim)


@given(seeds, st.integers(2, 4), st.floats(0.1, 3.0))
def test_a_plane_with_noise_is_a_flat_gaussian(seed, dim, s):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((dim, dim - 1))
    C = A @ A.T
    C = 0.5 * (C + C.T)
    p = GaussianMixture(np.ones(1), np.zeros((1, dim)), C[None])
    x = rng.standard_normal((5, dim))
    expected = -np.linalg.solve(C + s**2 * np.eye(dim), x.T).T
    assert p.score(x, 1.0, s) == pytest.approx(expected, rel=1e-9, abs=1e-10)
    with pytest.raises(ValueError, match=r"density does not exist.*sigma > 0"):
        p.log_prob(x)
    # An eigenvalue that rounding made negative is 0: samples exist, and so does every score with noise.
    assert np.all(p.variances >= 0)
    assert np.all(np.isfinite(p.sample(rng, 3)))
    assert np.all(np.isfinite(p.score(x, 1.0, 1e-12)))
    # On the plane the posterior has no width across it.
    across = np.linalg.svd(A)[0][:, -1]
    assert np.abs(p.posterior_cov(x, 1.0, s) @ across).max() <= 1e-9 * (1 + np.abs(C).max())


@pytest.mark.parametrize(
    "cov", [np.array([0.0, 1.0]), np.array([[0.0, 1.0], [1.0, 1.0]]), np.diag([1.0, 0.0])[None].repeat(2, 0)]
)
def test_a_singular_mixture_has_no_density_without_noise(cov):
    p = GaussianMixture(np.array([0.5, 0.5]), np.zeros((2, 2)), cov)
    x = np.ones((1, 2))
    for method in (p.log_prob, p.score, p.responsibilities, p.divergence):
        with pytest.raises(ValueError, match="density does not exist"):
            method(x)
        with pytest.raises(ValueError, match="density does not exist"):
            method(x, 1.0, 0)
        assert np.all(np.isfinite(method(x, 1.0, 1e-3)))
    with pytest.raises(ValueError, match="density does not exist"):
        p.score_jvp(x, x)


@given(mixtures(), alphas, sigmas, seeds)
def test_components_of_weight_zero_are_never_seen(p, a, s, seed):
    rng = np.random.default_rng(seed)
    more = GaussianMixture(
        np.concatenate([[0.0], p.weights, [0.0]]),
        np.concatenate([rng.standard_normal((1, p.dim)), p.means, rng.standard_normal((1, p.dim))]),
        np.concatenate([p.covariances[:1] / 2, p.covariances, p.covariances[:1]]),
    )
    x = points(p, a, s, seed)
    size = 1 + size_of_jacobian(p, x, a, s)[:, None]
    assert_close(more.score(x, a, s), p.score(x, a, s), 1e-13 * size)
    assert_close(more.score_jvp(x, x, a, s), p.score_jvp(x, x, a, s), 1e-12 * size * (1 + np.abs(x).max()))
    assert more.log_prob(x, a, s) == pytest.approx(p.log_prob(x, a, s), rel=1e-13, abs=1e-13)
    r = more.responsibilities(x, a, s)
    assert np.all(r[:, [0, -1]] == 0)
    assert more.posterior_variance(x, a, s) == pytest.approx(p.posterior_variance(x, a, s), rel=1e-11, abs=1e-13)


@given(mixtures(), alphas, sigmas, seeds)
def test_a_vanishing_weight_has_a_limit(p, a, s, seed):
    def plus(w):
        weights = np.concatenate([[w], (1 - w) * p.weights])
        return GaussianMixture(
            weights, np.concatenate([p.means[:1], p.means]), np.concatenate([p.covariances[:1], p.covariances])
        )

    x = points(p, a, s, seed)
    size = 1 + np.sqrt(size_of_jacobian(p, x, a, s))[:, None]
    # The new component is a copy of one whose weight is at least e⁻⁶/5: it changes r by 1e-14 × 2e3
    assert_close(plus(1e-14).score(x, a, s), plus(0.0).score(x, a, s), 1e-10 * size)


# ------------------------------------------------------------------ invariances


def scale_of(p, x, a, s):
    """(B, 1): size of the terms of the score, and what a rounding of x or of a mean does to them."""
    terms = np.sqrt(size_of_jacobian(p, x, a, s))
    shift = size_of_jacobian(p, x, a, s) * (1 + np.abs(x).max() + a * np.abs(p.means).max())
    return (1 + terms + shift)[:, None]


@given(mixtures(), alphas, sigmas, seeds)
def test_score_follows_translations(p, a, s, seed):
    c = np.random.default_rng(seed).uniform(-2, 2, p.dim)
    q = GaussianMixture(p.weights, p.means + c, p.covariances)
    x = points(p, a, s, seed)
    assert_close(q.score(x + a * c, a, s), p.score(x, a, s), 1e-12 * scale_of(p, x, a, s))


@given(mixtures(), alphas, sigmas, seeds)
def test_score_follows_rotations(p, a, s, seed):
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((p.dim, p.dim)))[0]
    C = Q @ full(p) @ Q.T
    q = GaussianMixture(p.weights, p.means @ Q.T, 0.5 * (C + np.swapaxes(C, 1, 2)))
    x = points(p, a, s, seed)
    # A turned covariance carries rounding errors of its largest eigenvalue: u κ, κ <= 100
    assert_close(q.score(x @ Q.T, a, s), p.score(x, a, s) @ Q.T, 1e-11 * scale_of(p, x, a, s))


@given(mixtures(), alphas, sigmas, seeds, st.floats(-6.0, 6.0))
def test_score_follows_scaling(p, a, s, seed, exponent):
    c = 10.0**exponent
    q = GaussianMixture(p.weights, c * p.means, c**2 * p.covariances)
    x = points(p, a, s, seed)
    assert_close(c * q.score(c * x, a, c * s), p.score(x, a, s), 1e-11 * scale_of(p, x, a, s))
    log_p = p.log_prob(x, a, s) - p.dim * math.log(c)
    assert q.log_prob(c * x, a, c * s) == pytest.approx(log_p, rel=1e-11, abs=1e-11)


@given(mixtures(), alphas, sigmas, seeds)
def test_components_may_be_listed_in_any_order(p, a, s, seed):
    order = np.random.default_rng(seed).permutation(p.n_components)
    q = GaussianMixture(p.weights[order], p.means[order], p.covariances[order])
    x = points(p, a, s, seed)
    assert_close(q.score(x, a, s), p.score(x, a, s), 1e-13 * scale_of(p, x, a, s))
    assert np.abs(q.responsibilities(x, a, s) - p.responsibilities(x, a, s)[:, order]).max() <= 1e-13


@given(mixtures(), alphas, sigmas, seeds, st.floats(0.05, 0.95))
def test_a_component_may_be_split(p, a, s, seed, part):
    w = p.weights
    q = GaussianMixture(
        np.concatenate([[part * w[0], (1 - part) * w[0]], w[1:]]),
        np.concatenate([p.means[:1], p.means]),
        np.concatenate([p.covariances[:1], p.covariances]),
    )
    x = points(p, a, s, seed)
    # The log of a split weight is rounded once more, on top of log odds of size z²
    assert_close(q.score(x, a, s), p.score(x, a, s), 1e-12 * scale_of(p, x, a, s))
    assert q.log_prob(x, a, s) == pytest.approx(p.log_prob(x, a, s), rel=1e-13, abs=1e-13)


@given(seeds, alphas, sigmas)
def test_independent_coordinates_have_the_score_of_each(seed, a, s):
    """A product law, K = 1: the score of the whole is the scores of the parts side by side."""
    p, q = random_mixture(seed, 2, 1), random_mixture(seed + 1, 3, 1)
    C = np.zeros((1, 5, 5))
    C[0, :2, :2], C[0, 2:, 2:] = p.covariances[0], q.covariances[0]
    both = GaussianMixture(np.ones(1), np.concatenate([p.means, q.means], axis=1), C)
    x = points(both, a, s, seed)
    expected = np.concatenate([p.score(x[:, :2], a, s), q.score(x[:, 2:], a, s)], axis=1)
    assert_close(both.score(x, a, s), expected, 1e-12 * scale_of(both, x, a, s))
    log_p = p.log_prob(x[:, :2], a, s) + q.log_prob(x[:, 2:], a, s)
    assert both.log_prob(x, a, s) == pytest.approx(log_p, rel=1e-12, abs=1e-12)


@given(seeds, st.integers(1, 4), st.integers(1, 4), alphas, sigmas)
def test_three_ways_to_write_a_covariance(seed, dim, K, a, s):
    p = random_mixture(seed, dim, K, "isotropic")
    diagonal = GaussianMixture(p.weights, p.means, np.repeat(p.covariances[:, None], dim, axis=1))
    dense = GaussianMixture(p.weights, p.means, full(p))
    x = points(p, a, s, seed)
    v = np.random.default_rng(seed).standard_normal((2, *x.shape))
    size = 1 + size_of_jacobian(p, x, a, s) + (1 + np.max(np.abs(x), axis=1) / a) ** 2
    for q in (diagonal, dense):
        for name in ("log_prob", "score", "responsibilities", "divergence", "posterior_mean", "posterior_cov",
                     "posterior_variance"):  # fmt: skip
            mine, theirs = getattr(p, name)(x, a, s), getattr(q, name)(x, a, s)
            assert mine.shape == theirs.shape
            assert np.all(np.abs(mine - theirs).reshape(len(x), -1) <= 1e-12 * size[:, None]), name
        assert_close(p.score_jvp(x, v, a, s), q.score_jvp(x, v, a, s), 1e-12 * size[:, None] * 10)


@given(mixtures(), alphas, sigmas, seeds)
def test_samples_do_not_influence_each_other(p, a, s, seed):
    x = points(p, a, s, seed)
    order = np.random.default_rng(seed).permutation(len(x))
    # A far neighbour (one that overflows, too) changes nothing.
    x[0] = 1e160
    score, log_p, scale = p.score(x, a, s), p.log_prob(x, a, s), scale_of(p, x[1:], a, s)
    assert_close(p.score(x[1:], a, s), score[1:], 1e-13 * scale)
    assert p.log_prob(x[1:], a, s) == pytest.approx(log_p[1:], rel=1e-13, abs=1e-13)
    shuffled = p.score(x[order], a, s)[np.argsort(order)]
    assert np.all(np.abs(shuffled - score)[1:] <= 1e-13 * scale)
    alone = np.concatenate([p.score(row[None], a, s) for row in x[1:]])
    assert_close(alone, score[1:], 1e-13 * scale)


@given(mixtures(), alphas, sigmas, seeds)
def test_memory_layout_does_not_matter(p, a, s, seed):
    x = points(p, a, s, seed)
    score, scale = p.score(x, a, s), scale_of(p, x, a, s)
    padded = np.zeros((2 * len(x), p.dim + 1))
    padded[::2, 1:] = x
    for view in (np.asfortranarray(x), padded[::2, 1:], x[::-1].copy()[::-1]):
        # BLAS may order a product's sums by the layout
        assert_close(p.score(view, a, s), score, 1e-13 * scale)
