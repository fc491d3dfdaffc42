"""Many samples at once: in chunks of a fixed size on any number of workers, or with a generator for each."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

from refscore.checks import check_count, check_like
from refscore.library import array_namespace
from refscore.protocols import Array, Rng

Workers: TypeAlias = int | Executor | None


@contextmanager
def pool(workers: Any) -> Iterator[Executor | None]:
    """The executor itself, or threads for a number; None where one worker would do it all.

    Parameters
    ----------
    workers : int, Executor or None
        Number of threads, or any executor of `concurrent.futures` or with its methods, which is left open.

    Yields
    ------
    Executor or None
        Where to submit work.

    Raises
    ------
    ValueError
        For a number below 1, and for what is neither number nor executor.
    """
    if workers is None or hasattr(workers, "submit"):
        yield workers
    elif check_count("workers", workers) == 1:
        yield None
    else:
        with ThreadPoolExecutor(workers) as executor:
            yield executor


def children(rng: Any, n: int) -> list[Any]:
    """Independent generators, one for each part of a work: the same whoever does the work.

    Parameters
    ----------
    rng : numpy.random.Generator
        The parent; that it has spawned is part of its state.
    n : int
        How many.

    Returns
    -------
    list of numpy.random.Generator
        The children.

    Raises
    ------
    TypeError
        For a generator that cannot spawn, as CuPy's: a GPU works on all samples at once.
    """
    if not hasattr(rng, "spawn"):
        raise TypeError(f"workers need a generator that can spawn others, as NumPy's; got {type(rng).__name__}")
    return list(rng.spawn(check_count("n", n, 0)))


class PerSample:
    """A source of noise that gives each sample a generator of its own: the same sample whatever the batch around it.

    It draws row i of each array from generator i, so that a sample depends on its own seed only: drawn alone, in a
    batch of 8 or of 64, in any order. What is left is rounding, where a score multiplies matrices of another size.

    Parameters
    ----------
    generators : sequence of Rng
        One for each row of a batch, for example `[np.random.default_rng([seed, i]) for i in which]`.

    Raises
    ------
    ValueError
        Without generators; at a draw whose first axis is not one row for each of them.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.sampling.shards import PerSample
    >>> make = lambda which: PerSample([np.random.default_rng([7, i]) for i in which])
    >>> four, third = make(range(4)).standard_normal((4, 2)), make([2]).standard_normal((1, 2))
    >>> bool(np.all(four[2] == third[0]))
    True
    """

    def __init__(self, generators: Sequence[Rng]) -> None:
        self.generators = list(generators)
        if not self.generators:
            raise ValueError("one generator for each sample: got none")
        for rng in self.generators:
            check_like(rng=rng)

    def standard_normal(self, size: Any = None, dtype: Any = "float64") -> Array:
        """Draw N(0, 1) numbers of shape `size` (B, ...), row i from generator i."""
        return self._rows(size, lambda rng, row: rng.standard_normal(row, dtype=dtype))

    def random(self, size: Any = None, dtype: Any = "float64") -> Array:
        """Draw uniform numbers in [0, 1) of shape `size` (B, ...), row i from generator i."""
        return self._rows(size, lambda rng, row: rng.random(row, dtype=dtype))

    def integers(self, low: int, high: int, size: Any = None) -> Array:
        """Draw uniform integers in [low, high) of shape `size` (B, ...), row i from generator i."""
        low, high = check_count("low", low, -(2**62)), check_count("high", high, -(2**62))
        return self._rows(size, lambda rng, row: rng.integers(low, high, row))

    def _rows(self, size: Any, draw: Callable[[Rng, Any], Array]) -> Array:
        if not isinstance(size, tuple) or not size or size[0] != len(self.generators):
            raise ValueError(
                f"{len(self.generators)} generators, one for each sample; asked for an array of shape {size}"
            )
        rows = [draw(rng, (1, *size[1:])) for rng in self.generators]
        return array_namespace(rows[0]).concat(rows)


def over_shards(
    work: Callable[[slice, Rng], Any], n: int, rng: Rng, workers: Workers = None, size: int = 512
) -> list[Any]:
    """Do work(rows, rng) for each chunk of n rows, each with a generator of its own: the same for any workers.

    Parameters
    ----------
    work : callable (rows, rng) -> object
        For example the log likelihoods of x[rows, ...]; for processes it must be picklable.
    n : int
        Number of rows.
    rng : Rng
        Source of all numbers.
    workers : int or Executor, optional
        Number of threads, or any executor. Without them (the default) a generator that cannot spawn serves all chunks.
    size : int, default 512
        Rows of a chunk.

    Returns
    -------
    list
        What work answered, in the order of the chunks.

    Raises
    ------
    ValueError
        For n, workers or size below 1.
    TypeError
        With workers, for a generator that cannot spawn others.
    """
    n, size = check_count("n", n), check_count("size", size)
    rows = [slice(first, min(first + size, n)) for first in range(0, n, size)]
    alone = workers is None and not hasattr(rng, "spawn")
    with pool(workers) as executor:
        run = map if executor is None else executor.map
        return list(run(work, rows, [rng] * len(rows) if alone else children(rng, len(rows))))


def in_shards(draw: Callable[[int, Rng], Array], n: int, rng: Rng, workers: Workers = None, size: int = 512) -> Array:
    """Draw n samples in chunks, each with a generator of its own: the same samples for any number of workers.

    The chunks are as large whatever the number of workers. Threads gain where a step is large beside Python's part of
    it, with BLAS on one thread: a network on a few hundred samples and more, and not an exact score of a few modes.

    Parameters
    ----------
    draw : callable (n, rng) -> (n, ...)
        Draws n samples, for example by `last(simulate(...))` from `prior(...)`; for processes it must be picklable.
    n, rng, workers, size : see `over_shards`
        Without workers there are no chunks: draw(n, rng).

    Returns
    -------
    Array, shape (n, ...)
        The samples, in the order of the chunks.

    Raises
    ------
    ValueError, TypeError
        As `over_shards`.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.sampling.shards import in_shards
    >>> draw = lambda n, rng: rng.standard_normal((n, 2))
    >>> one, two = (in_shards(draw, 1000, np.random.default_rng(0), workers) for workers in (1, 2))
    >>> one.shape, bool(np.all(one == two))
    ((1000, 2), True)
    """
    if workers is None:
        return draw(check_count("n", n), rng)
    parts = over_shards(partial(_drawn, draw), n, rng, workers, size)
    return array_namespace(parts[0]).concat(parts)


def _drawn(draw: Callable[[int, Rng], Array], rows: slice, rng: Rng) -> Array:
    return draw(rows.stop - rows.start, rng)
