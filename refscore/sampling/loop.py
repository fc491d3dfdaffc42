"""The one sampling loop, and the checks that can be put around it.

A loop that yields can be watched: progress bars, plots, early stopping, trajectories and checks
stay outside of it.
"""

import math
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from refscore.arrays import answer
from refscore.checks import check_count, check_data, check_like, check_range, check_time, is_number
from refscore.library import array_namespace
from refscore.protocols import Array, Rng, Step

State = TypeVar("State")


class NotFiniteError(ArithmeticError):
    """The error that a sample became NaN or infinite; the message names step, time and rows."""


class NotFiniteWarning(UserWarning):
    """The warning that samples are NaN or infinite at the end of a simulation without `watch`."""


class RunawayError(ArithmeticError):
    """The error that |x| exceeds `largest` of `watch`; the message names step, time and rows."""


def simulate(step: Step, x: Array, times: Sequence[float], rng: Rng) -> Iterator[Array]:
    """Yield x after each step along a grid of times: the one sampling loop.

    Parameters
    ----------
    step : callable (x, t, s, rng, memory) -> (x, memory)
        What to do between two times. What a method must remember it returns, and is given at the next step.
    x : Array, shape (B, ...)
        Samples at times[0], usually drawn from the prior.
    times : sequence of N + 1 floats in [0, 1]
        Strictly monotone. A step is given Python floats: it may branch on them, and none waits for the GPU.
    rng : Rng
        numpy.random.Generator, its CuPy twin, or anything with their methods.

    Yields
    ------
    Array, shape (B, ...)
        x at times[1], ..., times[N]: N states.

    Raises
    ------
    ValueError
        At the call, before the first step, if `times` repeats, turns round or leaves [0, 1], or
        if x is empty or not finite; at a step that changes the shape of x.
    TypeError
        If x is not a float32 or float64 array, or `times` are not numbers.

    Warns
    -----
    NotFiniteWarning
        If the last state is not finite; `watch` finds the step where that began.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Heun, simulate
    >>> step = Heun(lambda x, t: x)  # dx/dt = x: a step of ½ multiplies x by 1 + ½ + ⅛
    >>> for x in simulate(step, np.array([[1.0]]), [0.0, 0.5, 1.0], np.random.default_rng(0)):
    ...     print(x)
    [[1.625]]
    [[2.640625]]
    """
    check_data("x", x)
    if rng is not None:  # a step that draws will refuse None itself
        check_like(rng=rng)
    times = list(times)
    if not all(is_number(t) for t in times):
        raise TypeError("times must be numbers, one for all samples (for an array on a device: times.tolist())")
    times = [check_time(_rounded(t)) for t in times]
    steps = [s - t for t, s in pairwise(times)]
    if not steps or not (all(h < 0 for h in steps) or all(h > 0 for h in steps)):
        raise ValueError(f"times must be strictly monotone, at least two of them; got {list(times)[:5]}")
    return _walk(step, x, times, rng)


def _walk(step: Step, x: Array, times: Sequence[float], rng: Rng) -> Iterator[Array]:
    memory = None
    for t, s in pairwise(times):
        made = step(x, t, s, rng, memory)
        if not isinstance(made, tuple) or len(made) != 2:
            raise TypeError(f"a step must answer with a pair (x, memory), got {type(made).__name__}")
        x, memory = answer("a step", made[0], x), made[1]
        if s == times[-1]:
            _warn(x)
        yield x


def _rounded(t: float) -> float:
    """A grid computed in double precision may end one rounding above 1."""
    return 1.0 if 1 < t <= 1 + 2**-52 else t


def _warn(x: Array) -> None:
    count, first = _rows(~_finite(x))
    if count:
        warnings.warn(
            f"{count} of {x.shape[0]} rows are not finite after the last step, the first: {first}; "
            "watch(simulate(...), times) stops where that begins",
            NotFiniteWarning,
            stacklevel=3,
        )


