"""Gaussian mixtures: what they refuse, shapes, back ends, dtypes, sampling."""

import importlib.util
import math
import os
import re
import subprocess
import sys
import warnings

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import VP, GaussianMixture
from refscore.laws.mixture import AmbiguousCovarianceWarning, transposed
from refscore.laws.posterior import component, linear_posterior, observe
from refscore.noise.prior import prior_mismatch
from tests.oracles.book import ROOT
from tests.oracles.statistics import assert_law, assert_mean
from tests.oracles.strategies import KINDS, few, mixtures, random_mixture, seeds

W, M, C = np.asarray([0.4, 0.6]), np.asarray([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]), np.ones((2, 3))
METHODS = ("log_prob", "score", "responsibilities", "divergence", "posterior_mean", "posterior_cov",
           "posterior_variance")  # fmt: skip


def moved(p, backend, dtype="float64"):
    return GaussianMixture(*(backend.asarray(a, dtype=dtype) for a in (p.weights, p.means, p.covariances)))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 5), (2, 100), (8, 9), (9, 8), (100, 2)])
def test_a_transpose_is_a_copy_row_by_row(shape):
    x = np.arange(float(math.prod(shape))).reshape(shape)
    got = transposed(x)
    assert np.array_equal(got, x.T)
    assert got.flags.c_contiguous
    assert not np.shares_memory(got, x)


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("index", "name"), [(0, "weights"), (1, "means"), (2, "covariances")])
def test_values_that_are_not_finite_are_located_and_counted(bad, index, name):
    parts = [np.full(3, 1 / 3), np.ones((3, 2)), np.ones((3, 2))]
    parts[index].reshape(-1)[1] = bad
    place = {"weights": "weights[1]", "means": "means[0, 1]", "covariances": "covariances[0, 1]"}[name]
    with pytest.raises(ValueError, match=re.escape(place)) as caught:
        GaussianMixture(*parts)
    assert "1 values that are not finite" in str(caught.value)
    parts[index].reshape(-1)[-1] = bad
    with pytest.raises(ValueError, match=f"{name} holds 2 values"):
        GaussianMixture(*parts)


@pytest.mark.parametrize(
    "bad",
    [
        [1.0, 0.0], (1.0, 0.0), 1.0, None, "numbers", np.asarray([1, 0]), np.asarray([True, False]),
        np.asarray([1.0, 0.0], dtype="complex128"), np.asarray([1.0, 0.0], dtype="float16"),
        np.asarray([1.0, 0.0], dtype=object), np.asarray(["1", "0"]), np.asarray([1.0, 0.0], dtype="longdouble"),
    ],
    ids=lambda b: f"{type(b).__name__}-{getattr(b, 'dtype', '')}",
)  # fmt: skip
@pytest.mark.parametrize(("index", "name"), [(0, "weights"), (1, "means"), (2, "covariances")])
def test_only_floating_arrays_are_taken(bad, index, name):
    parts = [W, M, C]
    parts[index] = bad
    with pytest.raises(TypeError, match=name):
        GaussianMixture(*parts)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_arrays_of_unlike_dtype_library_or_device_are_refused(index):
    def parts_with(change):
        return [change(a) if i == index else a for i, a in enumerate((W, M, C))]

    with pytest.raises(TypeError, match=r"float32.*float64|float64.*float32"):
        GaussianMixture(*parts_with(lambda a: a.astype("float32")))
    with pytest.raises(TypeError, match=r"numpy.*strict|strict.*numpy"):
        GaussianMixture(*parts_with(strict.asarray))
    on = {i: strict.Device("device1" if i == index else "CPU_DEVICE") for i in range(3)}
    with pytest.raises(TypeError, match="device1"):
        GaussianMixture(*(strict.asarray(a, device=on[i]) for i, a in enumerate((W, M, C))))


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((2,), (3,), (2,)), r"means must have 2 axes"),
        (((2,), (2, 3, 1), (2,)), r"means must have 2 axes"),
        (((2, 1), (2, 3), (2,)), r"weights must have 1 axes"),
        (((), (2, 3), (2,)), r"weights must have 1 axes"),
        (((3,), (2, 3), (2,)), r"weights must have shape \(2,\)"),
        (((1,), (2, 3), (2,)), r"weights must have shape \(2,\)"),
        (((2,), (2, 3), ()), r"covariances must have shape \(2, 3, 3\)"),
        (((2,), (2, 3), (1,)), r"covariances must have shape"),
        (((2,), (2, 3), (3,)), r"covariances must have shape"),
        (((2,), (2, 3), (3, 2)), r"covariances must have shape"),
        (((2,), (2, 3), (2, 1)), r"covariances must have shape"),
        (((2,), (2, 3), (3, 3)), r"covariances must have shape"),
        (((2,), (2, 3), (2, 3, 2)), r"covariances must have shape"),
        (((2,), (2, 3), (1, 3, 2)), r"covariances must have shape .*\(1, 3, 3\) \(one full for all\)"),
        (((2,), (2, 3), (1, 3)), r"covariances must have shape"),
        (((2,), (2, 3), (2, 3, 3, 1)), r"covariances must have shape"),
        (((0,), (0, 3), (0,)), r"at least one component"),
        (((2,), (2, 0), (2, 0)), r"at least one component and one coordinate"),
    ],
)
def test_shapes_that_do_not_fit_are_named(shapes, message):
    with pytest.raises(ValueError, match=message):
        GaussianMixture(*(np.ones(shape) for shape in shapes))


