"""Nearest neighbours: against loops, exact laws of the tests built on them, what they must not depend on."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from refscore.measure import neighbours
from refscore.measure.neighbours import memorised, nearest, two_sample_test
from tests.oracles.close import assert_close
from tests.oracles.marks import on_every_backend, on_every_device
from tests.oracles.statistics import assert_mean, assert_spread, assert_within
from tests.oracles.strategies import seeds

# ------------------------------------------------------------------ the neighbour


@given(seeds, st.integers(1, 9), st.integers(1, 9), st.sampled_from([(1,), (3,), (2, 2, 1)]), st.integers(1, 40))
def test_nearest_is_the_least_of_all_distances_whatever_the_blocks(seed, n, m, shape, block):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, *shape)), rng.standard_normal((m, *shape))
    all_of = np.array([[np.linalg.norm(a - b) for b in y] for a in x])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "BLOCK", block)
        distances, indices = nearest(x, y)
        np.testing.assert_allclose(distances, all_of.min(axis=1), rtol=1e-14)
        np.testing.assert_array_equal(indices, all_of.argmin(axis=1))
        if n > 1:
            each_other = np.array([[np.inf if i == j else np.linalg.norm(a - b) for j, b in enumerate(x)]
                                   for i, a in enumerate(x)])  # fmt: skip
            distances, indices = nearest(x)
            np.testing.assert_allclose(distances, each_other.min(axis=1), rtol=1e-14)
            np.testing.assert_array_equal(indices, each_other.argmin(axis=1))


def test_of_equally_near_rows_the_first_is_named_also_in_another_block(monkeypatch):
    monkeypatch.setattr(neighbours, "BLOCK", 4)
    y = np.array([[3.0], [1.0], [0.0], [-1.0], [1.0], [1.0]])
    assert nearest(np.array([[0.9], [-0.6]]), y)[1].tolist() == [1, 3]
    assert nearest(np.zeros((5, 1)))[1].tolist() == [1, 0, 0, 0, 0]


def test_near_copies_far_out_keep_their_distance_in_float32():
    """By the expanded square a distance of 1e-3 at |x| = 1000 would be √(2·10⁶ ulp) or nothing."""
    x = np.full((3, 4), 1000.0, dtype="float32")
    y = x.copy()
    y[:, 0] += np.array([0.25, 0.5, 0.001], dtype="float32")
    assert nearest(x, y)[0] == pytest.approx(np.full(3, y[2, 0] - np.float32(1000)), rel=1e-6)
    assert nearest(x, y)[0].dtype == np.float32


# ------------------------------------------------------------------ copies


@given(seeds, st.integers(1, 30), st.integers(1, 150), st.floats(0.001, 0.999))
def test_a_generator_of_training_points_is_found_out(seed, n, m, level):
    rng = np.random.default_rng(seed)
    training, held_out = rng.standard_normal((40, 2)), rng.standard_normal((m, 2))
    found = memorised(training[rng.integers(0, 40, n)], training, held_out, level)
    assert (found.samples, found.share.value, found.share.error) == (0.0, 1.0, 0.0)
    k = max(1, math.floor(level * (m + 1)))
    assert found.chance.value == pytest.approx(k / (m + 1), rel=1e-12)
    assert found.chance.value <= max(level, 1 / (m + 1))


def test_what_is_new_counts_as_a_copy_with_the_chance_of_an_order_statistic():
    """Eq. (15.4): k/(m + 1) on average, Beta(k, m + 1 - k) around it over held-out sets, whatever the law."""
    rng = np.random.default_rng(0)
    training = rng.standard_cauchy((30, 2))
    for m, level in ((9, 0.01), (39, 0.1)):
        runs = [memorised(rng.standard_cauchy((400, 2)), training, rng.standard_cauchy((m, 2)), level)
                for _ in range(500)]  # fmt: skip
        shares, chance = np.array([run.share.value for run in runs]), runs[0].chance
        spread = math.hypot(chance.error, math.sqrt(chance.value * (1 - chance.value) / 400))
        assert_within(shares.mean(), chance.value, spread / math.sqrt(500), n=500)
        k = round(chance.value * (m + 1))
        tails = float(beta(k, m + 1 - k).stats("k")) * (chance.error / spread) ** 4
        assert_spread(shares, spread, kurtosis=tails)


@pytest.mark.recorded("what the solutions of the book say of these seeds")
def test_exercise_3_a_little_noise_hides_a_copy_in_three_dimensions():
    """As soon as it is as far from its original as the k-th nearest of what is new."""
    rng = np.random.default_rng(0)
    training, held_out = rng.standard_normal((400, 3)), rng.standard_normal((400, 3))
    z, limit = rng.standard_normal((50, 3)), np.sort(nearest(held_out, training)[0])[3]
    found = []
    for d in (0.01, 0.03, 0.1):
        moved = training[:50] + d * z
        found.append(memorised(moved, training, held_out).share.value)
        assert found[-1] == np.mean(nearest(moved, training)[0] <= limit)
    assert found[0] == 1 > found[1] > found[2]
    assert found[2] < 0.2


def test_exercise_7_on_a_line_two_thirds_of_the_points_stand_in_pairs():
    """Points that are nearest to each other: a gap is the least of three with the same chance as its neighbours."""
    share = []
    for x in np.random.default_rng(0).random((400, 200, 1)):
        to = nearest(x)[1]
        share.append(np.mean(to[to] == np.arange(200)))
    assert_mean(np.array(share), 2 / 3, bias=0.005)  # of the two ends, where a gap has one neighbour


def test_medians_and_the_share_are_those_of_the_distances():
    training = np.zeros((1, 1))
    held_out, samples = np.arange(1.0, 200.0)[:, None], np.array([[0.5], [2.0], [3.0], [900.0]])
    found = memorised(samples, training, held_out)  # k = 2 of 199: as near as 2
    assert (found.samples, found.held_out, found.share.value) == (2.5, 100.0, 0.5)
    assert found.share.error == pytest.approx(0.25, rel=1e-12)
    assert found.chance.value == 0.01
    assert found.chance.error == pytest.approx(math.sqrt(0.01 * 0.99 / 201), rel=1e-12)


# ------------------------------------------------------------------ told apart or not


@given(seeds, st.integers(2, 4), st.integers(1, 3))
def test_over_all_labellings_the_accuracy_is_chance_exactly(seed, n, dim):
    """Eq. (15.5): of the 2n - 1 others n - 1 are of one's own side, for every set of points."""
    pool = np.random.default_rng(seed).standard_normal((2 * n, dim))
    found = [two_sample_test(pool[list(own)], np.delete(pool, own, axis=0)).value
             for own in itertools.combinations(range(2 * n), n)]  # fmt: skip
    assert np.mean(found) == pytest.approx((n - 1) / (2 * n - 1), rel=1e-12)


