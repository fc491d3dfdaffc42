"""DDPM and SMLD: what their chains are as SDEs, in the limit and at every N, forwards and backwards.

Laws are told by the code itself: on data of one Gaussian a sampler is affine, so fed with unit vectors it tells the
mean and variance of what it makes. Nothing here is sampled.
"""

import ast
import math
import re
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import VE, VP, Denoising, EulerMaruyama, ExactScore, GaussianMixture, Reverse
from refscore.likelihood.elbo import decoder, discrete_loss
from refscore.likelihood.flow import FixedSteps, log_likelihood
from refscore.matching.times import FixedTime, Levels
from refscore.noise.chains import Chain, ddpm, from_betas, smld
from refscore.noise.grids import geometric_levels, level_times
from refscore.noise.prior import prior_kl
from refscore.noise.sde import SDES, SubVP, log_ratio
from refscore.sampling.transitions import DDIM, Ancestral, ReverseDiffusion
from tests.oracles.book import ROOT
from tests.oracles.close import assert_close
from tests.oracles.line import Scaled, maps, marginal, moments, score_of
from tests.oracles.mixtures import covariance
from tests.oracles.orders import slopes
from tests.oracles.replay import ReplayRng
from tests.oracles.strategies import mixtures

CHAINS = {"ddpm": ddpm(40), "smld": smld(12)}
chains = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS)
LADDER = (250, 500, 1000, 2000, 4000)
SEVERAL = (1.0, 0.25, 4.0)  # variances of data


# ------------------------------------------------------------------ a chain is a linear SDE


@chains
def test_a_chain_solves_the_moment_equations_between_its_times(chain):
    """Eq. (9.8): d log α/dt = f and dσ²/dt = 2 f σ² + g², integrated over each step by Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(20)
    for i in range(chain.n):
        low, high = i / chain.n, (i + 1) / chain.n
        for end in (0.3 * low + 0.7 * high, high):
            t = low + 0.5 * (1 + nodes) * (end - low)
            w = 0.5 * (end - low) * weights
            f, g = chain.f(t), chain.g(t)
            log_alpha = math.log(chain.alpha(low)) + w @ f
            sigma2 = chain.sigma(low) ** 2 + w @ (2 * f * chain.sigma(t) ** 2 + g**2)
            assert abs(chain.alpha(end) - math.exp(log_alpha)) <= 1e-12
            assert abs(chain.sigma(end) ** 2 / sigma2 - 1) <= 1e-12  # the rule is exact to degree 39


@chains
def test_the_rates_of_a_chain_are_the_derivatives_of_its_moments(chain):
    """Eq. (9.8), exactly: within a step log α and (σ/α)² are straight, so two points give f and g²."""
    for t in np.linspace(0.01, 0.99, 31) + 1e-4:
        i = int(t * chain.n)
        u = 0.5 * (t + i / chain.n)
        f = (math.log(chain.alpha(t)) - math.log(chain.alpha(u))) / (t - u)
        rise = ((chain.sigma(t) / chain.alpha(t)) ** 2 - (chain.sigma(u) / chain.alpha(u)) ** 2) / (t - u)
        assert abs(f - chain.f(t)) <= 1e-10 * (1 + abs(f))  # a difference over half a step
        assert abs(chain.alpha(t) ** 2 * rise / chain.g(t) ** 2 - 1) <= 1e-10


@chains
def test_on_its_grid_a_chain_has_its_own_numbers(chain):
    """Eq. (9.2): α_i and σ_i at i/N; in an array, too, and to float32 in float32."""
    n = chain.n
    for i in range(n + 1):
        assert chain.alpha(i / n) == pytest.approx(chain.alphas[i], rel=1e-15)
        assert chain.sigma(i / n) == pytest.approx(chain.sigmas[i], rel=1e-15)
    for dtype, allowed in (("float64", 1e-14), ("float32", 1e-6)):  # float32: a few roundings of 6e-8
        t = (np.arange(n + 1) / n).astype(dtype)
        for name, wanted in (("alpha", chain.alphas), ("sigma", chain.sigmas)):
            found = getattr(chain, name)(t)
            assert found.dtype == dtype
            np.testing.assert_allclose(found, wanted, rtol=allowed)


@pytest.mark.parametrize("n", [1000, 4000])
def test_a_float32_time_on_the_grid_has_the_rates_of_the_step_that_leads_there(n):
    """i/N in float32 lies a little above or below i/N: the rates must not jump to the next step's."""
    chain = ddpm(n)
    t = (np.arange(1, n + 1) / n).astype("float32")
    np.testing.assert_allclose(chain.f(t), [chain.f(i / n) for i in range(1, n + 1)], rtol=1e-6)
    np.testing.assert_allclose(chain.g(t), [chain.g(i / n) for i in range(1, n + 1)], rtol=2e-6)
    off = (np.arange(n) + 0.5).astype("float32") / np.float32(n)  # and between them those of their own
    np.testing.assert_allclose(chain.f(off), [chain.f((i + 0.5) / n) for i in range(n)], rtol=1e-6)


