"""Chapter 18: straight lines from data to noise as a linear SDE; their mean velocity, loss, paths and samplers.

And α(1) = 0 exactly: who can start where nothing of the data is left does, the others say why not.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from refscore import (
    DDIM,
    MLP,
    VP,
    Denoising,
    EnergyModel,
    EulerMaruyama,
    ExactScore,
    GaussianMixture,
    Langevin,
    Rectified,
    Reverse,
    RungeKutta,
    ScoreModel,
    Then,
    log_likelihood,
    prior,
    simulate,
)
from refscore.laws.affine_chain import Gaussian, law_of
from refscore.likelihood.elbo import elbo
from refscore.matching.times import UniformLogSNR, UniformTime
from refscore.measure.floor import denoising_floor, mean_posterior_variance
from refscore.noise.grids import karras_times, level_times, log_snr_times, quadratic_times, uniform_times
from refscore.noise.interpolant import Interpolant
from refscore.noise.parametrisation import PARAMETRISATIONS, LossOf, affine, affine_in_mean, convert, rates, size
from refscore.noise.prior import prior_kl, prior_mismatch
from refscore.noise.reverse import denoise
from refscore.noise.sde import SDES, log_ratio
from refscore.sampling.guidance import Guided
from refscore.sampling.loop import NO_NOISE, last
from refscore.sampling.solvers import EULER
from refscore.sampling.transitions import SAMPLERS
from tests.oracles.close import assert_close
from tests.oracles.equations import dt
from tests.oracles.marks import each_sampler
from tests.oracles.quadrature import gauss_hermite
from tests.oracles.strategies import mixtures, random_mixture, seeds

LINE = GaussianMixture(np.array([0.3, 0.7]), np.array([[-2.0], [1.0]]), np.array([0.1, 0.2]))
SDE = Rectified()
UNABLE = {"euler-maruyama", "reverse-diffusion", "edm", "edm-churn"}  # steps with f, g or 1/α in them
before_one = st.floats(0.01, 0.99)


class Circle(Interpolant):
    """α = cos ½πt, σ = sin ½πt, in complex times too."""

    prior_std = 1.0

    def alpha(self, t):
        return np.cos(0.5 * np.pi * t)

    def sigma(self, t):
        return np.sin(0.5 * np.pi * t)

    def rates(self, t):
        return -0.5 * np.pi * self.sigma(t), 0.5 * np.pi * self.alpha(t)


def u(p, x, t):
    """The mean velocity of straight lines, Eq. (18.4)."""
    return (x - p.posterior_mean(x, 1 - t, t)) / t


# ------------------------------------------------------------------ the lines and their SDE


@given(st.floats(0, 0.99), before_one)
def test_the_line_is_a_linear_sde(end, t):
    """Eqs. (18.1), (18.5), (18.6): f = α'/α and g² = 2t/(1 - t) solve the moment equations, also with α(1) > 0."""
    sde = Rectified(end)
    a, s, f, g = sde.alpha(t), sde.sigma(t), sde.f(t), sde.g(t)
    assert (a, s) == pytest.approx((1 - (1 - end) * t, t), rel=1e-14)
    assert dt(sde.alpha, t)[0] == pytest.approx(f * a, rel=1e-12)
    assert dt(lambda t: sde.sigma(t) ** 2, t)[0] == pytest.approx(2 * f * s**2 + g**2, rel=1e-11)
    assert g**2 == pytest.approx(2 * t / a, rel=1e-12)
    if end == 0:
        assert f == pytest.approx(-1 / (1 - t), rel=1e-13)
    assert sde.time_at_log_ratio(log_ratio(sde, t)) == pytest.approx(t, rel=1e-12)


@given(before_one)
def test_every_smooth_pair_is_a_linear_sde(t):
    """Eq. (18.5) on the quarter circle, which is variance preserving: f = -½π tan ½πt, g² = -2f."""
    sde = Circle()
    f, g = sde.f(t), sde.g(t)
    assert f == pytest.approx(-0.5 * np.pi * np.tan(0.5 * np.pi * t), rel=1e-12)
    assert g**2 == pytest.approx(-2 * f, rel=1e-12)


