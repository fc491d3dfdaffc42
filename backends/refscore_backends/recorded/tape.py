"""Recording: a function of arrays is run once, and what it does to them is written down as a straight program.

A `Recorded` stands for an array, a `Number` for a number that may be another one at the next call. They answer like
the array or the number they hold, and each operation becomes a line on the `Tape`. What Python does between the lines
(loops over layers, checks of shapes, the choice of an order) happens once and is gone; a comparison of numbers, by
which a step may branch, becomes a guard: where it comes out otherwise the function is recorded once more. So what is
recorded may branch on times, and not on the values of arrays, which nothing here looks at.

No formula knows of it: a `Recorded` carries `__array_namespace__`, as every array of the standard does.
"""

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from numbers import Real
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from array_api_compat import array_namespace, device

_BINARY = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "pow": "**", "matmul": "@", "floordiv": "//", "mod": "%",
    "and_": "&", "or_": "|", "xor": "^", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip
_UNARY = {"neg": "-", "invert": "~", "abs": "abs"}
SCALARS = (
    *_BINARY.values(), "put", "where", "maximum", "minimum", "clip", "full", "asarray", "atan2", "hypot", "copysign",
    "add", "subtract", "multiply", "divide", "pow", "less", "less_equal", "greater", "greater_equal", "equal",
    "not_equal",
)  # fmt: skip  # numbers are operands of these; elsewhere a number is a shape, an axis, a count
DATA = ("nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values")  # of a shape that values decide
COMPARE = ("lt", "le", "gt", "ge", "eq", "ne")
AHEAD = 1e6  # before every array library, which would else convert what it does not know


@dataclass(frozen=True)
class Ref:
    """A value on the tape, by its name."""

    name: str


@dataclass(frozen=True)
class Line:
    """name = function(*args, **kwargs); the function is an operator's symbol, "[]", or a name in the namespace."""

    name: str
    function: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def refs(self) -> Iterator[str]:
        """Names of the values that the line reads."""
        yield from _refs((self.args, tuple(self.kwargs.values())))


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _refs(part)