@chains
@given(ts=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5))
def test_floats_and_arrays_agree(chain, ts):
    for name in ("f", "g", "alpha", "sigma"):
        method = getattr(chain, name)
        np.testing.assert_allclose(method(np.asarray(ts)), [method(t) for t in ts], rtol=1e-13, atol=1e-300)


@chains
@given(t=st.floats(1e-6, 1.0))
def test_a_chain_finds_the_time_of_a_noise_level(chain, t):
    ratio = math.log(chain.sigma(t) / chain.alpha(t))
    assert chain.time_at_log_ratio(ratio) == pytest.approx(t, rel=1e-12)
    assert chain.time_at_log_ratio(np.array([ratio, -1e2, 1e2])) == pytest.approx([t, 0.0, 1.0], rel=1e-12, abs=1e-12)


@chains
def test_a_chain_runs_on_every_backend_and_keeps_float32(chain, any_backend):
    ts = np.array([0.0, 0.03, 0.25, 0.5, 1.0])
    t = any_backend.asarray(ts, dtype="float32")
    for name in ("f", "g", "alpha", "sigma"):
        found = getattr(chain, name)(t)
        assert str(found.dtype).endswith("float32")
        np.testing.assert_allclose(any_backend.to_numpy(found), getattr(chain, name)(ts), rtol=1e-5)
    sigma = any_backend.asarray(chain.sigma(ts[:4]), dtype="float32")
    found = any_backend.to_numpy(chain.time(sigma))
    np.testing.assert_allclose(chain.sigma(found), chain.sigma(ts[:4]), rtol=1e-5)
    ratio = any_backend.asarray(np.log(chain.sigma(ts[1:]) / chain.alpha(ts[1:])), dtype="float32")
    np.testing.assert_allclose(any_backend.to_numpy(chain.time_at_log_ratio(ratio)), ts[1:], rtol=1e-5)


