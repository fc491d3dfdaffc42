"""The Fréchet distance: two samples, or their features, compared by mean and covariance alone. Chapter 20."""

from refscore.checks import check_count, check_floating
from refscore.laws.affine_chain import Gaussian, wasserstein
from refscore.library import array_namespace
from refscore.measure.distance import _check_pair
from refscore.protocols import Array


def frechet_distance(x: Array, y: Array) -> float:
    """The squared 2-Wasserstein distance of two Gaussians with the samples' moments                Eq. (20.1).

    On features of the Inception network this is FID (Heusel et al. 2017). Laws of one mean and one covariance are the
    same to it, and samples of one law are some distance apart, `frechet_bias` says how far.

    Parameters
    ----------
    x, y : Array, shapes (N, D), (M, D)
        The two samples, each of at least 2 rows.

    Returns
    -------
    float
        The squared distance, in the squared units of x.

    Raises
    ------
    ValueError, TypeError
        For samples of fewer than 2 rows, of different D, dtype or library, or that are not finite.

    Examples
    --------
    Twice as wide, and shifted by 3: (2 - 1)² · variance + 3².

    >>> import numpy as np
    >>> from refscore.measure.frechet import frechet_distance
    >>> x = np.array([[-1.0], [0.0], [1.0]])  # of variance 1
    >>> round(frechet_distance(x, 2 * x + 3), 6)
    10.0
    """
    _check_pair(x, y)
    if min(x.shape[0], y.shape[0]) < 2:
        raise ValueError(f"both samples need at least 2 rows, got {x.shape[0]} and {y.shape[0]}")
    return wasserstein(_fitted(x), _fitted(y)) ** 2


def frechet_bias(cov: Array, n: int) -> float:
    """What the Fréchet distance of n normal draws to their own law is, on average, to first order in 1/n   Eq. (20.2).

    With two samples of n and m draws of one law it is the sum of both.

    Parameters
    ----------
    cov : Array, shape (D, D)
        The covariance of the law.
    n : int
        Number of draws.

    Returns
    -------
    float
        [Σ λ_i + Σ_ij λ_i λ_j (1 + δ_ij) / 2(λ_i + λ_j)] / n, of the eigenvalues λ of the covariance.

    Raises
    ------
    ValueError, TypeError
        For a covariance that is not a square matrix of floats; for n less than 1.

    Examples
    --------
    2048 features of variance 1, fifty thousand images on both sides:

    >>> import numpy as np
    >>> from refscore.measure.frechet import frechet_bias
    >>> round(2 * frechet_bias(np.eye(2048), 50_000), 1)
    42.0
    """
    check_floating("cov", cov, ndim=2)
    n, xp = check_count("n", n), array_namespace(cov)
    if cov.shape[0] != cov.shape[1]:
        raise ValueError(f"cov must be a square matrix, got {tuple(cov.shape)}")
    values = xp.linalg.eigvalsh(cov)
    total = values[:, None] + values[None, :]
    pairs = xp.where(total > 0, values[:, None] * values[None, :] / (2 * xp.where(total > 0, total, 1.0)), 0.0)
    return float(1.25 * xp.sum(values) + xp.sum(pairs)) / n


def _fitted(x: Array) -> Gaussian:
    """Mean, and covariance by n - 1."""
    xp = array_namespace(x)
    mean = xp.mean(x, axis=0)
    away = x - mean
    return Gaussian(mean, xp.matrix_transpose(away) @ away / (x.shape[0] - 1))
