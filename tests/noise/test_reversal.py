"""Chapter 8: time reversal, for all six SDEs: which laws are kept, which are not, and what flows do to points.

Residuals of partial differential equations are exact: derivatives in t and x are complex steps of the code's own drift.
`test_sde_laws` holds the same residuals for VP and VE.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import ndtr

from refscore import OU, VP, EulerMaruyama, ExactScore, GaussianMixture, Reverse, SubVP
from refscore.laws.examples import mixture
from refscore.likelihood.adaptive import solve
from refscore.likelihood.flow import FixedSteps, Flow, decode, encode
from refscore.noise.reverse import denoise
from refscore.noise.sde import SDES, log_ratio
from tests.oracles.affine import C, M, probe
from tests.oracles.close import assert_close
from tests.oracles.equations import H, check_score_equation, divergence_of, dt, terms
from tests.oracles.marks import each_sde
from tests.oracles.mixtures import size_of_jacobian
from tests.oracles.orders import up
from tests.oracles.strategies import every_sde, mixtures, other_sdes, points, random_mixture, seeds, times

# flows of hundreds of steps: two SDEs in every run, all six before a release
each_flow = pytest.mark.parametrize(
    "sde", [pytest.param(v, id=n, marks=() if n in ("ve", "subvp") else pytest.mark.slow) for n, v in SDES.items()]
)
lams = st.floats(0.0, 3.0)


def nothing(x, t):
    """The score of nobody: `Reverse` of it is the forward process, told to run backwards by a change of sign."""
    return 0 * x


# ------------------------------------------------------------------ equations of the marginals


@given(mixtures(), other_sdes, times, seeds)
def test_marginals_solve_the_fokker_planck_equation(p, sde, t, seed):
    """Eqs. (8.2), (8.3): ∂_t log p + D f + f x·s - ½ g² (div s + |s|²) = 0."""
    x, change, s, div = terms(p, sde, t, seed)
    f, g = sde.f(t), sde.g(t)
    parts = [change, p.dim * f + 0 * change, f * np.sum(x * s, axis=1), -0.5 * g**2 * (div + np.sum(s * s, axis=1))]
    inner = 0.5 * g**2 * (size_of_jacobian(p, x, sde.alpha(t), sde.sigma(t)) + np.sum(s * s, axis=1))
    assert_close(sum(parts), 0, 1e-11 * (sum(np.abs(part) for part in parts) + inner))


@given(mixtures(max_dim=3), other_sdes, times, seeds)
def test_scores_solve_the_score_equation(p, sde, t, seed):
    """Eq. (8.3): its gradient, ∂_t s = ∇[½ g² (div s + |s|²) - f x·s]: no density, only scores."""
    check_score_equation(p, sde, t, seed)


def residual(p, process, sde, t, seed):
    """Of the Fokker-Planck equation of a process run backwards, divided by p; and the size of its terms."""
    x, change, s, div_s = terms(p, sde, t, seed)
    b, div_b = process.drift(x, t), divergence_of(lambda x: process.drift(x, t), x)
    c = np.asarray(process.noise(x, t))
    parts = [change, div_b, np.sum(b * s, axis=1), 0.5 * c**2 * div_s, 0.5 * c**2 * np.sum(s * s, axis=1)]
    inner = (sde.g(t) ** 2 + c**2) * size_of_jacobian(p, x, sde.alpha(t), sde.sigma(t))
    return np.abs(sum(parts)), sum(np.abs(part) for part in parts) + inner


@given(mixtures(), other_sdes, times, lams, seeds)
def test_every_reversal_keeps_the_marginals(p, sde, t, lam, seed):
    """Eqs. (8.4), (8.5): ∂_t log p + div b + b·s + ½ c² (div s + |s|²) = 0 for the coded b and c of any λ."""
    off, scale = residual(p, Reverse(sde, ExactScore(p, sde), lam), sde, t, seed)
    assert np.all(off <= 1e-10 * scale)


@given(mixtures(), other_sdes, times, seeds)
def test_probability_flow_carries_the_mass(p, sde, t, seed):
    """Eq. (8.6): continuity, ∂_t log p + div v + v·s = 0, without noise."""
    process = Reverse(sde, ExactScore(p, sde), lam=0.0)
    off, scale = residual(p, process, sde, t, seed)
    assert np.all(off <= 1e-10 * scale)
    assert process.noise(np.ones((1, p.dim)), t) == 0.0


def test_the_residuals_see_half_a_score_and_a_wrong_sign():
    """The power of the tests above."""
    p, sde = random_mixture(1, 2, 3), VP()
    score = ExactScore(p, sde)
    for wrong in (lambda x, t: 1.01 * score(x, t), lambda x, t: -score(x, t), nothing):
        off, scale = residual(p, Reverse(sde, wrong), sde, 0.3, 0)
        assert np.max(off / scale) > 1e-3


# ------------------------------------------------------------------ a change of sign reverses no SDE


def sign_changed_variance(sde, v0, t):
    """α_t² (v₀ + 2 ς₁² - ς_t²), ς = σ/α."""
    tau = lambda t: (sde.sigma(t) / sde.alpha(t)) ** 2  # noqa: E731
    return sde.alpha(t) ** 2 * (v0 + 2 * tau(1.0) - tau(t))


@given(every_sde, times, st.floats(0.1, 5.0))
def test_the_variance_of_a_sign_change_solves_its_ode(sde, t, v0):
    """Eq. (8.1): backwards, dV/dt = 2 f V - g², from the true variance at t = 1; the truth has + g²."""
    v = sign_changed_variance(sde, v0, t)
    f, g, a1, s1 = sde.f(t), sde.g(t), sde.alpha(1.0), sde.sigma(1.0)
    assert sign_changed_variance(sde, v0, 1.0) == pytest.approx(a1**2 * v0 + s1**2, rel=1e-12)
    change = dt(lambda t: sign_changed_variance(sde, v0, t), t)[0]
    assert change == pytest.approx(2 * f * v - g**2, rel=1e-10, abs=1e-10 * (abs(2 * f * v) + g**2))


def end_variance(process, sde, v, N):
    """Of Euler-Maruyama from variance v at t = 1 down to 0, each step probed."""
    step = EulerMaruyama(process)
    for t, s in pairwise(up(N)[::-1]):
        (A,), (B,), _ = (m.ravel() for m in probe(lambda x, rng, t=t, s=s: step(x, t, s, rng)[0], 1, 1))
        v = A**2 * v + B**2
    return float(v)


@pytest.mark.parametrize(
    ("sde", "end"), [(VP(), 46_310), (VP(1.0, 1.0), 2 * math.e - 1), (OU(1.0, 1.0), 7.39)], ids=str
)
def test_an_sde_is_not_reversed_by_a_sign_change(sde, end):
    """Eq. (8.1): data N(0, 1) under VP come back with variance 2 e^B - 1; with the score they come back with 1."""
    p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
    v1 = sde.alpha(1.0) ** 2 + sde.sigma(1.0) ** 2
    exact = sign_changed_variance(sde, 1.0, 0.0)
    assert exact == pytest.approx(end, rel=2e-3)
    wrong = [end_variance(Reverse(sde, nothing), sde, v1, N) - exact for N in (400, 800)]
    right = [end_variance(Reverse(sde, ExactScore(p, sde)), sde, v1, N) - 1 for N in (400, 800)]
    assert abs(wrong[1]) < 0.1 * exact
    for first, second in (wrong, right):
        assert abs(first / second - 2) <= 0.1  # order one: these limits are the true ones
    assert abs(right[1]) < 0.01


# ------------------------------------------------------------------ same marginals, different paths


def two_times(sde, v0, lam, t, s):
    """Slope and variance of x(s) given x(t), s < t, for data N(0, v₀): the moment equations of the coded process."""
    p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.full(1, v0))
    process = Reverse(sde, ExactScore(p, sde), lam)
    rate = lambda t: float(process.drift(np.ones((1, 1)), t)[0, 0])  # noqa: E731

    def rhs(t, y):
        return [rate(t), 2 * rate(t) * y[1] - float(process.noise(np.ones((1, 1)), t)) ** 2]

    log_slope, variance = solve_ivp(rhs, (t, s), [0.0, 0.0], "DOP853", rtol=1e-11, atol=1e-14).y[:, -1]
    return math.exp(log_slope), float(variance)


@each_sde
@pytest.mark.parametrize("lam", [0.0, 0.5, 1.0, 2.0])
def test_lambda_sets_how_much_a_path_remembers(sde, lam):
    """Eq. (8.7): corr(x_u, x_t) = [(ς_u² + V₀)/(ς_t² + V₀)]^{λ²/2}: 1 for λ = 0, the forward one for λ = 1."""
    v0, t, s = 0.7, 0.8, 0.5

    def v(t):
        return sde.alpha(t) ** 2 * v0 + sde.sigma(t) ** 2

    slope, variance = two_times(sde, v0, lam, t, s)
    correlation = slope * math.sqrt(v(t) / v(s))
    share = (v(s) / sde.alpha(s) ** 2) / (v(t) / sde.alpha(t) ** 2)
    assert correlation == pytest.approx(share ** (lam**2 / 2), rel=1e-9, abs=1e-12)
    assert slope**2 * v(t) + variance == pytest.approx(v(s), rel=1e-9)  # the marginal, whatever λ
    if lam == 1:
        forward = sde.alpha(t) / sde.alpha(s) * math.sqrt(v(s) / v(t))
        assert correlation == pytest.approx(forward, rel=1e-9)


@each_sde
def test_anderson_has_the_transitions_of_bayes(sde):
    """λ = 1 and no other: x(s) given x(t) has the conditional law of the forward process, hence so have whole paths."""
    v0, t, s = 0.7, 0.8, 0.5
    a = sde.alpha(t) / sde.alpha(s)
    prior, noise = sde.alpha(s) ** 2 * v0 + sde.sigma(s) ** 2, sde.sigma(t) ** 2 - a**2 * sde.sigma(s) ** 2
    gain = a * prior / (a**2 * prior + noise)
    assert two_times(sde, v0, 1.0, t, s) == pytest.approx((gain, (1 - a * gain) * prior), rel=1e-9)
    assert abs(two_times(sde, v0, 2.0, t, s)[0] / gain - 1) > 0.01


def test_stationary_paths_forget_at_the_rate_lambda_squared():
    """Eq. (8.7) for VP and data N(0, I): corr = e^{-½λ²(B(t) - B(u))}."""
    sde = VP(1.0, 3.0)
    for lam in (0.0, 1.0, 2.0):
        slope, _ = two_times(sde, 1.0, lam, 0.9, 0.4)
        assert slope == pytest.approx(math.exp(-0.5 * lam**2 * (0.5 + 0.65)), rel=1e-9)


# ------------------------------------------------------------------ the posterior mean is a martingale


@given(mixtures(max_dim=3), every_sde, times, seeds)
def test_denoise_is_the_posterior_mean(p, sde, t, seed):
    """Eq. (1.13) under every SDE: `denoise` of the exact score, against the posterior means of the components."""
    a, s = sde.alpha(t), sde.sigma(t)
    x = points(p, a, s, seed)
    exact, size = p.posterior_mean(x, a, s), np.abs(x).max() + s**2 * np.abs(p.score(x, a, s)).max()
    assert_close(denoise(ExactScore(p, sde), sde, x, t), exact, 1e-11 * (1 + size) / a)


def generator_of_denoiser(p, sde, lam, t, seed):
    """∂_t D + b·∇D - ½ c² ∆D, D = E[x₀|x_t], for the coded b and c; ∆D = (σ²/α) ∇ div s. And the size of its terms."""
    a, s = sde.alpha(t), sde.sigma(t)
    x, score = points(p, a, s, seed), ExactScore(p, sde)
    process, eye = Reverse(sde, score, lam), np.eye(p.dim)
    change = dt(lambda t: p.posterior_mean(x, sde.alpha(t), sde.sigma(t)), t)
    b, c = process.drift(x, t), float(process.noise(x, t))
    along = sum(b[:, d : d + 1] * p.posterior_mean(x + 1j * H * e, a, s).imag / H for d, e in enumerate(eye))
    laplacian = s**2 / a * np.stack([p.divergence(x + 1j * H * e, a, s).imag / H for e in eye], axis=1)
    parts = [change, along, -0.5 * c**2 * laplacian]
    J, size = size_of_jacobian(p, x, a, s)[:, None], np.abs(x).max()
    # D = (x + σ² s)/α: terms of ∂_t and b·∇ that cancel against each other before they meet the Laplacian
    rate, clock = abs(sde.f(t)), (1 + lam**2) * sde.g(t) ** 2
    inner = (clock * (np.sqrt(J) + s**2 * J**1.5) + rate * (size + s**2 * J * size)) / a
    return np.abs(sum(parts)), sum(np.abs(part) for part in parts) + inner


@given(mixtures(max_dim=3), every_sde, times, seeds)
def test_the_posterior_mean_is_a_martingale_of_the_reverse_sde(p, sde, t, seed):
    """Eq. (8.8): ∂_t D + b·∇D - ½ g² ∆D = 0 at every point, for λ = 1."""
    off, scale = generator_of_denoiser(p, sde, 1.0, t, seed)
    assert np.all(off <= 1e-11 * scale)


def test_of_no_other_reversal_is_it_a_martingale():
    p, sde = random_mixture(1, 2, 3), VP()
    for lam in (0.0, 0.9, 2.0):
        off, scale = generator_of_denoiser(p, sde, lam, 0.2, 0)
        assert np.max(off / scale) > 1e-3


def denoised_mean(N, end=0.1):
    """E D(x_end) under Euler-Maruyama of the reverse SDE, from the true law of one Gaussian at t = 1: exact."""
    sde = VP()
    p = GaussianMixture(np.ones(1), np.array([[1.5, -0.5]]), np.array([[[0.8, 0.3], [0.3, 0.4]]]))
    score, mean = ExactScore(p, sde), sde.alpha(1.0) * p.means[0]
    step = EulerMaruyama(Reverse(sde, score))
    grid = np.linspace(1, end, N + 1).tolist()
    for t, s in pairwise(grid):
        A, _, c = probe(lambda x, rng, t=t, s=s: step(x, t, s, rng)[0], 2, 1)
        mean = A @ mean + c
    return denoise(score, sde, mean[None, :], end)[0] - p.means[0]  # D is affine: E D(x) = D(E x)


def test_euler_maruyama_keeps_the_mean_of_the_denoiser_to_order_one():
    """Eq. (8.8): a diagnostic of any run, E D(x_t, t) = E x₀, with an error O(1/N)."""
    errors = np.stack([denoised_mean(N) for N in (100, 200, 400)])
    assert np.max(np.abs(errors)) < 0.1
    assert_close(-np.diff(np.log2(np.abs(errors)), axis=0), 1, 0.05, errors)


# ------------------------------------------------------------------ the flow


def cdf(p, x, alpha, sigma):
    """Distribution function of α x₀ + σ z in one dimension."""
    sd = np.sqrt(alpha**2 * p.variances[:, 0] + sigma**2)
    return ndtr((x[:, :1] - alpha * p.means[:, 0]) / sd) @ p.weights


@each_flow
def test_the_flow_in_one_dimension_is_quantile_transport(sde):
    """Eq. (8.9): F_t(x(t)) is constant, so the end is F_ε⁻¹(F_1(x(1))): an exact answer for any mixture."""
    p, low = random_mixture(5, 1, 3, low=0.05, high=0.5), float(sde.time_at_log_ratio(math.log(0.05)))
    a, s, a1, s1 = sde.alpha(low), sde.sigma(low), sde.alpha(1.0), sde.sigma(1.0)
    x1 = a1 * p.means.mean() + np.sqrt(a1**2 * 4 + s1**2) * np.linspace(-1.5, 1.5, 6)[:, None]
    down = decode(ExactScore(p, sde), sde, x1, low, FixedSteps(sde, 500))
    quantile = cdf(p, x1, a1, s1)
    assert cdf(p, down, a, s) == pytest.approx(quantile, abs=1e-8)
    for x, u in zip(down[:, 0], quantile, strict=True):
        inverse = brentq(lambda y, u=u: float(cdf(p, np.array([[y]]), a, s)[0]) - u, -30, 30, xtol=1e-13)
        assert x == pytest.approx(inverse, abs=1e-8)


@pytest.mark.parametrize("name", ["subvp", "cosine"])
def test_adaptive_steps_find_the_same_quantiles(name):
    """Eq. (8.9), by SciPy's solver."""
    sde, p, low = SDES[name], random_mixture(5, 1, 3, low=0.05, high=0.5), 0.05
    x1 = np.linspace(-1.5, 1.5, 3)[:, None]
    end = solve(Reverse(sde, ExactScore(p, sde), lam=0.0).drift, x1, 1.0, low, rtol=1e-11, atol=1e-12)
    there, here = cdf(p, x1, sde.alpha(1.0), sde.sigma(1.0)), cdf(p, end, sde.alpha(low), sde.sigma(low))
    assert here == pytest.approx(there, abs=1e-9)


