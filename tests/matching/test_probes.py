"""Probes, chapter 3: what they have to be, and what one of them costs, in closed form."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore.matching.probes import gaussian, rademacher, sphere, units
from tests.oracles.close import assert_close
from tests.oracles.quadrature import gauss_hermite
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import assert_mean
from tests.oracles.strategies import seeds

PROBES = {"rademacher": rademacher, "gaussian": gaussian, "sphere": sphere}
laws = pytest.mark.parametrize("law", PROBES.values(), ids=PROBES)


def matrix(seed, D):
    """Not symmetric, as a Jacobian need not be."""
    return np.random.default_rng(seed).standard_normal((D, D))


VARIANCES = {  # of vᵀA v, from S = ½ (A + Aᵀ) alone
    "gaussian": lambda S: 2 * np.sum(S**2),
    "rademacher": lambda S: 2 * np.sum(S**2) - 2 * np.sum(np.diag(S) ** 2),
    "sphere": lambda S: (2 * len(S) * np.sum(S**2) - 2 * np.trace(S) ** 2) / (len(S) + 2),
    "coordinates": lambda S: len(S) * np.sum(np.diag(S) ** 2) - np.trace(S) ** 2,
}


# ------------------------------------------------------------------ exact laws: nodes v (N, D) and weights


def rademacher_nodes(D):
    return np.array(list(itertools.product([-1.0, 1.0], repeat=D))), np.full(2**D, 2.0**-D)


def sphere_nodes(D):
    """Radius √D: equal angles on the circle, times Gauss-Legendre in height on the ball's surface."""
    angles = 2 * math.pi * np.arange(8) / 8
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if D == 1:
        return np.array([[-1.0], [1.0]]), np.full(2, 0.5)
    if D == 2:
        return math.sqrt(2) * circle, np.full(8, 1 / 8)
    heights, w = np.polynomial.legendre.leggauss(4)
    v = [np.append(math.sqrt(1 - h * h) * c, h) for h in heights for c in circle]
    return math.sqrt(3) * np.array(v), np.repeat(w / 2, 8) / 8


def coordinate_nodes(D):
    return math.sqrt(D) * np.eye(D), np.full(D, 1 / D)


