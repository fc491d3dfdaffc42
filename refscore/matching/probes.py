"""Probes: random directions v with E vvᵀ = I, so that E vᵀA v = tr A, Eq. (3.5). Chapter 3.

What an average over K of them costs, S the symmetric part of A: the variance of vᵀA v is, Eq. (3.7),

    gaussian     2 ‖S‖²
    rademacher   2 ‖S‖² - 2 Σ S_ii²
    sphere       (2D ‖S‖² - 2 (tr S)²)/(D + 2)

so Rademacher probes never have more variance than Gaussian ones; in D = 1 they give the trace exactly.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from refscore.checks import check_like
from refscore.library import array_namespace, device
from refscore.protocols import Array, Rng

Probes: TypeAlias = Callable[[Rng, tuple[int, ...], Any], Array]  # (rng, (K, B, ...), dtype) -> v


def gaussian(rng: Rng, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draw v from the Gaussian law N(0, I).

    Parameters
    ----------
    rng : Rng
        Source of the random numbers.
    shape : tuple of int
        (K, B, ...), a stack of K directions for samples of shape (B, ...).
    dtype : dtype or str
        Of v.

    Returns
    -------
    Array, shape (K, B, ...)
        The directions v.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(rng=rng)
    return rng.standard_normal(shape, dtype=dtype)


def rademacher(rng: Rng, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draw v whose coordinates are 1 or -1, each with probability ½.

    Parameters
    ----------
    rng, shape, dtype : see `gaussian`

    Returns
    -------
    Array, shape (K, B, ...)
        The directions v.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(rng=rng)
    u = rng.random(shape, dtype=dtype)
    return 2 * array_namespace(u).astype(u >= 0.5, u.dtype) - 1  # not by floor(2u): some libraries draw u = 1


def sphere(rng: Rng, shape: tuple[int, ...], dtype: Any) -> Array:
    """Draw v uniform on the sphere of radius √D: of radius 1 it would have E vvᵀ = I/D.

    Parameters
    ----------
    rng, shape, dtype : see `gaussian`
        D is the product of the axes of `shape` after the second.

    Returns
    -------
    Array, shape (K, B, ...)
        The directions v.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(rng=rng)
    v = rng.standard_normal(shape, dtype=dtype)
    xp, axes = array_namespace(v), tuple(range(2, len(shape)))
    length = xp.sqrt(xp.sum(v * v, axis=axes, keepdims=True))
    return v * (math.sqrt(math.prod(shape[2:])) / length)


def units(x: Array) -> Array:
    """The D unit vectors as a stack beside x: one probe a dimension gives the trace itself.

    Parameters
    ----------
    x : Array, shape (B, ...)
        Samples of D coordinates.

    Returns
    -------
    Array, shape (D, B, ...)
        The unit vectors, in the dtype and on the device of x.
    """
    xp, D = array_namespace(x), math.prod(x.shape[1:])
    eye = xp.reshape(xp.eye(D, dtype=x.dtype, device=device(x)), (D, 1, *x.shape[1:]))
    return xp.broadcast_to(eye, (D, *x.shape))
