"""What every other module shares: names for things, arrays that fit each other, checks at the doors.

Arrays come from the arguments or from the rng, so nothing here (nor in any formula) imports
NumPy or CuPy: `array_namespace(x)` finds the library that made x.
"""

import dataclasses
import math
import operator
from collections.abc import Mapping
from numbers import Real
from typing import Any, Protocol, TypeAlias, get_args, get_origin

from array_api_compat import array_namespace, device

Array: TypeAlias = Any
Time: TypeAlias = Any  # a Python float, or an array of shape (1,) or (B,)
Params: TypeAlias = Mapping[str, Array]
Shapes: TypeAlias = Mapping[str, tuple[int, ...]]


class Rng(Protocol):
    """numpy.random.Generator, cupy.random.Generator, or a stand-in that replays recorded noise."""

    def standard_normal(self, size: Any = None, dtype: Any = ...) -> Array:
        """N(0, 1) numbers."""

    def random(self, size: Any = None, dtype: Any = ...) -> Array:
        """Uniform numbers in [0, 1)."""

    def integers(self, low: int, high: int, size: Any = None) -> Array:
        """Uniform integers in [low, high)."""


class Score(Protocol):
    """∇ₓ log p_t(x), whoever wrote it: a network, a mixture, a lambda."""

    def __call__(self, x: Array, t: Array) -> Array:
        """x (B, ...) and t (B,), or (1,) when all samples share one time -> (B, ...)."""


class Process(Protocol):
    """dx = drift(x, t) dt + noise(x, t) dw, in either direction of time."""

    def drift(self, x: Array, t: float) -> Array:
        """x (B, ...) -> (B, ...)."""

    def noise(self, x: Array, t: float) -> Any:
        """A float, or an array that broadcasts against x."""


class Kernel(Protocol):
    """A random map that leaves p_t alone, or nearly so: Langevin, a corrector."""

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """x (B, ...) at time t -> x (B, ...) at the same time."""


class Step(Protocol):
    """One step of a sampler, from time t to time s."""

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: Any = None) -> tuple[Array, Any]:
        """x (B, ...) at t -> x (B, ...) at s, and what the method must remember."""


class SDE(Protocol):
    """A linear SDE dx = f(t) x dt + g(t) dw on [0, 1], data at 0, noise at 1; see `refscore.sde`."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the noise that sampling starts from."""

    def f(self, t: Time) -> Time:
        """Drift rate."""

    def g(self, t: Time) -> Time:
        """Diffusion coefficient."""

    def alpha(self, t: Time) -> Time:
        """Signal scale α(t), with α(0) = 1."""

    def sigma(self, t: Time) -> Time:
        """Noise scale σ(t), with σ(0) = 0."""

    def time(self, sigma: Time) -> Time:
        """The t at which σ(t) = sigma."""

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """The t at which log σ(t)/α(t) = ratio."""


# ------------------------------------------------------------------ arrays that fit each other


def is_number(t: Time) -> bool:
    """True for a number of Python's or NumPy's own, False for an array."""
    return isinstance(t, Real)


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


# ------------------------------------------------------------------ checks at the doors


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
    own = getattr(score, "sde", None) or getattr(getattr(score, "model", None), "sde", None)
    if own is not None and own != sde:
        raise ValueError(f"the score was made for {own}, not for {sde}: they disagree on what t means")


def check_inverse(sde: SDE) -> None:
    """Refuse an SDE that cannot tell the time of a noise level, where levels are what is asked for."""
    if not hasattr(sde, "time_at_log_ratio"):
        raise TypeError(
            "noise levels are found by sde.time_at_log_ratio(ratio), the t at which log σ/α is the ratio, and "
            f"{type(sde).__name__} has none: add it, or take uniform_times"
        )


def check_time(t: Time) -> Time:
    """t, a number as a Python float, which must lie in [0, 1]. Arrays pass: looking would make the device wait."""
    if not is_number(t):
        return t
    if not 0 <= t <= 1:
        raise ValueError(f"t must lie in [0, 1] (data at 0, noise at 1), got {t}")
    return float(t)
