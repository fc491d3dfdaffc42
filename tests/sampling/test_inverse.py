"""Chapter 19: guesses of the pull of an observation, each against the exact one; weights that undo the guess."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import dawsn

from refscore import (
    MLP,
    VE,
    VP,
    Ancestral,
    EnergyModel,
    ExactScore,
    GaussianMixture,
    Heun,
    Rectified,
    Reverse,
    ScoreModel,
    simulate,
)
from refscore.laws.affine_chain import Gaussian, law_of, wasserstein
from refscore.laws.posterior import linear_posterior, observe
from refscore.noise.grids import log_snr_times
from refscore.sampling.guidance import Guided
from refscore.sampling.inverse import DPS, GUESSES, Exact, Moment, PiGDM, Twisted
from refscore.sampling.loop import last
from refscore.sampling.transitions import SAMPLERS
from tests.oracles.mixtures import PAIR, TWO, observation
from tests.oracles.statistics import assert_mean
from tests.oracles.strategies import mixtures, points, random_mixture, seeds

SDE, ONE = VP(), np.eye(1)
NORMAL = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
each_guess = pytest.mark.parametrize("name", GUESSES)


def seen_by(seed, M, D):
    return dict(zip("HyR", observation(seed, M, D), strict=True))


def level(t):
    return SDE.alpha(t), SDE.sigma(t)


# ------------------------------------------------------------------ the pull


@given(p=mixtures(max_dim=3, low=0.2), t=st.floats(0.1, 1.0), seed=seeds)
def test_the_derivative_of_the_score_tells_the_covariance(p, t, seed):
    """Eq. (19.4): against the posterior of denoising, that `mixture.py` has by another formula."""
    alpha, sigma = level(t)
    x = points(p, alpha, sigma, seed)
    axes = np.broadcast_to(np.eye(p.dim)[:, None, :], (p.dim, *x.shape))
    J = (axes + sigma**2 * p.score_jvp(x, axes, alpha, sigma)) / alpha
    cov = p.posterior_cov(x, alpha, sigma)
    size = (sigma / alpha) ** 2 + np.max(np.abs(cov))
    np.testing.assert_allclose(sigma**2 / alpha * np.moveaxis(J, 0, 1), cov, rtol=0, atol=1e-9 * size)


@given(p=mixtures(max_dim=3, low=0.2), t=st.floats(0.1, 1.0), seed=seeds)
def test_the_pull_is_what_an_observation_changes_of_the_best_guess(p, t, seed):
    """Eqs. (19.1), (19.2): α/σ² times the difference of two posterior means."""
    seen, (alpha, sigma) = seen_by(seed, 1 + seed % 2, p.dim), level(t)
    x, post = points(p, alpha, sigma, seed), linear_posterior(p, **seen)
    guess = Exact(p, SDE, **seen)
    terms = guess.terms(x, t)
    means = post.posterior_mean(x, alpha, sigma) - p.posterior_mean(x, alpha, sigma)
    size = np.max(np.abs(x)) / sigma**2 + alpha / sigma**2 * np.max(np.abs(post.means))
    np.testing.assert_allclose(terms.pull, alpha / sigma**2 * means, rtol=0, atol=1e-9 * size)
    np.testing.assert_array_equal(guess(x, t), ExactScore(post, SDE)(x, t))


def gradient(guess, x, t):
    """Of the log likelihood, by Richardson's differences."""
    h, found = 1e-3, []
    for e in np.eye(x.shape[1]):
        one, two = (
            (guess.terms(x + k * h * e, t).log_likelihood - guess.terms(x - k * h * e, t).log_likelihood) / (2 * k * h)
            for k in (1, 2)
        )
        found.append((4 * one - two) / 3)
    return np.stack(found, axis=-1)


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", ["exact", "dps", "pigdm"])
def test_the_pull_is_the_gradient_of_the_log_likelihood(name, t):
    """Eqs. (19.1), (19.3): where V does not depend on x, it is a gradient in full."""
    p, seen = random_mixture(3, 2, 3, low=0.3), seen_by(3, 2, 2)
    guess = Exact(p, SDE, **seen) if name == "exact" else GUESSES[name](ExactScore(p, SDE), SDE, **seen)
    x = points(p, *level(t), 3)[:3]
    wanted = guess.terms(x, t).pull
    np.testing.assert_allclose(gradient(guess, x, t), wanted, rtol=0, atol=1e-6 * (1 + np.max(np.abs(wanted))))


