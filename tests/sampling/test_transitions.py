"""Every sampler: its exact law on a Gaussian, which of them are one step, exactness, correctors. Chapter 10.

On one Gaussian every sampler of the table is affine in its start and its noise. The real code is probed with unit
vectors for its law (`tests.oracles.affine`), and held against matrices that are written down here from other
formulas than those of the code: posteriors in the form of Bayes, flows in σ/α, extrapolations in log SNR.
"""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import (
    DDIM,
    EDM,
    VE,
    VP,
    Ancestral,
    DPMSolver,
    ExactScore,
    First,
    GaussianMixture,
    Langevin,
    ReverseDiffusion,
    Then,
    simulate,
)
from refscore.laws.grid_chain import GridLaw
from refscore.laws.posterior import linear_posterior
from refscore.noise.sde import SDES, LinearVE, SubVP
from refscore.sampling.langevin import LevelStep
from refscore.sampling.loop import last
from refscore.sampling.transitions import SAMPLERS, transition
from tests.oracles.affine import TARGETS, C, M, gaussian, law, law_of, marginal, probe, start
from tests.oracles.close import assert_close
from tests.oracles.marks import PROCESSES, each_process, each_sampler
from tests.oracles.mixtures import PAIR
from tests.oracles.replay import ReplayRng
from tests.oracles.strategies import mixtures, seeds
from tests.oracles.strategies import sdes as random_sdes

# x̂₀ = (x + σ² s)/α loses as many digits as α has zeros: here α(1) >= 0.002
any_process = st.one_of(
    st.builds(lambda a, r: VP(a, a * r), st.floats(0.05, 2.0), st.floats(1.0, 10.0)),
    st.builds(lambda a, r: VE(a, a * r), st.floats(1e-3, 0.1), st.floats(10.0, 5000.0)),
    st.sampled_from(list(PROCESSES.values())),
)
GRID = (np.linspace(1, 0, 25) ** 1.3).tolist()
I2 = np.eye(2)
PAIR_1D = GaussianMixture(np.array([0.8, 0.2]), np.array([[2.0], [-2.0]]), np.array([[0.25], [0.25]]))


# ------------------------------------------------------------------ the laws on paper


def score(sde, t):
    """P, q of s(x) = q - P x, P = S⁻¹, q = S⁻¹ m."""
    m, S = marginal(sde, TARGETS["gaussian"], t)
    P = np.linalg.inv(S)
    return P, P @ m


def guess(level):
    """G, b of x̂₀ = G y + b for y = x₀ + ς z: C (C + ς² I)⁻¹ (y - m₀) + m₀."""
    G = C @ np.linalg.inv(C + level**2 * I2)
    return G, M - G @ M


def posterior(sde, t, s):
    """Of x_t, of x₀, and variances: of x_s given both ("small"), and of x_t given x_s ("large")."""
    at, as_, vt, vs = sde.alpha(t), sde.alpha(s), sde.sigma(t) ** 2, sde.sigma(s) ** 2
    new = vt - (at / as_) ** 2 * vs
    return at * vs / (as_ * vt), as_ * new / vt, new * vs / vt, new


def by_posterior(sde, t, s, large):
    of_x, of_data, small, new = posterior(sde, t, s)
    G, b = guess(sde.sigma(t) / sde.alpha(t))
    return of_x * I2 + of_data * G / sde.alpha(t), of_data * b, (new if s > 0 else 0.0) if large else small


def by_reverse_diffusion(sde, t, s):
    P, q = score(sde, t)
    new = posterior(sde, t, s)[3]
    return (2 - sde.alpha(t) / sde.alpha(s)) * I2 - new * P, new * q, new if s > 0 else 0.0


def velocity(sde, t, lam=0.0):
    P, q = score(sde, t)
    half = 0.5 * (1 + lam**2) * sde.g(t) ** 2
    return sde.f(t) * I2 + half * P, -half * q


def by_euler_maruyama(sde, t, s):
    (A, c), h = velocity(sde, t, 1.0), s - t
    return I2 + h * A, h * c, abs(h) * sde.g(t) ** 2


def by_runge_kutta(nodes, a, b):
    """Stage i starts from stage i - 1 alone: true of all four tableaux."""

    def paper(sde, t, s):
        h, K, k = s - t, 0 * I2, 0 * M
        A, c = I2.copy(), 0 * M
        for node, before, weight in zip(nodes, a, b, strict=True):
            V, v = velocity(sde, s if node == 1 else t + node * h)
            K, k = V @ (I2 + h * before * K), V @ (h * before * k) + v
            A, c = A + h * weight * K, c + h * weight * k
        return A, c, 0.0

    return paper


def by_ddim(sde, t, s):
    """α_s x̂₀ + σ_s (x - α_t x̂₀)/σ_t."""
    (G, b), ratio = guess(sde.sigma(t) / sde.alpha(t)), sde.sigma(s) / sde.sigma(t)
    keep = sde.alpha(s) - ratio * sde.alpha(t)
    return ratio * I2 + keep * G / sde.alpha(t), keep * b, 0.0


