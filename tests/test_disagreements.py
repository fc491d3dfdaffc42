"""Where published code disagrees: each test shows one disagreement and its size, by an exact law, without a sample.

The other variant is written here, in a line or two, from its formula, beside the library's own code.
The page docs/where-published-code-disagrees.md tells of them in the same order and with the same numbers.
"""

import math
import re
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtri

from refscore import VE, VP, Denoising, EulerMaruyama, ExactScore, GaussianMixture, Langevin, Reverse, Sliced
from refscore.likelihood.flow import FixedSteps, bits_per_dim, encode, log_likelihood
from refscore.matching.probes import units
from refscore.matching.times import FixedTime
from refscore.noise.chains import ddpm, from_betas, smld
from refscore.noise.grids import geometric_levels, level_times, log_snr_times
from refscore.noise.prior import gaussian_prior
from refscore.noise.sde import SubVP
from refscore.sampling.compose import First, Then
from refscore.sampling.langevin import LevelStep
from refscore.sampling.transitions import DDIM, Ancestral, DPMSolver, ReverseDiffusion, transition
from tests.oracles.book import ROOT
from tests.oracles.line import Scaled, maps, marginal, moments, score_of
from tests.oracles.replay import ReplayRng

DDPM = ddpm(1000)
# √β in equal steps, as latent diffusion has it: it keeps 7 % of the signal at the end
LATENT = from_betas((np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).tolist())


def every(n):
    """n equal steps of the chain, from 1 to 0."""
    return [i / n for i in range(n, -1, -1)]


def kernel(move):
    """A kernel as a step, for `maps`."""
    return lambda x, t, s, rng: (move(x, t, rng), None)


# ------------------------------------------------------------------ noise levels


@pytest.mark.parametrize("t", [1e-5, 0.1, 1.0])
def test_the_variance_exploding_kernel_that_counts_the_smallest_level_twice(t):
    """σ_min rᵗ against √(σ_min² (r²ᵗ - 1)): σ_min² = 1e-4 too much at every t; at t = 1e-5 a factor 77 in σ."""
    sde = VE(0.01, 50.0)
    published = 0.01 * 5000.0**t
    assert published**2 - sde.sigma(t) ** 2 == pytest.approx(1e-4, abs=1e-12 * published**2)
    if t == 1e-5:
        assert published / sde.sigma(t) == pytest.approx(76.6, abs=0.1)
    # both have the same g, so both solve the same equation for the variance: only the start differs
    assert sde.g(t) ** 2 == pytest.approx(2 * math.log(5000.0) * published**2, rel=1e-12)


def test_a_deviation_taken_as_one_less_an_exponential_in_float32():
    """At t = 1e-5: 0.6 to 2.4 % off for VP, 1.2 to 4.7 % for sub-VP, where expm1 is off by 1e-7."""
    one, t = np.float32(1), np.array([1e-5], dtype="float32")
    B = np.float32(0.1) * t + np.float32(9.95) * t**2
    naive = one - np.exp(-B)
    for sde, off, low, high in ((VP(), np.sqrt(naive), 0.005, 0.025), (SubVP(), naive, 0.011, 0.048)):
        exact = sde.sigma(1e-5)
        assert low < abs(float(off[0]) / exact - 1) < high  # depends on the exp
        assert abs(float(sde.sigma(t)[0]) / exact - 1) <= 1e-6


@pytest.mark.parametrize(("n", "wrong"), [(1000, 0), (2000, 1000)])
def test_the_index_of_a_time(n, wrong):
    """⌊t (N - 1)⌋ on the grid from 1 to ε = 1/1000, in fractions: right while N ε <= 1; at N = 2000 half are off."""
    eps = Fraction(1, 1000)
    times = [1 - i * (1 - eps) / (n - 1) for i in range(n)]
    found = [math.floor(t * (n - 1)) for t in times]
    assert sum(index != n - 1 - i for i, index in enumerate(found)) == wrong
    assert len(set(found)) == (n if wrong == 0 else n - 1)


