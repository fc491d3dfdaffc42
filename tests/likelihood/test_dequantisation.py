"""What dequantisation does, cell by cell: a bound, its gap, and what is left of it on average."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

from refscore import GaussianMixture
from refscore.data.scaling import Scaling
from refscore.likelihood.flow import bits_per_dim
from tests.oracles.strategies import seeds

NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)
U, WEIGHTS = 0.5 * (NODES + 1), 0.5 * WEIGHTS  # on [0, 1]


def cells(levels, p):
    """Of images of two pixels: log masses, and E_u log p in each cell, by erf and by Gauss-Legendre."""
    scaling = Scaling.of_levels(levels)
    v = np.array(list(itertools.product(range(levels), repeat=2)))
    x = scaling.apply(v.astype("float64"))
    sd = np.sqrt(p.variances)
    edges = ((x + sign * 0.5 * scaling.width)[:, None] for sign in (1, -1))
    upper, lower = (ndtr((edge - p.means) / sd) for edge in edges)
    mass = np.prod(upper - lower, axis=2) @ p.weights
    u = np.array(list(itertools.product(U, repeat=2)))
    w = np.array([a * b for a, b in itertools.product(WEIGHTS, repeat=2)])
    inside = scaling.dequantise(np.repeat(x, len(u), axis=0), np.tile(u, (len(x), 1)))
    log_p = p.log_prob(inside).reshape(len(x), len(u))
    return scaling.width, mass, log_p, w


@given(seeds, st.integers(2, 8))
def test_the_bound_of_dequantised_images_misses_the_divergence_within_the_cell(seed, levels):
    """Eq. (15.2): log P(v) = E_u log p + D log w + KL(U ‖ p in the cell), the last from densities in the cell."""
    rng = np.random.default_rng(seed)
    p = GaussianMixture(np.array([0.6, 0.4]), rng.uniform(-1, 1, (2, 2)), rng.uniform(0.3, 1.0, (2, 2)))
    width, mass, log_p, w = cells(levels, p)
    density = np.exp(log_p) * width**2 / mass[:, None]  # of u in the unit square, in this cell
    assert density @ w == pytest.approx(np.ones(len(mass)), rel=1e-9)
    divergence = -np.log(density) @ w
    assert divergence.min() > -1e-9
    assert log_p @ w + 2 * np.log(width) + divergence == pytest.approx(np.log(mass), rel=1e-9, abs=1e-9)


@given(seeds, st.integers(2, 6))
def test_mean_bits_are_entropy_and_two_divergences_so_no_model_is_below_the_entropy(seed, levels):
    """Eq. (15.3), with the data any law on the grey levels; masses outside all cells are lost, a divergence too."""
    rng = np.random.default_rng(seed)
    p = GaussianMixture(np.ones(1), rng.uniform(-1, 1, (1, 2)), rng.uniform(0.2, 1.0, (1, 2)))
    width, mass, log_p, w = cells(levels, p)
    data = rng.dirichlet(np.full(len(mass), 0.5))
    data = data + 1e-12
    data /= data.sum()
    bits = data @ bits_per_dim(log_p @ w, 2, width)
    entropy, divergence = -(data @ np.log2(data)), data @ np.log2(data / mass)
    within = data @ (np.log2(mass) - log_p @ w / np.log(2) - 2 * np.log2(width))
    assert bits == pytest.approx((entropy + divergence + within) / 2, rel=1e-9)
    assert bits >= entropy / 2
    assert min(divergence, within) > -1e-9


def test_without_dequantisation_spikes_on_the_grey_levels_have_as_few_bits_as_one_likes():
    """And with it no fewer than the entropy: here of one fair bit a pixel."""
    scaling, rng = Scaling.of_levels(2), np.random.default_rng(0)
    v = rng.integers(0, 2, (4000, 1))
    x = scaling.apply(v.astype("float64"))
    bare, spread = [], []
    for width in (1e-1, 1e-3, 1e-5):
        spikes = GaussianMixture(np.full(2, 0.5), scaling.apply(np.array([[0.0], [1.0]])), np.full(2, width**2))
        bare.append(bits_per_dim(spikes.log_prob(x), 1, scaling.width).mean())
        u = scaling.dequantise(x, rng.random(x.shape))
        spread.append(bits_per_dim(spikes.log_prob(u), 1, scaling.width).mean())
    assert np.diff(bare) == pytest.approx(np.full(2, -np.log2(100)), rel=1e-6)  # log₂ of the width
    assert bare[-1] < -13
    assert min(spread) > 1.0
    assert np.all(np.diff(spread) > 0)