WALKED = {
    **SDES, **CHAINS, "ddpm 1000": ddpm(1000), "one step": Chain((1.0, 1.0), (0.0, 100.0), 100.0),
    "steep": Chain((1.0, 0.9, 0.01), (0.0, 1e-3, 3.0), 3.0), "growing": Chain((1.0, 3.0, 3.0), (0.0, 1.0, 5.0), 5.0),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float", "float64", "float32"])
@pytest.mark.parametrize("sde", WALKED.values(), ids=WALKED)
def test_noise_levels_come_back_from_their_times_over_the_whole_range(sde, dtype):
    """σ(time(σ)) = σ and ℓ(time_at_log_ratio(ℓ)) = ℓ, ℓ = log σ/α, from t = 1e-30 to 1; of every SDE and chain.

    A rounding of t moves log σ by u t σ'/σ; a rounding of ℓ moves σ/α by u |ℓ|.
    """
    kind = "float64" if dtype == "float" else dtype
    n = getattr(sde, "n", 10)
    grid = np.arange(1, n + 1) / n
    ts = np.concatenate([np.logspace(-30, 0, 301), np.linspace(0, 1, 203)[1:], grid])
    ts = np.concatenate([ts, grid * (1 - 1e-6), grid[:-1] * (1 + 1e-6)]).astype(kind)
    if dtype == "float":
        ts = ts[:: 1 + len(ts) // 300]

    def each(f, x):
        if dtype == "float":
            return np.array([f(float(v)) for v in x])
        y = f(x)
        assert y.dtype == x.dtype
        return y

    def slack(t, size):
        t = t.astype("float64")
        f, g, s = sde.f(t), sde.g(t), sde.sigma(t)
        return 8 * float(np.finfo(kind).eps) * (1 + size + t * g**2 / (2 * s**2) + np.abs(t * f))

    sigma, ratio = each(sde.sigma, ts), each(lambda t: log_ratio(sde, t), ts)
    assert np.all(sigma > 0)
    t = np.minimum(each(sde.time, sigma), 1.0)
    assert_close(each(sde.sigma, t) / sigma, 1, slack(t, 0))
    t = np.minimum(each(sde.time_at_log_ratio, ratio), 1.0)
    assert_close(each(lambda t: log_ratio(sde, t), t), ratio, slack(t, np.abs(ratio)))
    assert each(sde.time, np.zeros(1, kind))[0] == 0.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_close_to_zero_no_time_is_zero(dtype):
    """Within 1e-9 of a step of t = 0 (in float32 4e-4 of one) σ is √t's, not 0."""
    chain = Chain((1.0, 1.0), (0.0, 100.0), 100.0)
    assert chain.sigma(chain.time_at_log_ratio(math.log(1e-3))) == pytest.approx(1e-3, rel=1e-12)
    t = np.asarray([1e-30, 1e-12, 2e-7, 2e-4], dtype)
    assert chain.sigma(t) == pytest.approx(100 * np.sqrt(t), rel=1e-6)
    assert ddpm(1000).sigma(t) == pytest.approx(np.sqrt(0.1 * t), rel=1e-4)  # β_1 = 1e-4 in a thousandth


@chains
def test_beyond_its_end_a_chain_has_no_times(chain):
    """Of a level above all σ an array gets the time of the largest: in ddpm(40) that is not the last one."""
    largest = float(np.max(chain.sigma(np.linspace(0, 1, 40 * 12 * 50 + 1))))
    for t in (chain.time(np.array([2 * largest, 1e300])), np.array([chain.time(largest)])):
        np.testing.assert_allclose(chain.sigma(t), largest, rtol=1e-6)  # of a grid of a fiftieth of a step
    assert chain.time_at_log_ratio(np.array([1e3, math.inf])).tolist() == [1.0, 1.0]  # without overflow
    assert chain.time_at_log_ratio(1e3) == chain.time_at_log_ratio(math.inf) == 1.0


def test_where_a_chain_has_a_level_twice_its_first_time_counts():
    """σ falls where α falls faster than σ/α rises."""
    chain = Chain((1.0, 0.9, 0.01, 0.01), (0.0, 0.5, 0.02, 1.0), 1.0)
    for sigma in (0.1, 0.3, 0.5):
        t = chain.time(sigma)
        assert t <= 1 / 3 + 1e-15
        assert chain.sigma(t) == pytest.approx(sigma, rel=1e-14)
        assert chain.time(np.array([sigma]))[0] == pytest.approx(t, rel=1e-14)
    assert chain.time(0.9) > 2 / 3


def test_a_ladder_of_levels_runs_on_a_chain():
    levels = geometric_levels(40.0, 0.02, 30)
    times = level_times(CHAINS["smld"], levels)
    np.testing.assert_allclose([CHAINS["smld"].sigma(t) for t in times], [*levels, 0.0], rtol=1e-13)


def test_what_is_no_chain_is_refused():
    for alphas, sigmas, words in (
        ((1.0, 0.5), (0.0,), "as many alphas as sigmas"),
        ((1.0,), (0.0,), "two or more"),
        ((0.9, 0.5), (0.0, 0.5), "starts at data"),
        ((1.0, 0.5), (0.1, 0.5), "starts at data"),
        ((1.0, 0.0), (0.0, 1.0), "keeps α > 0"),
        ((1.0, 1.0, 1.0), (0.0, 0.5, 0.5), "every step adds noise"),
    ):
        with pytest.raises(ValueError, match=words):
            Chain(alphas, sigmas)
    for beta in (0.0, 1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="must lie in"):
            from_betas([0.1, beta])
    for bad in ((0, 0.01, 50.0), (10, 0.0, 50.0), (10, 2.0, 1.0)):
        with pytest.raises(ValueError, match=r"n must be an integer of at least 1|need 0 < sigma_min"):
            smld(*bad)
    for t in (-1e-9, 1.1):
        with pytest.raises(ValueError, match="t must lie in"):
            CHAINS["ddpm"].alpha(t)
    for sigma in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"sigma must lie in \[0, 1\.0"):
            CHAINS["ddpm"].time(sigma)


@pytest.mark.parametrize("n", [1, 10, 20])
def test_a_ddpm_chain_needs_more_steps_than_beta_max(n):
    """β_N = β_max/N >= 1 would take the root of nothing or less: published code divides by zero here."""
    with pytest.raises(ValueError, match=r"needs more steps than beta_max|n must be an integer of at least 2"):
        ddpm(n)
    with pytest.raises(ValueError, match="n must be an integer of at least 2"):
        ddpm(1, 0.1, 0.5)
    assert ddpm(2, 0.1, 0.5).n == 2
    assert min(ddpm(21).alphas) > 0


# ------------------------------------------------------------------ the chains themselves, and their limits


@given(betas=st.lists(st.floats(1e-5, 0.9), min_size=1, max_size=30))
def test_the_marginals_of_ddpm_are_products(betas):
    """Eqs. (9.1), (9.2): the moments of x_i = √(1-β) x + √β z, step by step, are α_i and σ_i."""
    chain, a, v = from_betas(betas), 1.0, 0.0
    for i, beta in enumerate(betas, start=1):
        a, v = math.sqrt(1 - beta) * a, (1 - beta) * v + beta
        assert chain.alphas[i] == pytest.approx(a, rel=1e-12)
        assert chain.sigmas[i] ** 2 == pytest.approx(v, rel=1e-11)  # 1 - β of β near 1e-5
        assert chain.alphas[i] ** 2 + chain.sigmas[i] ** 2 == pytest.approx(1.0, abs=1e-14)


def test_ddpm_has_the_published_numbers():
    """Eq. (9.4): linear β from 1e-4 to 2e-2 in 1000 steps, of Ho et al. 2020; and the SDE that it nearly is."""
    chain = ddpm(1000)
    betas = [1 - (b / a) ** 2 for a, b in pairwise(chain.alphas)]
    np.testing.assert_allclose(betas, np.linspace(1e-4, 2e-2, 1000), rtol=1e-11)  # from differences of α near 1
    assert chain.alphas[-1] ** 2 == pytest.approx(4.0358e-5, rel=1e-5)
    assert VP().alpha(1.0) ** 2 == pytest.approx(4.3186e-5, rel=1e-5)
    assert VP().sigma(1.0) == pytest.approx(0.999978, abs=5e-7)
    assert chain.times[0] == 1.0
    assert chain.times[-1] == 0.0
    assert chain.prior_std == 1.0


def test_ddpm_tends_to_the_vp_sde_with_an_error_of_one_over_n():
    """Eqs. (9.4), (9.5), (9.6): the largest |α_i - e^{-B/2}| falls as 1/N, and its constant is δ(t); exercise 6."""
    errors = []
    for n in LADDER:
        chain, t = ddpm(n), np.arange(n + 1) / n
        errors.append(np.max(np.abs(np.array(chain.alphas) - VP().alpha(t))))
    assert_close(slopes(errors), 1, 0.05, errors)
    assert errors[2] == pytest.approx(9.93e-4, rel=1e-3)  # at N = 1000
    vp = VP()
    rise = vp.beta_max - vp.beta_min
    for t in (0.2, 0.6, 1.0):
        square = t * vp.beta_min**2 + t**2 * vp.beta_min * rise + t**3 * rise**2 / 3  # ∫ β²
        for first, made in ((rise * t * (1 - t), ddpm), (-rise * t, with_beta_at_the_end_of_a_step)):
            c = 0.25 * (first - square)
            rest = [n * (made(n).alpha(t) / vp.alpha(t) - 1) - c for n in LADDER]
            assert_close(slopes(rest), 1, 0.05, rest)
            if t == 1:  # for DDPM's own chain: alphabar_1000 is 6.5 % below its limit
                assert c == pytest.approx(-33.5 if made is ddpm else -38.5, abs=0.03)


def with_beta_at_the_end_of_a_step(n):
    """β_i = β(i/N)/N, which is not DDPM's chain."""
    return from_betas([(0.1 + 19.9 * i / n) / n for i in range(1, n + 1)])


@pytest.mark.parametrize("n", [25, 1000])
def test_betas_of_ddpm_lie_below_the_function_that_they_tend_to(n):
    """Eq. (9.4): N β_i = β(t) - (β_max - β_min)(1 - t)/(N - 1) at t = i/N, so only the last is β(t)."""
    betas = n * np.array([1 - (b / a) ** 2 for a, b in pairwise(ddpm(n).alphas)])
    t = np.arange(1, n + 1) / n
    np.testing.assert_allclose(betas, 0.1 + 19.9 * t - 19.9 * (1 - t) / (n - 1), rtol=1e-10)
    assert np.sum(betas) / n == pytest.approx(10.05, rel=1e-12)  # B(1): exercise 6


def test_the_steps_of_ddpm_are_euler_maruyama_steps_up_to_beta_squared():
    """Eq. (9.5): √(1-β) = 1 - ½β + O(β²), and √β is the noise itself: the real forward Euler-Maruyama step."""

    class Forward:
        def drift(self, x, t):
            return VP().f(t) * x

        def noise(self, x, t):
            return VP().g(t)

    gaps = []
    for h in (1e-3, 5e-4, 2.5e-4):
        a, b, _ = maps(EulerMaruyama(Forward()), 0.5, 0.5 + h)
        beta = h * VP().g(0.5) ** 2
        assert b == pytest.approx(math.sqrt(beta), rel=1e-14)
        gaps.append(math.sqrt(1 - beta) - a)
    assert_close(slopes(gaps), 2, 0.02, gaps)


@given(st.integers(1, 60), st.floats(1e-3, 0.1), st.floats(10.0, 5000.0))
def test_smld_is_the_ve_sde_at_every_n(n, low, ratio):
    """Eqs. (9.3), (9.7): adding variances is exact: no limit is needed at the times of the chain."""
    chain, sde, v = smld(n, low, low * ratio), VE(low, low * ratio), 0.0
    for i in range(n + 1):
        if i:
            v += chain.sigmas[i] ** 2 - chain.sigmas[i - 1] ** 2  # x_i = x_{i-1} + √(...) z
        assert chain.alphas[i] == 1.0
        assert chain.sigmas[i] == pytest.approx(sde.sigma(i / n), rel=1e-13)
        assert math.sqrt(v) == pytest.approx(chain.sigmas[i], rel=1e-12)
    assert chain.prior_std == pytest.approx(sde.prior_std, rel=1e-13)


def test_between_its_times_smld_is_not_the_ve_sde():
    """Half way up a step the chord of an exponential is above it, by cosh of the step, less one: 26 % at N = 12."""
    chain, sde, log_r = CHAINS["smld"], VE(), math.log(5000.0)
    t = (np.arange(1, 12) + 0.5) / 12
    low2 = 0.01**2  # both count from σ = 0: what is an exponential is σ² + σ_min²
    gap = (chain.sigma(t) ** 2 + low2) / (sde.sigma(t) ** 2 + low2) - 1
    np.testing.assert_allclose(gap, math.cosh(log_r / 12) - 1, rtol=1e-9)


def test_one_step_of_smld_is_g_squared_dt_up_to_the_square():
    """Eq. (9.7): |σ_i² - σ_{i-1}² - g² Δt| = O(1/N²) for each step."""
    sde, gaps = VE(), []
    for n in LADDER:
        chain = smld(n)
        i = n // 2
        gaps.append(chain.sigmas[i] ** 2 - chain.sigmas[i - 1] ** 2 - sde.g(i / n) ** 2 / n)
    assert_close(slopes(gaps), 2, 0.05, gaps)


# ------------------------------------------------------------------ backwards


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ancestral_is_the_update_of_the_textbooks(variance):
    """Eqs. (9.9), (9.10), (9.11): (x - β/√(1-ᾱ) ẑ)/√(1-β) + c z with β, ᾱ and β̃ multiplied by hand."""
    betas = np.linspace(1e-4, 2e-2, 1000)
    chain, abar = ddpm(1000), np.cumprod(1 - betas)
    score = score_of(1.5, 0.3, chain)
    x, z = np.array([[-2.0], [0.3], [1.7]]), np.array([[0.5], [-1.0], [2.0]])
    for i in (2, 10, 500, 1000):
        beta, bar, before = betas[i - 1], abar[i - 1], abar[i - 2]
        noise = -math.sqrt(1 - bar) * score(x, i / 1000)
        c2 = beta if variance == "large" else beta * (1 - before) / (1 - bar)
        wanted = (x - beta / math.sqrt(1 - bar) * noise) / math.sqrt(1 - beta) + math.sqrt(c2) * z
        found, _ = Ancestral(chain, score, variance)(x, i / 1000, (i - 1) / 1000, ReplayRng(z))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("m0", "v0", "variance"), [(1.5, 0.0, "small"), (0.0, 1.0, "large")])
