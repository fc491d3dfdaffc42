"""Chapter 2: what Langevin dynamics converges to, how fast, and how wrong a finite step is.

Where a law is known in one dimension it is computed on a grid and not sampled (`refscore.laws.grid_chain`, tested in
tests/laws/test_grid_chain.py). The affine law on a Gaussian, by probing the code itself, is in test_samplers.py.
"""

import math
import warnings

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import ndtr, roots_gegenbauer, roots_genlaguerre
from scipy.stats import binom, chi2

from refscore import VE, VP, ExactScore, GaussianMixture, Langevin, simulate, watch
from refscore.laws.examples import mixture
from refscore.laws.grid_chain import GridLaw, gap, grid_law, langevin_law
from refscore.noise.grids import geometric_levels, level_times, uniform_times
from refscore.noise.reverse import denoise
from refscore.sampling.compose import First, Repeat, Stay
from refscore.sampling.langevin import LevelStep, SNRLangevin, StepSizeWarning
from refscore.sampling.loop import NotFiniteError, RunawayError, last
from tests.oracles.close import assert_close
from tests.oracles.mixtures import TWO
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import ALPHA, assert_cdf, assert_mean, dkw
from tests.oracles.strategies import mixtures, points, random_mixture, sdes, seeds, times
from tests.oracles.waiting import BACKEND, Waited, nobody_waits


def line(w, m, variance=1.0):
    """w N(m, v) + (1 - w) N(-m, v)."""
    return GaussianMixture(np.array([w, 1 - w]), np.array([[m], [-m]]), np.array([variance, variance]))


def score_of(p):
    return lambda x, t: p.score(x)


def transition(law, p, eps):
    """The matrix of one Langevin step."""
    return law.transition(lambda x: x + eps * p.score(x[:, None])[:, 0], math.sqrt(2 * eps))


def on_grid(q, half, h):
    """The density of q at the centres, times h: no cells, so no h²/12."""
    n = math.ceil(2 * half / h)
    x = -half + 2 * half / n * (np.arange(n) + 0.5)
    return GridLaw(-half, half, 2 * half / n * np.exp(q.log_prob(x[:, None])))


def stationary(step):
    """The mass that a transition matrix leaves alone."""
    n = len(step)
    A, b = np.vstack([step.T - np.eye(n), np.ones(n)]), np.zeros(n + 1)
    b[-1] = 1
    mass = np.linalg.lstsq(A, b, rcond=None)[0]
    return mass


# ------------------------------------------------------------------ the equation, and where it leads


@given(p=mixtures(max_dim=3), seed=seeds)
def test_a_density_is_stationary_under_the_flow_along_its_own_score(p, seed):
    """Eqs. (2.1), (2.2): div(p s) = ∆p, the right side from the components' own second derivatives."""
    x = points(p, 1.0, 0.0, seed)
    C = p.covariances if p.covariances.ndim == 3 else np.stack([c * np.eye(p.dim) for c in p.covariances])
    away = x[:, None, :] - p.means
    g = -np.einsum("kde,bke->bkd", np.linalg.inv(C), away)
    density = p.weights * np.exp(0.5 * np.sum(g * away, axis=2)) / np.sqrt(np.linalg.det(2 * np.pi * C))
    trace = np.trace(np.linalg.inv(C), axis1=1, axis2=2)
    laplacian = np.sum(density * (np.sum(g * g, axis=2) - trace), axis=1)
    s = p.score(x)
    flow = np.exp(p.log_prob(x)) * (p.divergence(x) + np.sum(s * s, axis=1))
    scale = np.sum(density * (np.sum(g * g, axis=2) + trace), axis=1)  # of what cancels
    assert_close(flow, laplacian, 1e-11 * scale + 1e-290)


@given(seed=seeds)
def test_one_small_step_moves_a_density_as_fokker_planck_says(seed):
    """Eq. (2.2): (q₁ - q)/ε tends to -div(q s) + ∆q, here from the grid, extrapolated in ε twice."""
    p, q = (random_mixture(seed + i, dim=1, components=2, low=0.3, high=1.0, box=1.5) for i in range(2))
    rates = []
    for eps in (2e-3, 1e-3, 5e-4):
        law = on_grid(q, 9.0, 0.03)
        rates.append((law.mass @ transition(law, p, eps) - law.mass) / (eps * law.width))
    rate = (8 * rates[2] - 6 * rates[1] + rates[0]) / 3
    x = law.centres[:, None]
    s, s_q = p.score(x)[:, 0], q.score(x)[:, 0]
    exact = np.exp(q.log_prob(x)) * (q.divergence(x) - p.divergence(x) + s_q * (s_q - s))
    size = np.max(np.abs(exact))
    assert_close(rate, exact, 2e-3 * size, "ε³ and more: 4e-4 at worst of 150 pairs, 3e-2 at ε = 5e-4")


@given(mean=st.floats(-2.0, 2.0), start=st.floats(0.1, 4.0), variance=st.floats(0.3, 2.0), t=st.floats(0.0, 3.0))
def test_kl_falls_by_twice_the_fisher_divergence_on_gaussians(mean, start, variance, t):
    """Eq. (2.3) for q_t = N(e^{-t/σ²} m, σ² + e^{-2t/σ²}(v₀ - σ²)) and p = N(0, σ²), by complex step in t."""

    def moments(t):
        return mean * np.exp(-t / variance), variance + np.exp(-2 * t / variance) * (start - variance)

    def kl(t):
        m, v = moments(t)
        return 0.5 * (v / variance + m * m / variance - 1 - np.log(v / variance))

    m, v = moments(t)
    fisher = 0.5 * (v * (1 / v - 1 / variance) ** 2 + (m / variance) ** 2)  # E_q (s_q - s_p)², halved
    slope = (kl(t + 1e-30j)).imag / 1e-30
    assert abs(slope + 2 * fisher) <= 1e-12 * (1 + fisher)


