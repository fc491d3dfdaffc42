"""The doors: arguments of the user are checked and converted, or refused with a sentence.

Each of these functions takes the name of an argument, so that the message can say which one is wrong.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from numbers import Real
from typing import Any, get_args, get_origin

from refscore.library import array_namespace, device, known
from refscore.protocols import SDE, Array, HasLevels, HasSDE, Time


def is_number(t: Time) -> bool:
    """Distinguish a number from an array.

    Parameters
    ----------
    t : float or Array
        The value.

    Returns
    -------
    bool
        True for a number of Python's or NumPy's own, False for an array.
    """
    return isinstance(t, (float, Real))  # float first: the usual case, and faster to tell


def plain(t: Time) -> Any:
    """Convert a number to a Python float: a numpy.float64 beside a float32 array would widen it.

    A number with `functions` of its own stays as it is: a recorder's, which stands for another one at the next call.

    Parameters
    ----------
    t : float or Array
        The value.

    Returns
    -------
    float or Array
        A number as a Python float, an array as it is.
    """
    return t if hasattr(t, "functions") or not is_number(t) else float(t)


NOUNS = {  # what goes by a name: what it is like, and what is used of it
    "sde": ("VP()", ("f", "g", "alpha", "sigma")),
    "rng": ("numpy.random.default_rng(seed) or its CuPy twin", ("standard_normal",)),
    "mixture": ("a GaussianMixture", ("score", "sample")),
    "gaussian": ("a Gaussian", ("mean", "cov")),
    "grid": ("a GridLaw", ("transition", "push")),
    "model": ("a ScoreModel(body, sde) or EnergyModel(body, sde)", ("shapes",)),
    "body": ("MLP((2, 64, 2)), a net", ("inputs",)),
    "optimizer": ("Adam(rate) or SGD(rate)", ("init", "update", "rate")),
    "ema": ("EMA(decay)", ("init", "update", "mean")),
    "times": ("UniformTime()", ("at",)),
    "process": ("Reverse(sde, score)", ("drift", "noise")),
    "score": ("ExactScore(mixture, sde), model.bind(theta) or a function of (x, t)", ("__call__",)),
    "objective": ("Denoising()", ("__call__",)),
    "tableau": ("refscore.sampling.solvers.RK4", ("a", "b", "c")),
    "law": ("rademacher or another function (rng, shape, dtype) -> v of refscore.matching.probes", ("__call__",)),
    "function": ("a function", ("__call__",)),
}


_LIKE: set[tuple[str, type]] = set()  # kinds of nouns with types that passed


def check_like(kind: str | None = None, /, **nouns: Any) -> None:
    """Refuse what cannot be what it is given as: a class in place of a noun, or what lacks a method that is used.

    Parameters
    ----------
    kind : str, optional
        A name of `NOUNS`; by default each argument's own.
    **nouns : object
        The values to be checked, by name.

    Raises
    ------
    TypeError
        For the first that is not.
    """
    for name, noun in nouns.items():
        if (kind or name, type(noun)) in _LIKE:
            continue
        like, used = NOUNS[kind or name]
        body = (kind or name) == "model" and hasattr(noun, "inputs")  # of a net: it has shapes, and knows no noise
        if isinstance(noun, type) or body or not all(hasattr(noun, method) for method in used):
            raise TypeError(f"{name} must be something like {like}, got {noun!r}")
        _LIKE.add((kind or name, type(noun)))


_SEEN: set[tuple[type, Any]] = set()  # types of arrays with dtypes that passed: a training step asks thirty times


def check_kind(name: str, x: Any) -> None:
    """Refuse what is not an array of floats. Waits for nothing.

    Complex numbers pass: formulas are differentiated by a complex step.

    Parameters
    ----------
    name : str
        What the user calls x.
    x : Array
        The value to be checked.

    Raises
    ------
    TypeError
        For what is not an array, or of another dtype.
    """
    if known(x) and (type(x), x.dtype) in _SEEN:
        return
    try:
        xp = array_namespace(x)
    except TypeError as error:
        raise TypeError(f"{name} must be an array of float32 or float64, got {type(x).__name__}") from error
    if x.dtype not in (xp.float64, xp.float32, xp.complex128, xp.complex64):
        raise TypeError(f"{name} must be float32 or float64, got {x.dtype}: convert it first")
    if known(x):
        _SEEN.add((type(x), x.dtype))


def check_array(**arrays: Any) -> None:
    """Refuse what is not an array of floats with an axis for samples, all of one library. Waits for nothing.

    Parameters
    ----------
    **arrays : Array, shape (B, ...)
        The values to be checked, by name; complex ones pass, as in `check_kind`.

    Raises
    ------
    TypeError
        For what is not an array, of another dtype, or of another library or device than the first.
    ValueError
        For a 0-d array.
    """
    first = next(iter(arrays.values()))
    for name, x in arrays.items():
        check_kind(name, x)
        if x.ndim == 0:
            raise ValueError(f"{name} must have an axis for samples, (B, ...); got shape ()")
        if type(x) is not type(first) or getattr(x, "device", None) != getattr(first, "device", None):
            check_place(first, **{name: x})


def check_floating(name: str, x: Array, ndim: int | None = None) -> None:
    """Refuse what is not a float32 or float64 array (of `ndim` axes).

    Parameters
    ----------
    name : str
        What the user calls x.
    x : Array
        The value to be checked.
    ndim : int, optional
        The number of axes wanted; any number by default.

    Raises
    ------
    TypeError
        For what is not an array, or of another dtype.
    ValueError
        For another number of axes.
    """
    try:
        xp = array_namespace(x)
    except TypeError:
        raise TypeError(
            f"{name} must be an array of float32 or float64, got {type(x).__name__}: convert it first, "
            "for example with numpy.asarray(..., dtype='float32')"
        ) from None
    if x.dtype not in (xp.float32, xp.float64):
        raise TypeError(f"{name} must be float32 or float64, got {x.dtype}: convert it first")
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes, got shape {tuple(x.shape)}")


def check_finite(name: str, x: Array) -> None:
    """Refuse NaN and infinity, naming the first bad index and their number. Waits for the device.

    Parameters
    ----------
    name : str
        What the user calls x.
    x : Array
        The array to be checked.

    Raises
    ------
    ValueError
        For a value that is not finite.
    """
    xp = array_namespace(x)
    bad = ~xp.isfinite(x)
    if xp.any(bad):
        count = int(xp.sum(xp.astype(bad, xp.int64)))
        first = tuple(int(i[0]) for i in xp.nonzero(bad))
        where = f"[{', '.join(map(str, first))}]"
        raise ValueError(f"{name} holds {count} values that are not finite, the first at {name}{where}")


def check_same(reference: Array, **others: Array) -> None:
    """Refuse arrays of another library, dtype or device than the reference.

    Parameters
    ----------
    reference : Array
        The array that the others must match.
    **others : Array
        The arrays to be checked, by name.

    Raises
    ------
    TypeError
        For the first that does not match.
    """
    check_place(reference, **others)
    for name, x in others.items():
        if x.dtype != reference.dtype:
            raise TypeError(f"{name} is {x.dtype}, the rest is {reference.dtype}: convert one of them first")


def check_place(reference: Array, **others: Array) -> None:
    """Refuse arrays of another library or device than the reference.

    Parameters
    ----------
    reference : Array
        The array beside which the others are used.
    **others : Array
        The arrays to be checked, by name.

    Raises
    ------
    TypeError
        For the first that does not match.
    """
    xp = array_namespace(reference)
    for name, x in others.items():
        if array_namespace(x) is not xp:
            raise TypeError(f"{name} comes from {array_namespace(x).__name__}, the rest from {xp.__name__}")
        if device(x) != device(reference):
            raise TypeError(f"{name} is on {device(x)}, the rest on {device(reference)}: move one of them first")


def check_data(name: str, x: Array) -> None:
    """Refuse anything but a non-empty (B, ...) array of finite floats. Waits for the device.

    Parameters
    ----------
    name : str
        What the user calls x.
    x : Array, shape (B, ...)
        The value to be checked.

    Raises
    ------
    TypeError
        For what is not an array of float32 or float64.
    ValueError
        For fewer than 2 axes, no samples, or values that are not finite.
    """
    check_floating(name, x)
    if x.ndim < 2:
        raise ValueError(f"{name} must have shape (B, ...) with at least 2 axes, got {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"{name} is empty: its shape is {tuple(x.shape)}")
    check_finite(name, x)


def check_squares(**arrays: Array) -> None:
    """Refuse arrays with numbers whose squares could not be added up. Waits for the device.

    Parameters
    ----------
    **arrays : Array
        The arrays to be checked, by name.

    Raises
    ------
    ValueError
        For a number beyond 1e150, or in float32 beyond 1e15.
    """
    for name, x in arrays.items():
        xp = array_namespace(x)
        most = 1e15 if x.dtype == xp.float32 else 1e150
        if float(xp.max(xp.abs(x))) > most:
            raise ValueError(f"{name} holds numbers beyond {most:g}, whose squares cannot be added up: scale them")


def check_answer(who: str, y: Array, x: Array) -> Array:
    """Refuse what a user's function returned if its shape is not that of x: it would broadcast, unnoticed.

    Parameters
    ----------
    who : str
        Name of the function, for the message.
    y : Array
        What it returned.
    x : Array
        Its argument.

    Returns
    -------
    Array, shape of x
        y itself.

    Raises
    ------
    ValueError
        For another shape.
    """
    if getattr(y, "shape", None) != x.shape:
        got = tuple(y.shape) if hasattr(y, "shape") else type(y).__name__
        raise ValueError(f"{who} must answer in the shape of x, {tuple(x.shape)}; got {got}")
    return y


def check_number(name: str, value: Any) -> float:
    """Convert a number or a 0-d array of any library to a Python float.

    Parameters
    ----------
    name : str
        What the user calls the value.
    value : number or Array, shape ()
        The value to be converted.

    Returns
    -------
    float
        The number.

    Raises
    ------
    TypeError
        For anything else: strings, complex numbers and True are refused too.
    """
    if isinstance(value, (bool, complex, str, bytes)) or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return plain(value) if is_number(value) else float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Convert an integer of any library to a Python int.

    Parameters
    ----------
    name : str
        What the user calls the value.
    value : int
        The value to be converted.
    least : int, default 1
        The smallest value allowed.

    Returns
    -------
    int
        The count.

    Raises
    ------
    ValueError
        For anything but an integer that is at least `least`.
    """
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or not least <= count < 2**63:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return count


