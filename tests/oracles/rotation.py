"""Other random numbers in every test: `pytest --rotate SEED` mixes a seed into all the seeds that are given to NumPy.

A law holds at every seed. What falls under rotation is a stochastic assertion without a rate of false alarms, or a
recorded number; a test of the second kind says so, with a reason: `@pytest.mark.recorded("why")` keeps its own seeds.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from numbers import Integral
from typing import Any

import numpy as np

MADE: deque[Any] = deque(maxlen=3)  # the last seeds that were given: a failed assertion prints them
_shift: int | None = None
_default_rng = np.random.default_rng


@wraps(_default_rng)
def _rotated(seed: Any = None) -> np.random.Generator:
    several = isinstance(seed, (list, tuple, np.ndarray))
    if not several and not isinstance(seed, Integral):
        return _default_rng(seed)
    MADE.append(seed)
    return _default_rng(seed if _shift is None else [_shift, *(seed if several else [seed])])


def rotate(shift: int | None) -> None:
    """From here on every seed is mixed with `shift`; None: none is."""
    global _shift
    _shift = shift
    np.random.default_rng = _rotated


@contextmanager
def as_written() -> Iterator[None]:
    """Inside, seeds are what is written."""
    global _shift
    before, _shift = _shift, None
    try:
        yield
    finally:
        _shift = before


def where() -> str:
    """The seeds of late, for a message."""
    return f"last seeds {list(MADE)}" + ("" if _shift is None else f", --rotate {_shift}")
