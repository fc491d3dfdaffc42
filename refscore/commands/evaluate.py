"""`refscore evaluate`: how good is a trained model? Likelihood of data it has not seen, distances, copies, a test."""

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from refscore.checks import check_count
from refscore.commands.chunks import in_chunks
from refscore.commands.drawing import SAMPLER, STEPS, Drawing
from refscore.commands.library import add_backend, chosen
from refscore.commands.pictures import in_unit, needs_pillow
from refscore.commands.progress import check_ends, progress
from refscore.commands.saved_run import Saved, fingerprint, read
from refscore.commands.threads import add_threads, blas_threads
from refscore.commands.train_config import load
from refscore.commands.widened import Widened, law_on
from refscore.data.files import save_bytes, save_json, writable_folder
from refscore.data.sets import Data
from refscore.laws.expectation import Estimate
from refscore.laws.mixture import GaussianMixture
from refscore.likelihood.flow import FixedSteps, bits_per_dim, error_split, log_likelihood
from refscore.matching.probes import rademacher
from refscore.measure.distance import sliced_wasserstein, sliced_wasserstein_floor
from refscore.measure.neighbours import Memorised, memorised, nearest, two_sample_test
from refscore.plots import png, tiles
from refscore.sampling.transitions import SAMPLERS
from refscore.training.checkpoint import CheckpointError
from refscore_backends import Backend
from refscore_backends.base import check_seed

HELP = "judge a trained model by data it has not seen (the table of samplers is `refscore samplers`)"
EXAMPLE = "example: refscore evaluate digits --n 500"
CHUNK, POINTS, PAIRS = 100, 200, 16  # points whose likelihood is asked for; samples shown beside their neighbours
FLOW = 40  # steps of RK4
PROBES = 4
Chunks = Callable[..., list[Any]]  # `in_chunks` with its generator and workers


@dataclass
class Report:
    """What `evaluation.json` holds.

    Parameters
    ----------
    folder : str
        Of the model.
    step : int
        Of training.
    points : int
        Held-out points whose likelihood was taken.
    nats : Estimate or None
        Their mean log likelihood, in the units of the data.
    bits_per_dim : Estimate or None
        The same of images of grey levels: an upper bound, by dequantisation.
    split : dict or None
        Root mean squares of the causes of its error, where the law is known.
    n : int
        Samples of each kind for what follows.
    distance, floor : float or None
        Sliced Wasserstein distance of samples to held-out data, and of as many training data.
    exact_floor : Estimate or None
        That of two sets of fresh data, where the law is known.
    copies : Memorised or None
        How near samples are to training data.
    two_samples : Estimate or None
        Accuracy of the test that tells samples from held-out data.
    chance : float or None
        Its accuracy where the laws are the same.
    """

    folder: str
    step: int
    points: int = 0
    nats: Estimate | None = None
    bits_per_dim: Estimate | None = None
    split: dict[str, float] | None = None
    n: int = 0
    distance: float | None = None
    floor: float | None = None
    exact_floor: Estimate | None = None
    copies: Memorised | None = None
    two_samples: Estimate | None = None
    chance: float | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """FOLDER, --data, --n, --points, --sampler, --steps, --out, --workers, --seed, --backend, --threads."""
    parser.epilog = EXAMPLE
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="of a `refscore train`")
    add("--data", metavar="FILE", help="where the data of the run are now, if they have moved")
    add("--n", type=int, default=500, help="samples to draw (default: 500), limited by the held-out data")
    add("--points", type=int, default=POINTS, help=f"held-out points for the likelihood (default: {POINTS})")
    add("--sampler", default=SAMPLER, metavar="NAME", help=f"one of {', '.join(SAMPLERS)} (default: {SAMPLER})")
    add("--steps", type=int, default=STEPS, help=f"steps of the sampler (default: {STEPS})")
    add("--out", type=Path, metavar="FOLDER", help="folder for numbers and picture (default: the model's)")
    add("--workers", type=int, metavar="N", help="threads that share points and samples (default: none)")
    add("--seed", type=int, default=0, help="same seed, same machine: same numbers (default: 0)")
    add_backend(parser)
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """`refscore evaluate`."""
    with blas_threads(args.threads) as said:
        print(said)
        evaluate(
            args.folder, args.n, args.points, args.sampler, args.steps, args.out, args.seed,
            chosen(args.backend, args.compile), args.data, args.workers,
        )  # fmt: skip


