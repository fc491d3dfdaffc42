"""Exactness at the edges: against 60-digit arithmetic, beyond overflow, in float32, in a million dimensions.

tests/oracles/score_mpmath.json is made by the script beside it.
"""

import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import GaussianMixture
from refscore.arrays import long_sum, row_squares
from tests.oracles.close import assert_close
from tests.oracles.strategies import KINDS, random_mixture, seeds

U = float(np.finfo(np.float64).eps) / 2
TABLE = json.loads((Path(__file__).parents[1] / "oracles" / "score_mpmath.json").read_text(encoding="utf-8"))
MIXTURES = {
    name: GaussianMixture(*(np.asarray(p, dtype="float64") for p in parameters))
    for name, parameters in TABLE["mixtures"].items()
}


def condition(p, alpha, sigma):
    """The largest condition number of a diffused full covariance; 1 where no axes need to be found."""
    if p.covariances.ndim < 3:
        return 1.0
    S = alpha**2 * p.variances + sigma**2
    return float(np.max(S.max(axis=1) / S.min(axis=1)))


@pytest.mark.parametrize("name", MIXTURES)
def test_score_and_density_are_exact_in_the_tails(name):
    p = MIXTURES[name]
    rows = [row for row in TABLE["rows"] if row["mixture"] == name]
    assert rows
    for row in rows:
        a, s, x = row["alpha"], row["sigma"], np.asarray([row["x"]])
        expected, log_p = np.asarray(row["score"]), row["log_p"]
        # u κ: what a rounding of the diffused covariance does. Between two narrow and distant modes the log
        # odds are a difference of squares |x - m|²/σ² up to 9e8.
        allowed = 1e-7 if row["between"] else 1e-12 + 10 * U * condition(p, a, s)
        for score in (p.diffuse(a, s).score(x), p.score(x, a, s), p.score(x, np.asarray([a]), np.asarray([s]))):
            error = np.linalg.norm((score[0] - expected) / np.abs(expected).max())
            assert error <= allowed * np.linalg.norm(expected / np.abs(expected).max()), row
        for value in (p.diffuse(a, s).log_prob(x)[0], p.log_prob(x, a, s)[0]):
            if math.isinf(log_p):
                assert value == -math.inf, row
            else:
                slack = 1e-12 + 10 * U * condition(p, a, s)
                assert abs(value - log_p) <= slack * (1 + abs(log_p)), row


def relative(found, expected, size):
    return float(np.linalg.norm((found - np.asarray(expected)) / size))


