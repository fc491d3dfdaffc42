"""The law of a sampler in one dimension, without a single sample. Chapter 2.

A step x -> m(x) + c z turns a density into a mixture of Gaussians, one for each point it started from. On a grid of
cells that is a matrix product with integrals of Gaussians over cells, known in closed form: the law of the sampler
after any number of steps, weights of modes included, is a number and not an estimate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr

from refscore.arrays import Score

Array = Any


@dataclass(frozen=True, eq=False)
class GridLaw:
    """How much probability each of n equal cells of [low, high] holds.

    Mass is kept at the centres of cells, which adds h²/12 to the variance at every step, h the width of a cell. The
    step's own noise is lessened by as much, so h²/12 must be below c² (h below c: then also the shape is right to
    1e-3 or better). What leaves the interval is lost; `lost` tells how much.

    Raises
    ------
    ValueError
        Unless low < high and the masses are not negative.
    """

    low: float
    high: float
    mass: Array  # (n,)

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"need low < high, got {self.low}, {self.high}")
        if not np.all(self.mass >= 0):
            raise ValueError("masses must not be negative")

    @property
    def width(self) -> float:
        """h."""
        return (self.high - self.low) / len(self.mass)

    @property
    def edges(self) -> Array:
        """The n + 1 edges of the cells."""
        return np.linspace(self.low, self.high, len(self.mass) + 1)

    @property
    def centres(self) -> Array:
        """The n centres of the cells."""
        edges = self.edges
        return 0.5 * (edges[1:] + edges[:-1])

    @property
    def lost(self) -> float:
        """1 less the mass that is still there."""
        return float(1 - self.mass.sum())

    def mean(self, f: Callable[[Array], Array]) -> float:
        """E f(x), f on the centres."""
        return float(self.mass @ f(self.centres))

    def transition(self, move: Callable[[Array], Array], noise: float) -> Array:
        """The matrix (n, n) of the step x -> move(x) + noise z: row i is where the mass of cell i goes.

        Raises
        ------
        ValueError
            If the cells are too wide for the noise.
        """
        variance = noise**2 - self.width**2 / 12
        if self.width > noise:
            raise ValueError(f"cells of width {self.width:.3g} are too wide for noise of deviation {noise:.3g}")
        to = (self.edges[None, :] - move(self.centres)[:, None]) / np.sqrt(variance)
        # The upper tail as a difference of lower tails, where 1 - (1 - tiny) would lose it.
        cdf = ndtr(np.where(to > 0, -to, to))
        low, high = cdf[:, :-1], cdf[:, 1:]
        right, split = to[:, :-1] > 0, (to[:, :-1] <= 0) & (to[:, 1:] > 0)
        return np.where(right, low - high, np.where(split, 1 - low - high, high - low))

    def push(self, step: Array, times: int = 1) -> "GridLaw":
        """The law after `times` steps of a transition matrix."""
        mass = self.mass
        for _ in range(times):
            mass = mass @ step
        return GridLaw(self.low, self.high, np.maximum(mass, 0.0))


def grid_law(low: float, high: float, n: int, cdf: Callable[[Array], Array]) -> GridLaw:
    """The law with distribution function `cdf` on n cells of [low, high]."""
    return GridLaw(low, high, np.diff(cdf(np.linspace(low, high, n + 1))))


def langevin_law(
    start: GridLaw, score: Score, times: Sequence[float], eps: Callable[[float], float], moves: int
) -> GridLaw:
    """The law after `moves` Langevin steps x + ε(t) s(x, t) + √(2ε(t)) z at each of the times."""
    law = start
    for t in times:
        step = eps(t)

        def move(x: Array, t: float = t, step: float = step) -> Array:
            return x + step * score(x[:, None], t)[:, 0]

        law = law.push(law.transition(move, (2 * step) ** 0.5), moves)
    return law
