"""Denoising score matching: its gradient, its expectation, its minimum."""

import math
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import norm

from refscore import MLP, VE, VP, Denoising, ExactScore, GaussianMixture, ScoreModel
from refscore.matching.objectives import OBJECTIVES
from refscore.matching.times import FixedTime, LogNormal, UniformLogSNR, UniformTime
from refscore.matching.weights import MinSNR, g_squared, sigma_squared, unweighted
from refscore.measure.floor import denoising_floor
from refscore.noise.parametrisation import affine
from refscore.noise.sde import log_ratio
from refscore_backends.numpy import NumpyBackend
from refscore_backends.strict import StrictBackend
from tests.oracles.close import assert_close
from tests.oracles.replay import ReplayRng
from tests.oracles.strategies import few, seeds

SDES = {"vp": VP(), "ve": VE(0.01, 10.0)}
WEIGHTS = {"sigma_squared": sigma_squared, "g_squared": g_squared, "unweighted": unweighted}
TIMES = {"uniform": UniformTime(1e-2), "log snr": UniformLogSNR(1e-2), "fixed": FixedTime(0.4)}
sdes = pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
weights = pytest.mark.parametrize("weight", WEIGHTS.values(), ids=WEIGHTS)
times = pytest.mark.parametrize("law", TIMES.values(), ids=TIMES)


@cache
def gauss_legendre(n):
    """Nodes and weights on [0, 1]: NumPy's, not the library's."""
    nodes, w = np.polynomial.legendre.leggauss(n)
    return 0.5 * (1 + nodes), 0.5 * w


# ------------------------------------------------------------------ the gradient


@sdes
@weights
@times
@pytest.mark.parametrize("antithetic", [False, True])
@few
@given(seed=seeds, B=st.integers(1, 6))
def test_the_gradient_is_the_derivative_of_the_loss(sde, weight, law, antithetic, seed, B):
    model = ScoreModel(MLP((2, 4, 2), embed=4), sde, data_std=1.6)
    objective = Denoising(weight=weight, times=law, antithetic=antithetic)
    draw = np.random.default_rng([seed, 1])
    theta = model.init(draw, "float64") + 0.3 * draw.standard_normal(model.init(draw, "float64").shape)
    x0, v = draw.standard_normal((B, 2)), draw.standard_normal(theta.shape)

    def loss(theta):  # the same times and noise each time
        return objective(model, theta, x0, np.random.default_rng(seed))[0]

    grad = objective(model, theta, x0, np.random.default_rng(seed))[1]
    scale = np.sum(np.abs(grad * v))
    assert abs(loss(theta + 1e-30j * v).imag / 1e-30 - grad @ v) <= 1e-12 * scale  # complex step: rounding alone
    h = 2e-4  # Richardson: h⁴ of truncation, u |loss|/h of rounding
    near, far = (loss(theta + a * v) - loss(theta - a * v) for a in (h, 2 * h))
    assert abs((8 * near - far) / (12 * h) - grad @ v) <= 1e-8 * (scale + abs(loss(theta)))


# ------------------------------------------------------------------ the loss


@sdes
@weights
@given(seed=seeds, B=st.integers(1, 6), shared=st.booleans())
def test_the_loss_is_half_the_weighted_square_summed_over_dimensions_averaged_over_the_batch(
    sde, weight, seed, B, shared
):
    model = ScoreModel(MLP((3, 4, 3), embed=4), sde)
    rng = np.random.default_rng(seed)
    theta = model.init(rng, "float64")
    x0, z = rng.standard_normal((B, 3)), rng.standard_normal((B, 3))
    t, factor = rng.uniform(0.05, 1, 1 if shared else B), rng.uniform(0.5, 2, 1 if shared else B)
    loss, _ = Denoising(weight=weight).at(model, theta, x0, t, z, factor)
    wanted = 0.0
    for i in range(B):
        ti = float(t[min(i, len(t) - 1)])
        alpha, sigma, g = sde.alpha(ti), sde.sigma(ti), sde.g(ti)
        lam = {sigma_squared: sigma**2, g_squared: g**2, unweighted: 1.0}[weight]
        s = model.bind(theta)(alpha * x0[i : i + 1] + sigma * z[i : i + 1], ti)[0]
        wanted += factor[min(i, len(t) - 1)] * lam * 0.5 * np.sum((s + z[i] / sigma) ** 2) / B
    assert loss.shape == ()
    assert abs(loss - wanted) <= 1e-13 * wanted * 10  # a sum of B squares