@given(seed=seeds, D=st.integers(1, 4), M=st.integers(1, 3), t=st.floats(0.02, 1.0))
def test_on_one_gaussian_moments_are_exact(seed, D, M, t):
    """Eqs. (19.3), (19.4), (19.6): Kalman's update, pull and likelihood."""
    p, seen = random_mixture(seed, D, 1), seen_by(seed, M, D)
    x = points(p, *level(t), seed)[:4]
    found, exact = Moment(ExactScore(p, SDE), SDE, **seen).terms(x, t), Exact(p, SDE, **seen).terms(x, t)
    size = 1 + np.max(np.abs(exact.score)) + np.max(np.abs(exact.pull))
    np.testing.assert_allclose(found.pull, exact.pull, rtol=0, atol=1e-8 * size)
    np.testing.assert_allclose(found.log_likelihood, exact.log_likelihood, rtol=1e-7, atol=1e-6 * size)


@given(seed=seeds, D=st.integers(1, 4), M=st.integers(1, 3), std=st.floats(0.3, 3.0), t=st.floats(0.02, 1.0))
def test_pseudoinverse_guidance_is_exact_on_round_gaussians_of_its_width(seed, D, M, std, t):
    """Eq. (19.5)."""
    p = GaussianMixture(np.ones(1), np.full((1, D), 0.7), np.array([std**2]))
    seen, score = seen_by(seed, M, D), ExactScore(p, SDE)
    x = points(p, *level(t), seed)[:4]
    found, exact = PiGDM(score, SDE, **seen, data_std=std).terms(x, t), Exact(p, SDE, **seen).terms(x, t)
    size = 1 + np.max(np.abs(exact.score)) + np.max(np.abs(exact.pull))
    np.testing.assert_allclose(found.pull, exact.pull, rtol=0, atol=1e-8 * size)
    # Eq. (19.6): DPS divides by R where R + H C Hᵀ is right
    V = (
        seen["R"]
        + std**2 * SDE.sigma(t) ** 2 / (SDE.sigma(t) ** 2 + (SDE.alpha(t) * std) ** 2) * seen["H"] @ seen["H"].T
    )
    J = std**2 * SDE.alpha(t) / (SDE.sigma(t) ** 2 + (SDE.alpha(t) * std) ** 2)
    x0 = p.posterior_mean(x, *level(t))
    miss = seen["y"] - x0 @ seen["H"].T
    for guess, inside in ((DPS(score, SDE, **seen), seen["R"]), (PiGDM(score, SDE, **seen, data_std=std), V)):
        wanted = J * np.linalg.solve(inside, miss.T).T @ seen["H"]
        np.testing.assert_allclose(guess.terms(x, t).pull, wanted, rtol=0, atol=1e-9 * (1 + np.max(np.abs(wanted))))


@given(p=mixtures(max_dim=2, low=0.2), seed=seeds)
def test_without_noise_all_guesses_are_right(p, seed):
    """Eq. (19.3) at t = 0: s + Hᵀ R⁻¹ (y - H x), and log N(y; H x, R)."""
    seen, x = seen_by(seed, 1, p.dim), points(p, 1.0, 0.0, seed)
    exact = Exact(p, SDE, **seen)
    for guess in [make(ExactScore(p, SDE), SDE, **seen) for make in GUESSES.values()]:
        size = 1 + np.max(np.abs(exact(x, 0.0)))
        np.testing.assert_allclose(guess(x, 0.0), exact(x, 0.0), rtol=0, atol=1e-7 * size)
        np.testing.assert_allclose(guess.clean(x), guess.terms(x, 0.0).log_likelihood, rtol=1e-12)
        np.testing.assert_allclose(guess.clean(x), exact.clean(x), rtol=1e-6, atol=1e-6)


