"""The same random numbers again, whoever draws them: a patient is asked the same question twice. Chapter 17."""

import random
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np


def replayed(fn: Callable[..., Any], seed: int, *args: Any) -> Any:
    """Call a function so that its random numbers depend on `seed` alone.

    Seeded are the global generators of Python, NumPy, torch and CuPy; NumPy's and torch's generators that the function
    holds (in its closure, defaults, attributes or globals); and `numpy.random.default_rng()`. What it keeps between two
    calls, such as a key of JAX, is put back afterwards.

    Parameters
    ----------
    fn : callable
        The function.
    seed : int
        Of its numbers.
    *args : object
        What it is called with.

    Returns
    -------
    object
        What it returns.
    """
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the patient may draw from it
    for name in ("torch", "cupy"):
        library = sys.modules.get(name)
        if library is not None:
            (library.manual_seed if name == "torch" else library.random.seed)(seed)
    cells = [(cell, cell.cell_contents) for cell in getattr(fn, "__closure__", None) or ()]
    spaces = [(space, {k: space[k] for k in names if k in space}) for space, names in _spaces(fn)]
    fresh = np.random.default_rng
    try:
        for cell, thing in cells:
            cell.cell_contents = _seeded(thing, seed)
        for space, kept in spaces:
            space.update({k: _seeded(thing, seed) for k, thing in kept.items()})
        for thing in (
            *(getattr(fn, "__defaults__", None) or ()),
            *(getattr(fn, "__kwdefaults__", None) or {}).values(),
        ):
            _seeded(thing, seed)
        with patch.object(np.random, "default_rng", lambda given=None: fresh(seed if given is None else given)):
            return fn(*args)
    finally:
        for cell, thing in cells:
            cell.cell_contents = thing
        for space, kept in spaces:
            space.update(kept)


def _spaces(fn: Any) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Where it keeps what it names: its globals, its own attributes and those of its object."""
    if hasattr(fn, "__code__"):
        yield fn.__globals__, fn.__code__.co_names
    for owner in (getattr(fn, "__self__", None), fn):
        if hasattr(owner, "__dict__"):
            yield vars(owner), tuple(vars(owner))


def _seeded(thing: Any, seed: int) -> Any:
    """A generator is seeded as it stands; for a key of JAX another one; all else stays."""
    if isinstance(thing, np.random.Generator):
        thing.bit_generator.state = type(thing.bit_generator)(seed).state
    elif hasattr(thing, "manual_seed") and hasattr(thing, "initial_seed") and not isinstance(thing, type(sys)):
        thing.manual_seed(seed)
    elif "jax" in sys.modules and type(thing).__module__.startswith("jax"):
        dtype, random = str(getattr(thing, "dtype", "")), sys.modules["jax"].random
        if dtype.startswith("key<") and thing.shape == ():
            return random.key(seed)
        if dtype == "uint32" and thing.shape == (2,):
            return random.PRNGKey(seed)
    return thing
