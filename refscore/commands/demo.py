"""The main job: learn the score of a 2-D law, and hold it against the exact one.

Train, show the excess loss, tell *learned* from *exact* in numbers, draw what can be drawn. Nothing
is lost on the way: Ctrl-C ends the training, and what was learned so far is evaluated.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from refscore.commands.demo_digits import DIGITS, digits_demo
from refscore.commands.demo_figures import draw
from refscore.commands.demo_problem import Problem, load_problem, mismatch_in_words
from refscore.commands.demo_report import Report, loss_in_words, tables
from refscore.commands.library import add_backend, chosen
from refscore.commands.progress import check_ends, progress
from refscore.commands.threads import add_threads, blas_threads
from refscore.data.files import save_array, save_json, writable_folder
from refscore.laws.examples import MIXTURES
from refscore.matching.denoising import Denoising
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.measure.distance import sliced_wasserstein
from refscore.measure.floor import denoising_floor
from refscore.measure.tables import excess_loss, flow_samples, sample_table, score_table
from refscore.nn.mlp import MLP
from refscore.nn.score_model import ScoreModel
from refscore.noise.exact_score import ExactScore
from refscore.noise.sde import VP
from refscore.protocols import Array
from refscore.training.loop import DivergenceError, TrainingState, fit
from refscore.training.optim import EMA, Adam, WarmupCosine
from refscore_backends import Backend

# Likelihood weighting, with times drawn so that every log signal-to-noise ratio counts alike: the
# excess loss then bounds, in nats, the Kullback-Leibler divergence between data and the reverse SDE with
# the learned score (Song et al. 2021, arXiv 2101.09258), but for what is below t_min and for the prior.
# The flow that is sampled below has no such bound.
OBJECTIVE = Denoising(weight=g_squared, times=UniformLogSNR(1e-3), antithetic=True)
WIDTHS, FEATURES, BATCH, RATE = (2, 128, 128, 128, 2), 32, 512, 3e-3
SAMPLES, SCORE_SAMPLES, EXCESS_SAMPLES = 8_000, 20_000, 50_000
HELP = "learn the score of a 2-D law and compare it with the exact one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--data, --steps, --seed, --backend, --out, --threads."""
    parser.epilog = "example: refscore demo --data digits --out digits"
    parser.add_argument(
        "--data", default="tilted", metavar="NAME|FILE",
        help=f"{', '.join(MIXTURES)} (default: tilted), digits, or 2-D points in a .npy, .npz or .csv file",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="training steps (default: 6000; digits: 1800)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same machine: same numbers (default: 0)")
    add_backend(parser)
    parser.add_argument("--out", type=Path, default=Path("refscore-demo"), help="folder for numbers and pictures")
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """`refscore demo`."""
    with blas_threads(args.threads) as said:
        print(said)
        if args.data == "digits":
            steps = DIGITS["steps"] if args.steps is None else args.steps
            digits_demo(steps, args.seed, args.backend, args.out, args.compile)
        else:
            steps = 6000 if args.steps is None else args.steps
            demo(args.data, chosen(args.backend, args.compile), steps, args.seed, args.out)


def demo(data: str, backend: Backend, steps: int, seed: int, out: Path, say: Callable[[str], None] = print) -> Report:
    """Train, evaluate, draw; returns the report, whose numbers and pictures are in `out`.

    Raises
    ------
    ValueError, OSError
        Before any training: unknown data, unreadable file, unwritable folder, steps < 1.
    DivergenceError
        When training diverges; the last good parameters are saved first.
    """
    steps = check_ends("steps", steps, 1e-4)
    rng = backend.rng(seed)
    problem = load_problem(data, backend, seed)
    writable_folder(out)
    model = ScoreModel(MLP(WIDTHS, embed=FEATURES), VP(), data_std=problem.std)
    floor = None
    if problem.exact is not None:
        floor = denoising_floor(OBJECTIVE, problem.exact, model.sde, backend.rng(seed))
    say(f"refscore demo: {problem.name} on {backend.name} ({backend.device()}), seed {seed}, files in {out}/")
    for line in (*problem.said, mismatch_in_words(problem, model.sde)):
        say(line)

    report = Report(data, backend.name, seed, steps, False, 0.0, floor=floor)
    if problem.exact is None:
        report.centre, report.scale = problem.centre.tolist(), problem.scale.tolist()
    ema = EMA(min(0.999, 1 - 20 / (steps + 20)))  # over a twentieth of a short run
    started = time.perf_counter()
    try:
        state = _train(model, problem, ema, rng, report, backend.compile, say)
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


# ------------------------------------------------------------------ training, watched


def _train(
    model: ScoreModel, problem: Problem, ema: EMA, rng: Any, report: Report,
    compile: Callable[..., Any], say: Callable[[str], None],
) -> TrainingState:  # fmt: skip
    """Walk through `fit`; Ctrl-C ends it and keeps what was done."""
    steps = report.steps
    rate = WarmupCosine(RATE, steps, warmup=min(100, steps - 1), end=RATE / 100)
    training = fit(
        model, OBJECTIVE, problem.data, Adam(rate), rng, steps=steps, batch=BATCH, ema=ema, max_norm=100.0,
        compile=compile,
    )  # fmt: skip
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
                    show(state.step, loss_in_words(report))
        except KeyboardInterrupt:
            report.interrupted = True
    if state is None:
        raise KeyboardInterrupt
    if report.interrupted:
        say(f"interrupted after step {state.step}: going on with what was learned so far (Ctrl-C again to stop)")
    return state


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


def _draw(
    problem: Problem, model: ScoreModel, score: Any, learned: Array, exact: Array | None,
    report: Report, backend: Backend, out: Path, say: Callable[[str], None],
) -> None:  # fmt: skip
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        say('no pictures: matplotlib is not installed (pip install -e ".[plots]" in the checkout)')
        return
    say(f"pictures: {', '.join(draw(problem, model, score, learned, exact, report, backend, out))}")