@given(mixtures(max_dim=3), seeds, st.floats(0.05, 0.95))
def test_the_mean_velocity_is_the_probability_flow(p, seed, t):
    """Eqs. (18.2), (18.4), (18.7): E[z - x₀ | x] = (x - x̂₀)/t = ẑ - x̂₀ = f x - ½ g² s."""
    x = np.random.default_rng(seed).standard_normal((5, p.dim))
    score = ExactScore(p, SDE)
    assert_close(Reverse(SDE, score, 0.0).drift(x, t), u(p, x, t), 1e-9 * (1 + np.abs(p.means).max()) / (1 - t) / t)
    z_hat, guess = -t * score(x, t), p.posterior_mean(x, 1 - t, t)
    assert_close(u(p, x, t), z_hat - guess, 1e-10 * (1 + np.abs(guess).max()) / t)


@given(mixtures(max_dim=2), seeds, before_one)
def test_the_velocity_of_any_interpolant_is_the_mean_of_its_rates(p, seed, t):
    """Eq. (18.7): α' x̂₀ + σ' ẑ, for the quarter circle."""
    sde, x = Circle(), np.random.default_rng(seed).standard_normal((4, p.dim))
    s = p.score(x, sde.alpha(t), sde.sigma(t))
    a, b = affine("velocity", sde, t)
    up, rise = rates(sde, t)
    mean = up * p.posterior_mean(x, sde.alpha(t), sde.sigma(t)) - rise * sde.sigma(t) * s
    assert_close(a * x + b * s, mean, 1e-9 * (1 + np.abs(p.means).max()) / min(t, 1 - t) ** 2)


@pytest.mark.parametrize("power", [1, 2, 3])
def test_following_the_mean_moves_every_mean_as_the_lines_do(power):
    """Eq. (18.3): d/dt E φ(x_t) = E φ'(x_t) u(x_t, t), for moments of a mixture; central differences."""
    p, t = LINE, 0.4
    z, w = gauss_hermite(40, 1)

    def moment(t):
        return sum(
            wk * w @ ((1 - t) * mk + np.sqrt((1 - t) ** 2 * ck + t**2) * z[:, 0]) ** power
            for wk, mk, ck in zip(p.weights, p.means[:, 0], (0.1, 0.2), strict=True)
        )

    x = np.linspace(-6, 6, 4001)[:, None]
    density = np.exp(p.log_prob(x, 1 - t, t)) * (x[1, 0] - x[0, 0])
    carried = density @ (power * x ** (power - 1) * u(p, x, t))[:, 0]
    change = (moment(t + 1e-5) - moment(t - 1e-5)) / 2e-5
    assert change == pytest.approx(carried, rel=1e-8)


@given(mixtures(max_dim=3), seeds, st.floats(0.1, 0.95), st.sampled_from([0.0, 0.3, 0.9]))
def test_a_step_of_ddim_is_a_step_of_euler(p, seed, t, part):
    """Eq. (18.8), to rounding; and from t = 1 itself."""
    x, score = np.random.default_rng(seed).standard_normal((5, p.dim)), ExactScore(p, SDE)
    euler = RungeKutta(Reverse(SDE, score, 0.0).drift, EULER)
    for now in (t, 1.0):
        to = part * now
        one, two = DDIM(SDE, score)(x, now, to, None)[0], euler(x, now, to, None)[0]
        assert_close(one, two, 1e-9 * (1 + np.abs(p.means).max()) / min(1 - t, t))


class Wide(Rectified):
    """Straight lines to noise of deviation 2."""

    def sigma(self, t):
        return 2 * t

    def rates(self, t):
        return super().rates(t)[0], 2.0