def by_edm(churn):
    def paper(sde, t, s):
        low, high = sde.sigma(s) / sde.alpha(s), sde.sigma(t) / sde.alpha(t)
        raised = min((1 + churn) * high, sde.sigma(1.0) / sde.alpha(1.0))
        (G, b), h = guess(raised), low - raised
        K, k = (I2 - G) / raised, -b / raised
        A, c = I2 + h * K, h * k
        if low > 0:
            G2, b2 = guess(low)
            K2, k2 = (I2 - G2) / low @ A, ((I2 - G2) @ c - b2) / low
            A, c = I2 + 0.5 * h * (K + K2), 0.5 * h * (k + k2)
        A, noise = sde.alpha(s) * A, raised**2 - high**2 if churn else 0.0
        return A / sde.alpha(t), sde.alpha(s) * c, noise * A @ A.T

    return paper


PAPER = {
    "euler-maruyama": by_euler_maruyama,
    "reverse-diffusion": by_reverse_diffusion,
    "ancestral": lambda sde, t, s: by_posterior(sde, t, s, large=False),
    "ancestral-large": lambda sde, t, s: by_posterior(sde, t, s, large=True),
    "ddim": by_ddim,
    "ddim-eta1": lambda sde, t, s: by_posterior(sde, t, s, large=False),
    "euler": by_runge_kutta([0], [0], [1]),
    "midpoint": by_runge_kutta([0, 0.5], [0, 0.5], [0, 1]),
    "heun": by_runge_kutta([0, 1], [0, 1], [0.5, 0.5]),
    "rk4": by_runge_kutta([0, 0.5, 0.5, 1], [0, 0.5, 0.5, 1], [1 / 6, 1 / 3, 1 / 3, 1 / 6]),
    "dpm-solver++1": by_ddim,
    "edm": by_edm(0.0),
    "edm-churn": by_edm(0.1),
}


def one_step_recursion(paper, sde, times, mean, cov):
    """m' = A m + c, V' = A V Aᵀ + noise                                                     Eq. (10.11)."""
    for t, s in pairwise(times):
        A, c, noise = paper(sde, t, s)
        mean, cov = A @ mean + c, A @ cov @ A.T + noise * (I2 if np.ndim(noise) == 0 else 1)
    return mean, cov


def two_step_recursion(stochastic, sde, times, mean, cov):
    """2M: the state is (x, the guess before), a Gaussian of four numbers; the guess is a line in log α/σ."""
    m, V = np.concatenate([mean, 0 * mean]), np.zeros((4, 4))
    V[:2, :2] = cov
    before = math.nan
    for t, s in pairwise(times):
        G, b = guess(sde.sigma(t) / sde.alpha(t))
        now = math.log(sde.alpha(t) / sde.sigma(t))
        middle = 0.5 * (now + math.log(sde.alpha(s) / sde.sigma(s))) if sde.sigma(s) > 0 else now
        share = 0.0 if math.isnan(before) else (middle - now) / (now - before)
        if stochastic:
            of_x, of_data, noise, _ = posterior(sde, t, s)
        else:
            of_x, noise = sde.sigma(s) / sde.sigma(t), 0.0
            of_data = sde.alpha(s) - of_x * sde.alpha(t)
        G = G / sde.alpha(t)
        A = np.block([[of_x * I2 + of_data * (1 + share) * G, -of_data * share * I2], [G, 0 * I2]])
        c = np.concatenate([of_data * (1 + share) * b, b])
        m, V = A @ m + c, A @ V @ A.T
        V[:2, :2] += noise * I2
        before = now
    return m[:2], V[:2, :2]


def on_paper(name, sde, times, mean, cov):
    if "2m" in name:
        return two_step_recursion(name.startswith("sde"), sde, times, mean, cov)
    return one_step_recursion(PAPER[name], sde, times, mean, cov)


def worst(found, wanted):
    return max(float(np.max(np.abs(a - b))) for a, b in zip(found, wanted, strict=True))


@each_process
@each_sampler
def test_every_sampler_has_on_a_gaussian_the_law_of_its_recursion(name, sde):
    """Eqs. (10.4), (10.6), (10.8), (10.9), (10.10), (10.11), and the others of the table."""
    target = TARGETS["gaussian"]
    times = sde.times if name in ("ancestral", "ddim") and hasattr(sde, "times") else GRID
    begin = start(sde, target)
    found = law_of(SAMPLERS[name](sde, ExactScore(target, sde)), times, begin)
    # what is contracted on the way is as large as the start; the forms of Bayes subtract, a few digits in VE
    assert worst(found, on_paper(name, sde, times, *begin)) <= 1e-11 * (1 + np.max(np.abs(begin[1])) / 100)


def test_the_recursions_are_a_dozen_different_laws():
    """The power of the law above: no two entries share a law but those which are one step."""
    sde, begin = SDES["vp"], start(SDES["vp"], TARGETS["gaussian"])
    laws = {name: on_paper(name, sde, GRID, *begin)[1] for name in SAMPLERS}
    same = {(a, b) for a in laws for b in laws if a < b and np.max(np.abs(laws[a] - laws[b])) < 1e-6}
    assert same == {("ancestral", "ddim-eta1"), ("ddim", "dpm-solver++1")}


# ------------------------------------------------------------------ the transition


