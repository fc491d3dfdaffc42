"""Laws of the time: which noise level a sample is given in training. Chapter 6."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from refscore.arrays import at, constant
from refscore.checks import check_inverse, check_like, check_positive, check_range, settle
from refscore.library import array_namespace, device
from refscore.noise.grids import BEYOND, check_levels
from refscore.noise.sde import log_ratio
from refscore.protocols import SDE, Array


class TimeLaw(Protocol):
    """A law of t on [0, 1], given by its quantiles."""

    @property
    def atoms(self) -> int | None:
        """Number of possible times, all equally likely; None for a continuum."""

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """u (B,) uniform on [0, 1] -> t (B,) or (1,), and the factor that makes the mean loss that of uniform t."""


@dataclass(frozen=True)
class UniformTime:
    """t uniform on [t_min, 1]. Below t_min σ is so small that the loss would be all noise.

    Parameters
    ----------
    t_min : float, default 0.001
        The smallest time, dimensionless.

    Raises
    ------
    ValueError
        Unless 0 < t_min < 1.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VP
    >>> from refscore.matching.times import UniformTime
    >>> t, factor = UniformTime(t_min=0.2).at(VP(), np.array([0.0, 0.5, 1.0]))
    >>> t.round(6), factor
    (array([0.2, 0.6, 1. ]), 1.0)
    """

    t_min: float = 1e-3
    atoms = None

    def __post_init__(self) -> None:
        settle(self)
        _check_t_min(self.t_min)

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """u (B,) -> t = t_min + u (1 - t_min) (B,), and the factor 1; never 1 itself where α(1) = 0."""
        t = self.t_min + u * (1 - self.t_min)
        return (array_namespace(u).minimum(t, 1 - 2.0**-20) if sde.alpha(1.0) == 0 else t), 1.0


@dataclass(frozen=True)
class UniformLogSNR:
    """log σ/α uniform between its values at t_min and 1: density ∝ g²/σ².

    For every linear SDE d(log σ/α)/dt = g²/(2σ²), so that drawing t with density ∝ g²/σ², which Song et
    al. 2021 (arXiv 2101.09258) propose to lower the variance of likelihood weighting, needs no
    numerical inversion: it is this. The factor undoes it, so the expected loss is that of uniform t.

    Parameters
    ----------
    t_min : float, default 0.001
        The smallest time, dimensionless.

    Raises
    ------
    ValueError
        Unless 0 < t_min < 1.
    TypeError
        At the call, for an SDE without `time_at_log_ratio`.

    Examples
    --------
    With σ(t) = t and α = 1, equal steps in log t:

    >>> import numpy as np
    >>> from refscore.matching.times import UniformLogSNR
    >>> from refscore.noise.sde import LinearVE
    >>> t, factor = UniformLogSNR(t_min=0.01).at(LinearVE(sigma_max=1.0), np.array([0.0, 0.5, 1.0]))
    >>> t.round(6)
    array([0.01, 0.1 , 1.  ])
    """

    t_min: float = 1e-3
    atoms = None

    def __post_init__(self) -> None:
        settle(self)
        _check_t_min(self.t_min)

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """u (B,) -> t (B,) at ℓ = ℓ(t_min) + u (ℓ(1) - ℓ(t_min)); factor 2σ²/g² (ℓ(1) - ℓ(t_min))/(1 - t_min) (B,)."""
        check_inverse(sde)
        low, high = log_ratio(sde, self.t_min), log_ratio(sde, 1.0)
        # The inverse may round to a hair above 1.
        t = array_namespace(u).minimum(sde.time_at_log_ratio(low + u * (high - low)), 1.0)
        rate = 2 * (high - low) / (1 - self.t_min)
        return t, rate * (sde.sigma(t) / sde.g(t)) ** 2


@dataclass(frozen=True)
class LogNormal:
    """log σ/α normal, cut to its values at t_min and 1: most noise levels in the middle            Eq. (22.4).

    The law that Karras et al. 2022 train with (their Table 1, ln σ ~ N(P_mean, P_std²)). The factor is 1: here the law
    is a part of the weight, Eq. (22.3), and is not undone.

    Parameters
    ----------
    mean : float, default -1.2
        Mean of log σ/α. Theirs is for data of deviation ½; it goes with the logarithm of that.
    std : float, default 1.2
        Its standard deviation.
    t_min : float, default 0.001
        The smallest time, dimensionless.

    Raises
    ------
    ValueError
        Unless 0 < t_min < 1 and std > 0; at the call, where the SDE's levels lie so far out that none would be drawn.
    TypeError
        At the call, for an SDE without `time_at_log_ratio`.

    Examples
    --------
    The median level is e^mean where little is cut off:

    >>> import numpy as np
    >>> from refscore.matching.times import LogNormal
    >>> from refscore.noise.sde import LinearVE
    >>> t, factor = LogNormal(mean=0.0, std=0.5).at(LinearVE(sigma_max=50.0), np.array([0.5]))
    >>> (50 * t).round(6), factor
    (array([1.]), 1.0)
    """

    mean: float = -1.2
    std: float = 1.2
    t_min: float = 1e-3
    atoms = None

    def __post_init__(self) -> None:
        settle(self)
        check_positive(std=self.std)
        check_range(-1e3, 1e3, mean=self.mean)
        _check_t_min(self.t_min)

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """u (B,) -> t (B,), and the factor 1. Of log σ/α it knows 1025 values, and is even in between."""
        check_inverse(sde)
        ends = tuple(float((log_ratio(sde, t) - self.mean) / self.std) for t in (self.t_min, 1.0))
        try:
            nodes, below = _cut_normal(*ends)
        except ValueError as error:
            raise ValueError(f"{self} and {sde}: {error}; choose a mean and std that reach its levels") from None
        xp = array_namespace(u)
        z, p = (xp.asarray(table, dtype=u.dtype, device=device(u)) for table in (nodes, below))
        cell = xp.clip(xp.searchsorted(p, u, side="right") - 1, 0, _CELLS - 1)
        start, width = xp.take(p, cell), xp.take(p, cell + 1) - xp.take(p, cell)
        share = (u - start) / xp.maximum(width, constant(1e-30, u))
        z = xp.take(z, cell) + share * (xp.take(z, cell + 1) - xp.take(z, cell))
        t = sde.time_at_log_ratio(self.mean + self.std * z)
        return xp.minimum(t, constant(1.0, t)), 1.0


@dataclass(frozen=True)
class FixedTime:
    """One noise level for all: `FixedTime(sde.time(0.5))` is σ = 0.5, `FixedTime(0.0)` the data as they are.

    Parameters
    ----------
    t : float
        The time, dimensionless, in [0, 1].

    Raises
    ------
    ValueError
        Unless 0 <= t <= 1.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VP
    >>> from refscore.matching.times import FixedTime
    >>> t, factor = FixedTime(VP().time(0.5)).at(VP(), np.array([0.1, 0.7]))
    >>> VP().sigma(t).round(6)
    array([0.5])
    """

    t: float
    atoms = 1

    def __post_init__(self) -> None:
        settle(self)
        if not 0 <= self.t <= 1:
            raise ValueError(
                f"t must lie in [0, 1] (data at 0, noise at 1), got {self.t}; for a noise level: FixedTime(sde.time(σ))"
            )

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """u (B,), of which only dtype and device are used -> t (1,), and the factor 1."""
        return at(self.t, u), 1.0


@dataclass(frozen=True)
class Levels:
    """A ladder of noise levels σ₁ > σ₂ > ... > σ_L, each as likely as the others                 Eq. (6.3).

    Song and Ermon 2019, Eq. (6).

    Parameters
    ----------
    sigmas : tuple of float
        The levels σ, in data units, falling.

    Raises
    ------
    ValueError
        Unless there is a level, and they are positive and fall; at the call, for a level beyond the SDE's σ(1).

    Examples
    --------
    With σ(t) = 4t the levels 4, 2, 1 are the times 1, ½, ¼:

    >>> import numpy as np
    >>> from refscore.matching.times import Levels
    >>> from refscore.noise.sde import LinearVE
    >>> t, factor = Levels((4.0, 2.0, 1.0)).at(LinearVE(sigma_max=4.0), np.array([0.1, 0.5, 0.9]))
    >>> t
    array([1.  , 0.5 , 0.25])
    """

    sigmas: tuple[float, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", check_levels(self.sigmas))

    @property
    def atoms(self) -> int:
        """The number of levels, L."""
        return len(self.sigmas)

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """u (B,) -> the time of level 1 + floor(u L) (B,), and the factor 1."""
        check_like(sde=sde)
        xp, n = array_namespace(u), self.atoms
        if self.sigmas[0] > sde.sigma(1.0):
            raise ValueError(
                f"the level {self.sigmas[0]} is beyond the noise that {sde} ends with, {sde.sigma(1.0)}; {BEYOND}"
            )
        ladder = [min(float(sde.time(s)), 1.0) for s in self.sigmas]  # the inverse may round to a hair above 1
        times = xp.asarray(ladder, dtype=u.dtype, device=device(u))
        return xp.take(times, xp.astype(xp.minimum(u * n, n - 1.0), xp.int64)), 1.0  # u L may round to L


_CELLS = 1024


@lru_cache(maxsize=8)
def _cut_normal(first: float, last: float) -> tuple[list[float], list[float]]:
    """N(0, 1) cut to [first, last]: 1025 evenly spaced points, and its distribution function there, from 0 to 1."""
    if first > 0:  # the right tail as the left one, where no digits are lost
        nodes, below = _cut_normal(-last, -first)
        return [-z for z in reversed(nodes)], [1 - p for p in reversed(below)]
    low, total = _ndtr(first), _ndtr(last) - _ndtr(first)
    if not total > 1e-6:
        raise ValueError(f"log σ/α is {first:.3g} to {last:.3g} deviations from the mean, a probability of {total:.2g}")
    nodes = [first + (last - first) * i / _CELLS for i in range(_CELLS)] + [last]
    return nodes, [0.0, *((_ndtr(z) - low) / total for z in nodes[1:-1]), 1.0]


def _ndtr(z: float) -> float:
    """Distribution function of N(0, 1); by erfc, which keeps its digits in the left tail."""
    return 0.5 * math.erfc(-z / math.sqrt(2))


def _check_t_min(t_min: float) -> None:
    if not 0 < t_min < 1:
        raise ValueError(f"t_min must lie in (0, 1), got {t_min}")
