"""Box and Muller's normal numbers: the transform exactly, the law at a declared false-alarm rate, the bound."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from refscore_backends import get
from refscore_backends.boxmuller import BoxMuller
from tests.oracles.replay import ReplayRng
from tests.oracles.statistics import assert_cdf, assert_mean

LAST = np.float32(1 - 2.0**-24)  # the largest uniform number in float32


def test_it_is_the_transform_and_the_uniform_numbers_come_back():
    u = np.random.default_rng(0).random((2, 500), dtype="float32")
    z = BoxMuller(ReplayRng(uniforms=[u])).standard_normal((20, 50), dtype="float32")
    assert z.dtype == np.float32
    x, y = np.reshape(z, (2, 500)).astype("float64")
    few = 8 * np.finfo("float32").eps
    np.testing.assert_allclose(1 - np.exp(-(x**2 + y**2) / 2), u[0], rtol=0, atol=few)
    np.testing.assert_allclose(np.exp(1j * np.arctan2(y, x)), np.exp(2j * np.pi * u[1].astype("float64")), atol=few)


def test_the_ends_of_the_uniform_numbers_are_finite_and_below_5_8():
    u = np.asarray([[0.0, LAST, LAST, LAST], [0.0, 0.0, 0.25, LAST]], dtype="float32")
    z = BoxMuller(ReplayRng(uniforms=[u])).standard_normal((8,), dtype="float32")
    assert np.max(np.abs(z)) == pytest.approx(math.sqrt(48 * math.log(2)), rel=1e-6)
    assert np.max(np.abs(z)) < 5.8
    assert z[0] == z[4] == 0
    assert 1e-8 > 2 * norm.sf(5.77) > 5e-9, "what is cut off has one number in 1e8"


def test_the_law_is_normal():
    n = 400_000  # for the sixth powers
    z = BoxMuller(np.random.default_rng(3)).standard_normal((2, n // 2), dtype="float32").astype("float64")
    assert_cdf(z, norm.cdf)
    for power, moment in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0), (6, 15.0)):
        assert_mean(z.reshape(-1) ** power, moment)
    assert_mean(z[0] * z[1], 0.0)  # the two of a pair
    assert_mean(z[0] ** 2 * z[1] ** 2, 1.0)
    assert_mean(z[0, 1:] * z[0, :-1], 0.0)  # neighbours


@pytest.mark.parametrize("size", [None, 0, 1, 7, (), (3,), (3, 5), (2, 0), (4, 3, 2)])
def test_shapes_and_dtypes_are_those_of_numpy(size):
    for dtype in ("float32", np.float32, np.dtype("float32"), "float64"):
        z = BoxMuller(np.random.default_rng(0)).standard_normal(size, dtype=dtype)
        wanted = np.random.default_rng(0).standard_normal(size, dtype=dtype)
        assert np.shape(z) == np.shape(wanted)
        assert np.asarray(z).dtype == np.dtype(dtype)


def test_all_but_float32_normal_numbers_are_the_generators_own():
    ours, own = BoxMuller(np.random.default_rng(5)), np.random.default_rng(5)
    assert np.array_equal(ours.standard_normal((3, 2)), own.standard_normal((3, 2)))
    assert np.array_equal(ours.random((4,), dtype="float32"), own.random((4,), dtype="float32"))
    assert np.array_equal(ours.integers(0, 9, size=(5,)), own.integers(0, 9, size=(5,)))
    for child, wanted in zip(ours.spawn(3), own.spawn(3), strict=True):
        assert isinstance(child, BoxMuller)
        assert np.array_equal(child.random((4,)), wanted.random((4,)))


def test_it_is_the_same_on_a_device():
    strict = get("strict")
    z = BoxMuller(strict.rng(1)).standard_normal((5, 3), dtype=strict.xp.float32)
    wanted = BoxMuller(np.random.default_rng(1)).standard_normal((5, 3), dtype="float32")
    assert z.device == strict.asarray(0.0).device
    assert np.array_equal(strict.to_numpy(z), wanted)