@given(seed=seeds, sde=any_process)
def test_a_transition_and_its_posterior_compose_to_the_joint_law(seed, sde):
    """Eqs. (10.1), (10.2): x_s then x_t, and x_t then x_s, are one Gaussian given x₀."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(0.05, 1)
    s = t * rng.uniform(0.02, 0.95)
    p = transition(sde, t, s)
    vs, vt, new = p.sigma_s**2, p.sigma_t**2, p.sigma_t**2 * p.lost
    forward = np.array([[vs, p.a * vs], [p.a * vs, p.a**2 * vs + new]])
    back, small = p.a * vs / vt, vs * p.lost
    backward = np.array([[back**2 * vt + small, back * vt], [back * vt, vt]])
    assert_close(forward, backward, 1e-12 * vt)
    assert abs(p.a**2 * vs + new - vt) <= 1e-12 * vt
    assert abs(back * p.alpha_t + p.alpha_s * p.lost - p.alpha_s) <= 1e-12  # the means: of x_s given x₀


@given(seed=seeds, sde=random_sdes)
def test_the_transition_is_that_of_the_sde(seed, sde):
    """Eq. (10.1): d/ds of a and of the new variance are those that f and g say."""
    t = np.random.default_rng(seed).uniform(0.1, 0.9)
    d = 1e-6
    p = transition(sde, t + d, t)
    assert abs(math.log(p.a) / d - sde.f(t + d / 2)) <= 1e-6 * abs(sde.f(t)) + 1e-9  # rounding 1e-16/d
    g2 = sde.g(t + d / 2) ** 2
    assert abs(p.sigma_t**2 * p.lost / d / g2 - 1) <= 1e-3  # the next order, β d, β up to 400


@given(law=mixtures(max_dim=3, low=0.05), seed=seeds, sde=random_sdes)
def test_score_and_guesses_are_one_thing(law, seed, sde):
    """Eq. (10.3): x = α x̂₀ + σ ẑ, and x̂₀ is the mixture's posterior mean."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(0.05, 1)
    alpha, sigma = sde.alpha(t), sde.sigma(t)
    x = alpha * law.sample(rng, 5) + sigma * rng.standard_normal((5, law.dim))
    data = law.posterior_mean(x, alpha, sigma)
    s = ExactScore(law, sde)(x, t)
    scale = 1 + np.max(np.abs(x)) / alpha
    assert_close((x + sigma**2 * s) / alpha, data, 1e-12 * scale)
    assert_close(alpha * data - sigma**2 * s, x, 1e-12 * scale * alpha)


# ------------------------------------------------------------------ one step in several names


class Vdm:
    """Kingma et al. 2021: z_s = (α_s/α_t) (z_t - σ_t c ẑ) + √(σ_s² c) z, c = -expm1(γ_s - γ_t), γ = 2 log σ/α."""

    def __init__(self, sde, score):
        self.sde, self.score = sde, score

    def __call__(self, x, t, s, rng, memory=None):
        sde = self.sde
        gamma_t, gamma_s = (2 * math.log(sde.sigma(r) / sde.alpha(r)) for r in (t, s))
        c = -math.expm1(gamma_s - gamma_t)
        noise = -sde.sigma(t) * self.score(x, np.array([t]))
        z = rng.standard_normal(x.shape)
        mean = sde.alpha(s) / sde.alpha(t) * (x - sde.sigma(t) * c * noise)
        return mean + math.sqrt(sde.sigma(s) ** 2 * c) * z, None


class EulerAncestral:
    """In y = x/α, ς = σ/α: Euler down to ς_down, then noise ς_up, ς_up² + ς_down² = ς_s²."""

    def __init__(self, sde, score):
        self.sde, self.score = sde, score

    def __call__(self, x, t, s, rng, memory=None):
        high, low = (self.sde.sigma(r) / self.sde.alpha(r) for r in (t, s))
        up = min(low, math.sqrt(low**2 * (high**2 - low**2) / high**2))
        down = math.sqrt(low**2 - up**2)
        y = x / self.sde.alpha(t)
        data = y + high**2 * self.sde.alpha(t) * self.score(x, np.array([t]))
        y = y + (down - high) * (y - data) / high + up * rng.standard_normal(x.shape)
        return self.sde.alpha(s) * y, None


class EulerInLevel:
    """Euler's method for dy/dς = (y - x̂₀)/ς."""

    order = 1

    def __init__(self, sde, score):
        self.sde, self.score = sde, score

    def slope(self, y, t, level):
        alpha = self.sde.alpha(t)
        data = y + level**2 * alpha * self.score(alpha * y, np.array([t]))
        return (y - data) / level

    def __call__(self, x, t, s, rng, memory=None):
        high, low = (self.sde.sigma(r) / self.sde.alpha(r) for r in (t, s))
        y = x / self.sde.alpha(t)
        k = self.slope(y, t, high)
        new = y + (low - high) * k
        if self.order == 2:
            new = y + 0.5 * (low - high) * (k + self.slope(new, s, low))
        return self.sde.alpha(s) * new, None


class HeunInLevel(EulerInLevel):
    """Heun's for the same."""

    order = 2


