"""Compiled: a function that is recorded at its first call, and then runs as the program that was written down.

    compiled = Compiled(function, build, rng)         what a back end's `compile` answers with
    compiled(*args)                                   as function(*args), to rounding

A program is good for arguments of the same structure, shapes and dtypes, and where the guards on its numbers hold; for
others the function is recorded once more. What is random goes in as a generator, which is left as the function itself
would leave it.
"""

import dataclasses
import functools
import math
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from refscore_backends.record import Line, Number, Recorded, RecordedRng, Ref, Tape, is_array

MOST = 16  # programs of one signature: beyond, the function depends on its numbers in a way that no program holds

Run = Callable[[list[Any], list[Any], list[Any]], list[Any]]


class NotCompiledWarning(UserWarning):
    """The warning that a function runs as it is, since nearly every call would need a program of its own."""


@dataclasses.dataclass(eq=False)
class Program:
    """A straight program: numbers on the host, draws, lines of arrays; `build` makes something that runs of it."""

    tape: Tape
    arrays: list[str]  # names of the arguments, in order
    given: list[str]  # names of the numbers
    out: Any  # the answer, with Ref where an array or a number stands
    returned: list[str]  # names of the arrays in it
    used: list[str]  # names of the numbers that lines read
    run: Run | None = None
    _numbers: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        wanted = ", ".join(dict.fromkeys(self.used + [r for r in _refs(self.out) if r[0] == "n"]))
        body = [*self.tape.numbers, f"return dict({wanted})" if not wanted else f"return {{{_pairs(wanted)}}}"]
        source = f"def numbers({', '.join(self.given)}):\n    " + "\n    ".join(body)
        scope: dict[str, Any] = {"math": math, "same": _same}
        exec(source, scope)  # noqa: S102 (written above, of operators and functions of math alone)
        self._numbers = scope["numbers"]

    def numbers(self, given: Sequence[float]) -> dict[str, float] | None:
        """The numbers that the lines and the answer need; None where a guard does not hold."""
        assert self._numbers is not None
        return self._numbers(*given)

    def __str__(self) -> str:
        """The lines of arrays, as they would be written by hand."""
        return "\n".join(map(written, self.tape.lines))


def _pairs(names: str) -> str:
    return ", ".join(f"{name!r}: {name}" for name in names.split(", "))


def _same(a: Any, b: Any) -> bool:
    return a == b or (a != a and b != b)


def _refs(value: Any) -> list[str]:
    found: list[str] = []
    _map(value, lambda leaf: found.append(leaf.name) if isinstance(leaf, Ref) else None)
    return found


def written(line: Line, number: Callable[[str], str] = str) -> str:
    """A line as Python.

    Parameters
    ----------
    line : Line
        What is to be written.
    number : callable str -> str, default str
        How the name of a number is written.

    Returns
    -------
    str
        E.g. "v3 = xp.tanh(v2)".
    """
    a = [_word(v, number) for v in line.args]
    f, named = line.function, [f"{k}={_word(v, number)}" for k, v in line.kwargs.items()]
    if f == "[]":
        text = f"{a[0]}[{a[1][1:-1] if isinstance(line.args[1], tuple) and len(line.args[1]) > 1 else a[1]}]"
    elif f in ("neg", "invert"):
        text = f"{'-' if f == 'neg' else '~'}{a[0]}"
    elif not f[0].isalpha():
        text = f"{a[0]} {f} {a[1]}"
    else:
        text = f"{'' if f in ('put', 'abs') else 'xp.'}{f}({', '.join(a + named)})"
    return f"{line.name} = {text}"


def _word(value: Any, number: Callable[[str], str]) -> str:
    if isinstance(value, Ref):
        return number(value.name) if value.name[0] == "n" else value.name
    if isinstance(value, tuple):
        return f"({', '.join(_word(v, number) for v in value)}{',' if len(value) == 1 else ''})"
    if isinstance(value, list):
        return f"[{', '.join(_word(v, number) for v in value)}]"
    if isinstance(value, slice):
        return f"slice({value.start}, {value.stop}, {value.step})"
    if value is Ellipsis:
        return "..."
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)