@dataclass(eq=False)
class Tape:
    """What has been recorded: lines of numbers, guards, draws, and lines of arrays, each in order."""

    xp: Any
    numbers: list[str] = field(default_factory=list)
    library: Any = None  # xp, as it is
    known: dict[str, "Number"] = field(default_factory=dict)  # an expression of numbers -> the number it gave
    draws: list[tuple[str, int, str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    said: dict[str, str] = field(default_factory=dict)  # what a line says -> its name: none is written twice
    alive: Any = field(default_factory=WeakValueDictionary)  # what lines gave, as long as the function has it
    values: dict[str, Any] = field(default_factory=dict)  # examples: shape and dtype of each value
    held: dict[str, Any] = field(default_factory=dict)  # arrays and other objects that are not arguments
    generators: int = 0  # those that are given, then those that they spawn
    _count: int = 0

    def __post_init__(self) -> None:
        self.library, self.xp = self.xp, Namespace(self, self.xp)

    @property
    def drawn(self) -> list[str]:
        """Names of what is drawn, in order."""
        return [name for name, *_ in self.draws if name]

    def fresh(self, letter: str) -> str:
        """A new name."""
        self._count += 1
        return f"{letter}{self._count}"

    def hold(self, thing: Any) -> str:
        """The name of an object that is the same at every call."""
        for name, kept in self.held.items():
            if kept is thing:
                return name
        name = self.fresh("k")
        self.held[name] = thing
        return name

    def number(self, key: tuple[Any, ...], value: float) -> "Number":
        """The number of an expression, written once."""
        expression = _expression(*key)
        if expression not in self.known:
            name = self.fresh("n")
            self.numbers.append(f"{name} = {expression}")
            self.known[expression] = Number(self, name, value)
        return self.known[expression]

    def guard(self, key: tuple[Any, ...], outcome: Any) -> Any:
        """What a comparison came to; the program is good only where it comes to the same again."""
        line = f"if ({_expression(*key)}) is not {outcome}: return None"
        if line not in self.numbers:
            self.numbers.append(line)
        return outcome

    def line(self, function: str, call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function on the examples, and write the line down."""
        if function in ("full_like", "zeros_like", "ones_like", "empty_like") and isinstance(args[0], Recorded):
            x, own = args[0], {k: v for k, v in kwargs.items() if v is not None}  # of x only the shape counts
            function, args = function.removesuffix("_like"), (x.shape, *args[1:])
            kwargs, call = {"dtype": x.dtype, "device": x.device} | own, getattr(self.library, function)
        if function in DATA or (function == "[]" and _masks(args[1])):
            raise TypeError(
                f"what is compiled may not look at the values of an array: they are the shape of {function}"
            )
        if function not in SCALARS:
            args, kwargs = _fixed(args), {k: _fixed(v) for k, v in kwargs.items()}
        elif function == "full":
            args = (_fixed(args[0]), *args[1:])
        words = tuple(self.named(a) for a in args), {k: self.named(v) for k, v in kwargs.items()}
        name = self.said.get(said := repr((function, words)))
        if (before := self.alive.get(name)) is not None:
            return before
        call = self.library.zeros if function == "empty" else call  # examples are sound numbers
        made = call(*(_example(a) for a in args), **{k: _example(v) for k, v in kwargs.items()})
        if not is_array(made) and not (isinstance(made, (tuple, list)) and all(map(is_array, made))):
            return made  # a dtype, a truth about dtypes
        if name is None:
            name = self.said[said] = self.fresh("v")
            self.lines.append(Line(name, function, *words))
        if is_array(made):
            return self.alive.setdefault(name, Recorded(self, name, made))
        parts = [self.line("[]", operator.getitem, (_Several(name, made), i), {}) for i in range(len(made))]
        return type(made)(*parts) if hasattr(made, "_fields") else type(made)(parts)

    def named(self, value: Any) -> Any:
        """An argument as it stands in a line."""
        if isinstance(value, (Recorded, Number, _Several)):
            return Ref(value.name)
        if isinstance(value, (tuple, list)):
            return [self.named(v) for v in value] if isinstance(value, list) else tuple(map(self.named, value))
        if isinstance(value, slice):
            return slice(*(None if v is None else int(v) for v in (value.start, value.stop, value.step)))
        if value is None or value is Ellipsis or type(value) in (bool, int, float, complex, str):
            return value
        return Ref(self.hold(value))


@dataclass(frozen=True)
class _Several:
    """What a function answered that answers with several arrays."""

    name: str
    value: Any


def _example(value: Any) -> Any:
    if isinstance(value, (Recorded, Number, _Several)):
        return value.value
    if isinstance(value, (tuple, list)):
        return type(value)(_example(v) for v in value)
    return value


def _masks(key: Any) -> bool:
    return any("bool" in str(k.dtype) for k in (key if isinstance(key, tuple) else (key,)) if is_array(k))


def host_number(value: Any) -> Any:
    """A number of NumPy's own as Python's, as everywhere in refscore; anything else as it is."""
    return value.item() if isinstance(value, (np.integer, np.floating)) else value


def is_array(value: Any) -> bool:
    """Whether a value has a shape and a dtype, as an array of any library, and is no type."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, type)


def _expression(function: str, *args: Any) -> str:
    words = [a.name if isinstance(a, Number) else a if isinstance(a, str) else repr(a) for a in args]
    words = [{"inf": "math.inf", "-inf": "-math.inf", "nan": "math.nan"}.get(word, word) for word in words]
    if function == "pow" and words[0][0] == "-":
        words[0] = f"({words[0]})"  # -2.0 ** n is another number
    if function in _BINARY:
        return f"{words[0]} {_BINARY[function]} {words[1]}"
    if function in ("neg", "invert"):
        return f"{_UNARY[function]}{words[0]}"
    return f"{function}({', '.join(words)})"


# ---- numbers --------------------------------------------------------------------------------------


class Number:
    """A number that may be another one at the next call; in double precision, on the host.

    `float` and `int` of it give its present value, and make that a guard.
    """

    __slots__ = ("name", "tape", "value")
    __array_priority__ = AHEAD
    __array_ufunc__ = None

    def __init__(self, tape: Tape, name: str, value: float) -> None:
        self.tape, self.name, self.value = tape, name, value

    @property
    def functions(self) -> "_Functions":
        """What `math` is to a float."""
        return _Functions(self.tape)

    def fixed(self) -> Any:
        """Its value, which is the same wherever this program runs."""
        return self.tape.guard(("same", self, self.value), True) and self.value

    def __float__(self) -> float:
        return float(self.fixed())

    def __int__(self) -> int:
        return int(self.fixed())

    def __index__(self) -> int:
        return operator.index(self.fixed())

    def __bool__(self) -> bool:
        return bool(self.tape.guard(("bool", self), bool(self.value)))

    def __hash__(self) -> int:
        return hash(self.fixed())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.fixed(), digits)

    def __pos__(self) -> "Number":
        return self

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __repr__(self) -> str:
        return repr(self.value)


Real.register(Number)


def _number_operator(name: str, swapped: bool) -> Callable[[Number, Any], Any]:
    call = getattr(operator, name)

    def method(self: Number, other: Any) -> Any:
        if isinstance(other, Recorded):
            return NotImplemented
        other = host_number(other)
        a, b = (other, self) if swapped else (self, other)
        if not isinstance(other, (int, float, Number)):
            return self.tape.line(_BINARY[name], call, (a, b), {}) if is_array(other) else NotImplemented
        outcome = call(*(v.value if isinstance(v, Number) else v for v in (a, b)))
        if name in COMPARE:
            return self.tape.guard((name, a, b), outcome)
        return self.tape.number((name, a, b), outcome)

    return method


for _name in _BINARY:
    setattr(Number, f"__{_name.strip('_')}__", _number_operator(_name, False))
    if _name not in COMPARE:
        setattr(Number, f"__r{_name.strip('_')}__", _number_operator(_name, True))
for _name in ("neg", "abs"):
    setattr(
        Number, f"__{_name}__",
        lambda self, _name=_name: self.tape.number((_name, self), getattr(operator, _name)(self.value)),
    )  # fmt: skip


class _Functions:
    """The functions of `math`, of numbers that are recorded."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __getattr__(self, name: str) -> Callable[..., Number]:
        call = getattr(math, name)

        def function(*args: Any) -> Number:
            return self.tape.number((f"math.{name}", *args), call(*(_example(a) for a in args)))

        return function


# ---- arrays ---------------------------------------------------------------------------------------


class Recorded:
    """An array in a function that is being recorded."""

    __array_priority__ = AHEAD
    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, tape: Tape, name: str, value: Any) -> None:
        self.tape, self.name, self.value = tape, name, value
        tape.values[name] = Kind(tuple(value.shape), value.dtype)

    def __array_namespace__(self, api_version: Any = None) -> "Namespace":
        """The functions, recorded."""
        return self.tape.xp

    @property
    def shape(self) -> tuple[int, ...]:
        """As of the array."""
        return tuple(self.value.shape)

    @property
    def ndim(self) -> int:
        """As of the array."""
        return len(self.value.shape)

    @property
    def size(self) -> int:
        """As of the array."""
        return math.prod(self.value.shape)

    @property
    def dtype(self) -> Any:
        """As of the array."""
        return self.value.dtype

    @property
    def device(self) -> Any:
        """As of the array."""
        return device(self.value)

    @property
    def at(self) -> "_At":
        """`x.at[where].set(value)` is x with another value there."""
        return _At(self)

    def __getitem__(self, key: Any) -> "Recorded":
        if not isinstance(key, Recorded):
            key = _plain_key(key)
        return self.tape.line("[]", operator.getitem, (self, key), {})

    def __pos__(self) -> Any:
        return self.tape.xp.positive(self)

    def _looks(self, *args: Any) -> Any:
        raise TypeError("what is compiled may not look at the values of an array: no float(x), if x, or loop over x")

    __float__ = __int__ = __index__ = __bool__ = __complex__ = __iter__ = __len__ = __array__ = _looks


def _plain_key(key: Any) -> Any:
    if isinstance(key, tuple):
        return tuple(_plain_key(k) for k in key)
    if isinstance(key, slice):
        return slice(*(None if v is None else operator.index(v) for v in (key.start, key.stop, key.step)))
    return key if key is None or key is Ellipsis or is_array(key) else operator.index(key)


@dataclass(frozen=True)
class Kind:
    """Shape and dtype of a value."""

    shape: tuple[int, ...]
    dtype: Any


class _At:
    def __init__(self, x: Recorded, key: Any = None) -> None:
        self.x, self.key = x, key

    def __getitem__(self, key: Any) -> "_At":
        return _At(self.x, _plain_key(key))

    def set(self, value: Any) -> Recorded:
        """x with the value at the key."""
        return self.x.tape.line("put", lambda x, key, value: x, (self.x, self.key, value), {})


def _array_operator(name: str, swapped: bool) -> Callable[[Recorded, Any], Any]:
    call = getattr(operator, name)

    def method(self: Recorded, other: Any) -> Any:
        a, b = (other, self) if swapped else (self, other)
        return self.tape.line(_BINARY[name], call, (a, b), {})

    return method


for _name in _BINARY:
    setattr(Recorded, f"__{_name.strip('_')}__", _array_operator(_name, False))
    if _name not in COMPARE:
        setattr(Recorded, f"__r{_name.strip('_')}__", _array_operator(_name, True))
for _name in _UNARY:
    setattr(
        Recorded, f"__{_name}__",
        lambda self, _name=_name: self.tape.line(_name, getattr(operator, _name), (self,), {}),
    )  # fmt: skip


class Namespace:
    """An array library whose calls are written down; what is no function is as it is there."""

    def __init__(self, tape: Tape, xp: Any, prefix: str = "") -> None:
        self._tape, self._xp, self._prefix = tape, xp, prefix

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._xp, name)
        if name == "linalg":
            return Namespace(self._tape, real, "linalg.")
        if isinstance(real, type) or not callable(real) or hasattr(real, "dtype"):
            return real
        made = lambda *args, **kwargs: self._tape.line(self._prefix + name, real, args, kwargs)  # noqa: E731
        setattr(self, name, made)
        return made


class RecordedRng:
    """A generator whose draws are written down: they are made, in this order, before the program runs."""

    def __init__(self, tape: Tape, index: int, example: Any) -> None:
        self.tape, self.index, self.example = tape, index, example

    def spawn(self, n: int) -> "list[RecordedRng]":
        """Record that generators are made of this one: the program makes as many."""
        if not hasattr(self.example, "spawn"):
            raise TypeError(f"a generator that can spawn others is needed, and a {type(self.example).__name__} cannot")
        first, n = self.tape.generators, _fixed(n)
        self.tape.generators += n
        self.tape.draws.append(("", self.index, "spawn", (n,), {}))
        return [RecordedRng(self.tape, first + i, child) for i, child in enumerate(self.example.spawn(n))]

    def _draw(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Recorded:
        args, kwargs = _fixed(args), {k: _fixed(v) for k, v in kwargs.items()}
        made, name = getattr(self.example, method)(*args, **kwargs), self.tape.fresh("z")
        if self.tape.library is None:  # there are no arrays but those that are drawn
            self.tape.library = array_namespace(made)
            self.tape.xp = Namespace(self.tape, self.tape.library)
        self.tape.draws.append((name, self.index, method, args, kwargs))
        return Recorded(self.tape, name, made)

    def standard_normal(self, *args: Any, **kwargs: Any) -> Recorded:
        """Record a draw of N(0, 1) numbers."""
        return self._draw("standard_normal", args, kwargs)

    def random(self, *args: Any, **kwargs: Any) -> Recorded:
        """Record a draw of uniform numbers."""
        return self._draw("random", args, kwargs)

    def integers(self, *args: Any, **kwargs: Any) -> Recorded:
        """Record a draw of integers."""
        return self._draw("integers", args, kwargs)


def _fixed(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_fixed(v) for v in value)
    return value.fixed() if isinstance(value, Number) else host_number(value)
