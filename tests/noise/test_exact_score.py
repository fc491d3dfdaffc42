"""The fast form of the mixture score agrees with the readable one, as far as it promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refscore import VP, ExactScore, GaussianMixture
from refscore.noise.exact_score import FastExactScore
from tests.oracles.strategies import points, random_mixture, sdes, seeds, times


@given(seed=seeds, dim=st.integers(1, 4), components=st.integers(1, 6), sde=sdes, t=times)
def test_two_matrix_products_give_the_score(seed, dim, components, sde, t):
    p = random_mixture(seed, dim, components, kind="isotropic")
    x = points(p, sde.alpha(t), sde.sigma(t), seed)
    slow, fast = ExactScore(p, sde)(x, t), FastExactScore(p, sde)(x, t)
    sd = np.sqrt(sde.alpha(t) ** 2 * p.covariances.min() + sde.sigma(t) ** 2)
    reach = (np.abs(x).max() + sde.alpha(t) * np.abs(p.means).max()) / sd
    # odds err by u reach², and the score by that times its largest term, reach / sd
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-14 * (1 + reach**2) * (1 + reach / sd))


def test_fast_form_in_float32_near_the_modes(any_backend):
    sde = VP()
    double = random_mixture(3, 2, 8, kind="isotropic", low=0.01, high=0.1, box=2.0)
    single = GaussianMixture(
        *(any_backend.asarray(a, "float32") for a in (double.weights, double.means, double.covariances))
    )
    for t in (0.01, 0.3, 1.0):
        x = points(double, sde.alpha(t), sde.sigma(t), 0, n=50)[:50]
        fast = any_backend.to_numpy(FastExactScore(single, sde)(any_backend.asarray(x, "float32"), t))
        slow = ExactScore(double, sde)(x, t)
        assert fast.dtype == np.float32
        assert np.abs(fast - slow).max() < 1e-3 * np.abs(slow).max()  # u |x|²/v with |x| = 40 sd


@pytest.mark.parametrize("components", [2, 3, 8, 17])
def test_a_component_without_weight_is_not_seen(components):
    """Its log weight is -∞, and no product with it may be a NaN, not even in what is thrown away."""
    p = random_mixture(0, 2, components - 1, kind="isotropic")
    weights = np.append(p.weights, 0.0)
    means, variances = np.append(p.means, [[0.1, 0.2]], axis=0), np.append(p.covariances, 0.5)
    x = points(p, 0.8, 0.6, 0)
    fast = FastExactScore(GaussianMixture(weights, means, variances), VP())(x, 0.3)
    np.testing.assert_allclose(fast, FastExactScore(p, VP())(x, 0.3), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("deviations", [100.0, 250.0])
def test_fast_form_is_right_where_every_density_underflows(deviations, dtype):
    """e^{-½ 100²} is 0 even in float64: densities are taken relative to the largest."""
    sde, t = VP(), 0.3
    p = GaussianMixture(
        *(np.asarray(a, dtype) for a in ([0.2, 0.3, 0.5], [[-1.0, 0.0], [1.0, 0.5], [0.0, 2.0]], [0.1, 0.2, 0.05]))
    )
    sd = np.sqrt(sde.alpha(t) ** 2 * 0.2 + sde.sigma(t) ** 2)  # of the widest
    angle = 2 * np.pi * np.arange(12) / 12
    x = (deviations * sd * np.stack([np.cos(angle), np.sin(angle)], axis=1)).astype(dtype)
    fast, slow = FastExactScore(p, sde)(x, t), ExactScore(p, sde)(x, t)
    assert fast.dtype == x.dtype
    assert np.all(np.isfinite(fast))
    # only the widest is seen: its two terms hardly cancel, and err by a few roundings
    assert np.abs(fast - slow).max() <= 10 * np.finfo(dtype).eps * deviations / sd


def test_fast_form_says_what_it_does_not_know():
    sde = VP()
    with pytest.raises(ValueError, match="isotropic mixtures only"):
        FastExactScore(random_mixture(0, 2, 2, kind="diagonal"), sde)
    fast = FastExactScore(random_mixture(0, 2, 2, kind="isotropic"), sde)
    with pytest.raises(ValueError, match="one time for all samples"):
        fast(np.zeros((3, 2)), np.full(3, 0.5))