@each_guess
def test_times_one_a_sample_and_samples_of_any_shape(name):
    seen, score = seen_by(5, 2, 2), ExactScore(PAIR, SDE)
    guess = GUESSES[name](score, SDE, **seen)
    x, t = np.random.default_rng(0).standard_normal((3, 2)), np.array([0.2, 0.5, 0.9])
    rows = np.concatenate([guess(x[i : i + 1], float(t[i])) for i in range(3)])
    np.testing.assert_allclose(guess(x, t), rows, rtol=1e-12, atol=1e-12)

    class Images:
        def __call__(self, x, t):
            return score(x.reshape(-1, 2), t).reshape(x.shape)

        def jvp(self, x, t, v):
            s, sdot = score.jvp(x.reshape(-1, 2), t, v.reshape(len(v), -1, 2))
            return s.reshape(x.shape), sdot.reshape(v.shape)

    tall = GUESSES[name](Images(), SDE, **seen)(x.reshape(3, 2, 1, 1), 0.5)
    np.testing.assert_allclose(tall.reshape(3, 2), guess(x, 0.5), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_right_guess_is_the_conditional_score_in_every_sampler(sampler):
    """Eqs. (19.4), (19.5): on a round Gaussian both know the covariance, and every sampler makes the same law."""
    p, times = GaussianMixture(np.ones(1), np.array([[0.3, -0.2]]), np.ones(1)), [*log_snr_times(SDE, 8, 0.05), 0.0]
    seen, start = seen_by(4, 1, 2), Gaussian(np.zeros(2), np.eye(2))
    scores = (make(ExactScore(p, SDE), SDE, **seen) for make in (PiGDM, Moment))
    wanted = law_of(SAMPLERS[sampler](SDE, Exact(p, SDE, **seen)), times, start)
    for score in scores:
        assert wasserstein(law_of(SAMPLERS[sampler](SDE, score), times, start), wanted) < 1e-9


# ------------------------------------------------------------------ what DPS makes of one Gaussian


@pytest.mark.parametrize("gamma", [0.3, 1.0, 3.0])
def test_the_laws_of_dps_on_one_gaussian(gamma):
    """Eqs. (19.7), (19.8): v₀ = 1.7, y = 1.3; the flow by Heun to second order, the SDE to first."""
    v0, y = 1.7, 1.3
    p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.array([v0]))
    sde = VP(0.1, 40.0)  # which ends in noise alone: α₁ is 4e-5, and its root counts in the mean of the flow
    guess = DPS(ExactScore(p, sde), sde, H=ONE, y=np.array([y]), R=v0 / gamma * ONE)
    z, start = math.sqrt(gamma / 2), Gaussian(np.zeros(1), np.eye(1))
    wanted = {
        2: np.array([2 * z * dawsn(z) * y, v0 * math.exp(-gamma)]),
        1: np.array([y * (1 - math.exp(-gamma)), v0 / gamma / 2 * (1 - math.exp(-2 * gamma))]),
    }
    for order, step in ((2, Heun(Reverse(sde, guess, 0.0).drift)), (1, Ancestral(sde, guess, "large"))):
        laws = [law_of(step, log_snr_times(sde, n, 1e-6), start) for n in (100, 200)]
        coarse, fine = (np.array([law.mean[0], law.cov[0, 0]]) for law in laws)
        better = fine + (fine - coarse) / (2**order - 1)
        np.testing.assert_allclose(better, wanted[order], rtol=0, atol=0.002)


@given(w=st.floats(1e8, 1e9), seed=seeds, t=st.floats(0.05, 1.0))
def test_dps_is_guidance_without_end_by_an_observation_without_content(w, seed, t):
    """Eq. (13.7) with noise w R and weight w, w -> ∞: the pull of DPS, on one Gaussian."""
    p, seen = random_mixture(seed, 2, 1), seen_by(seed, 1, 2)
    x, weak = points(p, *level(t), seed)[:3], seen | {"R": w * seen["R"]}
    guided = Guided(ExactScore(p, SDE), ExactScore(linear_posterior(p, **weak), SDE), w)(x, t)
    wanted = DPS(ExactScore(p, SDE), SDE, **seen)(x, t)
    # V/R - 1 is of order 1/w; and w times the rounding of a difference of scores
    np.testing.assert_allclose(guided, wanted, rtol=0, atol=1e-4 * (1 + np.max(np.abs(wanted))))


# ------------------------------------------------------------------ two modes


def test_no_gaussian_is_right_where_the_mode_is_decided():
    """Eq. (19.9), by a sum over a grid: the numbers of the chapter."""
    p = GaussianMixture(np.array([0.5, 0.5]), np.array([[1.0], [-1.0]]), np.array([0.05, 0.05]))
    seen, line = {"H": ONE, "y": np.array([0.3]), "R": 0.25 * ONE}, np.linspace(-6, 6, 4001)[:, None]
    for sigma, wanted in ((0.5, (1.377, 0.641, 0.646)), (0.1, (0.034, 0.007, 0.003))):
        t = SDE.time(sigma)
        weight = np.exp(linear_posterior(p, **seen).log_prob(line, *level(t)))
        true = Exact(p, SDE, **seen).terms(line, t).pull[:, 0]
        for make, error in zip(GUESSES.values(), wanted, strict=True):
            off = make(ExactScore(p, SDE), SDE, **seen).terms(line, t).pull[:, 0] - true
            assert abs(math.sqrt(weight @ off**2 / (weight @ true**2)) - error) <= 6e-4


# ------------------------------------------------------------------ weights