@given(seed=seeds)
def test_kl_falls_by_twice_the_fisher_divergence_on_mixtures(seed):
    """Eq. (2.3): the loss of KL(q ‖ p) in one small step of the grid law, extrapolated to ε = 0."""
    p, q = (random_mixture(seed + i, dim=1, components=2, low=0.3, high=1.0, box=1.5) for i in range(2))
    law = on_grid(q, 9.0, 0.03)
    x = law.centres[:, None]
    log_p = np.log(law.width) + p.log_prob(x)

    def kl(mass):
        held = mass > 1e-200
        return float(np.sum(mass[held] * (np.log(mass[held]) - log_p[held])))

    slopes = [(kl(law.mass @ transition(law, p, eps)) - kl(law.mass)) / eps for eps in (2e-3, 1e-3, 5e-4)]
    slope = (8 * slopes[2] - 6 * slopes[1] + slopes[0]) / 3
    fisher = 0.5 * float(np.sum(law.mass * (q.score(x)[:, 0] - p.score(x)[:, 0]) ** 2))
    # ε³ and more: 3.2e-6 whatever p and q are, which counts where q is nearly p; 3e-3 of it at ε = 5e-4
    assert abs(slope + 2 * fisher) <= 1e-4 * fisher + 5e-6


def test_without_noise_it_climbs_to_a_mode_and_with_noise_it_does_not_stay_there():
    """Eq. (2.4): drift alone ends where s = 0; the law of the chain keeps E log p at minus the entropy, up to ε."""
    p = mixture("tilted")
    x = np.random.default_rng(0).uniform(-4, 4, (50, 2))
    for _ in range(2000):
        x = Langevin(score_of(p), 0.02)(x, 0.0, ReplayRng(0 * x))
    assert_close(p.score(x), 0, 1e-10)
    assert np.max(np.linalg.eigvalsh(np.moveaxis(p.score_jvp(x, np.eye(2)[:, None, :] + 0 * x), 0, -1))) < 0  # maxima

    eps = 0.02
    law = on_grid(TWO, 6.0, 0.1)
    settled = stationary(transition(law, TWO, eps))
    log_p = TWO.log_prob(law.centres[:, None])
    entropy = -float(law.mass @ log_p)
    h = hyvarinen(TWO, law.centres[:, None])
    shift = 0.5 * eps * float(law.mass @ ((h - law.mass @ h) * log_p))  # Eq. (2.7)
    assert abs((settled @ log_p + entropy) / shift - 1) <= 0.1
    assert abs(shift) < 0.025
    assert float(TWO.log_prob(np.array([[1.5]]))[0]) + entropy > 0.5  # a mode has half a nat more


# ------------------------------------------------------------------ a finite step


@pytest.mark.parametrize("overshoot", [0.3, 1.0, 1.7])
def test_the_law_on_a_gaussian_after_n_steps(overshoot):
    """Eqs. (2.4), (2.5), by iterating the two moments; ε/σ² = 1 forgets its start in one step."""
    variance, mean, m, v = 0.7, 0.4, -2.0, 3.0
    eps = overshoot * variance
    limit, m0, v0 = variance / (1 - eps / (2 * variance)), m, v
    for n in range(1, 40):
        m, v = m + eps * (mean - m) / variance, (1 - eps / variance) ** 2 * v + 2 * eps
        a = (1 - eps / variance) ** n
        assert abs(m - (mean + a * (m0 - mean))) <= 1e-13
        assert abs(v - (limit + a * a * (v0 - limit))) <= 1e-12 * limit
    x, z = np.array([[0.3], [-1.0]]), np.array([[0.5], [2.0]])
    y = Langevin(lambda x, t: (mean - x) / variance, eps)(x, 0.0, ReplayRng(z))
    np.testing.assert_allclose(y, x + eps * (mean - x) / variance + math.sqrt(2 * eps) * z, rtol=1e-14)


def hyvarinen(p, x):
    """h = ½|s|² + div s, what implicit score matching averages."""
    return 0.5 * np.sum(p.score(x) ** 2, axis=1) + p.divergence(x)


@given(seed=seeds)
def test_the_mean_of_hyvarinens_score(seed):
    """E_p H = -½ E_p|s|² (chapter 3's identity); exercise 5."""
    p = random_mixture(seed, dim=1, components=3, low=0.2, high=1.0, box=1.5)
    law = on_grid(p, 12.0, 0.05)
    x = law.centres[:, None]
    fisher = law.mass @ p.score(x)[:, 0] ** 2
    assert abs(law.mass @ hyvarinen(p, x) + 0.5 * fisher) <= 1e-9 * (1 + fisher)


def test_the_bias_on_a_gaussian_is_the_first_order_of_its_closed_law():
    """Eqs. (2.5), (2.7): variance σ² + ½ε Cov(H, x²) = σ² + ½ε, as σ²/(1 - ε/2σ²) to first order; exercise 5."""
    for variance in (0.3, 2.0):
        p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.array([variance]))
        law = on_grid(p, 12 * math.sqrt(variance), 0.2 * math.sqrt(variance))
        H, x = hyvarinen(p, law.centres[:, None]), law.centres
        assert abs(law.mass @ ((H - law.mass @ H) * x**2) - 1) <= 1e-12


def test_half_the_score_with_the_whole_noise_doubles_the_variance():
    """Exercise 7: x + ½ε s + √(2ε) z is the chain of √p, on N(0, σ²) that of N(0, 2σ²): v = (1 - ε/2σ²)² v + 2ε."""
    variance, eps = 0.7, 0.1
    kernel = Langevin(lambda x, t: -0.5 * x / variance, eps)
    pull = kernel(np.ones((1, 1)), 0.5, ReplayRng(np.zeros((1, 1))))[0, 0]
    push = kernel(np.zeros((1, 1)), 0.5, ReplayRng(np.ones((1, 1))))[0, 0]
    assert abs(push**2 / (1 - pull**2) - 2 * variance / (1 - eps / (4 * variance))) <= 1e-12


