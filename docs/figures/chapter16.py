"""The figures of chapter 16: python docs/figures/chapter16.py

16-passes.svg    launches and gigabytes of a training step, as written and planned, by kind
16-launches.svg  its time against the batch, by Eq. (16.1): launches on the left, bytes on the right
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import array_api_compat.numpy as xp
import numpy as np
from where import HERE

from refscore import EMA, MLP, VE, Adam, Denoising, ScoreModel
from refscore.plots import EXACT, INK, LEARNED, figure, save
from refscore_backends.recorded import cuda
from refscore_backends.recorded.compiled import Compiled
from refscore_backends.recorded.plain import build
from refscore_backends.recorded.plan import VIEWS, Assemble, Elementwise, Plan, Product, Reduce, View
from refscore_backends.recorded.program import Program

WIDTH = {"bool": 1, "float32": 4, "int64": 8, "float64": 8}
LAUNCH, BANDWIDTH, RATE = (
    10e-6,
    3.35e12,
    67e12,
)  # seconds; bytes and float32 operations a second, as an H100's maker says
KINDS = {"products": EXACT, "elementwise": LEARNED, "sums": "#e9a03b", "parts": "#4f772d"}
OF = {"@": "products", "matmul": "products", "sum": "sums", "concat": "parts"}


class Work(NamedTuple):
    """What is done at once: its kind, launches, bytes that are read and written, and multiplications and additions."""

    kind: str
    launches: int
    bytes: float
    operations: float


def step_of(batch: int) -> Program:
    """The program of a training step of the benchmarks' W1: loss, gradient, Adam and the average."""
    model = ScoreModel(MLP((2, 256, 256, 256, 2), embed=64), VE(0.01, 10.0), data_std=1.0)
    objective, adam, ema, rng = Denoising(), Adam(1e-3), EMA(0.999), np.random.default_rng(0)

    def train(theta: Any, moments: Any, average: Any, x0: Any, rng: Any) -> Any:
        loss, grad = objective(model, theta, x0, rng)
        theta, moments = adam.update(grad, moments, theta)
        return loss, theta, moments, ema.update(average, theta)

    compiled = Compiled(train, lambda program: build(program, xp), lambda: np.random.default_rng(0))
    theta, x0 = model.init(rng), rng.standard_normal((batch, 2), dtype="float32")
    compiled(theta, adam.init(theta), ema.init(theta), x0, rng)
    [[program]] = compiled.programs.values()
    return program


def size(plan: Plan, view: View) -> int:
    """Bytes of the numbers of a view; those that are repeated along an axis count once."""
    return WIDTH[plan.dtype(view.base)] * math.prod(n for n, s in zip(view.shape, view.strides, strict=True) if s)


def written(plan: Plan) -> list[Work]:
    """Every line that is no view, by itself."""
    found = []
    for line in plan.program.tape.lines:
        if line.function in VIEWS:
            continue
        kind = OF.get(line.function, "elementwise")
        read = [plan.view(r) for r in dict.fromkeys(line.refs()) if r in plan.program.tape.values]
        out = plan.view(line.name)
        operations = 2 * math.prod(out.shape) * read[0].shape[-1] if kind == "products" else 0
        found.append(Work(kind, 1, sum(size(plan, v) for v in (*read, out)), operations))
    return found


def planned(plan: Plan) -> list[Work]:
    """Every step of the plan."""
    found = []
    for step in plan.steps:
        if isinstance(step, Elementwise):
            bytes_ = sum(size(plan, v) for v in (*step.reads.values(), *map(plan.view, step.outs)))
            found.append(Work("elementwise", 1, bytes_, 0))
        elif isinstance(step, Reduce):
            bytes_ = sum(size(plan, v) for v in (*step.inner.reads.values(), plan.view(step.out)))
            found.append(Work("sums", len(cuda.reduce(step)), bytes_, 0))
        elif isinstance(step, Assemble):
            base = [step.base] if isinstance(step.base, View) else []
            bytes_ = sum(size(plan, v) for v in (*base, *(v for v, _ in step.parts), plan.view(step.out)))
            found.append(Work("parts", 1, bytes_, 0))
        else:
            assert isinstance(step, Product), step
            out = plan.view(step.out)
            bytes_ = sum(size(plan, v) for v in (step.a, step.b, out))
            found.append(Work("products", 1, bytes_, 2 * math.prod(out.shape) * step.a.shape[-1]))
    return found


