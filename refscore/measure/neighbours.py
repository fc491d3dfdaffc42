"""Nearest neighbours: is a sample a copy of a training point, can samples be told from data?

Neither needs the law of the data, so both serve images. The distance is Euclidean: small for copies, and blind to
much that an eye sees.
"""

import math
from dataclasses import dataclass

from refscore.arrays import long_sum
from refscore.checks import check_data, check_number, check_same, check_squares
from refscore.laws.expectation import Estimate
from refscore.library import array_namespace, device
from refscore.protocols import Array

BLOCK = 2**18  # differences held at a time


@dataclass(frozen=True)
class Memorised:
    """How near samples come to the training data, beside data that were not trained on.

    Parameters
    ----------
    samples : float
        Median distance of a sample to the nearest training point.
    held_out : float
        Median distance of a held-out point to the nearest training point.
    share : Estimate
        The share of samples nearer to the training data than almost all held-out points; the error is binomial.
    chance : Estimate
        Its mean, and deviation over held-out sets, for a generator that samples the law of the data.
    """

    samples: float
    held_out: float
    share: Estimate
    chance: Estimate


def nearest(x: Array, y: Array | None = None) -> tuple[Array, Array]:
    """Find the nearest neighbour of each row: distance and index.

    By differences, a block at a time: the square |x|² - 2 x·y + |y|² is faster, and loses in float32 all digits of a
    distance below |x|/1000.

    Parameters
    ----------
    x : Array, shape (n, ...)
        Whose neighbours.
    y : Array, shape (m, ...), optional
        Among which rows; by default among the other rows of x.

    Returns
    -------
    distances, indices : Array, shape (n,)
        Distances in the units of x, and rows of y; of equally near ones the first.

    Raises
    ------
    ValueError, TypeError
        For arrays that are not finite, or differ in the shape of a row, dtype, library or device; for a single row
        without y.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.measure.neighbours import nearest
    >>> nearest(np.array([[0.0, 0.0], [5.0, 4.0]]), np.array([[5.0, 1.0], [1.0, 0.0]]))
    (array([1., 3.]), array([1, 0]))
    """
    check_data("x", x)
    check_squares(x=x)
    if y is not None:
        check_data("y", y)
        _check_rows(x, y=y)
    elif x.shape[0] < 2:
        raise ValueError("a single row has no other row beside it: give at least 2, or y")
    xp, others = array_namespace(x), x if y is None else y
    a, b = (xp.matrix_transpose(xp.reshape(z, (z.shape[0], -1))) for z in (x, others))
    side = max(1, math.isqrt(BLOCK // a.shape[0]))
    parts = [_nearest(a[:, i : min(i + side, a.shape[1])], b, side, i if y is None else None)
             for i in range(0, a.shape[1], side)]  # fmt: skip
    return xp.sqrt(xp.concat([square for square, _ in parts])), xp.concat([index for _, index in parts])


def memorised(samples: Array, training: Array, held_out: Array, level: float = 0.01) -> Memorised:
    """Compare the distances of samples and of held-out data to the training data                       Eq. (15.4).

    A sample counts as a copy if it is as near as the k-th nearest of m held-out points, k = ⌊level (m + 1)⌋ or 1. Of
    a law without point masses a new point is so with probability k/(m + 1), whatever the law; of a generator that
    returns training points every sample is.

    Parameters
    ----------
    samples : Array, shape (n, ...)
        What the generator made.
    training : Array, shape (N, ...)
        What it was trained on.
    held_out : Array, shape (m, ...)
        Data of the same law that it was not trained on.
    level : float, default 0.01
        The part of the held-out points that may count, in (0, 1).

    Returns
    -------
    Memorised
        Medians, the share of copies, and what it is by chance.

    Raises
    ------
    ValueError, TypeError
        As `nearest`; for a level outside (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.measure.neighbours import memorised
    >>> rng = np.random.default_rng(0)
    >>> training, held_out, fresh = (rng.standard_normal((500, 2)) for _ in range(3))
    >>> found = memorised(training[:100], training, held_out)
    >>> found.samples, found.share.value, round(found.chance.value, 3)
    (0.0, 1.0, 0.01)
    >>> memorised(fresh, training, held_out).share.value < 0.05
    True
    """
    level = check_number("level", level)
    if not 0 < level < 1:
        raise ValueError(f"level is a part of the held-out points, in (0, 1), got {level}")
    for name, x in (("samples", samples), ("training", training), ("held_out", held_out)):
        check_data(name, x)
    _check_rows(samples, training=training, held_out=held_out)
    xp, n, m = array_namespace(samples), samples.shape[0], held_out.shape[0]
    own, theirs = (xp.sort(nearest(x, training)[0]) for x in (samples, held_out))
    k = max(1, math.floor(level * (m + 1)))
    share = float(xp.sum(xp.astype(own <= theirs[k - 1], own.dtype))) / n  # a count: exact in float32, too
    chance = k / (m + 1)
    return Memorised(
        _median(own), _median(theirs), Estimate(share, math.sqrt(share * (1 - share) / n)),
        Estimate(chance, math.sqrt(chance * (1 - chance) / (m + 2))),
    )  # fmt: skip


def two_sample_test(x: Array, y: Array) -> Estimate:
    """Tell two samples apart by each point's nearest neighbour: how often it is right                   Eq. (15.5).

    The classifier test of Lopez-Paz and Oquab 2017: each of the 2n points is given the side of its nearest other point.
    If both samples have one law this is right with probability (n - 1)/(2n - 1), a little below ½, for n - 1 of the
    2n - 1 others are of its side; laws that do not overlap are told apart always. Well below chance, one sample copies
    the other. A point whose nearest points are of both sides counts ½.

    Two points that are nearest to each other are right or wrong together: the error counts them as one.

    Parameters
    ----------
    x, y : Array, shape (n, ...)
        The two samples, n >= 2.

    Returns
    -------
    Estimate
        The accuracy and its standard error.

    Raises
    ------
    ValueError, TypeError
        As `nearest`; for samples of different size, or of one row.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.measure.neighbours import two_sample_test
    >>> x = np.array([[0.0], [1.0], [3.0]])
    >>> two_sample_test(x, x + 100)
    Estimate(value=1.0, error=0.0)
    """
    check_data("x", x)
    check_data("y", y)
    _check_rows(x, y=y)
    n = x.shape[0]
    if y.shape[0] != n or n < 2:
        raise ValueError(f"give two samples of one size, at least 2, so that chance is known; got {n} and {y.shape[0]}")
    xp = array_namespace(x)
    (xx, to_xx), (yy, to_yy), (xy, to_xy), (yx, to_yx) = nearest(x), nearest(y), nearest(x, y), nearest(y, x)
    own, other = xp.concat([xx, yy]), xp.concat([xy, yx])
    right = xp.astype(own < other, x.dtype) + 0.5 * xp.astype(own == other, x.dtype)
    to = xp.where(own < other, xp.concat([to_xx, to_yy + n]), xp.concat([to_xy + n, to_yx]))
    mutual = xp.take(to, to) == xp.arange(2 * n, dtype=to.dtype, device=device(to))
    accuracy = float(xp.sum(right)) / (2 * n)
    away = (right - accuracy) ** 2
    error = xp.sqrt(xp.sum(xp.where(mutual, 2 * away, away))) / (2 * n)
    return Estimate(accuracy, float(error))


def _nearest(a: Array, b: Array, side: int, own: int | None) -> tuple[Array, Array]:
    """Least squares and indices of columns of a (D, r) among those of b (D, m); `own` is where a stands in b."""
    xp, where = array_namespace(a), device(a)
    best = xp.full((a.shape[1],), math.inf, dtype=a.dtype, device=where)
    index = xp.zeros((a.shape[1],), dtype=xp.int64, device=where)
    for k in range(0, b.shape[1], side):
        gap = a[:, :, None] - b[:, None, k : min(k + side, b.shape[1])]
        square = long_sum(gap * gap, axis=0)
        if k == own:
            square = xp.where(xp.eye(*square.shape, dtype=a.dtype, device=where) > 0, math.inf, square)
        least = xp.min(square, axis=1)
        index = xp.where(least < best, xp.argmin(square, axis=1) + k, index)
        best = xp.minimum(best, least)
    return best, index


def _median(a: Array) -> float:
    """Of sorted numbers."""
    return 0.5 * float(a[(a.shape[0] - 1) // 2] + a[a.shape[0] // 2])


def _check_rows(x: Array, **others: Array) -> None:
    check_squares(x=x, **others)
    check_same(x, **others)
    for name, y in others.items():
        if y.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"rows must be alike in shape to have a distance, got {tuple(x.shape)} and {name} {tuple(y.shape)}"
            )
