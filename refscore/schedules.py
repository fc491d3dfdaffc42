"""Grids of times, as lists of Python floats running down from noise to data. Chapter 10."""

import math

from refscore.arrays import SDE


def uniform_times(n: int, t_min: float = 0.0) -> list[float]:
    """n equal steps from 1 to t_min: n + 1 times.

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 <= t_min < 1.
    """
    _check(n, 0 <= t_min < 1, f"t_min must lie in [0, 1), got {t_min}")
    return [1 - (1 - t_min) * i / n for i in range(n)] + [t_min]


def log_snr_times(sde: SDE, n: int, t_min: float = 1e-3) -> list[float]:
    """n steps from 1 to t_min, equal in log σ/α (in the log signal-to-noise ratio): n + 1 times.

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 < t_min < 1.
    """
    _check(n, 0 < t_min < 1, f"t_min must lie in (0, 1), got {t_min}: log σ/α is infinite at 0")
    top, bottom = (math.log(sde.sigma(t) / sde.alpha(t)) for t in (1.0, t_min))
    inner = [float(sde.time_at_log_ratio(top + (bottom - top) * i / n)) for i in range(1, n)]
    return [1.0, *inner, t_min]


def _check(n: int, good: bool, message: str) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    if not good:
        raise ValueError(message)
