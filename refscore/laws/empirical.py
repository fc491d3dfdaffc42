"""The law of the training data themselves: what denoising score matching on N points is minimised by.

The loss sees the data through expectations, and with N points these are means over the points. So its minimiser among
all functions is the score of the points with noise, of N equal components without width,

    s(x, t) = Σ_i w_i(x) (α x_i - x)/σ²,    w_i ∝ exp(-‖x - α x_i‖²/2σ²)                               Eq. (15.7)

whose samplers return training points.
"""

import math

from refscore.checks import check_count, check_data
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace, device
from refscore.protocols import Array


def empirical(x: Array) -> GaussianMixture:
    """Give each of N points the weight 1/N: a mixture of no width, and a law like any other once there is noise.

    Its `sample` returns training points, `ExactScore` of it is the minimiser of the denoising loss on them, and
    `denoising_floor` of it the least training loss.

    Parameters
    ----------
    x : Array, shape (N, ...)
        The points; rows of more axes are made vectors of D coordinates.

    Returns
    -------
    GaussianMixture
        N components in D dimensions.

    Raises
    ------
    ValueError, TypeError
        For anything but finite floats (N, ...).

    Examples
    --------
    At x = 0 both points are as near, and at 0.1 the right one weighs a little more:

    >>> import numpy as np
    >>> from refscore.laws.empirical import empirical
    >>> p = empirical(np.array([[-1.0], [1.0]]))
    >>> p.posterior_mean(np.array([[0.0], [0.1], [3.0]]), alpha=1.0, sigma=1.0).round(3)  # tanh(x/σ²)
    array([[0.   ],
           [0.1  ],
           [0.995]])
    """
    check_data("x", x)
    xp, N = array_namespace(x), x.shape[0]
    weights = xp.full((N,), 1 / N, dtype=x.dtype, device=device(x))
    return GaussianMixture(weights, xp.reshape(x, (N, math.prod(x.shape[1:]))), xp.zeros_like(weights))


def collapse_level(n: int, dim: int) -> float:
    """The noise below which n points are told apart again, for data N(0, I)                            Eq. (21.9).

    There a noisy point carries ½ D log(1 + 1/σ²) = log(n - 1) nats of its origin. At less noise the empirical score
    leads back to one training point, at more noise to no particular one.

    Parameters
    ----------
    n : int
        Number of training points, at least 3.
    dim : int
        Their dimension D.

    Returns
    -------
    float
        σ/α in units of the data's deviation, 1/√((n - 1)^(2/D) - 1).

    Raises
    ------
    ValueError
        For n below 3 or dim below 1.

    Examples
    --------
    A million points of 1024 coordinates are told apart at six times as much noise as signal:

    >>> from refscore.laws.empirical import collapse_level
    >>> round(collapse_level(1_000_000, 1024), 2)
    6.05
    """
    n, dim = check_count("n", n, 3), check_count("dim", dim)
    return 1 / math.sqrt(math.expm1(2 / dim * math.log(n - 1)))