@given(seed=seeds, antithetic=st.booleans())
def test_the_call_draws_times_then_noise_and_hands_them_to_the_pure_part(seed, antithetic):
    model, law = ScoreModel(MLP((2, 4, 2), embed=4), VP()), UniformLogSNR()
    rng = np.random.default_rng(seed)
    theta, x0 = model.init(rng, "float64"), rng.standard_normal((5, 2))
    u, z = rng.random(1 if antithetic else 5), rng.standard_normal((5, 2))
    objective = Denoising(weight=g_squared, times=law, antithetic=antithetic)
    loss, grad = objective(model, theta, x0, ReplayRng(z, uniforms=[u]))
    spread = (u + np.arange(5) / 5) % 1 if antithetic else u
    wanted_loss, wanted_grad = objective.at(model, theta, x0, law.at(VP(), spread)[0], z, law.at(VP(), spread)[1])
    # u mod 1 may be rounded differently, and t(u) is steep near t_min
    assert abs(loss - wanted_loss) <= 1e-11 * wanted_loss
    assert_close(grad, wanted_grad, 1e-11 * np.max(np.abs(wanted_grad)))


def test_the_default_is_the_simple_loss():
    assert Denoising() == Denoising(weight=sigma_squared, times=UniformTime(1e-3), antithetic=False)
    assert OBJECTIVES["denoising"] == Denoising()


@sdes
def test_weights_are_what_they_are_called(sde):
    t = np.array([0.1, 0.5, 1.0])
    assert np.array_equal(sigma_squared(sde, t), sde.sigma(t) ** 2)
    assert np.array_equal(g_squared(sde, t), sde.g(t) ** 2)
    assert np.array_equal(unweighted(sde, t), [1.0, 1.0, 1.0])
    assert unweighted(sde, 0.3) == 1.0


@sdes
@weights
@times
def test_every_backend_has_the_same_loss_and_gradient(sde, weight, law):
    model = ScoreModel(MLP((2, 4, 2), embed=4), sde)
    x0 = np.random.default_rng(0).standard_normal((5, 2))
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        found = []
        for host in (NumpyBackend(), StrictBackend()):
            x = host.asarray(x0, dtype=dtype)
            theta = model.init(host.rng(0), x.dtype)
            loss, grad = Denoising(weight=weight, times=law, antithetic=True)(model, theta, x, host.rng(1))
            assert loss.dtype == grad.dtype == x.dtype
            assert loss.shape == ()
            found.append(np.append(host.to_numpy(grad), host.to_numpy(loss)))
        assert_close(found[0], found[1], tolerance * np.max(np.abs(found[0])))


# ------------------------------------------------------------------ laws of the time


@sdes
@given(t_min=st.floats(1e-3, 0.5), seed=seeds)
def test_uniform_log_snr_spreads_the_log_ratio_evenly(sde, t_min, seed):
    u = np.sort(np.random.default_rng(seed).random(50))
    t, _ = UniformLogSNR(t_min).at(sde, u)
    low, high = log_ratio(sde, t_min), log_ratio(sde, 1.0)
    assert_close(log_ratio(sde, t), low + u * (high - low), 1e-12 * (high - low) * 10)
    assert np.all((t >= t_min * (1 - 1e-12)) & (t <= 1))


@sdes
@given(t_min=st.floats(1e-3, 0.5), seed=seeds)
def test_the_factor_is_the_ratio_of_densities(sde, t_min, seed):
    """u -> t has slope dt/du; uniform t has density 1/(1 - t_min), this law du/dt: factor = dt/du / (1 - t_min)."""
    u, h = np.random.default_rng(seed).uniform(0.01, 0.99, 20), 2e-4
    for law in (UniformTime(t_min), UniformLogSNR(t_min)):
        near, far = (law.at(sde, u + a)[0] - law.at(sde, u - a)[0] for a in (h, 2 * h))
        slope = (8 * near - far) / (12 * h)  # Richardson; the inverse is not made for complex numbers
        assert_close(slope / (1 - t_min), law.at(sde, u)[1], 1e-9)


@sdes
@pytest.mark.parametrize("t_min", [1e-3, 0.1])
@pytest.mark.parametrize("phi", [
    lambda t: t**2, lambda t: np.cos(3 * t), lambda t: np.exp(-t), lambda t: 1 + 0 * t,
])  # fmt: skip
def test_the_factor_gives_back_the_expectation_over_uniform_times(sde, t_min, phi):
    nodes, w = gauss_legendre(100)
    t, factor = UniformLogSNR(t_min).at(sde, nodes)
    uniform, _ = UniformTime(t_min).at(sde, nodes)
    assert abs(w @ (factor * phi(t)) - w @ phi(uniform)) <= 1e-10  # Gauss-Legendre of analytic functions