@pytest.mark.parametrize("name", MIXTURES)
def test_second_derivatives_and_posteriors_are_exact_in_the_tails(name):
    """Relative to the terms that are summed: tr S⁻¹ and |g - s|² for derivatives, E|x₀|² for the posterior."""
    p = MIXTURES[name]
    upper = np.triu_indices(p.dim)
    for row in (row for row in TABLE["rows"] if row["mixture"] == name):
        a, s, x = row["alpha"], row["sigma"], np.asarray([row["x"]])
        allowed = 1e-7 if row["between"] else 1e-12 + 10 * U * condition(p, a, s)
        v = np.asarray([[1.0, -2.0, 0.5]])[:, : p.dim]
        S = np.broadcast_to(a**2 * p.variances + s**2, p.means.shape)
        size = row["divergence"] + 2 * float(p.responsibilities(x, a, s)[0] @ np.sum(1 / S, axis=1))
        for q, level in ((p.diffuse(a, s), ()), (p, (a, s)), (p, (np.asarray([a]), np.asarray([s])))):
            assert relative(q.divergence(x, *level), row["divergence"], size) <= allowed, row
            assert relative(q.score_jvp(x, v, *level)[0], row["jvp"], size) <= 3 * allowed, row  # |v| <= 2.3
        if name.startswith("points") and np.linalg.norm(x - a * p.means, axis=1).max() > s / math.sqrt(U):
            continue  # too far to tell modes of one covariance apart by their squares, as the docstring says
        cov = np.zeros((p.dim, p.dim))
        cov[upper] = cov.T[upper] = row["cov"]
        trace, largest = float(np.trace(cov)), float(np.abs(row["mean"]).max())
        spread = math.hypot(largest, math.sqrt(trace))
        assert relative(p.posterior_mean(x, a, s)[0], row["mean"], spread) <= 2 * allowed, row
        if trace > 0:
            assert relative(p.posterior_cov(x, a, s)[0], cov, trace) <= allowed, row
            assert relative(p.posterior_variance(x, a, s), trace, trace) <= allowed, row


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kind", KINDS)
def test_of_one_gaussian_no_second_order_quantity_knows_how_far_x_is(kind, dtype):
    """Also of three that are the same, where no component has all."""
    C = {"full": [[0.8, 0.3], [0.3, 0.5]], "diagonal": [0.8, 0.5], "isotropic": 0.5}[kind]
    divergence = {"full": -1.3 / 0.31, "diagonal": -3.25, "isotropic": -4.0}[kind]
    u = float(np.finfo(dtype).eps)
    for weights in ([1.0], [0.2, 0.3, 0.5]):
        K = len(weights)
        p = GaussianMixture(*(np.asarray(a, dtype=dtype) for a in (weights, [[0.0, 0.0]] * K, [C] * K)))
        r = np.logspace(0, 150 if dtype == "float64" else 18, 31)
        x = (r[:, None] * np.asarray([1.0, -0.7])).astype(dtype)
        v = np.ones_like(x)
        assert p.divergence(x) == pytest.approx(np.full(31, divergence), rel=8 * u)
        for found in (p.score_jvp(x, v), p.posterior_cov(x, 0.5, 0.3), p.posterior_variance(x, 0.5, 0.3)):
            assert np.abs(found - found[:1]).max() <= 8 * u * np.abs(found).max()


@given(seeds, st.integers(1, 3), st.sampled_from(KINDS), st.floats(0.0, 18.0))
def test_second_order_quantities_of_float32_are_those_of_float64_far_out(seed, dim, kind, distance):
    narrow = random_mixture(seed, dim, 3, kind, low=0.3)
    narrow = GaussianMixture(*(a.astype("float32") for a in (narrow.weights, narrow.means, narrow.covariances)))
    weights = narrow.weights.astype("float64")
    wide = GaussianMixture(
        weights / weights.sum(), narrow.means.astype("float64"), narrow.covariances.astype("float64")
    )
    x = (10.0**distance * np.random.default_rng(seed).standard_normal((20, dim))).astype("float32")
    decided = wide.responsibilities(x.astype("float64"), 0.5, 0.3).max(axis=1) == 1  # between modes: the odds decide
    decided &= narrow.responsibilities(x, 0.5, 0.3).max(axis=1) == 1
    for name in ("divergence", "posterior_cov", "posterior_variance"):
        out, exact = (getattr(p, name)(y, 0.5, 0.3)[decided] for p, y in ((narrow, x), (wide, x.astype("float64"))))
        assert out.dtype == np.float32
        assert_close(out, exact, 1e-5 * np.abs(exact).max(initial=0.0), name)  # condition 7, as above


def test_an_unseen_mode_adds_nothing_however_far_its_posterior_is():
    """float32: the other mode's squared distance overflows, its responsibility is 0."""
    p = GaussianMixture(*(np.asarray(a, dtype="float32") for a in ([0.5, 0.5], [[0.0], [0.0]], [1.0, 1e-6])))
    x = np.asarray([[1e25]], dtype="float32")
    assert p.posterior_variance(x, 0.5, 0.3)[0] == pytest.approx(0.09 / 0.34, rel=1e-6)
    assert p.posterior_cov(x, 0.5, 0.3)[0, 0, 0] == pytest.approx(0.09 / 0.34, rel=1e-6)
    assert p.divergence(x, 0.5, 0.3)[0] == pytest.approx(-1 / 0.34, rel=1e-6)
    assert p.score_jvp(x, 1e5 * x / x, 0.5, 0.3)[0, 0] == pytest.approx(-1e5 / 0.34, rel=1e-6)