ONE_STEP = {
    "DDIM(1)": lambda sde, score: DDIM(sde, score, 1.0),
    "SDE-DPM-Solver++(1)": lambda sde, score: DPMSolver(sde, score, 1, stochastic=True),
    "VDM": Vdm,
    "Euler-ancestral": EulerAncestral,
}
ANOTHER = {
    "DPM-Solver++(1)": lambda sde, score: DPMSolver(sde, score, 1),
    "Euler in σ/α": EulerInLevel,
}
anything = {
    "law": mixtures(max_dim=3, max_components=4, low=0.05),
    "seed": seeds,
    "sde": any_process,
    "n": st.integers(1, 6),
}


def falling_grid(rng, n):
    """1 > ... > 0.01 or so, neighbours a twentieth apart at least: a split of noise variances loses digits there."""
    return np.cumprod(np.concatenate([[1.0], rng.uniform(0.4, 0.95, n)])).tolist()


def paths(build, sde, law, times, seed, asks=True):
    rng = np.random.default_rng(seed)
    x = sde.alpha(1.0) * law.sample(rng, 4) + sde.sigma(1.0) * rng.standard_normal((4, law.dim))
    z = rng.standard_normal((len(times) - 1, 4, law.dim))
    step = build(sde, ExactScore(law, sde))
    return np.stack(list(simulate(step, x, times, ReplayRng(*z) if asks else ReplayRng())))


@given(**anything)
def test_five_names_of_the_stochastic_step(law, seed, sde, n):
    """Eq. (10.4): ancestral (β̃), DDIM(1), SDE-DPM-Solver++(1), VDM, Euler-ancestral, with the same noise."""
    times = falling_grid(np.random.default_rng(seed), n)
    ancestral = paths(Ancestral, sde, law, times, seed)
    scale = 1 + np.max(np.abs(ancestral)) + sde.sigma(1.0)
    for name, build in ONE_STEP.items():
        other = paths(build, sde, law, times, seed)
        assert_close(other, ancestral, 1e-11 * scale, name)
    large = paths(SAMPLERS["ancestral-large"], sde, law, times, seed)
    assert np.max(np.abs(large - ancestral)) > 1e-4 * scale  # β is another step


@given(**anything)
def test_three_names_of_the_deterministic_step(law, seed, sde, n):
    """Eq. (10.6): DDIM(0), DPM-Solver++ of order 1, Euler's method in σ/α."""
    times = falling_grid(np.random.default_rng(seed), n)
    ddim = paths(DDIM, sde, law, times, seed, asks=False)
    for name, build in ANOTHER.items():
        other = paths(build, sde, law, times, seed, asks=False)
        assert_close(other, ddim, 1e-11 * (1 + np.max(np.abs(ddim)) + sde.sigma(1.0)), name)


@given(**anything)
def test_edm_without_churn_is_heun_in_the_level(law, seed, sde, n):
    """Eq. (10.9)."""
    times = falling_grid(np.random.default_rng(seed), n)
    edm, heun = (paths(build, sde, law, times, seed, asks=False) for build in (EDM, HeunInLevel))
    assert_close(edm, heun, 1e-11 * (1 + np.max(np.abs(edm)) + sde.sigma(1.0)))


@given(seed=seeds, sde=any_process, t=st.floats(0.3, 0.8), churn=st.floats(0.01, 0.4), inflate=st.floats(0.5, 1.5))
def test_churn_adds_noise_and_goes_on_from_the_level_that_it_makes(seed, sde, t, churn, inflate):
    """Eq. (10.9): y + S_noise √(ς'² - ς²) z, then the step without churn from ς'; outside the band no churn at all."""
    rng, score, s = np.random.default_rng(seed), lambda x, t: -x / (1 + t.reshape(-1, 1)), 0.5 * t
    x, z = rng.standard_normal((2, 3, 2))
    level = sde.sigma(t) / sde.alpha(t)
    raised = min((1 + churn) * level, sde.sigma(1.0) / sde.alpha(1.0))
    up = min(float(sde.time_at_log_ratio(math.log(raised))), 1.0)
    y = x / sde.alpha(t) + inflate * math.sqrt(raised**2 - level**2) * z
    wanted, _ = EDM(sde, score)(sde.alpha(up) * y, up, s, None)
    found, _ = EDM(sde, score, churn=churn, inflate=inflate)(x, t, s, ReplayRng(z))
    assert_close(found, wanted, 1e-9 * (1 + np.max(np.abs(wanted))), "the inverse of the level")
    plain, _ = EDM(sde, score)(x, t, s, None)
    for band in ({"low": 1.01 * level}, {"high": 0.99 * level}):
        outside, _ = EDM(sde, score, churn=churn, **band)(x, t, s, ReplayRng())
        assert np.array_equal(outside, plain)


@given(law=mixtures(max_dim=3, max_components=4, low=0.05), seed=seeds, n=st.integers(1, 6))
def test_where_the_level_is_the_time_the_plain_methods_are_the_others(law, seed, n):
    """`LinearVE`, σ/α = 80 t: Euler in t is DDIM, Heun in t is EDM."""
    sde = SDES["linear-ve"]
    times = falling_grid(np.random.default_rng(seed), n)
    for plain, other in (("euler", "ddim"), ("heun", "edm")):
        one, two = (paths(SAMPLERS[name], sde, law, times, seed, asks=False) for name in (plain, other))
        assert_close(one, two, 1e-11 * (1 + np.max(np.abs(one))), plain)


