"""Chapter 4: maximum likelihood by a chain. Its gradient, what a short chain makes of it, what the score spares us."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from refscore import MLP, VE, Adam, EnergyModel, GaussianMixture, Implicit, Langevin, fit, last
from refscore.arrays import views
from refscore.laws.grid_chain import grid_law, langevin_law
from refscore.matching.maximum_likelihood import FromNoise, MaximumLikelihood, from_data
from refscore.nn import SiLU, Tanh
from refscore.sampling.mala import MALA
from refscore.training.loop import DivergenceError
from refscore.training.optim import WarmupCosine
from refscore_backends.numpy import NumpyBackend
from refscore_backends.strict import StrictBackend
from tests.oracles.close import assert_close
from tests.oracles.derivatives import STEP
from tests.oracles.models import random_theta
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import assert_mean
from tests.oracles.strategies import few, random_mixture, seeds
from tests.oracles.tilted import CLEAN, FIXED, LAW, SDE, T, truth

starts = st.sampled_from([from_data, FromNoise(1.5)])


def small(dim, hidden, phi=None):
    """An energy that is finite at t = 0, where c = 1/1.7."""
    return EnergyModel(MLP((dim, *hidden, 1), 0, phi), VE(0.01, 10.0), data_std=1.7, predict="score")


# ------------------------------------------------------------------ the gradient


@given(seed=seeds, dim=st.integers(1, 3), B=st.integers(1, 5), M=st.integers(1, 5), t=st.sampled_from([0.0, 0.6]))
def test_the_gradient_is_the_derivative_of_the_loss_with_the_samples_held(seed, dim, B, M, t):
    model, rng = small(dim, [5, 4]), np.random.default_rng(seed)
    theta, objective = random_theta(model, seed), MaximumLikelihood(1, 0.1, t=t)
    x0, x, v = rng.standard_normal((B, dim)), rng.standard_normal((M, dim)), rng.standard_normal(theta.shape)
    loss, grad = objective.at(model, theta, x0, x)
    E = model.bind_energy(theta)
    assert loss.shape == ()
    assert abs(loss - (np.mean(E(x0, t)) - np.mean(E(x, t)))) <= 1e-13 * (1 + np.max(np.abs(E(x, t))))
    slope = objective.at(model, theta + 1j * STEP * v, x0, x)[0].imag / STEP
    assert abs(slope - grad @ v) <= 1e-12 * np.sum(np.abs(grad * v))  # complex step: rounding alone


@few
@given(seed=seeds, phi=st.sampled_from([SiLU(), Tanh()]))
def test_with_samples_of_the_model_it_is_the_gradient_of_the_likelihood(seed, phi):
    """Eq. (1.2), for a curved network in one dimension, Z and the expectation by the trapezoid rule."""
    model, rng = small(1, [5], phi), np.random.default_rng(seed)
    theta, objective = random_theta(model, seed), MaximumLikelihood(1, 0.1)
    x0, v = 1.5 * rng.standard_normal((4, 1)), rng.standard_normal(theta.shape)
    # Two grids, as the rule is to be converged: E is analytic, and e^-E is nothing at 30.
    nodes = np.linspace(-30, 30, 401)[:, None]

    def likelihood(theta):
        E = model.bind_energy(theta)
        low = np.min(E(nodes, 0.0).real)
        return np.mean(E(x0, 0.0)) + np.log(np.sum(np.exp(low - E(nodes, 0.0))))

    E = model.bind_energy(theta)(nodes, 0.0)
    q = np.exp(np.min(E) - E)
    q = q / np.sum(q)
    keep = np.flatnonzero(q > 1e-18)
    gradient = sum(q[i] * objective.at(model, theta, x0, nodes[i : i + 1])[1] for i in keep)
    slope = likelihood(theta + 1j * STEP * v).imag / STEP
    assert abs(slope - gradient @ v) <= 1e-12 * np.sum(np.abs(gradient * v)) + 1e-15


@given(seed=seeds, moves=st.integers(1, 4), start=starts)
def test_the_chain_is_langevin_on_the_current_model(seed, moves, start):
    """x + ε s + √(2ε) z, `moves` times, from the start; then the pure part."""
    model, rng, eps, t = small(2, [4]), np.random.default_rng(seed), 0.07, 0.4
    theta, x0 = random_theta(model, seed), rng.standard_normal((3, 2))
    noise = rng.standard_normal((moves + 1, 3, 2))
    if start is from_data:
        x, used = x0, noise[1:]
    else:
        x, used = 1.5 * noise[0], noise
    for z in noise[1:]:
        x = x + eps * model.bind(theta)(x, t) + math.sqrt(2 * eps) * z
    objective = MaximumLikelihood(moves, eps, start, t)
    replay = ReplayRng(*used)
    found, wanted = objective(model, theta, x0, replay), objective.at(model, theta, x0, x)
    assert not replay.normals
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-13 * (1 + np.max(np.abs(b))))


@pytest.mark.parametrize("start", [from_data, FromNoise(1.5)])
def test_every_backend_has_the_same_gradient(start):
    model = small(2, [6, 6])
    x0 = np.random.default_rng(0).standard_normal((5, 2))
    for dtype, tolerance in (("float64", 1e-12), ("float32", 1e-5)):
        found = []
        for host in (NumpyBackend(), StrictBackend()):
            x = host.asarray(x0, dtype=dtype)
            theta = model.init(host.rng(0), x.dtype)
            loss, grad = MaximumLikelihood(3, 0.1, start)(model, theta, x, host.rng(1))
            assert loss.dtype == grad.dtype == x.dtype
            found.append(np.append(host.to_numpy(grad), host.to_numpy(loss)))
        assert_close(found[0], found[1], tolerance * np.max(np.abs(found[0])))


@pytest.mark.parametrize("start", [from_data, FromNoise(1.5)])
def test_float32_stays_float32(any_backend, start):
    model = small(2, [4])
    x = any_backend.asarray(np.random.default_rng(0).standard_normal((5, 2)), dtype="float32")
    theta = model.init(any_backend.rng(0), x.dtype)
    loss, grad = MaximumLikelihood(2, 0.1, start)(model, theta, x, any_backend.rng(1))
    assert loss.dtype == grad.dtype == x.dtype
    assert loss.shape == ()
    assert grad.shape == theta.shape


# ------------------------------------------------------------------ what a short chain makes of it


@given(
    seed=seeds, dim=st.integers(1, 3), moves=st.integers(1, 30), share=st.floats(0.01, 0.9),
    start=st.sampled_from([from_data, FromNoise(1.5)]),
)  # fmt: skip
def test_the_gradient_of_a_short_chain_on_a_gaussian(seed, dim, moves, share, start):
    """Eq. (4.8): with a linear body the model is N(m, I/c²), and the expected gradient in the mean is
    (1 - aⁿ)(m - μ) from the data and (m - μ) - aⁿ m from noise about 0, with a = 1 - εc².

    All is affine in the noise, so noise of zero gives the expectation exactly.
    """
    model, rng = small(dim, []), np.random.default_rng(seed)
    theta, x0 = random_theta(model, seed), rng.standard_normal((4, dim)) + 1
    c = 1 / 1.7
    kappa, m = c, c * views(theta, model.shapes)["head.W"][:, 0] / c**2
    step = share / c**2
    a, mu = 1 - step * c**2, np.mean(x0, axis=0)
    zeros = [np.zeros((4, dim))] * (moves + (start is not from_data))
    _, grad = MaximumLikelihood(moves, step, start)(model, theta, x0, ReplayRng(*zeros))
    grad = views(grad, model.shapes)["head.W"][:, 0] / kappa  # ∂E/∂W = -κ x
    wanted = (1 - a**moves) * (m - mu) if start is from_data else (m - mu) - a**moves * m
    assert_close(grad, wanted, 1e-12 * (1 + np.max(np.abs(m)) + np.max(np.abs(mu))))


@few
@given(seed=seeds)
def test_one_small_step_from_the_data_is_implicit_score_matching(seed):
    """Eq. (4.9): E_z gradient = ε ∇_θ J + O(ε²), the mean over z by Gauss-Hermite, ε → 0 by Richardson."""
    model, rng = small(2, [5, 4]), np.random.default_rng(seed)
    theta, x0 = random_theta(model, seed), rng.standard_normal((3, 2))
    u, w = np.polynomial.hermite_e.hermegauss(5)  # exact to degree 9: ε⁵ is left
    w = w / np.sum(w)

    def slope(eps):
        objective, total = MaximumLikelihood(1, eps), 0.0
        for a, wa in zip(u, w, strict=True):
            for b, wb in zip(u, w, strict=True):
                z = np.broadcast_to(np.array([a, b]), (3, 2))
                total = total + wa * wb * objective(model, theta, x0, ReplayRng(z))[1]
        return total / eps

    h = 1e-3
    one, two, four = slope(h), slope(h / 2), slope(h / 4)
    found = (8 * four - 6 * two + one) / 3  # ε and ε² cancel, ε³ is left
    _, wanted = Implicit().at(model, theta, x0, np.zeros(1))
    size = np.max(np.abs(wanted)) + np.max(np.abs(one))
    # h³ of truncation: 1e-6 at the worst of 400 seeds; rounding is u/h
    assert_close(found, wanted, 1e-5 * size)


@pytest.mark.parametrize("moves", [1, 3, 30])
def test_from_the_data_only_the_step_biases_the_variance(moves):
    """The chain leaves a variance alone when it is Langevin's own, 1/(θ (1 - ½εθ)): there training rests, for every n.

    From the kernel itself, by its map of means and variances: E = ½ θ x² on data of variance v.
    """
    v, eps = 0.8, 0.3

    def gap(theta):  # of E[x²] between data and samples: twice the gradient in θ
        kernel = Langevin(lambda x, t: -theta * x, eps)
        pull = float(kernel(np.ones((1, 1)), 0.0, ReplayRng(np.zeros((1, 1))))[0, 0])
        push = float(kernel(np.zeros((1, 1)), 0.0, ReplayRng(np.ones((1, 1))))[0, 0])
        after = v
        for _ in range(moves):
            after = pull**2 * after + push**2
        return v - after

    rest = (1 - math.sqrt(1 - 2 * eps / v)) / eps  # the smaller root of ½ ε θ² - θ + 1/v = 0
    assert abs(1 / (rest * (1 - 0.5 * eps * rest)) - v) <= 1e-14
    assert abs(gap(rest)) <= 1e-14
    assert abs(gap(1 / v)) >= 0.03  # at the truth it still pulls


@pytest.mark.parametrize("moves", [1, 4, 30])
def test_from_noise_a_short_chain_rests_at_a_wrong_mean(moves):
    """The zero of Eq. (4.8): μ/(1 - aⁿ) instead of μ, found by the objective itself."""
    model, c = small(1, []), 1 / 1.7
    x0, step = np.array([[0.5], [1.5]]), 0.2 * 1.7**2
    objective = MaximumLikelihood(moves, step, FromNoise(1.5))
    wrong = 1.0 / (1 - 0.8**moves)
    theta = np.array([wrong * c, 0.0])  # m = W/c
    _, grad = objective(model, theta, x0, ReplayRng(*[np.zeros((2, 1))] * (moves + 1)))
    assert_close(grad, 0, 1e-14)
    assert wrong >= 1.001


# Two modes of unit width, d apart. The model has the data's modes, but equal weights: E = -log(eᵃ N₊ + e⁻ᵃ N₋), a = 0.


class TwoModes:
    """An energy model whose one parameter tilts the weights of two unit modes at ±d/2."""

    shapes = {"a": (1,)}  # noqa: RUF012

    def __init__(self, distance):
        self.half = 0.5 * distance

    def lean(self, theta, x):
        return np.tanh(theta[0] + self.half * x[:, 0])  # r₊ - r₋

    def bind(self, theta):
        return lambda x, t: -x + self.half * self.lean(theta, x)[:, None]

    def energy(self, params, x, t):
        u = params["a"][0] + self.half * x[:, 0]
        return 0.5 * x[:, 0] ** 2 - np.logaddexp(u, -u), (params["a"], x)

    def energy_backward(self, params, cache, dE):
        return (None,), {"a": np.array([-np.sum(dE * self.lean(*cache))])}


def two_modes(distance, weight):
    return GaussianMixture(np.array([weight, 1 - weight]), np.array([[1.0], [-1.0]]) * distance / 2, np.ones(2))


def share_of_likelihood(distance, moves, eps=0.1, weight=0.8, cells=400):
    """Expected gradient in the weight after `moves` steps from the data, over that of the exact likelihood."""
    model, half = TwoModes(distance), distance / 2
    data = grid_law(-half - 8, half + 8, cells, lambda x: weight * ndtr(x - half) + (1 - weight) * ndtr(x + half))
    after = langevin_law(data, model.bind(np.zeros(1)), [0.0], lambda t: eps, moves)

    def lean(x):
        return model.lean(np.zeros(1), x[:, None])

    # the model's own mean of r₊ - r₋ is 0: its weights are equal
    return (data.mean(lean) - after.mean(lean)) / data.mean(lean)


def test_where_modes_part_a_short_chain_from_the_data_does_not_see_their_weights():
    """The expected gradient in the weight by the grid law of the chain, no sampling; the numbers of the chapter."""
    found = [[100 * share_of_likelihood(d, n) for n in (1, 10, 100, 1000)] for d in (4.0, 6.0, 8.0)]
    wanted = [[1.5, 12.6, 70.6, 100.0], [0.15, 1.44, 13.2, 75.5], [0.005, 0.055, 0.59, 5.8]]  # per cent
    assert_close(np.array(found) / wanted, 1, 0.03, "two digits")


@pytest.mark.parametrize(("distance", "moves"), [(4.0, 10), (8.0, 100)])
def test_that_grid_law_has_converged(distance, moves):
    coarse, fine = (share_of_likelihood(distance, moves, cells=n) for n in (400, 800))
    assert abs(coarse / fine - 1) <= 2e-3


def test_the_grid_law_is_that_of_the_objective():
    """The same gradient by the code itself, 2000 chains of ten steps."""
    model, p, rng = TwoModes(4.0), two_modes(4.0, 0.8), np.random.default_rng(0)
    objective = MaximumLikelihood(10, 0.1)
    x0 = p.sample(rng, 2000)
    draws = np.array([objective(model, np.zeros(1), x0[i : i + 1], rng)[1][0] for i in range(2000)])
    of_data = 0.6 * expected_lean(4.0)
    assert_mean(draws, -of_data * share_of_likelihood(4.0, 10), bias=2e-3)


@given(distance=st.floats(1.0, 8.0), a=st.floats(-1.0, 1.0), weight=st.floats(0.05, 0.95))
def test_the_likelihood_in_the_weight(distance, a, weight):
    """Exercise 4: ∂/∂a E_p log p_a = E[r₊ - r₋] of the data less that of the model, p_a with weights ∝ e^±a."""
    model, p = TwoModes(distance), two_modes(distance, weight)
    x = np.linspace(-16, 16, 2001)[:, None]
    w = np.exp(p.log_prob(x)) * (x[1, 0] - x[0, 0])

    def log_likelihood(a):
        q = two_modes(distance, 1 / (1 + math.exp(-2 * a)))
        return float(np.sum(w * q.log_prob(x)))

    h = 1e-3
    near, far = (log_likelihood(a + b) - log_likelihood(a - b) for b in (h, 2 * h))
    q = np.exp(two_modes(distance, 1 / (1 + math.exp(-2 * a))).log_prob(x)) * (x[1, 0] - x[0, 0])
    lean = model.lean(np.array([a]), x)
    assert abs((8 * near - far) / (12 * h) - np.sum((w - q) * lean)) <= 1e-10  # h⁴ = 1e-12, rounding u/h


def expected_lean(distance):
    """E_{N(d/2, 1)} tanh(d x/2): how sure a point of one mode is of it."""
    x = np.linspace(-12, 12, 4001) + distance / 2
    return float(np.sum(np.exp(-0.5 * (x - distance / 2) ** 2) * np.tanh(0.5 * distance * x)) * (x[1] - x[0])) / (
        math.sqrt(2 * math.pi)
    )


# ------------------------------------------------------------------ trained


def score_error_after(objective, data=LAW, steps=300, seed=0):
    model = EnergyModel(MLP((2, 24, 24, 1)), SDE, data_std=1.55, predict="score")
    run = fit(
        model, objective, data, Adam(WarmupCosine(0.015, steps)), np.random.default_rng(seed), steps=steps, batch=128
    )
    state = last(run)
    nodes, w, _, score = truth()
    s = model.bind(state.theta)(nodes, T)
    return float(np.sum(w * np.sum((s - score) ** 2, axis=1)) / np.sum(w * np.sum(score**2, axis=1)))


def test_contrastive_divergence_trains_an_energy_where_modes_touch():
    assert score_error_after(MaximumLikelihood(1, 0.05, t=T)) <= 0.2


def test_from_noise_a_short_chain_trains_nothing():
    """One step from noise cannot be where the data are, whatever the energy: it grows for ever."""
    with pytest.raises(DivergenceError):
        score_error_after(MaximumLikelihood(1, 0.05, FromNoise(1.6), t=T), steps=400)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_score_matching_beats_short_chains_from_the_data_beats_those_from_noise(seed):
    """Relative score errors after the same 300 steps: .015 to .027, .060 to .124, .39 to .53 in the chapter."""
    matched = score_error_after(Implicit(times=FIXED), data=CLEAN, seed=seed)
    near, far = (
        score_error_after(MaximumLikelihood(n, 0.05, start, t=T), seed=seed)
        for n, start in ((1, from_data), (10, FromNoise(1.6)))
    )
    assert matched < 0.7 * near < 0.3 * far


# ------------------------------------------------------------------ an energy can say no


def log_acceptance(E, s, x, y, eps):
    """log of the Metropolis ratio for the Langevin proposal y of x: energies and scores, no normaliser."""

    def log_q(y, x):
        return -np.sum((y - x - eps * s(x, 0.0)) ** 2, axis=-1) / (4 * eps)

    return np.minimum(E(x, 0.0) - E(y, 0.0) + log_q(x, y) - log_q(y, x), 0.0)


@given(seed=seeds, eps=st.floats(0.05, 2.0))
def test_metropolis_with_energy_differences_leaves_the_law_alone(seed, eps):
    """Eq. (4.7): p(x) q(y|x) A(x, y) is symmetric, so no mean moves; without A it moves."""
    model = small(1, [6])
    theta = random_theta(model, seed)
    E, s = model.bind_energy(theta), model.bind(theta)
    x = np.linspace(-12, 12, 161)[:, None]
    X, Y = np.repeat(x, len(x), axis=0), np.tile(x, (len(x), 1))
    low = np.min(E(x, 0.0))
    log_flow = low - E(X, 0.0) - np.sum((Y - X - eps * s(X, 0.0)) ** 2, axis=1) / (4 * eps)
    A = np.exp(log_acceptance(E, s, X, Y, eps))
    flow = (np.exp(log_flow) * A).reshape(len(x), len(x))
    assert_close(flow, flow.T, 1e-12 * np.max(flow))
    moved = np.exp(log_flow) * (Y[:, 0] ** 2 - X[:, 0] ** 2)
    assert abs(np.sum(A * moved)) <= 1e-12 * np.sum(np.abs(A * moved))
    assert abs(np.sum(moved)) >= 1e-4 * np.sum(np.abs(moved))  # unadjusted: too wide


@given(seed=seeds, eps=st.floats(0.05, 2.0), dim=st.integers(1, 3))
def test_mala_takes_a_step_with_that_probability(seed, eps, dim):
    """Eq. (4.7): the uniform number of a sample decides, at A and not elsewhere; who does not move stays to the bit."""
    p = random_mixture(seed, dim, 3)
    rng = np.random.default_rng(seed)
    x, z = p.sample(rng, 40), rng.standard_normal((40, dim))
    y = x + eps * p.score(x) + math.sqrt(2 * eps) * z
    A = np.exp(log_acceptance(lambda x, t: -p.log_prob(x), lambda x, t: p.score(x), x, y, eps))
    kernel = MALA(lambda x, t: p.score(x), lambda x, t: p.log_prob(x), eps)
    for u in (A * (1 - 1e-6), np.minimum(A * (1 + 1e-6), 1 - 2**-53)):
        moved = u < A
        found = kernel(x, 0.5, ReplayRng(z, uniforms=[u]))
        assert np.array_equal(found[~moved], x[~moved])
        assert_close(found[moved], y[moved], 1e-12 * (1 + np.max(np.abs(y))))


def test_mala_asks_for_a_density_of_each_sample():
    kernel = MALA(lambda x, t: -x, lambda x, t: -0.5 * x**2, 0.1)
    with pytest.raises(ValueError, match="log_density"):
        kernel(np.zeros((4, 2)), 0.5, np.random.default_rng(0))
    with pytest.raises(ValueError, match="step"):
        MALA(lambda x, t: -x, lambda x, t: -x[:, 0], 0.0)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("moves", [0, -1, 1.5, math.nan])
def test_a_chain_has_at_least_one_move(moves):
    with pytest.raises(ValueError, match="moves must be an integer of at least 1, got"):
        MaximumLikelihood(moves, 0.1)


@pytest.mark.parametrize("step", [0.0, -0.1, math.nan, math.inf])
def test_a_step_is_positive(step):
    with pytest.raises(ValueError, match="step must be positive and finite, got"):
        MaximumLikelihood(1, step)


@pytest.mark.parametrize("t", [-0.1, 1.0 + 1e-12, math.nan])
def test_a_time_lies_in_the_interval(t):
    with pytest.raises(ValueError, match=r"t must lie in \[0, 1\]"):
        MaximumLikelihood(1, 0.1, t=t)


@pytest.mark.parametrize("std", [0.0, -1.0, math.nan, math.inf])
def test_noise_to_start_from_needs_a_positive_finite_width(std):
    with pytest.raises(ValueError, match="std must be positive and finite, got"):
        FromNoise(std)


def test_starts_are_what_they_are_called(any_backend):
    x = any_backend.asarray(np.arange(6.0).reshape(3, 2), dtype="float32")
    assert from_data(x, any_backend.rng(0)) is x
    y = FromNoise(2.5)(x, any_backend.rng(0))
    z = any_backend.rng(0).standard_normal((3, 2), dtype=x.dtype)
    assert y.dtype == x.dtype
    assert np.array_equal(any_backend.to_numpy(y), any_backend.to_numpy(2.5 * z))
