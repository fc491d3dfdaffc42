"""`refscore samplers`: the error of every sampler, against the number of scores it may ask for. Chapter 10."""

import argparse
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from refscore.commands.demo import FEATURES, WIDTHS
from refscore.commands.demo_problem import load_problem
from refscore.commands.library import add_backend
from refscore.commands.progress import progress
from refscore.commands.threads import add_threads, blas_threads
from refscore.commands.widened import Widened, law_on
from refscore.data.files import read_array, save_json, writable_folder
from refscore.laws.affine_chain import wasserstein
from refscore.laws.examples import MIXTURES, mixture
from refscore.laws.expectation import Estimate
from refscore.measure.distance import sliced_wasserstein_floor
from refscore.measure.work_precision import (
    GAUSSIAN,
    POINTS,
    Error,
    evaluations_per_step,
    gaussian_error,
    likelihood_split,
    sampled_error,
    starts,
)
from refscore.nn.mlp import MLP
from refscore.nn.score_model import ScoreModel
from refscore.noise.exact_score import ExactScore
from refscore.noise.sde import SDES
from refscore.protocols import Score, ScoreWithJvp
from refscore.sampling.transitions import SAMPLERS
from refscore_backends import Backend, get
from refscore_backends.base import check_seed, host_noise

EVALUATIONS = (8, 16, 32, 64, 128)
MOST_EVALUATIONS = 100_000
HELP = "the error of every sampler by its number of score evaluations"
MOST_SAMPLES = 2_000_000  # of about 5 kB each, with what is computed from them: 10 GB

Array: TypeAlias = Any  # of NumPy: this works on the host


@dataclass
class Row:
    """One sampler: its error for each budget, and from the prior for the last.

    None where the budget is less than one step, ∞ ("inf" in the file) where the samples left the finite numbers.
    """

    sampler: str
    evaluations: list[int] = field(default_factory=list)  # those really used, at most the budget
    errors: list[float | None] = field(default_factory=list)
    from_prior: float | None = None


@dataclass
class Report:
    """What `numbers.json` holds."""

    data: str
    sde: str
    score: str  # "exact", or the folder of the model
    distance: str
    seed: int
    samples: int | None
    budgets: list[int]
    interrupted: bool = False  # then the last samplers are missing
    floor: Estimate | None = None  # the distance of two exact samples
    prior: float | None = None  # the distance of p₁ and the prior
    rows: list[Row] = field(default_factory=list)
    likelihood: dict[str, float] = field(default_factory=dict)  # root mean square of each part of the error, nats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--data, --samplers, --evaluations, --sde, --samples, --seed, --model, --out, --backend, --threads."""
    parser.epilog = "example: refscore samplers --data two-modes --samplers ddim heun --evaluations 8 32"
    parser.add_argument(
        "--data", metavar="NAME",
        help=f"gaussian (default; its errors are exact) or {', '.join(MIXTURES)}; with --model, the model's own",
    )  # fmt: skip
    parser.add_argument("--samplers", nargs="+", metavar="NAME", help="default: all; an unknown name lists them")
    parser.add_argument("--evaluations", nargs="+", type=int, default=[8, 16, 32, 64, 128], metavar="N",
                        help="budgets of score evaluations (default: 8 16 32 64 128)")  # fmt: skip
    parser.add_argument("--sde", default="vp", help=f"{', '.join(SDES)} (default: vp)")
    parser.add_argument("--samples", type=int, default=20_000, help="for a mixture, whose errors are measured")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same machine: same numbers (default: 0)")
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="the learned score of a `refscore demo`")
    parser.add_argument("--out", type=Path, default=Path("refscore-samplers"), help="folder for numbers and picture")
    add_backend(parser, compiles=False)
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """`refscore samplers`."""
    with blas_threads(args.threads) as said:
        print(said)
        compare(
            args.data, args.samplers, args.evaluations, args.sde, args.samples, args.seed, args.model, args.out,
            get(args.backend),
        )  # fmt: skip