@given(eta=st.floats(0, 1), seed=seeds, sde=any_process)
def test_every_eta_keeps_the_law_given_the_data(eta, seed, sde):
    """Eq. (10.10): with the true x₀ for x̂₀ the law of x_s given x₀ is N(α x₀, σ²) for every η."""
    rng = np.random.default_rng(seed)
    t = rng.uniform(0.05, 1)
    s = t * rng.uniform(0.02, 0.95)
    point = rng.standard_normal(2)
    target = gaussian(point, np.zeros((2, 2)))
    step = DDIM(sde, ExactScore(target, sde), eta)
    mean, cov = law_of(step, [t, s], (sde.alpha(t) * point, sde.sigma(t) ** 2 * I2))
    assert_close(mean, sde.alpha(s) * point, 1e-12 * (1 + sde.sigma(t)))
    assert_close(cov, sde.sigma(s) ** 2 * I2, 1e-12 * sde.sigma(t) ** 2)


def test_smld_ancestral_is_reverse_diffusion_with_less_noise():
    """VE: the means agree; the variances are σ_s²/σ_t² of each other."""
    sde, x = SDES["ve"], np.random.default_rng(0).standard_normal((5, 2))
    score = ExactScore(TARGETS["gaussian"], sde)
    zero = [step(x, 0.6, 0.5, ReplayRng(0 * x))[0] for step in (Ancestral(sde, score), ReverseDiffusion(sde, score))]
    assert_close(zero[0], zero[1], 1e-14)
    one = [step(x, 0.6, 0.5, ReplayRng(1 + 0 * x))[0] for step in (Ancestral(sde, score), ReverseDiffusion(sde, score))]
    ratio = (one[0] - zero[0]) / (one[1] - zero[1])
    assert_close(ratio, sde.sigma(0.5) / sde.sigma(0.6), 1e-12)


# ------------------------------------------------------------------ where a sampler makes no error