def check_positive(**values: float) -> None:
    """Refuse numbers that are not finite and positive.

    Parameters
    ----------
    **values : float
        The numbers, by name.

    Raises
    ------
    TypeError
        For what is not a number.
    ValueError
        For a number that is not finite and positive.
    """
    for name, value in values.items():
        if not 0 < check_number(name, value) < math.inf:
            raise ValueError(f"{name} must be positive and finite, got {value}")


def check_range(low: float, high: float, **values: float) -> None:
    """Refuse numbers outside an interval.

    Parameters
    ----------
    low, high : float
        The ends; both are allowed.
    **values : float
        The numbers, by name.

    Raises
    ------
    TypeError
        For what is not a number.
    ValueError
        For a number outside, and for NaN.
    """
    for name, value in values.items():
        if not low <= check_number(name, value) <= high:
            raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {value}")


def check_size(**values: float) -> None:
    """Refuse numbers whose square is none: it would be infinite, or 0 where the number is not.

    What is no float, as the number of a recorder, passes.

    Parameters
    ----------
    **values : float
        The numbers, by name.

    Raises
    ------
    TypeError
        For a complex number.
    ValueError
        For NaN, and for what is neither 0 nor of a size between 1e-160 and 1e150.
    """
    for name, value in values.items():
        if isinstance(value, complex):
            raise TypeError(f"{name} must be a number, got {value}")
        if isinstance(value, float) and value != 0 and not 1e-160 <= abs(value) <= 1e150:
            raise ValueError(f"{name} must be 0, or of a size from 1e-160 to 1e150; got {value}")