@each_flow
def test_the_flow_of_a_gaussian_is_closed(sde):
    """Eq. (8.10): x(s) = α_s m + S_s^½ S_t^{-½} (x(t) - α_t m), S_t = α_t² C + σ_t² I."""
    p, low = GaussianMixture(np.ones(1), M[None, :], C[None, ...]), float(sde.time_at_log_ratio(math.log(0.02)))
    lam, U = np.linalg.eigh(C)
    x1 = sde.prior_std * np.random.default_rng(0).standard_normal((5, 2))

    def spread(t):
        return np.sqrt(sde.alpha(t) ** 2 * lam + sde.sigma(t) ** 2)

    exact = sde.alpha(low) * M + ((x1 - sde.alpha(1.0) * M) @ U * spread(low) / spread(1.0)) @ U.T
    found = decode(ExactScore(p, sde), sde, x1, low, FixedSteps(sde, 300))
    assert_close(found, exact, 1e-8 * (1 + np.max(np.abs(exact))))


@each_sde
def test_flows_of_all_sdes_are_one_flow(sde):
    """Eq. (7.12): x/α at equal σ/α. The flow of any SDE is that of linear VE, read through the lens."""
    p, ve = mixture("tilted"), SDES["linear-ve"]
    high, low = math.log(5.0), math.log(0.05)
    high = min(high, float(log_ratio(sde, 1.0)))

    def run(sde):
        t, s = (min(1.0, float(sde.time_at_log_ratio(r))) for r in (high, low))
        x = sde.alpha(t) * start
        return solve(Reverse(sde, ExactScore(p, sde), lam=0.0).drift, x, t, s, 1e-11, 1e-12) / sde.alpha(s)

    start = math.exp(high) * np.array([[0.3, -0.8]])
    assert_close(run(sde), run(ve), 1e-9)


