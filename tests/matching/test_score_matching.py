"""Chapter 3: what every objective optimises, as identities; its gradient; the answers to the exercises.

Expectations are taken by the code's own `at`: nodes of a quadrature rule stand for samples, and the `factor` carries
the rule's weights.
"""

import itertools
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import (
    MLP,
    OU,
    VE,
    VP,
    Denoising,
    EnergyModel,
    ExactScore,
    Explicit,
    FiniteDifference,
    GaussianMixture,
    Implicit,
    ScoreModel,
    Sliced,
)
from refscore.arrays import per_sample
from refscore.laws.examples import mixture
from refscore.laws.expectation import quadrature_grid
from refscore.matching.base import noised
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.times import FixedTime, Levels, UniformLogSNR, UniformTime
from refscore.matching.weights import SigmaPower, g_squared, sigma_squared
from refscore.measure.distance import fisher_divergence
from refscore.measure.floor import denoising_floor
from refscore.noise.sde import log_ratio
from refscore_backends.numpy import NumpyBackend
from tests.oracles.close import assert_close
from tests.oracles.marks import on_every_backend
from tests.oracles.mixtures import covariance
from tests.oracles.models import KINDS, Counted, Linear
from tests.oracles.quadrature import gauss_hermite
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import assert_within, quantile
from tests.oracles.strategies import mixtures, random_mixture, sdes, seeds

T0 = np.zeros(1)  # the data as they are


# ------------------------------------------------------------------ models linear in θ, and nodes


def polynomials(degree, dim, sde=VE(0.01, 10.0)):  # noqa: B008
    """Every monomial of at most this degree."""
    powers = np.array([e for e in itertools.product(range(degree + 1), repeat=dim) if sum(e) <= degree])

    def basis(x):
        phi = np.prod(x[:, None, :] ** powers, axis=2)
        slopes = [
            powers[:, d] * np.prod(x[:, None, :] ** np.maximum(powers - np.eye(dim, dtype=int)[d], 0), axis=2)
            for d in range(dim)
        ]
        return phi, np.stack(slopes, axis=2)

    return Linear(basis, len(powers), dim, sde)


def affine(model, A, b):
    """The θ of `polynomials(1, D)` with s = A x + b."""
    phi, slopes = model.basis(np.zeros((1, model.dim)))
    return np.einsum("m,d->md", phi[0], b).ravel() + np.einsum("mc,dc->md", slopes[0], A).ravel()


def root(C):
    """The symmetric square root."""
    lam, U = np.linalg.eigh(C)
    return (U * np.sqrt(lam)) @ U.T


def gaussian_nodes(p, n, alpha=1.0, sigma=0.0):
    """Gauss-Hermite for one Gaussian after noise."""
    z, w = gauss_hermite(n, p.dim)
    S = alpha**2 * p.covariances[0] + sigma**2 * np.eye(p.dim)
    return alpha * p.means[0] + z @ root(S), w


def one_gaussian(seed, dim):
    return random_mixture(seed, dim, 1, low=0.2, high=2.0, box=1.0)


def one_theta(model, seed):
    return np.random.default_rng([seed, 7]).standard_normal(model.size * model.dim)


def expected(objective, model, theta, x, p, *more, t=T0):
    """Loss and gradient of the code itself, with weights p at nodes x."""
    loss, grad = objective.at(model, theta, x, t, *more, len(p) * p)
    return float(loss), grad


# ------------------------------------------------------------------ explicit = implicit + constant


@given(seed=seeds, dim=st.integers(1, 3))
def test_explicit_is_implicit_and_a_constant_exactly_on_a_gaussian(seed, dim):
    """Eqs. (3.1), (3.2), (3.3), (3.4): polynomials of degree 3, for which Gauss-Hermite is exact."""
    p, model = one_gaussian(seed, dim), polynomials(3, dim)
    x, w = gaussian_nodes(p, 5)
    theta, s = one_theta(model, seed), p.score(x)
    explicit, grad = expected(Explicit(lambda x, t: p.score(x)), model, theta, x, w)
    implicit, same = expected(Implicit(), model, theta, x, w)
    constant = 0.5 * w @ np.sum(s * s, axis=1)
    y, (phi, slopes) = model.forward({"W": theta.reshape(model.shapes["W"])}, x, T0)
    divergence = np.einsum("bmd,md->b", slopes, theta.reshape(model.shapes["W"]))
    scale = w @ (np.sum(y * y + s * s, axis=1) + np.abs(divergence))
    assert abs(explicit - 0.5 * w @ np.sum((y - s) ** 2, axis=1)) <= 1e-13 * scale
    assert abs(implicit - w @ (divergence + 0.5 * np.sum(y * y, axis=1))) <= 1e-13 * scale
    assert abs(explicit - implicit - constant) <= 1e-12 * scale  # rounding: no quadrature error at all
    assert abs(w @ np.sum(y * s, axis=1) + w @ divergence) <= 1e-12 * scale
    terms = np.abs(phi).T @ (w[:, None] * (np.abs(y) + np.abs(s))) + np.einsum("b,bmd->md", w, np.abs(slopes))
    assert np.max(np.abs(grad - same) / terms.ravel().clip(1e-300)) <= 1e-12
    assert abs(constant - 0.5 * np.trace(np.linalg.inv(p.covariances[0]))) <= 1e-12 * constant


@given(p=mixtures(max_dim=2, max_components=3, low=0.3, high=1.0, box=1.5), seed=seeds)
def test_explicit_is_implicit_and_a_constant_on_mixtures(p, seed):
    """Eqs. (3.2), (3.4): the trapezoid rule, whose nodes both sides share."""
    grid = quadrature_grid(p)
    assert grid is not None
    x, cell = grid
    w = cell * np.exp(p.log_prob(x))
    x, w = x[w > 1e-25], w[w > 1e-25]  # what is left out weighs less than rounding
    model = polynomials(3, p.dim)
    theta, s = one_theta(model, seed), p.score(x)
    explicit, grad = expected(Explicit(lambda x, t: p.score(x)), model, theta, x, w)
    implicit, same = expected(Implicit(), model, theta, x, w)
    scale = abs(explicit) + abs(implicit) + w @ np.sum(s * s, axis=1)
    assert abs(explicit - implicit - 0.5 * w @ np.sum(s * s, axis=1)) <= 1e-10 * scale
    assert_close(grad, same, 1e-10 * (1 + np.max(np.abs(grad))))


@given(seed=seeds)
def test_an_edge_of_the_density_leaves_a_boundary_term(seed):
    """Exercise 5: p = e^-x on x > 0, where the boundary term p(0) s_θ(0) does not vanish (Gauss-Laguerre)."""
    x, w = np.polynomial.laguerre.laggauss(6)
    model = polynomials(2, 1)
    theta = one_theta(model, seed)
    explicit, _ = expected(Explicit(lambda x, t: -1 + 0 * x), model, theta, x[:, None], w)
    implicit, _ = expected(Implicit(), model, theta, x[:, None], w)
    assert abs(explicit - implicit - 0.5 - theta[0]) <= 1e-11 * (1 + abs(explicit))  # s_θ(0) = θ₀
    _, grad = expected(Implicit(), model, np.zeros(3), x[:, None], w)
    assert grad[0] == 0.0  # so the best constant is called 0, and the true one is -1


# ------------------------------------------------------------------ denoising


