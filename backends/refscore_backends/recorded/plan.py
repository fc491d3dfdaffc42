"""Planning: a recorded program as few kernels, for a GPU.

An operation on a GPU is a launch, which costs the host some ten microseconds, and a pass through memory. Of a
network's activation and its derivative, a loss or an optimiser there are a dozen such passes over the same numbers. All
shapes of a program are known, so it can be planned:

* slices, transposes and reshapes are no work: a `View` says where in an array each number lies;
* elementwise lines of one shape are one `Elementwise` kernel, which reads and writes each number once;
* a sum or a maximum is one `Reduce` kernel, with the lines that only it reads;
* what is put together of parts (concat, stack, a frame of zeros) is one `Assemble` kernel;
* products of matrices stay with the library, and so does all that has no form here (`Call`).

A kernel begins where a line needs a result: it takes in what that result is made of, as far as the shapes are the same,
and writes down whatever of it a later line reads again.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from refscore_backends.base import dtype_name
from refscore_backends.recorded.plain import alive
from refscore_backends.recorded.program import Program
from refscore_backends.recorded.tape import Line, Ref, is_array

FLOATS = ("float32", "float64")
SIMPLE = ("bool", "int32", "int64", *FLOATS)  # from the narrowest
INFIX = ("+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!=", "&", "|", "^")
SLOW = ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "tan", "asinh", "atan2", "**")
ELEMENTWISE = (
    *INFIX, *SLOW, "neg", "invert", "abs", "positive", "square", "isfinite", "logical_not", "logical_and", "logical_or",
    "where", "astype", "real", "maximum", "minimum", "full", "zeros", "ones", "empty",
)  # fmt: skip
MADE = ("full", "zeros", "ones", "empty")  # of nothing but a shape
EXACT = (
    "+", "-", "*", "<", "<=", ">", ">=", "==", "!=", "&", "|", "^", "neg", "positive", "invert", "logical_not",
    "logical_and", "logical_or", "where", "maximum", "minimum", "square",
)  # fmt: skip  # of integers too
REDUCTIONS = ("sum", "mean", "max", "min")


@dataclass(frozen=True)
class View:
    """Numbers of an array that lies in memory row by row: element (i, j, ...) at offset + i strides[0] + j ...

    Parameters
    ----------
    base : str
        Name of the array.
    shape, strides : tuple of int
        Of the view; strides in elements.
    offset : int
        Of the first element.
    """

    base: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def dense(self) -> bool:
        """Whether the elements lie one after the other."""
        return self.strides == rowwise(self.shape) or math.prod(self.shape) <= 1


def rowwise(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of an array that lies in memory row by row."""
    strides, step = [], 1
    for n in reversed(shape):
        strides.append(step if n != 1 else 0)
        step *= n
    return tuple(strides[::-1])


@dataclass(frozen=True)
class Elementwise:
    """Lines of one shape, in order, as one kernel."""

    lines: tuple[Line, ...]
    shape: tuple[int, ...]
    reads: dict[str, View]
    numbers: tuple[str, ...]
    outs: tuple[str, ...]
    types: dict[str, str]


@dataclass(frozen=True)
class Reduce:
    """A sum, mean, maximum or minimum over axes of a value, and the lines that make the value."""

    out: str
    function: str
    of: str
    axes: tuple[int, ...]
    inner: Elementwise  # without outs
    shape: tuple[int, ...]  # of the answer


@dataclass(frozen=True)
class Assemble:
    """An array put together: each part where (start, step) along every axis says; elsewhere the base, or a number."""

    out: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[tuple[View, tuple[tuple[int, int], ...]], ...]
    base: View | float = 0.0


@dataclass(frozen=True)
class Product:
    """A product of two matrices, or of two stacks of them."""

    out: str
    a: View
    b: View


@dataclass(frozen=True)
class Call:
    """A line that the library itself carries out."""

    line: Line
    reads: dict[str, View]


Step: TypeAlias = Elementwise | Reduce | Assemble | Product | Call


