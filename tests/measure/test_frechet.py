"""The Fréchet distance: closed forms, its bias, exact on a line, and the laws it cannot tell apart."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import gammaln

from refscore.measure.frechet import frechet_bias, frechet_distance
from tests.oracles.statistics import assert_within
from tests.oracles.strategies import seeds


def standard(x):
    """Moved and turned to mean 0 and covariance 1."""
    x = x - x.mean(axis=0)
    return np.linalg.solve(np.linalg.cholesky(np.cov(x.T)), x.T).T


def shrink(n):
    """E of the standard deviation of n standard normal draws, by n - 1."""
    return math.sqrt(2 / (n - 1)) * math.exp(gammaln(n / 2) - gammaln((n - 1) / 2))


@given(seeds, st.integers(1, 4))
def test_of_diagonal_covariances_it_is_the_difference_of_means_and_of_deviations(seed, dim):
    """Eq. (20.1)."""
    rng = np.random.default_rng(seed)
    x, y = (standard(rng.standard_normal((9, dim))) if dim > 1 else rng.standard_normal((9, 1)) for _ in range(2))
    if dim == 1:
        x, y = ((z - z.mean()) / z.std(ddof=1) for z in (x, y))
    a, b, shift = rng.uniform(0.1, 3, dim), rng.uniform(0.1, 3, dim), rng.standard_normal(dim)
    exact = np.sum((a - b) ** 2) + np.sum(shift**2)
    assert frechet_distance(a * x, shift + b * y) == pytest.approx(exact, rel=1e-9)


def test_laws_of_one_mean_and_one_covariance_are_the_same_to_it():
    rng = np.random.default_rng(0)
    two_modes = standard(np.concatenate([rng.standard_normal((100, 2)) + 9, rng.standard_normal((100, 2)) - 9]))
    assert frechet_distance(two_modes, standard(rng.standard_normal((100, 2)))) < 1e-20


def test_on_a_line_the_bias_is_exact_and_tends_to_its_first_order():
    """Eq. (20.2): v/n + 2v (1 - E s/√v) for n draws beside their law, and 3v/2n to first order."""
    for n in (10, 100, 1000):
        exact = 1 / n + 2 * (1 - shrink(n))
        assert abs(exact - frechet_bias(np.eye(1), n)) < 1 / n**2
    assert frechet_bias(2.5 * np.eye(1), 7) == pytest.approx(2.5 * 1.5 / 7, rel=1e-14)
    n, rng = 8, np.random.default_rng(2)
    found = np.array([frechet_distance(*rng.standard_normal((2, n, 1))) for _ in range(3000)])
    exact = 2 / n + 2 * (1 - shrink(n) ** 2)  # of two samples
    assert_within(found.mean(), exact, found.std() / math.sqrt(3000), sees=0.08, n=3000)


@pytest.mark.parametrize("variances", [[1.0, 1.0, 1.0], [3.0, 0.5]])
def test_the_bias_in_several_dimensions_is_the_first_order(variances):
    """Eq. (20.2): two samples of one law; what is left is of order 1/n²."""
    n, cov, rng = 200, np.diag(variances), np.random.default_rng(0)
    x = np.sqrt(variances) * rng.standard_normal((2, 1500, n, len(variances)))
    found = np.array([frechet_distance(a, b) for a, b in zip(*x, strict=True)])
    assert_within(found.mean(), 2 * frechet_bias(cov, n), found.std() / math.sqrt(1500), bias=3 / n**2, n=1500)
    D = len(variances)
    assert frechet_bias(np.eye(D), n) == pytest.approx((D + D * (D + 1) / 4) / n, rel=1e-12)
    assert frechet_bias(np.zeros((D, D)), n) == 0


def test_what_does_not_fit_is_refused():
    for call in (
        lambda: frechet_distance(np.zeros((1, 2)), np.zeros((3, 2))), lambda: frechet_bias(np.ones((2, 3)), 5),
        lambda: frechet_distance(np.zeros((3, 1)), np.zeros((3, 2))), lambda: frechet_bias(np.eye(2), 0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"at least 2 rows|square matrix|must be \(N, D\)|at least 1"):
            call()