def test_weights_must_be_probabilities():
    with pytest.raises(ValueError, match=r"must not be negative.*-0\.1"):
        GaussianMixture(np.asarray([-0.1, 1.1]), M, C)
    with pytest.raises(ValueError, match=r"must sum to 1.*0\.9.*divide"):
        GaussianMixture(np.asarray([0.4, 0.5]), M, C)
    with pytest.raises(ValueError, match="must sum to 1"):
        GaussianMixture(np.asarray([0.4, 0.6 + 2e-8]), M, C)
    GaussianMixture(np.asarray([0.4, 0.6 + 5e-9]), M, C)
    GaussianMixture(np.asarray([0.0, 1.0]), M, C)
    third = np.full(3, 1 / 3, dtype="float32")
    GaussianMixture(third, np.zeros((3, 1), dtype="float32"), np.ones(3, dtype="float32"))
    with pytest.raises(ValueError, match="must sum to 1"):
        GaussianMixture(third * np.float32(1.0001), np.zeros((3, 1), dtype="float32"), np.ones(3, dtype="float32"))


def test_covariances_must_be_symmetric():
    S = np.stack([np.eye(3), np.diag([1.0, 2.0, 3.0])])
    S[1, 0, 2] = 0.5
    with pytest.raises(ValueError, match=r"covariances\[1\] is not symmetric.*0\.5"):
        GaussianMixture(W, M, S)
    S[1, 0, 2] = 1e-9  # 1e-9 of 3: above 1e-10
    with pytest.raises(ValueError, match="not symmetric"):
        GaussianMixture(W, M, S)
    S[1, 0, 2] = 1e-11
    GaussianMixture(W, M, S)
    with pytest.raises(ValueError, match="not symmetric"):  # relative to the matrix, however small
        GaussianMixture(W, M, 1e-12 * np.asarray([np.eye(3), [[1, 0.1, 0], [0, 1, 0], [0, 0, 1]]]))


@given(seeds, st.integers(2, 4))
def test_an_indefinite_covariance_is_refused_with_its_smallest_eigenvalue(seed, dim):
    p = random_mixture(seed, dim, 2, low=0.5)
    lowest = -0.25
    Q = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, dim)))[0]
    S = p.covariances.copy()
    S[1] = (Q * np.linspace(lowest, 1.0, dim)) @ Q.T
    S[1] = 0.5 * (S[1] + S[1].T)
    with pytest.raises(ValueError, match=r"covariances\[1\] is indefinite: its smallest eigenvalue is -0\.(25|249)"):
        GaussianMixture(p.weights, p.means, S)