def test_ddpm_is_exact_at_every_step_for_a_point_and_for_a_unit_gaussian(m0, v0, variance):
    """Eq. (9.11): β̃ for x₀ = c, β for x₀ ~ N(0, I): a thousand steps, at each the marginal to 1e-11.

    The last step ends at the posterior mean, without noise: its variance is v₀ less the mean posterior variance.
    """
    chain = ddpm(1000)
    found = moments(Ancestral(chain, score_of(m0, v0, chain), variance), chain.times, *marginal(chain, 1.0, m0, v0))
    wanted = [marginal(chain, t, m0, v0) for t in chain.times[1:]]
    np.testing.assert_allclose(found[:-1], wanted[:-1], rtol=0, atol=1e-11)
    explained = v0**2 * chain.alphas[1] ** 2 / wanted[-2][1]  # variance of E[x₀ | x₁]
    np.testing.assert_allclose(found[-1], (m0, explained), rtol=0, atol=1e-11)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_each_variance_is_wrong_for_the_other_data(variance):
    """The power of the test above: with the variances exchanged the law is off by far more than 1e-11."""
    m0, v0 = (0.0, 1.0) if variance == "small" else (1.5, 0.0)
    chain = ddpm(1000)
    found = moments(Ancestral(chain, score_of(m0, v0, chain), variance), chain.times, *marginal(chain, 1.0, m0, v0))
    wanted = [marginal(chain, t, m0, v0) for t in chain.times[1:]]
    assert np.max(np.abs(np.array(found[:-1]) - wanted[:-1])) > 1e-4