def test_published_constants_inflate_the_last_noise_level():
    """2e-5 at σ = 0.01 is ε/σ² = 0.2: 11 % in the convention of the code, 5 % in that of the paper."""
    for ratio, percent in ((0.2, 11.1), (0.1, 5.3)):
        assert abs(100 * (1 / (1 - ratio / 2) - 1) - percent) <= 0.05


@pytest.mark.parametrize("p", [line(0.5, 0.0, 0.25), line(0.8, 1.0, 0.25), TWO], ids=["one", "near", "far"])
def test_the_bias_of_a_small_step_is_half_of_it_times_hyvarinens_score(p):
    """Eq. (2.7): the stationary law of the chain, in total variation against p: order 1; against (2.7): order 2."""
    bias, rest, ladder = [], [], (0.02, 0.01, 0.005, 0.0025)
    for eps in ladder:
        law = on_grid(p, 5.5, 0.6 * math.sqrt(2 * eps))
        x = law.centres[:, None]
        h = hyvarinen(p, x)
        h -= law.mass @ h
        settled = stationary(transition(law, p, eps))
        bias.append(0.5 * np.sum(np.abs(settled - law.mass)))
        rest.append(0.5 * np.sum(np.abs(settled - law.mass * (1 + 0.5 * eps * h))))
    constant = 0.25 * float(law.mass @ np.abs(h))
    assert p is not TWO or abs(constant - 0.504) <= 5e-4  # as the chapter says
    assert abs(bias[-1] / (ladder[-1] * constant) - 1) <= 0.01
    assert_close(-np.diff(np.log2(bias)), 1, [0.06, 0.03, 0.015], "next order: as ε itself")
    assert np.all(np.diff(np.log2(rest))[1:] < -1.9)


@given(seed=seeds)
def test_the_bias_in_the_plane(seed):
    """Eq. (2.7) is a theorem in any dimension: ½ε h p solves the equation that the second order of a step asks for.

    With A f = ½ sᵀ∇²f s + s·∇∆f + ½∆²f, that order, and L f = s·∇f + ∆f: E_p[½ h L f + A f] = 0 for every f; here
    f = exp(u·x), for which E f(x') = f(x) exp(ε (u·s + |u|²)), so that L f and A f can be read off.
    """
    p = random_mixture(seed, dim=2, components=2, low=0.4, high=1.0, box=1.0)
    axis = np.arange(-9, 9, 0.12)
    x = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    s, weight = p.score(x), 0.12**2 * np.exp(p.log_prob(x))
    u = np.random.default_rng(seed).uniform(-0.7, 0.7, 2)
    f, along, u2 = np.exp(x @ u), s @ u, u @ u
    L, A = (along + u2) * f, (0.5 * along**2 + along * u2 + 0.5 * u2**2) * f
    terms = np.stack([0.5 * hyvarinen(p, x) * L, A])
    assert abs(np.sum(weight * terms)) <= 1e-8 * np.sum(weight * np.abs(terms))


# ------------------------------------------------------------------ how large a step may be


@given(p=mixtures(max_dim=3), sde=sdes, t=times, seed=seeds)
def test_below_the_bound_no_step_overshoots_by_the_whole_way(p, sde, t, seed):
    """Eq. (2.6): J has no eigenvalue below -1/(least variance of p_t), and inside one component it has that one."""
    score = ExactScore(p, sde)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x = points(p, alpha, sigma, seed)
    J = np.moveaxis(p.score_jvp(x, np.eye(p.dim)[:, None, :] + 0 * x, alpha, sigma), 0, -1)
    steps = np.eye(p.dim) + score.stable_step(t) * J
    assert np.linalg.eigvalsh(0.5 * (steps + np.swapaxes(steps, 1, 2))).min() >= -1 - 1e-9 * np.abs(steps).max()

    least = min(np.linalg.eigvalsh(C).min() for C in p.diffuse(alpha, sigma).covariances) if p.covariances.ndim == 3 \
        else p.diffuse(alpha, sigma).covariances.min()  # fmt: skip
    assert abs(score.stable_step(t) - 2 * least) <= 1e-10 * (least + alpha**2 * p.variances.max())
    one = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.array([p.least_variance]))
    reach = 1 + ExactScore(p, sde).stable_step(t) * one.divergence(np.ones((1, 1)), alpha, sigma)[0]
    assert abs(reach + 1) <= 1e-12


def test_beyond_the_bound_a_mixture_with_a_wide_component_stays_finite():
    """½ N(0, 0.01) + ½ N(0, 1) at five times its bound: no mass leaves [-8, 8], and the narrow half is lost."""
    p = GaussianMixture(np.array([0.5, 0.5]), np.zeros((2, 1)), np.array([0.01, 1.0]))
    eps = 5 * 0.02
    law = on_grid(p, 8.0, 0.02)
    law = law.push(transition(law, p, eps), 3000)
    assert abs(law.lost) <= 1e-9
    assert law.mean(lambda x: np.abs(x) < 0.3) < 0.4  # in p: 0.62
    one = langevin_law(on_grid(line(0.5, 0.0, 0.01), 8.0, 0.02), lambda x, t: -x / 0.01, [0.0], lambda t: 0.021, 200)
    assert one.lost > 0.99  # one Gaussian, 1.05 times its bound