@pytest.mark.parametrize("S", [np.asarray([1.0, -0.5]), np.asarray([[1.0, 1.0, 1.0], [1.0, -0.5, 1.0]])])
def test_a_negative_variance_is_refused_by_value(S):
    with pytest.raises(ValueError, match=r"must not be negative.*-0\.5"):
        GaussianMixture(W, M, S)


@pytest.mark.parametrize("level", [math.nan, math.inf, -1.0, -1e-300])
def test_diffuse_refuses_impossible_levels(level):
    p = GaussianMixture(W, M, C)
    with pytest.raises(ValueError, match="alpha must be finite and not negative"):
        p.diffuse(level, 1.0)
    with pytest.raises(ValueError, match="sigma must be finite and not negative"):
        p.diffuse(1.0, level)


@pytest.mark.parametrize("shape", [(), (3,), (2,), (5, 2), (5, 4), (3, 5), (1, 5, 3), (5, 3, 1)])
def test_points_of_another_shape_are_refused(shape):
    p = GaussianMixture(W, M, C)
    x = np.zeros(shape)
    for name in METHODS:
        with pytest.raises(ValueError, match=r"x must have shape \(B, 3\)") as caught:
            getattr(p, name)(x, 1.0, 1.0)
        assert str(shape) in str(caught.value)
    with pytest.raises(ValueError, match=r"x must have shape \(B, 3\)"):
        p.score_jvp(x, x, 1.0, 1.0)


def test_a_mixture_is_frozen_and_tells_what_it_is():
    p = GaussianMixture(W, M, C)
    with pytest.raises(AttributeError):
        p.weights = W
    assert (p.dim, p.n_components) == (3, 2)
    assert "2 components in 3-D, diagonal" in repr(p)
    assert "isotropic" in repr(GaussianMixture(W, M, C[:, 0]))
    assert "full" in repr(GaussianMixture(W, M, np.stack([np.eye(3)] * 2)))
    assert GaussianMixture(W, M, C[:, 0]).variances.shape == (2, 1)
    assert p.variances is p.covariances
    full = random_mixture(0, 3, 2)
    assert full.variances == pytest.approx(np.linalg.eigvalsh(full.covariances), rel=1e-12)


# ------------------------------------------------------------------ one covariance for all components