def test_from_noise_of_another_size_the_first_step_is_the_same_straight_line():
    """Eq. (18.7) at α = 0 with σ(1) = 2: DDIM, DPM-Solver++ and Euler from t = 1 end at (1 - s) x̂₀ + s x."""
    sde, x = Wide(), np.array([[3.0]])
    score = ExactScore(LINE, sde)
    euler = RungeKutta(Reverse(sde, score, 0.0).drift, EULER)
    for step in (DDIM(sde, score), SAMPLERS["dpm-solver++1"](sde, score), euler):
        assert_close(step(x, 1.0, 0.4, None)[0], 0.6 * 0.1 + 0.4 * x, 1e-13)
    assert_close(denoise(score, sde, x, 1.0), np.array([[0.1]]), 1e-14)


def test_the_flow_is_the_same_on_every_sde():
    """DDIM at the same levels σ/α ends at the same points: VP and straight lines."""
    vp, grid = VP(), [0.99 * (1 - i / 10) for i in range(10)]
    same = [float(vp.time_at_log_ratio(log_ratio(SDE, t))) for t in grid]
    z = np.linspace(-2, 2, 5)[:, None]
    ends = [
        last(simulate(DDIM(sde, ExactScore(LINE, sde)), sde.sigma(at[0]) * z, [*at, 0.0], NO_NOISE))
        for sde, at in ((SDE, grid), (vp, same))
    ]
    assert_close(*ends, 1e-10)


# ------------------------------------------------------------------ the loss


@given(seeds, st.floats(0.05, 0.95))
def test_flow_matching_is_denoising_with_a_weight(seed, t):
    """Eqs. (18.9), (18.11): ½‖u_θ - (z - x₀)‖² = λ ½‖s_θ + z/σ‖², λ = (½ g²)² = t²/(1 - t)², for a network."""
    rng = np.random.default_rng(seed)
    model = ScoreModel(MLP((2, 4, 2), embed=4), SDE, predict="velocity")
    theta = model.init(rng, "float64")
    x0, z = rng.standard_normal((2, 6, 2))
    each = Denoising(weight=LossOf("velocity")).losses(model, theta, x0, np.full(6, t), z)
    x = (1 - t) * x0 + t * z
    learned = Reverse(SDE, model.bind(theta), 0.0).drift(x, t)
    assert_close(each, 0.5 * np.sum((learned - (z - x0)) ** 2, axis=1), 1e-8 * (1 + each) / (1 - t) ** 2)
    assert LossOf("velocity")(SDE, t) == pytest.approx((t / (1 - t)) ** 2, rel=1e-12)


@pytest.mark.parametrize("t", [0.05, 0.5, 0.97])
def test_the_floor_is_the_spread_of_the_data_that_is_left(t):
    """Eq. (18.10): E‖z - x₀ - u‖² = E tr Cov[x₀ | x_t]/t²; by quadrature over data and noise, and by the library."""
    nodes, w = gauss_hermite(60, 2)
    spread = 0.0
    for wk, mk, ck in zip(LINE.weights, LINE.means[:, 0], (0.1, 0.2), strict=True):
        x0, z = mk + math.sqrt(ck) * nodes[:, :1], nodes[:, 1:]
        spread += wk * w @ (z - x0 - u(LINE, (1 - t) * x0 + t * z, t))[:, 0] ** 2
    assert spread == pytest.approx(mean_posterior_variance(LINE, 1 - t, t).value / t**2, rel=1e-4)


def test_the_floor_of_the_objective_is_the_mean_of_the_floors():
    """Eq. (18.10) on N(0, 1), where the floor is 1/((1 - t)² + t²) and its integral ½π: the library's is ½ of it."""
    one = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
    found = denoising_floor(Denoising(weight=LossOf("velocity"), times=UniformTime(1e-4)), one, SDE).value
    assert found == pytest.approx(0.25 * math.pi, abs=2e-4)  # the end that is left out


# ------------------------------------------------------------------ paths


def heun(velocity, x, grid):
    """States and speeds at the grid's times."""
    states, speeds = [x], [velocity(x, grid[0])]
    for t, to in pairwise(grid):
        guess = x + (to - t) * speeds[-1]
        x = x + 0.5 * (to - t) * (speeds[-1] + velocity(guess, to))
        states.append(x)
        speeds.append(velocity(x, to))
    return np.array(states), np.array(speeds)


