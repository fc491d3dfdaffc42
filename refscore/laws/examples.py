"""The embedded data sets: 2-D mixtures, whose density and score are known at every noise level.

Also the curved ones are mixtures, of many narrow components along a curve.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from refscore.laws.mixture import GaussianMixture

Parameters = tuple[Any, Any, Any]


def tilted() -> Parameters:
    """Return three tilted or round components of different weight: the reference mixture of the tests.

    Returns
    -------
    weights, means, covariances
        Numbers for `GaussianMixture`, before they are made arrays; `mixture` does that.
    """

    def turned(variances: tuple[float, float], degrees: float) -> Any:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        U = np.array([[c, -s], [s, c]])
        return U * variances @ U.T

    covariances = [turned((0.5, 0.1), 30), turned((0.3, 0.05), -50), turned((0.2, 0.2), 0)]
    return [0.5, 0.3, 0.2], [[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]], covariances


def two_modes() -> Parameters:
    """Return ⅘ N((5, 5), I) + ⅕ N((-5, -5), I), of Song and Ermon 2019.

    Returns
    -------
    weights, means, covariances
        Numbers for `GaussianMixture`, before they are made arrays; `mixture` does that.
    """
    return [0.8, 0.2], [[5.0, 5.0], [-5.0, -5.0]], [1.0, 1.0]


def circle() -> Parameters:
    """Return eight round components of standard deviation 0.1 on a circle of radius 2.

    Returns
    -------
    weights, means, covariances
        Numbers for `GaussianMixture`, before they are made arrays; `mixture` does that.
    """
    angles = 2 * math.pi * np.arange(8) / 8
    return [1 / 8] * 8, 2 * np.stack([np.cos(angles), np.sin(angles)], axis=1), [0.1**2] * 8


def spiral() -> Parameters:
    """Return sixty narrow components along a little more than one turn of a spiral.

    Returns
    -------
    weights, means, covariances
        Numbers for `GaussianMixture`, before they are made arrays; `mixture` does that.
    """
    angles = 3 * math.pi * np.sqrt(np.linspace(0.05, 1, 60))
    means = 0.25 * angles[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return [1 / 60] * 60, means, [0.1**2] * 60


MIXTURES: dict[str, Callable[[], Parameters]] = {
    "tilted": tilted,
    "two-modes": two_modes,
    "circle": circle,
    "spiral": spiral,
}


def mixture(name: str, asarray: Callable[..., Any] = np.asarray, dtype: str = "float64") -> GaussianMixture:
    """Return the embedded mixture of this name.

    Parameters
    ----------
    name : str
        A key of `MIXTURES`: "tilted", "two-modes", "circle" or "spiral".
    asarray : callable, default `numpy.asarray`
        asarray(numbers, dtype=...) makes the arrays: it chooses library and device.
    dtype : str, default "float64"
        "float32" or "float64".

    Returns
    -------
    GaussianMixture
        In two dimensions.

    Raises
    ------
    ValueError
        For a name that is not in `MIXTURES`.

    Examples
    --------
    >>> from refscore.laws.examples import mixture
    >>> mixture("two-modes").means
    array([[ 5.,  5.],
           [-5., -5.]])
    """
    if name not in MIXTURES:
        raise ValueError(f"no data set called {name!r}; there are {', '.join(MIXTURES)}")
    weights, means, covariances = (np.asarray(p, dtype="float64") for p in MIXTURES[name]())
    weights = weights / weights.sum()
    return GaussianMixture(*(asarray(p, dtype=dtype) for p in (weights, means, covariances)))
