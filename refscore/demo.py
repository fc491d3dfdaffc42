"""The main job: learn the score of a 2-D law, and hold it against the exact one.

Train, show the excess loss, tell *learned* from *exact* in numbers, draw what can be drawn. Nothing
is lost on the way: Ctrl-C ends the training, and what was learned so far is evaluated.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refscore import EMA, MLP, VP, Adam, Denoising, ScoreModel, fit
from refscore.arrays import SDE, Array
from refscore.data import MIXTURES, DataFileError, mixture, outliers, read_points, standardise
from refscore.distance import Estimate, prior_mismatch, sliced_wasserstein
from refscore.evaluate import SampleTable, ScoreRow, excess_loss, flow_samples, sample_table, score_table
from refscore.files import save_array, save_json, writable_folder
from refscore.floor import denoising_floor
from refscore.levels import UniformLogSNR, g_squared
from refscore.mixture import GaussianMixture
from refscore.optim import WarmupCosine
from refscore.progress import progress
from refscore.reverse import ExactScore
from refscore.suggest import prior_mismatch_bound
from refscore.train import DivergenceError, TrainingState
from refscore_backends import Backend

# Likelihood weighting, with times drawn so that every log signal-to-noise ratio counts alike: the
# excess loss then bounds, in nats, the Kullback-Leibler divergence between data and the reverse SDE with
# the learned score (Song et al. 2021, arXiv 2101.09258), but for what is below t_min and for the prior.
# The flow that is sampled below has no such bound.
OBJECTIVE = Denoising(weight=g_squared, times=UniformLogSNR(1e-3), antithetic=True)
WIDTHS, FEATURES, BATCH, RATE = (2, 128, 128, 128, 2), 32, 512, 3e-3
SAMPLES, SCORE_SAMPLES, EXCESS_SAMPLES = 8_000, 20_000, 50_000


@dataclass(frozen=True)
class Problem:
    """What is to be learned: data in units the network likes, and the exact law where there is one.

    In data units x is centre + scale · x, column by column; a score there is s / scale, and a log density is the
    network's minus Σ log scale.
    """

    name: str
    data: Any  # float32 samples (N, 2), or a mixture that draws them
    held_out: Array | None  # points of a file that were not trained on
    exact: GaussianMixture | None
    std: float
    centre: Any = field(default_factory=lambda: np.zeros(2))
    scale: Any = field(default_factory=lambda: np.ones(2))
    said: tuple[str, ...] = ()  # what was read

    def in_data_units(self, x: Any) -> Any:
        """Points (N, 2) of the network, in NumPy, as the file would hold them."""
        return self.centre + self.scale * np.asarray(x, dtype="float64")


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


def run(data: str, backend: Backend, steps: int, seed: int, out: Path, say: Callable[[str], None] = print) -> Report:
    """Train, evaluate, draw; returns the report, whose numbers and pictures are in `out`.

    Raises
    ------
    ValueError, OSError
        Before any training: unknown data, unreadable file, unwritable folder, steps < 1.
    DivergenceError
        When training diverges; the last good parameters are saved first.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    rng = backend.rng(seed)
    problem = load_problem(data, backend, seed)
    writable_folder(out)
    model = ScoreModel(MLP(WIDTHS, embed=FEATURES), VP(), data_std=problem.std)
    floor = None
    if problem.exact is not None:
        floor = denoising_floor(OBJECTIVE, problem.exact, model.sde, backend.rng(seed))
    say(f"refscore demo: {problem.name} on {backend.name} ({backend.device()}), seed {seed}, files in {out}/")
    for line in (*problem.said, _mismatch_in_words(problem, model.sde)):
        say(line)

    report = Report(data, backend.name, seed, steps, False, 0.0, floor=floor)
    if problem.exact is None:
        report.centre, report.scale = problem.centre.tolist(), problem.scale.tolist()
    ema = EMA(min(0.999, 1 - 20 / (steps + 20)))  # over a twentieth of a short run
    started = time.perf_counter()
    try:
        state = _train(model, problem, ema, rng, report, say)
    except DivergenceError as error:
        if error.last_good is not None:
            save_array(out / "theta.npy", backend.to_numpy(error.last_good.theta))
        raise
    report.seconds = time.perf_counter() - started
    report.steps = state.step
    theta = ema.mean(state.average) if state.average is not None else state.theta
    save_array(out / "theta.npy", backend.to_numpy(theta))

    say("comparing with the truth ..." if problem.exact is not None else "comparing with points it has not seen ...")
    score = model.bind(theta)
    learned, exact = _compare(score, model, problem, backend, rng, report)
    save_json(out / "numbers.json", asdict(report))  # before anything is printed
    for line in tables(report):
        say(line)
    say(f"\nnumbers: {out / 'numbers.json'}, parameters: {out / 'theta.npy'}")
    _draw(problem, model, score, learned, exact, report, backend, out, say)
    return report