def test_three_reverse_steps_differ_by_the_square_of_beta():
    """Eq. (9.12): ancestral (β), reverse diffusion and Euler-Maruyama of the reverse SDE, at one time, Δt halved."""
    sde = VP()
    score = score_of(1.5, 0.3, sde)
    kinds = {
        "ancestral": Ancestral(sde, score, "large"),
        "reverse-diffusion": ReverseDiffusion(sde, score),
        "euler-maruyama": EulerMaruyama(Reverse(sde, score)),
    }
    found = {
        name: np.array([maps(step, 0.5, 0.5 - h) for h in (2e-3, 1e-3, 5e-4, 2.5e-4)]) for name, step in kinds.items()
    }
    for one, other in (("ancestral", "reverse-diffusion"), ("ancestral", "euler-maruyama")):
        gap = found[one] - found[other]
        assert_close(slopes(gap[:, [0, 2]]), 2, 0.05, "slope and shift of the mean")
        square = found[one][:, 1] ** 2 - found[other][:, 1] ** 2
        assert np.all(square == 0) if other == "reverse-diffusion" else np.all(np.abs(slopes(square) - 2) <= 0.05)


def test_ancestral_and_reverse_diffusion_are_one_for_smld():
    """Eq. (9.13): where α = 1 the means are the same, and "large" has the same noise."""
    chain = smld(20)
    score = score_of(1.5, 0.3, chain)
    for t, s in pairwise(chain.times[:-1]):
        one = maps(Ancestral(chain, score, "large"), t, s)
        np.testing.assert_allclose(one, maps(ReverseDiffusion(chain, score), t, s), rtol=1e-14, atol=1e-15)
        # and it is x + (σ_i² - σ_{i-1}²) s(x) + √(σ_i² - σ_{i-1}²) z, written out
        G2 = chain.sigma(t) ** 2 - chain.sigma(s) ** 2
        v = 0.3 + chain.sigma(t) ** 2
        np.testing.assert_allclose(one, (1 - G2 / v, math.sqrt(G2), 1.5 * G2 / v), rtol=1e-11, atol=1e-13)


