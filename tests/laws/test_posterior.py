"""Chapter 13: Bayes' rule on mixtures under linear observations, against quadrature, Kalman's form and itself."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import GaussianMixture
from refscore.laws.examples import mixture
from refscore.laws.expectation import quadrature_grid
from refscore.laws.posterior import component, full_covariances, linear_posterior, observe
from tests.oracles.close import assert_close
from tests.oracles.mixtures import log_normal, observation
from tests.oracles.strategies import mixtures, points, random_mixture, seeds


@given(p=mixtures(max_dim=2, max_components=3, low=0.3, high=1.5, box=1.0), seed=seeds, M=st.integers(1, 3))
def test_posterior_is_bayes_rule_by_quadrature(p, seed, M):
    """Eqs. (13.3), (13.4): evidence, density, mean; one, two and three observations of one or two coordinates."""
    H, y, R = observation(seed, M, p.dim, low=1.0)
    post = linear_posterior(p, H, y, R)
    # nodes that resolve, and reach, the prior and the posterior
    x, cell = quadrature_grid(GaussianMixture(
        np.concatenate([p.weights, post.weights]) / 2,
        np.concatenate([p.means, post.means]),
        np.concatenate([full_covariances(p), full_covariances(post)]),
    ))  # fmt: skip
    joint = np.exp(p.log_prob(x) + log_normal(y - x @ H.T, R))
    evidence = cell * joint.sum()
    assert abs(np.exp(observe(p, H, R).log_prob(y[None, :]))[0] / evidence - 1) <= 1e-10
    np.testing.assert_allclose(
        np.exp(post.log_prob(x)), joint / evidence, rtol=0, atol=1e-10 * np.max(joint / evidence)
    )
    np.testing.assert_allclose(post.weights @ post.means, cell * joint @ x / evidence, rtol=0, atol=1e-10)


@given(seed=seeds, D=st.integers(1, 5), M=st.integers(1, 5))
def test_one_gaussian_is_updated_by_kalmans_and_by_the_information_form(seed, D, M):
    """Eq. (13.4): precisions add, C⁻¹ + Hᵀ R⁻¹ H; the gain form says the same."""
    p = random_mixture(seed, D, 1)
    H, y, R = observation(seed, M, D)
    C, m = p.covariances[0], p.means[0]
    post = linear_posterior(p, H, y, R)
    precision = np.linalg.inv(C) + H.T @ np.linalg.inv(R) @ H
    scale = np.linalg.cond(C) * 1e-13  # of the inverse that the check takes
    np.testing.assert_allclose(post.covariances[0] @ precision, np.eye(D), rtol=0, atol=100 * scale + 1e-11)
    K = C @ H.T @ np.linalg.inv(H @ C @ H.T + R)
    np.testing.assert_allclose(post.means[0], m + K @ (y - H @ m), rtol=0, atol=1e-10)
    np.testing.assert_allclose(post.covariances[0], C - K @ H @ C, rtol=0, atol=1e-10)
    assert post.weights == 1


def assert_same(a, b, atol):
    for left, right in (
        (a.weights, b.weights),
        (a.means, b.means),
        (full_covariances(a), full_covariances(b)),
    ):
        np.testing.assert_allclose(left, right, rtol=0, atol=atol)


@given(p=mixtures(), seed=seeds)
def test_observing_twice_is_observing_both(p, seed):
    """Eq. (13.4), for mixtures of every kind: sequential updates are the joint update, in either order."""
    (H, y, R), (G, u, Q) = observation(seed, 2, p.dim), observation(seed + 1, 1, p.dim)
    both = linear_posterior(
        p, np.vstack([H, G]), np.concatenate([y, u]), np.block([[R, np.zeros((2, 1))], [np.zeros((1, 2)), Q]])
    )
    # weights: log odds of up to hundreds, of terms as large: 1e-13 each
    assert_same(linear_posterior(linear_posterior(p, H, y, R), G, u, Q), both, 1e-9)
    assert_same(linear_posterior(linear_posterior(p, G, u, Q), H, y, R), both, 1e-9)


@given(seed=seeds, D=st.integers(1, 4), components=st.integers(1, 4))
def test_the_three_kinds_of_covariance_agree(seed, D, components):
    """Eqs. (13.3), (13.4)."""
    H, y, R = observation(seed, 2, D)
    for kind in ("isotropic", "diagonal"):
        p = random_mixture(seed, D, components, kind)
        full = GaussianMixture(p.weights, p.means, full_covariances(p))
        assert_same(linear_posterior(p, H, y, R), linear_posterior(full, H, y, R), 1e-13)
        assert_same(observe(p, H, R), observe(full, H, R), 1e-13)


@given(p=mixtures(), seed=seeds)
def test_without_noise_the_observed_coordinates_are_known(p, seed):
    """Eq. (13.4) at R = 0: H x = y without spread; and it is the limit R -> 0."""
    M = 1 + seed % p.dim
    H, y, R = observation(seed, M, p.dim)
    if p.dim == M:
        H = np.eye(M)  # all of x: nothing is left
    exact = linear_posterior(p, H, y, 0 * R)
    kept = exact.weights > 0
    cond = np.max(np.linalg.cond(H @ full_covariances(p) @ H.T))
    np.testing.assert_allclose((exact.means @ H.T)[kept], np.tile(y, (kept.sum(), 1)), rtol=0, atol=1e-13 * cond)
    spread = H @ full_covariances(exact) @ H.T
    assert_close(spread, 0, 1e-13 * cond)
    near = linear_posterior(p, H, y, 1e-9 * R)
    inverse, residual = np.linalg.inv(H @ full_covariances(p) @ H.T), y - p.means @ H.T
    size = lambda v: np.linalg.norm(v.reshape(len(v), -1), axis=1)  # noqa: E731
    # K_R - K = -K R S⁻¹ to first order: linear in R
    bound = 1e-9 * np.linalg.norm(R) * size(full_covariances(p) @ H.T @ inverse) * size(inverse) * size(residual)
    assert np.all(np.max(np.abs(near.means - exact.means), axis=1)[kept] <= bound[kept] + 1e-13 * cond)


def test_no_observation_is_too_unlikely_and_no_weight_too_small():
    p = GaussianMixture(np.array([0.5, 0.5, 0.0]), np.array([[-1.0], [1.0], [50.0]]), np.array([0.01, 0.01, 1.0]))
    post = linear_posterior(p, np.eye(1), np.array([1e6]), np.array([[0.01]]))
    np.testing.assert_array_equal(post.weights, [0.0, 1.0, 0.0])  # each likelihood is e^{-2e13}; 50 has no weight
    np.testing.assert_allclose(post.means[:2, 0], [0.5e6 - 0.5, 0.5e6 + 0.5], rtol=1e-14)
    odds = linear_posterior(p, np.eye(1), np.array([1e-4]), np.array([[0.01]])).weights
    assert abs(math.log(odds[1] / odds[0]) - 2 * 1e-4 / 0.02) <= 1e-13  # (y + 1)² - (y - 1)² over 2 S


def test_rows_of_very_different_units_are_no_singularity():
    """Eq. (13.4) does not depend on the units of y."""
    p = mixture("tilted")
    H, y, R = np.eye(2), np.array([0.3, 0.1]), 0.01 * np.eye(2)
    unit = np.diag([1e9, 1e-9])
    assert_same(linear_posterior(p, unit @ H, unit @ y, unit @ R @ unit), linear_posterior(p, H, y, R), 1e-13)


@given(p=mixtures(), alpha=st.floats(0.05, 1.0), sigma=st.floats(0.05, 2.0), seed=seeds)
def test_a_noisy_sample_is_a_linear_observation(p, alpha, sigma, seed):
    """Eqs. (13.3), (13.4) with H = αI, R = σ²I: the posterior of denoising, whose moments `mixture.py` has too."""
    x, eye = points(p, alpha, sigma, seed)[3], np.eye(p.dim)
    post = linear_posterior(p, alpha * eye, x, sigma**2 * eye)
    mean = post.weights @ post.means
    scale = 1 + np.max(np.abs(x)) / alpha
    np.testing.assert_allclose(mean, p.posterior_mean(x[None, :], alpha, sigma)[0], rtol=0, atol=1e-10 * scale)
    away = post.means - mean
    cov = np.einsum("k,kde->de", post.weights, full_covariances(post)) + (post.weights * away.T) @ away
    np.testing.assert_allclose(cov, p.posterior_cov(x[None, :], alpha, sigma)[0], rtol=0, atol=1e-9 * scale**2)
    evidence = observe(p, alpha * eye, sigma**2 * eye).log_prob(x[None, :])
    np.testing.assert_allclose(evidence, p.log_prob(x[None, :], alpha, sigma), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["isotropic", "diagonal", "full"])
def test_posteriors_agree_on_every_backend(any_backend, dtype, kind):
    if "no_float64" in any_backend.name:
        dtype = "float32"
    p = random_mixture(5, 3, 2, kind, low=0.2)
    H, y, R = observation(7, 2, 3)
    there = [any_backend.asarray(v, dtype) for v in (p.weights, p.means, p.covariances, H, y, R)]
    q = GaussianMixture(*there[:3])
    atol = 1e-12 if dtype == "float64" else 2e-5
    for wanted, found in (
        (linear_posterior(p, H, y, R), linear_posterior(q, *there[3:])),
        (observe(p, H, R), observe(q, there[3], there[5])),
        (component(p, 1), component(q, 1)),
    ):
        assert found.means.dtype == there[1].dtype
        for a, b in zip((wanted.weights, wanted.means, wanted.covariances),
                        (found.weights, found.means, found.covariances), strict=True):  # fmt: skip
            np.testing.assert_allclose(any_backend.to_numpy(b), a, rtol=0, atol=atol)


def test_what_does_not_fit_is_named():
    p, H, y, R = mixture("tilted"), np.ones((1, 2)), np.ones(1), np.eye(1)
    for bad, message in (
        ((np.ones((1, 3)), y, R), r"H must be \(M, 2\).*H \(1, 3\)"),
        ((H, np.ones(2), R), r"y \(2,\)"),
        ((H, y, np.eye(2)), r"R \(2, 2\)"),
        ((np.ones((0, 2)), np.ones(0), np.ones((0, 0))), r"H \(0, 2\)"),
        ((np.ones(2), y, R), "H must have 2 axes"),
        ((H, np.array([np.nan]), R), "y holds 1 values that are not finite"),
        ((H, y, -R), "R must be a covariance: .* indefinite"),
        ((np.eye(2), np.ones(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "R must be a covariance: .* not symmetric"),
        ((np.ones((2, 2)), np.ones(2), np.zeros((2, 2))), "singular"),  # the same sum twice, without noise
        ((np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]), np.ones(3), np.zeros((3, 3))), "singular"),
        ((0 * H, y, 0 * R), "singular"),
    ):
        with pytest.raises(ValueError, match=message):
            linear_posterior(p, *bad)
    with pytest.raises(TypeError, match="y is float32"):
        linear_posterior(p, H, y.astype("float32"), R)
    with pytest.raises(ValueError, match=r"R \(2, 2\)"):
        observe(p, H, np.eye(2))
    for k in (-1, 3):
        with pytest.raises(ValueError, match=r"k must be an integer|k must lie in"):
            component(p, k)