def test_the_table_covers_the_promised_domain():
    rows = TABLE["rows"]
    assert min(row["sigma"] for row in rows) == 1e-8
    assert max(row["sigma"] for row in rows) == 1e5
    assert max(np.linalg.norm(row["x"]) for row in rows) == pytest.approx(1e150)
    assert min(w for p in MIXTURES.values() for w in p.weights if w > 0) == 1e-300
    assert {p.dim for p in MIXTURES.values()} == {1, 2, 3}
    assert {p.covariances.ndim for p in MIXTURES.values()} == {1, 2, 3}
    assert sum(row["between"] for row in rows) >= 9
    assert sum(math.isinf(row["log_p"]) for row in rows) >= 3


# ------------------------------------------------------------------ beyond overflow


@given(seeds, st.integers(1, 3), st.sampled_from(KINDS), st.floats(0.0, 150.0), st.floats(-120.0, 5.0))
def test_no_distance_and_no_noise_makes_a_score_infinite(seed, dim, kind, distance, noise):
    p = random_mixture(seed, dim, 3, kind)
    p = GaussianMixture(p.weights, p.means, 0 * p.covariances)  # K points: S = σ² I
    x = 10.0**distance * np.random.default_rng(seed).standard_normal((4, dim))
    s = 10.0**noise
    score, log_p = p.score(x, 1.0, s), p.log_prob(x, 1.0, s)
    assert np.all(np.isfinite(score))
    assert not np.any(np.isnan(log_p))
    assert np.all(np.isfinite(p.posterior_mean(x, 1.0, s)))
    assert np.sum(p.responsibilities(x, 1.0, s), axis=1) == pytest.approx(1.0, abs=1e-14)
    # Where the nearest point's square overflows, log p is -inf and nothing else is.
    log_square = np.log10(np.min(np.linalg.norm(x[:, None] - p.means, axis=2), axis=1)) - noise
    assert np.all(np.isneginf(log_p[log_square > 154.4]))
    assert np.all(np.isfinite(log_p[log_square < 153.9]))


def test_a_score_beyond_the_largest_number_saturates_in_its_direction():
    p = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.zeros(1))
    x = 1e150 * np.asarray([[0.6, -0.8], [-1.0, 0.0]])
    score = p.score(x, 1.0, 1e-100)  # the true one is of size 1e350
    assert np.all(np.isfinite(score))
    size = np.linalg.norm(score / 1e300, axis=1)
    assert np.all(size > 1e-2 * np.finfo(np.float64).max / 1e300)
    assert score / 1e300 / size[:, None] == pytest.approx(-x / 1e150, abs=1e-14)
    assert np.all(np.isneginf(p.log_prob(x, 1.0, 1e-100)))


@given(st.floats(153.5, 160.0), st.integers(1, 3))
def test_log_density_turns_into_minus_infinity_without_a_gap(exponent, dim):
    p = GaussianMixture(np.ones(1), np.zeros((1, dim)), np.ones(1))
    x = np.full((1, dim), 10.0**exponent / math.sqrt(dim))
    half_square = (10.0 ** (exponent - 154.0)) ** 2 / 2 * 1e-1  # of -log p in units of 1e309
    value = p.log_prob(x)[0]
    if half_square > 0.1797693134862316 * (1 + 1e-12):
        assert value == -math.inf
    elif half_square < 0.1797693134862315 * (1 - 1e-12):
        assert value / 1e308 == pytest.approx(-half_square * 10, rel=1e-12)


