"""Precision, recall, density, coverage: against loops, and their exact means for a right generator."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore.measure.coverage import coverage
from tests.oracles.statistics import assert_mean
from tests.oracles.strategies import seeds


def reach(points, k):
    return [sorted(np.linalg.norm(points - p, axis=1))[k] for p in points]


@given(seeds, st.integers(2, 9), st.integers(2, 9), st.integers(1, 3), st.integers(1, 3))
def test_the_shares_are_those_of_the_balls_written_as_loops(seed, n, m, dim, k):
    """Eq. (20.14)."""
    rng, k = np.random.default_rng(seed), min(k, n - 1, m - 1)
    x, y = rng.standard_normal((n, dim)), 0.5 + rng.standard_normal((m, dim))
    near, far = reach(x, k), reach(y, k)
    d = np.array([[np.linalg.norm(a - b) for b in y] for a in x])
    in_data, in_samples = d <= np.array(far), d <= np.array(near)[:, None]
    found = coverage(x, y, k)
    assert found.precision == pytest.approx(np.mean(in_data.any(axis=1)), rel=1e-14)
    assert found.recall == pytest.approx(np.mean(in_samples.any(axis=0)), rel=1e-14)
    assert found.density == pytest.approx(in_data.sum() / (k * n), rel=1e-14)
    assert found.coverage == pytest.approx(np.mean(in_data.any(axis=0)), rel=1e-14)


@given(seeds, st.sampled_from([(2, 3, 1), (3, 3, 2), (4, 3, 1), (3, 4, 2)]), st.integers(1, 2))
def test_over_all_labellings_density_is_one_and_coverage_is_chance(seed, sizes, dim):
    """Eq. (20.15): which of the points are data is all that is random, for every set of points."""
    m, n, k = sizes
    pool = np.random.default_rng(seed).standard_normal((m + n, dim))
    found = [coverage(np.delete(pool, own, axis=0), pool[list(own)], k)
             for own in itertools.combinations(range(m + n), n) if m > k]  # fmt: skip
    if m > k:
        assert np.mean([one.density for one in found]) == pytest.approx(1.0, rel=1e-12)
        assert np.mean([one.coverage for one in found]) == pytest.approx(found[0].chance, rel=1e-12)
    assert 1 - math.comb(n - 1, k) / math.comb(m + n - 1, k) > 0


def test_on_a_circle_with_one_neighbour_the_precision_of_a_right_generator_is_three_quarters():
    """Neither neighbour's ball holds a new point with probability ¼: each gap beyond is as likely the smaller one."""
    rng, runs = np.random.default_rng(0), []
    for _ in range(600):
        angles = 2 * math.pi * rng.random(40)
        points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        runs.append([coverage(points[:20], points[20:], 1).precision])
    assert_mean(runs, 0.75, sees=0.06)


def test_copies_are_precise_and_recalled_and_a_missing_mode_is_not():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 600, 2))  # more than one block
    same = coverage(y, y)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    half = coverage(x, np.concatenate([y[:300], y[:300] + 100]))
    assert half.precision > 0.9 > 0.6 > half.recall > 0.4
    assert coverage(x + 100, y).density == 0


def test_too_few_points_are_refused():
    for bad in (lambda: coverage(np.zeros((5, 1)), np.zeros((9, 1))), lambda: coverage(*np.zeros((2, 9, 1)), k=0)):
        with pytest.raises(ValueError, match=r"others of its own kind|at least 1"):
            bad()