def compare(
    data: str | None, names: Sequence[str] | None, budgets: Sequence[int], sde: str, samples: int, seed: int,
    model: Path | None, out: Path, backend: Backend, say: Callable[[str], None] = print,
) -> Report:  # fmt: skip
    """Measure, print the table, draw; numbers and picture are in `out`.

    Raises
    ------
    ValueError, OSError
        Before any work: for unknown names, budgets below 2, a model that is not there or does not fit, an unwritable
        folder.
    """
    data = _data_of(data, model)
    names = list(dict.fromkeys(names or SAMPLERS))
    seed = check_seed(seed)
    for name in names:
        _check_name("sampler", name, SAMPLERS)
    budgets = sorted(set(budgets))
    if not budgets or budgets[0] < 2:
        raise ValueError(f"a budget of evaluations must be at least 2, got {list(budgets)}")
    if budgets[-1] > MOST_EVALUATIONS:
        raise ValueError(f"a budget of evaluations must be at most {MOST_EVALUATIONS}, got {budgets[-1]}")
    if samples < 2:
        raise ValueError(f"samples must be at least 2, got {samples}")
    if samples > MOST_SAMPLES:
        raise ValueError(f"samples must be at most {MOST_SAMPLES}, which take some 10 GB, got {samples}")
    _check_name("SDE", sde, SDES)
    process, exact = SDES[sde], law_on(backend, GAUSSIAN if data == "gaussian" else mixture(data))
    score: ScoreWithJvp = ExactScore(exact, process)
    if model is not None:
        if sde != "vp":
            raise ValueError(f"the models of `refscore demo` are made for the SDE 'vp', not {sde!r}")
        score = _learned(model, data, backend)
    writable_folder(out)

    gaussian = data == "gaussian"
    distance = "2-Wasserstein, exact" if gaussian else "sliced Wasserstein, sampled"
    make = partial(host_noise, backend=backend)  # the same numbers on every back end
    report = Report(data, sde, "exact" if model is None else str(model), distance, seed,
                    None if gaussian else samples, list(budgets))  # fmt: skip
    if gaussian:
        report.prior = wasserstein(*starts(process, exact))
        error = gaussian_error(process, exact)
    else:
        report.floor = sliced_wasserstein_floor(exact, samples, make(seed))
        error = sampled_error(process, exact, samples, seed, make)
    where = "" if backend.name == "numpy" else f" on {backend.name}"
    say(f"refscore samplers: {data}, SDE {sde}, {report.score} score{where}, {distance}; files in {out}/")
    try:
        with progress(len(names) * (len(budgets) + 1), say) as show:
            for name in names:
                report.rows.append(_row(name, score, budgets, error, len(report.rows) * (len(budgets) + 1), show))
        report.likelihood = likelihood_split(score, exact, process, seed, make)
    except KeyboardInterrupt:
        if not report.rows:
            raise
        report.interrupted = True
    save_json(out / "numbers.json", asdict(report))  # before anything is printed
    if report.interrupted:
        say(f"interrupted: {len(report.rows)} of {len(names)} samplers were measured")
    for line in tables(report):
        say(line)
    say(f"\nnumbers: {out / 'numbers.json'}")
    say(_draw(report, out / "work-precision.png"))
    return report


def _check_name(kind: str, name: str, table: Iterable[str]) -> None:
    """Refuse a name that is not in the table; one of before, with blanks and commas, is told its new spelling."""
    if name in table:
        return
    same = [known for known in table if re.sub(r"[-+]", "", known) == re.sub(r"[-+ ,]", "", name)]
    raise ValueError(
        f"no {kind} called {name!r}" + (f": it is now called {same[0]}" if same else f"; there are {', '.join(table)}")
    )


def _row(
    name: str, score: Score, budgets: Sequence[int], error: Error, done: int, show: Callable[[int, str], None]
) -> Row:
    row, each = Row(name), evaluations_per_step(name)
    for n, budget in enumerate(budgets, start=1):
        steps = (budget - 1) // each  # one is for the end
        row.evaluations.append(steps * each + 1 if steps else 0)
        row.errors.append(error(score, name, steps, False) if steps else None)
        show(done + n, name)
    if steps:
        row.from_prior = error(score, name, steps, True)
    show(done + len(budgets) + 1, name)
    return row


