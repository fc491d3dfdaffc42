"""Arrays that fit each other: times beside samples, one number a sample, one flat vector of parameters.

Arrays come from the arguments or from the rng, so nothing here (nor in any formula) imports
NumPy or CuPy: `array_namespace(x)` finds the library that made x.
"""

import math
from typing import Any

from refscore.checks import check_answer, check_array, check_kind, check_size, check_time, is_number, plain
from refscore.library import array_namespace, device, is_array_api_obj
from refscore.protocols import Array, NeedsNoise, Params, Score, Shapes, Time


def namespace(t: Time) -> Any:
    """The module with the functions (`exp`, `sqrt`, ...) for a value.

    Parameters
    ----------
    t : float or Array
        The value.

    Returns
    -------
    module
        `math` for a number (or what the number has as `functions`), the array's own library otherwise.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    if is_number(t):
        return getattr(t, "functions", math)
    check_kind("a time or a level", t)
    return array_namespace(t)


def constant(value: float, like: Time) -> Any:
    """The value in the shape of `like`: a float beside a number, an array beside an array.

    Parameters
    ----------
    value : float
        The value.
    like : float or Array
        Gives shape, dtype and device.

    Returns
    -------
    float or Array
        A number if `like` is one, else a full array.
    """
    if is_number(like):
        return value
    return array_namespace(like).full_like(like, value)


def beside(t: Time, x: Array) -> Any:
    """Prepare a time t for use with samples x.

    Parameters
    ----------
    t : float or Array, shape (), (1,) or (B,)
        One time for all samples, or one for each.
    x : Array, shape (B, ...)
        The samples.

    Returns
    -------
    float or Array, shape (1,) or (B,)
        A float from a number, else an array in the dtype of x.

    Raises
    ------
    ValueError
        For a number outside [0, 1], or an array of another shape.
    TypeError
        For x that is not floating.
    """
    return check_time(one_each("t", t, x))


def one_each(name: str, a: Any, x: Array) -> Any:
    """Prepare one number for all samples of x, or one a sample, for use with x.

    Parameters
    ----------
    name : str
        What the user calls a, for the message.
    a : float or Array, shape (), (1,) or (B,)
        The number or numbers.
    x : Array, shape (B, ...)
        The samples.

    Returns
    -------
    float or Array, shape (1,) or (B,)
        A float from a number, else an array in the dtype of x.

    Raises
    ------
    ValueError
        For an array of another shape, and for a number whose square is none.
    TypeError
        For x that is not floating.
    """
    check_array(x=x)
    xp = array_namespace(x)
    if is_number(a):
        a = plain(a)
        check_size(**{name: a})
        if x.dtype == xp.float32 and isinstance(a, float) and 0 < abs(a) < 1e-19:
            raise ValueError(f"{name} must be 0 or above 1e-19 in float32, whose squares end there; got {a}")
        return a
    if not (is_array_api_obj(a) and array_namespace(a) is xp):
        raise TypeError(f"{name} must be a number or an array of {xp.__name__}, as x is; got {type(a).__name__}")
    a, B = (xp.reshape(a, (1,)) if a.ndim == 0 else a), x.shape[0]
    if a.shape not in ((1,), (B,)):
        raise ValueError(f"{name} must be one number, or one for each of the {B} samples; got shape {tuple(a.shape)}")
    return same_dtype(a, x)


def same_dtype(a: Array, x: Array) -> Array:
    """Convert a to the dtype of x, where both are real: a constant of a user's own must not widen float32.

    Parameters
    ----------
    a : Array
        What is converted.
    x : Array
        Gives the dtype.

    Returns
    -------
    Array
        a itself where there is nothing to convert, or where one of the two is complex.
    """
    if a.dtype == x.dtype:
        return a
    xp = array_namespace(x)
    return xp.astype(a, x.dtype) if a.dtype in (xp.float32, xp.float64) and x.dtype in (xp.float32, xp.float64) else a


def at(t: Time, x: Array) -> Array:
    """The time t as an array to be used with samples x, in their dtype and on their device.

    Parameters
    ----------
    t : float or Array, shape (), (1,) or (B,)
        One time for all samples, or one for each.
    x : Array, shape (B, ...)
        The samples.

    Returns
    -------
    Array, shape (1,) or (B,)
        (1,) from a number, else as `beside`.

    Raises
    ------
    ValueError, TypeError
        As `beside`.
    """
    return as_array(beside(t, x), x)


def as_array(value: Any, x: Array) -> Array:
    """A number as an array of one, in the dtype of x and on its device; an array as it is.

    Parameters
    ----------
    value : float or Array
        The value.
    x : Array
        Gives library, dtype and device.

    Returns
    -------
    Array, shape (1,) or that of value
        The same value.
    """
    return array_namespace(x).full((1,), value, dtype=x.dtype, device=device(x)) if is_number(value) else value


def ask(score: Score, x: Array, t: Time, who: str = "the score") -> Array:
    """Evaluate a score, and refuse a result of another shape than x, which would broadcast.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        The score.
    x : Array, shape (B, ...)
        Where it is evaluated.
    t : float or Array, shape (), (1,) or (B,)
        At which time; the score is given an array, unless it says `takes_numbers`.
    who : str, default 'the score'
        What the score is called in the message.

    Returns
    -------
    Array, shape (B, ...)
        The score at x.

    Raises
    ------
    ValueError
        For a result of another shape, and as `beside`.
    """
    if is_number(t) and t == 0 and isinstance(score, NeedsNoise):
        score.check_clean()
    # A number stays one where the score can use it: else α and σ are arrays of one number, and each a kernel on a GPU.
    now = beside(t, x) if getattr(score, "takes_numbers", False) else at(t, x)
    return answer(who, score(x, now), x)


def answer(who: str, y: Array, x: Array) -> Array:
    """Check what a user's function returned for x: another shape than that of x would broadcast, silently.

    Parameters
    ----------
    who : str
        What the function is called in the message, such as "the score".
    y : Array
        What it returned.
    x : Array, shape (B, ...)
        What it was called with.

    Returns
    -------
    Array, shape (B, ...)
        y in the dtype of x.

    Raises
    ------
    ValueError
        For another shape.
    """
    return same_dtype(check_answer(who, y, x), x)


def per_sample(a: Any, x: Array, name: str = "a factor of samples") -> Any:
    """Reshape one number a sample so that it multiplies x row by row.

    Parameters
    ----------
    a : float or Array, shape (), (1,) or (B,)
        One number for all samples, or one for each.
    x : Array, shape (B, ...)
        The samples.
    name : str, default 'a factor of samples'
        What the user calls a, for the message.

    Returns
    -------
    float or Array, shape (1, 1, ...) or (B, 1, ...)
        A number as a float, else an array of as many axes as x.

    Raises
    ------
    ValueError
        For an array of another shape.
    """
    if is_number(a):
        return plain(a)
    if a.shape not in ((), (1,), (x.shape[0],)):
        raise ValueError(
            f"{name} must be one number, or one for each of the {x.shape[0]} samples; got shape {tuple(a.shape)}"
        )
    return array_namespace(a).reshape(same_dtype(a, x), (-1,) + (1,) * (x.ndim - 1))


def row_squares(x: Array) -> Array:
    """‖x‖² of each sample.

    Parameters
    ----------
    x : Array, shape (B, ...)
        The samples.

    Returns
    -------
    Array, shape (B,)
        Sums of squares.
    """
    return long_sum(array_namespace(x).reshape(x * x, (x.shape[0], math.prod(x.shape[1:]))), axis=1)


def put(y: Any, where: Any, values: Array) -> Array:
    """Write into an array that was made just now: in place, or into a copy where arrays cannot change, as JAX's.

    Parameters
    ----------
    y : Array
        The array; use what is returned in its place.
    where : tuple of slices
        The part of y that is replaced.
    values : Array
        Its new numbers.

    Returns
    -------
    Array, shape of y
        y, or the copy.
    """
    if hasattr(y, "at"):
        return y.at[where].set(values)
    y[where] = values
    return y


def long_sum(a: Array, axis: int) -> Array:
    """Σ over one axis, however long: its two halves are added to each other until few terms are left.

    Along any axis but the last NumPy adds one row after another: of 1e5 terms in float32 the fifth digit is lost.

    Parameters
    ----------
    a : Array
        The terms.
    axis : int
        The axis to sum over.

    Returns
    -------
    Array
        The sums, with one axis less.
    """
    xp = array_namespace(a)
    while (n := a.shape[axis]) > 16:
        before = (slice(None),) * (axis % a.ndim)
        half = a[(*before, slice(0, n // 2), ...)] + a[(*before, slice(n - n // 2, n), ...)]
        a = xp.concat([half, a[(*before, slice(n // 2, n - n // 2), ...)]], axis=axis) if n % 2 else half
    return xp.sum(a, axis=axis)


def real(x: Array) -> Array:
    """The real part, of an array that may be real already: comparisons and maxima need it.

    Parameters
    ----------
    x : Array
        Real or complex.

    Returns
    -------
    Array, shape of x
        x itself, or its real part.
    """
    xp = array_namespace(x)
    return xp.real(x) if xp.isdtype(x.dtype, "complex floating") else x


def views(theta: Array, shapes: Shapes) -> dict[str, Array]:
    """The flat parameter vector as named arrays: views of it, in the order of `shapes`.

    Parameters
    ----------
    theta : Array, shape (P,)
        The flat vector.
    shapes : mapping of str to tuple of int
        Name -> shape of every parameter.

    Returns
    -------
    dict of str to Array
        The parameters by name.

    Raises
    ------
    ValueError
        Unless P is the number of elements of all shapes.
    """
    check_array(theta=theta)
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
    """Named arrays as one vector, in the order of `shapes`: the inverse of `views`.

    Parameters
    ----------
    arrays : mapping of str to Array
        The arrays by name.
    shapes : mapping of str to tuple of int
        Name -> shape of every array; its order is used.
    like : Array, optional
        Returned as a vector if there are no names at all.

    Returns
    -------
    Array, shape (P,)
        The flat vector.
    """
    parts: list[Any] = [arrays[name] for name in shapes] or [like]
    xp = array_namespace(*parts)
    return xp.concat([xp.reshape(part, (-1,)) for part in parts])
