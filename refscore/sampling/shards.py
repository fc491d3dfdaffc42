"""Many samples at once: in chunks of a fixed size, on as many workers as there are."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

from refscore.checks import check_count
from refscore.library import array_namespace
from refscore.protocols import Array, Rng

Workers: TypeAlias = int | Executor | None


@contextmanager
def pool(workers: Workers) -> Iterator[Executor | None]:
    """The executor itself, or threads for a number; None where one worker would do it all.

    Parameters
    ----------
    workers : int, Executor or None
        Number of threads, or any executor of `concurrent.futures`, which is left open.

    Yields
    ------
    Executor or None
        Where to submit work.

    Raises
    ------
    ValueError
        For a number below 1.
    """
    if workers is None or isinstance(workers, Executor):
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
    return list(rng.spawn(n))


def in_shards(draw: Callable[[int, Rng], Array], n: int, rng: Rng, workers: Workers = None, size: int = 512) -> Array:
    """Draw n samples in chunks, each with a generator of its own: the same samples for any number of workers.

    The chunks are as large whatever the number of workers. Threads gain where a step is large beside Python's part of
    it, with BLAS on one thread: a network on a few hundred samples and more, and not an exact score of a few modes.

    Parameters
    ----------
    draw : callable (n, rng) -> (n, ...)
        Draws n samples, for example by `last(simulate(...))` from `prior(...)`; for processes it must be picklable.
    n : int
        Number of samples.
    rng : Rng
        Source of all numbers.
    workers : int or Executor, optional
        Number of threads, or any executor; by default there are no chunks: draw(n, rng).
    size : int, default 512
        Samples of a chunk.

    Returns
    -------
    Array, shape (n, ...)
        The samples, in the order of the chunks.

    Raises
    ------
    ValueError
        For n, workers or size below 1.
    TypeError
        For a generator that cannot spawn others.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.sampling.shards import in_shards
    >>> draw = lambda n, rng: rng.standard_normal((n, 2))
    >>> one, two = (in_shards(draw, 1000, np.random.default_rng(0), workers) for workers in (1, 2))
    >>> one.shape, bool(np.all(one == two))
    ((1000, 2), True)
    """
    n, size = check_count("n", n), check_count("size", size)
    if workers is None:
        return draw(n, rng)
    counts = [min(size, n - first) for first in range(0, n, size)]
    with pool(workers) as executor:
        run = map if executor is None else executor.map
        parts = list(run(draw, counts, children(rng, len(counts))))
    return array_namespace(parts[0]).concat(parts)
