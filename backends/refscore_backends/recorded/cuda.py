"""The kernels of a plan in CUDA's C: shapes and strides are written into the text, since they are known."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from refscore_backends.recorded.plan import INFIX, SIMPLE, Assemble, Elementwise, Reduce, View, merged, rowwise
from refscore_backends.recorded.tape import Line, Ref

TYPES = {"float32": "float", "float64": "double", "bool": "bool", "int32": "int", "int64": "long long"}
_FORMS = {
    "neg": "-{0}", "positive": "{0}", "abs": "fabs({0})", "square": "{0} * {0}", "invert": "!{0}",
    "logical_not": "!{0}", "logical_and": "{0} && {1}", "logical_or": "{0} || {1}", "where": "{0} ? {1} : {2}",
    "astype": "{0}", "real": "{0}", "atan2": "atan2({0}, {1})", "full": "{1}", "zeros": "0", "ones": "1", "empty": "0",
    "maximum": "({0} != {0} || {0} > {1}) ? {0} : {1}", "minimum": "({0} != {0} || {0} < {1}) ? {0} : {1}",
} | {f: f"{{0}} {f} {{1}}" for f in INFIX} | {
    f: f + "({0})" for f in ("exp", "expm1", "log", "log1p", "sqrt", "tanh", "sin", "cos", "tan", "asinh", "isfinite")
}  # fmt: skip
_POWERS = {2: "{0} * {0}", 3: "{0} * {0} * {0}", 0.5: "sqrt({0})", -1: "1 / {0}", -0.5: "1 / sqrt({0})", 1: "{0}"}
_JOIN = {"sum": "a + b", "mean": "a + b", "max": "(a != a || a > b) ? a : b", "min": "(a != a || a < b) ? a : b"}
THREADS = 256
WIDE = 264  # blocks that keep a large GPU busy


@dataclass(frozen=True)
class Source:
    """A kernel to be compiled and launched.

    Parameters
    ----------
    name, text : str
        Name, and the whole text.
    reads : tuple of str
        Names of the arrays that it is given first, then `numbers`, as double.
    outs : tuple of (shape, dtype)
        The arrays that it fills, given last.
    grid, block : tuple of int
        Of the launch.
    """

    name: str
    text: str
    reads: tuple[str, ...]
    numbers: tuple[str, ...]
    outs: tuple[tuple[tuple[int, ...], str], ...]
    grid: tuple[int, ...]
    block: tuple[int, ...]


def elementwise(step: Elementwise) -> Source:
    """One thread for each element."""
    n = math.prod(step.shape)
    t = _integer(n, step.reads.values())
    kept = [f"q_{name}[i] = {name};" for name in step.outs]
    body = [*_loads(step, lambda view: _place(view, step.shape)), *_lines(step), *kept]
    outs = [f"{TYPES[step.types[name]]}* __restrict__ q_{name}" for name in step.outs]
    name = "_".join(["fused", *(line.function for line in step.lines if line.function.isalpha())])[:60]
    return Source(
        name, _kernel(name, _parameters(step, outs), _each(n, t, body)), tuple(v.base for v in step.reads.values()),
        step.numbers, tuple((step.shape, step.types[name]) for name in step.outs), (_blocks(n),), (THREADS,),
    )  # fmt: skip


def assemble(step: Assemble) -> Source:
    """One thread for each element: it looks which part it is in."""
    n, kind = math.prod(step.shape), TYPES[step.dtype]
    t = _integer(n, [view for view, _ in step.parts] + [step.base] * isinstance(step.base, View))  # type: ignore[list-item]
    body = _coordinates(step.shape, t)
    based = isinstance(step.base, View)
    body.append(f"{kind} y = {f'p[{_place(step.base, step.shape)}]' if based else f'({kind}){step.base}'};")  # type: ignore[arg-type]
    for k, (view, where) in enumerate(step.parts):
        inside, terms = [], [str(view.offset)]
        for d, ((start, jump), m) in enumerate(zip(where, view.shape, strict=True)):
            c = f"(c{d} - {start})" if start else f"c{d}"
            if not (start == 0 and jump == 1 and m == step.shape[d]):
                stop = start + (m - 1) * jump + 1
                inside.append(f"c{d} >= {start} && c{d} < {stop}" + (f" && {c} % {jump} == 0" if jump > 1 else ""))
            if view.strides[d]:
                terms.append(f"{c}{f' / {jump}' if jump > 1 else ''} * {view.strides[d]}")
        body.append(f"{'else ' if k else ''}if ({' && '.join(inside) or 'true'}) y = p{k}[{' + '.join(terms)}];")
    body.append("q[i] = y;")
    pointers = [f"const {kind}* __restrict__ p{k}" for k in range(len(step.parts))]
    reads = [view.base for view, _ in step.parts]
    if isinstance(step.base, View):
        pointers, reads = [f"const {kind}* __restrict__ p", *pointers], [step.base.base, *reads]
    text = _kernel("assemble", ", ".join([*pointers, f"{kind}* __restrict__ q"]), _each(n, t, body))
    return Source("assemble", text, tuple(reads), (), ((step.shape, step.dtype),), (_blocks(n),), (THREADS,))


def reduce(step: Reduce) -> list[Source]:
    """Blocks of outputs and terms. Where outputs are few, blocks share the terms, and a second kernel joins them."""
    shape, axes, of = step.inner.shape, step.axes, step.of
    kept = [d for d in range(len(shape)) if d not in axes]
    outputs, terms = math.prod(shape[d] for d in kept), math.prod(shape[d] for d in axes)
    kind = step.inner.types[of]
    inward = len(shape) - 1 in axes  # neighbours in memory are terms of one output
    x, y = ((THREADS, 1) if terms <= 64 else (1, THREADS // 2)) if inward else _block(outputs)
    shares = max(1, min(WIDE // -(-outputs // x), terms // (4 * y)))
    size = -(-terms // shares)
    shares = -(-terms // size)  # none is empty
    scale = f" / {terms}" if step.function == "mean" else ""
    loads = _loads(step.inner, lambda view: _split_place(view, shape, kept, axes))
    value = [*loads, *_lines(step.inner), f"acc = r == first ? {of} : join(acc, {of});"]
    text = _reduction(
        step.function, kind, _parameters(step.inner, [f"{TYPES[kind]}* __restrict__ q"]), value,
        (outputs, terms, size), (x, y), scale if shares == 1 else "",
        _integer(outputs * terms, step.inner.reads.values()),
    )  # fmt: skip
    grid = (-(-outputs // x), shares)
    made = ((shares, outputs) if shares > 1 else step.shape, kind)
    reads = tuple(view.base for view in step.inner.reads.values())
    first = Source(f"reduce_{step.function}", text, reads, step.inner.numbers, (made,), grid, (x, y))
    if shares == 1:
        return [first]
    t, (x, y) = TYPES[kind], _block(outputs)
    again = [f"const {t} v = p[r * {outputs} + o];", "acc = r == first ? v : join(acc, v);"]
    parameters = f"const {t}* __restrict__ p, {t}* __restrict__ q"
    text = _reduction(
        step.function, kind, parameters, again, (outputs, shares, shares), (x, y), scale, _integer(outputs * shares, ())
    )
    name = f"reduce_{step.function}"
    return [first, Source(name, text, ("",), (), ((step.shape, kind),), (-(-outputs // x), 1), (x, y))]


def _block(outputs: int) -> tuple[int, int]:
    """Threads for neighbours that are outputs, and threads for the terms of each."""
    x = min(32, THREADS, 1 << max(0, (outputs - 1).bit_length()))
    return x, THREADS // x


def _reduction(
    function: str, kind: str, parameters: str, value: Sequence[str], sizes: tuple[int, int, int],
    block: tuple[int, int], scale: str, i: str,
) -> str:  # fmt: skip
    (outputs, terms, size), (x, y), t = sizes, block, TYPES[kind]
    inner = "\n      ".join(value)
    return f"""__device__ inline {t} join({t} a, {t} b) {{ return {_JOIN[function]}; }}
