"""The memorising optimum: the loss on N points is least at their own noised score, and its samplers return them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from refscore import VP, Denoising, EulerMaruyama, ExactScore, GaussianMixture, Heun, Reverse, prior, simulate
from refscore.laws.empirical import empirical
from refscore.matching.times import FixedTime
from refscore.matching.weights import unweighted
from refscore.measure.floor import denoising_floor, mean_posterior_variance
from refscore.measure.neighbours import memorised
from refscore.noise.grids import log_snr_times
from refscore.noise.reverse import denoise
from refscore.noise.sde import LinearVE
from refscore.sampling.loop import last
from tests.oracles.marks import on_every_backend
from tests.oracles.statistics import assert_share
from tests.oracles.strategies import seeds

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def noisy(points, alpha, sigma):
    """All x_t = α x_i + σ z with z at the nodes of Gauss-Hermite, the noise, and what each weighs."""
    x, z = np.broadcast_arrays(alpha * points[:, None] + sigma * NODES, NODES)
    return x.reshape(-1, 1), z.reshape(-1, 1), np.tile(WEIGHTS / len(points), len(points))


levels = st.tuples(st.floats(0.3, 1.0), st.floats(0.5, 2.0))  # wide enough for 120 nodes


@given(seeds, st.integers(1, 6), levels)
def test_the_gradient_of_the_training_loss_vanishes_at_the_empirical_score_and_at_no_other(seed, n, level):
    """Eq. (15.7): E h(x)·(s(x) + z/σ) = 0 for every direction h, the mean over points and noise by Gauss-Hermite."""
    (alpha, sigma), points = level, np.random.default_rng(seed).uniform(-1, 1, n)
    x, z, w = noisy(points, alpha, sigma)
    push = empirical(points[:, None]).score(x, alpha, sigma) + z / sigma
    for h in (np.ones_like(x), x, np.sin(2 * x), x**3):
        assert abs(w @ (h * push)[:, 0]) < 1e-9 * (w @ np.abs(h * z / sigma)[:, 0])
    wider = GaussianMixture(np.full(n, 1 / n), points[:, None], np.full(n, 0.1))  # a smoothed law
    assert abs(w @ (x * (wider.score(x, alpha, sigma) + z / sigma))[:, 0]) > 1e-3


@given(seeds, st.integers(1, 6), levels, st.floats(-2.0, 2.0))
def test_the_training_loss_of_any_score_is_the_floor_and_half_its_distance_to_memory(seed, n, level, c):
    """Eq. (15.9): Pythagoras, and the floor is the variance of the posterior over the points."""
    (alpha, sigma), points = level, np.random.default_rng(seed).uniform(-1, 1, n)
    p, (x, z, w) = empirical(points[:, None]), noisy(points, alpha, sigma)
    r = np.exp(-((x - alpha * points) ** 2) / (2 * sigma**2))
    r /= r.sum(axis=1, keepdims=True)
    floor = 0.5 * alpha**2 / sigma**4 * (w @ (r @ points**2 - (r @ points) ** 2))  # Eq. (15.8)
    score = p.score(x, alpha, sigma)
    assert p.posterior_variance(x, alpha, sigma) == pytest.approx(r @ points**2 - (r @ points) ** 2, abs=1e-12)
    for s in (score, score + c, -c * x, np.cos(x)):
        loss = 0.5 * (w @ ((s + z / sigma) ** 2)[:, 0])
        assert loss == pytest.approx(floor + 0.5 * (w @ ((s - score) ** 2)[:, 0]), rel=1e-9)


def test_the_floor_of_the_house_is_that_of_the_points_and_vanishes_where_they_are_apart():
    """Eq. (15.8): two points at ±1 have the posterior variance 1 - tanh²(x/σ²); by halves it is exp(-1/2σ²)."""
    pair, sde = empirical(np.array([[-1.0], [1.0]])), LinearVE(sigma_max=1.0)
    for sigma in (1.0, 0.5, 0.25):
        integral = quad(lambda x, v=sigma**2: math.exp(-x * x / (2 * v)) / math.cosh(x / v), -9 * sigma, 9 * sigma)[0]
        variance = math.exp(-1 / (2 * sigma**2)) * integral / (sigma * math.sqrt(2 * math.pi))
        found = denoising_floor(Denoising(weight=unweighted, times=FixedTime(sigma)), pair, sde)
        assert abs(found.value - 0.5 / sigma**4 * variance) <= found.error <= 1e-5
    small = mean_posterior_variance(pair, 1.0, 0.1).value
    assert 0 < small < math.exp(-1 / (2 * 0.1**2))
    smooth = GaussianMixture(np.full(2, 0.5), np.array([[-4.0], [4.0]]), np.full(2, 0.1))  # with width
    assert mean_posterior_variance(smooth, 1.0, 0.1).value == pytest.approx(0.1 * 0.01 / 0.11, rel=1e-5)


@pytest.mark.parametrize("lam", [0.0, 1.0])
def test_every_sampler_with_the_empirical_score_ends_in_training_points_all_as_often(lam):
    rng, sde, n = np.random.default_rng(0), VP(), 2000
    points = rng.standard_normal((7, 2))
    score, times = ExactScore(empirical(points), sde), log_snr_times(sde, 60, 1e-4)
    step = EulerMaruyama(Reverse(sde, score)) if lam else Heun(Reverse(sde, score, 0.0).drift)
    x = denoise(score, sde, last(simulate(step, prior(sde, (n, 2), rng, "float64"), times, rng)), times[-1])
    away = np.linalg.norm(x[:, None] - points, axis=2)
    assert away.min(axis=1).max() < 1e-12
    assert_share(away.argmin(axis=1)[:, None] == np.arange(7), 1 / 7, bias=0.01)  # of 60 steps
    found = memorised(x, points, rng.standard_normal((500, 2)))
    assert (found.share.value, found.share.error) == (1.0, 0.0)


@pytest.mark.recorded("what the solutions of the book say of these seeds")
def test_exercise_4_the_end_makes_a_copy_and_not_the_steps():
    rng, sde = np.random.default_rng(0), VP()
    points = rng.standard_normal((5, 2))
    score, start = ExactScore(empirical(points), sde), prior(sde, (200, 2), rng, "float64")
    flow, away = Heun(Reverse(sde, score, 0.0).drift), {}
    for n, end in ((40, 1e-3), (4, 1e-3), (40, 0.1)):
        x = denoise(score, sde, last(simulate(flow, start, log_snr_times(sde, n, end), None)), end)
        away[n, end] = np.linalg.norm(x[:, None] - points, axis=2).min(axis=1)
    assert away[40, 1e-3].max() < 1e-5
    assert np.mean(away[4, 1e-3] < 1e-3) > 0.95
    assert 0.2 < np.mean(away[40, 0.1] > 0.1) < 0.7


def test_its_own_samples_are_training_points_and_images_are_rows():
    images = np.random.default_rng(0).standard_normal((5, 2, 3, 1))
    p = empirical(images)
    assert p.means.shape == (5, 6)
    drawn = p.sample(np.random.default_rng(1), 50)
    assert all((drawn[i] == images.reshape(5, 6)).all(axis=1).any() for i in range(50))
    with pytest.raises(ValueError, match="singular and sigma is 0"):
        p.log_prob(drawn)


@on_every_backend
def test_the_empirical_law_is_made_on_every_backend(host):
    x = np.random.default_rng(0).standard_normal((4, 2))
    at = np.array([[0.1, 0.2]])
    found = empirical(host.asarray(x)).score(host.asarray(at), 0.8, 0.6)
    np.testing.assert_allclose(host.to_numpy(found), empirical(x).score(at, 0.8, 0.6), rtol=1e-12)


def test_points_that_are_none_are_refused():
    for bad, error in ((np.zeros(3), ValueError), (np.zeros((0, 2)), ValueError), (np.zeros((2, 2), int), TypeError)):
        with pytest.raises(error):
            empirical(bad)