def joint_nodes(p):
    """Trapezoid rule for (x₀, z), x₀ ~ p in 1-D: exp(-2π²/½²) of error for polynomials times Gaussians."""
    sd = np.sqrt(p.variances)
    x = np.arange((p.means - 9 * sd).min(), (p.means + 9 * sd).max(), 0.5 * float(sd.min()))
    z = np.arange(-9.0, 9.1, 0.5)
    px = (x[1] - x[0]) * np.exp(p.log_prob(x[:, None]))
    pz = 0.5 * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return np.repeat(x, len(z))[:, None], np.tile(z, len(x))[:, None], np.outer(px, pz).ravel()


@given(p=mixtures(max_dim=1, max_components=3, low=0.1, box=2.0), sde=sdes, t=st.floats(0.15, 1.0), seed=seeds)
def test_denoising_is_explicit_on_the_noised_law_and_a_floor(p, sde, t, seed):
    """Eqs. (3.10), (3.12), (3.13): for every θ, not at the optimum alone."""
    alpha, sigma, now = sde.alpha(t), sde.sigma(t), np.array([t])
    model, size = polynomials(3, 1, sde), math.sqrt(alpha**2 * 5 + sigma**2)
    theta = one_theta(model, seed) / size ** (1 + np.arange(4))  # scores of order 1/|x|
    x0, z, w = joint_nodes(p)
    objective = Denoising(weight=SigmaPower(2), times=FixedTime(t))
    denoising, grad = objective.at(model, theta, x0, now, z, len(w) * w)
    grid = quadrature_grid(p.diffuse(alpha, sigma))
    assert grid is not None
    x, cell = grid
    v = cell * np.exp(p.log_prob(x, alpha, sigma))
    s = p.score(x, alpha, sigma)
    explicit, same = expected(Explicit(ExactScore(p, sde), weight=SigmaPower(2)), model, theta, x, v, t=now)
    implicit, _ = expected(Implicit(weight=SigmaPower(2)), model, theta, x, v, t=now)
    floor = 0.5 * (1 - sigma**2 * v @ s[:, 0] ** 2)
    scale = 1 + abs(denoising) + abs(explicit) + abs(implicit)
    assert abs(denoising - explicit - floor) <= 1e-10 * scale  # converged rules
    assert abs(denoising - implicit - 0.5) <= 1e-10 * scale
    assert np.max(np.abs(grad - same) / size ** np.arange(4)) <= 1e-10 * scale * size
    exact = denoising_floor(objective, p, sde)
    assert abs(floor - exact.value) <= exact.error + 1e-11


@given(
    p=mixtures(max_dim=1, max_components=3, low=0.1, box=2.0), alpha=st.floats(0.1, 1.0), sigma=st.floats(0.02, 3.0),
    seed=seeds,
)  # fmt: skip
def test_the_best_guess_of_the_noise_is_minus_sigma_times_the_score(p, alpha, sigma, seed):
    """Eq. (3.11), by Bayes' rule and one quadrature over z."""
    x = p.diffuse(alpha, sigma).sample(np.random.default_rng(seed), 5)
    # given x, z is a mixture of Gaussians of variance at least α² C/(α² C + σ²): half of its root is the spacing
    h = 0.25 * math.sqrt(float(p.variances.min()) / (float(p.variances.min()) + (sigma / alpha) ** 2))
    z = np.arange(-9.0, 9.0 + h, h)
    for one in x:
        log_w = p.log_prob((one - sigma * z[:, None]) / alpha) - 0.5 * z**2
        w = np.exp(log_w - log_w.max())
        wanted = -sigma * p.score(one[None, :], alpha, sigma)[0, 0]
        assert abs(z @ w / w.sum() - wanted) <= 1e-10 * (1 + abs(wanted))


@given(seed=seeds, sigma=st.floats(0.1, 2.0), dim=st.sampled_from([1, 2]))
def test_three_systems_of_normal_equations_are_one(seed, sigma, dim):
    """Eq. (3.15): explicit, implicit and denoising, for a model linear in θ, read off the code's own gradients."""
    p, sde = one_gaussian(seed, dim), VE(0.01, 10.0)
    model = polynomials(4 - dim, dim, sde)
    t = np.array([sde.time(sigma)])
    x, w = gaussian_nodes(p, 5, 1.0, sigma)
    both, wb = gauss_hermite(5, 2 * dim)
    x0, z = p.means[0] + both[:, :dim] @ root(p.covariances[0]), both[:, dim:]
    fixed = FixedTime(float(t[0]))
    gradients = [
        lambda a: expected(Explicit(ExactScore(p, sde)), model, a, x, w, t=t)[1],
        lambda a: expected(Implicit(), model, a, x, w, t=t)[1],
        lambda a: Denoising(weight=SigmaPower(0), times=fixed).at(model, a, x0, t, z, len(wb) * wb)[1],
    ]
    P = model.size * dim
    systems = []
    for gradient in gradients:
        b = gradient(np.zeros(P))
        systems.append((np.stack([gradient(e) - b for e in np.eye(P)]), b))
    phi, slopes = model.basis(x)
    A = np.kron((phi * w[:, None]).T @ phi, np.eye(dim))
    b = np.einsum("b,bmd->md", w, slopes).ravel()
    scale = np.max(np.abs(A))
    for found, right in systems:
        assert_close(found, A, 1e-10 * scale)
        assert_close(right, b, 1e-10 * scale)
    S = p.covariances[0] + sigma**2 * np.eye(dim)
    straight = polynomials(1, dim)
    truth = np.zeros((model.size, dim))  # the score is linear, so it is among them
    rows = [int(np.flatnonzero((phi == column[:, None]).all(axis=0))[0]) for column in straight.basis(x)[0].T]
    truth[rows] = affine(straight, -np.linalg.inv(S), np.linalg.solve(S, p.means[0])).reshape(-1, dim)
    assert_close(A @ truth.ravel() + b, 0, 1e-10 * scale)


@given(seed=seeds, n=st.integers(2, 12), sigma=st.floats(0.2, 1.0))
def test_for_finite_data_the_optimum_is_the_score_of_the_kernel_density_estimate(seed, n, sigma):
    """Eq. (3.17): a mixture of n points of covariance 0 knows what an overfitted model learns, and its loss."""
    sde = VE(0.01, 10.0)
    t = float(sde.time(sigma))
    points = np.random.default_rng(seed).standard_normal((n, 1))
    memory = GaussianMixture(np.full(n, 1 / n), points, np.zeros(n))
    model = Pushed(ExactScore(memory, sde), sde)
    z = np.arange(-9.0, 9.1, 0.05)  # fine: the score has poles close to the real line
    w = np.tile(0.05 * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi), n) / n
    x0, z = np.repeat(points, len(z), axis=0), np.tile(z, n)[:, None]
    objective = Denoising(times=FixedTime(t))

    def at(a):
        loss, grad = objective.at(model, np.asarray(a), x0, np.array([t]), z, len(w) * w)
        return float(loss), grad

    least, grad = at([0.0, 0.0, 0.0])
    assert_close(grad, 0, 1e-10)
    floor = denoising_floor(objective, memory, sde)
    assert abs(least - floor.value) <= floor.error + 1e-10
    for direction in np.eye(3):
        assert at(0.1 * direction)[0] > least
        assert at(-0.1 * direction)[0] > least