@given(p=mixtures(max_dim=2), sde=sdes, t=times)
def test_the_warning_comes_at_the_bound_and_not_before(p, sde, t):
    score = ExactScore(p, sde)
    bound, x = score.stable_step(t), np.zeros((1, p.dim))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in (1e-6 * bound, math.nextafter(bound, 0)):
            Langevin(score, step)(x, t, ReplayRng(x))
            Langevin(score, lambda _, step=step: step)(x, t, ReplayRng(x))
        Langevin(lambda x, t: -x, 100.0)(x, t, ReplayRng(x))  # a score that knows of no bound
    for step in (bound, 1.01 * bound):
        with pytest.warns(StepSizeWarning, match="twice the smallest variance") as caught:
            Langevin(score, step)(x, t, ReplayRng(x))
        assert len(caught) == 1
        assert f"Langevin step {step:.3g} at t = {t:.3g} is at or beyond {bound:.3g}" in str(caught[0].message)
        assert caught[0].filename == __file__  # points at the caller


def test_the_step_that_is_judged_is_that_of_the_time():
    """LevelStep on data without spread: every level is the same fraction of its bound, beyond it or not."""
    sde = VE(0.01, 10.0)
    p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.zeros(1))
    x = np.ones((1, 1))
    for level in (5.0, 1.0, 0.1):
        t = float(sde.time(level))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Langevin(ExactScore(p, sde), LevelStep(sde, 1.99 * 0.1**2, 0.1))(x, t, ReplayRng(x))
        with pytest.warns(StepSizeWarning):
            Langevin(ExactScore(p, sde), LevelStep(sde, 2.01 * 0.1**2, 0.1))(x, t, ReplayRng(x))


def diverging(factor, backend, dtype="float64"):
    """Rows 1 and 2 of 4 start off the mode of N(0, I), the others at it; no noise: x -> (1 - factor) x."""
    x = np.zeros((4, 2))
    x[1, 0], x[2, 1] = 1.0, -1.0
    step = First(Langevin(lambda x, t: -x, factor), Stay())
    rng = ReplayRng(*(backend.asarray(0 * x, dtype=dtype) for _ in range(400)))
    return simulate(step, backend.asarray(x, dtype=dtype), uniform_times(400), rng)


def test_a_chain_that_diverges_is_stopped_by_name(backend):
    """|x| = 1.5ⁿ > 10⁶ first at n = 35: ln 10⁶/ln 1.5 = 34.07."""
    grid = uniform_times(400)
    with pytest.raises(RunawayError, match=r"step 35 \(t = 0.9125\): 2 of 4 rows are beyond 1e\+06 .*: \[1, 2\]"):
        last(watch(diverging(2.5, backend), grid, largest=1e6))
    with pytest.raises(RunawayError, match=r"step 40 \(t = 0.9\): 2 of 4 rows"):
        last(watch(diverging(2.5, backend), grid, every=10, largest=1e6))
    last(watch(diverging(1.99, backend), grid, largest=1.0))  # stable: |x| never grows
    edge = backend.asarray(np.array([[1.0, -1.0]]))
    assert list(watch([edge], [1.0, 0.0], largest=1.0)) == [edge]  # 1.0 itself is allowed


def test_without_a_largest_value_it_runs_until_it_is_not_finite(any_backend):
    """In float32 ε s = 2.5 · 1.5ⁿ⁻¹ overflows first at n = 218: 1 + ln(3.4e38/2.5)/ln 1.5 = 217.6."""
    with np.errstate(all="ignore"), pytest.raises(NotFiniteError, match=r"step 218 .* 2 of 4 rows are not finite"):
        last(watch(diverging(2.5, any_backend, "float32"), uniform_times(400)))


@pytest.mark.parametrize("largest", [0.0, -1.0, math.nan])
def test_a_largest_value_that_is_none_is_refused_at_the_call(largest):
    with pytest.raises(ValueError, match="largest must be positive"):
        watch(iter(()), [1.0, 0.0], largest=largest)


def test_the_bound_and_the_watchman_make_no_device_wait_between_looks(monkeypatch):
    def wait(x):  # its shape depends on values
        raise Waited("nonzero makes the device wait")

    monkeypatch.setattr(array_api_strict, "nonzero", wait)
    p = mixture("tilted", BACKEND.asarray)
    score = ExactScore(p, VE(0.01, 10.0))
    x0 = BACKEND.asarray(np.zeros((3, 2)))
    grid = uniform_times(10, 0.5)
    step = First(Langevin(score, lambda t: 3 * score.stable_step(t)), Stay())  # beyond its bound, and warned of
    states = watch(simulate(step, x0, grid, BACKEND.rng(0)), grid, every=3, largest=1e8)
    with nobody_waits():
        for _ in range(2):
            with pytest.warns(StepSizeWarning):
                next(states)
        with pytest.warns(StepSizeWarning), pytest.raises(Waited):  # the third looks
            next(states)


# ------------------------------------------------------------------ the rule that looks at x and z


def polar(D, nodes):
    """|z|², the cosine of the angle of z with the first axis, and weights: Gauss rules for z ~ N(0, I_D)."""
    u, uw = roots_genlaguerre(nodes[0], D / 2 - 1)
    c, cw = roots_gegenbauer(nodes[1], (D - 2) / 2)
    U, C = np.meshgrid(2 * u, c, indexing="ij")
    return U.ravel(), C.ravel(), np.outer(uw / uw.sum(), cw / cw.sum()).ravel()


def moved(D, r, w, u, c):
    """|x'|² of one step of the code on N(0, I_D), for |x|² = w and z with |z|² = u at cosine c to x."""
    x, z = np.zeros((len(w), D)), np.zeros((len(w), D))
    x[:, 0], z[:, 0], z[:, 1] = np.sqrt(w), np.sqrt(u) * c, np.sqrt(u * (1 - c * c))
    y = SNRLangevin(lambda x, t: -x, r)(x, 0.5, ReplayRng(z))
    return np.sum(y * y, axis=1)


