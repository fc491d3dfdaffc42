"""Probes: random directions v with E vvᵀ = I, so that E vᵀA v = tr A, Eq. (3.5). Chapter 3.

What an average over K of them costs, S the symmetric part of A: the variance of vᵀA v is, Eq. (3.7),

    gaussian     2 ‖S‖²
    rademacher   2 ‖S‖² - 2 Σ S_ii²
    sphere       (2D ‖S‖² - 2 (tr S)²)/(D + 2)

so Rademacher probes never lose to Gaussian ones; in D = 1 they know the trace exactly.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

from array_api_compat import array_namespace, device

from refscore.protocols import Array, Rng

Probes: TypeAlias = Callable[[Rng, tuple[int, ...], Any], Array]  # (rng, (K, B, ...), dtype) -> v


def gaussian(rng: Rng, shape: tuple[int, ...], dtype: Any) -> Array:
    """v ~ N(0, I), of shape (K, B, ...)."""
    return rng.standard_normal(shape, dtype=dtype)


def rademacher(rng: Rng, shape: tuple[int, ...], dtype: Any) -> Array:
    """Every coordinate of v is 1 or -1, of shape (K, B, ...)."""
    u = rng.random(shape, dtype=dtype)
    return 2 * array_namespace(u).astype(u >= 0.5, u.dtype) - 1  # not by floor(2u): some libraries draw u = 1


def sphere(rng: Rng, shape: tuple[int, ...], dtype: Any) -> Array:
    """v uniform on the sphere of radius √D, of shape (K, B, ...): of radius 1 it would have E vvᵀ = I/D."""
    v = rng.standard_normal(shape, dtype=dtype)
    xp, axes = array_namespace(v), tuple(range(2, len(shape)))
    length = xp.sqrt(xp.sum(v * v, axis=axes, keepdims=True))
    return v * (math.sqrt(math.prod(shape[2:])) / length)


def units(x: Array) -> Array:
    """The D unit vectors as a stack (D, B, ...) beside x (B, ...): one probe a dimension gives the trace itself."""
    xp, D = array_namespace(x), math.prod(x.shape[1:])
    eye = xp.reshape(xp.eye(D, dtype=x.dtype, device=device(x)), (D, 1, *x.shape[1:]))
    return xp.broadcast_to(eye, (D, *x.shape))