def both(batch: float) -> tuple[list[Work], list[Work]]:
    """As written and planned, for a batch: bytes and operations are straight lines in it, which two points give."""

    def at(now: Work, small: Work, large: Work) -> Work:
        parts = (a + (b - a) * (batch / 512 - 1) for a, b in zip(small[2:], large[2:], strict=True))
        return Work(now.kind, now.launches, *parts)

    return tuple(  # type: ignore[return-value]
        [at(*works) for works in zip(small, small, large, strict=True)] for small, large in zip(*MEASURED, strict=True)
    )


def time(works: list[Work]) -> float:
    """Eq. (16.1), a kernel as long as its bytes or its operations need."""
    given, end = 0.0, 0.0
    for work in works:
        given += work.launches * LAUNCH
        end = max(given, end) + max(work.bytes / BANDWIDTH, work.operations / RATE)
    return end


def passes(path: Path = HERE / "16-passes.svg") -> str:
    """Two stacked bars each, of launches and of gigabytes."""
    fig, (axes,) = figure(2, size=4.0)
    fig.set_size_inches(9.5, 3.2)
    ways = dict(zip(("as written", "planned"), both(65_536), strict=True))
    for ax, of, unit in zip(
        axes, (lambda w: w.launches, lambda w: w.bytes / 1e9), ("launches", "gigabytes"), strict=True
    ):
        for row, (name, works) in enumerate(ways.items()):
            left = 0.0
            for kind, color in KINDS.items():
                n = sum(of(work) for work in works if work.kind == kind)
                ax.barh(-row, n, left=left, color=color, height=0.6, label=kind if row == 0 else None)
                if n > 0.04 * sum(map(of, next(iter(ways.values())))):
                    ax.text(left + n / 2, -row, f"{n:.3g}", ha="center", va="center", color="white", fontsize=9)
                print(f"{name}, {kind}: {n:.3g} {unit}")
                left += n
        ax.set(yticks=[0, -1], yticklabels=list(ways), xlabel=f"{unit} a step, batch 65 536")
        ax.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=8, loc="lower right", frameon=False)
    return save(fig, path)


def launches(path: Path = HERE / "16-launches.svg") -> str:
    """Times by the model, of the step as written and planned, and of its products alone."""
    fig, ((ax,),) = figure(1)
    fig.set_size_inches(6.5, 4.2)
    batches = 2 ** np.arange(5, 19.1, 0.125)
    rows = [both(b) for b in batches]
    curves = [
        ("as written", LEARNED, "-", [time(w) for w, _ in rows]),
        ("planned", EXACT, "-", [time(p) for _, p in rows]),
        ("the products alone", INK, "--", [sum(w.operations for w in p) / RATE for _, p in rows]),
    ]
    for label, color, style, seconds in curves:
        ax.loglog(batches, 1e3 * np.array(seconds), style, color=color, label=label)
        print(
            label, *(f"{b:.0f}: {1e3 * s:.3g} ms" for b, s in zip(batches, seconds, strict=True) if b in (512, 65_536))
        )
    ax.text(40, 1.2, "waits for launches", color=INK, fontsize=9)
    ax.text(3e4, 0.16, "waits for memory\nand products", color=INK, fontsize=9)
    ax.set(xlabel="batch", ylabel="milliseconds a step, by (16.1)", ylim=(0.05, 60))
    ax.legend(fontsize=9, loc="upper left", frameon=False)
    return save(fig, path)


MEASURED = [(written(plan), planned(plan)) for plan in (Plan(step_of(512)), Plan(step_of(1024)))]

if __name__ == "__main__":
    print(passes(), launches())