def test_curvature_has_two_forms_and_a_closed_value_on_a_gaussian():
    """Eq. (18.12): on N(0, 1) the paths are x₁ √((1 - t)² + t²), and C = 2 - ½π."""
    one, z = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1)), np.array([[1.0]])  # all paths are multiples
    grid = uniform_times(1000, 1e-9)
    states, speeds = heun(lambda x, t: u(one, x, t), z, grid)
    assert states[-1, 0, 0] == pytest.approx(1.0, abs=1e-6)
    way = z[0, 0] - states[-1, 0, 0]
    mean = lambda values: float(np.trapezoid(values[::-1, 0, 0], grid[::-1]))  # noqa: E731
    assert mean((speeds - way) ** 2) == pytest.approx(mean(speeds**2) - way**2, abs=1e-6)
    assert mean((speeds - way) ** 2) == pytest.approx(2 - 0.5 * math.pi, abs=1e-5)


def test_one_reflow_is_straight_on_the_line():
    """Eq. (18.13): quantiles of noise and data are in one order, their lines do not cross, one Euler step is exact."""
    share, fine = (np.arange(500) + 0.5) / 500, np.linspace(-6, 6, 50_001)
    z = ndtri(share)
    cdf = np.sum(LINE.weights * ndtr((fine[:, None] - LINE.means[:, 0]) / np.sqrt([0.1, 0.2])), axis=1)
    q = np.interp(share, cdf, fine)
    ends = last(simulate(RungeKutta(lambda x, t: u(LINE, x, t)), z[:, None], uniform_times(400, 1e-4), NO_NOISE))
    assert_close(ends[:, 0], q, 2e-3)  # T is the map of quantiles
    for N in (1, 7):
        x = z
        for t, to in pairwise(uniform_times(N)):
            x = x + (to - t) * np.interp(x, (1 - t) * q + t * z, z - q)
        assert_close(x, q, 1e-12)


def flow_jacobian(p, x, steps):
    """∇T at noises x, by the midpoint rule, (B, D, D)."""
    M = np.repeat(np.eye(p.dim)[:, None], len(x), axis=1)

    def both(x, M, t):
        slope = np.zeros_like(M) if t == 1 else (M + t**2 * p.score_jvp(x, M, 1 - t, t)) / (1 - t)
        return u(p, x, t), (M - slope) / t

    for t, to in pairwise(quadratic_times(steps, 1e-6)):
        v, dM = both(x, M, t)
        v, dM = both(x + (to - t) / 2 * v, M + (to - t) / 2 * dM, (t + to) / 2)
        x, M = x + (to - t) * v, M + (to - t) * dM
    return x, np.moveaxis(M, 0, 2)


def test_on_a_gaussian_the_new_lines_never_cross():
    """Eq. (18.14): T(z) = μ + Σ^½ z, whose eigenvalues are positive."""
    C = np.array([[1.0, 0.6], [0.6, 0.5]])
    p = GaussianMixture(np.ones(1), np.array([[1.0, -2.0]]), C[None])
    _, J = flow_jacobian(p, np.random.default_rng(0).standard_normal((3, 2)), 800)
    values, vectors = np.linalg.eigh(C)
    assert_close(J, (vectors * np.sqrt(values)) @ vectors.T, 1e-3)
    assert np.linalg.eigvalsh(J).min() > 0


@given(st.integers(0, 2**16))
def test_a_negative_eigenvalue_is_where_neighbouring_lines_meet(seed):
    """Eq. (18.14) for any matrix: det((1 - t) J + t I) changes sign in (0, 1) iff J has a negative eigenvalue."""
    J = np.random.default_rng(seed).standard_normal((2, 2))
    values = np.linalg.eigvals(J)
    negative = [v.real for v in values if abs(v.imag) < 1e-12 and v.real < 0]
    for v in negative:
        t = v / (v - 1)
        assert 0 < t < 1
        assert abs(np.linalg.det((1 - t) * J + t * np.eye(2))) < 1e-9 * (1 + np.abs(J).max()) ** 2
    if not negative:
        dets = [np.linalg.det((1 - t) * J + t * np.eye(2)) for t in np.linspace(0.001, 0.999, 50)]
        assert min(dets) > 0