@dataclass(eq=False)
class Plan:
    """Steps in order, and where what is returned lies."""

    program: Program
    steps: list[Step] = field(default_factory=list)
    views: dict[str, View] = field(default_factory=dict)
    waiting: dict[str, Line] = field(default_factory=dict)  # elementwise lines that nobody has needed yet
    readers: dict[str, set[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = alive(self.program)
        self.readers = {name: {""} for name in self.program.returned}
        for line in lines:
            for r in line.refs():
                self.readers.setdefault(r, set()).add(line.name)
        for line in lines:
            self._take(line)
        for shape in dict.fromkeys(self._shape(n) for n in self.waiting):
            self._flush([n for n in self.waiting if self._shape(n) == shape])

    def view(self, name: str) -> View:
        """Where a value lies."""
        if name not in self.views:
            shape = self._shape(name)
            self.views[name] = View(name, shape, rowwise(shape))
        return self.views[name]

    def dtype(self, name: str) -> str:
        """Type of a value."""
        return str(dtype_name(self._value(name).dtype))

    def _value(self, name: str) -> Any:
        return self.program.tape.values.get(name) or _Kept(self.program.tape.held[name])

    def _shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._value(name).shape)

    def _arrays(self, line: Line) -> list[str]:
        tape = self.program.tape
        return [r for r in dict.fromkeys(line.refs()) if r in tape.values or is_array(tape.held.get(r))]

    def _simple(self, line: Line) -> bool:
        kinds = [self.dtype(r) in SIMPLE for r in self._arrays(line)]
        return all(kinds) and line.name in self.program.tape.values and self.dtype(line.name) in SIMPLE

    def _take(self, line: Line) -> None:
        if self._simple(line):
            ways = (
                self._as_elementwise,
                self._as_view,
                self._as_parts,
                self._as_put,
                self._as_reduction,
                self._as_product,
            )
            for way in ways:
                if way(line):
                    return
        self._need(self._arrays(line))
        self.steps.append(Call(line, {r: self.view(r) for r in self._arrays(line)}))

    # -- elementwise

    def _as_elementwise(self, line: Line) -> bool:
        if line.function not in ELEMENTWISE or not _plain(line) or not self._of_one_kind(line):
            return False
        shape = self._shape(line.name)
        for r in self._arrays(line):
            if r in self.waiting and self._shape(r) != shape and not self._cheap(r):
                self._flush([r])
        self.waiting[line.name] = line
        return True

    def _of_one_kind(self, line: Line) -> bool:
        """Whether C computes as the library does: of integers and truths no more than what it has for them too."""
        if line.function in (*MADE, "astype"):
            return True
        operands = line.args[line.function == "where" :]
        arrays = [a for a in operands if isinstance(a, Ref) and a.name in self._arrays(line)]
        kinds = {self.dtype(a.name).strip("0123456789") for a in arrays}
        if kinds <= {"float"}:
            return True
        [kind, *more] = kinds
        numbers = [a for a in operands if a not in arrays]
        return (
            not more
            and line.function in EXACT
            and self.dtype(line.name).strip("0123456789") in (kind, "bool")
            and all(type(a).__name__ == kind for a in numbers)
        )

    def _cheap(self, name: str) -> bool:
        """Whether a value of smaller shape may as well be computed again for every element that reads it."""
        return all(self.waiting[n].function not in SLOW for n in self._group([name]))

    def _group(self, names: Sequence[str]) -> set[str]:
        group: set[str] = set()
        stack = [n for n in names if n in self.waiting]
        while stack:
            if (name := stack.pop()) not in group:
                group.add(name)
                stack += [r for r in self.waiting[name].refs() if r in self.waiting]
        return group

    def _need(self, names: Sequence[str]) -> None:
        """Make all that is named, those of one shape together."""
        for shape in dict.fromkeys(map(self._shape, names)):
            self._flush([n for n in names if self._shape(n) == shape])

    def _flush(self, names: Sequence[str]) -> None:
        """Make what is named now, with all that it waits for."""
        while group := self._group(names):
            shape = self._shape(names[0])
            # What of a smaller shape others read too is a kernel of its own, made before.
            # The last first, which takes in what it is made of; in order, since a set has another one in each process.
            smaller = (n for n in reversed(self.waiting) if n in group and self._shape(n) != shape)
            own = next((n for n in smaller if self.readers[n] - group), None)
            if own is not None:
                self._flush([own])
                continue
            outs = [n for n in self.waiting if n in group and self.readers[n] - group]
            self.steps.append(self._kernel(group, shape, outs))

    def _kernel(self, group: set[str], shape: tuple[int, ...], outs: Sequence[str]) -> Elementwise:
        lines = tuple(self.waiting.pop(n) for n in list(self.waiting) if n in group)
        refs = list(dict.fromkeys(r for line in lines for r in line.refs()))
        read = [r for line in lines for r in self._arrays(line)]
        reads = {r: self.view(r) for r in dict.fromkeys(read) if r not in group}
        types = {r: self.dtype(r) for r in (*reads, *(line.name for line in lines))}
        numbers = tuple(r for r in refs if r[0] == "n")
        return Elementwise(lines, shape, reads, numbers, tuple(outs), types)

    # -- views

    def _as_view(self, line: Line) -> bool:
        if line.function not in _VIEWS or not line.args or not isinstance(line.args[0], Ref):
            return False
        if len(line.args) != (1 if line.function in ("flip", "matrix_transpose") else 2):
            return False
        name = line.args[0].name
        if name not in self._arrays(line):  # one of several answers
            return False
        self._flush([name])
        made = _VIEWS[line.function](self.view(name), line, self._shape(line.name))
        if made is None and line.function == "reshape":  # it does not lie so that a view would do: copied
            self._copy(name)
            made = _VIEWS[line.function](self.view(name), line, self._shape(line.name))
        if made is None:
            return False
        self.views[line.name] = View(made.base, made.shape, rowwise(made.shape)) if 0 in made.shape else made
        return True

    def _copy(self, name: str) -> None:
        """Lay a value out row by row."""
        view, new = self.view(name), f"{name}_"
        self.program.tape.values[new] = self._value(name)
        self.steps.append(Assemble(new, view.shape, self.dtype(name), ((view, ((0, 1),) * len(view.shape)),)))
        self.views[name] = View(new, view.shape, rowwise(view.shape))

    # -- parts

    def _as_parts(self, line: Line) -> bool:
        if line.function not in ("concat", "stack") or len(line.args) > 1 or line.kwargs.get("axis", 0) is None:
            return False
        if set(line.kwargs) - {"axis"} or {self.dtype(r) for r in self._arrays(line)} != {self.dtype(line.name)}:
            return False
        out, refs = self._shape(line.name), [r.name for r in line.args[0]]
        axis, start, parts = line.kwargs.get("axis", 0) % len(out), 0, []
        self._need(refs)
        if len(refs) == 1 and (alone := _reshaped(self.view(refs[0]), out)) is not None:
            self.views[line.name] = alone
            return True
        for r in refs:
            view = self.view(r) if line.function == "concat" else _widened(self.view(r), axis)
            parts.append((view, tuple((start if d == axis else 0, 1) for d in range(len(out)))))
            start += view.shape[axis]
        self.steps.append(Assemble(line.name, out, self.dtype(line.name), tuple(parts)))
        return True

    def _as_put(self, line: Line) -> bool:
        if line.function != "put":
            return False
        out, (base, key, value) = self._shape(line.name), line.args
        if not isinstance(value, Ref) or value.name not in self._arrays(line):  # a number
            return False
        if self.dtype(value.name) != self.dtype(line.name) or len(self._shape(value.name)) > len(out):
            return False
        if (regions := _regions(key, out)) is None:
            return False
        zero = base.name in self.waiting and self.waiting[base.name].function in ("zeros", "empty")
        self._need([value.name] if zero else [base.name, value.name])
        part = _broadcast(self.view(value.name), tuple(n for _, _, n in regions))
        where = tuple((start, step) for start, step, _ in regions)
        if zero and self.readers[base.name] == {line.name}:
            del self.waiting[base.name]
        self.steps.append(
            Assemble(line.name, out, self.dtype(line.name), ((part, where),), 0.0 if zero else self.view(base.name))
        )
        return True

    # -- sums and products

    def _as_reduction(self, line: Line) -> bool:
        if line.function not in REDUCTIONS or set(line.kwargs) - {"axis", "keepdims"} or len(line.args) != 1:
            return False
        name = line.args[0].name
        if self.dtype(name) not in FLOATS or 0 in self._shape(name):
            return False
        axis, ndim = line.kwargs.get("axis"), len(self._shape(name))
        axes = tuple(range(ndim)) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis)
        axes = tuple(sorted(a % ndim for a in axes))
        group = self._group([name])
        shape = self._shape(name)
        if any(self.readers[n] - group - {line.name} for n in group) or any(self._shape(n) != shape for n in group):
            self._flush([name])
            group = set()
        inner = self._kernel(group, shape, ())
        if not group:
            inner = Elementwise((), shape, {name: self.view(name)}, (), (), {name: self.dtype(name)})
        self.steps.append(Reduce(line.name, line.function, name, axes, inner, self._shape(line.name)))
        return True

    def _as_product(self, line: Line) -> bool:
        if line.function not in ("@", "matmul") or line.kwargs:
            return False
        names = [r.name for r in line.args]
        self._need(names)
        for r in names:
            if not _fits_product(self.view(r)):
                self._copy(r)
        a, b = (self.view(r) for r in names)
        if len(b.shape) == 2 and len(a.shape) > 2:  # one product, of all rows
            rows = (math.prod(a.shape[:-1]), a.shape[-1])
            if (merged := _reshaped(a, rows)) is None:
                self._copy(names[0])
                merged = _reshaped(self.view(names[0]), rows)
            assert merged is not None
            a = merged
        self.steps.append(Product(line.name, a, b))
        return True


