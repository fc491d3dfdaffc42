"""A recorded program on the host without a compiler: line by line, and as its plan, each value laid out row by row."""

from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as xp
import numpy as np

from refscore_backends.recorded.compiled import Compiled
from refscore_backends.recorded.plain import alive, drawn, put, settled
from refscore_backends.recorded.plan import Assemble, Elementwise, Plan, Product, Reduce, View
from refscore_backends.recorded.program import Program, Run, written
from refscore_backends.recorded.tape import Line, is_array

Values = dict[str, Any]


def line_by_line(program: Program) -> Run:
    """What the plan must give, to the last bit."""

    def run(known: Values, numbers: dict[str, float]) -> list[Any]:
        for line in alive(program):
            known[line.name] = _carried_out(line, known, numbers)
        return [known[name] for name in program.returned]

    return _from_arguments(program, run)


def step_by_step(program: Program) -> Run:
    """The plan's steps: groups, views and parts as a GPU would have them, computed by NumPy."""
    plan = Plan(program)
    by_kind = {Elementwise: _elementwise, Reduce: _reduce, Assemble: _assemble, Product: _product}

    def run(known: Values, numbers: dict[str, float]) -> list[Any]:
        for step in plan.steps:
            if type(step) in by_kind:
                by_kind[type(step)](step, known, numbers)
            else:
                seen = {name: _seen(view, known) for name, view in step.reads.items()}  # type: ignore[union-attr]
                known[step.line.name] = _carried_out(step.line, _others(known) | seen, numbers)  # type: ignore[union-attr]
        return [_seen(plan.view(name), known) for name in program.returned]

    return _from_arguments(program, run)


def as_(way: Callable[[Program], Run], function: Callable[..., Any]) -> Compiled:
    """The function compiled in one of the two ways."""

    def build(program: Program) -> Run:
        settled(program, xp)
        return way(program)

    return Compiled(function, build, lambda: np.random.default_rng(0))


def _from_arguments(program: Program, run: Callable[[Values, dict[str, float]], list[Any]]) -> Run:
    def runs(arrays: list[Any], numbers: dict[str, float], rngs: list[Any]) -> list[Any]:
        draws = zip((z for z, *_ in program.tape.draws), drawn(program, rngs), strict=True)
        given = dict(zip(program.arrays, arrays, strict=True)) | dict(draws)
        return run({name: _rowwise(x) for name, x in given.items()} | program.tape.held, numbers)

    return runs


def _rowwise(x: Any) -> Any:
    return np.array(x, order="C") if isinstance(x, (np.ndarray, np.generic)) else x


def _carried_out(line: Line, known: Values, numbers: dict[str, float]) -> Any:
    scope = known | {"xp": xp, "put": put, "numbers": numbers}
    exec(written(line, lambda n: f'numbers["{n}"]'), scope)
    return _rowwise(scope[line.name])


def _seen(view: View, known: Values) -> Any:
    """A copy of a view; an index that lies outside its array is found out."""
    places = np.full(view.shape, view.offset)
    for axis, (n, stride) in enumerate(zip(view.shape, view.strides, strict=True)):
        places = places + np.reshape(np.arange(n) * stride, [-1 if d == axis else 1 for d in range(len(view.shape))])
    assert np.all(places >= 0), "before the first element"
    return (
        np.take(np.reshape(known[view.base], -1), places) if places.size else np.zeros(view.shape, _type(view, known))
    )


def _type(view: View, known: Values) -> Any:
    return known[view.base].dtype


def _others(known: Values) -> Values:
    """Types, and what was answered with several arrays: a step reads no array but those that it names."""
    return {name: value for name, value in known.items() if not is_array(value)}


def _lines(step: Elementwise, known: Values, numbers: dict[str, float]) -> Values:
    own = _others(known) | {name: _seen(view, known) for name, view in step.reads.items()}
    for line in step.lines:
        own[line.name] = _carried_out(line, own, numbers)
        assert own[line.name].dtype == step.types[line.name]
    return own


def _elementwise(step: Any, known: Values, numbers: dict[str, float]) -> None:
    own = _lines(step, known, numbers)
    for name in step.outs:
        assert own[name].shape == step.shape
        known[name] = own[name]


def _reduce(step: Any, known: Values, numbers: dict[str, float]) -> None:
    of = _lines(step.inner, known, numbers)[step.of]
    assert of.shape == step.inner.shape
    known[step.out] = np.reshape(getattr(np, step.function)(of, axis=step.axes), step.shape)


def _assemble(step: Any, known: Values, numbers: dict[str, float]) -> None:
    based = isinstance(step.base, View)
    y = _seen(step.base, known) if based else np.full(step.shape, step.base, step.dtype)
    assert y.dtype == step.dtype
    for view, where in step.parts:
        part = _seen(view, known)
        assert part.dtype == step.dtype  # a kernel would take its bits for another type's
        y[tuple(slice(a, a + (n - 1) * d + 1, d) if n else slice(0) for (a, d), n in zip(where, part.shape))] = part  # noqa: B905
    known[step.out] = y


def _product(step: Any, known: Values, numbers: dict[str, float]) -> None:
    known[step.out] = np.matmul(_seen(step.a, known), _seen(step.b, known))