@pytest.mark.slow
def test_no_mixture_was_found_on_which_reflow_crosses():
    """Eq. (18.14), searched: sixty mixtures of tilted, narrow components; none of their maps has a crossing."""
    for seed in range(60):
        p = random_mixture(seed, 2, 2 + seed % 3, "full", 0.01, 4.0, 2.0)
        _, J = flow_jacobian(p, np.random.default_rng(seed).standard_normal((200, 2)), 100)
        values = np.linalg.eigvals(J)
        assert not ((np.abs(values.imag) < 1e-12) & (values.real < 0)).any(), seed


# ------------------------------------------------------------------ one family of SDEs


@pytest.mark.parametrize("gamma2", [lambda t: 2 * t, lambda t: 0.5 + 0 * t, lambda t: t * (1 - t)])
def test_every_amount_of_noise_has_the_same_marginals(gamma2):
    """Eq. (18.15): drift u - ½γ²s and noise γ obey the Fokker-Planck equation of p_t, on the line, for any γ(t)."""
    t, x, h = 0.4, np.linspace(-3, 3, 601)[:, None], 1e-3

    def density(t, x):
        return np.exp(LINE.log_prob(x, 1 - t, t))

    def flux(x):
        drift = u(LINE, x, t) - 0.5 * gamma2(t) * LINE.score(x, 1 - t, t)
        return drift[:, 0] * density(t, x)

    rate = (density(t + h, x) - density(t - h, x)) / (2 * h)
    spread = (flux(x + h) - flux(x - h)) / (2 * h)
    second = (density(t, x + h) - 2 * density(t, x) + density(t, x - h)) / h**2
    # backwards in time the noise spreads: ∂_t p = -∂(drift p) - ½ γ² ∂²p
    assert_close(rate, -spread - 0.5 * gamma2(t) * second, 2e-4)


def test_with_noise_root_2t_the_drift_is_finite_at_the_top():
    """Eq. (18.15) with γ² = 2t: u - t s = 2ẑ - x̂₀, and at t = 1 it is 2x - E x₀."""
    x = np.linspace(-3, 3, 7)[:, None]
    z_hat = -0.3 * LINE.score(x, 0.7, 0.3)
    drift = u(LINE, x, 0.3) - 0.3 * LINE.score(x, 0.7, 0.3)
    assert_close(drift, 2 * z_hat - LINE.posterior_mean(x, 0.7, 0.3), 1e-12)


# ------------------------------------------------------------------ nothing left at t = 1


@given(
    st.sampled_from(sorted(PARAMETRISATIONS)), st.sampled_from(sorted(SDES)), st.floats(0.05, 0.95), st.floats(0.3, 3)
)
def test_each_prediction_by_the_guess_in_the_place_of_the_score(name, sde, t, std):
    """Eq. (18.16): q = A x + B x̂₀ is q = a x + b s, s = (α x̂₀ - x)/σ²."""
    sde = SDES[sde]
    (A, B), (a, b) = affine_in_mean(name, sde, t, std), affine(name, sde, t, std)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    assert pytest.approx(a - b / sigma**2, rel=1e-9, abs=1e-9 * (1 + abs(a))) == A
    assert pytest.approx(b * alpha / sigma**2, rel=1e-9, abs=1e-12) == B