@dataclass(frozen=True)
class _Kept:
    array: Any

    @property
    def shape(self) -> Any:
        return self.array.shape

    @property
    def dtype(self) -> Any:
        return self.array.dtype


def _plain(line: Line) -> bool:
    """No arguments but the operands; a dtype in `astype`, and of what is made from nothing."""
    if line.function in MADE:
        return not (set(line.kwargs) - {"dtype", "device"})
    if line.function == "astype":
        return len(line.args) == 2 and all(k == "copy" for k in line.kwargs)
    return not line.kwargs and all(isinstance(a, (Ref, int, float)) for a in line.args)


def _fits_product(view: View) -> bool:
    """Whether a library of products takes it as it lies: rows or columns one after the other."""
    if len(view.shape) < 2:
        return view.dense
    *_, n, m = view.shape
    *_, s, t = view.strides
    row = (t == 1 or m == 1) and (s >= m or n == 1)
    column = (s == 1 or n == 1) and (t >= n or m == 1)
    return (row or column) and min(view.strides) >= 0 and (len(view.shape) == 2 or view.dense)


# ---- views ----------------------------------------------------------------------------------------


def _reshaped(view: View, shape: tuple[int, ...]) -> View | None:
    """The same elements in another shape; None where they do not lie so."""
    if 0 in shape:
        return View(view.base, shape, rowwise(shape), view.offset)
    runs = merged(view.shape, view.strides)
    strides, left, step = list[int](), 1, 0  # of the run that is being cut up: what is left of it
    for n in reversed(shape):
        if n > 1 and left == 1:
            left, step = runs.pop()
        if left % n:
            return None
        strides.append(step if n > 1 else 0)
        left, step = left // n, step * n
    return View(view.base, shape, tuple(strides[::-1]), view.offset)