def test_nan_in_a_row_stays_in_that_row():
    p = random_mixture(3, 2, 3)
    x = np.asarray([[0.5, 1.0], [np.nan, 0.0], [1.0, -1.0]])
    clean = x[[0, 2]]
    with np.errstate(invalid="ignore"):
        for method in (p.score, p.log_prob, p.divergence, p.responsibilities):
            out = method(x, 0.5, 0.3)
            assert np.all(np.isnan(out[1]))
            assert out[[0, 2]] == pytest.approx(method(clean, 0.5, 0.3), rel=1e-13)


# ------------------------------------------------------------------ float32


@given(seeds, st.integers(1, 4), st.integers(1, 4), st.sampled_from(KINDS), st.floats(-3.0, 3.0))
def test_float32_agrees_with_float64(seed, dim, K, kind, exponent):
    wide = random_mixture(seed, dim, K, kind, low=0.3)
    narrow = GaussianMixture(*(a.astype("float32") for a in (wide.weights, wide.means, wide.covariances)))
    # The same numbers in both precisions; weights need summing to one again.
    weights = narrow.weights.astype("float64")
    C = narrow.covariances.astype("float64")
    wide = GaussianMixture(weights / weights.sum(), narrow.means.astype("float64"), C)
    s = float(np.float32(10.0**exponent))
    rng = np.random.default_rng(seed)
    x = (wide.sample(rng, 64) + s * rng.standard_normal((64, dim))).astype("float32")
    out, exact = narrow.score(x, 1.0, s), wide.score(x.astype("float64"), 1.0, s)
    assert out.dtype == np.float32
    # 40 roundings of 6e-8: log odds of a few dozen nats, covariances of condition up to 7
    assert np.sqrt(np.mean((out - exact) ** 2)) <= 2e-6 * np.sqrt(np.mean(exact**2))
    log_p = wide.log_prob(x.astype("float64"), 1.0, s)
    assert np.abs(narrow.log_prob(x, 1.0, s) - log_p).max() <= 2e-6 * (1 + np.abs(log_p).max())


def test_float32_keeps_its_own_extremes_finite():
    p = GaussianMixture(*(np.asarray(a, dtype="float32") for a in ([0.5, 0.5], [[-1.0], [1.0]], [0.0, 0.0])))
    x = np.asarray([[1e18], [-1e10], [3.0], [1e-3]], dtype="float32")
    for s in (1e-15, 1e-8, 1.0, 1e8):
        score, log_p = p.score(x, 1.0, s), p.log_prob(x, 1.0, s)
        assert score.dtype == log_p.dtype == np.float32
        assert np.all(np.isfinite(score))
        assert not np.any(np.isnan(log_p))


# ------------------------------------------------------------------ many dimensions, many terms


@pytest.mark.parametrize("n", [0, 1, 16, 17, 100, 1023, 30_000])
def test_a_long_sum_is_as_exact_as_its_last_additions(any_backend, n):
    """Over any axis, in float32, within a few roundings of the exact sum; one row after another: 1e-5 of it."""
    terms = np.random.default_rng(n).random((2, n, 3)).astype("float32")
    for axis in (0, 1, 2):
        a = any_backend.asarray(np.moveaxis(terms, 1, axis), dtype="float32")
        exact = np.sum(terms.astype("float64"), axis=1)
        for found in (long_sum(a, axis=axis), long_sum(a, axis=axis - 3)):
            assert str(found.dtype).endswith("float32")
            assert np.abs(any_backend.to_numpy(found) - exact).max() <= 2.5e-7 * n / 2
    for order in ("C", "F"):  # columns as rows in memory
        rows = np.asarray(terms[0].T, order=order)
        squares = np.sum(rows.astype("float64") ** 2, axis=1)
        assert np.abs(row_squares(rows) - squares).max() <= 2.5e-7 * n / 3