@each_process
@pytest.mark.parametrize("steps", [3, 24])
def test_ancestral_with_the_small_variance_is_exact_on_a_point(sde, steps):
    """Eq. (10.2): given x₀ the posterior is the reverse step, with the right law at every time."""
    target = TARGETS["point"]
    step = Ancestral(sde, ExactScore(target, sde))
    times = np.linspace(1, 0, steps + 1).tolist()
    for end in (times[1 : steps // 2 + 2], times[1:]):
        grid = [1.0, *end]
        found = law_of(step, grid, start(sde, target))
        assert worst(found, marginal(sde, target, grid[-1])) <= 1e-11 * max(1.0, sde.sigma(1.0))


@pytest.mark.parametrize("sde", [SDES["vp"], SDES["cosine"], PROCESSES["ddpm chain"]], ids=["vp", "cosine", "chain"])
def test_ancestral_with_the_large_variance_is_exact_on_a_standard_normal(sde):
    """VP only; on the way, not at the last step, where no noise is added."""
    target = gaussian(0 * M, I2)
    times = [i / 30 for i in range(30, 0, -1)]
    found = law_of(Ancestral(sde, ExactScore(target, sde), "large"), times, (0 * M, I2))
    assert worst(found, (0 * M, I2)) <= 1e-12
    small = law_of(Ancestral(sde, ExactScore(target, sde)), times, (0 * M, I2))
    assert worst(small, (0 * M, I2)) > 1e-2


@given(seed=seeds, sde=any_process, v=st.floats(0.01, 4.0), n=st.integers(1, 6))
def test_ancestral_with_the_best_variance_is_exact_on_every_round_gaussian(seed, sde, v, n):
    """Eq. (10.21): N(m, v I) has the law of x_s given x_t on any grid; between "small" (v = 0) and "large" (v = 1)."""
    p = GaussianMixture(np.ones(1), np.random.default_rng(seed).standard_normal((1, 2)), np.array([v]))
    marginal = lambda t: p.diffuse(sde.alpha(t), sde.sigma(t))  # noqa: E731
    step = Ancestral(sde, ExactScore(p, sde), lambda t: 1 / (sde.alpha(t) ** 2 * v + sde.sigma(t) ** 2))
    times = np.sort(np.random.default_rng(seed).uniform(0.1, 0.9, n))[::-1]
    times = [1.0, *times[np.abs(np.diff(times, append=0)) > 1e-3].tolist(), 0.05]
    start, end = marginal(1.0), marginal(0.05)
    mean, cov = law_of(step, times, (start.means[0], start.covariances[0] * I2))
    scale = max(1.0, float(sde.sigma(1.0)) ** 2)
    assert_close(mean, end.means[0], 1e-9 * scale)
    assert_close(cov, end.covariances[0] * I2, 1e-9 * scale)


@each_process
def test_the_best_variance_is_the_mean_variance_of_the_step(sde):
    """Eq. (10.21): of a mixture on a line, by Bayes at each x_t and quadrature over x_t; at 0 and 1/σ² the bounds."""
    t, s = 0.5, 0.3
    alpha, sigma, now = sde.alpha(t), sde.sigma(t), transition(sde, t, s)
    new = now.sigma_t * now.lost**0.5
    x = np.linspace(-6, 6, 2001)[:, None] * float(alpha + sigma)
    mass = np.exp(PAIR_1D.log_prob(x, alpha, sigma))
    mass = mass / mass.sum()
    mean_square = float(mass @ PAIR_1D.score(x, alpha, sigma)[:, 0] ** 2)
    before = PAIR_1D.diffuse(sde.alpha(s), sde.sigma(s))
    wanted = 0.0
    for i in range(0, len(x), 4):  # every fourth node: the integrand is smooth
        post = linear_posterior(before, np.array([[now.a]]), x[i], np.array([[new**2]]))
        first, second = post.weights @ post.means, post.weights @ (post.means**2 + post.covariances[:, 0])
        wanted += 4 * mass[i] * float(second[0] - first[0] ** 2)
    zero = ExactScore(PAIR_1D, sde)
    noise = lambda ms: float(np.diff(law_of_noise(Ancestral(sde, zero, lambda t: ms), t, s))[0]) ** 2  # noqa: E731
    assert_close(noise(mean_square) / wanted, 1, 1e-6)
    small = now.sigma_s**2 * now.lost
    assert_close(noise(1e9) / small, 1, 1e-9)  # more than any score can have: x₀ is certain
    assert_close(noise(0.0) / (new / now.a) ** 2, 1, 1e-9)
    assert small < wanted < (new / now.a) ** 2
    with pytest.raises(ValueError, match=r"variance\(t\)"):
        Ancestral(sde, zero, lambda t: math.nan)(np.zeros((1, 1)), t, s, np.random.default_rng(0))


def law_of_noise(step, t, s):
    """Where the step ends from 0 with noise 0 and with noise 1."""
    return [step(np.zeros((1, 1)), t, s, ReplayRng(np.full((1, 1), z)))[0][0, 0] for z in (0.0, 1.0)]


@given(seed=seeds, sde=any_process, n=st.integers(1, 5))
def test_steps_in_the_data_prediction_are_exact_on_a_point_for_any_grid(seed, sde, n):
    """Eqs. (10.5), (10.6), (10.7): where x̂₀ does not change the integral is exact, whatever the order."""
    rng = np.random.default_rng(seed)
    point, x = rng.standard_normal(2), sde.sigma(1.0) * rng.standard_normal((4, 2))
    score = ExactScore(gaussian(point, np.zeros((2, 2))), sde)
    grid = falling_grid(rng, n)
    for step in (DDIM(sde, score), DPMSolver(sde, score, 1), DPMSolver(sde, score), EDM(sde, score)):
        y = last(simulate(step, x, grid, ReplayRng()))
        s = grid[-1]
        wanted = sde.alpha(s) * point + sde.sigma(s) / sde.sigma(1.0) * (x - sde.alpha(1.0) * point)
        size = 1 + np.max(np.abs(x)) / sde.alpha(1.0) ** (isinstance(step, EDM))  # it divides by α
        assert_close(y, wanted, 1e-13 * size, type(step))
        to_the_end = last(simulate(step, x, [*grid, 0.0], ReplayRng()))
        assert_close(to_the_end, point, 1e-13 * (1 + np.max(np.abs(x)) / sde.alpha(1.0)))


@each_process
def test_all_but_three_end_at_the_guess(sde):
    """A step to σ = 0 lands on x̂₀; reverse diffusion and the steps in t do not know of it."""
    law, t = TARGETS["gaussian"], 0.2
    x = np.random.default_rng(0).standard_normal((3, 2))
    data = law.posterior_mean(x, sde.alpha(t), sde.sigma(t))
    score = ExactScore(law, sde)
    for name in ("ancestral", "ancestral-large", "ddim", "ddim-eta1", "dpm-solver++1", "dpm-solver++2m", "edm",
                 "sde-dpm-solver++2m"):  # fmt: skip
        y, _ = SAMPLERS[name](sde, score)(x, t, 0.0, ReplayRng(), None)
        assert_close(y, data, 1e-12 * (1 + np.max(np.abs(x))), name)
    y, _ = ReverseDiffusion(sde, score)(x, t, 0.0, ReplayRng())
    assert (np.max(np.abs(y - data)) <= 1e-12 * (1 + np.max(np.abs(x)))) == (sde.alpha(t) == 1)


@given(v=st.floats(0.1, 4.0), high=st.floats(0.5, 20.0), ratio=st.floats(0.1, 0.9))
def test_the_two_integrals_are_the_flow_and_the_mean_of_the_reverse_sde(v, high, ratio):
    """Eqs. (10.5), (10.8): on N(0, v), in VE, where both are known: by Gauss-Legendre quadrature in log α/σ."""
    low = ratio * high
    begin, end = -math.log(high), -math.log(low)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    lam, dlam = 0.5 * (begin + end) + 0.5 * (end - begin) * nodes, 0.5 * (end - begin) * weights
    sigma = np.exp(-lam)
    h = end - begin
    # x_t = 1; the guess is v/(v + σ²) x along the path, with x of the flow, or the mean of x given x_t
    for path, decay, kernel in (
        (lambda s: np.sqrt((v + s**2) / (v + high**2)), 1.0, np.exp(lam)),
        (lambda s: (v + s**2) / (v + high**2), math.exp(-h), 2 * np.exp(lam - (end - lam))),
    ):
        data = v / (v + sigma**2) * path(sigma)
        found = low / high * decay + low * float(np.sum(dlam * kernel * data))
        assert abs(found - path(np.asarray(low))) <= 1e-12
    noise = float(np.sum(dlam * 2 * np.exp(-2 * (end - lam))))  # of variance σ_s² times this
    assert abs(noise - -math.expm1(-2 * h)) <= 1e-12


# ------------------------------------------------------------------ correctors


def corrected(sde, r=0.16):
    score = ExactScore(TARGETS["gaussian"], sde)
    return Ancestral(sde, score), Langevin(score, LevelStep(sde, 2 * r**2, 1.0))


@each_process
def test_one_correction_of_the_true_law_adds_eps_squared_of_the_precision(sde):
    """Eq. (10.13): from N(m, S) exactly N(m, S + ε² S⁻¹); where the law is wrong the correction contracts it."""
    _, kernel = corrected(sde)
    for t in (1.0, 0.5, 0.1):
        m, S = marginal(sde, TARGETS["gaussian"], t)
        eps = 2 * 0.16**2 * sde.sigma(t) ** 2
        maps = probe(lambda x, rng, t=t: kernel(x, t, rng), 2, 1)
        mean, cov = law(maps, m, S)
        size = np.max(S)
        assert_close(mean, m, 1e-12 * (1 + size))
        assert_close(cov, S + eps**2 * np.linalg.inv(S), 1e-12 * (1 + size))
        A = I2 - eps * np.linalg.inv(S)
        off = np.array([[0.3, 0.1], [0.1, -0.2]])
        _, cov = law(maps, m, S + off)
        assert_close(cov, S + A @ off @ A.T + eps**2 * np.linalg.inv(S), 1e-12 * (1 + size))


@each_process
def test_predictor_and_corrector_have_the_law_of_their_recursion_in_both_orders(sde):
    """Eqs. (10.11), (10.13)."""
    step, kernel = corrected(sde)
    begin = start(sde, TARGETS["gaussian"])

    def correct(t, mean, cov):
        P, q = score(sde, t)
        eps = 2 * 0.16**2 * sde.sigma(t) ** 2
        A = I2 - eps * P
        return A @ mean + eps * q, A @ cov @ A.T + 2 * eps * I2

    for first in (True, False):
        mean, cov = begin
        for t, s in pairwise(GRID):
            if first:
                mean, cov = correct(t, mean, cov)
            mean, cov = one_step_recursion(PAPER["ancestral"], sde, [t, s], mean, cov)
            if not first and s > 0:
                mean, cov = correct(s, mean, cov)
        found = law_of(First(kernel, step) if first else Then(step, kernel), GRID, begin)
        assert worst(found, (mean, cov)) <= 1e-11 * (1 + np.max(np.abs(begin[1])) / 100)


@each_process
@given(seed=seeds)
def test_the_two_orders_differ_by_one_correction_at_the_start(sde, seed):
    """On a grid that ends at 0, correct-then-predict is one correction at t = 1, and then predict-then-correct."""
    rng = np.random.default_rng(seed)
    step, kernel = corrected(sde)
    times = [*falling_grid(rng, 4), 0.0]
    x, z = sde.sigma(1.0) * rng.standard_normal((3, 2)), rng.standard_normal((9, 3, 2))
    one = last(simulate(First(kernel, step), x, times, ReplayRng(*z)))
    again = kernel(x, 1.0, ReplayRng(z[0]))
    other = last(simulate(Then(step, kernel), again, times, ReplayRng(*z[1:])))
    assert np.array_equal(one, other)


@pytest.mark.parametrize(("name", "order", "plain", "better"), [("vp", 6.6e-10, 0.0968, 0.0815),
                                                               ("ve", 3.6e-8, 0.0978, 0.0791)])  # fmt: skip
def test_the_order_of_predictor_and_corrector_does_not_matter_at_the_end(name, order, plain, better):
    """Eq. (10.13): ε² S⁻¹ at t = 1, seen through the whole chain. Numbers of the chapter."""
    sde, begin = SDES[name], start(SDES[name], TARGETS["gaussian"])
    step, kernel = corrected(sde)
    times = np.linspace(1, 0, 65).tolist()
    alone, one, other = (law_of(s, times, begin)[1] for s in (step, First(kernel, step), Then(step, kernel)))
    found = [float(np.max(np.abs(difference))) for difference in (one - other, alone - C, one - C)]
    assert found == pytest.approx([order, plain, better], rel=0.01)


# ------------------------------------------------------------------ the law on a mixture of one dimension

LINE = gaussian(np.zeros(1), np.ones((1, 1)))
LINE = type(LINE)(np.array([0.8, 0.2]), np.array([[2.0], [-2.0]]), np.array([0.25, 0.25]))


def total_variation(build, sde, n, end=0.05, cells=260):
    """Of the law of the real code at `end`, from the true law at 1, by one matrix product a step."""
    step = build(sde, ExactScore(LINE, sde))
    probs = np.exp(LINE.log_prob(np.linspace(-5.49, 5.49, cells)[:, None], sde.alpha(1.0), sde.sigma(1.0)))
    half = 5.49 * cells / (cells - 1)  # centres at the ends of ±5.49
    now = GridLaw(-half, half, probs * 2 * half / cells)
    for t, s in pairwise(np.linspace(1, end, n + 1).tolist()):
        one = np.ones((cells, 1))

        def move(x, t=t, s=s, z=0 * one):
            return step(x[:, None], t, s, ReplayRng(z))[0][:, 0]

        noise = float(np.mean(move(now.centres, z=one) - move(now.centres)))
        now = now.push(now.transition(move, noise))
    true = np.exp(LINE.log_prob(now.centres[:, None], sde.alpha(end), sde.sigma(end))) * now.width
    return 0.5 * float(np.sum(np.abs(now.mass - true)))


@pytest.mark.parametrize(("name", "constant"), [("euler-maruyama", 0.97), ("ancestral", 1.74)])
def test_the_law_of_the_reverse_sde_on_a_mixture_errs_by_one_over_n(name, constant):
    """Eq. (10.17): without a sample; halving the step halves the total variation."""
    few, many = (total_variation(SAMPLERS[name], SDES["vp"], n) for n in (50, 100))
    assert abs(math.log2(few / many) - 1) <= 0.07  # the next order
    assert 100 * many == pytest.approx(constant, rel=0.01)


# ------------------------------------------------------------------ what is refused


@pytest.mark.parametrize("build", [Ancestral, ReverseDiffusion, DDIM, DPMSolver, EDM])
def test_steps_that_remove_noise_go_down_only(build):
    sde = SDES["vp"]
    step, x = build(sde, lambda x, t: -x), np.ones((2, 2))
    with pytest.raises(ValueError, match=r"goes down in time.*got t = 0.3, s = 0.5"):
        step(x, 0.3, 0.5, ReplayRng())
    with pytest.raises(ValueError, match="goes down in time"):
        next(simulate(step, x, [0.3, 0.5], ReplayRng()))
    with pytest.raises(ValueError, match="goes down in time"):
        step(x, 0.3, 0.3, ReplayRng())
    for grid in ([1.0, 0.5, 0.5, 0.0], [1.0, 0.4, 0.5], [1.0], [1.0, math.nan], [1.5, 0.0], [1.0, -0.1]):
        with pytest.raises(ValueError, match=r"strictly monotone|t must lie in"):
            simulate(step, x, grid, ReplayRng())
    with pytest.raises(ValueError, match="no noise to remove at t = 5e-324"):
        step(x, 5e-324, 0.0, ReplayRng())
    with pytest.raises(ValueError, match="t must lie in"):
        step(x, 0.0, -0.1, ReplayRng())


@pytest.mark.parametrize("name", ["linear-ve", "ou"])
def test_times_too_near_to_tell_their_noise_apart_are_refused(name):
    """h = 0 would be divided by in the second order; a negative h, from rounding, has no root."""
    for step in (DDIM(SDES[name], lambda x, t: -x), DPMSolver(SDES[name], lambda x, t: -x)):
        with pytest.raises(ValueError, match="have the same noise: they are too near each other"):
            step(np.ones((2, 2)), 0.9, math.nextafter(0.9, 0), ReplayRng())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda sde, s: Ancestral(sde, s, "medium"), r"'small' \(β̃\), 'large' \(β\) or a function of t, got 'medium'"),
        (lambda sde, s: DDIM(sde, s, -0.1), r"eta must lie in \[0, 1\], got -0.1"),
        (lambda sde, s: DDIM(sde, s, 1.1), r"eta must lie in \[0, 1\], got 1.1"),
        (lambda sde, s: DDIM(sde, s, math.nan), r"eta must lie in \[0, 1\], got nan"),
        (lambda sde, s: DPMSolver(sde, s, 3), "order must be 1 or 2, got 3"),
        (lambda sde, s: DPMSolver(sde, s, 0), "order must be 1 or 2, got 0"),
        (lambda sde, s: EDM(sde, s, churn=-1.0), "need churn >= 0"),
        (lambda sde, s: EDM(sde, s, churn=math.nan), "need churn >= 0"),
        (lambda sde, s: EDM(sde, s, inflate=0.0), "inflate > 0"),
        (lambda sde, s: EDM(sde, s, low=2.0, high=1.0), "low <= high"),
    ],
)
def test_what_a_step_is_told_is_checked_when_it_is_made(make, words):
    with pytest.raises(ValueError, match=words):
        make(SubVP(), lambda x, t: -x)


# ------------------------------------------------------------------ churn at one level


def test_churn_at_one_level_alone_is_churn_at_that_level():
    """low = high = ς: a step from ς draws noise, as with any band around it; one from elsewhere draws none."""
    sde = LinearVE(80.0)
    score = ExactScore(PAIR, sde)
    step, x, z = EDM(sde, score, churn=0.1, low=40.0, high=40.0), np.ones((3, 2)), np.full((3, 2), 0.5)
    found, _ = step(x, 0.5, 0.4, ReplayRng(z))
    wanted, _ = EDM(sde, score, churn=0.1, low=39.0, high=41.0)(x, 0.5, 0.4, ReplayRng(z))
    np.testing.assert_array_equal(found, wanted)
    plain, _ = EDM(sde, score)(x, 0.51, 0.4, ReplayRng())
    np.testing.assert_array_equal(step(x, 0.51, 0.4, ReplayRng())[0], plain)
    assert not np.array_equal(found, EDM(sde, score)(x, 0.5, 0.4, ReplayRng())[0])
