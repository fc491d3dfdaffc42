"""Grids of times, as lists of Python floats running down from noise to data; ladders of noise levels."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from refscore.checks import check_count, check_inverse, check_like, check_number
from refscore.noise.sde import log_ratio
from refscore.protocols import SDE

BEYOND = "give the SDE more noise (for VE σ(1)² = sigma_max² - sigma_min², a little below sigma_max)"


def uniform_times(n: int, t_min: float = 0.0) -> list[float]:
    """Return a grid of n equal steps from 1 to t_min. Not for `LinearVE`, whose t is σ: take `karras_times` there.

    Parameters
    ----------
    n : int
        Number of steps, at least 1.
    t_min : float, default 0
        Where the grid ends, at least 0 and below 1.

    Returns
    -------
    list of n + 1 floats
        From 1 down to t_min.

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 <= t_min < 1.

    Examples
    --------
    >>> from refscore.noise.grids import uniform_times
    >>> uniform_times(4)
    [1.0, 0.75, 0.5, 0.25, 0.0]
    """
    n, t_min = _settled(n, t_min)
    return [1 - (1 - t_min) * i / n for i in range(n)] + [t_min]


def log_snr_times(sde: SDE, n: int, t_min: float = 1e-3) -> list[float]:
    """Return a grid of n steps from 1 to t_min, equal in log σ/α (in the log signal-to-noise ratio).

    Parameters
    ----------
    sde : SDE
        With a method `time_at_log_ratio`.
    n : int
        Number of steps, at least 1.
    t_min : float, default 0.001
        Where the grid ends, above 0 and below 1.

    Returns
    -------
    list of n + 1 floats
        From 1 down to t_min.

    Raises
    ------
    TypeError
        For an SDE that has no `time_at_log_ratio`.
    ValueError
        Unless n >= 1 and 0 < t_min < 1; for an SDE with α(1) = 0, whose log σ/α is infinite at t = 1.

    Examples
    --------
    >>> from refscore.noise.grids import log_snr_times
    >>> from refscore.noise.sde import LinearVE
    >>> [round(t, 6) for t in log_snr_times(LinearVE(80.0), 3)]  # σ is 80 t: each level a tenth of the one before
    [1.0, 0.1, 0.01, 0.001]
    """
    n, t_min = _settled(n, t_min)
    if t_min == 0:
        raise ValueError("t_min must lie in (0, 1), got 0: log σ/α is infinite at 0")
    check_inverse(sde)
    top, bottom = (log_ratio(sde, t) for t in (1.0, t_min))
    inner = [float(sde.time_at_log_ratio(top + (bottom - top) * i / n)) for i in range(1, n)]
    return [1.0, *inner, t_min]


def karras_times(sde: SDE, n: int, high: float | None = None, low: float = 0.002, rho: float = 7.0) -> list[float]:
    """Return a grid of n steps: the n levels ς = σ/α with ς^{1/ρ} equally spaced from high to low, and 0  Eq. (10.18).

    Karras et al. 2022, who have high = 80 and low = 0.002 for data of deviation ½. By default high is σ(1)/α(1), where
    `prior` draws.

    Parameters
    ----------
    sde : SDE
        With a method `time_at_log_ratio`.
    n : int
        Number of steps and of levels, at least 2.
    high, low : float, default σ(1)/α(1) and 0.002
        The largest and the smallest level ς, in data units.
    rho : float, default 7
        ρ: the larger, the finer the grid is near the data.

    Returns
    -------
    list of n + 1 floats
        From 1 down to 0.

    Raises
    ------
    TypeError
        For an SDE that has no `time_at_log_ratio`.
    ValueError
        Unless n >= 2, high > low > 0 and 0 < rho < ∞; for a level beyond the SDE's σ(1)/α(1); without `high` where
        α(1) = 0.

    Examples
    --------
    >>> from refscore.noise.grids import karras_times
    >>> from refscore.noise.sde import LinearVE
    >>> [round(t, 6) for t in karras_times(LinearVE(4.0), 3, low=2.0, rho=1.0)]  # levels 4, 3, 2; and 0
    [1.0, 0.75, 0.5, 0.0]
    """
    n, low, rho = check_count("n", n, 2), check_number("low", low), check_number("rho", rho)
    check_inverse(sde)
    top = math.inf if sde.alpha(1.0) == 0 else sde.sigma(1.0) / sde.alpha(1.0)
    if high is None and top == math.inf:
        raise ValueError(f"{sde} ends with α = 0, at no finite level: give a `high`, and start there, below t = 1")
    high = top if high is None else check_number("high", high)
    if not (0 < low < high < math.inf and 0.05 <= rho < math.inf):
        raise ValueError(f"need high > low > 0 and finite rho >= 0.05, got {high}, {low}, {rho}")
    if high > top * (1 + 1e-12):
        raise ValueError(f"the level {high} is beyond the noise that {sde} ends with, σ/α = {top:.6g}")
    a, b = high ** (1 / rho), low ** (1 / rho)
    levels = [(a + i / (n - 1) * (b - a)) ** rho for i in range(n - 1)] + [low]
    return [*(min(float(sde.time_at_log_ratio(math.log(level))), 1.0) for level in levels), 0.0]


def quadratic_times(n: int, t_min: float = 1e-3) -> list[float]:
    """Return a grid of n steps from 1 to t_min, equal in √t: finer towards the data.

    Parameters
    ----------
    n : int
        Number of steps, at least 1.
    t_min : float, default 0.001
        Where the grid ends, at least 0 and below 1.

    Returns
    -------
    list of n + 1 floats
        From 1 down to t_min.

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 <= t_min < 1.

    Examples
    --------
    >>> from refscore.noise.grids import quadratic_times
    >>> quadratic_times(4, t_min=0.0)
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    n, t_min = _settled(n, t_min)
    root = math.sqrt(t_min)
    return [(1 + i / n * (root - 1)) ** 2 for i in range(n)] + [t_min]