@dataclass(frozen=True)
class Pushed:
    """A given score, pushed in three directions unless θ = 0."""

    score: Any
    sde: Any
    shapes = {"a": (3,)}  # noqa: RUF012

    def forward(self, params, x, t):
        s = self.score(x, t)
        pushes = np.stack([s, np.sin(x), 0 * x + 1])
        return s + np.tensordot(params["a"], pushes, 1), pushes

    def backward(self, params, pushes, dy):
        return (None,), {"a": np.sum(pushes * dy, axis=(1, 2))}


# ------------------------------------------------------------------ slices


def network(dim, sde=VP(), seed=0):  # noqa: B008
    model = ScoreModel(MLP((dim, 6, dim), embed=4), sde, data_std=1.5)
    rng = np.random.default_rng(seed)
    theta = model.init(rng, "float64")
    return model, theta + 0.3 * rng.standard_normal(theta.shape)


def coordinates(x):
    """√D e_i, all D of them, for every sample."""
    D = math.prod(x.shape[1:])
    return np.broadcast_to(math.sqrt(D) * np.eye(D).reshape(D, 1, *x.shape[1:]), (D, *x.shape))


def signs(x):
    """All 2^D sign vectors, for every sample."""
    D = math.prod(x.shape[1:])
    v = np.array(list(itertools.product([-1.0, 1.0], repeat=D))).reshape(-1, 1, *x.shape[1:])
    return np.broadcast_to(v, (len(v), *x.shape))


FRAMES = {"coordinates": coordinates, "signs": signs}
frames = pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES)


@frames
@pytest.mark.parametrize("reduced", [True, False])
@given(seed=seeds, dim=st.integers(1, 4), B=st.integers(1, 4))
def test_slices_along_a_whole_frame_add_up_to_the_implicit_loss(frame, reduced, seed, dim, B):
    """Eqs. (3.5), (3.6): only the mean of vvᵀ counts, and over a frame it is I; so no sampling is needed."""
    model, theta = network(dim, seed=seed)
    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((B, dim)), rng.uniform(0.2, 1, B)
    weight = sigma_squared
    loss, grad = Implicit(weight=weight).at(model, theta, x, t)
    sliced, slope = Sliced(weight=weight, reduced=reduced).at(model, theta, x, t, frame(x))
    assert abs(sliced - loss) <= 1e-12 * (1 + abs(loss))
    assert_close(slope, grad, 1e-12 * (1 + np.max(np.abs(grad))))


@frames
@pytest.mark.parametrize("reduced", [True, False])
def test_slices_of_images_run_over_all_axes_but_the_first(frame, reduced):
    """x (B, 2, 1, 2): probes and traces run over all axes but the first."""
    model = polynomials(2, 4)
    theta, x = one_theta(model, 3), np.random.default_rng(0).standard_normal((5, 2, 1, 2))
    wanted, grad = Implicit().at(model, theta, x.reshape(5, 4), T0)
    for loss, slope in (
        Implicit().at(model, theta, x, T0), Sliced(reduced=reduced).at(model, theta, x, T0, frame(x))
    ):  # fmt: skip
        assert abs(loss - wanted) <= 1e-12 * (1 + abs(wanted))
        assert_close(slope, grad, 1e-12 * (1 + np.max(np.abs(grad))))


@given(seed=seeds, K=st.integers(1, 3), reduced=st.booleans())
def test_a_slice_of_an_image_is_that_of_its_numbers_in_a_row(seed, K, reduced):
    """Probe by probe: the mean over a frame would forgive much."""
    model, rng = polynomials(2, 4), np.random.default_rng(seed)
    theta, x, v = one_theta(model, seed), rng.standard_normal((3, 2, 1, 2)), rng.standard_normal((K, 3, 2, 1, 2))
    for objective in (Sliced(reduced=reduced), FiniteDifference()):
        loss, grad = objective.at(model, theta, x, T0, v)
        flat, same = objective.at(model, theta, x.reshape(3, 4), T0, v.reshape(K, 3, 4))
        assert abs(loss - flat) <= 1e-12 * (1 + abs(flat))
        assert_close(grad, same, 1e-12 * (1 + np.max(np.abs(same))))


@frames
@given(seed=seeds, dim=st.integers(2, 3))
def test_probes_of_unit_length_divide_the_plain_loss_and_mislead_the_reduced_one(frame, seed, dim):
    """Eq. (3.8): E vvᵀ = I/D. The plain loss is 1/D of itself; the reduced one is least at the score over D."""
    p, model = one_gaussian(seed, dim), polynomials(1, dim)
    x, w = gaussian_nodes(p, 4)
    unit = frame(x) / math.sqrt(dim)
    theta = one_theta(model, seed)
    loss, grad = expected(Implicit(), model, theta, x, w)
    plain, slope = expected(Sliced(reduced=False), model, theta, x, w, unit)
    assert abs(plain - loss / dim) <= 1e-12 * (1 + abs(loss))
    assert_close(slope, grad / dim, 1e-12 * (1 + np.max(np.abs(grad))))
    reduced, _ = expected(Sliced(reduced=True), model, theta, x, w, unit)
    y, s = model.forward({"W": theta.reshape(model.shapes["W"])}, x, T0)[0], p.score(x)
    squares = 0.5 * w @ np.sum((y - s / dim) ** 2, axis=1) - 0.5 * w @ np.sum(s * s, axis=1) / dim**2
    assert abs(reduced - squares) <= 1e-12 * (1 + w @ np.sum(y * y + s * s, axis=1))
    C = p.covariances[0]
    scale = np.max(np.abs(np.linalg.inv(C)))
    for shrink, probes in ((1.0, frame(x)), (1 / dim, unit)):
        least = affine(model, -shrink * np.linalg.inv(C), shrink * np.linalg.solve(C, p.means[0]))
        _, grad = expected(Sliced(reduced=True), model, least, x, w, probes)
        assert_close(grad, 0, 1e-12 * scale * (1 + np.max(np.abs(x))) ** 2)
    _, grad = expected(Sliced(reduced=True), model, 1 * affine(model, -np.linalg.inv(C), 0 * x[0]), x, w, unit)
    assert np.max(np.abs(grad)) > 0.01  # the true matrix is not stationary there


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_the_reduced_slice_does_not_always_vary_less(dim):
    """Eq. (3.6): on N(0, I) at the true score, with Gaussian probes: E Var_v is 2D, and ½ D (D + 2) not reduced."""
    model, t = polynomials(1, dim), T0
    theta = affine(model, -np.eye(dim), np.zeros(dim))
    nodes, w = gauss_hermite(3, dim)  # exact: the square of the loss is of degree 4 in x and in v
    for reduced, wanted in ((True, 2 * dim), (False, 0.5 * dim * (dim + 2))):
        objective, spread = Sliced(reduced=reduced), 0.0
        for x, share in zip(nodes, w, strict=True):
            draws = np.array([float(objective.at(model, theta, x[None], t, v[None, None])[0]) for v in nodes])
            spread += share * (w @ (draws - w @ draws) ** 2)
        assert abs(spread - wanted) <= 1e-12 * wanted


