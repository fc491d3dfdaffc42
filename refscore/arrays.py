"""Arrays that fit each other: times beside samples, one number a sample, one flat vector of parameters.

Arrays come from the arguments or from the rng, so nothing here (nor in any formula) imports
NumPy or CuPy: `array_namespace(x)` finds the library that made x.
"""

import math
from typing import Any

from array_api_compat import array_namespace, device

from refscore.checks import check_answer, check_time, is_number
from refscore.protocols import Array, Params, Score, Shapes, Time


def plain(t: Time) -> Time:
    """A number as a Python float, an array as it is: a numpy.float64 beside a float32 array would widen it."""
    return float(t) if is_number(t) else t


def namespace(t: Time) -> Any:
    """`math` for a number, the array's own library otherwise."""
    return math if is_number(t) else array_namespace(t)


def constant(value: float, like: Time) -> Time:
    """The value in the shape of `like`: a float beside a number, an array beside an array."""
    if is_number(like):
        return value
    return array_namespace(like).full_like(like, value)


def beside(t: Time, x: Array) -> Time:
    """The time t as it goes with x (B, ...): a float from a number, an array (1,) or (B,) in the dtype of x."""
    return check_time(one_each("t", t, x))


def one_each(name: str, a: Time, x: Array) -> Time:
    """One number for all samples of x (B, ...) or one a sample: a float, or an array (1,) or (B,) in the dtype of x."""
    xp = array_namespace(x)
    if not xp.isdtype(x.dtype, ("real floating", "complex floating")):
        raise TypeError(f"x must be float32 or float64, got {x.dtype}: convert it first")
    if is_number(a):
        return float(a)
    a, B = (xp.reshape(a, (1,)) if a.ndim == 0 else a), x.shape[0]
    if a.shape not in ((1,), (B,)):
        raise ValueError(f"{name} must be one number, or one for each of the {B} samples; got shape {tuple(a.shape)}")
    complex_step = xp.isdtype(a.dtype, "complex floating") or xp.isdtype(x.dtype, "complex floating")
    return a if a.dtype == x.dtype or complex_step else xp.astype(a, x.dtype)


def at(t: Time, x: Array) -> Array:
    """t as an array beside x (B, ...), in its dtype and on its device: (1,) from a number, else as in `beside`."""
    t = beside(t, x)
    return array_namespace(x).full((1,), t, dtype=x.dtype, device=device(x)) if is_number(t) else t


def ask(score: Score, x: Array, t: Time) -> Array:
    """score(x, t), x (B, ...) -> (B, ...); an answer of another shape, which would broadcast, is refused."""
    return check_answer("the score", score(x, at(t, x)), x)


def per_sample(a: Time, x: Array) -> Time:
    """Shape a, (B,) or (1,), so that it multiplies x (B, ...) row by row; a number as a float."""
    if is_number(a):
        return float(a)
    if a.shape not in ((), (1,), (x.shape[0],)):
        raise ValueError(f"one number, or one for each of the {x.shape[0]} samples, is wanted; got {tuple(a.shape)}")
    return array_namespace(a).reshape(a, (-1,) + (1,) * (x.ndim - 1))


def row_squares(x: Array) -> Array:
    """‖x‖² of each sample, (B, ...) -> (B,)."""
    return long_sum(array_namespace(x).reshape(x * x, (x.shape[0], math.prod(x.shape[1:]))), axis=1)


def long_sum(a: Array, axis: int) -> Array:
    """Σ over one axis, however long: its two halves are added to each other until few terms are left.

    Along any axis but the last NumPy adds one row after another: of 1e5 terms in float32 the fifth digit is lost.
    """
    xp = array_namespace(a)
    while (n := a.shape[axis]) > 16:
        before = (slice(None),) * (axis % a.ndim)
        half = a[(*before, slice(0, n // 2), ...)] + a[(*before, slice(n - n // 2, n), ...)]
        a = xp.concat([half, a[(*before, slice(n // 2, n - n // 2), ...)]], axis=axis) if n % 2 else half
    return xp.sum(a, axis=axis)


def real(x: Array) -> Array:
    """The real part, of an array that may be real already: comparisons and maxima want it."""
    xp = array_namespace(x)
    return xp.real(x) if xp.isdtype(x.dtype, "complex floating") else x


def views(theta: Array, shapes: Shapes) -> dict[str, Array]:
    """The flat parameter vector as named arrays: views of it, in the order of `shapes`."""
    xp = array_namespace(theta)
    params, start = {}, 0
    for name, shape in shapes.items():
        stop = start + math.prod(shape)
        if stop > theta.shape[0]:
            break
        params[name] = xp.reshape(theta[start:stop], shape)
        start = stop
    if len(params) < len(shapes) or start != theta.shape[0]:
        size = sum(math.prod(shape) for shape in shapes.values())
        raise ValueError(f"theta must have shape ({size},) for this model, got {tuple(theta.shape)}")
    return params


def flat(arrays: Params, shapes: Shapes, like: Array | None = None) -> Array:
    """Named arrays as one vector, in the order of `shapes`: the inverse of `views`. If there are none: `like`."""
    parts = [arrays[name] for name in shapes] or [like]
    xp = array_namespace(*parts)
    return xp.concat([xp.reshape(part, (-1,)) for part in parts])