def merged(shape: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Lengths and strides, axes made one where they lie as one; without axes of length 1."""
    runs = list[tuple[int, int]]()
    for n, s in zip(shape, strides, strict=True):
        if n != 1:
            joins = bool(runs) and runs[-1][1] == n * s
            runs[-1:] = [(runs[-1][0] * n, s)] if joins else [*runs[-1:], (n, s)]
    return runs


def _broadcast(view: View, shape: tuple[int, ...]) -> View:
    """Stretched, with strides 0."""
    lead = len(shape) - len(view.shape)
    strides = (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(view.shape, view.strides, strict=True))
    return View(view.base, shape, strides, view.offset)


def _widened(view: View, axis: int) -> View:
    """With one axis of length 1 more."""
    (*n,), (*s,) = view.shape, view.strides
    return View(view.base, (*n[:axis], 1, *n[axis:]), (*s[:axis], 0, *s[axis:]), view.offset)


def _sliced(view: View, line: Line, shape: tuple[int, ...]) -> View | None:
    key = line.args[1]
    key = key if isinstance(key, tuple) else (key,)
    if any(isinstance(k, Ref) for k in key):
        return None
    used = sum(k is not None and k is not Ellipsis for k in key)
    at = next((i for i, k in enumerate(key) if k is Ellipsis), len(key))
    key = (*key[:at], *(slice(None),) * (len(view.shape) - used), *key[at + 1 :])
    sizes, strides, offset, axis = [], [], view.offset, 0
    for k in key:
        if k is None:
            sizes.append(1)
            strides.append(0)
            continue
        n, s = view.shape[axis], view.strides[axis]
        axis += 1
        if isinstance(k, slice):
            start, stop, step = k.indices(n)
            sizes.append(len(range(start, stop, step)))
            strides.append(s * step if sizes[-1] != 1 else 0)
            offset += start * s
        else:
            offset += (k % n) * s
    return View(view.base, tuple(sizes), tuple(strides), offset)


def _permuted(view: View, axes: Sequence[int]) -> View:
    return View(view.base, tuple(view.shape[i] for i in axes), tuple(view.strides[i] for i in axes), view.offset)


def _transposed(view: View, line: Line, shape: tuple[int, ...]) -> View:
    n = len(view.shape)
    return _permuted(view, [*range(n - 2), n - 1, n - 2])


def _flipped(view: View, line: Line, shape: tuple[int, ...]) -> View:
    axis, n = line.kwargs.get("axis"), len(view.shape)
    axes = range(n) if axis is None else (axis,) if isinstance(axis, int) else axis
    strides, offset = list(view.strides), view.offset
    for a in axes:
        offset += (view.shape[a] - 1) * strides[a]
        strides[a] *= -1
    return View(view.base, view.shape, tuple(strides), offset)


_VIEWS: dict[str, Callable[[View, Line, tuple[int, ...]], View | None]] = {
    "[]": _sliced,
    "reshape": lambda view, line, shape: _reshaped(view, shape),
    "matrix_transpose": _transposed,
    "permute_dims": lambda view, line, shape: _permuted(view, line.args[1]),
    "broadcast_to": lambda view, line, shape: _broadcast(view, shape),
    "flip": _flipped,
}
VIEWS = tuple(_VIEWS)  # the functions that are no work


def _regions(key: Any, shape: tuple[int, ...]) -> list[tuple[int, int, int]] | None:
    """A key of slices as (start, step, count) along every axis."""
    key = key if isinstance(key, tuple) else (key,)
    if not all(k is Ellipsis or isinstance(k, slice) for k in key):
        return None
    at = next((i for i, k in enumerate(key) if k is Ellipsis), len(key))
    used = sum(k is not Ellipsis for k in key)
    key = (*key[:at], *(slice(None),) * (len(shape) - used), *key[at + 1 :])
    ranges = [range(*k.indices(n)) for k, n in zip(key, shape, strict=True)]
    return [(r.start, r.step, len(r)) for r in ranges] if all(r.step > 0 for r in ranges) else None
