"""The prior, N(0, prior_std² I): a draw from it, its density, and how far it is from the noised data at t = 1.

Sampling starts there and likelihoods end there, so its mismatch with p_1 is an error of both. Chapters 7, 11 and 12.
"""

import math
from collections.abc import Callable

from refscore.arrays import row_squares
from refscore.checks import check_array, check_data, check_like
from refscore.laws.expectation import Estimate, expectation, moments
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace
from refscore.noise.suggest import _rms
from refscore.protocols import SDE, Array, Rng


def prior(sde: SDE, shape: tuple[int, ...], rng: Rng, dtype: object = "float32") -> Array:
    """Draw x(1) ~ N(0, prior_std² I) of the given shape (B, ...): where sampling starts.

    Parameters
    ----------
    sde : SDE
        Its prior_std is used.
    shape : tuple of ints (B, ...)
        The shape of the draw, without zeros.
    rng : Rng
        Its library makes the array.
    dtype : str or dtype, default "float32"
        "float32" or "float64".

    Returns
    -------
    Array, shape (B, ...)
        What `simulate` starts from, at t = 1.

    Raises
    ------
    ValueError
        For a shape that is not a tuple, is empty or holds a 0.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VE, prior
    >>> x = prior(VE(sigma_min=3.0, sigma_max=5.0), (100_000, 2), np.random.default_rng(0))
    >>> x.shape, str(x.dtype), round(float(x.std()), 1)  # √(5² - 3²)
    ((100000, 2), 'float32', 4.0)
    """
    check_like(sde=sde, rng=rng)
    if not isinstance(shape, tuple) or 0 in shape or not shape:
        raise ValueError(f"prior needs a shape (B, ...) without zeros, got {shape}")
    return float(sde.prior_std) * rng.standard_normal(shape, dtype=dtype)


def gaussian_prior(sde: SDE) -> Callable[[Array], Array]:
    """Return the log density of the prior N(0, prior_std² I), in nats, as a function.

    Parameters
    ----------
    sde : SDE
        Its prior_std is used.

    Returns
    -------
    callable
        x (B, ...) -> log density (B,).

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde)

    def log_prob(x: Array) -> Array:
        variance = float(sde.prior_std) ** 2
        return -0.5 * (row_squares(x) / variance + math.prod(x.shape[1:]) * math.log(2 * math.pi * variance))

    return log_prob


def prior_kl(sde: SDE, x0: Array) -> Array:
    """Return KL(q(x_1 | x₀) ‖ N(0, prior_std² I)) in nats, of each sample                                 Eq. (12.7).

    Parameters
    ----------
    sde : SDE
        Its α(1), σ(1) and prior_std are used.
    x0 : Array, shape (B, ...)
        Data.

    Returns
    -------
    Array, shape (B,)
        One divergence a sample.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.noise.prior import prior_kl
    >>> from refscore.noise.sde import LinearVE
    >>> prior_kl(LinearVE(10.0), np.array([[2.0, 0.0]])).round(6)  # ‖x₀‖²/2σ² = 4/200
    array([0.02])
    """
    check_like(sde=sde)
    check_array(x0=x0)
    ratio, D = float(sde.sigma(1.0) / sde.prior_std) ** 2, math.prod(x0.shape[1:])
    shift = float(sde.alpha(1.0) / sde.prior_std) ** 2 * row_squares(x0)
    return 0.5 * (shift + D * (ratio - 1 - math.log(ratio)))


def prior_mismatch(mixture: GaussianMixture, sde: SDE, rng: Rng | None = None, samples: int = 20_000) -> Estimate:
    """Return KL(p_1 ‖ N(0, prior_std² I)) in nats: the error that a sampler starts with      Eq. (7.13).

    Pythagoras: KL(p_1 ‖ G) + KL(G ‖ prior), G the Gaussian with the mean and covariance of p_1. The second term is a
    closed form; only the first, how far p_1 is from any Gaussian, is an integral.

    Parameters
    ----------
    mixture : GaussianMixture
        The law of the data, in D dimensions.
    sde : SDE
        Its α(1), σ(1) and prior_std are used.
    rng : Rng, optional
        Needed in D > 2 only, where the first term is estimated.
    samples : int, default 20_000
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
    check_like(sde=sde, mixture=mixture)
    xp = array_namespace(mixture.means)
    p, variance = mixture.diffuse(float(sde.alpha(1.0)), float(sde.sigma(1.0))), sde.prior_std**2
    mean, C = moments(p)
    G = GaussianMixture(xp.ones_like(p.weights[:1]), mean[None, :], C[None, ...])
    ratios = G.variances[0, :] / variance
    moved = 0.5 * float(xp.sum(mean * mean) / variance + xp.sum(ratios - 1 - xp.log(ratios)))

    shape = expectation(p, lambda x: p.log_prob(x) - G.log_prob(x), rng, samples)
    return Estimate(moved + shape.value, shape.error)


def prior_mismatch_bound(sde: SDE, data: Array) -> float:
    """Return a bound of KL(p_1 ‖ prior) in nats, E_x₀ KL(N(α x₀, σ² I) ‖ N(0, prior_std² I)).              Eq. (7.13).

    The error that a sampler starts with; look at it before training. Only E‖x₀‖² of the data is used; the bound is the
    sum of the divergence (`prior_mismatch`) and the mutual information of x₀ and x₁.

    Parameters
    ----------
    sde : SDE
        Its α(1), σ(1) and prior_std are used.
    data : Array, shape (B, ...)
        Their mean square is used.

    Returns
    -------
    float
        The bound, in nats.

    Raises
    ------
    TypeError, ValueError
        For data that are not floats, not finite, or empty.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.noise.prior import prior_mismatch_bound
    >>> from refscore.noise.sde import LinearVE
    >>> round(prior_mismatch_bound(LinearVE(10.0), np.array([[2.0, 0.0], [0.0, -2.0]])), 6)  # E‖x‖²/2σ² = 4/200
    0.02
    """
    check_like(sde=sde)
    check_data("data", data)
    D = math.prod(data.shape[1:])
    ratio = (sde.sigma(1.0) / sde.prior_std) ** 2
    shift = sde.alpha(1.0) / sde.prior_std * _rms(data)
    return float(0.5 * (shift * shift + D * (ratio - 1 - math.log(ratio))))