@pytest.mark.parametrize(("off", "ratio"), [(0, 0.9845), (1, 0.9913), (-1, 0.9778)])
def test_a_score_that_is_told_the_neighbouring_index(off, ratio):
    """One index of a thousand: 0.7 % of the variance and 0.2 % of the mean, which a thousand samples do not show."""
    score = score_of(1.5, 0.25, DDPM)
    told = lambda x, t: score(x, min(max(float(t[0]) + off / 1000, 1 / 1000), 1.0))  # noqa: E731
    m, v = moments(Ancestral(DDPM, told), DDPM.times, *marginal(DDPM, 1.0, 1.5, 0.25))[-1]
    assert v / 0.25 == pytest.approx(ratio, abs=1e-4)
    assert abs(m / 1.5 - 1) == pytest.approx(0.0018 * abs(off), abs=1e-4)


def test_the_label_of_a_time():
    """999 t whatever N, read as an index from 0: right at t = 1, one short at the other end, where σ is 49 % larger."""
    assert DDPM.sigma(1.0) == pytest.approx(DDPM.sigmas[round(999 * 1.0) + 1], rel=1e-15)
    label = 999 * (1 / 1000)  # of the first level, which is index 0: nearly that of the next
    assert label == pytest.approx(0.999)
    assert DDPM.sigmas[round(label) + 1] / DDPM.sigmas[1] == pytest.approx(1.4825, abs=1e-3)


# ------------------------------------------------------------------ the steps of a chain


@pytest.mark.parametrize(("v0", "small", "large"), [(1.0, 0.8574, 0.9942), (0.25, 0.7889, 1.0474)])
def test_beta_or_beta_tilde_in_fifty_steps(v0, small, large):
    """14 to 26 % of the variance: too little with β̃, nearly right or too much with β. Both tend to 1."""
    for variance, wanted in (("small", small), ("large", large)):
        step = Ancestral(DDPM, score_of(0.0, v0, DDPM), variance)
        found = moments(step, every(50), *marginal(DDPM, 1.0, 0.0, v0))[-1][1] / v0
        assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("n", "ancestral", "reverse", "mean"), [(50, 1.0648, 1.1218, 1.4817), (1000, 1.0030, 1.0055, 1.4992)]
)
def test_reverse_diffusion_is_not_ancestral(n, ancestral, reverse, mean):
    """(2 - √(1-β)) x + β s against (x + β s)/√(1-β): the first misses the mean too; both are first order."""
    chain = ddpm(n)
    score, first = score_of(1.5, 0.25, chain), marginal(chain, 1.0, 1.5, 0.25)
    m, v = moments(Ancestral(chain, score, "large"), chain.times, *first)[-1]
    assert (m, v / 0.25) == pytest.approx((1.5, ancestral), abs=1e-4)
    m, v = moments(ReverseDiffusion(chain, score), chain.times, *first)[-1]
    assert (m, v / 0.25) == pytest.approx((mean, reverse), abs=1e-4)


def test_reverse_diffusion_is_not_ancestral_for_smld_either():
    """Under VE the means agree; the published ancestral step has the small variance, reverse diffusion the large."""
    chain = smld(50)
    score, first = score_of(1.5, 0.25, chain), marginal(chain, 1.0, 1.5, 0.25)
    for name, step, wanted in (
        ("small", Ancestral(chain, score, "small"), 0.8467),
        ("large", ReverseDiffusion(chain, score), 1.1913),
    ):
        for t, s in pairwise(chain.times[:-1]):
            gap = chain.sigma(t) ** 2 - chain.sigma(s) ** 2
            c2 = gap * chain.sigma(s) ** 2 / chain.sigma(t) ** 2 if name == "small" else gap
            pull = gap / (0.25 + chain.sigma(t) ** 2)  # of x + gap · s(x), s = (1.5 - x)/(¼ + σ²)
            assert maps(step, t, s) == pytest.approx((1 - pull, math.sqrt(c2), 1.5 * pull), rel=1e-9)
        m, v = moments(step, chain.times, *first)[-1]
        assert (m, v / 0.25) == pytest.approx((1.5, wanted), abs=1e-4)


