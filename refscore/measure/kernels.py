"""Discrepancies of a kernel: between two samples, and between a sample and a score. Chapter 20.

The kernel is k(x, y) = exp(-‖x - y‖²/2h²). Its mean under two mixtures is a closed form, so each estimate has a truth.
"""

import math
from collections.abc import Callable

from refscore.arrays import answer, constant
from refscore.checks import check_data, check_like, check_number, check_range, check_same, check_squares
from refscore.laws.expectation import Estimate
from refscore.laws.mixture import GaussianMixture
from refscore.laws.posterior import full_covariances
from refscore.library import array_namespace
from refscore.measure.distance import _discrepancy
from refscore.protocols import Array


def mmd(x: Array, y: Array, width: float) -> Estimate:
    """E k(X, X') + E k(Y, Y') - 2 E k(X, Y) from two samples: the squared maximum mean discrepancy      Eq. (20.5).

    Without bias, so it may come out negative. Its error is that of `energy_distance`, which is the same formula with
    the kernel -‖x - y‖.

    Parameters
    ----------
    x, y : Array, shapes (N, D), (M, D)
        The two samples, each of at least 2 rows.
    width : float
        The width h of the kernel, in the units of x.

    Returns
    -------
    Estimate
        The squared discrepancy, between 0 and 2 in expectation, and its standard error.

    Raises
    ------
    ValueError, TypeError
        As `energy_distance`; for a width outside [1e-9, 1e9].

    Examples
    --------
    Two samples that the kernel cannot connect: 1 + 1 - 0.

    >>> import numpy as np
    >>> from refscore.measure.kernels import mmd
    >>> mmd(np.zeros((2, 1)), np.full((3, 1), 100.0), width=1.0)
    Estimate(value=2.0, error=0.0)
    """
    h = _checked(width)
    return _discrepancy(x, y, lambda square: array_namespace(square).exp(square * (-0.5 / h**2)), own=1.0)


def kernel_mean(p: GaussianMixture, q: GaussianMixture, width: float) -> float:
    """E k(X, Y) for independent X ~ p and Y ~ q, exactly                                            Eq. (20.6).

    X - Y is a mixture, too. The mean of the kernel is its density at 0 after noise h, times (2πh²)^D/2.

    Parameters
    ----------
    p, q : GaussianMixture
        The two laws, in the same number of dimensions.
    width : float
        The width h of the kernel.

    Returns
    -------
    float
        The mean, in (0, 1].

    Raises
    ------
    ValueError, TypeError
        For laws of different dimension, dtype or library; for a width outside [1e-9, 1e9].

    Examples
    --------
    For N(0, 1) and h = 1, h/√(h² + 2):

    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> from refscore.measure.kernels import kernel_mean
    >>> p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
    >>> round(kernel_mean(p, p, 1.0), 6)
    0.57735
    """
    check_like("mixture", p=p, q=q)
    h = _checked(width)
    check_same(p.means, q=q.means)
    if p.dim != q.dim:
        raise ValueError(f"both laws must have the same dimension, got {p.dim} and {q.dim}")
    xp, D, C = array_namespace(p.means), p.dim, full_covariances(p)[:, None, ...] + full_covariances(q)[None, ...]
    difference = GaussianMixture(
        xp.reshape(p.weights[:, None] * q.weights, (-1,)),
        xp.reshape(p.means[:, None, :] - q.means[None, ...], (-1, D)), xp.reshape(C, (-1, D, D)),
    )  # fmt: skip
    at_zero = float(difference.log_prob(constant(0.0, p.means[:1, :]), 1.0, h)[0])
    return math.exp(at_zero + 0.5 * D * math.log(2 * math.pi * h**2))


def stein_discrepancy(score: Callable[[Array], Array], x: Array, width: float) -> Estimate:
    """Kernel Stein discrepancy, squared: how far a sample is from the law of a score            Eq. (20.10).

    No sample of the law and no normaliser is needed. Without bias. As the Fisher divergence, which bounds it, it does
    not see the weights of modes that are far apart.

    Parameters
    ----------
    score : callable x (N, D) -> (N, D)
        The score of the law, `q.score` or `lambda x: model.bind(theta)(x, t)`.
    x : Array, shape (N, D)
        The sample, of at least 2 rows.
    width : float
        The width h of the kernel, in the units of x.

    Returns
    -------
    Estimate
        The squared discrepancy, in 1/units², and its standard error.

    Raises
    ------
    ValueError, TypeError
        For a sample that is not of finite floats (N, D); for a score that does not return the shape of x;
        for a width outside [1e-9, 1e9].

    Examples
    --------
    Two points at the mode of N(0, 1), one on the other: the curvature 1/h² of the kernel is left.

    >>> import numpy as np
    >>> from refscore.measure.kernels import stein_discrepancy
    >>> stein_discrepancy(lambda x: -x, np.zeros((2, 1)), width=1.0)
    Estimate(value=1.0, error=0.0)
    """
    h = _checked(width)
    check_data("x", x)
    check_squares(x=x)
    if not callable(score):
        raise TypeError(f"score must be a function of x alone, `q.score` or `lambda x: ...`; got {score!r}")
    if x.ndim != 2 or x.shape[0] < 2:
        raise ValueError(f"the sample must be (N, D) with N >= 2, got {tuple(x.shape)}")
    xp, (n, D), s = array_namespace(x), x.shape, answer("the score", score(x), x)
    means = []
    for i in range(0, n, 512):
        own = slice(i, min(i + 512, n))
        gaps = [x[own, d, None] - x[None, :, d] for d in range(D)]
        square = sum(gap * gap for gap in gaps)
        product = sum(s[own, d, None] * s[None, :, d] for d in range(D))
        slope = sum((s[own, d, None] - s[None, :, d]) * gaps[d] for d in range(D))
        u = xp.exp(square * (-0.5 / h**2)) * (product + slope / h**2 + (D - square / h**2) / h**2)
        alone = xp.sum(s[own, :] ** 2, axis=1) + D / h**2  # of a point with itself
        means.append((xp.sum(u, axis=1) - alone) / (n - 1))
    mean = xp.concat(means)
    return Estimate(float(xp.mean(mean)), 2 * float(xp.std(mean)) / math.sqrt(n))


def _checked(width: float) -> float:
    """Of a size whose fourth power float32 can hold."""
    check_range(1e-9, 1e9, width=width)
    return check_number("width", width)