def test_without_signal_the_noise_does_not_know_the_data_and_the_others_do():
    """Eq. (18.16) at α = 0: B is 0 for score and noise only; sizes are finite."""
    B = {name: affine_in_mean(name, SDE, 1.0, 1.5)[1] for name in PARAMETRISATIONS}
    assert {name for name, b in B.items() if b == 0} == {"score", "noise"}
    assert all(math.isfinite(size(name, SDE, 1.0, 1.5)) for name in PARAMETRISATIONS)
    t = np.array([0.3, 1.0])
    assert np.isfinite(np.array([affine_in_mean(name, SDE, t, 1.5) for name in PARAMETRISATIONS])).all()


@each_sampler
def test_a_sampler_starts_where_nothing_is_left_or_says_why_not(name):
    """From t = 1 with the exact score: the mean and variance that the step says, or a sentence."""
    step, x = SAMPLERS[name](SDE, ExactScore(LINE, SDE)), np.linspace(-2, 2, 5)[:, None]
    if name in UNABLE:
        with pytest.raises(ValueError, match="α is 0"):
            step(x, 1.0, 0.5, np.random.default_rng(0))
        return
    moved, _ = step(x, 1.0, 0.0 if "midpoint" not in name and "rk4" not in name else 0.1, np.random.default_rng(0))
    assert np.isfinite(moved).all()
    if "midpoint" not in name and "heun" not in name and "rk4" not in name:  # one step of order one to the end
        assert_close(moved, np.full((5, 1), 0.1), 1e-14)  # the mean of the data


@pytest.mark.parametrize(
    ("name", "noise"), [("ancestral", 0.5), ("ddim-eta1", 0.5), ("sde-dpm-solver++2m", 0.5), ("ancestral-large", 1.0)]
)
def test_a_first_step_with_noise_has_the_law_it_says(name, noise):
    """From t = 1 to ½ nothing of x is kept: N(½ E x₀, σ_s²), and with the large variance N(½ E x₀, σ_t²)."""
    step = SAMPLERS[name](SDE, ExactScore(GaussianMixture(np.ones(1), np.array([[3.0]]), np.ones(1)), SDE))
    law = law_of(step, [1.0, 0.5], Gaussian(np.zeros(1), np.eye(1)))
    assert law.mean[0] == pytest.approx(1.5, abs=1e-12)
    assert law.cov[0, 0] == pytest.approx(noise**2, abs=1e-12)


@each_sampler
def test_every_sampler_that_can_has_the_law_of_the_data_in_the_end(name):
    """On N(μ, v), without a sample: from t = 1 on two grids the exact law of a fine walk is the data's."""
    if name in UNABLE:
        return
    one = GaussianMixture(np.ones(1), np.array([[1.0]]), np.array([0.25]))
    step = SAMPLERS[name](SDE, ExactScore(one, SDE))
    for grid in (uniform_times(100, 1e-4), quadratic_times(100, 1e-4)):
        law = law_of(step, grid, Gaussian(np.zeros(1), np.eye(1)))
        allowed = 0.15 if "large" in name else 0.02
        assert abs(law.mean[0] - 1.0) < allowed
        assert abs(law.cov[0, 0] - 0.25) < allowed