SHARED = np.asarray([[0.5, 0.1], [0.1, 0.4]])
PAIR = (np.asarray([0.4, 0.6]), np.asarray([[0.0, 1.0], [3.0, -1.0]]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("C", [SHARED, [[0.5, 0.1], [0.1, 0.5]], np.eye(2), [[1.0, 2.0], [2.0, 4.0]]], ids=str)
def test_what_may_be_one_covariance_or_rows_of_variances_is_warned_of(C, dtype):
    parts = [np.asarray(a, dtype) for a in (*PAIR, C)]
    with pytest.warns(
        AmbiguousCovarianceWarning, match=re.escape("covariances[None, ...], of shape (1, 2, 2)")
    ) as seen:
        p = GaussianMixture(*parts)
    assert "covariances[:, :, None] * eye(2)" in str(seen[0].message)
    assert seen[0].filename == __file__
    x = np.asarray([[0.3, 0.2], [1.0, -1.0]], dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p.diffuse(0.5, 0.3)  # asked once is enough
        rows = GaussianMixture(parts[0], parts[1], parts[2][:, :, None] * np.eye(2, dtype=dtype))
    assert p.score(x, 0.5, 0.3) == pytest.approx(rows.score(x, 0.5, 0.3), rel=1e-5)  # and read as they were
    assert "diagonal" in repr(p)


@pytest.mark.parametrize(
    ("K", "C"),
    [
        (2, [[0.5, 0.1], [0.2, 0.4]]),  # not symmetric
        (2, [[0.1, 0.5], [0.5, 0.1]]),  # indefinite
        (2, np.ones((2, 2))), (3, np.full((3, 3), 0.25)), (2, np.zeros((2, 2))),  # all alike
        (3, [[0.5, 0.1]] * 3), (2, [0.5, 0.1]), (2, [SHARED] * 2), (2, [SHARED]), (1, [[0.5]]), (2, [[0.5], [0.5]]),
    ],
)  # fmt: skip
def test_what_is_not_ambiguous_is_not_warned_of(K, C):
    covariances = np.asarray(C)
    D = covariances.shape[-1] if covariances.ndim > 1 else 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GaussianMixture(np.full(K, 1 / K), np.zeros((K, D)), covariances)


def test_a_shared_covariance_is_the_same_one_for_every_component(any_backend):
    """Of shape (1, D, D): everything that reads covariances sees K of them."""
    one, each = (
        GaussianMixture(*(any_backend.asarray(a, "float32") for a in (*PAIR, C))) for C in ([SHARED], [SHARED] * 2)
    )
    assert "full" in repr(one)
    x = any_backend.asarray([[0.3, 0.2], [1.0, -1.0]], "float32")
    H, y, R = (any_backend.asarray(a, "float32") for a in ([[1.0, 0.5]], [0.3], [[0.1]]))
    sde, same = VP(), any_backend.to_numpy
    for name in METHODS:
        assert np.array_equal(same(getattr(one, name)(x, 0.5, 0.3)), same(getattr(each, name)(x, 0.5, 0.3))), name
    assert np.array_equal(same(one.score_jvp(x, x, 0.5, 0.3)), same(each.score_jvp(x, x, 0.5, 0.3)))
    assert np.array_equal(same(one.sample(any_backend.rng(0), 9)), same(each.sample(any_backend.rng(0), 9)))
    for make in (
        lambda p: p, lambda p: p.diffuse(0.5, 0.3), lambda p: component(p, 1), lambda p: observe(p, H, R),
        lambda p: linear_posterior(p, H, y, R),
    ):  # fmt: skip
        a, b = make(one), make(each)
        assert a.covariances.shape == b.covariances.shape
        assert np.array_equal(same(a.covariances), same(b.covariances))
    assert prior_mismatch(one, sde) == prior_mismatch(each, sde)
    assert one.least_variance == each.least_variance


# ------------------------------------------------------------------ shapes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("D", [1, 2])
@pytest.mark.parametrize("B", [0, 1, 4])
def test_shapes_are_what_the_first_lines_say(kind, K, D, B):
    p = random_mixture(0, D, K, kind)
    x = np.ones((B, D))
    expected = {"log_prob": (B,), "score": (B, D), "responsibilities": (B, K), "divergence": (B,),
                "posterior_mean": (B, D), "posterior_cov": (B, D, D), "posterior_variance": (B,)}  # fmt: skip
    for level in (0.5, np.full(1, 0.5), np.full(B, 0.5)):
        for name in METHODS:
            assert getattr(p, name)(x, level, level).shape == expected[name], name
        for N in ((), (1,), (D,), (5,)):
            assert p.score_jvp(x, np.ones((*N, B, D)), level, level).shape == (*N, B, D)
    for name in ("log_prob", "score", "responsibilities", "divergence"):
        assert getattr(p, name)(x).shape == expected[name]
    assert p.sample(np.random.default_rng(0), B).shape == (B, D)


# ------------------------------------------------------------------ back ends and dtypes


@few
@given(seed=seeds, dim=st.integers(1, 4), K=st.integers(1, 4), kind=st.sampled_from(KINDS))
def test_every_backend_gives_the_same_numbers(backend, seed, dim, K, kind):
    """Also that nothing writes into its arguments: one back end's arrays are read-only."""
    p = random_mixture(seed, dim, K, kind)
    rng = np.random.default_rng(seed)
    x, v, u = 2 * rng.standard_normal((6, dim)), rng.standard_normal((6, dim)), rng.standard_normal((2, 6, dim))
    a, s = rng.uniform(0.2, 1, 6), rng.uniform(0.2, 2, 6)
    q = moved(p, backend)
    X, V, N, A, S = (backend.asarray(y) for y in (x, v, u, a, s))
    for levels, moved_levels in (((0.7, 0.4), (0.7, 0.4)), ((a, s), (A, S)), ((a[:1], s[:1]), (A[:1], S[:1]))):
        for name in METHODS:
            expected = getattr(p, name)(x, *levels)
            out = backend.to_numpy(getattr(q, name)(X, *moved_levels))
            assert np.abs(out - expected).max() <= 1e-12 * (1 + np.abs(expected).max()), name
        for tangent, moved_tangent in ((v, V), (u, N)):
            expected = p.score_jvp(x, tangent, *levels)
            out = backend.to_numpy(q.score_jvp(X, moved_tangent, *moved_levels))
            assert np.abs(out - expected).max() <= 1e-12 * (1 + np.abs(expected).max())
    d = q.diffuse(0.5, 0.3)
    assert backend.to_numpy(d.covariances) == pytest.approx(p.diffuse(0.5, 0.3).covariances, rel=1e-15, abs=1e-15)
    ours, theirs = p.sample(np.random.default_rng(5), 50), backend.to_numpy(q.sample(backend.rng(5), 50))
    if kind != "full":
        assert theirs == pytest.approx(ours, rel=1e-12, abs=1e-12)
        return
    # |z| of each sample, if it is of component k: the signs of eigenvectors are each library's own
    ours, theirs = (np.sqrt(np.einsum("nkd,kde,nke->nk", d, np.linalg.inv(p.covariances), d)) for d in (
        x[:, None, :] - p.means for x in (ours, theirs)
    ))  # fmt: skip
    assert np.all(np.min(np.abs(ours - theirs), axis=1) <= 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_stays_float32(any_backend, kind):
    p = moved(random_mixture(2, 3, 2, kind), any_backend, "float32")
    x = any_backend.asarray(np.random.default_rng(0).standard_normal((5, 3)), dtype="float32")
    v = any_backend.asarray(np.ones((2, 5, 3)), dtype="float32")
    t = any_backend.asarray(np.full(5, 0.5), dtype="float32")
    narrow = x.dtype
    for level in (0.5, t, t[:1]):
        for name in METHODS:
            assert getattr(p, name)(x, level, level).dtype == narrow, name
        assert p.score_jvp(x, v, level, level).dtype == narrow
    assert p.score(x).dtype == narrow
    assert p.log_prob(x).dtype == narrow
    assert p.sample(any_backend.rng(0), 4).dtype == narrow
    q = p.diffuse(0.5, 0.3)
    assert q.weights.dtype == q.means.dtype == q.covariances.dtype == narrow


def test_results_live_where_the_parameters_live():
    device = strict.Device("device1")
    p = GaussianMixture(*(strict.asarray(a, device=device) for a in (W, M, C)))
    x = strict.asarray(np.zeros((2, 3)), device=device)
    for name in METHODS:
        assert getattr(p, name)(x, 0.5, 0.5).device == device
    assert p.diffuse(0.5, 0.5).means.device == device


# ------------------------------------------------------------------ sampling


def test_a_component_without_weight_is_never_drawn():
    """Not even where the weights round to less than 1, or a uniform number is 1."""
    for weights in ([0.5, 0.5, 0.0], [0.1] * 10 + [0.0, 0.0], [0.0, 1.0, 0.0]):
        w = np.array(weights, "float32")
        p = GaussianMixture(w, np.arange(len(w), dtype="float32")[:, None], np.zeros(len(w), "float32"))
        for u in (1.0, 1 - 2.0**-24, 0.0):
            drawn = int(p.sample(OneNumber(u), 1)[0, 0])
            assert w[drawn] > 0, (weights, u, drawn)


class OneNumber:
    """An rng whose uniform numbers are all the same, and whose normal numbers are 0."""

    def __init__(self, u):
        self.u = u

    def random(self, size, dtype):
        return np.full(size, self.u, dtype)

    def standard_normal(self, size, dtype):
        return np.zeros(size, dtype)


def test_sampling_refuses_a_negative_number():
    with pytest.raises(ValueError, match="n must be an integer of at least 0, got -1"):
        GaussianMixture(W, M, C).sample(np.random.default_rng(0), -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 3])
def test_samples_have_the_law_of_the_mixture(kind, dim):
    p = random_mixture(4, dim, 3, kind)
    n = 240_000  # so that an error of 5 % in a variance would show
    x = p.sample(np.random.default_rng(6), n)
    assert x.dtype == np.float64
    scale = np.sqrt(np.median(p.variances))
    frequencies = np.random.default_rng(7).standard_normal((12, dim)) * np.repeat([0.3, 1.0, 3.0], 4)[:, None] / scale
    assert_law(x, p, frequencies)
    # Moments of each coordinate, exact for a mixture
    S = p.covariances if kind == "full" else p.covariances.reshape(3, -1)[..., None] * np.eye(dim)
    second = np.einsum("k,kij->ij", p.weights, S + p.means[:, :, None] * p.means[:, None, :])
    for i in range(dim):
        assert_mean(x[:, i], float(p.weights @ p.means[:, i]))
        for j in range(i + 1):
            assert_mean(x[:, i] * x[:, j], float(second[i, j]))


def test_noised_samples_have_the_law_of_the_diffused_mixture():
    p, n = random_mixture(8, 2, 3), 240_000
    rng = np.random.default_rng(9)
    x = 0.6 * p.sample(rng, n) + 0.3 * rng.standard_normal((n, 2))
    assert_law(x, p.diffuse(0.6, 0.3), rng.standard_normal((12, 2)) * np.repeat([0.3, 1.0, 3.0], 4)[:, None])


def test_components_come_with_their_weights():
    """Far apart, so that every sample names its component; weight 0 never comes, first, middle or last."""
    w = np.asarray([0.0, 0.5, 0.0, 0.3, 0.2, 0.0])
    p = GaussianMixture(w, np.arange(6.0)[:, None], np.full(6, 1e-8))
    k = np.rint(p.sample(np.random.default_rng(1), 100_000)[:, 0])
    for i in range(6):
        if w[i] == 0:
            assert not np.any(k == i)
        else:
            assert_mean((k == i).astype(float), w[i])


class EdgeRng:
    """Draws one end of [0, 1) only, and no noise."""

    def __init__(self, top):
        self.top = top

    def random(self, size=None, dtype=None):
        one = np.asarray(1, dtype=dtype)
        return np.full(size, np.nextafter(one, 0 * one) if self.top else 0 * one, dtype=dtype)

    def standard_normal(self, size=None, dtype=None):
        return np.zeros(size, dtype=dtype)


class Recorded(EdgeRng):
    """Hands out recorded uniform numbers, in order, and no noise."""

    def __init__(self, *uniforms):
        self.uniforms = list(uniforms)

    def random(self, size=None, dtype=None):
        return self.uniforms.pop(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_of_the_weights_leads_no_sample_past_the_last_component(dtype):
    weights = np.full(7, 1 / 7, dtype=dtype) * np.asarray(1 - 2e-8 if dtype == "float32" else 1 - 1e-9, dtype=dtype)
    p = GaussianMixture(weights, np.arange(7, dtype=dtype)[:, None], np.ones(7, dtype=dtype))
    assert p.sample(EdgeRng(top=True), 3)[:, 0].tolist() == [6.0, 6.0, 6.0]


def test_the_smallest_uniform_number_meets_the_first_component_that_can_be_seen():
    p = GaussianMixture(np.asarray([0.0, 0.0, 0.5, 0.5]), np.arange(4.0)[:, None], np.ones(4))
    assert p.sample(EdgeRng(top=False), 2)[:, 0].tolist() == [2.0, 2.0]


def test_a_uniform_number_of_one_meets_the_last_component():
    """CuPy may draw it in float32; also where the draw is refined, and where the weights sum to a little less."""
    for weights in ([0.25, 0.75], [0.5, 0.5 - 4e-6], [1 - 1e-7, 1e-7]):
        p = GaussianMixture(
            np.asarray(weights, "float32"), np.arange(2, dtype="float32")[:, None], np.ones(2, dtype="float32")
        )
        assert p.sample(Recorded(*[np.ones(2, "float32")] * 2), 2)[:, 0].tolist() == [1.0, 1.0]


def test_every_part_of_a_million_components_gets_its_share(any_backend):
    """In float32, where a running sum of the weights drifts by 1 % and a uniform number has 24 bits."""
    K, n = 1_000_000, 400_000
    p = GaussianMixture(
        *(any_backend.asarray(a, "float32") for a in (np.full(K, 1 / K), np.arange(K)[:, None], np.zeros(K)))
    )
    k = any_backend.to_numpy(p.sample(any_backend.rng(0), n))[:, 0]
    for low, high in ((0.0, 0.01), (0.5, 0.6), (0.99, 1.0)):
        assert_mean(((k >= low * K) & (k < high * K)).astype("float64"), high - low)
    assert_mean((k % 2 == 0).astype("float64"), 0.5)


def test_components_rarer_than_a_uniform_number_is_fine_are_drawn_as_rarely_as_they_should():
    """float32: a weight of 2⁻²⁷ is an eighth of the distance of two uniform numbers."""
    tiny = 2.0**-27
    p = GaussianMixture(
        np.asarray([tiny, 1.0], "float32"), np.asarray([[0.0], [1.0]], "float32"), np.zeros(2, "float32")
    )
    n = 1024
    second = (np.arange(n) + 0.5) / n
    rng = Recorded(np.zeros(n, "float32"), second.astype("float32"))  # the first draw is 0, once in 2²⁴
    assert np.sum(p.sample(rng, n)[:, 0] == 0) == n // 8
    wide = GaussianMixture(*(np.asarray(a, "float64") for a in (p.weights, p.means, p.covariances)))
    assert np.sum(wide.sample(Recorded(np.full(n, tiny / 2)), n)[:, 0] == 0) == n  # a float64 is fine enough alone


@given(mixtures(max_dim=3, max_components=3), seeds)
def test_a_seed_gives_the_same_samples(p, seed):
    one, two = (p.sample(np.random.default_rng(seed), 9) for _ in range(2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, p.sample(np.random.default_rng(seed + 1), 9))


def test_one_component_in_one_dimension():
    p = GaussianMixture(np.ones(1), np.asarray([[3.0]]), np.asarray([4.0]))
    x = p.sample(np.random.default_rng(2), 100_000)
    assert x.shape == (100_000, 1)
    assert_mean(x[:, 0], 3.0)
    assert_mean((x[:, 0] - 3.0) ** 2, 4.0)
    assert_mean(((x[:, 0] - 3.0) / 2) ** 4, 3.0)
    assert p.score(np.asarray([[5.0]]))[0, 0] == pytest.approx(-0.5, rel=1e-15)
    assert p.log_prob(np.asarray([[5.0]]))[0] == pytest.approx(-0.5 - 0.5 * math.log(8 * math.pi), rel=1e-15)
    assert p.divergence(np.asarray([[5.0]]))[0] == pytest.approx(-0.25, rel=1e-15)
    # α = ½, σ = 1: x₀ | x is N(3 + (x - 1.5), 2)
    assert p.posterior_mean(np.asarray([[2.0]]), 0.5, 1.0)[0, 0] == pytest.approx(3.5, rel=1e-15)
    assert p.posterior_cov(np.asarray([[2.0]]), 0.5, 1.0)[0, 0, 0] == pytest.approx(2.0, rel=1e-15)


def test_without_64_bit_integers_no_component_is_drawn_and_densities_are_right():
    """JAX with its defaults: 2⁶² does not go into 32 bits, and every draw came from the last component."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("of JAX")
    code = """
import jax.numpy as jnp, numpy as np
from refscore import GaussianMixture
law = [[0.5, 0.3, 0.2], [[0.0], [100.0], [200.0]], [1.0, 1.0, 1.0]]
p = GaussianMixture(*(jnp.asarray(a, "float32") for a in law))
q = GaussianMixture(*(np.asarray(a) for a in law))
x = np.linspace(-2, 202, 9)[:, None]
assert np.allclose(p.log_prob(jnp.asarray(x, "float32")), q.log_prob(x), rtol=1e-4)
try:
    p.sample(np.random.default_rng(0), 3)
except TypeError as error:
    print(error)
"""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_ENABLE_X64"} | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run([sys.executable, "-W", "error", "-c", code], env=environment, capture_output=True, text=True)
    assert "64-bit integers" in said.stdout, said.stderr