@pytest.mark.parametrize(
    ("n", "eps", "stretch", "published", "own"),
    [
        (1000, 1e-3, 1.0, 1.00141, 1.00141),
        (1000, 1e-5, 1.000991, 1.00165, 1.00141),
        (100, 1e-3, 1.00909, 1.01682, 1.01541),
    ],
)
def test_a_step_of_one_over_n_on_a_grid_of_another_spacing(n, eps, stretch, published, own):
    """N grid points from 1 to ε are (1 - ε)/(N - 1) apart: the step 1/N is that only if ε = 1/N."""
    sde, times = VP(), np.linspace(1, eps, n).tolist()
    step = EulerMaruyama(Reverse(sde, score_of(1.5, 0.25, sde)))
    assert (times[0] - times[1]) * n == pytest.approx(stretch, abs=1e-6)
    m, v = marginal(sde, 1.0, 1.5, 0.25)
    for t in times:
        a, b, c = maps(step, t, t - 1 / n)
        m, v = a * m + c, a * a * v + b * b
    assert v / 0.25 == pytest.approx(published, abs=1e-5)
    consistent = moments(step, [*times, 0.0], *marginal(sde, 1.0, 1.5, 0.25))[-1][1]
    assert consistent / 0.25 == pytest.approx(own, abs=1e-5)


@pytest.mark.parametrize(
    ("drift", "pull", "mean", "variance"),
    [(1, 1, 1.5009, 0.2504), (1, -1, -252.15, 1.97e14), (-1, 1, 1.0767, 0.1452), (-1, -1, -53.545, 7.14e5)],
)
def test_four_signs_of_the_reverse_step(drift, pull, mean, variance):
    """x ± ½βx ± βs + √β z, a thousand steps: one is right, one looks right and is not, two diverge."""
    sde, (m, v) = VP(), marginal(VP(), 1.0, 1.5, 0.25)
    for t in every(1000)[:-1]:
        beta, (mt, vt) = -2 * sde.f(t) / 1000, marginal(sde, t, 1.5, 0.25)
        a, c = 1 + 0.5 * drift * beta - pull * beta / vt, pull * beta * mt / vt
        m, v = a * m + c, a * a * v + beta
    assert m == pytest.approx(mean, rel=1e-4)
    assert v == pytest.approx(variance, rel=2e-3)
    if drift == pull == 1:
        step = EulerMaruyama(Reverse(sde, score_of(1.5, 0.25, sde)))
        assert moments(step, every(1000), *marginal(sde, 1.0, 1.5, 0.25))[-1] == pytest.approx((m, v), rel=1e-11)


# ------------------------------------------------------------------ DDIM and its grids


def test_the_sign_of_ddims_direction():
    """α x̂₀ - σ ẑ for α x̂₀ + σ ẑ, on ⅘ N(2, ¼) + ⅕ N(-2, ¼): all samples become one point of the larger mode."""
    p = GaussianMixture(np.array([0.8, 0.2]), np.array([[2.0], [-2.0]]), np.array([0.25, 0.25]))
    exact, start = ExactScore(p, DDPM), ndtri((np.arange(4000) + 0.5) / 4000)[:, None]  # quantiles of the prior
    score = lambda x, t: exact(x, t if isinstance(t, float) else float(t[0]))  # noqa: E731
    ends = {}
    for sign in (1, -1):
        x, right = start, start
        for t, s in pairwise(every(50)):
            q, g = transition(DDPM, t, s), score(x, t)
            x = q.alpha_s * (x + q.sigma_t**2 * g) / q.alpha_t + sign * q.sigma_s * (-q.sigma_t * g)
            right = DDIM(DDPM, score)(right, t, s, ReplayRng())[0]
        if sign == 1:
            np.testing.assert_allclose(x, right, rtol=0, atol=1e-12)
        ends[sign] = x[:, 0]
    upper = ends[1] > 0
    assert upper.mean() == pytest.approx(0.8015, abs=1e-3)
    assert ends[1][upper].std() == pytest.approx(0.484, abs=1e-3)
    np.testing.assert_allclose(ends[-1], 2.0, atol=1e-6)


