"""Fusing: chains of elementwise operations of a recorded program become one kernel each, in C.

An operation on a GPU is a launch (the host gives it out in about ten microseconds) and a pass through memory. Of an
activation, its derivative, a loss or an optimiser there are a dozen such passes over the same elements; in one kernel
each number is read and written once. A matrix product, a sum or a view stays what it is.

A kernel begins where a line needs a result: it takes in what that result was made of, as far as the shapes are the same
and nothing has made it before, and writes down whatever of it a later line reads again.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from refscore_backends.base import dtype_name
from refscore_backends.compiled import Program, Run, written
from refscore_backends.record import Line, Ref, is_array

TYPES = {"float32": "float", "float64": "double", "bool": "bool", "int32": "int", "int64": "long long"}
INFIX = ("+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!=", "&", "|", "^")
MATH = ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "tan", "asinh", "isfinite", "atan2")
FORMS = {
    "neg": "-{0}", "positive": "{0}", "abs": "fabs({0})", "square": "{0} * {0}", "invert": "!{0}",
    "logical_not": "!{0}", "logical_and": "{0} && {1}", "logical_or": "{0} || {1}", "where": "{0} ? {1} : {2}",
    "astype": "{0}", "real": "{0}",
    "maximum": "({0} != {0} || {0} > {1}) ? {0} : {1}", "minimum": "({0} != {0} || {0} < {1}) ? {0} : {1}",
} | {name: f"{{0}} {name} {{1}}" for name in INFIX} | {
    name: f"{name}({', '.join('{%d}' % i for i in range(2 if name == 'atan2' else 1))})" for name in MATH
}  # fmt: skip
POWERS = {2: "{0} * {0}", 3: "{0} * {0} * {0}", 0.5: "sqrt({0})", -1: "1 / {0}", -0.5: "1 / sqrt({0})", 1: "{0}"}


@dataclass(frozen=True)
class Kernel:
    """Elementwise lines of one shape as one kernel.

    Parameters
    ----------
    name : str
        What it does, for profilers.
    lines : sequence of Line
        In order.
    arrays, numbers, outs : sequence of (name, dtype)
        What it reads, and what it writes.
    """

    name: str
    lines: tuple[Line, ...]
    arrays: tuple[tuple[str, str], ...]
    numbers: tuple[str, ...]
    outs: tuple[tuple[str, str], ...]
    types: dict[str, str]

    @property
    def body(self) -> str:
        """What is done for each element, in C."""
        kept = dict(self.outs)
        return "\n".join(
            f"{'' if line.name in kept else TYPES[self.types[line.name]] + ' '}{line.name} = {self._right(line)};"
            for line in self.lines
        )

    def _right(self, line: Line) -> str:
        wide = self._type_of_operands(line)
        words = [self._word(a, wide) for a in line.args]
        if line.function == "where":
            words[0] = self._word(line.args[0], "bool")
        if line.function == "**":
            form = POWERS.get(line.args[1]) if isinstance(line.args[1], (int, float)) else None
            text = (form or "pow({0}, {1})").format(*words)
        else:
            text = FORMS[line.function].format(*words)
        return f"({TYPES[self.types[line.name]]})({text})"

    def _type_of_operands(self, line: Line) -> str:
        found = [self.types[a.name] for a in line.args if isinstance(a, Ref) and a.name in self.types]
        found = found[1:] if line.function == "where" and isinstance(line.args[0], Ref) else found
        return max(found, key=list(TYPES).index, default=self.types[line.name]) if "float64" not in found else "float64"

    def _word(self, value: Any, wide: str) -> str:
        if isinstance(value, Ref):
            return value.name if value.name in self.types else f"({TYPES[wide]}){value.name}"
        if isinstance(value, bool):
            return "true" if value else "false"
        text = repr(float(value)) if "float" in wide else repr(value)
        text = {"inf": "(1.0 / 0.0)", "-inf": "(-1.0 / 0.0)", "nan": "(0.0 / 0.0)"}.get(text, text)
        return f"({TYPES[wide]}){text}" if text[0] != "-" else f"({TYPES[wide]})({text})"


def elementwise(program: Program, line: Line) -> bool:
    """Whether a line can be part of a kernel."""
    tape = program.tape
    if line.function not in FORMS and line.function != "**" or not _same_kind(program, line):
        return False
    refs = [tape.values.get(r) or tape.held.get(r) for r in line.refs() if r[0] != "n"]
    known = [dtype_name(v.dtype) in TYPES for v in refs if hasattr(v, "dtype")]
    return bool(known) and all(known) and dtype_name(tape.values[line.name].dtype) in TYPES


def _same_kind(program: Program, line: Line) -> bool:
    """No arguments but the operands; a dtype in `astype` alone."""
    if line.function == "astype":
        return len(line.args) == 2 and all(k == "copy" for k in line.kwargs)
    return not line.kwargs and all(isinstance(a, (Ref, int, float)) for a in line.args)


def alive(program: Program) -> list[Line]:
    """The lines that something reads."""
    wanted, kept = set(program.returned), []
    for line in reversed(program.tape.lines):
        if line.name in wanted:
            kept.append(line)
            wanted.update(line.refs())
    return kept[::-1]


def fused(program: Program) -> list[Line | Kernel]:
    """The program's lines, with kernels where there were elementwise ones."""
    lines, values, made = alive(program), program.tape.values, list[Line | Kernel]()
    readers: dict[str, set[str]] = {name: {""} for name in program.returned}
    for line in lines:
        for r in line.refs():
            readers.setdefault(r, set()).add(line.name)
    waiting: dict[str, Line] = {}

    def flush(names: Sequence[str]) -> None:
        group: set[str] = set()
        stack = [n for n in names if n in waiting]
        while stack:
            if (name := stack.pop()) not in group:
                group.add(name)
                stack += [r for r in waiting[name].refs() if r in waiting]
        for n in group:  # a smaller shape that others read too is a kernel of its own
            if values[n].shape != values[names[0]].shape and readers[n] - group:
                flush([n])
                return flush(names)
        if group:
            chosen = [waiting.pop(n) for n in list(waiting) if n in group]
            made.append(_kernel(program, chosen, {n for n in group if readers[n] - group}))
        return None

    for line in lines:
        shape = values[line.name].shape
        joins = elementwise(program, line)
        for r in line.refs():
            if r in waiting and not (joins and (values[r].shape == shape or _cheap(r, waiting))):
                flush([r])
        if joins:
            waiting[line.name] = line
        else:
            made.append(line)
    for shape in dict.fromkeys(values[n].shape for n in waiting):
        flush([n for n in waiting if values[n].shape == shape])
    return made