class Compiled:
    """A function, recorded and built once for each signature of its arguments.

    Parameters
    ----------
    function : callable
        Of arrays, numbers, generators and structures of them (tuples, dicts, dataclasses); pure but for the generators.
        It may be a dataclass with `__call__`, or a partial: arrays inside it are arguments too.
    build : callable Program -> callable
        Makes what runs: (arrays, numbers by name, generators) -> arrays.
    rng : callable
        Makes a generator that draws the examples on which the function is recorded.
    example : callable, optional
        Runs the recording with examples of its own: (record, arrays) -> None. By default the arguments are the examples.
    """

    def __init__(
        self, function: Callable[..., Any], build: Callable[[Program], Run], rng: Callable[[], Any],
        example: Callable[[Callable[[list[Any]], None], list[Any]], None] | None = None,
    ) -> None:  # fmt: skip
        self.function, self._build, self._rng, self._example = function, build, rng, example
        self._held = Leaves(frozen=True)
        self._skeleton = self._held.take(function)
        self.programs: dict[Any, list[Program]] = {}
        self._given_up = False
        functools.update_wrapper(self, function, updated=())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["function"], name)

    def __call__(self, *args: Any) -> Any:
        """As the function, to rounding."""
        if self._given_up:
            return self.function(*args)
        leaves = Leaves()
        skeleton = leaves.take(args)
        arrays = leaves.arrays + self._held.arrays
        key = (skeleton, tuple((a.shape, a.dtype) for a in leaves.arrays))
        programs = self.programs.setdefault(key, [])
        for program in programs:
            numbers = program.numbers(leaves.numbers)
            if numbers is not None:
                break
        else:
            if len(programs) == MOST:
                return self._give_up(*args)
            program = self._record(skeleton, leaves, arrays)
            programs.append(program)
            numbers = program.numbers(leaves.numbers)
            assert numbers is not None, "a program must hold for the numbers it was recorded with"
        assert program.run is not None
        made = dict(zip(program.returned, program.run(arrays, numbers, leaves.rngs), strict=True)) | numbers
        return _map(program.out, lambda leaf: made[leaf.name] if isinstance(leaf, Ref) else leaf)

    def _give_up(self, *args: Any) -> Any:
        self._given_up = True
        warnings.warn(
            f"{getattr(self.function, '__name__', type(self.function).__name__)} looks at the value of a number in a "
            f"way that needs a program for each: after {MOST} of them it runs as it is; compile its score alone",
            NotCompiledWarning,
            stacklevel=3,
        )
        return self.function(*args)

    def _record(self, skeleton: Any, leaves: "Leaves", arrays: list[Any]) -> Program:
        made: list[Program] = []

        def record(examples: list[Any]) -> None:
            from array_api_compat import array_namespace

            tape = Tape(array_namespace(*examples) if examples else None)
            names = [tape.fresh("a") for _ in examples]
            given = [tape.fresh("n") for _ in leaves.numbers]
            stand_ins = [Recorded(tape, n, a) for n, a in zip(names, examples, strict=True)]
            numbers = [Number(tape, n, v) for n, v in zip(given, leaves.numbers, strict=True)]
            rngs = [RecordedRng(tape, i, self._rng()) for i in range(len(leaves.rngs))]
            own = len(leaves.arrays)
            function = _put_back(self._skeleton, stand_ins[own:], [], [])
            args = _put_back(skeleton, stand_ins[:own], numbers, rngs)
            answer = function(*args)
            returned: list[str] = []

            def named(leaf: Any) -> Any:
                if isinstance(leaf, Recorded) and leaf.name not in returned:
                    returned.append(leaf.name)
                return Ref(leaf.name) if isinstance(leaf, (Recorded, Number)) else leaf

            out = _map(answer, named)
            used = [r for line in tape.lines for r in line.refs() if r[0] == "n"]
            made.append(Program(tape, names, given, out, returned, used))

        if self._example is None:
            record(arrays)
        else:
            self._example(record, arrays)
        program = made[0]
        program.run = self._build(program)
        return program