def test_the_published_step_is_its_formula():
    """Eq. (10.14), a sample at a time; a sample does not know of its batch."""
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    y = SNRLangevin(lambda x, t: -2 * x, 0.16)(x, 0.5, ReplayRng(z))
    for i in range(5):
        eps = 2 * (0.16 * np.linalg.norm(z[i]) / np.linalg.norm(2 * x[i])) ** 2
        np.testing.assert_allclose(y[i], x[i] - eps * 2 * x[i] + math.sqrt(2 * eps) * z[i], rtol=1e-13)
        alone = SNRLangevin(lambda x, t: -2 * x, 0.16)(x[i : i + 1], 0.5, ReplayRng(z[i : i + 1]))
        assert np.array_equal(alone[0], y[i])


@given(D=st.integers(2, 12), r=st.floats(0.01, 0.5), w=st.floats(0.01, 50.0))
def test_the_published_step_moves_the_square_by_a_known_mean(D, r, w):
    """Eq. (10.16): E|x'|² - |x|² = 4r²D[(1 + r²)(D + 2)/|x|² - 1]; Gauss rules are exact for these polynomials."""
    u, c, weight = polar(D, (4, 4))
    change = weight @ (moved(D, r, np.full(len(u), w), u, c) - w)
    exact = 4 * r**2 * D * ((1 + r**2) * (D + 2) / w - 1)
    assert abs(change - exact) <= 1e-12 * (w + 4 * r**2 * D * (1 + (D + 2) / w))


def test_small_published_steps_leave_the_predicted_law_alone_and_not_the_target():
    """Eq. (10.15) in D = 10, by quadrature through the code, for f = exp(-½|x|²).

    E[f(x') - f(x)] is O(r⁴) from p ∝ |x|² exp(-|x|²/2v), where |x|²/v is χ² with D + 2 degrees of freedom; from N(0, I)
    it is r² times E[L f] = 2^(1 - D/2) (D + 2 + D - 2D (D + 2)/(D - 2)), which is -½.
    """
    D = 10
    v = (D + 2) / D
    u, c, inner = polar(D, (30, 16))

    def residual(r, degrees, scale):
        g, weight = roots_genlaguerre(120, degrees / 2 - 1)  # many nodes: |x| of the order of r counts
        w = 2 * g * scale
        all_w, all_u, all_c = np.repeat(w, len(u)), np.tile(u, len(w)), np.tile(c, len(w))
        change = np.exp(-0.5 * moved(D, r, all_w, all_u, all_c)) - np.exp(-0.5 * all_w)
        return float(weight / weight.sum() @ (change.reshape(len(w), -1) @ inner))

    steps = (0.05, 0.025, 0.0125)
    predicted = np.array([residual(r, D + 2, v) for r in steps])
    target = np.array([residual(r, D, 1.0) for r in steps])
    assert_close(predicted, 0, 1.2 * np.array(steps) ** 4)
    assert abs(-np.diff(np.log2(predicted))[-1] - 4) <= 0.15
    constant = target / np.array(steps) ** 2
    assert abs((4 * constant[2] - constant[1]) / 3 + 0.5) <= 2e-3
    assert 2 ** (1 - D / 2) * (2 * D + 2 - 2 * D * (D + 2) / (D - 2)) == -0.5


def run_published(D, r, chains, steps, seed):
    """|x|² of independent chains that start from the target N(0, I), where a good rule would leave them."""
    rng = np.random.default_rng(seed)
    kernel = Repeat(SNRLangevin(lambda x, t: -x, r), steps)
    x = last(simulate(First(kernel, Stay()), rng.standard_normal((chains, D)), [0.5, 0.0], rng))
    return np.sum(x * x, axis=1)


def test_the_published_rule_has_the_predicted_variance_in_ten_dimensions():
    """Eqs. (10.15), (10.16): variance 1.44, and 1.457 at r = 0.1; E 1/|x|² = 1/((1 + r²)(D + 2)) at any r.

    The moments of one step, for f = |x|⁴ (with U_k = E|z|²ᵏ, and E 1/|x|⁴ from the limit), give the next order:
    8D E|x|² = 8(1 + r²)U₂ + 16 U₂/D + r² (16 U₂ - 64 U₃/D E₁ - 32 U₃ E₁ + 16 U₄ E₂) + O(r⁴). Allowed: r⁴ times as much.
    """
    D, r = 10, 0.1
    w = run_published(D, r, 8000, 500, seed=0)
    v = (D + 2) / D
    U2, U3, U4 = D * (D + 2), D * (D + 2) * (D + 4), D * (D + 2) * (D + 4) * (D + 6)
    E1, E2 = 1 / (D + 2), 1 / (v**2 * D * (D - 2))
    order = 16 * U2 - 64 * U3 / D * E1 - 32 * U3 * E1 + 16 * U4 * E2
    variance = (8 * (1 + r**2) * U2 + 16 * U2 / D + r**2 * order) / (8 * D) / D
    assert abs(variance - 1.44) <= 2 * r**2
    assert_mean(w / D, variance, bias=2 * r**4)
    assert_mean(1 / w, 1 / ((1 + r**2) * (D + 2)))
    assert abs(np.mean(w / D) - 1) > 0.3  # the target's


def test_the_published_rule_has_the_predicted_law_in_three_dimensions():
    """Eq. (10.15): |x|²/v is χ²₅, v = 5/3, up to O(r) here (0.055 at r = 0.1); it is not χ²₃ of |x|²."""
    r, chains = 0.1, 8000
    w = run_published(3, r, chains, 500, seed=1)
    assert_cdf(w / (5 / 3), chi2(5).cdf, bias=r)
    x = np.linspace(0, 20, 2001)
    assert np.max(np.abs(chi2.cdf(x, 3) - chi2.cdf(x / (5 / 3), 5))) > 2 * (dkw(chains) + r)  # seen but for 1e-9
    limit = np.random.default_rng(0).chisquare(5, 200_000) * 5 / 3 / 3
    assert_mean(limit, (5 / 3) ** 2)  # the limit's variance, 2.78


