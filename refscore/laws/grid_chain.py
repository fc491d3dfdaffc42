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
from refscore.checks import check_count, check_floating, check_like, check_number, check_size
from refscore.protocols import Score

Array: TypeAlias = Any  # of NumPy: this works on the host


@dataclass(frozen=True, eq=False)
class GridLaw:
    """How much probability each of n equal cells of [low, high] holds.

    The mass of a cell stands at its centre, and after a step mass/h is the density there. What leaves the interval is
    lost; `lost` is how much.

    Parameters
    ----------
    low, high : float
        The interval, in data units.
    mass : array (n,)
        The probability of each cell; the sum may be less than 1.

    Raises
    ------
    ValueError
        Unless low < high, and the masses are finite, not negative and sum to at most 1.
    """

    low: float
    high: float
    mass: Array  # (n,)

    def __post_init__(self) -> None:
        check_floating("mass", self.mass)
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
        """The width h of a cell, (high - low)/n."""
        return (self.high - self.low) / len(self.mass)

    @property
    def edges(self) -> Array:
        """The n + 1 edges of the cells, from low to high."""
        return np.linspace(self.low, self.high, len(self.mass) + 1)

    @property
    def centres(self) -> Array:
        """The n centres of the cells, in rising order."""
        edges = self.edges
        return 0.5 * (edges[1:] + edges[:-1])

    @property
    def lost(self) -> float:
        """The probability that has left the interval: 1 less the mass that is still there."""
        return float(1 - self.mass.sum())

    def mean(self, f: Callable[[Array], Array]) -> float:
        """Return E f(x), f an array function on the centres, (n,) -> (n,); what is lost counts as 0."""
        return float(self.mass @ f(self.centres))

    def transition(self, move: Callable[[Array], Array], noise: float) -> Array:
        """Return the matrix (n, n) of the step x -> move(x) + noise z                                     Eq. (2.8).

        Row i is where the mass of cell i goes; move is an array function (n,) -> (n,), noise the deviation c. Sums over
        a row are off by 2 exp(-2π² c²/h²), first and second moments by little more: 5e-9 at h = c, rounding at
        h = 0.7 c. Where the move stretches, as between two modes, it is ∆, how far neighbours land from each other,
        that must resolve c: about 1e-5 of the mass from there goes astray at ∆ = c, 3e-2 at ∆ = 2 c.

        Raises
        ------
        ValueError
            If the cells are too wide: unless h <= c, and neighbours land within 2 c of each other.
        """
        check_size(noise=noise)
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
        """Return the law after `times` steps of a transition matrix (n, n); many steps are taken by squaring it.

        Raises
        ------
        ValueError
            For times < 0.
        """
        times = check_count("times", times, 0)
        check_floating("step", step, ndim=2)
        if not np.all((step >= 0) & (step <= 1 + 1e-6)):
            raise ValueError("step must hold probabilities, numbers from 0 to 1")
        mass = self.mass
        if times > 4 * len(mass):
            return GridLaw(self.low, self.high, mass @ np.linalg.matrix_power(step, times))
        for _ in range(times):
            mass = mass @ step
        return GridLaw(self.low, self.high, mass)


def grid_law(low: float, high: float, n: int, cdf: Callable[[Array], Array]) -> GridLaw:
    """Return the law with a given distribution function on n cells of [low, high]; its variance is h²/12 too large.

    Parameters
    ----------
    low, high : float
        The interval, in data units.
    n : int
        Number of cells.
    cdf : callable
        Distribution function, an array function (n + 1,) -> (n + 1,).

    Returns
    -------
    GridLaw
        With the probability of each cell at its centre.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> from refscore.laws.grid_chain import grid_law
    >>> grid_law(0.0, 1.0, 4, cdf=lambda x: x**2).mass  # differences of 0, 1/16, 4/16, 9/16, 1
    array([0.0625, 0.1875, 0.3125, 0.4375])
    """
    check_size(low=check_number("low", low), high=check_number("high", high))
    n = check_count("n", n)
    return GridLaw(low, high, np.diff(cdf(np.linspace(low, high, n + 1))))


def gap(step: Array) -> float:
    """Return 1 - μ₂, μ₂ the second largest modulus of an eigenvalue: how much of its start a law forgets  Eq. (2.11).

    Parameters
    ----------
    step : array (n, n)
        A transition matrix, rows summing to 1.

    Returns
    -------
    float
        What is forgotten in one step: 0 is nothing, 1 is all.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.laws.grid_chain import gap
    >>> round(gap(np.array([[0.75, 0.25], [0.25, 0.75]])), 6)  # eigenvalues 1 and ½
    0.5
    """
    check_floating("step", step, ndim=2)
    if step.shape[0] < 2:
        raise ValueError(f"step must have two cells at least, got shape {step.shape}")
    return 1 - float(np.sort(np.abs(np.linalg.eigvals(step)))[-2])


def langevin_law(
    start: GridLaw, score: Score, times: Sequence[float], eps: Callable[[float], float], moves: int
) -> GridLaw:
    """Return the law after `moves` Langevin steps x + ε(t) s(x, t) + √(2ε(t)) z at each of the times        Eq. (2.8).

    Parameters
    ----------
    start : GridLaw
        The law before the first step.
    score : callable (x, t) -> (n, 1)
        ∇ log p_t(x), for x (n, 1) and t an array (1,).
    times : sequence of floats
        The time of each level.
    eps : callable t -> float
        ε(t), in squared data units.
    moves : int
        Number of steps at each level.

    Returns
    -------
    GridLaw
        On the same cells.

    Raises
    ------
    ValueError
        If the cells are too wide for the noise of a step (`GridLaw.transition`).
    """
    check_like("grid", start=start)
    law, moves = start, check_count("moves", moves)
    for t in times:
        step = eps(t)

        def move(x: Array, t: float = t, step: float = step) -> Array:
            return x + step * ask(score, x[:, None], t)[:, 0]

        law = law.push(law.transition(move, sqrt(2 * step)), moves)
    return law