def watch(
    states: Iterable[Array], times: Sequence[float], every: int = 1, largest: float = math.inf
) -> Iterator[Array]:
    """Yield the states of `simulate`, and check every few steps that they are finite, and not larger than `largest`.

    A check makes a GPU wait, hence the choice of `every`.

    Parameters
    ----------
    states : iterable of Array (B, ...)
        `simulate(step, x, times, rng)`, or part of it.
    times : sequence of floats
        The same grid, to name the time.
    every : int, default 1
        Look at every `every`-th state, and at the last.
    largest : float, default infinity
        |x| beyond which a chain is said to have diverged; 1e8 times the scale of the data is a good choice. A chain
        whose step is too large grows by the same factor at each, and would reach infinity later.

    Yields
    ------
    Array, shape (B, ...)
        The states, unchanged.

    Raises
    ------
    NotFiniteError
        Names the step, its time, and the rows that are not finite.
    RunawayError
        The same, for rows beyond `largest`.
    ValueError
        At the call, unless every is an integer >= 1 and largest > 0.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Heun, simulate, watch
    >>> from refscore import last
    >>> times, x = [0.0, 0.5, 1.0], np.array([[1.0], [0.0]])
    >>> states = simulate(Heun(lambda x, t: 100 * x), x, times, np.random.default_rng(0))
    >>> last(watch(states, times, largest=1e6))  # a step multiplies x by 1 + 50 + 1250
    Traceback (most recent call last):
        ...
    refscore.sampling.loop.RunawayError: step 2 (t = 1): 1 of 2 rows are beyond 1e+06 ..., the first: [0]
    """
    every = check_count("every", every)
    if not largest > 0:
        raise ValueError(f"largest must be positive, got {largest}")
    check_range(0.0, 1.0, **{f"times[{i}]": t for i, t in enumerate(times)})
    if len(times) < 2:
        raise ValueError(f"times must be at least two, got {times}")
    return _watched(states, times, every, largest)


def _watched(states: Iterable[Array], times: Sequence[float], every: int, largest: float) -> Iterator[Array]:
    for n, x in enumerate(states, start=1):
        if n >= len(times):
            raise ValueError(f"there are more states than steps of the {len(times)} times")
        if n % every == 0 or n == len(times) - 1:
            _check_rows(x, f"step {n} (t = {times[n]:.6g})", largest)
        yield x


def _check_rows(x: Array, where: str, largest: float) -> None:
    _refuse(~_finite(x), NotFiniteError, where, "not finite")
    if largest < math.inf:
        xp = array_namespace(x)
        what = f"beyond {largest:.3g} (a chain whose step is too large diverges)"
        _refuse(xp.any(xp.reshape(xp.abs(x) > largest, (x.shape[0], -1)), axis=1), RunawayError, where, what)


def _refuse(bad: Array, error: type[ArithmeticError], where: str, what: str) -> None:
    count, first = _rows(bad)
    if count:
        raise error(f"{where}: {count} of {bad.shape[0]} rows are {what}, the first: {first}")


def _finite(x: Array) -> Array:
    """(B, ...) -> (B,): which rows are finite."""
    xp = array_namespace(x)
    return xp.all(xp.reshape(xp.isfinite(x), (x.shape[0], -1)), axis=1)


def _rows(bad: Array) -> tuple[int, list[int]]:
    """How many rows are bad, and the first five of them."""
    (index,) = array_namespace(bad).nonzero(bad)
    return index.shape[0], [int(index[i]) for i in range(min(5, index.shape[0]))]


def last(states: Iterable[State]) -> State:
    """Return the last state of a loop, `simulate` or `fit`, for when the states between are not needed.

    Parameters
    ----------
    states : iterable
        `simulate(...)`, `watch(simulate(...), times)` or `fit(...)`; it is run to its end.

    Returns
    -------
    Array or TrainingState
        x at the last time, shape (B, ...); or the state after the last step of training.

    Raises
    ------
    ValueError
        If there is no state.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import Heun, last, simulate
    >>> last(simulate(Heun(lambda x, t: x), np.array([[1.0]]), [0.0, 0.5, 1.0], np.random.default_rng(0)))
    array([[2.640625]])
    """
    final = deque(states, maxlen=1)
    if not final:
        raise ValueError("the loop yielded nothing")
    return final[0]


class _NoNoise:
    """The rng of a deterministic sampler: any use of it is an error.

    `NO_NOISE` is one, to be passed to `simulate`.

    Raises
    ------
    AttributeError
        When a step draws from it.
    """

    def standard_normal(self, size: object = None, dtype: object = None) -> None:
        """Refuse, as every other draw."""
        raise AttributeError("this simulation is deterministic, and something asked for noise")

    random = integers = standard_normal


NO_NOISE: Any = _NoNoise()
