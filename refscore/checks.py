"""The doors: what comes in from a user is what it is called, or is refused with a sentence."""

import dataclasses
import math
import operator
from numbers import Real
from typing import Any, get_args, get_origin

from array_api_compat import array_namespace, device

from refscore.protocols import SDE, Array, HasLevels, HasSDE, Time


def is_number(t: Time) -> bool:
    """True for a number of Python's or NumPy's own, False for an array."""
    return isinstance(t, Real)


def check_floating(name: str, x: Array, ndim: int | None = None) -> None:
    """Refuse what is not a float32 or float64 array (of `ndim` axes)."""
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
    """Refuse NaN and infinity, naming the first bad index and their number. Waits for the device."""
    xp = array_namespace(x)
    bad = ~xp.isfinite(x)
    count = int(xp.sum(xp.astype(bad, xp.int64)))
    if count:
        first = tuple(int(i[0]) for i in xp.nonzero(bad))
        where = f"[{', '.join(map(str, first))}]"
        raise ValueError(f"{name} holds {count} values that are not finite, the first at {name}{where}")


def check_same(reference: Array, **others: Array) -> None:
    """Refuse arrays of another library, dtype or device than the reference."""
    xp = array_namespace(reference)
    for name, x in others.items():
        if array_namespace(x) is not xp:
            raise TypeError(f"{name} comes from {array_namespace(x).__name__}, the rest from {xp.__name__}")
        if x.dtype != reference.dtype:
            raise TypeError(f"{name} is {x.dtype}, the rest is {reference.dtype}: convert one of them first")
        if device(x) != device(reference):
            raise TypeError(f"{name} is on {device(x)}, the rest on {device(reference)}: move one of them first")


def check_data(name: str, x: Array) -> None:
    """Refuse anything but a non-empty (B, ...) array of finite floats."""
    check_floating(name, x)
    if x.ndim < 2:
        raise ValueError(f"{name} must have shape (B, ...) with at least 2 axes, got {tuple(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"{name} is empty: its shape is {tuple(x.shape)}")
    check_finite(name, x)


def check_answer(who: str, y: Array, x: Array) -> Array:
    """y, if it has the shape of x: what a user's function answers with would else broadcast, silently."""
    if getattr(y, "shape", None) != x.shape:
        got = tuple(y.shape) if hasattr(y, "shape") else type(y).__name__
        raise ValueError(f"{who} must answer in the shape of x, {tuple(x.shape)}; got {got}")
    return y


def check_number(name: str, value: Any) -> float:
    """A Python float from a number or a 0-d array, whoever made it; anything else is refused by name."""
    if isinstance(value, (bool, complex, str, bytes)) or getattr(value, "shape", ()) != ():
        raise TypeError(f"{name} must be a number, got {value!r}")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A Python int from an integer of any library that is at least `least`; anything else is refused by name."""
    try:
        count = operator.index(value)
    except TypeError:
        count = least - 1
    if isinstance(value, bool) or count < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return count


def check_positive(**values: float) -> None:
    """Refuse numbers that are not finite and positive, by name."""
    for name, value in values.items():
        if not (math.isfinite(check_number(name, value)) and value > 0):
            raise ValueError(f"{name} must be positive and finite, got {value}")


def settle(noun: Any, **least: int) -> None:
    """Make Python numbers of a frozen dataclass's own: floats of fields that may be float, counts of those named here.

    For `__post_init__`: a numpy.float64 that a user hands over, say a standard deviation, would turn every float32
    array it meets into float64. Each count is named with the least value it may have.
    """
    for name, lowest in least.items():
        object.__setattr__(noun, name, check_count(name, getattr(noun, name), lowest))
    for field in dataclasses.fields(noun):
        value, of = getattr(noun, field.name), get_args(field.type) or (field.type,)
        if float not in of or value is None or callable(value):
            continue
        if get_origin(field.type) is tuple:
            number: Any = tuple(check_number(f"{field.name}[{i}]", v) for i, v in enumerate(value))
        else:
            number = check_number(field.name, value)
        object.__setattr__(noun, field.name, number)


def check_made_for(score: Any, sde: SDE) -> None:
    """Refuse a score that says it belongs to another SDE (`ExactScore`, a bound model); functions say nothing."""
    if isinstance(score, HasSDE) and score.sde != sde:
        raise ValueError(f"the score was made for {score.sde}, not for {sde}: they disagree on what t means")


def check_inverse(sde: SDE) -> None:
    """Refuse an SDE that cannot tell the time of a noise level, where levels are what is asked for."""
    if not isinstance(sde, HasLevels):
        raise TypeError(
            "noise levels are found by sde.time_at_log_ratio(ratio), the t at which log σ/α is the ratio, and "
            f"{type(sde).__name__} has none: add it, or take uniform_times"
        )


def check_time(t: Time) -> Any:
    """t, a number as a Python float, which must lie in [0, 1]. Arrays pass: looking would make the device wait."""
    if not is_number(t):
        return t
    if not 0 <= t <= 1:
        raise ValueError(f"t must lie in [0, 1] (data at 0, noise at 1), got {t}")
    return float(t)
