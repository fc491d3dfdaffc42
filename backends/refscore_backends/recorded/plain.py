"""A recorded program as plain Python, each value freed after its last reader: what compilers are given."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from array_api_compat import array_namespace

from refscore_backends.recorded.program import Program, Run, written
from refscore_backends.recorded.tape import Line


def alive(program: Program) -> list[Line]:
    """The lines that something reads."""
    wanted, kept = set(program.returned), []
    for line in reversed(program.tape.lines):
        if line.name in wanted:
            kept.append(line)
            wanted.update(line.refs())
    return kept[::-1]


def source(program: Program) -> str:
    """The program as one Python function, `body`, of (arrays, numbers, draws)."""
    lines = alive(program)
    last = {r: i for i, line in enumerate(lines) for r in line.refs()}
    kept = set(program.returned) | set(program.tape.held)
    text = ["def body(arrays, numbers, draws):"]
    text += [f"    [{', '.join(program.arrays)}] = arrays"] * bool(program.arrays)
    text += [f"    [{', '.join(program.tape.drawn)}] = draws"] * bool(program.tape.drawn)
    readers = Counter(r for line in lines for r in dict.fromkeys(line.refs()))
    fresh: set[str] = set()  # arrays that nobody else sees: they may be written into
    for i, line in enumerate(lines):
        said = written(line, lambda n: f'numbers["{n}"]')
        if line.function == "put":
            x = line.args[0].name
            said = said.replace("put(", "put_into(" if x in fresh and readers[x] == 1 and x not in kept else "put(", 1)
        if line.function in ("put", "zeros", "empty", "full"):
            fresh.add(line.name)
        text.append(f"    {said}")
        gone = [n for n in dict.fromkeys(line.refs()) if last[n] == i and n[0] in "avz" and n not in kept]
        text += [f"    del {', '.join(gone)}"] * bool(gone)
    text.append(f"    return [{', '.join(answered(n, program) for n in program.returned)}]")
    return "\n".join(text)


def answered(name: str, program: Program) -> str:
    """An array of the answer; of what the program holds a copy, since the caller may write into what it was given."""
    return f"xp.asarray({name}, copy=True)" if name in program.tape.held else name


def runner(program: Program, xp: Any, **scope: Any) -> Callable[[list[Any], dict[str, Any], list[Any]], list[Any]]:
    """The function `body` of a program, ready to run.

    Parameters
    ----------
    program : Program
        What was recorded.
    xp : module
        The array library.
    **scope : object
        Other functions under the names by which lines call them: `put` and `put_into`.

    Returns
    -------
    callable
        (arrays, numbers, draws) -> arrays.
    """
    names: dict[str, Any] = {"xp": xp, "put": put, "put_into": put_into} | program.tape.held | scope
    exec(compile(source(program), "<recorded>", "exec"), names)
    return names["body"]


def put(x: Any, key: Any, value: Any) -> Any:
    """x with the value at the key, in a copy."""
    return put_into(array_namespace(x).asarray(x, copy=True), key, value)


def put_into(x: Any, key: Any, value: Any) -> Any:
    """x with the value at the key, in its own memory."""
    x[key] = value
    return x


def drawn(program: Program, rngs: Sequence[Any]) -> list[Any]:
    """The program's random numbers, from its generators, in the order in which the function drew them."""
    known, numbers = list(rngs), []
    for name, i, method, args, kwargs in program.tape.draws:
        made = getattr(known[i], method)(*args, **kwargs)
        if name:
            numbers.append(made)
        else:  # children
            known += made
    return numbers


def settled(program: Program, xp: Any) -> None:
    """Compute once, now, what depends on no argument; the program then holds the results."""
    held = program.tape.held
    once, rest, known = list[Line](), list[Line](), set(held)
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


def build(program: Program, xp: Any) -> Run:
    """What `Compiled` runs: draws, then the body."""
    settled(program, xp)
    body = runner(program, xp)
    return lambda arrays, numbers, rngs: body(arrays, numbers, drawn(program, rngs))