# ---- structures -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Slot:
    """Where a leaf was: "arrays", "numbers" or "rngs", and its index."""

    kind: str
    index: int


class Leaves:
    """Arrays, numbers and generators of a structure, and the structure without them, which can be compared.

    Parameters
    ----------
    frozen : bool, default False
        Of a function that is compiled: its numbers do not change.
    """

    def __init__(self, frozen: bool = False) -> None:
        self.arrays: list[Any] = []
        self.numbers: list[float] = []
        self.rngs: list[Any] = []
        self._frozen = frozen

    def take(self, value: Any) -> Any:
        """The structure of a value, its leaves appended to the lists."""
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, (int, float)):
            return value if self._frozen else self._slot("numbers", value)
        if is_array(value):
            return self._slot("arrays", value)
        if isinstance(value, tuple):
            return (type(value), *(self.take(v) for v in value))
        if isinstance(value, list):
            return (list, *(self.take(v) for v in value))
        if type(value) in (dict, type(_PROXY)):
            return (dict, *((k, self.take(v)) for k, v in value.items()))
        if hasattr(value, "standard_normal") and hasattr(value, "random") and not self._frozen:
            return self._slot("rngs", value)
        if isinstance(value, functools.partial):
            return (functools.partial, self.take(value.func), self.take(value.args), self.take(value.keywords))
        if self._frozen and isinstance(value, types.MethodType):
            return (types.MethodType, self.take(value.__func__), self.take(value.__self__))
        if self._frozen and isinstance(value, types.FunctionType) and value.__closure__:
            return (types.FunctionType, value, *(self._cell(cell) for cell in value.__closure__))
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return (_Object, type(value), *((k, self.take(v)) for k, v in vars(value).items()))
        return value

    def _cell(self, cell: types.CellType) -> Any:
        """What a function has of the place where it was made: an array, or anything else, as it is."""
        value = cell.cell_contents
        return self.take(value) if is_array(value) or dataclasses.is_dataclass(value) else value

    def _slot(self, kind: str, value: Any) -> _Slot:
        of = getattr(self, kind)
        of.append(value)
        return _Slot(kind, len(of) - 1)


_PROXY = type.__dict__["__dict__"].__get__(object)


class _Object:
    """Marks the structure of a dataclass."""


def _put_back(skeleton: Any, arrays: list[Any], numbers: list[Any], rngs: list[Any]) -> Any:
    """The value of which `Leaves.take` made the skeleton, with other leaves."""
    lists = {"arrays": arrays, "numbers": numbers, "rngs": rngs}

    def back(s: Any) -> Any:
        if isinstance(s, _Slot):
            return lists[s.kind][s.index]
        if not isinstance(s, tuple):
            return s
        kind, *parts = s
        if kind is list:
            return [back(p) for p in parts]
        if kind is dict:
            return {k: back(p) for k, p in parts}
        if kind is functools.partial:
            func, args, keywords = (back(p) for p in parts)
            return functools.partial(func, *args, **keywords)
        if kind is types.FunctionType:
            f, cells = parts[0], tuple(types.CellType(back(p)) for p in parts[1:])
            made = types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__, cells)
            made.__kwdefaults__ = f.__kwdefaults__
            return made
        if kind is types.MethodType:
            return types.MethodType(back(parts[0]), back(parts[1]))
        if kind is _Object:
            made = object.__new__(parts[0])
            made.__dict__.update({k: back(p) for k, p in parts[1:]})
            return made
        values = [back(p) for p in parts]
        return kind(values) if kind is tuple else kind(*values)

    return back(skeleton)


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    """A structure of tuples, lists, dicts and dataclasses with each leaf changed."""
    if isinstance(value, (list, tuple)):
        parts = [_map(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, dict):
        return {k: _map(v, change) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, (type, Ref)):
        made = object.__new__(type(value))
        made.__dict__.update({k: _map(v, change) for k, v in vars(value).items()})
        return made
    return change(value)