def evaluate(
    folder: Path, n: int, points: int, sampler: str, steps: int, out: Path | None, seed: int, backend: Backend,
    moved: str | None = None, workers: int | None = None, say: Callable[[str], None] = print,
) -> Report:  # fmt: skip
    """Measure, write `evaluation.json` and a picture, print.

    Raises
    ------
    ValueError, OSError
        Before any work: for a folder, a sampler or data that cannot be used.
    """
    n, points, seed = check_count("n", n, 2), check_count("points", points, 2), check_seed(seed)
    steps = check_ends("steps", steps, 1e-4)
    if sampler not in SAMPLERS:
        raise ValueError(f"no sampler called {sampler!r}; there are {', '.join(SAMPLERS)}")
    saved = read(folder, backend)
    data = _data(saved, folder, moved)
    out = out or (folder if folder.is_dir() else folder.parent)
    writable_folder(out)
    report = Report(str(folder), saved.step)
    say(f"refscore evaluate: {folder}, step {saved.step}, on {backend.name}; files in {out}/")
    rng, show_all = backend.rng(seed), min(points, len(data.held_out))
    n = min(n, len(data.held_out), len(data.x))
    draw = Drawing(saved.model, saved.theta, saved.shape, backend, sampler, steps)
    chunks = partial(in_chunks, rng=rng, workers=workers, size=CHUNK, say=say)
    made, done = None, count(1)
    try:
        with progress(-(-show_all // CHUNK) + -(-n // CHUNK), say) as show:
            _likelihood(report, saved, data, show_all, backend, chunks, lambda: show(next(done), "likelihood"))
            if report.points == show_all:
                made = _drawn(draw, data, n, backend, chunks, lambda: show(next(done), "samples"))
        if made is not None:
            _compare(report, data, made, rng, backend)
    except KeyboardInterrupt:
        if report.nats is None:
            raise
        say("interrupted: what was measured is kept")
    save_json(out / "evaluation.json", asdict(report))  # before anything is printed
    for line in tables(report):
        say(line)
    say(f"\nnumbers: {out / 'evaluation.json'}")
    if made is not None and data.kind == "images":
        say(_picture(made, data, backend, out / "neighbours.png"))
    return report


def _data(saved: Saved, folder: Path, moved: str | None) -> Data:
    """The data that the model was trained on, split as then; they may have moved."""
    s = saved.settings if moved is None else replace(saved.settings, data=moved)
    data = load(s)
    if fingerprint(data) != saved.config.get("data"):
        raise CheckpointError(f"the data of {s.data} are not those that the model in {folder} was trained on")
    if len(data.held_out) < 2:
        raise ValueError(
            f"{len(data.held_out)} samples were held out (held_out={s.held_out}) when the model in {folder} was "
            "trained, and it takes two to judge it: train with more data, or hold more of them out"
        )
    return replace(data, labels=None, held_out_labels=None) if s.unconditional else data


# ------------------------------------------------------------------ what is measured


def _likelihood(
    report: Report, saved: Saved, data: Data, points: int, backend: Backend, chunks: Chunks, show: Callable[[], None]
) -> None:
    """Log likelihoods of held-out points, under their labels, and what they err by where the law is known."""
    D, sde, t_min = math.prod(saved.shape), saved.model.sde, saved.settings.t_min
    scaling, solve = data.scaling, FixedSteps(sde, FLOW)
    law = law_on(backend, data.law) if isinstance(data.law, GaussianMixture) and data.labels is None else None

    def chunk(rows: slice, rng: Any) -> tuple[Any, Any]:
        x = backend.asarray(data.held_out[rows], "float32")
        if scaling.levels is not None:
            x = scaling.dequantise(x, rng.random(x.shape, dtype=x.dtype))
        told = None if data.held_out_labels is None else backend.asarray(data.held_out_labels[rows])
        probes = None if D <= PROBES else rademacher(rng, (PROBES, *x.shape), x.dtype)
        found = log_likelihood(saved.model.bind(saved.theta, told), sde, x, t_min=t_min, probes=probes, solve=solve)
        split = None if law is None else error_split(
            Widened(saved.model.bind(saved.theta)), law, sde, backend.asarray(data.held_out[rows], "float64"),
            t_min=t_min, solve=solve, fine=FixedSteps(sde, 4 * FLOW),
        )  # fmt: skip
        show()
        return backend.to_numpy(found.value).astype("float64"), split

    values, splits = zip(*chunks(chunk, points, what="points"), strict=True)
    nats = np.concatenate(values)
    report.points, report.nats = len(nats), _mean(nats - scaling.log_det(D))
    if scaling.levels is not None:
        report.bits_per_dim = _mean(np.asarray(bits_per_dim(nats, D, scaling.width)))
    if law is not None:
        causes = {
            cause: np.concatenate([backend.to_numpy(getattr(split, cause)) for split in splits])
            for cause in splits[0]._fields
        }
        report.split = {cause: float(np.sqrt(np.mean(part**2))) for cause, part in causes.items()}


def _mean(values: Any) -> Estimate:
    return Estimate(float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values)))


