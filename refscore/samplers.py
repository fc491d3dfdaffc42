"""Samplers: move x from noise (t = 1) to data (t = 0), one step at a time. Chapter 10.

A step takes x at time t to time s and returns it with what it must remember; `simulate` walks it
along a grid. Times are Python floats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from refscore.arrays import SDE, Array, Kernel, Process, Rng, Score, Step, check_answer, plain, settle
from refscore.langevin import Langevin, LevelStep


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
        upwards = getattr(self.process, "upwards", None)
        if upwards is not None and upwards != (s > t):
            way = "up, from data to noise" if upwards else "down, from noise to data"
            raise ValueError(f"{type(self.process).__name__} adds noise on its way {way}; got t = {t}, then s = {s}")
        drift, noise = check_answer("the drift", self.process.drift(x, t), x), plain(self.process.noise(x, t))
        z = rng.standard_normal(x.shape, dtype=x.dtype)
        moved = check_answer("noise · z", sqrt(abs(s - t)) * noise * z, x)
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
            stages.append(check_answer("the velocity", v, x))
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


# ------------------------------------------------------------------ composition


@dataclass(frozen=True)
class Stay:
    """The step that goes nowhere: time passes, x remains."""

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: None = None) -> tuple[Array, None]:
        """x -> x."""
        return x, None


@dataclass(frozen=True)
class Repeat:
    """A kernel applied n times at the same t.

    Raises
    ------
    ValueError
        Unless n >= 1.
    """

    kernel: Kernel
    n: int

    def __post_init__(self) -> None:
        settle(self, n=1)

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """x (B, ...) -> x (B, ...), both at time t."""
        for _ in range(self.n):
            x = self.kernel(x, t, rng)
        return x


@dataclass(frozen=True)
class First:
    """First the kernel at t, then the step from t to s.

    `First(Langevin(score, 0.01), Stay())` is plain Langevin dynamics as a step; with a grid that ends
    at 0 and `Repeat` around the kernel it is annealed Langevin.
    """

    kernel: Kernel
    step: Step

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """x (B, ...) at time t -> x (B, ...) at time s."""
        return self.step(self.kernel(x, t, rng), t, s, rng, memory)


@dataclass(frozen=True)
class Then:
    """First the step from t to s, then the kernel at s: predict, correct. At s = 0, without noise, no correction."""

    step: Step
    kernel: Kernel

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """x (B, ...) at time t -> x (B, ...) at time s."""
        x, memory = self.step(x, t, s, rng, memory)
        return (x if s == 0 else self.kernel(x, s, rng)), memory


@dataclass(frozen=True)
class AnnealedLangevin:
    """n Langevin moves at each noise level, from the largest to the least                       Eq. (6.7).

    Song and Ermon 2019, Algorithm 1; on a Gaussian its law is Eq. (6.8).

    A step for grids `level_times(sde, levels)`, the times of the levels and then 0 (without the 0 the last level is
    left out): it is `First(Repeat(Langevin(score, LevelStep(sde, step, last)), moves), Stay())`.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
    sde : SDE
        Whose σ(t) the levels are, the model's own; `VE` for those of the paper.
    step : float
        ε at the last level, in squared data units: the paper's is twice as large in name.
    last : float
        σ_L, the smallest level.
    moves : int
        n, at each level.

    Raises
    ------
    ValueError
        Unless step and last are positive and moves is an integer >= 1; for a step that adds noise, or whose level is
        below the last: then grid, `last` and `sde` do not go together.
    """

    score: Score
    sde: SDE
    step: float
    last: float
    moves: int = 100

    def __post_init__(self) -> None:
        settle(self, moves=1)
        self.one_level()  # whose parts check what they are given

    def one_level(self) -> First:
        """The same, as the composition it is."""
        return First(Repeat(Langevin(self.score, LevelStep(self.sde, self.step, self.last)), self.moves), Stay())

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: object = None) -> tuple[Array, object]:
        """x (B, ...) at the level of t -> x (B, ...), after the moves there."""
        level = self.sde.sigma(t)
        if not s < t:
            raise ValueError(f"annealing goes from the largest noise to the least; got t = {t}, then s = {s}")
        if level < self.last * (1 - 1e-9):
            raise ValueError(
                f"t = {t:.6g} is the level σ = {level:.6g}, below the last one, {self.last}: take the grid "
                "level_times(sde, levels), and last = levels[-1]"
            )
        return self.one_level()(x, t, s, rng, memory)