def load_problem(data: str, backend: Backend, seed: int) -> Problem:
    """An embedded mixture by name, or the points of a file, centred and scaled, a fifth held out."""
    if data in MIXTURES:
        exact = mixture(data, backend.asarray, "float64")
        parameters = mixture(data)
        second = parameters.means**2 + np.trace(_full(parameters), axis1=1, axis2=2)[:, None] / 2
        std = math.sqrt(float(parameters.weights @ second.mean(axis=1)))
        return Problem(data, mixture(data, backend.asarray, "float32"), None, exact, std)
    if not Path(data).suffix:
        raise ValueError(f"no data set called {data!r}; there are {', '.join(MIXTURES)}, or give a file")
    table = read_points(data)
    if len(table.points) < 20:
        raise DataFileError(f"{data} holds {len(table.points)} points; at least 20 are needed")
    unit, centre, scale = standardise(table)
    said = (f"read {data}: {table.said}", _units_in_words(table.columns, centre, scale), *outliers(table))
    unit = np.random.default_rng(seed).permutation(unit)
    cut = len(unit) // 5
    train, held_out = (backend.asarray(part, "float32") for part in (unit[cut:], unit[:cut]))
    return Problem(data, train, held_out, None, 1.0, centre, scale, said)


def _units_in_words(columns: Sequence[str], centre: Any, scale: Any) -> str:
    """How a file is standardised: by what each column is divided."""
    each = ", ".join(f"{name} = {c:.4g} ± {s:.4g}" for name, c, s in zip(columns, centre, scale, strict=True))
    return (
        f"each column in units of its own deviation: {each}; samples and pictures are in the file's units, "
        f"where log densities are the network's minus {np.sum(np.log(scale)):.4g}"
    )


def _mismatch_in_words(problem: Problem, sde: SDE) -> str:
    """What sampling gets wrong by its start, before anything is trained."""
    if problem.exact is not None:
        return f"noise at t = 1 and the prior: KL = {prior_mismatch(problem.exact, sde).value:.2g} nats"
    return f"noise at t = 1 and the prior: KL <= {prior_mismatch_bound(sde, problem.data):.2g} nats"


def _full(m: GaussianMixture) -> Any:
    C = np.asarray(m.covariances)
    return C if C.ndim == 3 else C.reshape(len(C), -1, 1) * np.eye(2)


# ------------------------------------------------------------------ training, watched


def _train(
    model: ScoreModel, problem: Problem, ema: EMA, rng: Any, report: Report, say: Callable[[str], None]
) -> TrainingState:
    """Walk through `fit`; Ctrl-C ends it and keeps what was done."""
    steps = report.steps
    rate = WarmupCosine(RATE, steps, warmup=min(100, steps - 1), end=RATE / 100)
    training = fit(model, OBJECTIVE, problem.data, Adam(rate), rng, steps=steps, batch=BATCH, ema=ema, max_norm=100.0)
    every = max(1, steps // 100)
    state, total = None, 0.0
    with progress(steps, say) as show:
        try:
            for state in training:
                total = total + state.loss  # on the device: no waiting
                if state.step % every == 0:
                    report.loss_step.append(state.step)
                    report.loss.append(float(total) / every)
                    total = 0.0
                    show(state.step, _loss_in_words(report))
        except KeyboardInterrupt:
            report.interrupted = True
    if state is None:
        raise KeyboardInterrupt
    if report.interrupted:
        say(f"interrupted after step {state.step}: going on with what was learned so far (Ctrl-C again to stop)")
    return state


def _loss_in_words(report: Report) -> str:
    """Mean over the last ten reports and its standard error: a single batch says little."""
    recent = report.loss[-10:]
    loss = float(np.mean(recent))
    error = f" ± {float(np.std(recent, ddof=1)) / math.sqrt(len(recent)):.3f}" if len(recent) > 1 else ""
    return f"loss {loss:.3f}{error}" if report.floor is None else f"excess loss {loss - report.floor.value:.3f}{error}"


# ------------------------------------------------------------------ evaluation


def _compare(
    score: Any, model: ScoreModel, problem: Problem, backend: Backend, rng: Any, report: Report
) -> tuple[Array, Array | None]:
    dtype = getattr(backend.xp, "float32")  # noqa: B009 (the namespace is chosen at run time)
    learned = flow_samples(score, model.sde, SAMPLES, 2, rng, dtype)
    if problem.held_out is not None:
        n = min(SAMPLES, problem.held_out.shape[0])
        held_out = problem.held_out[:n, ...]
        report.held_out_distance = sliced_wasserstein(learned[:n, ...], held_out, rng)
        report.held_out_floor = sliced_wasserstein(problem.data[:n, ...], held_out, rng)
    if problem.exact is None:
        return learned, None
    exact = flow_samples(ExactScore(problem.exact, model.sde), model.sde, SAMPLES, 2, rng, backend.xp.float64)
    report.scores = score_table(score, problem.exact, model.sde, rng, dtype, SCORE_SAMPLES)
    report.excess = excess_loss(score, problem.exact, model.sde, OBJECTIVE, rng, dtype, EXCESS_SAMPLES)
    report.samples = sample_table(learned, exact, problem.exact, rng)
    return learned, exact


def tables(report: Report) -> Iterator[str]:
    """The report as lines of text."""
    trained = f"{report.steps} steps in {report.seconds:.0f} s"
    yield f"\ntrained {trained}; {_loss_in_words(report) if report.loss else 'no loss reported'} (last tenth)"
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


# ------------------------------------------------------------------ pictures


def _draw(
    problem: Problem, model: ScoreModel, score: Any, learned: Array, exact: Array | None,
    report: Report, backend: Backend, out: Path, say: Callable[[str], None],
) -> None:  # fmt: skip
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        say('no pictures: matplotlib is not installed (pip install -e ".[plots]" in the checkout)')
        return
    from refscore import plots

    say(f"pictures: {', '.join(plots.demo(problem, model, score, learned, exact, report, backend, out))}")
