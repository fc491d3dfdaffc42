"""Chapter 7: ODE and SDE methods by their orders, and what is true of all linear SDEs of the library.

`test_sde_laws` looks closely at VP and VE; here are the other four, and laws that tie the six together. Derivatives in
t are complex steps. Orders come from exact laws, without a sample.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from refscore import OU, VE, VP, EulerMaruyama, Forward, GaussianMixture, RungeKutta, SubVP, simulate
from refscore.laws.expectation import gauss_legendre
from refscore.noise.interpolant import Rectified
from refscore.noise.prior import prior_mismatch, prior_mismatch_bound
from refscore.noise.sde import SDES, CosineVP, LinearVE, log_ratio
from refscore.noise.suggest import suggest_beta_max, suggest_sigma_max
from refscore.sampling.loop import NO_NOISE, last
from refscore.sampling.solvers import TABLEAUX
from tests.oracles.affine import probe
from tests.oracles.close import assert_close
from tests.oracles.equations import dt
from tests.oracles.marks import each_sde
from tests.oracles.mixtures import covariance, full, size_of_jacobian
from tests.oracles.orders import slopes, up
from tests.oracles.quadrature import gauss_hermite
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import assert_within
from tests.oracles.strategies import every_sde, mixtures, other_sdes, points, random_mixture, seeds, times, unit

# ------------------------------------------------------------------ ordinary differential equations


def velocity(x, t):
    """dx/dt = -2 (1 + t) x², solved by x(t) = x₀/(1 + (2t + t²) x₀): neither linear nor autonomous."""
    return -2 * (1 + t) * x**2


X0 = np.array([[0.5], [1.0], [2.0]])


@pytest.mark.parametrize("name", TABLEAUX)
def test_runge_kutta_methods_have_their_orders(name):
    """Eqs. (7.1), (7.2): Euler 1, midpoint 2, Heun 2, RK4 4, on a plain ODE with a closed solution."""
    tableau = TABLEAUX[name]
    assert tableau.order == {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}[name]
    errors = [
        float(np.max(np.abs(last(simulate(RungeKutta(velocity, tableau), X0, up(N), NO_NOISE)) - X0 / (1 + 3 * X0))))
        for N in (200, 400, 800)
    ]
    assert errors[-1] > 1e-14  # still above rounding
    assert_close(slopes(errors), tableau.order, 0.05, errors)


def test_an_ode_is_reversed_by_a_sign_change():
    """Eq. (7.1): dx/dt = v up, then the same v down, or -v in the time 1 - t: back at the start, to its order."""
    errors = []
    for N in (50, 100):
        top = last(simulate(RungeKutta(velocity), X0, up(N), NO_NOISE))
        back = last(simulate(RungeKutta(velocity), top, up(N)[::-1], NO_NOISE))
        mirrored = last(simulate(RungeKutta(lambda x, r: -velocity(x, 1 - r)), top, up(N), NO_NOISE))
        assert back == pytest.approx(mirrored, abs=1e-14)
        errors.append(float(np.max(np.abs(back - X0))))
    assert 1e-12 < errors[1] < 1e-6
    assert slopes(errors)[0] >= 4 - 0.1


# ------------------------------------------------------------------ noise


@pytest.mark.parametrize("grid", [up(1), up(7), (np.linspace(0, 1, 12) ** 2).tolist()], ids=len)
def test_only_the_square_root_of_the_step_adds_up(grid):
    """Eq. (7.3): the variance of w(1) is 1 on every grid; with h in place of √h it would be Σ h², gone as N grows."""

    class Noise:
        drift = staticmethod(lambda x, t: 0 * x)
        noise = staticmethod(lambda x, t: 1.0)

    step = EulerMaruyama(Noise())
    A, B, c = probe(lambda x, rng: last(simulate(step, x, grid, rng)), 1, len(grid) - 1)
    assert A[0, 0] == pytest.approx(1.0, abs=1e-15)
    assert c[0] == 0.0
    assert np.sum(B**2) == pytest.approx(1.0, abs=1e-14)
    assert B.ravel() == pytest.approx(np.sqrt(np.diff(grid)), abs=1e-15)
    assert np.sum(np.diff(grid) ** 2) <= max(np.diff(grid))


def geometric_brownian_errors(mu, c, N):
    """Weak |E x_N - E x(1)| and strong √E|x_N - x(1)|² of dx = µ x dt + c x dw from 1, both exact.

    One step multiplies by m(z), the true solution by e^{(µ - c²/2) h + c√h z}: so the three second moments are N-th
    powers of expectations over one z, by Gauss-Hermite of the code's own step.
    """

    class Geometric:
        drift = staticmethod(lambda x, t: mu * x)
        noise = staticmethod(lambda x, t: c * x)

    (nodes, w), h = gauss_hermite(60, 1), 1 / N
    z = nodes[:, 0]
    m = EulerMaruyama(Geometric())(np.ones((len(z), 1)), 0.0, h, ReplayRng(nodes))[0][:, 0]
    true = np.exp((mu - c * c / 2) * h + c * math.sqrt(h) * z)
    weak = abs(float(w @ m) ** N - math.exp(mu))
    strong = float(w @ m**2) ** N - 2 * float(w @ (m * true)) ** N + float(w @ true**2) ** N
    return weak, math.sqrt(strong)


def test_euler_maruyama_has_strong_order_one_half_and_weak_order_1_with_multiplicative_noise():
    """Eqs. (7.4), (7.5), (7.6): geometric Brownian motion, without a sample."""
    weak, strong = np.array([geometric_brownian_errors(0.5, 0.8, N) for N in (128, 256, 512)]).T
    assert_close(slopes(list(weak)), 1, 0.02, weak)
    assert_close(slopes(list(strong)), 0.5, 0.02, strong)
    assert strong[-1] > 10 * weak[-1]


def strong_error(sde, N):
    """√E|x_N - x(1)|² from x₀ = 0, exact: both are linear in the same Brownian path.

    x(1) = α₁ ∫ g/α dw; x_N = Σ b_n z_n, z_n = Δw_n/√h, b_n by probing the code: a step adds the integral of
    (α₁ g(t)/α(t) - b_n/√h)² dt.
    """
    grid = up(N)
    step = EulerMaruyama(Forward(sde))
    _, B, _ = probe(lambda x, rng: last(simulate(step, x, grid, rng)), 1, N)
    node, weight = gauss_legendre(np.zeros(1), 8)
    h, b, a1 = 1 / N, B.ravel(), sde.alpha(1.0)
    t = np.asarray(grid[:-1])[:, None] + h * node
    return math.sqrt(h * np.sum(weight * (a1 * sde.g(t) / sde.alpha(t) - b[:, None] / math.sqrt(h)) ** 2))


@pytest.mark.parametrize("sde", [OU(), VP(0.1, 5.0), SubVP(0.1, 5.0), VE(0.1, 5.0)], ids=str)
def test_euler_maruyama_has_strong_order_1_with_additive_noise(sde):
    """Eqs. (7.4), (7.5): the noise does not look at x, and the order is one, not one half."""
    errors = [strong_error(sde, N) for N in (200, 400)]
    assert abs(slopes(errors)[0] - 1) <= 0.03, errors  # the next term, h², is still 1 %


# ------------------------------------------------------------------ Ornstein-Uhlenbeck


@given(st.floats(0.1, 20.0), st.floats(0.1, 20.0), unit)
def test_ornstein_uhlenbeck_is_solved(theta, c, t):
    """Eq. (7.7): mean e^{-θt} x₀, variance c²/2θ (1 - e^{-2θt}); the variance is ∫ (c e^{-θ(t-u)})² du."""
    sde = OU(theta, c)
    node, weight = gauss_legendre(np.zeros(1), 60)
    assert sde.alpha(t) == pytest.approx(math.exp(-theta * t), rel=1e-15)
    assert sde.sigma(t) ** 2 == pytest.approx(t * float(weight @ (c * np.exp(-theta * t * (1 - node))) ** 2), rel=1e-12)


@given(mixtures(max_dim=3), st.floats(0.1, 5.0))
def test_ornstein_uhlenbeck_forgets_its_start(p, c):
    """Eq. (7.7): with θ = 300 its law at t = 1 is N(0, c²/2θ I) from any start, score and all."""
    sde = OU(300.0, c * math.sqrt(600.0))
    assert sde.prior_std == pytest.approx(c, rel=1e-15)
    x = c * np.random.default_rng(0).standard_normal((5, p.dim))
    assert p.score(x, sde.alpha(1.0), sde.sigma(1.0)) == pytest.approx(-x / c**2, rel=1e-12, abs=1e-12 / c)


# ------------------------------------------------------------------ linear SDEs: the two equations


@given(other_sdes)
def test_the_kernel_of_every_sde_solves_the_moment_equations(sde):
    """Eq. (7.8): dα/dt = f α, dσ²/dt = 2 f σ² + g² from α = 1, σ = 0, by DOP853."""
    assert sde.alpha(0.0) == 1.0
    assert sde.sigma(0.0) == 0.0

    def rhs(t, y):
        f, g = sde.f(t), sde.g(t)
        return [f, 2 * f * y[1] + g**2]

    at = np.linspace(0, 1, 5)
    size = sde.sigma(1.0) ** 2
    # the cosine's f has a pole just beyond t = 1: steps of at most 1/32, as between steps the solver interpolates
    solved = solve_ivp(rhs, (0, 1), [0.0, 0.0], "DOP853", at, rtol=1e-12, atol=1e-15 * size, max_step=1 / 32)
    assert sde.alpha(at) == pytest.approx(np.exp(solved.y[0]), rel=1e-10)
    assert sde.sigma(at) ** 2 == pytest.approx(solved.y[1], rel=1e-10, abs=1e-14 * size)


@given(other_sdes, times)
def test_closed_forms_solve_the_moment_equations_at_every_time(sde, t):
    """Eq. (7.8), by complex step in t."""
    f, g, a, s = sde.f(t), sde.g(t), sde.alpha(t), sde.sigma(t)
    assert dt(sde.alpha, t)[0] == pytest.approx(f * a, rel=1e-12, abs=1e-300)
    assert dt(lambda t: sde.sigma(t) ** 2, t)[0] == pytest.approx(2 * f * s**2 + g**2, rel=1e-10, abs=1e-12 * g**2)


@each_sde
def test_a_newcomer_to_the_table_solves_the_moment_equations_too(sde):
    """The two equations above, for an SDE whose parameters no strategy draws yet."""
    for t in (0.05, 0.4, 0.95):
        f, g, a, s = sde.f(t), sde.g(t), sde.alpha(t), sde.sigma(t)
        assert dt(sde.alpha, t)[0] == pytest.approx(f * a, rel=1e-12, abs=1e-300)
        assert dt(lambda t: sde.sigma(t) ** 2, t)[0] == pytest.approx(2 * f * s**2 + g**2, rel=1e-10)


@given(every_sde, times)
def test_noise_is_collected_in_units_of_the_signal(sde, t):
    """Eq. (7.9): σ²/α² = ∫₀ᵗ g²/α², so that x/α is Brownian motion on the clock σ²/α²."""
    assert dt(lambda t: (sde.sigma(t) / sde.alpha(t)) ** 2, t)[0] == pytest.approx(
        (sde.g(t) / sde.alpha(t)) ** 2, rel=1e-10
    )
    rate = sde.g(t) ** 2 / (2 * sde.sigma(t) ** 2)
    assert dt(lambda t: log_ratio(sde, t), t)[0] == pytest.approx(rate, rel=1e-10)


def test_a_kernel_from_sigma_min_solves_the_same_odes_but_not_from_the_data():
    """Why σ(0) = 0 is half of Eq. (7.8): σ_min rᵗ solves dσ²/dt = g² as well; it starts with noise already there."""
    sde = VE(0.1, 10.0)
    stated = lambda t: 0.1 * 100**t  # noqa: E731
    assert dt(lambda t: stated(t) ** 2, 0.3)[0] == pytest.approx(sde.g(0.3) ** 2, rel=1e-12)
    assert stated(0.0) == 0.1
    assert stated(0.7) ** 2 - sde.sigma(0.7) ** 2 == pytest.approx(0.01, rel=1e-11)


# ------------------------------------------------------------------ inverses, precision


@given(other_sdes, st.floats(1e-6, 1.0))
def test_time_inverts_sigma_and_the_log_ratio(sde, t):
    """Back to t, within the rounding of what is inverted: u (σ/α² + σ)/(dσ/dt), and u |ratio|/(d ratio/dt)."""
    s, ratio = sde.sigma(t), log_ratio(sde, t)
    rate = sde.g(t) ** 2 / (2 * s**2)  # of the log ratio
    assert abs(sde.time_at_log_ratio(ratio) - t) <= 4e-14 * (t + (1 + abs(ratio)) / rate)
    dsigma = s * (sde.f(t) + rate)
    if dsigma > 1e-9 * sde.prior_std and s < sde.prior_std:  # else σ hardly moves, and near its limit is no level
        assert abs(sde.time(s) - t) <= 4e-14 * (t + s / dsigma)


@pytest.mark.parametrize("sde", [sde for n, sde in SDES.items() if n not in ("vp", "ve")] + [CosineVP(0.1)], ids=str)
def test_small_times_keep_their_precision_in_float32(sde):
    t = np.logspace(-8, 0, 200).astype("float32")
    exact = sde.sigma(t.astype("float64"))
    assert sde.sigma(t).dtype == np.float32
    assert sde.sigma(t) == pytest.approx(exact, rel=1e-6)


def test_the_naive_formula_of_sub_vp_has_no_precision_at_small_times():
    t = np.asarray([1e-5], dtype="float32")
    naive = 1 - SubVP().alpha(t) ** 2
    assert naive.dtype == np.float32
    assert abs(naive[0] / SubVP().sigma(1e-5) - 1) > 0.01


@pytest.mark.parametrize("bad", [-0.1, math.nan, 1.0])
def test_levels_that_an_sde_does_not_reach_are_refused(bad):
    for sde in (SubVP(), CosineVP(), OU(5.0, math.sqrt(10.0))):  # all tend to σ = 1
        with pytest.raises(ValueError, match="sigma must lie in"):
            sde.time(bad)
    if bad != 1.0:
        with pytest.raises(ValueError, match="sigma must not be negative"):
            LinearVE().time(bad)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_parameters_out_of_range_are_refused(bad):
    for make in (LinearVE, OU, lambda v: OU(1.0, v), CosineVP, lambda v: CosineVP(0.008, v), SubVP):
        with pytest.raises(ValueError, match=r"must be positive and finite|must lie in \(0, 1\)"):
            make(bad)
    with pytest.raises(ValueError, match="must lie in"):
        CosineVP(1.0)


# ------------------------------------------------------------------ why their names


@given(mixtures(max_dim=3), every_sde, unit)
def test_covariances_under_every_sde(p, sde, t):
    """Eq. (7.10): Cov x(t) = α² Cov x₀ + σ² I: exploding without bound for α = 1, kept for α² + σ² = 1 and Cov = I."""
    a, s = sde.alpha(t), sde.sigma(t)
    q = p.diffuse(a, s)
    expected = a**2 * covariance(p) + s**2 * np.eye(p.dim)
    assert covariance(q) == pytest.approx(expected, abs=1e-12 * (1 + np.max(np.abs(expected))))
    if isinstance(sde, CosineVP) or type(sde) is VP:
        assert a**2 + s**2 == pytest.approx(1.0, abs=4e-15)
    elif isinstance(sde, SubVP):
        assert a**2 + s**2 == pytest.approx(1 - a**2 * (1 - a**2), abs=1e-14)
        assert sde.sigma(t) <= VP(sde.beta_min, sde.beta_max).sigma(t)
    elif not isinstance(sde, (OU, Rectified)):
        assert a == 1.0


@pytest.mark.parametrize(("sde", "growth"), [(VE(0.01, 50.0), 2500.0), (VE(0.01, 500.0), 250_000.0)], ids=str)
def test_the_variance_of_ve_grows_as_was_recorded(sde, growth):
    assert sde.sigma(1.0) ** 2 == pytest.approx(growth, rel=1e-7)


@pytest.mark.parametrize("beta", [1.0, 5.0, 20.0])
def test_euler_maruyama_keeps_a_little_more_than_unit_variance(beta):
    """Eq. (7.11): N(0, I) is fixed by VP; steps of length h with constant β have 1/(1 - βh/4) instead."""
    step, h = EulerMaruyama(Forward(VP(beta, beta))), 1 / 16
    (A,), (B,), _ = (m.ravel() for m in probe(lambda x, rng: step(x, 0.25, 0.25 + h, rng)[0], 1, 1))
    assert abs(B**2 / (1 - A**2) - 1 / (1 - beta * h / 4)) <= 1e-12
    f, g = VP(beta, beta).f(0.3), VP(beta, beta).g(0.3)
    assert abs(2 * f * 1.0 + g**2) <= 1e-14 * g**2  # the exact variance 1 does not move


# ------------------------------------------------------------------ one process, many clocks


@given(mixtures(), other_sdes, times, seeds)
def test_every_sde_is_ve_seen_through_a_lens(p, sde, t, seed):
    """Eq. (7.12): s(x; α, σ) = s(x/α; 1, σ/α)/α."""
    a, s = sde.alpha(t), sde.sigma(t)
    x = points(p, a, s, seed)
    J = size_of_jacobian(p, x, a, s)[:, None]
    scale = 1 + np.sqrt(J) + J * (np.abs(x).max() + a * np.abs(p.means).max())
    assert_close(p.score(x, a, s), p.score(x / a, 1.0, s / a) / a, 1e-12 * scale)


@given(st.floats(0.05, 2.0), st.floats(1.0, 50.0), times)
def test_vp_is_ornstein_uhlenbeck_run_at_the_time_half_B(beta_min, ratio, t):
    """Eq. (7.12) in time: with θ = ½B(1) and c² = 2θ, VP at t is OU at B(t)/B(1); rates change with the clock."""
    vp = VP(beta_min, beta_min * ratio)
    B = lambda t: beta_min * t + 0.5 * t**2 * (vp.beta_max - beta_min)  # noqa: E731
    ou = OU(0.5 * B(1.0), math.sqrt(B(1.0)))
    u, speed = min(B(t) / B(1.0), 1.0), -2 * vp.f(t) / B(1.0)
    assert ou.alpha(u) == pytest.approx(vp.alpha(t), rel=1e-12)
    assert ou.sigma(u) == pytest.approx(vp.sigma(t), rel=1e-12)
    assert ou.f(u) * speed == pytest.approx(vp.f(t), rel=1e-12)
    assert ou.g(u) ** 2 * speed == pytest.approx(vp.g(t) ** 2, rel=1e-12)


@given(st.floats(1e-3, 0.1), st.floats(1e-3, 0.1), times)
def test_the_cosine_is_ornstein_uhlenbeck_run_at_the_time_minus_log_alpha(offset, end, t):
    """Eq. (7.12) in time: any SDE with α² + σ² = 1 is OU with c² = 2θ at u = -log α/θ."""
    sde, theta = CosineVP(offset, end), -math.log(end)
    ou, u = OU(theta, math.sqrt(2 * theta)), min(-math.log(sde.alpha(t)) / theta, 1.0)
    assert ou.sigma(u) == pytest.approx(sde.sigma(t), rel=1e-10)  # -log α of an α near 1, at the smallest t
    assert ou.f(u) * -sde.f(t) / theta == pytest.approx(sde.f(t), rel=1e-12)


@given(st.floats(1e-3, 0.9), times)
def test_the_cosine_is_the_published_schedule_as_its_end_goes_to_0(s, t):
    """Nichol and Dhariwal 2021: √ᾱ = cos((t + s)/(1 + s) π/2), over its value at t = 0."""
    published = math.cos((t + s) / (1 + s) * math.pi / 2) / math.cos(s / (1 + s) * math.pi / 2)
    assert CosineVP(s, 1e-6).alpha(t) == pytest.approx(published, abs=1.1e-6)  # the end moves α by no more than itself


# ------------------------------------------------------------------ how much noise the data need


def second_moment_row(p):
    """A data set (1, D) with the E‖x‖² of the mixture."""
    square = float(np.trace(covariance(p)) + np.sum((p.weights @ p.means) ** 2))
    return np.full((1, p.dim), math.sqrt(square / p.dim))


def finals(sde):
    return sde.sigma(1.0) > 0.3 * sde.prior_std


@given(mixtures(max_dim=1, max_components=3), every_sde.filter(finals))
def test_the_prior_mismatch_is_below_its_bound(p, sde):
    """Eq. (7.13): 0 <= KL(p₁ ‖ prior) <= E KL(p₁(·|x₀) ‖ prior), by quadrature in one dimension."""
    found = prior_mismatch(p, sde)
    slack = 1e-10 + found.error
    assert -slack <= found.value <= prior_mismatch_bound(sde, second_moment_row(p)) + slack


@given(mixtures(max_dim=4, max_components=1, low=0.3), every_sde.filter(finals))
def test_the_bound_exceeds_the_mismatch_by_the_information_that_is_left(p, sde):
    """Eq. (7.13) is off by the mutual information of x₀ and x₁, ½ log det S/σ² for a Gaussian."""
    a, s = sde.alpha(1.0), sde.sigma(1.0)
    information = 0.5 * np.linalg.slogdet(np.eye(p.dim) + (a / s) ** 2 * full(p)[0])[1]
    bound = prior_mismatch_bound(sde, second_moment_row(p))
    exact = prior_mismatch(p, sde, np.random.default_rng(0), samples=1000)
    assert exact.error <= 1e-10
    assert bound - exact.value == pytest.approx(information, abs=1e-12 * (1 + bound))


def kl_by_hand(p, sde):
    """∫ p₁ log(p₁/prior) in one dimension, on a grid of its own."""
    a, s, c = sde.alpha(1.0), sde.sigma(1.0), sde.prior_std
    x = np.linspace(-40 * c, 40 * c, 40_001)[:, None]
    log_p = p.log_prob(x, a, s)
    log_q = -0.5 * (x[:, 0] / c) ** 2 - 0.5 * math.log(2 * math.pi * c**2)
    return float((x[1, 0] - x[0, 0]) * np.sum(np.exp(log_p) * (log_p - log_q)))


@pytest.mark.parametrize("sde", [VP(0.1, 3.0), VE(0.01, 3.0), OU(1.0, 2.0), CosineVP(alpha_end=0.3)], ids=str)
def test_prior_mismatch_is_the_divergence(sde):
    """Eq. (7.13): against plain quadrature, and Monte Carlo in three dimensions against three independent ones."""
    p = random_mixture(3, 1, 3)
    exact = prior_mismatch(p, sde)
    assert exact.value == pytest.approx(kl_by_hand(p, sde), abs=1e-11)
    w = np.einsum("i,j,k->ijk", *3 * [p.weights]).ravel()
    i, j, k = (a.ravel() for a in np.indices(3 * [3]))
    m, v = p.means[:, 0], np.asarray(full(p))[:, 0, 0]
    cube = GaussianMixture(w, np.stack([m[i], m[j], m[k]], 1), np.stack([v[i], v[j], v[k]], 1))
    found = prior_mismatch(cube, sde, np.random.default_rng(0), samples=20_000)
    assert_within(found.value, 3 * exact.value, found.error, bias=1e-12, n=20_000)
    with pytest.raises(ValueError, match="Monte Carlo"):
        prior_mismatch(cube, sde)


@given(seeds, st.integers(1, 6), st.floats(1e-6, 1.0))
def test_suggested_ends_have_the_mismatch_that_was_asked_for(seed, dim, nats):
    """Eq. (7.14): the bound at the suggestion is `nats`."""
    data = np.random.default_rng(seed).uniform(-3, 3, (20, dim))
    high = suggest_sigma_max(data, nats)
    assert prior_mismatch_bound(LinearVE(high), data) == pytest.approx(nats, rel=1e-12)
    assert prior_mismatch_bound(VE(1e-3, math.hypot(high, 1e-3)), data) == pytest.approx(nats, rel=1e-12)
    beta = suggest_beta_max(data, nats, beta_min=1e-3)
    if beta > 1e-3:
        # B itself is of size 1 to 20, and its rounding, 1e-15, is relative to nats; 1 - ratio + log(ratio) cancels
        assert prior_mismatch_bound(VP(1e-3, beta), data) == pytest.approx(nats, rel=1e-11, abs=1e-14)
    exact_B, square = 0.5 * (beta + 1e-3), float(np.sum(data**2)) / 20
    assert exact_B >= math.log(0.5 * square / nats) - 1e-12  # the formula without the second term


def test_suggestions_for_data_that_need_no_noise():
    data = np.full((3, 2), 1e-9)
    assert suggest_beta_max(data, beta_min=9.0) == 9.0
    assert 1 < suggest_beta_max(np.zeros((3, 2))) < 4  # N(0, 1 - e⁻ᴮ) is not N(0, 1) until B is of order 1
    with pytest.raises(ValueError, match="any sigma_max will do"):
        suggest_sigma_max(np.zeros((3, 2)))
    for call in (suggest_sigma_max, suggest_beta_max):
        with pytest.raises(ValueError, match="nats must be positive"):
            call(np.ones((3, 2)), 0.0)


def test_the_default_ends_in_nats():
    """Eq. (7.14): what the defaults leave, at most, for 3072 coordinates of mean square 1/4."""
    data = np.full((1, 3072), 0.5)
    assert prior_mismatch_bound(VP(), data) == pytest.approx(0.0166, abs=5e-5)
    assert prior_mismatch_bound(VE(), data) == pytest.approx(0.1536, abs=5e-5)
    assert prior_mismatch_bound(LinearVE(80.0), data) == pytest.approx(0.06, abs=5e-5)


@pytest.mark.parametrize("kind", ["full", "diagonal", "isotropic"])
def test_the_mismatch_is_the_same_on_every_backend(backend, kind):
    p = random_mixture(0, 2, 3, kind)
    q = GaussianMixture(*(backend.asarray(a) for a in (p.weights, p.means, p.covariances)))
    sde = VP(0.1, 3.0)
    assert prior_mismatch(q, sde).value == pytest.approx(prior_mismatch(p, sde).value, rel=1e-10)