@given(seeds, st.integers(2, 12), st.integers(1, 3))
def test_two_sample_accuracy_is_that_of_the_classifier_written_as_loops(seed, n, dim):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((n, dim)), 0.7 + rng.standard_normal((n, dim))
    pool, to = np.concatenate([x, y]), []
    for i, a in enumerate(pool):
        d = np.linalg.norm(pool - a, axis=1)
        d[i] = np.inf
        to.append(int(np.argmin(d)))
    right = np.array([(i < n) == (j < n) for i, j in enumerate(to)])
    pairs = sum((right[i] - right.mean()) * (right[j] - right.mean()) for i, j in enumerate(to) if to[j] == i)
    found = two_sample_test(x, y)
    assert found.value == pytest.approx(right.mean(), rel=1e-14)
    assert found.error == pytest.approx(math.sqrt(right.var() / (2 * n) + pairs / (2 * n) ** 2), rel=1e-9, abs=1e-9)
    assert two_sample_test(y, x).value == two_sample_test(x, y).value


def test_laws_that_do_not_overlap_are_told_apart_and_copies_are_wrong_always():
    x = np.random.default_rng(0).standard_normal((50, 3))
    assert two_sample_test(x, x + 100).value == 1.0
    assert two_sample_test(x, x[::-1]).value == 0.0
    assert two_sample_test(np.zeros((4, 1)), np.zeros((4, 1))).value == 0.5  # nothing to go by


@pytest.mark.parametrize("dim", [1, 2, 20])
def test_two_samples_of_one_law_are_at_chance_with_the_error_that_is_stated(dim):
    rng, n = np.random.default_rng(dim), 60
    runs = [two_sample_test(*rng.standard_normal((2, n, dim))) for _ in range(400)]
    values = np.array([run.value for run in runs])
    assert_within(values.mean(), (n - 1) / (2 * n - 1), values.std() / 20, n=400)
    # without the pairs the error would be √(5/3) = 1.29 times too small for dim 1
    assert_spread(values, [run.error for run in runs])


