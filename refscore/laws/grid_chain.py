"""The law of a sampler in one dimension, without a single sample. Chapter 2.

A step x -> m(x) + c z turns a density q into ∫ q(x) N(y; m(x), c²) dx: a mixture of Gaussians, one for each point it
started from. On a grid the integral is a matrix product, and for Gaussians the plainest rule, a sum over points of
spacing h, errs by 2 exp(-2π² c²/h²) only: the law of the sampler after any number of steps, the weights of modes
included, is a number and not an estimate.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, pi, sqrt
from typing import Any, TypeAlias

import numpy as np

from refscore.arrays import ask
from refscore.protocols import Score

Array: TypeAlias = Any  # of NumPy: this works on the host


@dataclass(frozen=True, eq=False)
class GridLaw:
    """How much probability each of n equal cells of [low, high] holds.

    The mass of a cell stands at its centre, and after a step mass/h is the density there. What leaves the interval is
    lost; `lost` tells how much.

    Raises
    ------
    ValueError
        Unless low < high, and the masses are finite, not negative and sum to at most 1.
    """

    low: float
    high: float
    mass: Array  # (n,)

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"need low < high, got {self.low}, {self.high}")
        if np.ndim(self.mass) != 1 or len(self.mass) < 1 or not np.all(np.isfinite(self.mass)):
            raise ValueError(f"mass must be (n,) finite numbers, got {self.mass!r}")
        if np.min(self.mass) < 0 or np.sum(self.mass) > 1 + 1e-6:
            raise ValueError(
                f"masses must not be negative, nor sum to more than 1; the least is {np.min(self.mass):.3g}, the sum "
                f"{np.sum(self.mass):.9g}"
            )

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
        """E f(x), f on the centres; what is lost counts as 0."""
        return float(self.mass @ f(self.centres))

    def transition(self, move: Callable[[Array], Array], noise: float) -> Array:
        """The matrix (n, n) of the step x -> move(x) + noise z: row i is where the mass of cell i goes    Eq. (2.8).

        Sums over a row are off by 2 exp(-2π² c²/h²), first and second moments by little more: 5e-9 at h = c, rounding
        at h = 0.7 c. Where the move stretches, as between two modes, it is ∆, how far neighbours land from each other,
        that must resolve c: about 1e-5 of the mass from there goes astray at ∆ = c, 3e-2 at ∆ = 2 c.

        Raises
        ------
        ValueError
            If the cells are too wide: unless h <= c, and neighbours land within 2 c of each other.
        """
        h, to = self.width, move(self.centres)
        apart = float(np.max(np.abs(np.diff(to)), initial=0.0))
        if max(h, apart / 2) > noise:
            wanted = f"take n >= {ceil(len(to) * max(h, apart / 2) / noise)}" if noise > 0 else "no n is enough"
            raise ValueError(
                f"cells of width {h:.3g}, of which neighbours land up to {apart:.3g} apart, are too wide for noise of "
                f"deviation {noise:.3g}: {wanted}"
            )
        z = (self.centres[None, :] - to[:, None]) / noise
        return h / (sqrt(2 * pi) * noise) * np.exp(-0.5 * z * z)

    def push(self, step: Array, times: int = 1) -> "GridLaw":
        """The law after `times` steps of a transition matrix; many are taken by squaring it."""
        if times < 0:
            raise ValueError(f"times must not be negative, got {times}")
        mass = self.mass
        if times > 4 * len(mass):
            return GridLaw(self.low, self.high, mass @ np.linalg.matrix_power(step, times))
        for _ in range(times):
            mass = mass @ step
        return GridLaw(self.low, self.high, mass)


def grid_law(low: float, high: float, n: int, cdf: Callable[[Array], Array]) -> GridLaw:
    """The law with distribution function `cdf` on n cells of [low, high]; its variance is h²/12 too large."""
    return GridLaw(low, high, np.diff(cdf(np.linspace(low, high, n + 1))))


def gap(step: Array) -> float:
    """1 - μ₂, μ₂ the second largest eigenvalue: how much of its start a law forgets in one step          Eq. (2.11)."""
    return 1 - float(np.sort(np.abs(np.linalg.eigvals(step)))[-2])


def langevin_law(
    start: GridLaw, score: Score, times: Sequence[float], eps: Callable[[float], float], moves: int
) -> GridLaw:
    """The law after `moves` Langevin steps x + ε(t) s(x, t) + √(2ε(t)) z at each of the times        Eq. (2.8)."""
    law = start
    for t in times:
        step = eps(t)

        def move(x: Array, t: float = t, step: float = step) -> Array:
            return x + step * ask(score, x[:, None], t)[:, 0]

        law = law.push(law.transition(move, sqrt(2 * step)), moves)
    return law