@given(seed=seeds, h=st.floats(1e-2, 1.0))
def test_finite_differences_err_by_what_taylor_says(seed, h):
    """Eq. (3.9), exactly, for a cubic s in 1-D: h²(s'''/6 + ½ s s'') + h⁴ s''²/8."""
    model = polynomials(3, 1)
    a = one_theta(model, seed)
    x = np.random.default_rng(seed).standard_normal((6, 1))
    v = np.random.default_rng(seed).choice([-1.0, 1.0], (2, 6, 1))
    sliced, _ = Sliced().at(model, a, x, T0, v)
    differences, _ = FiniteDifference(step=h).at(model, a, x, T0, v)
    y = x[:, 0]
    s, bend, third = a[0] + a[1] * y + a[2] * y**2 + a[3] * y**3, 2 * a[2] + 6 * a[3] * y, 6 * a[3]
    bias = np.mean(h**2 * (third / 6 + 0.5 * s * bend) + h**4 * bend**2 / 8)
    assert abs(differences - sliced - bias) <= 1e-12 * (1 + np.mean(s * s)) / h  # rounding of s₊ - s₋, over h


@pytest.mark.parametrize("law", ["rademacher", "gaussian"])
@pytest.mark.parametrize("t", [0.3, 0.8])
def test_finite_differences_tend_to_slices_with_order_two(law, t):
    """Eq. (3.9): loss and gradient, for a network."""
    model, theta = network(2, seed=4)
    rng = np.random.default_rng(5)
    x, v = rng.standard_normal((8, 2)), rng.standard_normal((2, 8, 2))
    v = np.sign(v) if law == "rademacher" else v
    loss, grad = Sliced().at(model, theta, x, np.array([t]), v)
    errors = []
    steps = np.array([0.04, 0.02, 0.01])
    for h in steps:
        found, slope = FiniteDifference(step=h).at(model, theta, x, np.array([t]), v)
        errors.append((abs(found - loss), np.max(np.abs(slope - grad))))
    slopes = np.diff(np.log(errors), axis=0) / np.diff(np.log(steps))[:, None]
    assert_close(slopes, 2, 0.02, "the next term is h² smaller")


@given(seed=seeds, h=st.floats(1e-3, 10.0), K=st.integers(1, 3))
def test_for_an_affine_score_finite_differences_are_slices_at_any_step(seed, h, K):
    """Eq. (3.9)."""
    model = polynomials(1, 3)
    theta, rng = one_theta(model, seed), np.random.default_rng(seed)
    x, v = rng.standard_normal((4, 3)), rng.standard_normal((K, 4, 3))
    loss, grad = Sliced().at(model, theta, x, T0, v)
    found, slope = FiniteDifference(step=h).at(model, theta, x, T0, v)
    room = 1e-13 * (h + 1 / h) ** 2 * 10  # rounding of s± over h
    assert abs(found - loss) <= room * (1 + abs(loss))
    assert_close(slope, grad, room * (1 + np.max(np.abs(grad))))


# ------------------------------------------------------------------ gradients

LEVELS = Levels((0.9, 0.5, 0.2))
MADE = {
    "explicit": lambda **k: Explicit(lambda x, t: np.sin(x) - x, **k),
    "implicit": Implicit,
    "sliced": lambda **k: Sliced(probes=2, **k),
    "sliced, not reduced": lambda **k: Sliced(reduced=False, **k),
    "finite-difference": lambda **k: FiniteDifference(probes=2, **k),
    "denoising": Denoising,
    "denoising, control": lambda **k: Denoising(control=True, **k),
}
TIMES = {"fixed": FixedTime(0.4), "levels": LEVELS, "uniform": UniformTime(1e-2), "log snr": UniformLogSNR(1e-2)}
made = pytest.mark.parametrize("make", MADE.values(), ids=MADE)
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def test_every_objective_is_among_those_made_here():
    assert {type(make()) for make in MADE.values()} == {type(o) for o in OBJECTIVES.values()}


@made
@kinds
@given(
    seed=seeds, predict=st.sampled_from(["noise", "score"]), sde=st.sampled_from([VP(), VE(0.01, 10.0)]),
    times=st.sampled_from([*TIMES.values(), FixedTime(0.0)]), antithetic=st.booleans(),
    weight=st.sampled_from([SigmaPower(0), sigma_squared, g_squared]), B=st.integers(1, 4),
)  # fmt: skip
def test_every_gradient_is_the_derivative_of_its_loss(make, kind, seed, predict, sde, times, antithetic, weight, B):
    model_class, out = kind
    plain = times == FixedTime(0.0)
    if plain and make().__class__ is Denoising:  # without noise there is nothing to remove
        times, plain = FixedTime(0.7), False
    if plain:  # the data as they are: no level to tell, no noise to divide by, and no weight but 1
        predict, weight = "score", SigmaPower(0)
    model = model_class(MLP((2, 4, out), embed=0 if plain else 4), sde, data_std=1.6, predict=predict)
    objective = make(times=times, antithetic=antithetic, weight=weight)
    rng = np.random.default_rng([seed, 1])
    theta = model.init(rng, "float64")
    theta = theta + 0.3 * rng.standard_normal(theta.shape)
    x0 = rng.standard_normal((B, 2))
    u, v = rng.standard_normal((2, *theta.shape))

    def at(theta):  # the same times, noise and probes each time
        return objective(model, theta, x0, np.random.default_rng(seed))

    loss, grad = at(theta)
    along_v, along_u = at(theta + 1e-30j * v), at(theta + 1e-30j * u)
    scale = np.sum(np.abs(grad * v)) + abs(loss)
    assert loss.shape == ()
    assert abs(along_v[0].imag / 1e-30 - grad @ v) <= 1e-12 * scale  # complex step: rounding alone
    left, right = (along_v[1].imag / 1e-30) * u, (along_u[1].imag / 1e-30) * v
    assert abs(np.sum(left) - np.sum(right)) <= 1e-9 * (np.sum(np.abs(left)) + np.sum(np.abs(right)))  # symmetry
    h = 2e-4  # Richardson: h⁴ of truncation, u |loss|/h of rounding
    near, far = (at(theta + a * v)[0] - at(theta - a * v)[0] for a in (h, 2 * h))
    assert abs((8 * near - far) / (12 * h) - grad @ v) <= 1e-8 * scale


@made
@kinds
@on_every_backend
def test_every_backend_has_the_same_losses_and_gradients(make, kind, host):
    model_class, out = kind
    x0 = np.random.default_rng(0).standard_normal((5, 2))
    for times in (UniformTime(0.1), LEVELS):
        model = model_class(MLP((2, 4, out), embed=4), VP(), data_std=1.6)
        objective = make(times=times, antithetic=True)
        if isinstance(objective, Explicit):
            objective = Explicit(lambda x, t: -x, times=times, antithetic=True)
        # a difference quotient in float32 divides its rounding by h
        for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
            found = []
            for one in (NumpyBackend(), host):
                rng = HostStream(one, 1)
                x = one.asarray(x0, dtype=dtype)
                theta = one.asarray(np.random.default_rng(0).standard_normal(size(model)), dtype=dtype)
                loss, grad = objective(model, theta, x, rng)
                assert loss.dtype == grad.dtype == x.dtype
                assert loss.shape == ()
                assert grad.shape == theta.shape
                found.append(np.append(one.to_numpy(grad), one.to_numpy(loss)))
            assert_close(*found, tolerance * np.max(np.abs(found[0])))


def size(model):
    return sum(math.prod(shape) for shape in model.shapes.values())