def _cheap(name: str, waiting: dict[str, Line]) -> bool:
    """Whether a value of smaller shape may as well be computed again for every element that reads it."""
    line = waiting[name]
    return line.function not in MATH and all(_cheap(r, waiting) for r in line.refs() if r in waiting)


def _kernel(program: Program, lines: list[Line], kept: set[str]) -> Kernel:
    tape, own = program.tape, {line.name for line in lines}
    refs = list(dict.fromkeys(r for line in lines for r in line.refs()))
    kind = {r: dtype_name((tape.values.get(r) or tape.held.get(r)).dtype) for r in refs if _is_array(program, r)}
    arrays = tuple((r, kind[r]) for r in refs if r in kind and r not in own)
    outs = tuple((line.name, dtype_name(tape.values[line.name].dtype)) for line in lines if line.name in kept)
    types = kind | {line.name: dtype_name(tape.values[line.name].dtype) for line in lines}
    words = "_".join(line.function for line in lines if line.function.isalpha())
    return Kernel(
        f"fused_{len(lines)}_{words}"[:60], tuple(lines), arrays, tuple(r for r in refs if r[0] == "n"), outs, types
    )


def _is_array(program: Program, name: str) -> bool:
    return name in program.tape.values or is_array(program.tape.held.get(name))


# ---- what runs ------------------------------------------------------------------------------------