@sdes
@given(mean=st.floats(-2.0, 1.0), std=st.floats(0.3, 2.0), t_min=st.floats(1e-3, 0.2))
def test_log_normal_levels_have_the_normal_law_that_is_cut(sde, mean, std, t_min):
    """Eq. (22.4): u is the distribution function at its level; between nodes to their distance squared."""
    u = np.linspace(0, 1, 999)
    t, factor = LogNormal(mean, std, t_min).at(sde, u)
    low, high = (ndtr((log_ratio(sde, end) - mean) / std) for end in (t_min, 1.0))
    found = (ndtr((log_ratio(sde, t) - mean) / std) - low) / (high - low)
    assert factor == 1.0
    spacing = (log_ratio(sde, 1.0) - log_ratio(sde, t_min)) / std / 1024
    assert_close(found, u, 0.031 * spacing**2 / (high - low) + 1e-9)  # max |density'| / 8
    assert np.all(np.diff(t) > 0)


@sdes
def test_a_loss_depends_on_law_and_weight_only_through_their_product(sde):
    """Eq. (22.3): E_u[λ φ(t)] is ∫ w(ℓ) φ dℓ with w = density of ℓ times λ; log-normal against uniform log SNR."""
    u = (np.arange(200_000) + 0.5) / 200_000
    mean, std = -0.5, 1.0
    t, _ = LogNormal(mean, std, 1e-2).at(sde, u)
    even, _ = UniformLogSNR(1e-2).at(sde, u)
    level, (low, high) = log_ratio(sde, even), (log_ratio(sde, end) for end in (1e-2, 1.0))
    density = np.exp(-0.5 * ((level - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
    density = density / (ndtr((high - mean) / std) - ndtr((low - mean) / std))
    for phi in (lambda t: sde.sigma(t) ** 2, lambda t: np.cos(log_ratio(sde, t))):
        wanted = np.mean(density * phi(even)) * (high - low)
        assert abs(np.mean(phi(t)) - wanted) <= 2e-5 * np.max(np.abs(phi(even)))  # even within a cell


def test_levels_that_a_law_never_draws_are_refused():
    with pytest.raises(ValueError, match="deviations from the mean"):
        LogNormal(mean=40.0).at(VP(), np.array([0.5]))
    with pytest.raises(ValueError, match="deviations from the mean"):
        LogNormal(mean=-40.0).at(VP(), np.array([0.5]))


@sdes
@given(t=st.floats(0.01, 1.0), gamma=st.floats(0.1, 20.0))
def test_min_snr_counts_errors_of_the_data_by_the_snr_up_to_gamma(sde, t, gamma):
    """Eq. (22.5): λ/b² with the b of the data prediction is min(SNR, γ), and of the noise min(1, γ/SNR)."""
    snr = (sde.alpha(t) / sde.sigma(t)) ** 2
    weight = MinSNR(gamma)
    for name, wanted in (("data", min(snr, gamma)), ("noise", min(1.0, gamma / snr))):
        _, b = affine(name, sde, t)
        assert abs(weight(sde, t) / b**2 / wanted - 1) < 1e-12
    assert_close(weight(sde, np.array([t])), weight(sde, t), 1e-15 * weight(sde, t))


def test_uniform_times_fill_their_interval_and_a_fixed_time_is_one():
    u = np.array([0.0, 0.25, 1 - 2**-53])
    t, factor = UniformTime(0.2).at(VP(), u)
    assert_close(t, [0.2, 0.4, 1.0], 1e-15)
    assert factor == 1.0
    t, factor = FixedTime(0.3).at(VP(), u)
    assert t.shape == (1,)
    assert t[0] == 0.3
    assert factor == 1.0


@sdes
def test_no_time_lies_beyond_1(sde, any_backend):
    u = np.append(np.linspace(0, 1, 300, endpoint=False), 1 - 2.0**-24)
    for law in TIMES.values():
        t, _ = law.at(sde, any_backend.asarray(u, dtype="float32"))
        assert str(t.dtype).endswith("float32")
        assert np.all((any_backend.to_numpy(t) > 0) & (any_backend.to_numpy(t) <= 1))


@dataclass(frozen=True)
class Recorder:
    """A time law that keeps the u it was given."""

    seen: list[np.ndarray] = field(default_factory=list)
    atoms = None

    def at(self, sde, u):
        self.seen.append(u)
        return UniformTime().at(sde, u)


def drawn(antithetic, B, rng):
    recorder, model = Recorder(), ScoreModel(MLP((1, 1)), VP())
    theta, x0 = np.zeros(2), np.zeros((B, 1))
    Denoising(times=recorder, antithetic=antithetic)(model, theta, x0, rng)
    return recorder.seen[0]


@given(seed=seeds, B=st.integers(1, 40))
def test_antithetic_times_fill_every_stratum_once(seed, B):
    u = drawn(True, B, np.random.default_rng(seed))
    assert u.shape == (B,)
    assert np.all((u >= 0) & (u < 1))
    gaps = np.sort(u) - np.min(u)
    assert_close(gaps, np.arange(B) / B, 1e-15, "evenly spread, 1/B apart")


@pytest.mark.parametrize("B", [1, 2, 4, 8])
def test_each_antithetic_time_alone_is_uniform(B):
    """Turning a circle moves no uniform law: a fine grid of first draws gives each u_i the same grid."""
    grid = (np.arange(64) + 0.5) / 64
    us = np.stack([drawn(True, B, ReplayRng(np.zeros((B, 1)), uniforms=[np.array([u])])) for u in grid])
    for i in range(B):
        assert_close(np.sort(us[:, i]), grid, 1e-15)


def test_plain_times_are_independent():
    assert np.array_equal(drawn(False, 5, np.random.default_rng(3)), np.random.default_rng(3).random(5))


@pytest.mark.parametrize("t_min", [0.0, 1.0, -0.1, 2.0, math.nan])
@pytest.mark.parametrize("law", [UniformTime, UniformLogSNR])
def test_t_min_must_lie_inside_the_interval(law, t_min):
    with pytest.raises(ValueError, match=r"t_min must lie in \(0, 1\), got"):
        law(t_min)


@pytest.mark.parametrize("t", [-0.1, 1.0 + 1e-12, math.nan])
def test_a_fixed_time_lies_in_the_interval(t):
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\] .*, got"):
        FixedTime(t)


@pytest.mark.parametrize("antithetic", [False, True])
def test_times_and_noise_are_drawn_in_the_type_of_the_data(antithetic):
    t, z, _ = Denoising(antithetic=antithetic).draw(VP(), np.ones((4, 2), "float32"), np.random.default_rng(0))
    assert t.dtype == z.dtype == np.float32
    wide, *_ = Denoising(antithetic=antithetic).draw(VP(), np.ones((4, 2)), np.random.default_rng(0))
    assert wide.dtype == np.float64


def test_denoising_needs_noise():
    with pytest.raises(ValueError, match="at t = 0 there is none to remove"):
        Denoising(times=FixedTime(0.0))


# ------------------------------------------------------------------ the minimum


@dataclass(frozen=True)
class Nudged:
    """A model whose score is exact at θ = 0, and pushed in three directions otherwise."""

    mixture: GaussianMixture
    sde: Any
    shapes = {"a": (3,)}  # noqa: RUF012

    def forward(self, params, x, t):
        s = ExactScore(self.mixture, self.sde)(x, t)
        pushes = np.stack([s, np.sin(x), 0 * x + 1])
        return s + np.tensordot(params["a"], pushes, 1), pushes

    def backward(self, params, pushes, dy):
        return (None,), {"a": np.sum(pushes * dy, axis=(1, 2))}


P1 = GaussianMixture(np.array([0.6, 0.4]), np.array([[-1.0], [1.2]]), np.array([[0.16], [0.3]]))


def nodes_of_x0_and_z():
    """Trapezoid rule over the joint law of (x₀, z): converges faster than any power."""
    x, z = np.arange(-6, 7, 0.08), np.arange(-8.5, 8.6, 0.25)
    px = 0.08 * np.exp(P1.log_prob(x[:, None]))
    return np.repeat(x, len(z)), np.tile(z, len(x)), np.outer(px, 0.25 * norm.pdf(z)).ravel()


@sdes
@weights
@pytest.mark.parametrize("law", [FixedTime(0.3), UniformTime(0.05), UniformLogSNR(0.05)], ids=["fixed", "t", "log snr"])
def test_the_exact_score_has_the_least_loss_and_it_is_the_floor(sde, weight, law):
    """The factor carries the quadrature weights: the code's own loss, its expectation without any sampling."""
    objective = Denoising(weight=weight, times=law)
    x0, z, p = nodes_of_x0_and_z()
    levels = 24
    u, w = gauss_legendre(levels)
    ts, factors = law.at(sde, u)
    if len(ts) == 1:
        ts, factors, w = ts, np.ones(1), np.ones(1)
    factors = factors * np.ones(len(ts))

    def expected(a):
        total, grad = 0.0, np.zeros(3)
        for t, factor, share in zip(ts, factors, w, strict=True):
            loss, dloss = objective.at(
                Nudged(P1, sde), a, x0[:, None], np.array([t]), z[:, None], factor * share * len(p) * p
            )
            total, grad = total + loss, grad + dloss
        return float(total), grad

    floor, grad = expected(np.zeros(3))
    exact = denoising_floor(objective, P1, sde, levels=levels)
    assert abs(floor - exact.value) <= 1e-10 * exact.value  # two converged trapezoid rules
    assert_close(grad, 0, 1e-10 * exact.value, "stationary in every direction")
    for i in range(3):
        for step in (-0.1, 0.1):
            assert expected(step * np.eye(3)[i])[0] > floor  # and a minimum