def walked(guess, x, times, rng, **more):
    """Particles along a grid, and their weights."""
    memory, step = None, Twisted(guess, **more)
    for t, s in pairwise(times):
        x, memory = step(x, t, s, rng, memory)
    return x, memory


COARSE, SEEN = [*log_snr_times(SDE, 12, 0.02), 0.0], {"H": ONE, "y": np.ones(1), "R": 4 * ONE}
MADE = {  # what thirteen steps make of N(0, 1) without observation
    variance: law_of(Ancestral(SDE, ExactScore(NORMAL, SDE), variance), COARSE, Gaussian(np.zeros(1), np.eye(1)))
    for variance in ("small", "large")
}


def averages(variance):
    """p(y) and p(y) E[x | y] of what the chain makes, exactly."""
    law = GaussianMixture(np.ones(1), MADE[variance].mean[None], MADE[variance].cov[None])
    evidence = math.exp(float(observe(law, ONE, SEEN["R"]).log_prob(SEEN["y"][None])[0]))
    return evidence * np.array([1.0, linear_posterior(law, **SEEN).means[0, 0]])


@pytest.mark.parametrize("variance", MADE)
@pytest.mark.parametrize("name", ["exact", *GUESSES])
def test_weights_make_any_guess_right(name, variance):
    """Eqs. (19.10), (19.11), (19.12): E w and E w x of one particle, against the law that the coarse chain has."""
    score = ExactScore(NORMAL, SDE)
    guess = Exact(NORMAL, SDE, **SEEN) if name == "exact" else GUESSES[name](score, SDE, **SEEN)
    rng = np.random.default_rng(1)
    x, memory = walked(guess, rng.standard_normal((40_000, 1)), COARSE, rng, variance=variance, threshold=0.0)
    w = np.exp(memory.log_weights)[:, None]
    assert_mean(np.concatenate([w, w * x], axis=1), averages(variance), sees=0.025)


@pytest.mark.slow
def test_drawing_again_leaves_the_mean_weight_unbiased():
    """Eqs. (19.12), (19.13): populations of eight, drawn again where fewer than eight are effective: at each step."""
    guess = DPS(ExactScore(NORMAL, SDE), SDE, **SEEN)
    rng, rows = np.random.default_rng(2), []
    for _ in range(500):
        x, memory = walked(guess, rng.standard_normal((8, 1)), COARSE, rng, threshold=1.0)
        assert np.ptp(memory.log_weights) == 0
        rows.append(math.exp(memory.log_evidence) * np.array([1.0, x.mean()]))
    assert_mean(np.array(rows), averages("small"), sees=0.04)


@pytest.mark.slow
def test_many_particles_are_the_posterior():
    """Eq. (19.12): two modes whose weights no guess gets right; and no weights are left at the end."""
    seen, rng = {"H": ONE, "y": np.zeros(1), "R": ONE}, np.random.default_rng(3)
    post, times = linear_posterior(TWO, **seen), [*log_snr_times(SDE, 40, 1e-3), 0.0]
    for make in GUESSES.values():
        shares = [
            np.mean(walked(make(ExactScore(TWO, SDE), SDE, **seen), rng.standard_normal((200, 1)), times, rng)[0] > 0)
            for _ in range(80)
        ]
        # the ratio of two averages is off by 1/B, and the chain by its steps: 0.01
        assert_mean(np.array(shares)[:, None], post.weights[:1], bias=0.02)


def test_effective_numbers():
    """Eq. (19.13): equal weights, one weight, and two of four."""
    _, memory = walked(DPS(ExactScore(NORMAL, SDE), SDE, ONE, np.ones(1), ONE), np.zeros((4, 1)), [1.0, 0.5],
                       np.random.default_rng(0), threshold=0.0)  # fmt: skip
    for log_weights, wanted in (([3.0] * 4, 4), ([0, -800, -800, -800], 1), ([5, 5, -800, -800], 2)):
        assert float(memory._replace(log_weights=np.array(log_weights, "float64")).effective) == wanted
    assert abs(float(memory._replace(log_weights=np.log([1.0, 2, 3, 4])).log_evidence) - math.log(2.5)) <= 1e-15


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize("kind", [ScoreModel, EnergyModel])
@each_guess
def test_a_network_is_guided_as_its_jacobian_says(name, kind):
    """Eq. (19.3) with J v from the network's jvp, against V and J by hand; at t = 0 it is refused."""
    model = kind(MLP((2, 8, 2 if kind is ScoreModel else 1), embed=4), SDE, predict="noise")
    rng = np.random.default_rng(0)
    score, seen = model.bind(rng.standard_normal(model.init(rng, "float64").shape) * 0.3), seen_by(2, 2, 2)
    guess, x, (alpha, sigma) = GUESSES[name](score, SDE, **seen), rng.standard_normal((5, 2)), level(0.6)
    axes = np.broadcast_to(np.eye(2)[:, None, :], (2, 5, 2))
    s, sdot = score.jvp(x, 0.6, axes)
    J = (np.eye(2) + sigma**2 * np.moveaxis(sdot, 0, -1)) / alpha
    terms, H, R = guess.terms(x, 0.6), seen["H"], seen["R"]
    for i in range(5):
        C = {"dps": np.zeros((2, 2)), "pigdm": sigma**2 * np.eye(2), "moment": sigma**2 / alpha * J[i]}[name]
        inside = H @ C @ H.T
        values, vectors = np.linalg.eigh(0.5 * (inside + inside.T))
        V = R + vectors * np.maximum(values, 0) @ vectors.T
        miss = seen["y"] - H @ (x[i] + sigma**2 * s[i]) / alpha
        np.testing.assert_allclose(terms.pull[i], J[i] @ H.T @ np.linalg.solve(V, miss), rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="at t = 0 there is no noise"):
        guess(x, 0.0)


