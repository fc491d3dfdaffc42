"""law_of: what a step makes of a Gaussian along a grid, read off the code step by step or as a whole."""

import doctest
import math
from itertools import pairwise

import numpy as np
import pytest

from refscore import Ancestral, ExactScore, GaussianMixture, Langevin, Then, simulate
from refscore.laws import affine_chain
from refscore.laws.affine_chain import Gaussian, law_of, probe
from refscore.noise.chains import from_sigmas
from refscore.noise.sde import SDES
from refscore.sampling.loop import last
from refscore.sampling.transitions import SAMPLERS

M, C = np.array([1.5, -0.5]), np.array([[0.8, 0.3], [0.3, 0.4]])
TARGET = GaussianMixture(np.ones(1), M[None], C[None])
GRID = (np.linspace(1, 0, 9) ** 1.3).tolist()
I2 = np.eye(2)
processes = {**SDES, "chain": from_sigmas([5.0, 2.0, 0.7, 0.1])}


def near(found, wanted, tolerance=1e-11):
    for a, b in zip(found, wanted, strict=True):
        assert np.max(np.abs(a - b)) <= tolerance * (1 + np.max(np.abs(b)))


@pytest.mark.parametrize("sde", processes.values(), ids=processes)
@pytest.mark.parametrize("name", SAMPLERS)
def test_legs_and_the_whole_chain_have_one_law(name, sde):
    """Eq. (10.11): composed step by step, or with the noise of every step in one probe of the sampling loop."""
    step = SAMPLERS[name](sde, ExactScore(TARGET, sde))
    start = Gaussian(0.1 * M, sde.prior_std**2 * I2)
    whole = probe(lambda x, rng: last(simulate(step, x, GRID, rng)), M).law(start)
    near(law_of(step, GRID, start), whole)


@pytest.mark.parametrize("sde", SDES.values(), ids=SDES)
def test_ancestral_steps_have_the_law_of_their_recursion(sde):
    """In one dimension on paper: x_s given x_t and x̂₀ = E[x₀ | x_t]."""
    m0, v0 = 1.5, 0.8
    p = GaussianMixture(np.ones(1), np.array([[m0]]), np.array([v0]))
    m, v = 0.2, sde.prior_std**2
    for t, s in pairwise(GRID[:-1]):
        alpha, sigma2, beta = sde.alpha(t), sde.sigma(t) ** 2, (sde.alpha(t) / sde.alpha(s)) * sde.sigma(s) ** 2
        gain = alpha * v0 / (alpha**2 * v0 + sigma2)
        to_x, to_data = beta / sigma2, sde.alpha(s) * (1 - (alpha / sde.alpha(s)) * beta / sigma2)
        A, c = to_x + to_data * gain, to_data * (1 - gain * alpha) * m0
        fresh = sde.sigma(s) ** 2 * (1 - (alpha / sde.alpha(s)) * beta / sigma2)
        m, v = A * m + c, A**2 * v + fresh
    start = Gaussian(np.array([0.2]), np.array([[sde.prior_std**2]]))
    found = law_of(Ancestral(sde, ExactScore(p, sde)), GRID[:-1], start)
    near(found, Gaussian(np.array([m]), np.array([[v]])))


def test_correctors_are_part_of_the_step():
    sde = SDES["vp"]
    score = ExactScore(TARGET, sde)
    step = Then(SAMPLERS["dpm-solver++2m"](sde, score), Langevin(score, 0.1))
    start = Gaussian(np.zeros(2), I2)
    near(law_of(step, GRID, start), probe(lambda x, rng: last(simulate(step, x, GRID, rng)), M).law(start))


def test_two_grids_after_one_another_are_one_where_nothing_is_remembered():
    sde = SDES["vp"]
    step, start = Ancestral(sde, ExactScore(TARGET, sde)), Gaussian(np.zeros(2), I2)
    near(law_of(step, GRID[4:], law_of(step, GRID[:5], start)), law_of(step, GRID, start), 1e-14)


def test_it_runs_on_any_back_end_in_its_dtype(any_backend):
    sde, host = SDES["vp"], any_backend
    p = GaussianMixture(*(host.asarray(a, dtype="float32") for a in (np.ones(1), M[None], C[None])))
    start = Gaussian(host.asarray(0 * M, dtype="float32"), host.asarray(I2, dtype="float32"))
    for name in ("ancestral", "dpm-solver++2m"):
        found = law_of(SAMPLERS[name](sde, ExactScore(p, sde)), GRID, start)
        wanted = law_of(SAMPLERS[name](sde, ExactScore(TARGET, sde)), GRID, Gaussian(0 * M, I2))
        assert str(found.cov.dtype).endswith("float32")
        near(Gaussian(*map(host.to_numpy, found)), wanted, 1e-4)  # float32, σ/α up to 150


def test_a_grid_has_two_times():
    sde = SDES["vp"]
    for times in ([], [1.0]):
        with pytest.raises(ValueError, match=r"a grid has two times or more, got \["):
            law_of(Ancestral(sde, ExactScore(TARGET, sde)), times, Gaussian(M, C))


def test_the_examples_run():
    assert doctest.testmod(affine_chain).failed == 0
    assert math.isfinite(affine_chain.wasserstein(Gaussian(M, C), Gaussian(M, I2)))