def geometric_levels(high: float, low: float, n: int) -> tuple[float, ...]:
    """Return n noise levels from high down to low, each the same fraction of the one before        Eq. (6.6).

    Equal steps in log σ (Song and Ermon 2019).

    Parameters
    ----------
    high, low : float
        The largest and the smallest level σ, in data units.
    n : int
        Number of levels, at least 2.

    Returns
    -------
    tuple of n floats
        From high down to low.

    Raises
    ------
    ValueError
        Unless n >= 2 and high > low > 0.

    Examples
    --------
    >>> from refscore.noise.grids import geometric_levels
    >>> [round(s, 6) for s in geometric_levels(8.0, 1.0, 4)]
    [8.0, 4.0, 2.0, 1.0]
    """
    n, high, low = check_count("n", n, 2), check_number("high", high), check_number("low", low)
    if not 0 < low < high < math.inf:
        raise ValueError(f"need high > low > 0, got {high}, {low}")
    return (*(high * (low / high) ** (i / (n - 1)) for i in range(n - 1)), low)


def level_times(sde: SDE, sigmas: Sequence[float]) -> list[float]:
    """Return the times at which σ(t) is each of the levels, and then 0: the grid of `AnnealedLangevin`, Eq. (6.7).

    Parameters
    ----------
    sde : SDE
        Its `time(sigma)` is used.
    sigmas : sequence of L floats
        The levels σ, from the largest to the smallest, in data units.

    Returns
    -------
    list of L + 1 floats
        From the time of the largest level down to 0.

    Raises
    ------
    ValueError
        Unless there is a level, and they are positive and fall; for a level beyond the SDE's σ(1).

    Examples
    --------
    >>> from refscore.noise.grids import level_times
    >>> from refscore.noise.sde import LinearVE
    >>> level_times(LinearVE(80.0), [40.0, 20.0])  # σ is 80 t
    [0.5, 0.25, 0.0]
    """
    check_like(sde=sde)
    sigmas = check_levels(sigmas)
    if sigmas[0] > sde.sigma(1.0):
        raise ValueError(f"the level {sigmas[0]} is beyond the noise that {sde} ends with, {sde.sigma(1.0)}; {BEYOND}")
    return [*(min(1.0, float(sde.time(s))) for s in sigmas), 0.0]  # σ(1) may round to a time above 1


def check_levels(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Return the levels as Python floats, or refuse them.

    Parameters
    ----------
    sigmas : sequence of L floats
        Levels σ, from the largest to the smallest.

    Returns
    -------
    tuple of L floats
        The same levels.

    Raises
    ------
    TypeError
        For levels that are not numbers.
    ValueError
        Unless there is a level, and they are positive and fall.
    """
    if not isinstance(sigmas, Iterable):
        raise TypeError(f"levels must be a sequence of numbers, got {sigmas!r}")
    sigmas = tuple(check_number(f"levels[{i}]", s) for i, s in enumerate(sigmas))
    if len(sigmas) == 0:
        raise ValueError("levels must hold at least one σ, got none")
    if not all(math.isfinite(s) and s > 0 for s in sigmas):
        raise ValueError(f"levels must be positive and finite, got {sigmas[:5]}")
    if not all(a > b for a, b in pairwise(sigmas)):
        raise ValueError(f"levels must fall strictly, from the largest noise to the least; got {sigmas[:5]}")
    return sigmas


def _settled(n: int, t_min: float) -> tuple[int, float]:
    n, t_min = check_count("n", n), check_number("t_min", t_min)
    if not 0 <= t_min < 1:
        raise ValueError(f"t_min must lie in [0, 1), got {t_min}")
    return n, t_min