@pytest.mark.parametrize("D", [1_000, 10_000, 100_000, 1_000_000])
@pytest.mark.parametrize("kind", ["isotropic", "diagonal"])
def test_log_odds_in_float32_keep_their_promise_in_many_dimensions(kind, D):
    """Two modes one deviation apart, so that only rounding errs: by u |x - m|²/σ² root mean square."""
    rng = np.random.default_rng(D)
    C = np.ones((1, D)) if kind == "isotropic" else rng.uniform(0.5, 2, (1, D))
    means = np.stack([np.zeros(D), np.sqrt(C[0] / D)]).astype("float32")
    variances = np.repeat(C.astype("float32"), 2, axis=0)
    p = GaussianMixture(np.full(2, 0.5, "float32"), means, variances[:, 0] if kind == "isotropic" else variances)
    x = (np.sqrt(C) * rng.standard_normal((3 if D > 100_000 else 20, D))).astype("float32")
    r = p.responsibilities(x).astype("float64")
    wide, m, v = x.astype("float64"), means.astype("float64"), variances[0].astype("float64")
    exact = np.sum((m[0] - m[1]) * (wide - 0.5 * (m[0] + m[1])) / v, axis=1)
    error = (np.log(r[:, 0] / r[:, 1]) - exact) / (2.0**-24 * np.sum((wide - m[0]) ** 2 / v, axis=1))
    assert np.sqrt(np.mean(error**2)) <= 1.5  # of 3 or 20 samples; .7 of many
    assert np.abs(error).max() <= 4
    if D <= 10_000:  # second derivatives and the posterior sum over D, too
        doubled = GaussianMixture(*(a.astype("float64") for a in (p.weights, p.means, p.covariances)))
        assert p.divergence(x, 0.8, 0.5) == pytest.approx(doubled.divergence(wide, 0.8, 0.5), rel=1e-6)
        assert p.posterior_variance(x, 0.8, 0.5) == pytest.approx(doubled.posterior_variance(wide, 0.8, 0.5), rel=1e-6)
        along, exact = p.score_jvp(x, x, 0.8, 0.5), doubled.score_jvp(wide, wide, 0.8, 0.5)
        assert np.abs(along - exact).max() <= 1e-5 * np.abs(exact).max()


def test_a_hundred_thousand_equal_components_are_one_in_float32():
    K = 100_000
    p = GaussianMixture(np.full(K, 1 / K, "float32"), np.zeros((K, 1), "float32"), np.full(K, 0.5, "float32"))
    one = GaussianMixture(*(np.asarray(a, "float32") for a in ([1.0], [[0.0]], [0.5])))
    x = np.asarray([[0.3], [-1.0]], "float32")
    assert p.log_prob(x) == pytest.approx(one.log_prob(x), rel=3e-6)  # log 1e-5 in float32
    assert p.score(x) == pytest.approx(one.score(x), rel=1e-6)
    assert p.divergence(x) == pytest.approx(one.divergence(x), rel=1e-6)
    assert np.sum(p.responsibilities(x), axis=1, dtype="float64") == pytest.approx(1.0, rel=1e-6)


def test_a_million_dimensions_take_memory_in_proportion():
    """O(B K D) for diagonal covariances, nothing D × D: five arrays (K, D, B) at most are alive at a time."""
    K, D, B = 3, 1_000_000, 2
    rng = np.random.default_rng(0)
    weights = np.asarray([0.2, 0.3, 0.5])
    means = rng.standard_normal((K, D))
    variances = 1 + rng.random((K, D))
    x = means[:B] + rng.standard_normal((B, D))
    tracemalloc.start()
    try:
        p = GaussianMixture(weights, means, variances)
        score = p.score(x, 0.9, 0.5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    S = 0.81 * variances[:B] + 0.25
    expected = -(x - 0.9 * means[:B]) / S  # so far apart that r is 0 or 1
    assert np.abs(score - expected).max() <= 1e-12 * np.abs(expected).max()
    assert peak <= 5 * K * D * B * 8
