"""Scaling: there and back is the identity, and dequantisation loses nothing but its offset."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore.data.scaling import Scaling
from refscore.likelihood.flow import bits_per_dim
from tests.oracles.strategies import seeds

numbers = st.floats(-1e6, 1e6)
scales = st.floats(1e-3, 1e6)
columns = st.lists(st.tuples(numbers, scales), min_size=1, max_size=4)
scalings = st.one_of(
    st.integers(2, 2**16).map(Scaling.of_levels),
    st.builds(Scaling, numbers, scales),
    st.lists(st.tuples(numbers, scales), min_size=1, max_size=4).map(
        lambda cs: Scaling(*map(tuple, zip(*cs, strict=True)))
    ),
)


@pytest.mark.parametrize("levels", [2, 17, 256, 65536])
def test_every_grey_level_comes_back_on_every_back_end(any_backend, levels):
    v = np.arange(levels).astype("uint8" if levels <= 256 else "uint16")
    scaling = Scaling.of_levels(levels)
    x = scaling.apply(any_backend.asarray(v))
    assert str(x.dtype).endswith("float32")
    host = any_backend.to_numpy(x)
    assert np.all(np.abs(host) < 1)
    assert np.allclose(host, 2 * (v + 0.5) / levels - 1, rtol=0, atol=2e-7)  # a rounding of float32
    assert np.array_equal(host, -host[::-1])
    back = any_backend.to_numpy(scaling.undo(x))
    assert back.dtype == v.dtype
    assert np.array_equal(back, v)


@given(seed=seeds, levels=st.integers(2, 256))
def test_dequantised_levels_stay_in_their_cells(seed, levels):
    """x = 2 (v + u)/L - 1 of the literature, u in [0, 1); whatever u is, v comes back."""
    rng = np.random.default_rng(seed)
    v, scaling = rng.integers(0, levels, 50), Scaling.of_levels(levels)
    u = np.concatenate([[0.0, 1 - 2.0**-20], rng.random(48)])
    x = scaling.dequantise(scaling.apply(v.astype("float64")), u)
    assert np.allclose(x, 2 * (v + u) / levels - 1, rtol=0, atol=1e-15)
    nudged = np.where(u == 0, x + 1e-12, x)  # an edge belongs to both cells, up to rounding
    assert np.array_equal(scaling.undo(nudged), v)
    assert scaling.dequantise(x.astype("float32"), u.astype("float32")).dtype == np.float32


@given(levels=st.integers(2, 256), dim=st.integers(1, 4), nats=st.floats(-1e3, 1e3))
def test_the_offset_of_bits_per_dimension_is_that_of_the_levels(levels, dim, nats):
    """log₂(levels/2): 7 bits for 256 levels in [-1, 1]; the same from the density in grey levels."""
    scaling, log_p = Scaling.of_levels(levels), np.asarray([nats])
    bits = bits_per_dim(log_p, dim, scaling.width)
    assert bits == pytest.approx(-nats / (dim * math.log(2)) + math.log2(levels / 2), abs=1e-9)
    assert bits == pytest.approx(bits_per_dim(log_p - scaling.log_det(dim), dim), abs=1e-9)


@given(seed=seeds, levels=st.integers(2, 20))
def test_dequantised_bits_bound_those_of_the_levels_and_meet_them_for_the_best_density(seed, levels):
    """Jensen: E_u -log p(x) - log width >= -log P(v), with equality for the histogram of P, exactly."""
    rng = np.random.default_rng(seed)
    scaling, P = Scaling.of_levels(levels), rng.dirichlet(np.ones(levels))
    u = (np.arange(200) + 0.5) / 200
    x = scaling.dequantise(scaling.apply(np.arange(levels).astype("float64"))[:, None], u)

    def nats(density):
        return float(np.sum(P * np.mean(np.log(density(x)), axis=1)))

    entropy = -float(np.sum(P * np.log2(P)))
    histogram = bits_per_dim(np.asarray([nats(lambda x: P[scaling.undo(x)] / scaling.width)]), 1, scaling.width)
    assert histogram == pytest.approx(entropy, abs=1e-12)
    tilted = bits_per_dim(np.asarray([nats(lambda x: (1 + 0.5 * x) / 2)]), 1, scaling.width)
    assert tilted >= entropy


@given(scaling=scalings, seed=seeds)
def test_real_numbers_come_back_and_keep_their_type(scaling, seed):
    n = len(scaling.scale) if isinstance(scaling.scale, tuple) else 3
    v = np.asarray(scaling.centre) + np.asarray(scaling.scale) * np.random.default_rng(seed).uniform(-1, 1, (5, n))
    x = scaling.apply(v)
    assert x.dtype == np.float64
    assert scaling.apply(v.astype("float32")).dtype == np.float32
    if scaling.levels is None:
        assert np.allclose(scaling.undo(x), v, rtol=1e-13, atol=1e-9)


@given(scaling=scalings)
def test_it_is_plain_numbers(scaling):
    """Through JSON, as a checkpoint holds it."""
    assert Scaling.from_dict(json.loads(json.dumps(scaling.to_dict(), allow_nan=False))) == scaling
    assert hash(scaling) == hash(Scaling.from_dict(scaling.to_dict()))


@given(seed=seeds)
def test_the_determinant_is_that_of_the_way_back(seed):
    rng = np.random.default_rng(seed)
    scale = tuple(rng.uniform(0.1, 10, 3))
    scaling = Scaling((0.0,) * 3, scale)
    jacobian = scaling.undo(np.eye(3)) - scaling.undo(np.zeros((1, 3)))
    assert scaling.log_det(3) == pytest.approx(math.log(np.linalg.det(jacobian)), abs=1e-12)
    assert scaling.log_det(6) == pytest.approx(2 * scaling.log_det(3))
    assert Scaling(1.0, 4.0).log_det(5) == pytest.approx(5 * math.log(4))


def test_values_beyond_the_range_are_cut_and_no_number_is_refused():
    scaling = Scaling.of_levels(256)
    assert scaling.undo(np.asarray([-9.0, -1.0, 1.0, 9.0])).tolist() == [0, 0, 255, 255]
    with pytest.raises(ValueError, match=r"x holds 1 values that are not finite, the first at x\[1\]"):
        scaling.undo(np.asarray([0.0, math.nan]))


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Scaling(math.nan), "centre must be finite"),
    (lambda: Scaling(0.0, 0.0), "scale must be finite and positive, got 0.0"),
    (lambda: Scaling((0.0, 1.0), (1.0,)), "alike in length"),
    (lambda: Scaling((), ()), "alike in length"),
    (lambda: Scaling((0.0, 1.0), (1.0, -1.0)), "finite and positive"),
    (lambda: Scaling.of_levels(1), "levels must be"),
    (lambda: Scaling.of_levels(65537), "at most 65536, got 65537"),
    (lambda: Scaling.of_span(1.0, 1.0), "scale must be finite and positive"),
    (lambda: Scaling.from_dict({"centre": 0.0}), "has centre, scale and levels, got centre"),
    (lambda: Scaling.from_dict({"centre": 0.0, "scale": 1.0, "levels": None, "code": 1}), "scale, levels, code"),
    (lambda: Scaling((0.0, 1.0), (1.0, 1.0)).apply(np.zeros((3, 1))), r"of 2 columns, got an array of shape \(3, 1\)"),
    (lambda: Scaling((0.0, 1.0), (1.0, 1.0)).log_det(3), "of 2 columns, and dim 3 is no multiple"),
    (lambda: Scaling().width, "no grey levels"),
    (lambda: Scaling.of_span(0.0, 1.0).dequantise(np.zeros(2), np.zeros(2)), "nothing to dequantise"),
])  # fmt: skip
def test_what_is_no_scaling_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="centre"):
        Scaling("0")