extern "C" __global__ void reduce_{function}({parameters}) {{
  __shared__ {t} part[{x * y}];
  const {i} o = ({i})blockIdx.x * {x} + threadIdx.x, start = ({i})blockIdx.y * {size};
  const {i} stop = min(start + {size}, ({i}){terms}), first = start + threadIdx.y, active = min(({i}){y}, stop - start);
  {t} acc = 0;
  if (o < {outputs})
    for ({i} r = first; r < stop; r += {y}) {{
      {inner}
    }}
  part[threadIdx.y * {x} + threadIdx.x] = acc;
  __syncthreads();
  for (int half = {y // 2}; half > 0; half /= 2) {{
    if (threadIdx.y < half && threadIdx.y + half < active)
      part[threadIdx.y * {x} + threadIdx.x] =
          join(part[threadIdx.y * {x} + threadIdx.x], part[(threadIdx.y + half) * {x} + threadIdx.x]);
    __syncthreads();
  }}
  if (threadIdx.y == 0 && o < {outputs}) q[blockIdx.y * {outputs} + o] = part[threadIdx.x]{scale};
}}"""


def _kernel(name: str, parameters: str, body: str) -> str:
    return f'extern "C" __global__ void {name}({parameters}) {{\n{body}\n}}'


def _integer(n: int, views: Iterable[View]) -> str:
    """The type of an index: of the elements of a kernel, and of the memory that it reads."""
    ends = (v.offset + sum(abs(s) * (m - 1) for m, s in zip(v.shape, v.strides, strict=True)) for v in views)
    return "int" if max(n, *ends, 0) < 2**31 - THREADS * 2**16 else "long long"


def _each(n: int, t: str, body: Sequence[str]) -> str:
    inner = "\n    ".join(body)
    start, step = f"({t})blockIdx.x * blockDim.x + threadIdx.x", f"({t})gridDim.x * blockDim.x"
    return f"  for ({t} i = {start}; i < {n}; i += {step}) {{\n    {inner}\n  }}"


def _blocks(n: int) -> int:
    return max(1, min(-(-n // THREADS), 2**15))


def _parameters(step: Elementwise, outs: Sequence[str]) -> str:
    reads = [f"const {TYPES[step.types[name]]}* __restrict__ p_{name}" for name in step.reads]
    return ", ".join([*reads, *(f"double {n}" for n in step.numbers), *outs])


def _loads(step: Elementwise, place: Any) -> list[str]:
    return [f"const {TYPES[step.types[name]]} {name} = p_{name}[{place(view)}];" for name, view in step.reads.items()]


# ---- where an element lies --------------------------------------------------------------------------


def _place(view: View, shape: tuple[int, ...]) -> str:
    """The index in memory of element i of `shape`, over which the view is stretched."""
    return _sum([str(view.offset), _index(shape, _aligned(view, shape), "i")])


def _split_place(view: View, shape: tuple[int, ...], kept: Sequence[int], axes: Sequence[int]) -> str:
    strides = _aligned(view, shape)
    o = _index([shape[d] for d in kept], [strides[d] for d in kept], "o")
    r = _index([shape[d] for d in axes], [strides[d] for d in axes], "r")
    return _sum([str(view.offset), o, r])


def _sum(terms: Sequence[str]) -> str:
    return " + ".join(t for t in terms if t != "0") or "0"


def _aligned(view: View, shape: tuple[int, ...]) -> tuple[int, ...]:
    lead = len(shape) - len(view.shape)
    return (0,) * lead + tuple(0 if n == 1 else s for n, s in zip(view.shape, view.strides, strict=True))


def _index(shape: Sequence[int], strides: Sequence[int], i: str) -> str:
    """Σ coordinate · stride, axes merged where they lie as one."""
    runs = merged(shape, strides)
    terms, after = [], 1
    for k, (n, s) in enumerate(reversed(runs)):
        if s:
            c = i if after == 1 else f"{i} / {after}"
            c = c if k == len(runs) - 1 else f"{c} % {n}"
            terms.append(c if s == 1 else f"({c}) * {s}")
        after *= n
    return _sum(terms) if terms else "0"


def _coordinates(shape: tuple[int, ...], t: str) -> list[str]:
    strides = rowwise(shape)
    return [
        f"const {t} c{d} = {'0' if n == 1 else f'i / {s} % {n}' if d else f'i / {s}'};"
        for d, (n, s) in enumerate(zip(shape, strides, strict=True))
    ]


# ---- what is done with it -----------------------------------------------------------------------------


def _lines(step: Elementwise) -> list[str]:
    return [f"const {TYPES[step.types[line.name]]} {line.name} = {_right(line, step.types)};" for line in step.lines]


def _right(line: Line, types: dict[str, str]) -> str:
    out = types[line.name]
    found = [types[a.name] for a in line.args[line.function == "where" :] if isinstance(a, Ref) and a.name in types]
    wide = max(found, key=SIMPLE.index, default=out)
    words = ["" if isinstance(a, tuple) else _word(a, types, wide) for a in line.args]
    form = _FORMS.get(line.function, "pow({0}, {1})")
    if line.function == "**" and isinstance(line.args[1], (int, float)):
        form = _POWERS.get(line.args[1], form)
    if line.function == "invert" and out != "bool":
        form = "~{0}"
    if line.function == "full":
        words[1] = _word(line.args[1], types, out)
    return f"({TYPES[out]})({form.format(*words)})"


def _word(value: Any, types: dict[str, str], wide: str) -> str:
    if isinstance(value, Ref):
        return f"({TYPES[wide]}){value.name}" if value.name[0] == "n" else value.name
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(float(value)) if "float" in wide else repr(int(value))
    text = {"inf": "(1.0 / 0.0)", "-inf": "(-1.0 / 0.0)", "nan": "(0.0 / 0.0)"}.get(text, text)
    return f"({TYPES[wide]})({text})" if text[0] == "-" else f"({TYPES[wide]}){text}"
