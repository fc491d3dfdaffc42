"""The prior, N(0, prior_std² I): drawn from, its density, and how far it is from the noised data at t = 1.

Sampling starts there and likelihoods end there, so its mismatch with p_1 is an error of both. Chapters 7, 11 and 12.
"""

import math
from collections.abc import Callable

from array_api_compat import array_namespace

from refscore.arrays import row_squares
from refscore.checks import check_data
from refscore.laws.expectation import Estimate, expectation, moments
from refscore.laws.mixture import GaussianMixture
from refscore.noise.suggest import _rms
from refscore.protocols import SDE, Array, Rng


def prior(sde: SDE, shape: tuple[int, ...], rng: Rng, dtype: object = "float32") -> Array:
    """Draw x(1) ~ N(0, prior_std² I) of the given shape (B, ...): where sampling starts."""
    if not isinstance(shape, tuple) or 0 in shape or not shape:
        raise ValueError(f"prior needs a shape (B, ...) without zeros, got {shape}")
    return float(sde.prior_std) * rng.standard_normal(shape, dtype=dtype)


def gaussian_prior(sde: SDE) -> Callable[[Array], Array]:
    """log density of N(0, prior_std² I), x (B, ...) -> (B,)."""

    def log_prob(x: Array) -> Array:
        variance = float(sde.prior_std) ** 2
        return -0.5 * (row_squares(x) / variance + math.prod(x.shape[1:]) * math.log(2 * math.pi * variance))

    return log_prob


def prior_kl(sde: SDE, x0: Array) -> Array:
    """KL(q(x_1 | x₀) ‖ N(0, prior_std² I)) in nats, (B, ...) -> (B,)                                Eq. (12.7)."""
    ratio, D = float(sde.sigma(1.0) / sde.prior_std) ** 2, math.prod(x0.shape[1:])
    shift = float(sde.alpha(1.0) / sde.prior_std) ** 2 * row_squares(x0)
    return 0.5 * (shift + D * (ratio - 1 - math.log(ratio)))


def prior_mismatch(mixture: GaussianMixture, sde: SDE, rng: Rng | None = None, samples: int = 20_000) -> Estimate:
    """KL(p_1 ‖ N(0, prior_std² I)) in nats: what a sampler gets wrong by its start      Eq. (7.13).

    Pythagoras: KL(p_1 ‖ G) + KL(G ‖ prior), G the Gaussian with the mean and covariance of p_1. The second term is a
    closed form; only the first, how far p_1 is from any Gaussian, is an integral.

    Parameters
    ----------
    mixture : GaussianMixture
    sde : SDE
    rng : Rng, optional
        Needed in D > 2 only, where the first term is estimated.
    samples : int
        Monte Carlo samples.

    Returns
    -------
    Estimate
        The value; its error is that of Monte Carlo, or the difference from the rule of twice the spacing.

    Raises
    ------
    ValueError
        If Monte Carlo is needed and there is no rng.
    """
    xp = array_namespace(mixture.means)
    p, variance = mixture.diffuse(float(sde.alpha(1.0)), float(sde.sigma(1.0))), sde.prior_std**2
    mean, C = moments(p)
    G = GaussianMixture(xp.ones_like(p.weights[:1]), mean[None, :], C[None, ...])
    ratios = G.variances[0, :] / variance
    moved = 0.5 * float(xp.sum(mean * mean) / variance + xp.sum(ratios - 1 - xp.log(ratios)))

    shape = expectation(p, lambda x: p.log_prob(x) - G.log_prob(x), rng, samples)
    return Estimate(moved + shape.value, shape.error)


def prior_mismatch_bound(sde: SDE, data: Array) -> float:
    """A bound of KL(p_1 ‖ prior) in nats, E_x₀ KL(N(α x₀, σ² I) ‖ N(0, prior_std² I)).                   Eq. (7.13).

    What a sampler gets wrong by starting at the prior; look at it before training. It asks for E‖x₀‖² alone; it is the
    divergence (`distance.prior_mismatch`) and the mutual information of x₀ and x₁.
    """
    check_data("data", data)
    D = math.prod(data.shape[1:])
    ratio = (sde.sigma(1.0) / sde.prior_std) ** 2
    shift = sde.alpha(1.0) / sde.prior_std * _rms(data)
    return float(0.5 * (shift * shift + D * (ratio - 1 - math.log(ratio))))
