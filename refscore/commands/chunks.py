"""Work in chunks: shared by threads, and what is finished survives Ctrl-C."""

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from refscore.sampling.shards import over_shards


def in_chunks(
    work: Callable[[slice, Any], Any], n: int, rng: Any, workers: int | None, size: int, say: Callable[[str], None],
    what: str,
) -> list[Any]:  # fmt: skip
    """What work(rows, rng) answers for chunk after chunk of n rows; after Ctrl-C for as many as are finished.

    The chunks at which threads are at work are finished first, so that none is lost. What is left out is the end:
    a chunk has the same numbers however many follow.

    Parameters
    ----------
    work : callable (rows, rng) -> object
        Does the rows of a chunk.
    n : int
        Number of rows.
    rng : Rng
        Source of all numbers: each chunk has a child of its own where it can spawn.
    workers : int or None
        Number of threads.
    size : int
        Rows of a chunk.
    say : callable
        Takes a line.
    what : str
        What the rows are called, in the line that tells how many there are after Ctrl-C.

    Returns
    -------
    list
        The answers, in order.

    Raises
    ------
    ValueError
        For workers below 1, or on a back end whose generator cannot spawn others.
    KeyboardInterrupt
        If not even the first chunk is finished.
    """
    if workers is not None and not hasattr(rng, "spawn"):
        raise ValueError(f"--workers are threads on the host; {type(rng).__module__} works on all {what} at once")
    made: dict[int, Any] = {}

    def keep(rows: slice, own: Any) -> None:
        made[rows.start] = work(rows, own)

    try:
        over_shards(keep, n, rng, workers, size)
    except KeyboardInterrupt:
        if 0 not in made:
            raise
    kept = [made[first] for first in takewhile(made.__contains__, range(0, n, size))]
    if len(kept) * size < n:
        say(f"interrupted: the first {len(kept) * size} of {n} {what} are kept")
    return kept