# ------------------------------------------------------------------ what does not fit


def test_what_does_not_fit_is_named():
    p, H, y, R = PAIR, np.ones((1, 2)), np.ones(1), np.eye(1)
    score = ExactScore(p, SDE)
    for bad, message in (
        ((H, np.ones(2), R), r"y \(M,\).*y \(2,\)"),
        ((H, y, np.eye(2)), r"R \(2, 2\)"),
        ((np.ones(2), y, R), "H must have 2 axes"),
        ((H, np.array([np.nan]), R), "y holds 1 values that are not finite"),
        ((H, y, -R), "R must be a covariance: .* indefinite"),
        ((H, y, 0 * R), "R must be positive"),
        ((np.ones((2, 2)), np.ones(2), np.ones((2, 2))), "R must be positive"),
        ((np.ones((2, 2)), np.ones(2), np.array([[1.0, 0.5], [0.0, 1.0]])), "not symmetric"),
    ):
        for make in (*(lambda *a, g=g: g(score, SDE, *a) for g in GUESSES.values()), lambda *a: Exact(p, SDE, *a)):
            with pytest.raises(ValueError, match=message):
                make(*bad)
    with pytest.raises(TypeError, match="y is float32"):
        DPS(score, SDE, H, y.astype("float32"), R)
    with pytest.raises(TypeError, match="needs a method jvp"):
        DPS(lambda x, t: -x, SDE, H, y, R)
    with pytest.raises(ValueError, match="made for"):
        DPS(score, VE(0.01, 10.0), H, y, R)
    with pytest.raises(ValueError, match="data_std"):
        PiGDM(score, SDE, H, y, R, data_std=0.0)
    wide = DPS(ExactScore(random_mixture(0, 3, 1), SDE), SDE, H, y, R)
    with pytest.raises(ValueError, match="H sees samples of 2 coordinates"):
        wide(np.zeros((4, 3)), 0.5)
    for bad in ({"variance": "wide"}, {"threshold": 1.5}, {"threshold": -0.1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            Twisted(DPS(score, SDE, H, y, R), **bad)
    with pytest.raises(TypeError, match="guess must be DPS"):
        Twisted(score)


def test_weighted_particles_go_through_the_loop():
    seen, rng = {"H": ONE, "y": np.ones(1), "R": ONE}, np.random.default_rng(0)
    step = Twisted(PiGDM(ExactScore(NORMAL, SDE), SDE, **seen))
    x = last(simulate(step, rng.standard_normal((50, 1), dtype="float64"), COARSE, rng))
    assert x.shape == (50, 1)


@each_guess
def test_where_nothing_of_the_data_is_left_a_guess_is_refused(name):
    """α(1) = 0: x̂₀ = (x + σ² s)/α is 0/0. Just below, and with a thousandth of the data, all is well."""
    x, rng = np.ones((4, 1)), np.random.default_rng(0)
    for sde, t in ((Rectified(), 1.0), (Rectified(), 0.999), (Rectified(1e-3), 1.0)):
        guess = GUESSES[name](ExactScore(NORMAL, sde), sde, ONE, np.ones(1), ONE)
        walks = (lambda g=guess, t=t: g(x, t), lambda g=guess, t=t: Twisted(g)(x, t, 0.5, rng)[0])
        for walk in walks:
            if sde.alpha(t) == 0:
                with pytest.raises(ValueError, match="α is 0"):
                    walk()
            else:
                assert np.all(np.isfinite(walk()))
