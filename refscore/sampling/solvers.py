"""Solvers: Euler-Maruyama for an SDE, Runge-Kutta for an ODE, one step at a time. Chapters 7 and 10.

A step takes x at time t to time s and returns it with what it must remember; `simulate` walks it
along a grid. Times are Python floats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from refscore.arrays import answer, plain
from refscore.protocols import Array, HasDirection, Process, Rng


@dataclass(frozen=True)
class EulerMaruyama:
    """One Euler-Maruyama step of dx = b(x, t) dt + c(x, t) dw, from t to s      Maruyama 1955. Eq. (7.4).

        x(s) = x(t) + (s - t) b(x, t) + c(x, t) √|s - t| z,   z ~ N(0, I)

    Weak order 1 in the step. With `Reverse(sde, exact_score)` there remain this error, that of the start
    (the prior instead of p₁) and that of the end (t_min instead of 0); only this one shrinks with the step.

    Raises
    ------
    ValueError
        At a step against the direction of a process that has one (`Reverse` down, `Forward` up).
    """

    process: Process

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """x (B, ...) at time t -> x (B, ...) at time s."""
        t, s = plain(t), plain(s)
        upwards = self.process.upwards if isinstance(self.process, HasDirection) else None
        if upwards is not None and upwards != (s > t):
            way = "up, from data to noise" if upwards else "down, from noise to data"
            raise ValueError(f"{type(self.process).__name__} adds noise on its way {way}; got t = {t}, then s = {s}")
        drift, noise = answer("the drift", self.process.drift(x, t), x), plain(self.process.noise(x, t))
        z = rng.standard_normal(x.shape, dtype=x.dtype)
        moved = answer("noise · z", sqrt(abs(s - t)) * noise * z, x)
        return x + (s - t) * drift + moved, None


class Tableau(NamedTuple):
    """An explicit Runge-Kutta method: k_i = v(x + h Σ_j a_ij k_j, t + c_i h), x(s) = x + h Σ_i b_i k_i."""

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
    tableau : Tableau
        `EULER`, `MIDPOINT`, `HEUN`, `RK4`, or your own; as many evaluations a step as it has stages.
    """

    velocity: Callable[[Array, float], Array]
    tableau: Tableau = RK4

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """x (B, ...) at time t -> x (B, ...) at time s. Draws nothing from rng."""
        t, s = plain(t), plain(s)
        h, stages = s - t, list[Array]()
        for row, c in zip(self.tableau.a, self.tableau.c, strict=True):
            v = self.velocity(_along(x, h, row, stages), s if c == 1 else t + c * h)
            stages.append(answer("the velocity", v, x))
        return _along(x, h, self.tableau.b, stages), None


@dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's second-order step of the ODE dx/dt = v(x, t): x' = x + h v(x, t), x(s) = x + ½ h (v(x, t) + v(x', s))."""

    tableau: Tableau = HEUN


def _along(x: Array, h: float, weights: Sequence[float], slopes: Sequence[Array]) -> Array:
    """x + h Σ w k, leaving out what has weight 0."""
    for w, k in zip(weights, slopes, strict=True):
        if w:
            x = x + (h * w) * k
    return x