def test_two_samples_of_laws_that_overlap_state_their_error_too():
    rng, shift = np.random.default_rng(3), np.array([1.5, 0.0])
    runs = [two_sample_test(rng.standard_normal((80, 2)), shift + rng.standard_normal((80, 2))) for _ in range(400)]
    values = np.array([run.value for run in runs])
    assert 0.6 < values.mean() < 0.9
    assert_spread(values, [run.error for run in runs])


# ------------------------------------------------------------------ what nothing depends on


@given(seeds, st.integers(2, 8), st.floats(0.1, 10.0))
def test_rotations_shifts_units_and_orders_change_nothing(seed, n, c):
    rng = np.random.default_rng(seed)
    Q, shift = np.linalg.qr(rng.standard_normal((3, 3)))[0], rng.standard_normal(3)
    x, y, z = rng.standard_normal((3, n, 3))
    a, b, d = (rng.permutation(c * (w @ Q.T + shift)) for w in (x, y, z))
    assert np.sort(nearest(a, b)[0]) == pytest.approx(c * np.sort(nearest(x, y)[0]), rel=1e-9)
    assert two_sample_test(a, b).value == two_sample_test(x, y).value
    before, after = memorised(x, y, z, 0.3), memorised(a, b, d, 0.3)
    assert after.share == before.share
    assert (after.samples, after.held_out) == pytest.approx((c * before.samples, c * before.held_out), rel=1e-9)


@on_every_backend
def test_neighbours_are_the_same_on_every_backend(host):
    x, y, z = np.random.default_rng(1).standard_normal((3, 7, 2, 2))
    X, Y, Z = (host.asarray(a) for a in (x, y, z))
    for found, wanted in zip(nearest(X, Y), nearest(x, y), strict=True):
        np.testing.assert_allclose(host.to_numpy(found), wanted, rtol=1e-14)
    found, wanted = memorised(X, Y, Z), memorised(x, y, z)
    assert (found.share, found.chance) == (wanted.share, wanted.chance)
    assert_close(
        [found.samples, found.held_out], [wanted.samples, wanted.held_out], 1e-14
    )  # a GPU sums in another order
    assert two_sample_test(X, Y).value == two_sample_test(x, y).value
    assert two_sample_test(X, Y).error == pytest.approx(two_sample_test(x, y).error, rel=1e-12)


@on_every_device
def test_neighbours_need_no_float64(host):
    x, y, z = (host.asarray(a, dtype="float32") for a in np.random.default_rng(2).standard_normal((3, 9, 2)))
    assert nearest(x, y)[0].dtype == host.xp.float32
    assert 0 <= memorised(x, y, z).share.value <= 1
    assert 0 <= two_sample_test(x, y).value <= 1


# ------------------------------------------------------------------ what is refused


def test_rows_that_have_no_distance_are_refused():
    x = np.ones((4, 2))
    for bad, error, words in (
        (np.ones((4, 3)), ValueError, r"alike in shape.*\(4, 2\) and y \(4, 3\)"),
        (np.ones((4, 2), "float32"), TypeError, "y is float32"),
        (np.ones(4), ValueError, "at least 2 axes"), (np.ones((0, 2)), ValueError, "empty"),
        (np.full((4, 2), np.nan), ValueError, "not finite"), ([[1.0, 2.0]], TypeError, "list"),
    ):  # fmt: skip
        for ask in (nearest, two_sample_test):
            with pytest.raises(error, match=words):
                ask(x, bad)
    with pytest.raises(ValueError, match="no other row"):
        nearest(x[:1])
    for y in (x[:3], x[:1]):
        with pytest.raises(ValueError, match=r"of one size, at least 2.*got 1 and"):
            two_sample_test(x[:1], y)
    with pytest.raises(ValueError, match="got 4 and 3"):
        two_sample_test(x, x[:3])
    with pytest.raises(ValueError, match=r"held_out \(1, 3\)"):
        memorised(x, x, np.ones((1, 3)))
    for level in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"in \(0, 1\)"):
            memorised(x, x, x, level)