def test_in_three_dimensions_the_variance_of_the_published_rule_is_infinite():
    """P(|x| > R) falls as R^{-(D-2)}: by less than 4, here about 2.2, when R doubles, so E|x|² does not exist.

    A law of finite variance falls by more than 4 eventually; the limit r -> 0 has 1e-31 beyond R = 16.
    """
    chains = 4000
    w = run_published(3, 0.4, chains, 1500, seed=2)
    near, far = int(np.sum(w > 8**2)), int(np.sum(w > 16**2))
    # Were the true ratio 4 or more, `far` of the `near` would be at most this many, but for one run in 1e9.
    assert far > binom.isf(ALPHA, near, 0.25)
    assert far > 0.02 * chains
    assert chi2.sf(16**2 / (5 / 3), 5) < 1e-30


def test_a_step_that_looks_at_the_score_alone_goes_half_the_way():
    """Exercise 14 of chapter 10: ε = 2r²D/|s|² leaves |x|² exp(-½|x|²) alone, of variance (D + 2)/D; by quadrature."""
    D = 10
    u, c, inner = polar(D, (30, 16))
    g, weight = roots_genlaguerre(120, (D + 2) / 2 - 1)
    w = np.repeat(2 * g, len(u))
    weight = np.repeat(weight / weight.sum(), len(u)) * np.tile(inner, len(g))
    U, C = np.tile(u, len(g)), np.tile(c, len(g))
    assert abs(weight @ w / D - (D + 2) / D) <= 1e-12
    residuals = []
    for r in (0.05, 0.025, 0.0125):
        eps = 2 * r**2 * D / w
        after = (1 - eps) ** 2 * w + 2 * eps * U + 2 * (1 - eps) * np.sqrt(2 * eps * w * U) * C
        residuals.append(float(weight @ (np.exp(-0.5 * after) - np.exp(-0.5 * w))))
    assert abs(-np.diff(np.log2(residuals))[-1] - 4) <= 0.1
    assert_close(residuals, 0, np.array([0.05, 0.025, 0.0125]) ** 4)


def test_taking_means_over_the_batch_couples_the_samples():
    """The published form, ε = 2 (r · mean|z| / mean|s|)²: a sample moves otherwise in other company."""

    def batch_mean_step(x, z, r=0.16):
        s = -x
        eps = 2 * (r * np.mean(np.linalg.norm(z, axis=1)) / np.mean(np.linalg.norm(s, axis=1))) ** 2
        return x + eps * s + math.sqrt(2 * eps) * z

    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    others = x.copy()
    others[1:] *= 3
    size = lambda a: np.mean(np.linalg.norm(a, axis=1))  # noqa: E731
    eps, eps_other = (2 * (0.16 * size(z) / size(a)) ** 2 for a in (x, others))
    moved = batch_mean_step(others, z)[0] - batch_mean_step(x, z)[0]
    np.testing.assert_allclose(
        moved, (eps_other - eps) * -x[0] + (math.sqrt(2 * eps_other) - math.sqrt(2 * eps)) * z[0], atol=1e-14
    )
    assert eps_other < 0.7 * eps  # four of five are three times as far out
    for kernel in (SNRLangevin(lambda x, t: -x, 0.16), Langevin(lambda x, t: -x, 0.05)):
        assert np.array_equal(kernel(x, 0.5, ReplayRng(z))[0], kernel(others, 0.5, ReplayRng(z))[0])


def test_the_exhibit_refuses_what_is_no_ratio_and_takes_any_shape(any_backend):
    for snr in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="snr must be positive"):
            SNRLangevin(lambda x, t: -x, snr)
    x, z = np.random.default_rng(0).standard_normal((2, 3, 4))

    def run(shape):
        given, noise = (any_backend.asarray(a.reshape(shape), dtype="float32") for a in (x, z))
        return SNRLangevin(lambda x, t: -x, 0.16)(given, 0.5, ReplayRng(noise))

    wide, long = run((3, 2, 2)), run((3, 4))
    assert str(wide.dtype).endswith("float32")
    wide, long = any_backend.to_numpy(wide), any_backend.to_numpy(long)
    assert_close(wide.reshape(3, 4), long, 2**-22 * np.max(np.abs(long)))  # JAX compiles each shape in its own way


# ------------------------------------------------------------------ between modes


def rate(p, half, eps):
    """The relaxation rate per unit of time nε, extrapolated to ε = 0 from ε and ε/2."""
    found = []
    for e in (eps, eps / 2):
        law = on_grid(p, half, 0.9 * math.sqrt(2 * e))
        found.append(gap(transition(law, p, e)) / e)
    return 2 * found[1] - found[0]


def turning_points(p, m):
    """The modes near -m and m, and the minimum between them."""
    s = lambda x: float(p.score(np.array([[x]]))[0, 0])  # noqa: E731
    return brentq(s, -m - 1, -0.6 * m), brentq(s, -0.6 * m, 0.6 * m), brentq(s, 0.6 * m, m + 1)


def harmonic(p, m):
    """Kramers' rate, both ways."""
    left, top, right = turning_points(p, m)
    at = np.array([[left], [top], [right]])
    (U_l, U_t, U_r), (c_l, c_t, c_r) = -p.log_prob(at), -p.divergence(at)
    out = [math.sqrt(c * -c_t) / (2 * math.pi) * math.exp(U - U_t) for c, U in ((c_l, U_l), (c_r, U_r))]
    return sum(out)


def integral(p, m):
    """The same before anything is called a parabola."""
    left, top, right = turning_points(p, m)
    x = np.linspace(left, right, 4001)
    inverse = np.exp(-p.log_prob(x[:, None]))
    width = (right - left) / 4000
    barrier = width * (inverse.sum() - 0.5 * (inverse[0] + inverse[-1]))
    w = float(p.weights @ ndtr((p.means[:, 0] - top) / np.sqrt(p.covariances)))
    return 1 / (w * (1 - w) * barrier)