# ------------------------------------------------------------------ a trained model


def _data_of(data: str | None, model: Path | None) -> str:
    known = ("gaussian", *MIXTURES)
    if data is not None and data not in known:
        raise ValueError(f"no data set called {data!r}; there are {', '.join(known)}")
    if model is None:
        return data or "gaussian"
    try:
        trained = str(json.loads((model / "numbers.json").read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{model} is not a folder of `refscore demo`: cannot read its numbers.json") from error
    if trained not in MIXTURES:
        raise ValueError(f"the model in {model} was trained on {trained}, whose law is not known")
    if data is not None and data != trained:
        raise ValueError(f"the model in {model} was trained on {trained}, not on {data}")
    return trained


def _learned(folder: Path, data: str, backend: Backend) -> ScoreWithJvp:
    """The score of a model of `refscore demo`; it computes in float32, what is around it in float64."""
    model = ScoreModel(MLP(WIDTHS, embed=FEATURES), SDES["vp"], data_std=load_problem(data, backend, 0).std)
    try:
        theta = read_array(folder / "theta.npy")
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"cannot read {folder / 'theta.npy'}: {error}") from error
    size = sum(math.prod(shape) for shape in model.shapes.values())
    if theta.shape != (size,) or theta.dtype != np.float32 or not np.isfinite(theta).all():
        raise ValueError(f"{folder / 'theta.npy'} does not hold the {size} finite float32 numbers of the demo's model")
    return Widened(model.bind(backend.asarray(theta)))


# ------------------------------------------------------------------ what is said and drawn


def tables(report: Report) -> Iterator[str]:
    """The report as lines of text."""
    yield f"\ndistance to the exact law ({report.distance}), by number of score evaluations"
    heads = [*map(str, report.budgets), "prior"]
    yield f"  {'sampler':22}" + "".join(f"{head:>11}" for head in heads)
    for row in report.rows:
        cells = ("-" if e is None else f"{e:.3g}" for e in [*row.errors, row.from_prior])
        yield f"  {row.sampler:22}" + "".join(f"{cell:>11}" for cell in cells)
    yield f"  prior: {report.budgets[-1]} evaluations, started from the prior and not from the true law at t = 1"
    if report.floor is not None:
        of = f"{report.floor.value:.3g} ± {report.floor.error:.2g}"
        yield f"  two sets of exact samples: {of} (the sampling floor: below it nothing can be told)"
    if report.prior is not None:
        yield f"  the prior and that law are {report.prior:.3g} apart"
    if report.likelihood:
        yield f"\nlog-likelihood of {POINTS} points (t from 1e-5, 50 steps of RK4, one probe):"
        yield "root mean square of each part of its error, in nats"
        for cause, nats in report.likelihood.items():
            yield f"  {cause:22}{nats:>11.3g}"


def _draw(report: Report, path: Path) -> str:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return 'no picture: matplotlib is not installed (pip install -e ".[plots]" in the checkout)'
    from refscore.plots import INK, figure, save

    fig, ((ax,),) = figure(1, size=5.5)
    fig.set_size_inches(8.0, 5.0)
    for i, row in enumerate(report.rows):
        points = [(n, e) for n, e in zip(row.evaluations, row.errors, strict=True) if e is not None and e < math.inf]
        label = row.sampler + ", diverges" * (math.inf in row.errors)
        ax.plot(*np.reshape(points, (-1, 2)).T, "os^Dv"[i % 5] + ("-", "--", ":")[i // 5 % 3], ms=4, label=label)
    if report.floor is not None:
        ax.axhline(report.floor.value, color=INK, lw=0.8, label="sampling floor")
    ax.set(xscale="log", yscale="log", xlabel="score evaluations", ylabel=f"{report.distance} distance")
    ax.set_xticks(report.budgets, [str(n) for n in report.budgets])
    ax.minorticks_off()
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    ax.set_title(f"{report.data}, SDE {report.sde}, {'exact' if report.score == 'exact' else 'learned'} score")
    return f"picture: {save(fig, path)}"
