"""Program: what was recorded, to be run with other arguments; and its lines as Python."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from refscore_backends.recorded.structure import mapped
from refscore_backends.recorded.tape import Line, Ref, Tape

Run: TypeAlias = Callable[[list[Any], dict[str, float], list[Any]], list[Any]]


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
    first: float | None = None  # seconds of its first call
    _numbers: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        wanted = ", ".join(dict.fromkeys(self.used + [r for r in references(self.out) if r[0] == "n"]))
        body = [*self.tape.numbers, f"return dict({wanted})" if not wanted else f"return {{{_pairs(wanted)}}}"]
        source = f"def numbers({', '.join(self.given)}):\n    " + "\n    ".join(body)
        scope: dict[str, Any] = {"math": math, "same": _same}
        exec(source, scope)
        self._numbers = scope["numbers"]

    def numbers(self, given: Sequence[float]) -> dict[str, float] | None:
        """The numbers that the lines and the answer need; None where a guard does not hold."""
        assert self._numbers is not None
        return self._numbers(*given)

    def answer(self, arrays: Sequence[Any], numbers: dict[str, float]) -> Any:
        """What the function answers, from the arrays and numbers that were computed."""
        made = dict(zip(self.returned, arrays, strict=True)) | numbers
        return mapped(self.out, lambda leaf: made[leaf.name] if isinstance(leaf, Ref) else leaf)

    def __str__(self) -> str:
        """The lines of arrays, as they would be written by hand."""
        return "\n".join(map(written, self.tape.lines))


def _pairs(names: str) -> str:
    return ", ".join(f"{name!r}: {name}" for name in names.split(", "))


def _same(a: Any, b: Any) -> bool:
    return (a == b and (a != 0 or repr(a) == repr(b))) or (a != a and b != b)  # 0.0 is not -0.0


def references(value: Any) -> list[str]:
    """Names of the arrays and numbers in an answer, in order."""
    found: list[str] = []
    mapped(value, lambda leaf: found.append(leaf.name) if isinstance(leaf, Ref) else None)
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
        left = f"({a[0]})" if f == "**" and a[0][0] == "-" else a[0]  # -2.0 ** v is another number
        text = f"{left} {f} {a[1]}"
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