def settle(noun: Any, **least: int) -> None:
    """Look at the fields of a frozen dataclass, and convert its numbers to Python's.

    For `__post_init__`: a numpy.float64 from a user, for example a standard deviation, would turn every float32
    array it meets into float64. What is called must be callable, and what has a name of `NOUNS` be like that.

    Parameters
    ----------
    noun : dataclass instance
        Its fields are replaced.
    **least : int
        The fields that are counts, each with the least value it may have.

    Raises
    ------
    TypeError
        For a field that may be float and is not a number, and for a field that is not what it should be like.
    ValueError
        For a count that is no integer, or too small.
    """
    for name, lowest in least.items():
        object.__setattr__(noun, name, check_count(name, getattr(noun, name), lowest))
    for field in dataclasses.fields(noun):
        value, of = getattr(noun, field.name), get_args(field.type) or (field.type,)
        if field.name in NOUNS:
            check_like(**{field.name: value})
        elif get_origin(field.type) is Callable or "__call__" in getattr(field.type, "__dict__", ()):
            check_like("function", **{field.name: value})
        other = type(None) in of if value is None else len(of) > 1 and callable(value) and not isinstance(value, type)
        if float not in of or other:  # None or a function, in place of a number
            continue
        if get_origin(field.type) is tuple:
            number: Any = tuple(check_number(f"{field.name}[{i}]", v) for i, v in enumerate(value))
        else:
            number = check_number(field.name, value)
        object.__setattr__(noun, field.name, number)


def check_made_for(score: Any, sde: SDE) -> None:
    """Refuse a score that was made for another SDE: `ExactScore` and a bound model name theirs, functions do not.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        The score; its `sde`, or that of its `model`, is compared.
    sde : SDE
        The SDE with which it will be used.

    Raises
    ------
    ValueError
        If the two differ.
    """
    if isinstance(score, HasSDE) and score.sde != sde:
        raise ValueError(f"the score was made for {score.sde}, not for {sde}: they disagree on what t means")


def check_inverse(sde: SDE) -> None:
    """Refuse an SDE without `time_at_log_ratio`, where the time of a noise level is needed.

    Parameters
    ----------
    sde : SDE
        The SDE to be checked.

    Raises
    ------
    TypeError
        If the method is missing.
    """
    if not isinstance(sde, HasLevels):
        raise TypeError(
            "noise levels are found by sde.time_at_log_ratio(ratio), the t at which log σ/α is the ratio, and "
            f"{type(sde).__name__} has none: add it, or take uniform_times"
        )


def check_time(t: Time) -> Any:
    """Check that a time lies in [0, 1]. Arrays are not checked: their values would make the device wait.

    Parameters
    ----------
    t : float or Array
        The time, or an array of times.

    Returns
    -------
    float or Array
        A number as a Python float, an array as it is.

    Raises
    ------
    ValueError
        For a number outside [0, 1].
    """
    if not is_number(t):
        check_kind("t", t)
        return t
    if not 0 <= t <= 1:
        raise ValueError(f"t must lie in [0, 1] (data at 0, noise at 1), got {t}")
    return plain(t)