class HostStream:
    """NumPy's noise on any back end, so that all see the same."""

    def __init__(self, host, seed):
        self.host, self.generator = host, np.random.default_rng(seed)

    def standard_normal(self, size=None, dtype=None):
        return self.host.asarray(self.generator.standard_normal(size), dtype=name(dtype))

    def random(self, size=None, dtype=None):
        return self.host.asarray(self.generator.random(size), dtype=name(dtype))


def name(dtype):
    return "float64" if "64" in str(dtype) else "float32"


@made
def test_float32_stays_float32_where_there_is_no_float64(make, any_backend):
    model = ScoreModel(MLP((2, 4, 2), embed=4), VP())
    objective = make(times=LEVELS)
    if isinstance(objective, Explicit):
        objective = Explicit(lambda x, t: -x, times=LEVELS)
    x = any_backend.asarray(np.ones((3, 2)), dtype="float32")
    loss, grad = objective(model, model.init(any_backend.rng(0), x.dtype), x, any_backend.rng(1))
    assert loss.dtype == grad.dtype == x.dtype


# ------------------------------------------------------------------ the control variate


@given(seed=seeds, dim=st.integers(1, 2), sigma=st.floats(0.1, 3.0), alpha_too=st.booleans())
def test_the_control_variate_changes_no_expectation(seed, dim, sigma, alpha_too):
    """Eq. (3.14): given x₀ its mean over z is zero for every θ, so loss and gradient keep theirs; exact quadrature."""
    sde = VP() if alpha_too else VE(0.01, 10.0)
    t = float(sde.time(min(sigma, 0.95) if alpha_too else sigma))
    model = polynomials(3, dim, sde)
    theta = one_theta(model, seed)
    z, w = gauss_hermite(5, dim)
    x0 = np.broadcast_to(np.random.default_rng(seed).standard_normal(dim), z.shape)
    (plain, grad), (control, same) = (
        Denoising(times=FixedTime(t), control=c).at(model, theta, x0, np.array([t]), z, len(w) * w)
        for c in (False, True)
    )
    assert abs(plain - control) <= 1e-12 * (1 + abs(plain))
    assert_close(grad, same, 1e-12 * (1 + np.max(np.abs(grad))))


def per_draw(objective, model, theta, x0, z, t):
    """The losses of single draws."""
    pairs = zip(x0, z, strict=True)
    return np.array([float(objective.at(model, theta, x[None], np.array([t]), y[None])[0]) for x, y in pairs])


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("preserving", [False, True], ids=["VE", "VP"])
def test_the_variance_with_and_without_control_is_what_the_chapter_says(sigma, preserving):
    """Eq. (3.14), on N(0, I) in the plane at the exact score -c x: a quadratic in (x₀, z), so Gauss-Hermite is exact.

    With v = α² + σ² and c = 1/v: without control α⁴ c²/σ⁴, with it 4 tr M², M the form's matrix in one coordinate.
    """
    sde = VP() if preserving else VE(0.01, 10.0)
    sigma = sigma / math.sqrt(1 + sigma**2) if preserving else sigma  # the same σ/α
    t, model = float(sde.time(sigma)), polynomials(1, 2, sde)
    alpha = sde.alpha(t)
    c = 1 / (alpha**2 + sigma**2)
    theta = affine(model, -c * np.eye(2), np.zeros(2))
    nodes, w = gauss_hermite(3, 4)  # the square of a quadratic is of degree 4
    found = []
    for control in (False, True):
        objective = Denoising(times=FixedTime(t), weight=SigmaPower(0), control=control)
        losses = per_draw(objective, model, theta, nodes[:, :2], nodes[:, 2:], t)
        found.append(w @ (losses - w @ losses) ** 2)
    plain = (alpha**2 * c / sigma**2) ** 2
    M = 0.5 * c**2 * np.array([[alpha**2, alpha * sigma], [alpha * sigma, sigma**2]]) - c * np.diag([0.0, 1.0])
    control = 4 * np.trace(M @ M)
    assert abs(found[0] - plain) <= 1e-10 * plain
    assert abs(found[1] - control) <= 1e-10 * control + 1e-14 * plain  # what is left of large numbers
    if sigma == 0.01:
        assert 9998 < math.sqrt(found[0]) < 9999.5
        assert 2.23 < math.sqrt(found[1]) < 2.24
    assert (found[1] < found[0]) == (sigma / alpha < 0.7)  # and above that it costs


def test_at_small_noise_the_controlled_loss_is_a_slice():
    """Eq. (3.14): z·[s(x + σz) - s(x)]/σ tends to zᵀ∇s z, so it is sliced score matching with probe z, up to O(σ)."""
    model = polynomials(3, 2, VE(0.001, 10.0))
    theta, rng = one_theta(model, 2), np.random.default_rng(0)
    x, z = rng.standard_normal((2, 6, 2))
    sliced, slope = Sliced().at(model, theta, x, T0, z[None, ...])
    errors = []
    for sigma in (4e-3, 2e-3, 1e-3):
        t = float(model.sde.time(sigma))
        objective = Denoising(times=FixedTime(t), weight=SigmaPower(0), control=True)
        loss, grad = objective.at(model, theta, x, np.array([t]), z)
        errors.append((abs(loss - 1 / sigma**2 - sliced), np.max(np.abs(grad - slope))))
    assert np.all(np.abs(np.log2(np.divide(errors[:-1], errors[1:])) - 1) < 0.05)
    assert errors[-1][0] < 0.2


@given(seed=seeds, dim=st.integers(1, 2))
def test_as_noise_vanishes_the_controlled_expectation_tends_to_the_implicit_loss(seed, dim):
    """Eq. (3.13): at every σ it is the implicit loss of p_σ, and that moves as σ²."""
    p, sde = one_gaussian(seed, dim), VE(0.001, 10.0)
    model = polynomials(2, dim, sde)
    theta = one_theta(model, seed)
    both, w = gauss_hermite(4, 2 * dim)
    x0, z = p.means[0] + both[:, :dim] @ root(p.covariances[0]), both[:, dim:]
    clean, _ = expected(Implicit(), model, theta, *gaussian_nodes(p, 4))
    for sigma in (0.1, 0.01):
        t = float(sde.time(sigma))
        objective = Denoising(times=FixedTime(t), weight=SigmaPower(0), control=True)
        loss, _ = objective.at(model, theta, x0, np.array([t]), z, len(w) * w)
        of_noised, _ = expected(Implicit(), model, theta, *gaussian_nodes(p, 4, 1.0, sigma))
        room = 1e-12 * (1 + abs(of_noised) + dim / sigma**2)
        assert abs(loss - dim / (2 * sigma**2) - of_noised) <= room
        assert abs(of_noised - clean) <= 100 * sigma**2 * (1 + np.sum(theta**2))


# ------------------------------------------------------------------ levels and weights


@made
@given(seed=seeds, power=st.floats(-2.0, 3.0), t=st.floats(0.1, 1.0))
def test_at_one_level_a_weight_is_a_factor(make, seed, power, t):
    """So any λ > 0 has the same minimiser there."""
    model, theta = network(2)
    x0 = np.random.default_rng(seed).standard_normal((3, 2))
    (plain, grad), (weighed, slope) = (
        make(times=FixedTime(t), weight=SigmaPower(p))(model, theta, x0, np.random.default_rng(seed))
        for p in (0.0, power)
    )
    factor = model.sde.sigma(t) ** power
    assert abs(weighed - factor * plain) <= 1e-12 * abs(weighed) + 1e-14
    assert_close(slope, factor * grad, 1e-12 * np.max(np.abs(slope)))


