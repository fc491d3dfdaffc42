"""The affine law read off the code of a sampler: against the tests' own probe, and the distance of two Gaussians."""

import math

import numpy as np
import pytest
from hypothesis import given
from scipy.linalg import sqrtm

from refscore import ExactScore
from refscore.laws.affine_chain import Gaussian, probe, wasserstein
from refscore.measure import work_precision
from refscore.sampling.transitions import SAMPLERS
from tests.oracles.affine import Counting
from tests.oracles.affine import law as law_of_maps
from tests.oracles.affine import probe as probe_with_unit_rows
from tests.oracles.close import assert_close
from tests.oracles.marks import PROCESSES
from tests.oracles.strategies import seeds


def random_gaussian(rng, D):
    A = rng.standard_normal((D, D))
    return Gaussian(rng.standard_normal(D), A @ A.T + 0.01 * np.eye(D))


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_law_read_off_is_that_of_the_tests_own_probe(name):
    """Eq. (10.11)."""
    rng = np.random.default_rng(0)
    for sde in (PROCESSES["vp"], PROCESSES["ve"]):
        score = ExactScore(work_precision.GAUSSIAN, sde)

        def chain(x, rng, sde=sde, score=score):
            return work_precision.sample(score, sde, name, 6, x, rng)

        counting = Counting()
        chain(np.zeros((1, 2)), counting)
        start = random_gaussian(rng, 2)
        found = probe(chain, np.zeros(2)).law(start)
        if counting.n:
            wanted = law_of_maps(probe_with_unit_rows(chain, 2, counting.n), *start)
        else:
            A, _, c = probe_with_unit_rows(chain, 2, 0)
            wanted = A @ start.mean + c, A @ start.cov @ A.T
        for a, b in zip(found, wanted, strict=True):
            assert_close(a, b, 1e-12 * (1 + np.max(np.abs(b))))


def test_the_probe_runs_on_any_back_end(backend):
    A, B = np.array([[0.5, 0.2, 0.0], [0.1, -0.3, 0.4], [0.0, 0.7, 1.0]]), np.diag([1.0, 2.0, 3.0])
    A_there, B_there = backend.asarray(A), backend.asarray(B)

    def chain(x, rng):
        for _ in range(2):
            x = x @ A_there + 1.0 + rng.standard_normal(x.shape, dtype=x.dtype) @ B_there
        return x

    found = probe(chain, backend.asarray(np.zeros(3)))
    assert_close(backend.to_numpy(found.matrix), (A @ A).T, 1e-15)
    assert_close(backend.to_numpy(found.shift), np.ones(3) @ A + 1, 1e-15)
    assert_close(backend.to_numpy(found.noise), A.T @ B @ B @ A + B @ B, 1e-14)


@given(seed=seeds)
def test_the_distance_of_two_gaussians_is_bures(seed):
    """Eq. (10.12): ‖m - m'‖² + tr(S + S' - 2 (S^½ S' S^½)^½)."""
    rng = np.random.default_rng(seed)
    D = int(rng.integers(1, 5))
    p, q = random_gaussian(rng, D), random_gaussian(rng, D)
    root = np.real(sqrtm(p.cov))
    traces = np.trace(p.cov + q.cov - 2 * np.real(sqrtm(root @ q.cov @ root)))
    wanted = float(np.sum((p.mean - q.mean) ** 2) + traces)
    assert abs(wasserstein(p, q) ** 2 - wanted) <= 1e-10 * (1 + wanted)  # the traces cancel
    assert wasserstein(p, p) <= 1e-13 * (1 + np.max(p.cov))
    assert abs(wasserstein(p, Gaussian(p.mean + 3 * np.eye(D)[0], p.cov)) - 3) <= 1e-12
    assert wasserstein(p, q) == pytest.approx(wasserstein(q, p), rel=1e-10)


def test_the_distance_of_near_gaussians_is_not_lost_in_rounding():
    """Commuting covariances: the distance of the roots of the variances, also at 1e-12; and singular ones."""
    for d in (1e-3, 1e-8, 1e-12):
        found = wasserstein(
            Gaussian(np.zeros(2), np.diag([1.0, 4.0])), Gaussian(np.zeros(2), np.diag([1.0, (2 + d) ** 2]))
        )
        assert found == pytest.approx(d, rel=1e-3)
    point = Gaussian(np.zeros(2), np.zeros((2, 2)))
    assert wasserstein(point, Gaussian(np.zeros(2), np.diag([1.0, 4.0]))) == pytest.approx(math.sqrt(5), rel=1e-14)
