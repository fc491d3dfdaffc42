"""Laws of the linear SDEs, of their marginals, and of time reversal.

Derivatives in t and in x are complex steps: every method takes a complex array t (1,) and x (B, D).
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from refscore import VE, VP, ExactScore, GaussianMixture, Reverse
from refscore.noise.sde import SDES, CosineVP, log_ratio
from tests.oracles.close import assert_close
from tests.oracles.equations import check_score_equation, divergence_of, dt, terms
from tests.oracles.mixtures import size_of_jacobian
from tests.oracles.strategies import mixtures, points, sdes, seeds, times, unit

# ------------------------------------------------------------------ the two equations of a kernel


@given(sdes)
def test_every_sde_starts_at_the_data(sde):
    assert sde.alpha(0.0) == 1.0
    assert sde.sigma(0.0) == 0.0
    zero = np.zeros(1)
    assert sde.alpha(zero)[0] == 1.0
    assert sde.sigma(zero)[0] == 0.0


@given(sdes)
def test_mean_and_variance_solve_their_odes(sde):
    """Lyapunov: dα/dt = f α, dσ²/dt = 2 f σ² + g², integrated from α = 1, σ = 0."""

    def rhs(t, y):
        f, g = sde.f(t), sde.g(t)
        return [f, 2 * f * y[1] + g**2]  # log α, so that its error is relative

    at = np.linspace(0, 1, 9)
    # steps of at most 1/16, because between steps the solver interpolates at lower order
    solved = solve_ivp(rhs, (0, 1), [0.0, 0.0], method="DOP853", t_eval=at, rtol=1e-12, atol=1e-16, max_step=1 / 16)
    # a hundred steps of relative error 1e-12
    assert np.log(sde.alpha(at)) == pytest.approx(solved.y[0], rel=1e-10, abs=1e-12)
    assert sde.alpha(at) == pytest.approx(np.exp(solved.y[0]), abs=1e-10)
    assert sde.sigma(at) ** 2 == pytest.approx(solved.y[1], rel=1e-10)


@given(sdes, times)
def test_closed_forms_satisfy_the_odes_at_every_time(sde, t):
    f, g, a, s = sde.f(t), sde.g(t), sde.alpha(t), sde.sigma(t)
    assert dt(sde.alpha, t)[0] == pytest.approx(f * a, rel=1e-12, abs=1e-300)
    assert dt(lambda t: sde.sigma(t) ** 2, t)[0] == pytest.approx(2 * f * s**2 + g**2, rel=1e-11, abs=1e-13 * g**2)


@given(sdes, times)
def test_log_ratio_grows_at_half_the_relative_noise_rate(sde, t):
    """d(log σ/α)/dt = g²/(2σ²), for every linear SDE."""
    rate = sde.g(t) ** 2 / (2 * sde.sigma(t) ** 2)
    assert dt(lambda t: log_ratio(sde, t), t)[0] == pytest.approx(rate, rel=1e-12)
    assert log_ratio(sde, t) == pytest.approx(math.log(sde.sigma(t)) - math.log(sde.alpha(t)), abs=1e-12)


@given(st.floats(0.05, 2.0), st.floats(1.0, 200.0), unit)
def test_vp_preserves_unit_variance(beta_min, ratio, t):
    sde = VP(beta_min, beta_min * ratio)
    assert sde.alpha(t) ** 2 + sde.sigma(t) ** 2 == pytest.approx(1.0, abs=1e-15)
    assert sde.g(t) ** 2 == pytest.approx(beta_min + t * (sde.beta_max - beta_min), rel=1e-14)
    assert sde.prior_std == 1.0


@given(st.floats(1e-3, 0.1), st.floats(10.0, 5000.0), unit)
def test_ve_variance_is_the_growth_of_the_published_level(sigma_min, ratio, t):
    """σ_min rᵗ is what published code states; integrated from 0 the variance is less by σ_min²."""
    sde = VE(sigma_min, sigma_min * ratio)
    stated = sigma_min * ratio**t
    assert stated**2 - sde.sigma(t) ** 2 == pytest.approx(sigma_min**2, abs=1e-12 * stated**2)
    assert sde.g(t) ** 2 == pytest.approx(2 * math.log(ratio) * stated**2, rel=1e-12)
    assert sde.prior_std**2 == pytest.approx(sde.sigma_max**2 - sigma_min**2, rel=1e-12)
    assert sde.alpha(t) == 1.0
    assert sde.f(t) == 0.0


@given(sdes, st.floats(1e-9, 1.0))
def test_sigma_is_strictly_increasing_and_bounded(sde, t):
    assert 0 < sde.sigma(t / 2) <= sde.sigma(t) <= sde.prior_std * (1 + 1e-15)
    if sde.sigma(t) < 0.999 * sde.prior_std:
        assert sde.sigma(t / 2) < sde.sigma(t)


@given(mixtures(max_dim=3), st.floats(0.05, 2.0), st.floats(1.0, 200.0), unit)
def test_vp_covariance_relaxes_to_the_identity(p, beta_min, ratio, t):
    """Cov x(t) = I + e⁻ᴮ (Cov x(0) - I): why "variance preserving"."""
    sde = VP(beta_min, beta_min * ratio)

    def covariance(q):
        C = q.covariances
        C = C if C.ndim == 3 else C.reshape(q.n_components, -1)[..., None] * np.eye(q.dim)
        y = q.means - q.weights @ q.means
        return np.einsum("k,kij->ij", q.weights, C + y[:, :, None] * y[:, None, :])

    now = covariance(p.diffuse(sde.alpha(t), sde.sigma(t)))
    eye = np.eye(p.dim)
    B = beta_min * t + 0.5 * (sde.beta_max - beta_min) * t**2
    expected = eye + math.exp(-B) * (covariance(p) - eye)
    assert now == pytest.approx(expected, abs=1e-13 * (1 + np.abs(expected).max()))


# ------------------------------------------------------------------ inverses


@given(sdes, st.floats(1e-8, 1.0))
def test_time_inverts_sigma(sde, t):
    s = sde.sigma(t)
    if s == 1.0 and isinstance(sde, VP):
        return  # 1 - σ is below rounding: no inverse
    a, g = sde.alpha(t), sde.g(t)
    # A rounding of σ moves t by σ / (dσ/dt), dσ/dt = g² α² / 2σ for both SDEs where f = 0 or α² = 1 - σ²
    slope = g**2 * a**2 / (2 * s) if isinstance(sde, VP) else g**2 / (2 * s)
    assert abs(sde.time(s) - t) <= 1e-14 * (t + s / slope)
    if a > 0.1:
        assert sde.sigma(min(sde.time(s), 1.0)) == pytest.approx(s, rel=1e-13)


@given(sdes, st.floats(1e-8, 1.0))
def test_time_at_log_ratio_inverts_log_ratio(sde, t):
    ratio = log_ratio(sde, t)
    # d ratio / dt = g²/2σ²; the ratio itself carries a rounding
    slack = (1 + abs(ratio)) * 2 * (sde.sigma(t) / sde.g(t)) ** 2
    assert abs(sde.time_at_log_ratio(ratio) - t) <= 1e-14 * (t + slack)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_noiseless_time_is_zero(sde):
    assert sde.time(0.0) == 0.0
    assert sde.time(1e-12) > 0.0


@given(sdes, st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=5))
def test_floats_and_arrays_agree(sde, ts):
    array = np.asarray(ts)
    for name in ("f", "g", "alpha", "sigma"):
        method = getattr(sde, name)
        values = method(array)
        assert values.shape == array.shape
        for t, v in zip(ts, values, strict=True):
            assert isinstance(method(t), float)
            assert v == pytest.approx(method(t), rel=1e-14)  # math and NumPy may round exp differently
    sigma = 0.9 * sde.sigma(array)
    ratio = log_ratio(sde, array)
    for i in range(len(ts)):
        assert sde.time(sigma)[i] == pytest.approx(sde.time(float(sigma[i])), rel=1e-13)
        assert sde.time_at_log_ratio(ratio)[i] == pytest.approx(sde.time_at_log_ratio(float(ratio[i])), rel=1e-13)
        assert ratio[i] == pytest.approx(log_ratio(sde, ts[i]), rel=1e-13, abs=1e-13)


# ------------------------------------------------------------------ precision and published numbers


@pytest.mark.parametrize("sde", [VP(), VE(), VP(1e-3, 5.0), VE(1e-3, 1.0)], ids=str)
def test_small_times_keep_their_precision_in_float32(sde):
    t = np.logspace(-8, 0, 200).astype("float32")
    exact = sde.sigma(t.astype("float64"))
    assert sde.sigma(t).dtype == np.float32
    assert sde.sigma(t) == pytest.approx(exact, rel=1e-6)  # t itself is rounded to 6e-8, ln r t likewise


def test_the_naive_formula_has_no_precision_at_small_times():
    """Why expm1: √(1 - e⁻ᴮ) in float32 is wrong by more than half a percent at t = 1e-5."""
    t = np.asarray([1e-5], dtype="float32")
    alpha = VP().alpha(t)
    naive = np.sqrt(1 - alpha**2)
    assert naive.dtype == np.float32
    assert abs(naive[0] / VP().sigma(1e-5) - 1) > 0.005


def test_vp_has_the_published_numbers():
    """β from 0.1 to 20: the SDE of Song et al. 2021."""
    sde = VP()
    assert sde.alpha(1.0) ** 2 == pytest.approx(4.3186e-5, rel=1e-4)
    assert sde.alpha(1.0) == pytest.approx(0.0065716, rel=1e-5)
    assert sde.sigma(1.0) == pytest.approx(0.999978, abs=5e-7)
    assert sde.sigma(1e-3) == pytest.approx(0.0104854, rel=1e-5)
    assert sde.sigma(1e-5) == pytest.approx(0.0010005, rel=1e-4)


def test_ve_has_the_published_numbers():
    """σ from 0.01 to 50: prior variance 2500 - 1e-4, and at t = ½ the geometric mean, less σ_min²."""
    sde = VE()
    assert sde.prior_std == pytest.approx(49.999999, abs=1e-9)
    assert sde.sigma(0.5) ** 2 == pytest.approx(0.01 * 50 - 1e-4, rel=1e-13)
    assert sde.g(0.0) == pytest.approx(0.01 * math.sqrt(2 * math.log(5000)), rel=1e-14)
    assert sde.g(1.0) == pytest.approx(50 * math.sqrt(2 * math.log(5000)), rel=1e-13)


def test_cosine_has_the_published_levels():
    """Nichol and Dhariwal 2021, Eq. (17): ᾱ = f(t)/f(0), f = cos²((t + s)/(1 + s) π/2), and an end above their 0."""
    t = np.linspace(0, 0.99, 100)
    sde, f = CosineVP(alpha_end=1e-12), np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(sde.alpha(t) ** 2, f / f[0], rtol=2e-10)  # tan of the angle at 0.99 times 2e-12, twice
    assert CosineVP().alpha(1.0) == pytest.approx(5e-3, rel=1e-12)


# ------------------------------------------------------------------ marginals: equations in x and t


@given(mixtures(), sdes, times, seeds)
def test_marginals_solve_the_fokker_planck_equation(p, sde, t, seed):
    """∂_t log p + D f + f x·s - ½ g² (div s + |s|²) = 0."""
    x, change, s, div = terms(p, sde, t, seed)
    f, g = sde.f(t), sde.g(t)
    # div s is itself a sum of terms of this size, which cancel
    inner = 0.5 * g**2 * size_of_jacobian(p, x, sde.alpha(t), sde.sigma(t))
    parts = [
        change,
        p.dim * f + 0 * change,
        f * np.sum(x * s, axis=1),
        -0.5 * g**2 * div,
        -0.5 * g**2 * np.sum(s * s, axis=1),
    ]
    scale = sum(np.abs(part) for part in parts) + inner
    assert_close(sum(parts), 0, 1e-11 * scale)


@given(mixtures(max_dim=3), sdes, times, seeds)
def test_scores_solve_the_score_equation(p, sde, t, seed):
    check_score_equation(p, sde, t, seed)


@given(mixtures(), sdes, times, seeds)
def test_probability_flow_carries_the_marginals(p, sde, t, seed):
    """Continuity of the coded drift v of `Reverse(lam=0)`: ∂_t log p + div v + v·s = 0."""
    x, change, s, _ = terms(p, sde, t, seed)
    flow = Reverse(sde, ExactScore(p, sde), lam=0.0)
    v, div = flow.drift(x, t), divergence_of(lambda x: flow.drift(x, t), x)
    inner = sde.g(t) ** 2 * size_of_jacobian(p, x, sde.alpha(t), sde.sigma(t))
    scale = np.abs(change) + np.abs(div) + np.sum(np.abs(v * s), axis=1) + inner
    assert_close(change + div + np.sum(v * s, axis=1), 0, 1e-10 * scale)
    assert np.all(np.asarray(flow.noise(x, t)) == 0.0)


@given(mixtures(), sdes, times, st.floats(0.0, 3.0), seeds)
def test_every_reversal_keeps_the_marginals(p, sde, t, lam, seed):
    """∂_t log p + div b + b·s + ½ c² (div s + |s|²) = 0 for drift b and noise c of any λ >= 0."""
    x, change, s, div_s = terms(p, sde, t, seed)
    process = Reverse(sde, ExactScore(p, sde), lam)
    b, div_b = process.drift(x, t), divergence_of(lambda x: process.drift(x, t), x)
    c = np.asarray(process.noise(x, t))
    parts = [change, div_b, np.sum(b * s, axis=1), 0.5 * c**2 * div_s, 0.5 * c**2 * np.sum(s * s, axis=1)]
    inner = (1 + lam**2) * sde.g(t) ** 2 * size_of_jacobian(p, x, sde.alpha(t), sde.sigma(t))
    scale = sum(np.abs(part) for part in parts) + inner
    assert_close(sum(parts), 0, 1e-10 * scale)


@given(sdes, st.floats(0.01, 1.0), st.floats(0.0, 3.0), seeds)
def test_reverse_is_the_formula_for_any_score(sde, t, lam, seed):
    x = np.random.default_rng(seed).standard_normal((4, 2, 3))  # (B, ...), not only (B, D)
    process = Reverse(sde, lambda x, t: np.sin(x) * np.reshape(t, (-1, 1, 1)), lam)
    f, g = sde.f(t), sde.g(t)
    assert process.drift(x, t) == pytest.approx(f * x - 0.5 * (1 + lam**2) * g**2 * t * np.sin(x), rel=1e-13)
    assert process.noise(x, t) == pytest.approx(lam * g, rel=1e-15)
    each = np.full(4, t)
    assert process.drift(x, each) == pytest.approx(process.drift(x, t), rel=1e-12)
    assert np.broadcast_to(process.noise(x, each), x.shape) == pytest.approx(lam * g, rel=1e-12)


def test_anderson_is_the_default_reversal():
    assert Reverse(VP(), lambda x, t: -x).lam == 1.0


@given(mixtures(), sdes, times, seeds)
def test_exact_score_is_the_score_of_the_marginal(p, sde, t, seed):
    x = points(p, sde.alpha(t), sde.sigma(t), seed)
    exact, score = p.score(x, sde.alpha(t), sde.sigma(t)), ExactScore(p, sde)
    scale = 1 + size_of_jacobian(p, x, sde.alpha(t), sde.sigma(t))[:, None] * (1 + np.abs(x).max())
    for time in (t, np.full(1, t), np.full(len(x), t)):
        assert_close(score(x, time), exact, 1e-13 * scale)


@given(mixtures(), st.floats(0.05, 2.0), st.floats(1.0, 50.0), times, seeds)
def test_vp_is_ve_seen_through_a_lens(p, beta_min, ratio, t, seed):
    """s_VP(x; α, σ) = s_VE(x/α; σ/α)/α, and log p_VP = log p_VE - D log α."""
    sde = VP(beta_min, beta_min * ratio)
    a, s = sde.alpha(t), sde.sigma(t)
    x = points(p, a, s, seed)
    J = size_of_jacobian(p, x, a, s)[:, None]
    scale = 1 + np.sqrt(J) + J * (np.abs(x).max() + a * np.abs(p.means).max())  # a rounding of x/α, times J
    assert_close(p.score(x, a, s), p.score(x / a, 1.0, s / a) / a, 1e-12 * scale)
    assert p.log_prob(x, a, s) == pytest.approx(
        p.log_prob(x / a, 1.0, s / a) - p.dim * math.log(a), rel=1e-12, abs=1e-11
    )


@given(mixtures(max_dim=1, max_components=3, low=0.3, high=2.0, box=2.0), sdes, st.floats(0.02, 0.98))
def test_marginals_of_one_law_approach_each_other(p, sde, t):
    """d KL(p_t‖q_t)/dt = -½ g² E_p|∇log p_t - ∇log q_t|²: what ties score errors to Kullback-Leibler."""
    q = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
    a, s = sde.alpha(t), sde.sigma(t)
    sd = math.sqrt(a**2 * max(2.0, 1.0) + s**2)
    x = np.arange(-2 * a - 12 * sd, 2 * a + 12 * sd, 0.02 * math.sqrt(a**2 * 0.3 + s**2))[:, None]
    cell = float(x[1, 0] - x[0, 0])

    def kl(t):
        log_p, log_q = (m.log_prob(x, sde.alpha(t), sde.sigma(t)) for m in (p, q))
        return np.asarray([cell * np.sum(np.exp(log_p) * (log_p - log_q))])

    gap = (p.score(x, a, s) - q.score(x, a, s))[:, 0]
    mass = cell * np.exp(p.log_prob(x, a, s))
    expected = -0.5 * sde.g(t) ** 2 * float(np.sum(mass * gap**2))
    scale = sde.g(t) ** 2 / (a**2 * 0.3 + s**2)
    assert dt(kl, t)[0] == pytest.approx(expected, rel=1e-9, abs=1e-12 * scale)