@given(
    seed=seeds, L=st.integers(1, 5), each=st.integers(1, 3), sde=st.sampled_from([VP(), VE(0.01, 10.0)]),
    control=st.booleans(),
)  # fmt: skip
def test_levels_average_the_losses_of_their_levels(seed, L, each, sde, control):
    rng = np.random.default_rng(seed)
    sigmas = tuple(float(s) for s in -np.sort(-rng.uniform(0.05, 0.95, L)))
    model, theta = network(2, sde)
    B = L * each
    u = (np.arange(B) + rng.random(B)) / B  # as many in every L-th of the interval
    x0, z = rng.standard_normal((2, B, 2))
    loss, grad = Denoising(times=Levels(sigmas), control=control)(model, theta, x0, ReplayRng(z, uniforms=[u]))
    parts = []
    for i, sigma in enumerate(sigmas):
        own = slice(i * each, (i + 1) * each)
        t = np.array([float(sde.time(sigma))])
        parts.append(Denoising(control=control).at(model, theta, x0[own], t, z[own]))
    assert abs(loss - np.mean([part[0] for part in parts])) <= 1e-12 * loss
    assert_close(grad, np.mean([part[1] for part in parts], axis=0), 1e-12 * np.max(np.abs(grad)))


@pytest.mark.parametrize("sde", [VP(), VE(0.01, 10.0), VE(0.0287, 1.25)], ids=str)
def test_the_floor_of_levels_is_the_mean_of_their_floors(sde):
    """The last SDE's inverse finds σ(1) at 1 + 2e-16: the top of the ladder is still a time."""
    p, sigmas = mixture("tilted"), (float(sde.sigma(1.0)), 0.5, 0.1, 0.02)
    for weight in (sigma_squared, SigmaPower(0)):
        whole = denoising_floor(Denoising(weight=weight, times=Levels(sigmas)), p, sde)
        times = [min(float(sde.time(s)), 1.0) for s in sigmas]
        parts = [denoising_floor(Denoising(weight=weight, times=FixedTime(t)), p, sde).value for t in times]
        assert whole.value == pytest.approx(np.mean(parts), rel=1e-12)


def test_the_times_of_levels_are_theirs_and_keep_dtype(any_backend):
    for sde in (VP(), VE(0.01, 10.0)):
        t, factor = LEVELS.at(sde, any_backend.asarray([0.0, 0.34, 0.7, 1 - 2.0**-24], dtype="float32"))
        assert name(t.dtype) == "float32"
        assert factor == 1.0
        found = sde.sigma(any_backend.to_numpy(t).astype("float64"))
        assert_close(found, [0.9, 0.5, 0.2, 0.2], 1e-5)
    assert LEVELS.atoms == 3


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("sigmas", "words"),
    [
        ((), "at least one σ"), ((0.1, 0.2), "must fall strictly"), ((0.2, 0.2), "must fall strictly"),
        ((0.1, 0.0), "positive and finite"), ((0.1, -1.0), "positive and finite"),
        ((math.nan, 0.1), "positive and finite"), ((math.inf, 0.1), "positive and finite"),
    ],
)  # fmt: skip
def test_ladders_that_are_none_are_refused(sigmas, words):
    with pytest.raises(ValueError, match=words):
        Levels(sigmas)


@pytest.mark.parametrize(("sde", "top"), [(VP(), 1.0), (VE(0.01, 10.0), 10.1)], ids=str)
def test_levels_beyond_the_sde_are_refused_before_any_model_call(sde, top):
    with pytest.raises(ValueError, match=f"the level {top} is beyond the noise"):
        Denoising(times=Levels((top, 0.1)))(Never(sde), np.zeros(1), np.zeros((2, 2)), np.random.default_rng(0))


def test_the_largest_level_of_an_sde_is_its_end_though_the_inverse_rounds_above_it():
    sde = OU(3.3464458372009536, 3.694644520472026)
    assert sde.time(sde.sigma(1.0)) > 1
    t, _ = Levels((sde.sigma(1.0), 0.1)).at(sde, np.array([0.0, 0.9]))
    assert t[0] == 1.0
    times, sde = UniformLogSNR(1e-3), OU(2.73, 1.44)
    low, high = log_ratio(sde, 1e-3), log_ratio(sde, 1.0)
    assert sde.time_at_log_ratio(np.array([low + (high - low)]))[0] > 1
    assert times.at(sde, np.ones(1))[0] == 1.0


@dataclass(frozen=True)
class Never:
    """A model that must not be asked."""

    sde: Any
    shapes = {"a": (1,)}  # noqa: RUF012

    def forward(self, params, x, t):
        raise AssertionError("asked all the same")


@pytest.mark.parametrize("objective", [Sliced(), FiniteDifference()], ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("shape", [(3, 2), (3,), (1, 2, 2), (1, 3, 1), (0, 3, 2), (1, 1, 2), (1, 1, 3, 2)])
def test_probes_that_do_not_go_with_x_are_refused(objective, shape):
    with pytest.raises(ValueError, match=re.escape("probes must have shape (K, 3, 2)") + ".*" + re.escape(str(shape))):
        objective.at(Never(VP()), np.zeros(1), np.zeros((3, 2)), T0, np.zeros(shape))


@pytest.mark.parametrize("make", [Sliced, FiniteDifference])
@pytest.mark.parametrize("n", [0, -1])
def test_there_is_at_least_one_probe(make, n):
    with pytest.raises(ValueError, match=f"probes must be an integer of at least 1, got {n}"):
        make(probes=n)


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf])
def test_a_difference_needs_a_step(step):
    with pytest.raises(ValueError, match="step must be positive and finite"):
        FiniteDifference(step=step)


@pytest.mark.parametrize(
    "objective", [Implicit(), Sliced(), Sliced(reduced=False)], ids=["implicit", "sliced", "sliced, not reduced"]
)
def test_models_without_tangents_are_refused_by_name(objective):
    with pytest.raises(TypeError, match=f"{type(objective).__name__} differentiates ∇s, for which Never has no passes"):
        objective(Never(VP()), np.zeros(1), np.zeros((3, 2)), np.random.default_rng(0))


def test_the_call_draws_times_noise_and_probes_and_hands_them_to_the_pure_part():
    model, theta = network(2)
    x0 = np.random.default_rng(0).standard_normal((4, 2))
    for objective in (Sliced(probes=3, times=LEVELS), FiniteDifference(probes=3, times=LEVELS)):
        rng = np.random.default_rng(1)
        t, _ = LEVELS.at(model.sde, rng.random(4))
        z = rng.standard_normal((4, 2))
        x, v = noised(model.sde, x0, t, z), objective.law(rng, (3, 4, 2), x0.dtype)
        assert np.array_equal(x, per_sample(model.sde.alpha(t), x0) * x0 + per_sample(model.sde.sigma(t), x0) * z)
        wanted, grad = objective.at(model, theta, x, t, v)
        loss, slope = objective(model, theta, x0, np.random.default_rng(1))
        assert loss == wanted
        assert np.array_equal(grad, slope)
    for other in (Implicit(times=LEVELS), Explicit(lambda x, t: -x, times=LEVELS)):
        rng = np.random.default_rng(1)
        t, _ = LEVELS.at(model.sde, rng.random(4))
        x = noised(model.sde, x0, t, rng.standard_normal((4, 2)))
        assert other(model, theta, x0, np.random.default_rng(1))[0] == other.at(model, theta, x, t)[0]