def _drawn(draw: Drawing, data: Data, n: int, backend: Backend, chunks: Chunks, show: Callable[[], None]) -> Any:
    """Samples (n, ...), as the network sees them, under the labels of the held-out data."""
    labels = data.held_out_labels

    def chunk(rows: slice, rng: Any) -> Any:
        *_, x = draw(rows.stop - rows.start, rng, None if labels is None else labels[rows])
        show()
        return x

    return backend.xp.concat(chunks(chunk, n, what="samples"))


def _compare(report: Report, data: Data, made: Any, rng: Any, backend: Backend) -> None:
    """Distances between samples, held-out and training data; samples are grey levels again, where data are."""
    report.n = n = made.shape[0]
    if data.scaling.levels is not None:
        made = data.scaling.apply(data.scaling.undo(made))
    rows = [backend.xp.reshape(a, (a.shape[0], -1)) for a in (
        made, backend.asarray(data.held_out, "float32"), backend.asarray(data.x, "float32")
    )]  # fmt: skip
    samples, held_out, training = rows
    report.distance = sliced_wasserstein(samples, held_out[:n, ...], rng)
    report.floor = sliced_wasserstein(training[:n, ...], held_out[:n, ...], rng)
    if isinstance(data.law, GaussianMixture):
        report.exact_floor = sliced_wasserstein_floor(data.law, n, np.random.default_rng(0))
    report.copies = memorised(samples, training, held_out)
    report.two_samples = two_sample_test(samples, held_out[:n, ...])
    report.chance = (n - 1) / (2 * n - 1)


# ------------------------------------------------------------------ what is said and drawn


def tables(report: Report) -> Iterator[str]:
    """The report as lines of text."""
    if report.nats is not None:
        yield f"\nlog likelihood of {report.points} held-out points: {_said(report.nats)} nats each"
        if report.bits_per_dim is not None:
            yield f"  {_said(report.bits_per_dim)} bits per dimension (of grey levels: an upper bound)"
    if report.split is not None:
        yield "  root mean squares of what it errs by, in nats:"
        yield from (f"    {cause:14}{value:.4g}" for cause, value in report.split.items())
    if report.distance is not None:
        yield f"\n{report.n} samples beside held-out data, sliced Wasserstein distance"
        yield f"  samples         {report.distance:.4g}"
        yield f"  training data   {report.floor:.4g}   (the sampling floor, from as many)"
        if report.exact_floor is not None:
            yield f"  two sets of fresh data {_said(report.exact_floor)}"
    if report.copies is not None:
        c = report.copies
        yield "\ncopies: distance to the nearest training point, median"
        yield f"  samples {c.samples:.4g}, held-out data {c.held_out:.4g}"
        yield f"  samples nearer than almost all held-out data: {_said(c.share)}; by chance {_said(c.chance)}"
    if report.two_samples is not None:
        yield f"\nsamples told from held-out data by their nearest neighbour: {_said(report.two_samples)}"
        yield f"  ({report.chance:.3f} where they cannot be told apart)"


def _said(e: Estimate) -> str:
    return f"{e.value:.4g} ± {e.error:.2g}"


def _picture(made: Any, data: Data, backend: Backend, path: Path) -> str:
    """Samples, each above its nearest training image."""
    try:
        needs_pillow()
    except ValueError as error:
        return f"no pictures: {error}"
    some = made[: min(PAIRS, made.shape[0]), ...]
    _, which = nearest(some, backend.asarray(data.x, "float32"))
    rows = np.concatenate([backend.to_numpy(some), data.x[backend.to_numpy(which)]])
    save_bytes(path, png(tiles(in_unit(rows), some.shape[0]), max(1, 40 // rows.shape[1])))
    return f"picture: {path}, samples above, below each the nearest training image"