def test_kramers_rate_is_that_of_a_smooth_double_well():
    """Eq. (2.9) for U = B (x² - 1)²: measured/predicted = 1 - 3/(8B) + O(1/B²), which tends to 1 with the barrier.

    3/8: twice 3/16, from the Gaussian integrals over well and top to the next order.
    """
    for B in (6.0, 8.0, 12.0):
        found = []
        for eps in (0.02 / B, 0.01 / B, 0.005 / B):
            law = GridLaw(-1.9, 1.9, np.full(math.ceil(3.8 / (0.8 * math.sqrt(2 * eps))), 0.0))
            step = law.transition(lambda x, e=4 * B * eps: x - e * x * (x * x - 1), math.sqrt(2 * eps))
            found.append(gap(step) / eps)
        kramers = 2 * math.sqrt(8 * B * 4 * B) / (2 * math.pi) * math.exp(-B)
        measured = (8 * found[2] - 6 * found[1] + found[0]) / 3
        assert abs(measured / kramers - (1 - 3 / (8 * B))) <= 0.6 / B**2


def test_between_the_modes_of_a_mixture_the_top_is_no_parabola():
    """Eqs. (2.9), (2.10) for 0.8 N(m, 1) + 0.2 N(-m, 1): measured against the integral the ratio tends to 1, against
    the parabolas to √(2/π) = 0.798, since ∫ sech(m x) dx = π/m is not √(2π)/m.
    """
    against_integral, against_parabola = [], []
    for m in (2.5, 3.0, 3.5, 4.0):
        p = line(0.8, m)
        measured = rate(p, m + 7, 0.08 / m**2)
        against_integral.append(measured / integral(p, m))
        against_parabola.append(measured / harmonic(p, m))
    assert np.all(np.diff(against_integral) < 0)
    assert np.all(np.array(against_integral) - 1 <= [0.1, 0.05, 0.015, 0.004])
    assert against_integral[-1] >= 0.999
    far = line(0.8, 12.0)  # no chain crosses this; the two formulas can still be compared
    assert abs(integral(far, 12.0) / harmonic(far, 12.0) / math.sqrt(2 / math.pi) - 1) <= 0.01
    assert all(0.70 < ratio < 0.76 for ratio in against_parabola)


def test_the_numbers_of_the_table():
    """Barrier seen from the minor mode, relaxation time, and its two predictions, as the chapter prints them."""
    for m, barrier, tau, exact, parabolas in (
        (2.0, 0.69, 7.02, 7.99, 6.09), (3.0, 3.14, 57.8, 60.1, 41.4), (4.0, 6.63, 1314, 1317, 984),
    ):  # fmt: skip
        p = line(0.8, m)
        left, top, _ = turning_points(p, m)
        height = float(np.diff(-p.log_prob(np.array([[left], [top]])))[0])
        found = (height, 1 / rate(p, m + 7, 0.08 / m**2), 1 / integral(p, m), 1 / harmonic(p, m))
        for number, printed in zip(found, (barrier, tau, exact, parabolas), strict=True):
            assert abs(number / printed - 1) <= 0.01


def test_the_barrier_of_the_published_example():
    """Modes 2√50 apart: 23.6 nats, a relaxation time of 1.7e10."""
    m = math.sqrt(50)
    p = line(0.8, m)
    left, top, _ = turning_points(p, m)
    assert abs(float(np.diff(-p.log_prob(np.array([[left], [top]])))[0]) - 23.6) <= 0.05
    assert abs(1 / integral(p, m) / 1.65e10 - 1) <= 0.01


def test_the_weight_of_a_mode_forgets_its_start_at_the_relaxation_rate():
    """Eq. (2.11): from either mode, W_n - w = (W_k - w) μ₂ⁿ⁻ᵏ once the wells have settled; μ₂ = 1 - gap."""
    p, eps = line(0.8, 3.0), 0.02
    law = on_grid(p, 10.0, 0.9 * math.sqrt(2 * eps))
    step = transition(law, p, eps)
    w = float(stationary(step)[law.centres > 0].sum())
    mu = 1 - gap(step)
    for centre in (3.0, -3.0):
        start = grid_law(-10.0, 10.0, len(law.mass), lambda x, c=centre: ndtr(x - c))
        early = start.push(step, 400)  # nε = 8: eight times the relaxation time of a well
        late = early.push(step, 2000)
        gone = [one.mean(lambda x: x > 0) - w for one in (early, late)]
        assert abs(gone[1] / gone[0] / mu**2000 - 1) <= 1e-3
        assert abs(gone[0]) > 0.1


def diagonal(cells, half=18.0):
    """(x₁ + x₂)/√2 for x uniform on [-8, 8]²: a triangle."""
    edge = 8 * math.sqrt(2)

    def cdf(u):
        v = np.clip(u / edge, -1, 1)
        return 0.5 + v - 0.5 * v * np.abs(v)

    return grid_law(-half, half, cells, cdf)


def test_plain_langevin_does_not_find_the_weights():
    """.8 N((5, 5), I) + .2 N((-5, -5), I), 1000 steps of ε = .05: weight .509 from the box, 2.3e-9 from the minor mode.

    The components are round, so u = (x₁ + x₂)/√2 is a chain of its own, with modes at ±√50. Its boundary is at
    u = -ln 4/(2√50), where the triangle has .5086 beyond it: that is all that happens.
    """
    p = line(0.8, math.sqrt(50))
    for cells in (360, 720):
        box = langevin_law(diagonal(cells), score_of(p), [0.0], lambda t: 0.05, 1000)
        assert abs(box.lost) <= 1e-11
        assert abs(diagonal(cells).mean(lambda u: u > 0) - 0.5) <= 1e-14
        assert abs(box.mean(lambda u: u > 0) - 0.50894) <= 2e-5
        start = grid_law(-18.0, 18.0, cells, lambda u: ndtr(u + math.sqrt(50)))
        minor = langevin_law(start, score_of(p), [0.0], lambda t: 0.05, 1000)
        assert abs(minor.mean(lambda u: u > 0) / 2.287e-9 - 1) <= 1e-3
    edge = math.log(4) / (2 * math.sqrt(50)) / (8 * math.sqrt(2))
    assert abs(0.5 + edge - 0.5 * edge**2 - 0.5086) <= 1e-4