# ------------------------------------------------------------------ what a step costs


def cost(objective, kind, dim, B=3):
    """Multiplications of a training step, in units of one evaluation of the body."""
    model_class, widths = {"score": (ScoreModel, (dim, 5, 5, dim)), "energy": (EnergyModel, (dim, 5, 5, 1))}[kind]
    model = model_class(MLP(widths), VP())
    theta = np.random.default_rng(0).standard_normal(size(model)).view(Counted)
    Counted.made = 0
    objective(model, theta, np.ones((B, dim)), np.random.default_rng(1))
    return Counted.made / (B * sum(a * b for a, b in itertools.pairwise(widths)))


COSTS = {  # fixed in D = 4 with K = 3 probes
    "explicit": (lambda **k: Explicit(lambda x, t: -x, **k), 3),
    "implicit": (Implicit, 3 + 3 * 4),
    "sliced": (lambda **k: Sliced(probes=3, **k), 3 + 3 * 3),
    "finite-difference": (lambda **k: FiniteDifference(probes=3, **k), 6 * 3),
    "denoising": (Denoising, 3),
    "denoising, control": (lambda **k: Denoising(control=True, **k), 6),
}


@pytest.mark.parametrize("what", COSTS)
def test_an_objective_costs_what_the_table_says(what):
    """Products counted while a step is taken: forward 1, backward 2, and as much again for each tangent."""
    make, wanted = COSTS[what]
    objective = make(times=FixedTime(0.5))
    assert cost(objective, "score", 4) == wanted
    ratio = cost(objective, "energy", 4) / wanted  # an energy of the same width
    assert 3.7 < ratio <= 4 if what in ("implicit", "sliced") else 2.5 < ratio < 2.7


# ------------------------------------------------------------------ the Fisher divergence, and why this one


@given(seed=seeds, dim=st.integers(1, 2))
def test_the_fisher_divergence_of_two_gaussians_is_closed(seed, dim):
    """By the trapezoid rule: no poles here, so both spacings are exact and the stated error is rounding."""
    p, q = one_gaussian(seed, dim), one_gaussian(seed + 1, dim)
    P, Q = (np.linalg.inv(m.covariances[0]) for m in (p, q))
    shift = Q @ (p.means[0] - q.means[0])
    closed = 0.5 * (np.trace((Q - P) @ p.covariances[0] @ (Q - P)) + shift @ shift)
    found = fisher_divergence(p, q.score)
    assert abs(found.value - closed) <= 1e-10 * (1 + closed)
    assert found.error <= 1e-10 * (1 + closed)
    assert fisher_divergence(p, p.score).value == 0.0


def test_the_fisher_divergence_by_monte_carlo_is_within_its_error():
    """D = 3, and a plane with a mode too narrow for a grid."""
    p, q = one_gaussian(1, 3), one_gaussian(2, 3)
    P, Q = (np.linalg.inv(m.covariances[0]) for m in (p, q))
    shift = Q @ (p.means[0] - q.means[0])
    closed = 0.5 * (np.trace((Q - P) @ p.covariances[0] @ (Q - P)) + shift @ shift)
    found = fisher_divergence(p, q.score, np.random.default_rng(0), samples=50_000)
    assert 0 < found.error < 0.02 * closed
    assert_within(found.value, closed, found.error, n=50_000)
    narrow = GaussianMixture(np.array([0.5, 0.5]), np.zeros((2, 2)), np.array([1e-8, 1.0]))
    assert fisher_divergence(narrow, lambda x: -x, np.random.default_rng(0), 1000).error > 0
    for law in (p, narrow):
        with pytest.raises(ValueError, match="give an rng"):
            fisher_divergence(law, lambda x: -x)


@pytest.mark.parametrize("distance", [2.0, 3.0, 4.0, 5.0, 6.0])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_fisher_divergence_states_the_step_to_the_coarser_rule(distance, dim):
    """Unit modes apart: the score has poles where p(x + iy) = 0, and there the rule errs, by less than it says."""
    means = 0.5 * distance * np.array([[1.0, 0.0], [-1.0, 0.0]])[:, :dim]
    p = GaussianMixture(np.array([0.7, 0.3]), means, np.ones(2))
    found = fisher_divergence(p, lambda x: -x)
    values = {}
    for spacing in (0.05, 0.25, 0.5):
        grid = quadrature_grid(p, budget=1e7, spacing=spacing)
        assert grid is not None
        x, cell = grid
        values[spacing] = 0.5 * cell * np.exp(p.log_prob(x)) @ np.sum((p.score(x) + x) ** 2, axis=1)
    assert abs(found.value - values[0.25]) <= 1e-12
    assert abs(found.error - abs(values[0.25] - values[0.5])) <= 1e-12
    assert abs(found.value - values[0.05]) <= 1e-6
    assert abs(found.value - values[0.05]) <= found.error + 1e-13


@given(seed=seeds, constant=st.floats(-50.0, 50.0))
def test_an_energy_may_be_lifted_by_any_constant(seed, constant):
    """The divergence stays the same to the last bit, while what would be a Kullback-Leibler divergence moves along."""
    p = random_mixture(seed, 1, 3, low=0.3)
    model = EnergyModel(MLP((1, 5, 1)), VP(), data_std=1.6, predict="score")
    theta = 0.5 * np.random.default_rng(seed).standard_normal(size(model))
    lifted = theta + constant * np.eye(len(theta))[-1]  # the bias of the head
    here, there = (fisher_divergence(p, lambda x, a=a: model.bind(a)(x, 0.0)).value for a in (theta, lifted))
    assert here == there
    grid = quadrature_grid(p)
    assert grid is not None
    x, cell = grid
    w = cell * np.exp(p.log_prob(x))
    kl, moved = (w @ (p.log_prob(x) + model.bind_energy(a)(x, 0.0)) for a in (theta, lifted))
    assert abs(kl - moved - constant) <= 1e-9 * (1 + abs(constant))  # E = ... - factor/c F, and here factor = c


# ------------------------------------------------------------------ is my loss normal?


@given(p=mixtures(max_dim=2, max_components=3, low=0.1), sde=sdes, t=st.floats(0.05, 1.0))
def test_the_floor_lies_below_that_of_the_gaussian_with_the_same_moments(p, sde, t):
    """So mean and covariance of the data tell what the loss must at least come down to: the best affine score's."""
    objective = Denoising(times=FixedTime(t))
    mean, C = p.weights @ p.means, covariance(p)
    ceiling = denoising_floor(objective, GaussianMixture(np.ones(1), mean[None, :], C[None, ...]), sde)
    floor = denoising_floor(objective, p, sde)
    assert floor.value <= ceiling.value + floor.error + ceiling.error
    assert ceiling.value <= 0.5 * p.dim * (1 + 1e-9)