@each_flow
def test_the_flow_run_backwards_undoes_itself(sde):
    """Eq. (8.6): an ODE is reversed by running it backwards; 1e-7 over all of time."""
    p, low = mixture("tilted"), float(sde.time_at_log_ratio(math.log(0.05)))
    x = p.sample(np.random.default_rng(0), 20)
    score, steps = ExactScore(p, sde), FixedSteps(sde, 180)
    back = decode(score, sde, encode(score, sde, x, low, steps), low, steps)
    assert_close(back, x, 1e-7)


@each_flow
def test_volumes_change_by_the_integral_of_the_divergence(sde):
    """Eqs. (8.6), (8.11): log|det ∂x(1)/∂x(t)| = ∫ div v along the path, det by differences of the flow itself."""
    p, low = mixture("tilted"), float(sde.time_at_log_ratio(math.log(0.1)))
    score, steps, h = ExactScore(p, sde), FixedSteps(sde, 280), 1e-4
    x = p.sample(np.random.default_rng(0), 4)
    moved = np.concatenate([x + sign * h * e for e in np.eye(2) for sign in (1, -1)])
    ends = encode(score, sde, moved, low, steps).reshape(2, 2, 4, 2)  # (coordinate, sign, sample, D)
    J = np.transpose(ends[:, 0] - ends[:, 1], (1, 2, 0)) / (2 * h)
    flow = Flow(sde, score, (2,))
    y = steps(flow, np.concatenate([x, np.zeros((4, 1))], axis=1), low, 1.0)
    assert np.linalg.slogdet(J)[1] == pytest.approx(y[:, 2], abs=1e-5)  # differences: h², times third derivatives
    change = p.log_prob(y[:, :2], sde.alpha(1.0), sde.sigma(1.0)) - p.log_prob(x, sde.alpha(low), sde.sigma(low))
    assert change == pytest.approx(-y[:, 2], abs=1e-6)  # of RK4 with 280 steps; chapter 11 takes more


def test_sub_vp_and_vp_share_their_drift_and_not_their_flow():
    x = np.ones((1, 1))
    p = random_mixture(0, 1, 2)
    vp, sub = VP(), SubVP()
    assert vp.f(0.3) == sub.f(0.3)
    v, w = (Reverse(sde, ExactScore(p, sde), lam=0.0).drift(x, 0.3)[0, 0] for sde in (vp, sub))
    assert abs(v - w) > 1e-3