@given(seed=seeds)
def test_along_the_diagonal_the_chain_is_one_of_its_own(seed):
    """What the test above rests on: the diagonal part of the score of round components looks at u alone."""
    p, along = mixture("two-modes"), line(0.8, math.sqrt(50))
    x = np.random.default_rng(seed).uniform(-8, 8, (20, 2))
    u = x.sum(axis=1, keepdims=True) / math.sqrt(2)
    s = p.score(x)
    np.testing.assert_allclose(s.sum(axis=1, keepdims=True) / math.sqrt(2), along.score(u), rtol=0, atol=1e-12)
    across = (x[:, 0] - x[:, 1]) / math.sqrt(2)
    np.testing.assert_allclose((s[:, 0] - s[:, 1]) / math.sqrt(2), -across, rtol=0, atol=1e-12)


# ------------------------------------------------------------------ steps for a ladder; the last step of all


@given(seed=seeds, last_level=st.floats(0.01, 0.5), step=st.floats(1e-6, 1e-3))
def test_the_level_step_is_the_same_fraction_of_every_level(seed, last_level, step):
    sde = VE(0.005, 20.0)
    for t in level_times(sde, geometric_levels(10.0, last_level, 5))[:-1]:
        assert abs(LevelStep(sde, step, last_level)(t) / sde.sigma(t) ** 2 / (step / last_level**2) - 1) <= 1e-12


@pytest.mark.parametrize("bad", [{"step": 0.0}, {"step": math.nan}, {"last": -1.0}, {"last": math.inf}])
def test_level_steps_refuse_what_is_not_positive(bad):
    with pytest.raises(ValueError, match="must be positive and finite"):
        LevelStep(VE(), **{"step": 1e-5, "last": 0.01, **bad})


@given(p=mixtures(max_dim=3), sde=sdes, t=times, seed=seeds)
def test_denoising_is_the_posterior_mean(p, sde, t, seed):
    """Eq. (1.13) through `denoise`; its error is judged by the size of what cancels, |x|/α + σ²|s|/α."""
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x = points(p, alpha, sigma, seed)
    exact = p.posterior_mean(x, alpha, sigma)
    scale = (np.abs(x).max() + sigma**2 * np.abs(p.score(x, alpha, sigma)).max()) / alpha
    assert np.abs(denoise(ExactScore(p, sde), sde, x, t) - exact).max() <= 1e-11 * (1 + scale)


def test_denoising_a_gaussian_takes_too_much():
    """N(0, v) at noise σ has variance v + σ²; after `denoise` v²/(v + σ²), less than v by σ² v/(v + σ²)."""
    sde, v = VE(0.01, 10.0), 0.7
    p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.array([v]))
    t = float(sde.time(0.5))
    x = np.array([[1.0], [-3.0]])
    y = denoise(ExactScore(p, sde), sde, x, t)
    np.testing.assert_allclose(y / x, v / (v + 0.25), rtol=1e-12)  # so the variance is (v + σ²)(v/(v + σ²))²


def test_denoising_a_point_finds_it(any_backend):
    """Data of one point: whatever the noise, the answer is the point; any shape, any library."""
    sde = VP()
    t = float(sde.time(0.6))
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x = any_backend.asarray(np.random.default_rng(0).standard_normal((4, 2, 3)), dtype="float32")
    y = denoise(lambda x, t: (alpha * 2.0 - x) / sigma**2, sde, x, t)
    assert y.dtype == x.dtype
    assert y.shape == x.shape
    np.testing.assert_allclose(any_backend.to_numpy(y), 2.0, atol=2e-6)


def test_numbers_of_the_first_exercises():
    """Exercises 1 and 2: 66 steps, variance 1.053; 4.6 relaxation times of 5801 steps. Exercise 4: 23 times as long."""
    a = 1 - 0.1
    assert 10 * a**66 < 0.01 < 10 * a**65
    assert 0.2 / (1 - a**2) == pytest.approx(1.053, abs=5e-4)
    steps = {}
    for m in (3.0, 4.0):
        p = GaussianMixture(np.array([0.8, 0.2]), np.array([[m], [-m]]), np.ones(2))
        law = grid_law(-10.0, 10.0, 200, lambda x, m=m: ndtr(x + m))
        kernel = law.transition(lambda x, p=p: x + 0.01 * p.score(x[:, None])[:, 0], math.sqrt(0.02))
        steps[m] = 1 / gap(kernel)
    assert math.log(100) * steps[3.0] == pytest.approx(26_700, rel=2e-3)
    assert steps[4.0] / steps[3.0] == pytest.approx(23, abs=0.2)


@pytest.mark.recorded("what the solutions of the book say of these seeds")
def test_a_larger_step_widens_the_mode():
    """Exercise 3, with the seed of the chapter: 0.75 instead of 0.5, and 0.67 of the points on the right."""
    p = GaussianMixture(np.array([0.8, 0.2]), np.array([[1.5], [-1.5]]), np.array([0.25, 0.25]))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4000, 1))
    for _ in range(300):
        x = x + 0.3 * p.score(x) + math.sqrt(0.6) * rng.standard_normal(x.shape)
    assert x[x > 0].std() == pytest.approx(0.75, abs=0.02)
    assert np.mean(x > 0) == pytest.approx(0.67, abs=0.03)
