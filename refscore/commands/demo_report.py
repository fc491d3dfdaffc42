"""What the demo measured, and how it is said."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from refscore.laws.expectation import Estimate
from refscore.measure.tables import SampleTable, ScoreRow


@dataclass
class Report:
    """Everything the demo measured; `numbers.json` holds it."""

    data: str
    backend: str
    seed: int
    steps: int
    interrupted: bool
    seconds: float
    loss_step: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    floor: Estimate | None = None
    excess: Estimate | None = None
    scores: list[ScoreRow] = field(default_factory=list)
    samples: SampleTable | None = None
    held_out_distance: float | None = None  # of points in units of each column's deviation, as is the floor
    held_out_floor: float | None = None
    centre: list[float] | None = None  # of a file: its points are centre + scale · (the network's), by columns
    scale: list[float] | None = None


def tables(report: Report) -> Iterator[str]:
    """The report as lines of text."""
    trained = f"{report.steps} steps in {report.seconds:.0f} s"
    yield f"\ntrained {trained}; {loss_in_words(report) if report.loss else 'no loss reported'} (last tenth)"
    if report.floor is not None:
        yield f"floor of the loss, which no model can beat: {report.floor.value:.4f}"
    if report.excess is not None:
        yield f"excess loss, measured against the exact score: {report.excess.value:.4f} ± {report.excess.error:.4f}"
    if report.scores:
        yield "\nlearned vs exact score: E‖s - s*‖² / E‖s*‖²"
        yield "  noise/signal σ/α      t     error"
        for row in report.scores:
            yield f"  {row.level:16g} {row.t:6.3f}   {row.error.value:.5f} ± {row.error.error:.5f}"
        worst = max(report.scores, key=lambda row: row.error.value)
        yield f"  worst: {worst.error.value:.5f} at σ/α = {worst.level:g}"
    if report.samples is not None:
        s = report.samples
        yield "\nsamples vs fresh data, sliced Wasserstein distance"
        yield f"  learned score          {s.learned:.4f}"
        yield f"  exact score            {s.exact:.4f}"
        yield f"  two sets of fresh data {s.floor.value:.4f} ± {s.floor.error:.4f}   (the sampling floor)"
        if len(s.modes) <= 10:
            yield "\nmode weights   true   learned           exact score"
            for mode in s.modes:
                of = "   ".join(f"{e.value:.4f} ± {e.error:.4f}" for e in (mode.learned, mode.exact))
                yield f"  {mode.weight:17.4f}   {of}"
    if report.held_out_distance is not None:
        yield "\nsamples vs held-out points, sliced Wasserstein distance (each column in its own deviation)"
        yield f"  learned score     {report.held_out_distance:.4g}"
        yield f"  training points   {report.held_out_floor:.4g}   (the sampling floor, from as many points)"


def loss_in_words(report: Report) -> str:
    """Mean over the last ten reports and its standard error: a single batch says little."""
    recent = report.loss[-10:]
    loss = float(np.mean(recent))
    error = f" ± {float(np.std(recent, ddof=1)) / math.sqrt(len(recent)):.3f}" if len(recent) > 1 else ""
    return f"loss {loss:.3f}{error}" if report.floor is None else f"excess loss {loss - report.floor.value:.3f}{error}"