@pytest.mark.parametrize(
    ("chain", "leading", "trailing"), [(DDPM, 1.9917, 1.9944), (LATENT, 1.9221, 1.9392)], ids=["linear", "latent"]
)
def test_leading_spacing_starts_below_the_noise_that_it_is_given(chain, leading, trailing):
    """25 steps from N(0, I), data N(2, ¼): indices 960, 920, ... take it for x at 960; from 999 on less is missing."""
    step = DDIM(chain, score_of(2.0, 0.25, chain))
    for first, wanted in ((961, leading), (1000, trailing)):
        times = [(first - 40 * i) / 1000 for i in range(25)] + [0.0]
        assert moments(step, times, 0.0, 1.0)[-1][0] == pytest.approx(wanted, abs=1e-4)
    shortfall = 1 - chain.alpha(0.961) / chain.alpha(1.0)
    assert shortfall < 0  # there is more signal at 961 than at 1000


@pytest.mark.parametrize(("chain", "std"), [(DDPM, 0.01), (LATENT, 0.02915)], ids=["linear", "latent"])
def test_a_chain_that_ends_at_its_first_level_instead_of_at_data(chain, std):
    """ᾱ after the last step taken as ᾱ of the first level, not 1: a point keeps noise of deviation √β₁."""
    step = DDIM(chain, score_of(2.0, 0.0, chain))
    times = [i / 1000 for i in range(1000, 0, -40)]
    first = marginal(chain, 1.0, 2.0, 0.0)
    assert moments(step, [*times, 1 / 1000], *first)[-1][1] == pytest.approx(std**2, rel=1e-3)
    assert moments(step, [*times, 0.0], *first)[-1][1] <= 1e-25