SAMPLERS = {
    "small": Ancestral,
    "large": lambda sde, score: Ancestral(sde, score, "large"),
    "reverse-diffusion": ReverseDiffusion,
    "ddim": DDIM,
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", [ddpm, lambda n: smld(n, 0.1, 10.0)], ids=["ddpm", "smld"])
def test_the_law_of_a_chain_tends_to_that_of_the_sde(kind, name):
    """Eqs. (9.12), (9.13): run from the exact law at 1, the error of the variance at t = ½ falls as 1/N."""
    errors = []
    for n in (200, 400, 800):
        chain = kind(n)
        step, half = SAMPLERS[name](chain, score_of(1.5, 0.3, chain)), chain.times[: n // 2 + 1]
        _, variance = moments(step, half, *marginal(chain, 1.0, 1.5, 0.3))[-1]
        errors.append(variance - marginal(chain, 0.5, 1.5, 0.3)[1])
    assert_close(slopes(errors), 1, 0.06, errors)


# ------------------------------------------------------------------ the names


@given(mixtures(max_dim=3, max_components=3), st.floats(0.0, 1.0))
def test_vp_preserves_only_the_unit_covariance(p, t):
    """Eq. (9.14): Σ_t - I = e^{-B} (Σ_0 - I), for data of any law; DDPM's chain has the same with ᾱ."""
    before, eye = covariance(p), np.eye(p.dim)
    for sde in (VP(), CHAINS["ddpm"]):
        alpha, sigma = sde.alpha(t), sde.sigma(t)
        after = covariance(p.diffuse(alpha, sigma)) if t else before
        # a straight line in σ²/α² does not keep α² + σ² = 1 between the times of the chain: there, only α² + σ²
        total = 1.0 if sde is not CHAINS["ddpm"] else alpha**2 + sigma**2
        np.testing.assert_allclose(after - total * eye, alpha**2 * (before - eye), atol=1e-11)
    grid = round(t * 40) / 40
    alpha, sigma = CHAINS["ddpm"].alpha(grid), CHAINS["ddpm"].sigma(grid)
    assert alpha**2 + sigma**2 == pytest.approx(1.0, abs=1e-13)


@given(mixtures(max_dim=3, max_components=3), st.floats(1e-3, 1.0))
def test_ve_adds_the_same_variance_to_any_data(p, t):
    """Eq. (9.15): Σ_t = Σ_0 + σ² I, and the mean stays."""
    sigma = VE().sigma(t)
    q = p.diffuse(1.0, sigma)
    np.testing.assert_allclose(covariance(q), covariance(p) + sigma**2 * np.eye(p.dim), atol=1e-9 * (1 + sigma**2))
    np.testing.assert_array_equal(q.means, p.means)


@given(st.floats(0.0, 1.0), st.floats(0.01, 100.0))
def test_sub_vp_stays_below_vp_by_the_same_for_all_data(t, v0):
    """Eq. (9.16): the variances differ by e^{-B} (1 - e^{-B}), whatever v₀: never more than ¼."""
    (_, vp), (_, sub) = (marginal(sde, t, 0.0, v0) for sde in (VP(), SubVP()))
    e = VP().alpha(t) ** 2
    assert vp - sub == pytest.approx(e * (1 - e), abs=1e-13 * (1 + v0))
    assert vp - sub <= 0.25 + 1e-12 * (1 + v0)


def test_variances_of_the_chapter():
    """What the figure shows, in numbers: at t = ½ and 1, data of variance 1, ¼ and 4."""
    vp = [[marginal(VP(), t, 0.0, v)[1] for v in SEVERAL] for t in (0.5, 1.0)]
    assert vp[0] == pytest.approx([1.0, 0.940, 1.237], abs=2e-3)
    assert vp[1] == pytest.approx([1.0, 0.99997, 1.00013], abs=1e-5)
    assert marginal(VE(), 1.0, 0.0, 1.0)[1] == pytest.approx(2501.0, abs=1e-3)
    low = min(marginal(SubVP(), t, 0.0, 1.0)[1] for t in np.linspace(0, 1, 4001))
    assert low == pytest.approx(0.75, abs=1e-6)


# ------------------------------------------------------------------ losses and likelihood of a chain


@chains
def test_the_simple_loss_is_denoising_score_matching_weighed_by_sigma_squared(chain):
    """½ mean ‖z - ẑ‖², ẑ = -σ s: what DDPM and SMLD train on is one objective, over the times of the chain."""
    rng = np.random.default_rng(0)
    x0, z = rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    t = np.arange(1, 7) / chain.n
    alpha, sigma = chain.alpha(t)[:, None], chain.sigma(t)[:, None]
    guess = -sigma * -0.7 * (alpha * x0 + sigma * z)
    loss, _ = Denoising(times=FixedTime(0.5)).at(Scaled(chain), np.array([-0.7]), x0, t, z)
    assert loss == pytest.approx(0.5 * np.sum((z - guess) ** 2) / 6, rel=1e-12)


def test_the_levels_of_smld_are_times_of_the_ve_sde():
    chain, sde = smld(10), VE()
    levels = tuple(chain.sigmas[:0:-1])
    t, factor = Levels(levels).at(sde, (np.arange(10) + 0.5) / 10)
    np.testing.assert_allclose(t, chain.times[:-1], rtol=1e-12)
    assert factor == 1.0


@pytest.mark.parametrize(
    ("n", "gap"), [(200, 1.1053), (800, 0.5486), pytest.param(3200, 0.3725, marks=pytest.mark.slow)]
)
def test_the_bound_of_a_chain_is_below_the_likelihood_and_rises_with_more_steps(n, gap):
    """E over z by quadrature. It does not become tight: for N -> ∞ half of Euler's constant remains, a dimension.

    Near the data σ_i² ~ i β_min/N at every N, so ½(e^{2h} - 1) - h = ½/i - ½ log(1 + 1/i) in each of the steps i.
    """
    p = GaussianMixture(np.array([0.8, 0.2]), np.array([[1.0], [-1.0]]), np.array([0.1, 0.2]))
    z, w = np.polynomial.hermite_e.hermegauss(40)
    w = w / w.sum()
    x0, noise, chain = np.full((40, 1), 0.3), z[:, None], ddpm(n)
    exact = ExactScore(p, chain)
    score = lambda x, t: exact(x, float(t[0]))  # noqa: E731
    loss = discrete_loss(score, chain, x0, [noise] * (n - 1), chain.times[:-1])
    bound = float(w @ (decoder(score, chain, x0, noise, 1 / n) - loss)) - float(prior_kl(chain, x0)[0])
    found = float(p.log_prob(x0[:1])[0]) - bound
    assert found == pytest.approx(gap, abs=1e-4)
    assert found > 0.5 * np.euler_gamma


def test_the_flow_of_both_sdes_knows_the_density():
    p = GaussianMixture(np.array([0.8, 0.2]), np.array([[1.0], [-1.0]]), np.array([0.1, 0.2]))
    x = np.array([[-1.0], [0.3], [1.2]])
    for sde in (VP(), VE(0.01, 50.0)):
        score = ExactScore(p, sde)
        end = lambda y, sde=sde: p.log_prob(y, sde.alpha(1.0), sde.sigma(1.0))  # noqa: E731
        found = log_likelihood(score, sde, x, t_min=1e-3, prior=end, solve=FixedSteps(sde, 100)).value
        wanted = p.log_prob(x, sde.alpha(1e-3), sde.sigma(1e-3))
        np.testing.assert_allclose(found, wanted, atol=1e-5)  # 100 steps of order 4


# ------------------------------------------------------------------ the table of the chapter


def cells():
    """(row, column, formula, links) of the two tables diffusion <-> SDE."""
    text = (ROOT / "docs" / "chapters" / "09-ddpm-and-smld-as-sdes.md").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("| **")]
    rows = [[part.strip() for part in line.strip("|").split(" | ")] for line in lines]
    formulas, links = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    assert [row for row, *_ in formulas] == [row for row, *_ in links]
    return [
        (row, column, formula, link)
        for (row, *some), (_, *others) in zip(formulas, links, strict=True)
        for column, (formula, link) in enumerate(zip(some, others, strict=True))
    ]


@cache
def names(path):
    """Functions, classes and Class.method defined in a file."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_every_cell_of_the_table_leads_to_a_function_and_to_a_test():
    found = cells()
    assert len(found) == 7 * 4, "seven rows of four: DDPM, VP SDE, SMLD, VE SDE"
    for row, column, formula, cell in found:
        assert formula
        assert "](" not in formula, f"{row}, column {column}: links stand in the second table"
        code = re.findall(r"\[`(refscore/[\w/]+\.py)::([\w.]+)`\]\(\.\./\.\./([\w/]+\.py)\)", cell)
        tests = re.findall(r"\[`(tests/[\w/]+\.py)::(test_\w+)`\]\(\.\./\.\./([\w/]+\.py)\)", cell)
        assert code, f"{row}, column {column}: no function"
        assert tests, f"{row}, column {column}: no test"
        for file, name, link in code + tests:
            assert file == link
            assert name in names(ROOT / file), f"{row}, column {column}: no {name} in {file}"


def test_a_level_that_is_no_number_has_no_time(any_backend):
    """And leaves its neighbours theirs."""
    times = any_backend.to_numpy(ddpm(100).time(any_backend.asarray(np.array([np.nan, 0.5, 0.0], "float32"))))
    assert np.isnan(times[0])
    assert times[1] == pytest.approx(ddpm(100).time(0.5), rel=1e-6)
    assert times[2] == 0