@pytest.mark.parametrize("predict", PARAMETRISATIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_network_starts_where_nothing_is_left_unless_it_predicts_noise(predict, dtype):
    model = ScoreModel(MLP((2, 4, 2), embed=4), SDE, data_std=1.5, predict=predict)
    rng = np.random.default_rng(0)
    score = model.bind(model.init(rng, dtype))
    x = prior(SDE, (5, 2), rng, dtype)
    assert_close(score(x, 1.0), -x if predict != "noise" and predict != "score" else score(x, 1.0), 1e-6)
    walk = simulate(DDIM(SDE, score), x, [1.0, 0.5, 0.1], NO_NOISE)
    if predict in ("noise", "score"):
        with pytest.raises(ValueError, match="has learned nothing of the data"):
            last(walk)
    else:
        assert np.isfinite(last(walk)).all()
        assert_close(score.posterior_mean(x, 0.5), denoise(score, SDE, x, 0.5), 1e-5)
        assert np.isfinite(denoise(score, SDE, x, 1.0)).all()


def test_the_noise_learns_nothing_at_the_top_and_the_velocity_does():
    """The best line in x at t = 1, by quadrature: the noise is x itself; z - x₀ is x less the mean of the data."""
    nodes, w = gauss_hermite(6, 2)
    z, pieces = nodes[:, 1], zip(LINE.weights, LINE.means[:, 0], (0.1, 0.2), strict=True)
    x0, w = np.concatenate([(m + math.sqrt(c) * nodes[:, 0], k * w) for k, m, c in pieces], axis=1)
    z = np.concatenate([z, z])
    A = np.sqrt(w)[:, None] * np.stack([z, np.ones_like(z)], axis=1)  # x_1 = z
    for target, line in ((z, [1.0, 0.0]), (z - x0, [1.0, -0.1])):
        assert_close(np.linalg.lstsq(A, np.sqrt(w) * target, rcond=None)[0], np.array(line), 1e-12)


def test_scores_that_do_not_know_the_data_are_refused_there_by_name():
    x = np.ones((2, 1))
    for score in (lambda x, t: -x, Guided(lambda x, t: -x, ExactScore(LINE, SDE), 2.0)):
        with pytest.raises(ValueError, match="does not tell"):
            DDIM(SDE, score)(x, 1.0, 0.5, None)
    energy = EnergyModel(MLP((1, 4, 1), embed=4), SDE, predict="F")
    with pytest.raises(ValueError, match="learned nothing"):
        energy.bind(energy.init(np.random.default_rng(0), "float64")).posterior_mean(x, 1.0)
    other = GaussianMixture(np.ones(1), np.array([[1.1]]), np.ones(1))
    guided = Guided(ExactScore(LINE, SDE), ExactScore(other, SDE), 3.0)
    assert_close(DDIM(SDE, guided)(x, 1.0, 0.0, None)[0], np.full((2, 1), 0.1 + 3.0 * (1.1 - 0.1)), 1e-14)


@pytest.mark.parametrize(
    "call",
    [
        lambda: SDE.f(1.0), lambda: SDE.g(1.0), lambda: log_ratio(SDE, 1.0), lambda: log_snr_times(SDE, 4),
        lambda: karras_times(SDE, 4), lambda: UniformLogSNR().at(SDE, np.array([0.5])),
        lambda: log_likelihood(ExactScore(LINE, SDE), SDE, np.ones((1, 1))),
        lambda: elbo(ExactScore(LINE, SDE), SDE, np.ones((1, 1)), np.random.default_rng(0), 2),
        lambda: EulerMaruyama(Reverse(SDE, ExactScore(LINE, SDE)))(np.ones((1, 1)), 1.0, 0.5, np.random.default_rng(0)),
    ],
)  # fmt: skip
def test_what_is_infinite_at_the_top_is_said(call):
    with pytest.raises(ValueError, match=r"α is 0|α = 0"):
        call()


def test_grids_that_can_begin_at_the_top_do():
    assert uniform_times(3)[0] == quadratic_times(3)[0] == level_times(SDE, [1.0, 0.5])[0] == 1.0
    assert karras_times(SDE, 4, high=50.0)[0] == pytest.approx(50 / 51)
    t, _ = UniformTime().at(SDE, np.array([0.0, 1.0], dtype="float32"))
    assert t[1] < 1
    assert t.dtype == np.float32
    assert UniformTime().at(VP(), np.array([1.0]))[0][0] == 1.0
    assert prior_kl(SDE, np.array([[5.0]]))[0] == 0.0
    assert abs(prior_mismatch(LINE, SDE).value) < 1e-9


# ------------------------------------------------------------------ a little left: everything runs


@each_sampler
def test_with_a_thousandth_left_every_sampler_runs_on_every_grid(name):
    """Ends at N(½, ½), to the error of 60 steps, without a sample. In the first steps g² is 2000: from t = 0.9 on."""
    sde = SDES["rectified"]
    one = GaussianMixture(np.ones(1), np.array([[0.5]]), np.array([0.5]))
    step, start = SAMPLERS[name](sde, ExactScore(one, sde)), one.diffuse(sde.alpha(0.9), sde.sigma(0.9))
    grids = [uniform_times(60, 1e-3), quadratic_times(60), log_snr_times(sde, 60), karras_times(sde, 60)[:-1]]
    for grid in grids:
        below = [0.9, *(t for t in grid if t < 0.89)]
        law = law_of(step, below, Gaussian(start.means[0], start.covariances.reshape(1, 1)))
        assert abs(law.mean[0] - 0.5) < 0.05
        assert abs(law.cov[0, 0] - 0.5) < 0.15
        if name != "euler-maruyama":  # unstable above, where a step is longer than 1/g²
            whole = law_of(step, grid, Gaussian(np.zeros(1), np.eye(1)))
            assert np.isfinite(whole.cov).all()


def test_with_a_thousandth_left_the_likelihood_is_that_of_the_data():
    sde, x = SDES["rectified"], np.linspace(-3, 2, 6)[:, None]
    found = log_likelihood(ExactScore(LINE, sde), sde, x, t_min=1e-4).value
    assert_close(
        found, LINE.log_prob(x, sde.alpha(1e-4), sde.sigma(1e-4)), 1e-3
    )  # α(1) x₀ x₁, the mismatch of the prior
    assert prior_mismatch(LINE, sde).value <= 0.5 * 1e-6 * 3


# ------------------------------------------------------------------ starts below t = 1


@given(st.floats(-3, 3), st.floats(0.05, 2), st.floats(0.1, 0.99), st.floats(-3, 3))
def test_a_start_below_the_top_from_the_prior_or_from_a_picture(mu, v, t, y):
    """Eqs. (18.17), (18.18): the flow from t to 0 on N(μ, v) is affine; what it makes of N(0, 1) and of α y + σ z."""
    a, s = 1 - t, t
    v0 = a**2 * v + s**2
    one = GaussianMixture(np.ones(1), np.array([[mu]]), np.array([v]))
    x = np.array([[0.0], [1.0], [a * y], [a * y + s]])
    grid = [r * t for r in quadratic_times(120, 1e-8)]
    ends, _ = heun(lambda x, t: u(one, x, t), x, grid)
    end = ends[-1][:, 0]
    scale = 3e-3 * (1 + abs(mu) + abs(y))
    assert abs(end[0] - (mu - a * mu * math.sqrt(v / v0))) < scale
    assert abs(end[1] - end[0] - math.sqrt(v / v0)) < scale
    assert abs(end[2] - (mu + a * math.sqrt(v / v0) * (y - mu))) < scale
    assert abs((end[3] - end[2]) ** 2 - s**2 * v / v0) < scale


def test_the_reverse_sde_forgets_a_wrong_start_and_the_flow_does_not():
    """Eq. (18.17): from t = 0.8 with N(0, 1); the error in the mean, after the flow and after the reverse SDE."""
    one = GaussianMixture(np.ones(1), np.array([[2.0]]), np.array([0.25]))
    grid = [t for t in uniform_times(400, 1e-3) if t <= 0.8]
    score = ExactScore(one, SDE)
    flow, noisy = (
        law_of(step, grid, Gaussian(np.zeros(1), np.eye(1))).mean[0]
        for step in (RungeKutta(Reverse(SDE, score, 0.0).drift), EulerMaruyama(Reverse(SDE, score)))
    )
    assert abs(flow - (2 - 0.4 * math.sqrt(0.25 / 0.65))) < 1e-2
    assert abs(noisy - 2) < 0.3 * abs(flow - 2)


def test_convert_and_correctors_know_the_line():
    x, score = np.array([[0.5]]), ExactScore(LINE, SDE)
    assert_close(convert(score(x, 0.4), x, 0.4, SDE, "score", "velocity"), u(LINE, x, 0.4), 1e-12)
    step = Then(DDIM(SDE, score), Langevin(score, 0.01))
    assert np.isfinite(last(simulate(step, x, uniform_times(5), np.random.default_rng(0)))).all()
