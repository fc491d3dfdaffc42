"""Precision, recall, density, coverage: which points lie in the balls around those of the other sample. Chapter 20."""

import math
from dataclasses import dataclass

from refscore.checks import check_count
from refscore.library import array_namespace
from refscore.measure.distance import _check_pair
from refscore.protocols import Array


@dataclass(frozen=True)
class Coverage:
    """What the balls around data and around samples contain; each ball reaches to the k-th neighbour of its own kind.

    Parameters
    ----------
    precision : float
        The share of samples that lie in some ball of the data.
    recall : float
        The share of data that lie in some ball of the samples.
    density : float
        How many balls of the data hold a sample, on average, over k. Of a right generator the mean is 1.
    coverage : float
        The share of the data's balls that hold a sample.
    chance : float
        The mean of the coverage for a right generator, whatever the law.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    chance: float


def coverage(samples: Array, data: Array, k: int = 5) -> Coverage:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)     Eq. (20.14).

    For a right generator the mean of density and coverage is known, Eq. (20.15), whatever the law of the data; those of
    precision and recall are not, and not 1.

    Parameters
    ----------
    samples : Array, shape (M, D)
        What the generator made, more than k.
    data : Array, shape (N, D)
        Data that it was not trained on, more than k.
    k : int, default 5
        Which neighbour a ball reaches to.

    Returns
    -------
    Coverage
        The four shares, and what coverage is by chance.

    Raises
    ------
    ValueError, TypeError
        For samples of different D, dtype or library, not finite, or too few; for k less than 1.

    Examples
    --------
    One of two modes is never sampled. All that is made is right, half of the data are not covered:

    >>> import numpy as np
    >>> from refscore.measure.coverage import coverage
    >>> x = np.arange(10.0)[:, None]
    >>> found = coverage(x + 0.1, np.concatenate([x, x + 1000]), k=1)
    >>> found.precision, found.recall, found.coverage
    (1.0, 0.5, 0.5)
    """
    _check_pair(samples, data)
    k, M, N = check_count("k", k), samples.shape[0], data.shape[0]
    if min(M, N) <= k:
        raise ValueError(f"each point needs {k} others of its own kind, but there are {M} samples and {N} data")
    xp = array_namespace(data)
    around_data, around_samples = _reach(data, k), _reach(samples, k)
    in_data, held, known = xp.zeros_like(around_samples), [], []
    for i in range(0, N, 512):
        own = slice(i, min(i + 512, N))
        square = _squares(data[own, :], samples)
        hit = xp.astype(square <= around_data[own, None], data.dtype)
        in_data = in_data + xp.sum(hit, axis=0)  # of each sample: the balls it is in
        held.append(xp.max(hit, axis=1))
        known.append(xp.max(xp.astype(square <= around_samples[None, :], data.dtype), axis=1))
    return Coverage(
        float(xp.mean(xp.astype(in_data > 0, data.dtype))), float(xp.mean(xp.concat(known))),
        float(xp.mean(in_data)) / k, float(xp.mean(xp.concat(held))),
        1 - math.comb(N - 1, k) / math.comb(M + N - 1, k),
    )  # fmt: skip


def _reach(x: Array, k: int) -> Array:
    """The squared distance of each row to its k-th neighbour among the others; the row itself is the 0-th."""
    xp, n = array_namespace(x), x.shape[0]
    parts = [xp.sort(_squares(x[i : min(i + 512, n), :], x), axis=1)[:, k] for i in range(0, n, 512)]
    return xp.concat(parts)


def _squares(x: Array, y: Array) -> Array:
    """All squared distances, by differences."""
    return sum((x[:, d, None] - y[None, :, d]) ** 2 for d in range(x.shape[1]))
