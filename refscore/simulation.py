"""The one sampling loop, and the watchman who stands beside it.

A loop that yields can be watched: progress bars, plots, early stopping, trajectories and checks
live outside of it.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from array_api_compat import array_namespace

from refscore.arrays import Array, Rng, Step, check_data, check_time


class NotFiniteError(ArithmeticError):
    """A sample became NaN or infinite; the message names step, time and rows."""


class RunawayError(ArithmeticError):
    """A sample left the region that the caller called sane; the message names step, time and rows."""


def simulate(step: Step, x: Array, times: Sequence[float], rng: Rng) -> Iterator[Array]:
    """Yield x after each step along a grid of times: the one sampling loop.

    Parameters
    ----------
    step : callable (x, t, s, rng, memory) -> (x, memory)
        What to do between two times. What a method must remember it hands back.
    x : Array, shape (B, ...)
        Samples at times[0], usually drawn from the prior.
    times : sequence of N + 1 floats in [0, 1]
        Strictly monotone. Python floats: a step may branch on them, and none waits for the GPU.
    rng : Rng
        numpy.random.Generator, its CuPy twin, or anything with their methods.

    Raises
    ------
    ValueError
        At the call, before the first step, if `times` repeats, turns round or leaves [0, 1], or
        if x is empty or not finite.
    TypeError
        If x is not a float32 or float64 array, or `times` are not Python numbers.
    """
    check_data("x", x)
    if any(type(t) not in (float, int) for t in times):  # numpy.float64 is a float, but widens float32
        raise TypeError("times must be Python floats (for an array: times.tolist())")
    for t in times:
        check_time(t)
    steps = [s - t for t, s in pairwise(times)]
    if not steps or not (all(h < 0 for h in steps) or all(h > 0 for h in steps)):
        raise ValueError(f"times must be strictly monotone, at least two of them; got {list(times)[:5]}")
    return _walk(step, x, times, rng)


def _walk(step: Step, x: Array, times: Sequence[float], rng: Rng) -> Iterator[Array]:
    memory = None
    for t, s in pairwise(times):
        x, memory = step(x, t, s, rng, memory)
        yield x


def watch(
    states: Iterable[Array], times: Sequence[float], every: int = 1, largest: float = math.inf
) -> Iterator[Array]:
    """Pass the states of `simulate` on, looking every few steps whether they are finite, and no larger than `largest`.

    Looking makes a GPU wait, hence the choice of `every`.

    Parameters
    ----------
    states : iterable of Array (B, ...)
        `simulate(step, x, times, rng)`, or part of it.
    times : sequence of floats
        The same grid, to name the time.
    every : int
        Look at every `every`-th state, and at the last.
    largest : float
        |x| beyond which a chain is said to have diverged; 1e8 times the scale of the data is a good choice. A chain
        whose step is too large grows by the same factor at each, and would reach infinity later.

    Raises
    ------
    NotFiniteError
        Names the step, its time, and the rows that are not finite.
    RunawayError
        The same, for rows beyond `largest`.
    """
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}")
    if not largest > 0:
        raise ValueError(f"largest must be positive, got {largest}")
    return _watched(states, times, every, largest)


def _watched(states: Iterable[Array], times: Sequence[float], every: int, largest: float) -> Iterator[Array]:
    for n, x in enumerate(states, start=1):
        if n % every == 0 or n == len(times) - 1:
            _look(x, f"step {n} (t = {times[n]:.6g})", largest)
        yield x


def _look(x: Array, where: str, largest: float) -> None:
    xp = array_namespace(x)
    x = xp.reshape(x, (x.shape[0], -1))
    _refuse(~xp.all(xp.isfinite(x), axis=1), NotFiniteError, where, "not finite")
    if largest < math.inf:
        what = f"beyond {largest:.3g} (a chain whose step is too large diverges)"
        _refuse(xp.any(xp.abs(x) > largest, axis=1), RunawayError, where, what)


def _refuse(bad: Array, error: type[ArithmeticError], where: str, what: str) -> None:
    (index,) = array_namespace(bad).nonzero(bad)
    count = index.shape[0]
    if count:
        first = [int(index[i]) for i in range(min(5, count))]
        raise error(f"{where}: {count} of {bad.shape[0]} rows are {what}, the first: {first}")


def last(states: Iterable[Array]) -> Array:
    """The last state of a simulation, when the way there is of no interest."""
    final = deque(states, maxlen=1)
    if not final:
        raise ValueError("the simulation yielded nothing")
    return final[0]


class NoNoise:
    """The rng of a deterministic sampler: asking it for anything is an error."""

    def __getattr__(self, name: str) -> None:
        raise AttributeError(f"this simulation is deterministic, and something asked for noise ({name})")


NO_NOISE: Any = NoNoise()
