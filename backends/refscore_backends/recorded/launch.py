"""A plan on CuPy: its steps as one Python function of launches."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refscore_backends.recorded import cuda
from refscore_backends.recorded.plain import answered, drawn, put
from refscore_backends.recorded.plan import Assemble, Elementwise, Plan, Product, Reduce, View
from refscore_backends.recorded.program import Program, Run, written
from refscore_backends.recorded.tape import is_array

Make = Callable[[cuda.Source], Callable[..., Any]]


def built(program: Program, xp: Any, make: Make, dense: Callable[[Any], Any], lay: Callable[..., Any]) -> Run:
    """What `Compiled` runs: the steps of a plan.

    Parameters
    ----------
    program : Program
        What was recorded.
    xp : module
        The namespace of the array library.
    make : callable Source -> callable
        Makes what launches a kernel: (arrays and numbers) -> array or arrays.
    dense : callable array -> array
        The array, or a copy that lies in memory row by row.
    lay : callable (array, shape, strides, offset) -> array
        A view of its memory; strides and offset in bytes.

    Returns
    -------
    callable
        (arrays, numbers, generators) -> arrays.
    """
    plan = Plan(program)
    text, scope = source(plan, make)
    held = {n: dense(xp.asarray(a)) if is_array(a) else a for n, a in program.tape.held.items()}
    names = {"xp": xp, "dense": dense, "lay": lay, "put": put} | held | scope
    exec(compile(text, "<planned>", "exec"), names)
    body = names["body"]
    return lambda arrays, numbers, rngs: body(arrays, numbers, drawn(program, rngs))


def source(plan: Plan, make: Make) -> tuple[str, dict[str, Any]]:
    """The steps of a plan as the Python text of a function `body`, and what it calls, by name.

    Parameters
    ----------
    plan : Plan
        The plan.
    make : callable Source -> callable
        Makes what launches a kernel: (arrays and numbers) -> array or arrays.

    Returns
    -------
    text : str
        A function of (arrays, numbers, draws).
    scope : dict
        Launchers and numbers of views, by name.
    """
    program, scope, text = plan.program, dict[str, Any](), list[tuple[str, list[str]]]()

    def kernel(found: cuda.Source) -> str:
        name = f"{found.name}_{len(scope)}"
        scope[name] = make(found)
        return name

    def seen(view: View, dtype: str) -> str:
        """A view as an array of the library's."""
        name, size = f"where{len(scope)}", np.dtype(dtype).itemsize
        scope[name] = (view.shape, tuple(s * size for s in view.strides), view.offset * size)
        return f"lay({view.base}, *{name})"

    for step in plan.steps:
        if isinstance(step, Elementwise):
            found = cuda.elementwise(step)
            given = [*found.reads, *(f'numbers["{n}"]' for n in found.numbers)]
            text.append((f"{', '.join(step.outs)} = {kernel(found)}({', '.join(given)})", [*found.reads]))
        elif isinstance(step, Assemble):
            found = cuda.assemble(step)
            text.append((f"{step.out} = {kernel(found)}({', '.join(found.reads)})", [*found.reads]))
        elif isinstance(step, Reduce):
            first, *more = cuda.reduce(step)
            given = [*first.reads, *(f'numbers["{n}"]' for n in first.numbers)]
            call = f"{kernel(first)}({', '.join(given)})"
            for each in more:
                call = f"{kernel(each)}({call})"
            text.append((f"{step.out} = {call}", [*first.reads]))
        elif isinstance(step, Product):
            a, b = (seen(v, plan.dtype(v.base)) for v in (step.a, step.b))
            text.append((f"{step.out} = {a} @ {b}", [step.a.base, step.b.base]))
        else:
            views = {r: seen(v, plan.dtype(v.base)) for r, v in step.reads.items()}
            call = written(step.line, lambda n: f'numbers["{n}"]')
            arrays = [f"{r} = {v}" for r, v in views.items() if r not in program.tape.held]
            gone = [f"del {r}" for r, v in step.reads.items() if r not in program.tape.held and r != v.base]
            laid = [f"{step.line.name} = dense({step.line.name})"] if step.line.name in program.tape.values else []
            text.append(("; ".join([*arrays, call, *laid, *gone]), [v.base for v in step.reads.values()]))
    answers = []
    flat = {step.out for step in plan.steps if isinstance(step, Product)}  # whose arrays are of another shape
    for name in program.returned:
        view = plan.view(name)
        whole = view.base == name and name not in flat
        answers.append(answered(name, program) if whole else seen(view, plan.dtype(view.base)))
    last = {base: i for i, (_, bases) in enumerate(text) for base in bases}
    kept = {plan.view(name).base for name in program.returned} | set(program.tape.held)
    out = ["def body(arrays, numbers, draws):"]
    out += [f"    [{', '.join(program.arrays)}] = map(dense, arrays)"] * bool(program.arrays)
    out += [f"    [{', '.join(program.tape.drawn)}] = map(dense, draws)"] * bool(program.tape.drawn)
    for i, (line, bases) in enumerate(text):
        out.append(f"    {line}")
        gone = [b for b in dict.fromkeys(bases) if last[b] == i and b not in kept]
        out += [f"    del {', '.join(gone)}"] * bool(gone)
    out.append(f"    return [{', '.join(answers)}]")
    return "\n".join(out), scope