@given(seed=seeds, sigma=st.floats(0.1, 2.0))
def test_the_ceiling_is_the_loss_of_the_best_affine_score(seed, sigma):
    """On any law with these moments, here a mixture in 1-D by quadrature."""
    p, sde = random_mixture(seed, 1, 3, low=0.1), VE(0.01, 10.0)
    mean, C = p.weights @ p.means, covariance(p)
    objective, t = Denoising(times=FixedTime(float(sde.time(sigma)))), float(sde.time(sigma))
    model, S = polynomials(1, 1, sde), C + sigma**2
    x0, z, w = joint_nodes(p)
    theta = affine(model, -1 / S, mean / S[0])
    loss, grad = objective.at(model, theta, x0, np.array([t]), z, len(w) * w)
    ceiling = denoising_floor(objective, GaussianMixture(np.ones(1), mean[None, :], C[None, ...]), sde)
    assert abs(loss - ceiling.value) <= 1e-10 + ceiling.error
    assert_close(grad, 0, 1e-10)


@pytest.mark.parametrize("sigma", [0.1, 0.5])
def test_the_training_points_have_a_lower_floor_than_their_law(sigma):
    """Fifty points at σ = .1: training loss can fall far below what the law allows, and that is memory."""
    p, sde = mixture("tilted"), VE()
    rng = np.random.default_rng(0)
    points = p.sample(rng, 50)
    objective = Denoising(times=FixedTime(float(sde.time(sigma))))
    law = denoising_floor(objective, p, sde).value
    memory = denoising_floor(objective, GaussianMixture(np.full(50, 0.02), points, np.zeros(50)), sde, rng)
    assert memory.value < law - 0.03 - quantile() * memory.error


@given(seed=seeds, sde=sdes, t=st.floats(0.05, 1.0), share=st.floats(0.05, 0.95))
def test_the_floor_is_concave_in_the_law(seed, sde, t, share):
    """Exercise 11: who knows which of two laws a point came from guesses no worse.

    A data set is a random law whose mean is the law itself: so its floor is, on average, not above.
    """
    p, q = (random_mixture(seed + i, 1, 2, "isotropic", low=0.1, box=2.0) for i in (0, 1))
    both = GaussianMixture(
        np.concatenate([share * p.weights, (1 - share) * q.weights]),
        np.concatenate([p.means, q.means]), np.concatenate([p.covariances, q.covariances]),
    )  # fmt: skip
    objective = Denoising(times=FixedTime(t))
    of_p, of_q, of_both = (denoising_floor(objective, law, sde) for law in (p, q, both))
    room = of_p.error + of_q.error + of_both.error
    assert share * of_p.value + (1 - share) * of_q.value <= of_both.value + room


# ------------------------------------------------------------------ numbers that the text reads off


def test_the_floor_of_a_memory_and_the_spread_of_a_slice_are_those_of_the_text():
    p, sde = mixture("tilted"), VE(0.01, 10.0)
    points = p.sample(np.random.default_rng(0), 200)
    objective = Denoising(times=FixedTime(float(sde.time(0.05))))
    heart = GaussianMixture(np.full(200, 1 / 200), points, np.zeros(200))
    memory = denoising_floor(objective, heart, sde, np.random.default_rng(1), samples=4000)
    assert abs(memory.value - 0.48) < 0.05
    assert abs(denoising_floor(objective, p, sde).value - 0.98) < 0.005
    # the loss of a slice with a Gaussian probe at the exact score: the spread that control leaves at small σ
    grid = quadrature_grid(p)
    assert grid is not None
    x, cell = grid
    w = cell * np.exp(p.log_prob(x))
    implicit = 0.5 * np.sum(p.score(x) ** 2, axis=1) + p.divergence(x)
    J = p.score_jvp(x, np.eye(2)[:, None, :] + 0 * x)
    slice_ = w @ ((implicit - w @ implicit) ** 2 + 2 * np.sum(J**2, axis=(0, 2)))
    assert abs(math.sqrt(slice_) - 21.75) < 0.01
    assert abs(0.5 * w @ np.sum(p.score(x) ** 2, axis=1) - 7.49) < 0.005
    # where control begins to cost on N(0, I): the root of the two variances of the test above
    for sigma, pays in ((0.72, True), (0.73, False)):
        c = 1 / (1 + sigma**2)
        M = 0.5 * c**2 * np.array([[1, sigma], [sigma, sigma**2]]) - c * np.diag([0.0, 1.0])
        assert (4 * np.trace(M @ M) < (c / sigma**2) ** 2) == pays


@pytest.mark.parametrize(
    ("sde", "floors"), [(VP(), (0.254, 8.453, 23.03)), (VE(), (0.501, 12.615, 2395.2))], ids=["vp", "ve"]
)  # fmt: skip
def test_floors_are_those_of_the_table(sde, floors):
    p = mixture("tilted")
    for weight, wanted in zip((sigma_squared, g_squared, SigmaPower(0)), floors, strict=True):
        found = denoising_floor(Denoising(weight=weight, times=UniformLogSNR()), p, sde, levels=24)
        assert abs(found.value - wanted) <= 2e-3 * wanted
    late = denoising_floor(Denoising(weight=g_squared, times=UniformLogSNR(1e-5)), p, VP(), levels=24).value
    assert abs(late - 13.14) < 0.01


@given(sigma=st.floats(0.05, 3.0), dim=st.integers(1, 2))
def test_the_floor_of_a_gaussian_and_of_a_point(sigma, dim):
    """Exercise 1: times σ² it is ½ D/(1 + σ²), and 0 for one point."""
    sde = VE(0.01, 10.0)
    objective = Denoising(times=FixedTime(float(sde.time(sigma))))
    for variance, wanted in ((1.0, 0.5 * dim / (1 + sigma**2)), (0.0, 0.0)):
        p = GaussianMixture(np.ones(1), np.zeros((1, dim)), np.full(1, variance))
        assert denoising_floor(objective, p, sde).value == pytest.approx(wanted, abs=1e-6)


@pytest.mark.recorded("what the solutions of the book say of these seeds")
@pytest.mark.parametrize(
    ("sign", "few", "loss", "error"), [(1, None, 0.484, 0.014), (-1, None, 0.484, 3.9), (1, 20, 0.437, 0.33)]
)
def test_the_loop_of_the_chapter_with_one_line_changed(sign, few, loss, error):
    """Exercises 3 and 4: a wrong sign has the same loss; twenty points have one below the floor of the law, 0.475."""
    p, rng, sigma = mixture("tilted"), np.random.default_rng(0), 0.5
    W1, b1 = rng.standard_normal((2, 64)), rng.standard_normal(64)
    W2, b2 = np.zeros((64, 2)), np.zeros(2)
    points, losses = few and p.sample(rng, few), []
    for step in range(3000):
        x0 = points[rng.integers(0, few, 256)] if few else p.sample(rng, 256)
        z = rng.standard_normal((256, 2))
        x = x0 + sigma * z
        h = np.tanh(x @ W1 + b1)
        r = sigma * (h @ W2 + b2) + sign * z
        losses.append(0.5 * np.mean(np.sum(r**2, axis=1)))
        ds = sigma * r / 256
        dh = ds @ W2.T * (1 - h**2)
        for w, dw in ((W1, x.T @ dh), (b1, dh.sum(axis=0)), (W2, h.T @ ds), (b2, ds.sum(axis=0))):
            w -= 0.3 * (1 - step / 3000) * dw
    noised = p.diffuse(1.0, sigma)
    x = noised.sample(np.random.default_rng(9), 5000)
    s = np.tanh(x @ W1 + b1) @ W2 + b2
    assert np.mean(losses[-300:]) == pytest.approx(loss, abs=5e-3)
    assert np.sum((s - noised.score(x)) ** 2) / np.sum(noised.score(x) ** 2) == pytest.approx(error, rel=0.1)