NODES = {
    "gaussian": partial(gauss_hermite, 3), "rademacher": rademacher_nodes, "sphere": sphere_nodes,
    "coordinates": coordinate_nodes,
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
@given(seed=seeds, D=st.integers(1, 3))
def test_the_variance_of_one_probe_is_closed(name, seed, D):
    """Eqs. (3.5), (3.7): mean tr A, and variances that see the symmetric part only; by enumeration."""
    A = matrix(seed, D)
    v, w = NODES[name](D)
    values = np.einsum("nd,de,ne->n", v, A, v)
    S = 0.5 * (A + A.T)
    scale = D * np.sum(S**2)
    assert_close(np.einsum("n,nd,ne->de", w, v, v), np.eye(D), 1e-14 * 8)
    assert abs(w @ values - np.trace(A)) <= 1e-12 * (1 + math.sqrt(scale))
    assert abs(w @ (values - np.trace(A)) ** 2 - VARIANCES[name](S)) <= 1e-10 * scale


@given(seed=seeds, D=st.integers(1, 6))
def test_rademacher_beats_gaussian_always_and_the_sphere_not_always(seed, D):
    """Eq. (3.7). On the sphere a multiple of the identity is known exactly, and on the cube every diagonal matrix."""
    S = 0.5 * (matrix(seed, D) + matrix(seed, D).T)
    gaussian_, rademacher_, sphere_ = (VARIANCES[name](S) for name in ("gaussian", "rademacher", "sphere"))
    assert rademacher_ <= gaussian_
    assert sphere_ <= gaussian_
    assert abs(VARIANCES["rademacher"](np.diag(np.diag(S)))) <= 1e-12 * gaussian_
    assert abs(VARIANCES["sphere"](np.eye(D))) <= 1e-12 * D
    flat = np.ones((D, D)) - np.eye(D)  # nothing on the diagonal: here the cube is the worse one
    if D > 1:
        assert VARIANCES["sphere"](flat) < VARIANCES["rademacher"](flat)


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("D", [1, 2, 3])
def test_the_sampled_variance_is_the_closed_one(name, D):
    """Ties the formulas of Eq. (3.7) to the code: squares of centred values, by Monte Carlo.

    Their tails are those of eighth powers, so the normal quantile is optimistic; the seed is fixed.
    """
    A = matrix(D, D)
    v = PROBES[name](np.random.default_rng(D), (1, 100_000, D), "float64")[0]
    squares = (np.einsum("nd,de,ne->n", v, A, v) - np.trace(A)) ** 2
    wanted = VARIANCES[name](0.5 * (A + A.T))
    assert_mean(squares, wanted, bias=1e-12)  # where it is 0 there is rounding only


@laws
@pytest.mark.parametrize("shape", [(2, 50_000, 3), (1, 100_000, 1), (1, 50_000, 2, 1, 2)])
def test_the_mean_of_v_v_transposed_is_the_identity(law, shape):
    """Eq. (3.5): every entry, at 1e-9 each; and the mean of v itself is 0."""
    v = law(np.random.default_rng(7), shape, "float64").reshape(shape[0] * shape[1], -1)
    for i, j in itertools.combinations_with_replacement(range(v.shape[1]), 2):
        assert_mean(v[:, i] * v[:, j], float(i == j), bias=1e-12)
    for i in range(v.shape[1]):
        assert_mean(v[:, i], 0.0)


SHAPES = [(1, 2, 3), (4, 1, 1), (2, 3, 2, 1, 2)]


@laws
@pytest.mark.parametrize("shape", SHAPES)
def test_probes_have_the_shape_and_dtype_that_was_asked_for(law, shape, backend):
    for dtype in ("float64", "float32"):
        check_kind(law, shape, dtype, backend)


@laws
@pytest.mark.parametrize("shape", SHAPES)
def test_probes_in_float32_need_no_float64(law, shape, any_backend):
    check_kind(law, shape, "float32", any_backend)


def check_kind(law, shape, dtype, backend):
    like = backend.asarray(np.zeros(1), dtype=dtype)
    v = law(backend.rng(0), shape, like.dtype)
    assert v.shape == shape
    assert v.dtype == like.dtype
    assert type(v) is type(like)


@laws
def test_probes_of_different_samples_are_different(law):
    v = law(np.random.default_rng(0), (3, 50, 4), "float64").reshape(150, 4)
    gram = v @ v.T
    assert abs(np.mean(gram[~np.eye(150, dtype=bool)])) < 0.5  # of 4 on the diagonal
    assert len(np.unique(v, axis=0)) >= 14  # of the 16 corners of a cube, or of infinitely many points


def test_half_of_all_uniform_numbers_become_minus_one():
    u = np.concatenate([(np.arange(64) + 0.5) / 64, [0.0, 0.5, 1 - 2.0**-53, 0.5 - 2.0**-54, 1.0]]).reshape(1, 69, 1)
    v = rademacher(ReplayRng(uniforms=[u]), (1, 69, 1), "float64")
    assert set(v.ravel()) == {-1.0, 1.0}
    assert v[0, :64].sum() == 0
    assert list(v[0, 64:, 0]) == [-1.0, 1.0, 1.0, -1.0, 1.0]


@given(seed=seeds, D=st.integers(1, 5), K=st.integers(1, 3))
def test_the_sphere_has_radius_root_d_and_keeps_directions(seed, D, K):
    z = np.random.default_rng(seed).standard_normal((K, 4, D))
    v = sphere(ReplayRng(z), z.shape, "float64")
    assert_close(np.sum(v * v, axis=2), D, 1e-13 * D)
    along = np.sum(v * z, axis=2) / np.linalg.norm(z, axis=2)
    assert_close(along, math.sqrt(D), 1e-13 * D)
    assert gaussian(ReplayRng(z), z.shape, "float64") is z


@pytest.mark.parametrize("shape", [(3, 4), (2, 1), (2, 2, 1, 3)])
def test_units_are_the_columns_of_the_identity_beside_every_sample(shape, backend):
    v = units(backend.asarray(np.ones(shape)))
    D = math.prod(shape[1:])
    assert v.shape == (D, *shape)
    assert np.array_equal(
        backend.to_numpy(v).reshape(D, shape[0], D), np.broadcast_to(np.eye(D)[:, None, :], (D, shape[0], D))
    )


def test_units_keep_float32(any_backend):
    x = any_backend.asarray(np.ones((2, 3)), dtype="float32")
    assert units(x).dtype == x.dtype
