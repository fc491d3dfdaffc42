"""Solvers: Euler-Maruyama for an SDE, Runge-Kutta for an ODE, one step at a time. Chapters 7 and 10.

A step takes x at time t to time s and returns it with what it must remember; `simulate` walks it
along a grid. Times are Python floats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from refscore.arrays import answer
from refscore.checks import check_like, check_size, is_number, plain, settle
from refscore.protocols import Array, Process, Rng


@dataclass(frozen=True)
class EulerMaruyama:
    """One Euler-Maruyama step of dx = b(x, t) dt + c(x, t) dw, from t to s      Maruyama 1955. Eq. (7.4).

        x(s) = x(t) + (s - t) b(x, t) + c(x, t) √|s - t| z,   z ~ N(0, I)

    Weak order 1 in the step. With `Reverse(sde, exact_score)` there remain this error, that of the start
    (the prior instead of p₁) and that of the end (t_min instead of 0); only this one shrinks with the step.

    Parameters
    ----------
    process : Process
        Its drift(x, t) is b and its noise(x, t) is c: `Reverse`, `Forward`, or your own. It may say by `upwards`
        that it is walked one way only: True from data to noise, False from noise to data, None both ways.

    Raises
    ------
    ValueError
        At a step against the direction of a process that has one (`Reverse` down, `Forward` up); at a drift, or noise
        times z, that has not the shape of x.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import EulerMaruyama, Reverse
    >>> from refscore.noise.sde import LinearVE
    >>> point = lambda x, t: -x / t**2  # the score of data that are one point, 0, with noise of σ = t
    >>> flow = Reverse(LinearVE(1.0), point, lam=0)  # dx/dt = x/t
    >>> x, memory = EulerMaruyama(flow)(np.array([[2.0]]), 1.0, 0.5, np.random.default_rng(0))
    >>> x  # 2 - ½ · 2/1
    array([[1.]])
    """

    process: Process

    def __post_init__(self) -> None:
        settle(self)

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """Move x (B, ...) from time t to time s; there is nothing to remember (None)."""
        t, s = plain(t), plain(s)
        check_size(t=t, s=s)
        upwards = getattr(self.process, "upwards", None)
        if upwards is not None and is_number(t) and is_number(s) and upwards != (s > t):  # a compiler's times pass
            way = "up, from data to noise" if upwards else "down, from noise to data"
            raise ValueError(f"{type(self.process).__name__} adds noise on its way {way}; got t = {t}, then s = {s}")
        drift, noise = answer("the drift", self.process.drift(x, t), x), plain(self.process.noise(x, t))
        check_like(rng=rng)
        z = rng.standard_normal(x.shape, dtype=x.dtype)
        moved = answer("noise · z", abs(s - t) ** 0.5 * noise * z, x)
        return x + (s - t) * drift + moved, None


class Tableau(NamedTuple):
    """The numbers of an explicit Runge-Kutta method: k_i = v(x + h Σ_j a_ij k_j, t + c_i h), x(s) = x + h Σ_i b_i k_i.

    Parameters
    ----------
    a : tuple of tuples of floats
        Row i holds the i numbers a_ij, j < i.
    b : tuple of floats
        One weight a stage, with sum 1.
    c : tuple of floats
        One number a stage, the time at which it evaluates v, in steps after t.
    order : int
        The error of x(s) after a fixed time is O(h^order).
    """

    a: tuple[tuple[float, ...], ...]  # row i has i entries
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int


EULER = Tableau(((),), (1.0,), (0.0,), 1)
MIDPOINT = Tableau(((), (0.5,)), (0.0, 1.0), (0.0, 0.5), 2)
HEUN = Tableau(((), (1.0,)), (0.5, 0.5), (0.0, 1.0), 2)
RK4 = Tableau(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0.0, 0.5, 0.5, 1.0), 4)
TABLEAUX = {"euler": EULER, "midpoint": MIDPOINT, "heun": HEUN, "rk4": RK4}


@dataclass(frozen=True)
class RungeKutta:
    """One explicit Runge-Kutta step of the ODE dx/dt = v(x, t), from t to s, up or down       Eqs. (7.1), (7.2).

    For the probability flow v is `Reverse(sde, score, lam=0).drift`. A method that evaluates v at s too (Heun, RK4)
    should end above t = 0 where v is a network's: there σ = 0.

    Parameters
    ----------
    velocity : callable (x, t) -> (B, ...)
        v, for x (B, ...) and a float t.
    tableau : Tableau, default RK4
        `EULER`, `MIDPOINT`, `HEUN`, `RK4`, or your own; as many evaluations a step as it has stages.

    Raises
    ------
    ValueError
        At a velocity that has not the shape of x.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import RungeKutta
    >>> step = RungeKutta(lambda x, t: x)  # dx/dt = x, so that x(1) = e x(0)
    >>> x, memory = step(np.array([[1.0]]), 0.0, 1.0, np.random.default_rng(0))
    >>> x.round(4)  # 1 + 1 + 1/2 + 1/6 + 1/24
    array([[2.7083]])
    """

    velocity: Callable[[Array, float], Array]
    tableau: Tableau = RK4

    def __post_init__(self) -> None:
        settle(self)

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """Move x (B, ...) from time t to time s, without a draw from rng; there is nothing to remember (None)."""
        t, s = plain(t), plain(s)
        check_size(t=t, s=s)
        h, stages = s - t, list[Array]()
        for row, c in zip(self.tableau.a, self.tableau.c, strict=True):
            v = self.velocity(_along(x, h, row, stages), s if c == 1 else t + c * h)
            stages.append(answer("the velocity", v, x))
        return _along(x, h, self.tableau.b, stages), None


@dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's second-order step of the ODE dx/dt = v(x, t): x' = x + h v(x, t), x(s) = x + ½ h (v(x, t) + v(x', s)).

    Parameters
    ----------
    velocity : callable (x, t) -> (B, ...)
        v, for x (B, ...) and a float t.
    tableau : Tableau, default HEUN
        Leave it: with another one it is `RungeKutta`.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Heun
    >>> x, memory = Heun(lambda x, t: x)(np.array([[1.0]]), 0.0, 1.0, np.random.default_rng(0))  # dx/dt = x
    >>> x  # 1 + 1 + 1/2
    array([[2.5]])
    """

    tableau: Tableau = HEUN


def _along(x: Array, h: float, weights: Sequence[float], slopes: Sequence[Array]) -> Array:
    """x + h Σ w k, leaving out what has weight 0."""
    for w, k in zip(weights, slopes, strict=True):
        if w:
            x = x + (h * w) * k
    return x