def source(program: Program, steps: Sequence[Line | Kernel]) -> tuple[str, dict[str, Kernel]]:
    """The program as one Python function of (arrays, numbers, draws), each value freed after its last reader.

    Parameters
    ----------
    program : Program
        What was recorded.
    steps : sequence of Line or Kernel
        Its lines, fused or not.

    Returns
    -------
    source : str
        A function `body`.
    kernels : dict of str to Kernel
        The kernels that it calls, by name.
    """
    kernels: dict[str, Kernel] = {}
    last: dict[str, int] = {}
    reads = [_reads(step) for step in steps]
    for i, names in enumerate(reads):
        last |= dict.fromkeys(names, i)
    kept = set(program.returned) | set(program.tape.held)
    text = ["def body(arrays, numbers, draws):"]
    text += [f"    [{', '.join(program.arrays)}] = arrays"] * bool(program.arrays)
    text += [f"    [{', '.join(z for z, *_ in program.tape.draws)}] = draws"] * bool(program.tape.draws)
    fresh: set[str] = set()  # arrays that nobody else sees: they may be written into
    number = lambda n: f'numbers["{n}"]'  # noqa: E731
    for i, step in enumerate(steps):
        if isinstance(step, Kernel):
            name = f"kernel{len(kernels)}"
            kernels[name] = step
            given = [n for n, _ in step.arrays] + [number(n) for n in step.numbers]
            outs = [n for n, _ in step.outs]
            text.append(f"    {', '.join(outs)} = {name}({', '.join(given)})")
        else:
            line = written(step, number)
            if step.function == "put":
                x = step.args[0].name
                line = line.replace("put(", "put_into(" if x in fresh and last[x] == i and x not in kept else "put(", 1)
            if step.function in ("put", "zeros", "empty", "zeros_like", "empty_like", "full", "full_like"):
                fresh.add(step.name)
            text.append(f"    {line}")
        gone = [n for n in dict.fromkeys(reads[i]) if last[n] == i and n[0] in "avz" and n not in kept]
        text += [f"    del {', '.join(gone)}"] * bool(gone)
    text.append(f"    return [{', '.join(program.returned)}]")
    return "\n".join(text), kernels


def _reads(step: Line | Kernel) -> list[str]:
    return list(step.refs()) if isinstance(step, Line) else [n for n, _ in step.arrays] + list(step.numbers)


def runner(
    program: Program, xp: Any, steps: Sequence[Line | Kernel] | None = None,
    make: Callable[[Kernel], Callable[..., Any]] | None = None, **scope: Any,
) -> Callable[[list[Any], dict[str, Any], list[Any]], list[Any]]:  # fmt: skip
    """The function `body` of a program, ready to run.

    Parameters
    ----------
    program : Program
        What was recorded.
    xp : module
        The array library.
    steps : sequence of Line or Kernel, optional
        Its lines; by default those that something reads, none fused.
    make : callable Kernel -> callable, optional
        Makes the kernels; needed where there are any.
    **scope : object
        Other functions under the names by which lines call them, such as `put`.

    Returns
    -------
    callable
        (arrays, numbers, draws) -> arrays.
    """
    text, kernels = source(program, alive(program) if steps is None else steps)
    names: dict[str, Any] = {"xp": xp, "put": put, "put_into": put_into} | program.tape.held
    names |= {name: make(kernel) for name, kernel in kernels.items()} if make else {}
    names |= scope
    exec(compile(text, "<recorded>", "exec"), names)
    return names["body"]


def put(x: Any, key: Any, value: Any) -> Any:
    """x with the value at the key, in a copy."""
    return put_into(x + 0, key, value)


def put_into(x: Any, key: Any, value: Any) -> Any:
    """x with the value at the key, in its own memory."""
    x[key] = value
    return x


def drawn(program: Program, rngs: Sequence[Any]) -> list[Any]:
    """The program's random numbers, from its generators, in the order in which the function drew them."""
    return [getattr(rngs[i], method)(*args, **kwargs) for _, i, method, args, kwargs in program.tape.draws]


def settled(program: Program, xp: Any) -> None:
    """Compute once, now, what depends on no argument; the program then holds the results."""
    held = program.tape.held
    once, rest, known = [], [], set(held)
    for line in alive(program):
        constant = line.function not in ("zeros", "empty", "put") and all(r in known for r in line.refs())
        (once if constant else rest).append(line)
        known |= {line.name} if constant else set()
    wanted = {r for line in rest for r in line.refs()} | set(program.returned)
    names = [line.name for line in once if line.name in wanted]
    tape = dataclasses.replace(program.tape, draws=[], lines=once)
    tape.xp, tape.library = program.tape.xp, program.tape.library
    made = runner(dataclasses.replace(program, tape=tape, arrays=[], returned=names), xp)([], {}, [])
    held.update(zip(names, made, strict=True))
    program.tape.lines = rest


def build(program: Program, xp: Any, make: Callable[[Kernel], Callable[..., Any]] | None = None) -> Run:
    """What `Compiled` runs: draws, then the body, with kernels if `make` makes them."""
    settled(program, xp)
    body = runner(program, xp, fused(program) if make else None, make)
    return lambda arrays, numbers, rngs: body(arrays, numbers, drawn(program, rngs))