@pytest.mark.parametrize(
    ("spacing", "wrong", "mean", "std", "right"),
    [("linspace", 24, 1.9565, 0.4613, (2.0, 0.4442)), ("trailing", 5, 1.9956, 0.3294, (2.0, 0.3212))],
)
def test_a_previous_time_that_is_not_the_next_of_the_grid(spacing, wrong, mean, std, right):
    """The step goes to t - ⌊T/n⌋, the model is then asked at the grid's next time: levels and times part."""
    n = 25 if spacing == "linspace" else 7
    grid = np.linspace(0, 999, n)[::-1] if spacing == "linspace" else np.arange(1000, 0, -1000 / n) - 1
    indices = [int(v) for v in np.round(grid)]
    following = [*indices[1:], -1]
    step, found = DDIM(DDPM, score_of(2.0, 0.25, DDPM)), []
    for previous in ([i - 1000 // n for i in indices], following):
        m, v = marginal(DDPM, (indices[0] + 1) / 1000, 2.0, 0.25)
        for i, j in zip(indices, previous, strict=True):
            a, b, c = maps(step, (i + 1) / 1000, max(j + 1, 0) / 1000) if i > j else (1.0, 0.0, 0.0)
            m, v = a * m + c, a * a * v + b * b
        found.append((m, math.sqrt(v)))
        if previous is not following:
            assert sum(j != k for j, k in zip(previous[:-1], following, strict=False)) == wrong
    assert found[0] == pytest.approx((mean, std), abs=1e-4)
    assert found[1] == pytest.approx(right, abs=1e-4)


@pytest.mark.parametrize(
    ("n", "second", "first"), [(5, -0.0383, -0.1471), (10, 0.0327, 0.0223), (20, 0.01302, 0.01276)]
)
def test_the_order_of_dpm_solvers_last_step(n, second, first):
    """Relative errors of the deviation at t = 1e-3, VP, data of variance ¼: neither order wins at every n."""
    sde = VP()
    times, step = log_snr_times(sde, n, 1e-3), DPMSolver(sde, score_of(1.5, 0.25, sde))
    exact = math.sqrt(marginal(sde, 1e-3, 0.0, 0.25)[1] / marginal(sde, 1.0, 0.0, 0.25)[1])
    for low, wanted in ((False, second), (True, first)):
        x, memory = np.array([[0.0], [1.0]]), None
        for i, (t, s) in enumerate(pairwise(times)):
            x, memory = step(x, t, s, ReplayRng(), None if low and i == n - 1 else memory)
        assert (x[1, 0] - x[0, 0]) / exact - 1 == pytest.approx(wanted, abs=1e-4)


# ------------------------------------------------------------------ Langevin and correctors


@pytest.mark.parametrize(("eps", "variance"), [(0.2, 1 / 0.9), (0.1, 1 / 0.95)])
def test_one_step_name_for_two_langevin_chains(eps, variance):
    """ε and √2ε, or ε/2 and √ε: with ε = σ²/5, as at NCSN's last level, 11.1 or 5.3 % too much variance."""
    a, b, _ = maps(kernel(Langevin(lambda x, t: -x, eps)), 0.5, 0.0)
    assert b * b / (1 - a * a) == pytest.approx(variance, rel=1e-12)
    assert pytest.approx(0.2) == 2e-5 / 0.01**2


def test_the_alpha_of_the_corrector():
    """1 - β_i, or ᾱ_i as the letter reads: the steps differ 24 000 times at t = 1, and not at all at the data."""
    ratios = [(1 - (1 - (a / b) ** 2)) / a**2 for b, a in pairwise(DDPM.alphas)]
    assert ratios[-1] == pytest.approx(24283, rel=1e-3)
    assert ratios[0] == pytest.approx(1.0, abs=1e-12)


def test_a_step_from_the_norms_of_a_batch_couples_its_samples():
    """ε = 2 (r mean‖z‖/mean‖s‖)²: move a neighbour from 1 to 9 and the step of a sample shrinks 25 times."""
    z = np.array([[0.6, 0.8], [0.8, -0.6]])

    def published(x):
        eps = 2 * (0.16 * np.mean(np.linalg.norm(z, axis=1)) / np.mean(np.linalg.norm(-x, axis=1))) ** 2
        moved = Langevin(lambda x, t: -x, float(eps))(x, 0.5, ReplayRng(z))
        return moved

    near, far = (np.array([[1.0, 0.0], [0.0, y]]) for y in (1.0, 9.0))
    eps = [2 * 0.16**2, 2 * 0.16**2 / 25]
    for x, e in zip((near, far), eps, strict=True):
        np.testing.assert_allclose(published(x)[0], (1 - e) * x[0] + math.sqrt(2 * e) * z[0], atol=1e-15)
    assert np.abs(published(near)[0] - published(far)[0]).max() > 0.2


@pytest.mark.parametrize(
    ("n", "before", "after", "without"), [(20, 1.26210, 1.26183, 1.33949), (100, 1.02355, 1.02353, 1.05563)]
)
def test_whether_the_corrector_comes_before_or_after(n, before, after, without):
    """Correct, predict (the code), or predict, correct (the paper): 3e-4 of the variance apart, correcting 8e-2."""
    sde = VE(0.01, 10.0)
    score = score_of(1.5, 0.25, sde)
    move = Langevin(score, LevelStep(sde, 2 * 0.16**2 * 0.05**2, 0.05))  # ε = 2 (r σ)²: of t alone
    times, predict = level_times(sde, geometric_levels(9.9, 0.05, n))[:-1], ReverseDiffusion(sde, score)
    for step, wanted in ((First(move, predict), before), (Then(predict, move), after), (predict, without)):
        m, v = marginal(sde, times[0], 1.5, 0.25)
        for t, s in pairwise(times):
            zero, unit = np.zeros((4, 1)), np.eye(4)[:, 2:3]  # origin, x, first and second noise
            x, other = np.eye(4)[:, 1:2], np.eye(4)[:, 3:4]
            y = step(x + zero, t, s, ReplayRng(unit, other))[0][:, 0]
            a, b, c = y[1] - y[0], y[2:] - y[0], y[0]
            m, v = a * m + c, a * a * v + float(b @ b)
        assert v / marginal(sde, times[-1], 1.5, 0.25)[1] == pytest.approx(wanted, abs=1e-5)


# ------------------------------------------------------------------ losses and densities


class ScaledWithTangents(Scaled):
    """s = θ x, and its derivatives."""

    def jvp(self, params, cache, v):
        return params["a"] * v, v

    def jvp_backward(self, params, cache, tape, ds, dsdot):
        return None, None, {"a": np.sum(ds * cache) + np.sum(dsdot * tape)}


@pytest.mark.parametrize("reduced", [True, False])
def test_projections_of_unit_length(reduced):
    """On N(0, I), D = 5, s = θ x: E vvᵀ = I/D scales sliced score matching by 1/D, and with ½‖s‖² moves its minimum.

    Averages over the unit vectors, and over x of second moment I, are exact: no probe is drawn.
    """
    D, model = 5, ScaledWithTangents(VP())
    x = math.sqrt(D) * np.concatenate([np.eye(D), -np.eye(D)]) / 1.0  # mean xxᵀ = I
    loss = Sliced(reduced=reduced)

    def gradient(theta, length):
        return float(loss.at(model, np.array([theta]), x, np.array([0.5]), length * units(x))[1][0])

    for length, minimum in ((math.sqrt(D), -1.0), (1.0, -1.0 / D if reduced else -1.0)):
        assert gradient(minimum, length) == pytest.approx(0.0, abs=1e-12)
    if not reduced:
        assert gradient(0.0, 1.0) == pytest.approx(gradient(0.0, math.sqrt(D)) / D, rel=1e-12)


def test_a_loss_that_is_summed_with_a_half_or_averaged_without():
    """½ Σ or mean over dimensions: D/2 apart, 1536 for images of 32 x 32 x 3."""
    rng, D = np.random.default_rng(0), 8
    x0, z, t = rng.standard_normal((4, D)), rng.standard_normal((4, D)), np.full(4, 0.3)
    ours, _ = Denoising(times=FixedTime(0.3)).at(Scaled(VP()), np.array([-0.7]), x0, t, z)
    alpha, sigma = VP().alpha(0.3), VP().sigma(0.3)
    averaged = np.mean((sigma * -0.7 * (alpha * x0 + sigma * z) + z) ** 2)
    assert ours / averaged == pytest.approx(D / 2, rel=1e-12)
    assert 32 * 32 * 3 / 2 == 1536


@pytest.mark.parametrize(("level", "share"), [(20.0, 0.99751), (1.0, 0.5)])
def test_a_noised_mixture_whose_components_have_the_level_as_their_deviation(level, share):
    """σ instead of √(1 + σ²), unit components: at the last level, σ = 1, half of the variance; it is the data's law."""
    data = GaussianMixture(np.array([0.8, 0.2]), np.array([[5.0, 5.0], [-5.0, -5.0]]), np.ones(2))
    published = GaussianMixture(data.weights, data.means, np.full(2, level**2))
    noised = data.diffuse(1.0, level)
    np.testing.assert_allclose(published.covariances / noised.covariances, share, atol=1e-5)
    if level == 1.0:
        x = np.array([[4.0, 6.0], [0.0, 0.0]])
        np.testing.assert_array_equal(published.log_prob(x), data.log_prob(x))
        np.testing.assert_allclose(noised.score(x)[0], 0.5 * data.score(x)[0], rtol=1e-12)


@pytest.mark.parametrize("D", [1, 2, 10])
def test_a_normaliser_counted_once_instead_of_once_a_dimension(D):
    """log p too large by (D - 1) ½ log 2π = 0.9189 (D - 1) nats; the score is right."""
    p = GaussianMixture(np.ones(1), np.zeros((1, D)), np.ones(1))
    x = np.ones((1, D))
    once = -0.5 * D - 0.5 * math.log(2 * math.pi)
    assert once - p.log_prob(x)[0] == pytest.approx(0.91894 * (D - 1), abs=1e-4)


def test_a_trace_that_is_summed_over_its_probes():
    """Not divided by K: (K - 1) ∫ div too much, 12.5 nats for ten probes and data N(0, ¼ I) in the plane."""
    sde, K = VP(), 10
    p = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.array([0.25]))
    x = np.array([[0.3, -0.1]])
    signs = np.sign(np.random.default_rng(0).standard_normal((K, 1, 2)))  # ±1: exact, as ∇s is a multiple of I
    score, solve = ExactScore(p, sde), FixedSteps(sde, 50)
    mean = log_likelihood(score, sde, x, t_min=1e-3, probes=signs, solve=solve).value[0]
    each = [log_likelihood(score, sde, x, t_min=1e-3, probes=v[None], solve=solve).value[0] for v in signs]
    end = gaussian_prior(sde)(encode(score, sde, x, t_min=1e-3, solve=solve))[0]
    summed = end + sum(one - end for one in each)
    assert mean == pytest.approx(p.log_prob(x, sde.alpha(1e-3), sde.sigma(1e-3))[0], abs=1e-3)  # the prior's share
    gained = math.log(marginal(sde, 1.0, 0.0, 0.25)[1] / marginal(sde, 1e-3, 0.0, 0.25)[1])  # D ½ log
    assert summed - mean == pytest.approx((K - 1) * gained, rel=1e-5)
    assert summed - mean == pytest.approx(12.47, abs=0.01)


def test_the_offset_of_bits_per_dimension():
    """8 bits for data in [0, 1], 7 for [-1, 1]: the width of a grey value in the units of the data."""
    nats, D = np.array([-3.0]), 3
    plain = bits_per_dim(nats, D)
    assert bits_per_dim(nats, D, 1 / 256)[0] - plain[0] == pytest.approx(8.0, abs=1e-12)
    assert bits_per_dim(nats, D, 1 / 128)[0] - plain[0] == pytest.approx(7.0, abs=1e-12)


@pytest.mark.parametrize(("m0", "nats"), [(0.0, 4.0e-8), (5.0, 5.0e-3)])
def test_a_prior_that_does_not_know_the_data(m0, nats):
    """N(0, σ_max²) at σ_max = 50: KL 4e-8 nats a dimension for centred data, 5e-3 for a mean of 5: centre the data."""
    sde = VE(0.01, 50.0)
    m, v = marginal(sde, 1.0, m0, 1.0)
    for prior in (50.0**2, sde.prior_std**2):
        kl = 0.5 * (v / prior + m * m / prior - 1 - math.log(v / prior))
        assert kl == pytest.approx(nats, rel=1e-3)


# ------------------------------------------------------------------ the page


def test_every_paragraph_of_the_page_has_its_test_and_every_test_its_paragraph():
    page = (ROOT / "docs" / "where-published-code-disagrees.md").read_text(encoding="utf-8")
    told = re.findall(r"`(test_\w+)`", page)
    here = re.findall(r"^def (test_\w+)", Path(__file__).read_text(encoding="utf-8"), flags=re.M)
    assert told == here[:-1], "the same, in the same order"
    log = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    assert f"{len(re.findall(r'^[*][*]', page, flags=re.M))} disagreements" in log
