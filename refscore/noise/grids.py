"""Grids of times, as lists of Python floats running down from noise to data; ladders of noise levels."""

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from refscore.checks import check_count, check_inverse, check_number
from refscore.protocols import SDE

BEYOND = "give the SDE more noise (for VE σ(1)² = sigma_max² - sigma_min², a little below sigma_max)"


def uniform_times(n: int, t_min: float = 0.0) -> list[float]:
    """n equal steps from 1 to t_min: n + 1 times. Not for `LinearVE`, whose t is σ: take `karras_times` there.

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 <= t_min < 1.
    """
    n, t_min = _settled(n, t_min)
    return [1 - (1 - t_min) * i / n for i in range(n)] + [t_min]


def log_snr_times(sde: SDE, n: int, t_min: float = 1e-3) -> list[float]:
    """n steps from 1 to t_min, equal in log σ/α (in the log signal-to-noise ratio): n + 1 times.

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 < t_min < 1.
    """
    n, t_min = _settled(n, t_min)
    if t_min == 0:
        raise ValueError("t_min must lie in (0, 1), got 0: log σ/α is infinite at 0")
    check_inverse(sde)
    top, bottom = (math.log(sde.sigma(t) / sde.alpha(t)) for t in (1.0, t_min))
    inner = [float(sde.time_at_log_ratio(top + (bottom - top) * i / n)) for i in range(1, n)]
    return [1.0, *inner, t_min]


def karras_times(sde: SDE, n: int, high: float | None = None, low: float = 0.002, rho: float = 7.0) -> list[float]:
    """n steps: the n levels ς = σ/α with ς^{1/ρ} equally spaced from high to low, and then 0      Eq. (10.15).

    Karras et al. 2022, who have high = 80 and low = 0.002 for data of deviation ½. By default high is σ(1)/α(1), where
    `prior` draws.

    Raises
    ------
    ValueError
        Unless n >= 2, high > low > 0 and 0 < rho < ∞; for a level beyond the SDE's σ(1)/α(1).
    """
    n, low, rho = check_count("n", n, 2), check_number("low", low), check_number("rho", rho)
    check_inverse(sde)
    top = sde.sigma(1.0) / sde.alpha(1.0)
    high = top if high is None else check_number("high", high)
    if not (0 < low < high < math.inf and 0 < rho < math.inf):
        raise ValueError(f"need high > low > 0 and finite rho > 0, got {high}, {low}, {rho}")
    if high > top * (1 + 1e-12):
        raise ValueError(f"the level {high} is beyond the noise that {sde} ends with, σ/α = {top:.6g}")
    a, b = high ** (1 / rho), low ** (1 / rho)
    levels = [(a + i / (n - 1) * (b - a)) ** rho for i in range(n - 1)] + [low]
    return [*(min(float(sde.time_at_log_ratio(math.log(level))), 1.0) for level in levels), 0.0]


def quadratic_times(n: int, t_min: float = 1e-3) -> list[float]:
    """n steps from 1 to t_min, equal in √t: finer towards the data.

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 <= t_min < 1.
    """
    n, t_min = _settled(n, t_min)
    root = math.sqrt(t_min)
    return [(1 + i / n * (root - 1)) ** 2 for i in range(n)] + [t_min]


def geometric_levels(high: float, low: float, n: int) -> tuple[float, ...]:
    """n noise levels from high down to low, each the same fraction of the one before        Eq. (6.6).

    Equal steps in log σ (Song and Ermon 2019).

    Raises
    ------
    ValueError
        Unless n >= 2 and high > low > 0.
    """
    n, high, low = check_count("n", n, 2), check_number("high", high), check_number("low", low)
    if not 0 < low < high < math.inf:
        raise ValueError(f"need high > low > 0, got {high}, {low}")
    return (*(high * (low / high) ** (i / (n - 1)) for i in range(n - 1)), low)


def level_times(sde: SDE, sigmas: Sequence[float]) -> list[float]:
    """The times at which σ(t) is each of the levels, and then 0: the grid of annealed Langevin dynamics, Eq. (6.7).

    Raises
    ------
    ValueError
        Unless there is a level, and they are positive and fall; for a level beyond the SDE's σ(1).
    """
    sigmas = check_levels(sigmas)
    if sigmas[0] > sde.sigma(1.0):
        raise ValueError(f"the level {sigmas[0]} is beyond the noise that {sde} ends with, {sde.sigma(1.0)}; {BEYOND}")
    return [*(min(1.0, float(sde.time(s))) for s in sigmas), 0.0]  # σ(1) may round to a time above 1


def check_levels(sigmas: Sequence[float]) -> tuple[float, ...]:
    """The ladder as Python floats; refused if it is empty, not positive, or not falling."""
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
