"""`refscore train`: your data, a model of them, and a folder from which it goes on."""

import argparse
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from refscore.checks import check_count
from refscore.commands import saved_run
from refscore.commands.library import add_backend, chosen
from refscore.commands.pictures import picture
from refscore.commands.progress import progress
from refscore.commands.saved_run import CHECKPOINT, METRICS, SETTINGS
from refscore.commands.threads import add_threads, blas_threads, deaf, one_blas_thread
from refscore.commands.train_config import LEARNABLE, NETS, Run, Settings, as_toml, build, settle
from refscore.data.files import alone_in, check_apart, save_text, writable_folder
from refscore.data.sets import NAMES
from refscore.laws.mixture import GaussianMixture
from refscore.matching.denoising import Denoising
from refscore.measure.floor import denoising_floor
from refscore.noise.parametrisation import PARAMETRISATIONS
from refscore.noise.prior import prior_mismatch_bound
from refscore.noise.sde import SDES
from refscore.protocols import Array
from refscore.training.checkpoint import CheckpointError, load
from refscore.training.loop import DivergenceError, TrainingState, fit
from refscore.training.parallel import Sharded
from refscore_backends import Backend, HostRng, get
from refscore_backends.base import host_noise

HELP = "learn the score of your data: points or images, from a file or by name"
EXAMPLE = (
    "example: refscore train --data digits --out digits && refscore sample digits --n 100 --out digits.png; "
    "refscore train --data points.csv --out points --steps 2000"
)
MOVABLE = ("backend", "data", "labels")  # what may change when a run goes on: the data are compared by content
HELD_OUT = 256  # samples, at most, that the held-out loss is measured on
COLUMNS = ("step", "loss", "excess", "held_out", "grad_norm", "per_second", "seconds")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """--data, --out, and a flag for each field of `Settings`."""
    parser.epilog = EXAMPLE
    add = parser.add_argument
    add("--data", metavar="NAME|FILE", help=f"{', '.join(NAMES)}; or a .csv, .npy, .npz or IDX file (also .gz)")
    add("--labels", metavar="FILE", help="labels of the samples of a file: another file, or a column of a .csv")
    add("--condition", nargs="+", metavar="COLUMN", help="columns of points under whose values the others are learned")
    add("--levels", type=int, metavar="L", help="grey levels of images of integers (default: guessed)")
    add("--span", nargs=2, type=float, metavar=("LOW", "HIGH"), help="range of images of floats (default: guessed)")
    add("--out", type=Path, required=True, metavar="FOLDER", help="folder for the model, its metrics and pictures")
    add("--config", type=Path, metavar="FILE.toml", help="settings from a file, such as config.toml of another run")
    add("--resume", action="store_true", help="go on with the run in the folder, where it stopped")
    add("--net", choices=NETS, help="default: mlp for points, unet for images")
    add("--widths", nargs="+", type=int, metavar="N", help="widths of hidden layers, or of a U-Net's levels")
    add("--dropout", type=float, metavar="RATE", help="default: 0")
    add("--sde", choices=list(SDES), help="default: vp; its end is chosen by the data")
    add("--objective", choices=LEARNABLE, help="default: denoising")
    add("--predict", choices=list(PARAMETRISATIONS), help="what the network predicts (default: noise)")
    add("--t-min", type=float, metavar="T", help="least time that is trained on (default: 0.001)")
    add("--steps", type=int, help="default: 6000 for points, 4000 for images")
    add("--batch", type=int, help="default: 512 points, 64 images")
    add("--rate", type=float, help="largest learning rate (default: 0.003 for points, 0.002 for images)")
    add("--unconditional", action="store_true", default=None, help="leave labels out")
    add("--unlabelled", type=float, metavar="SHARE", help="labels withheld in training, for guidance (default: 0.1)")
    add("--held-out", type=float, metavar="PART", help="part of the data to judge by (default: 0.1)")
    add("--no-dequantise", dest="dequantise", action="store_false", default=None, help="train on bare grey levels")
    add("--flips", action="store_true", default=None, help="mirror images at random")
    add("--workers", type=int, metavar="N", help="processes that share each batch (default: none)")
    add("--shards", type=int, help="parts into which a batch is cut (default: 1; with workers 4)")
    add("--seed", type=int, help="same seed, same machine: same numbers (default: 0)")
    add_backend(parser, default=None)
    add_threads(parser)


def run(args: argparse.Namespace) -> None:
    """`refscore train`."""
    with blas_threads(args.threads) as said:
        print(said)
        flags = vars(args)
        if args.workers is not None and args.shards is None and not args.resume:
            flags = flags | {"shards": 4}
        train(flags, args.config, args.out, args.resume, args.workers)


def train(
    flags: Mapping[str, Any], config: Path | None, out: Path, resume: bool = False, workers: int | None = None,
    say: Callable[[str], None] = print,
) -> TrainingState:  # fmt: skip
    """Train, and keep everything in the folder `out`: checkpoint, settings, metrics, pictures.

    Parameters
    ----------
    flags : mapping
        Fields of `Settings`; None for those that were not given.
    config : Path or None
        A TOML file of the same.
    out : Path
        The folder.
    resume : bool, default False
        Whether to go on with the run that is there.
    workers : int, optional
        Processes that share each batch; by default none.
    say : callable, default print
        Takes a line.

    Returns
    -------
    TrainingState
        The last.

    Raises
    ------
    ValueError, OSError
        Before any training: for settings, data or a folder that cannot be used, a folder that holds a run already.
    DivergenceError
        When training diverges; the last good state is saved first.
    """
    settings = _settings(flags, config, out, resume)
    backend = chosen(settings.backend, bool(flags.get("compile")), say)
    run = build(settings, backend)
    writable_folder(out)
    with alone_in(out):
        return _train(run, out, backend, resume, workers, say)


def _train(
    run: Run, out: Path, backend: Backend, resume: bool, workers: int | None, say: Callable[[str], None]
) -> TrainingState:
    settings = run.settings
    start, rng = _resumed(run, out, backend, say) if resume else (None, backend.rng(settings.seed))
    save_text(out / SETTINGS, as_toml(settings))
    for line in (*run.data.said, *_described(run, backend, out)):
        say(line)
    steps = settings.steps or 0
    if start is not None and start.step >= steps:
        say(f"the run in {out} is done: all {steps} steps are taken")
        return start
    with _processes(workers, settings) as executor:
        state = _walk(run, start, rng, backend, out, executor, say)
    say(f"\nmodel: {out / CHECKPOINT}, settings: {out / SETTINGS}, metrics: {out / METRICS}")
    say(f"next: refscore sample {out} --n 100 --out samples.npy; refscore evaluate {out}")
    return state


def _settings(flags: Mapping[str, Any], config: Path | None, out: Path, resume: bool) -> Settings:
    if not resume:
        if (out / CHECKPOINT).exists():
            raise ValueError(f"{out} holds a run already: go on with it by --resume, or take another --out")
        for name in (SETTINGS, METRICS):
            check_apart(out / name, config, flags.get("data"), flags.get("labels"))
        return settle(flags, config)
    if not (out / CHECKPOINT).exists():
        raise ValueError(f"{out} holds no {CHECKPOINT} to go on from")
    if config is not None:
        raise ValueError(f"a run goes on with its own settings, {out / SETTINGS}: leave --config out")
    kept = settle({}, out / SETTINGS)
    changed = [
        name for name, value in flags.items()
        if value is not None and hasattr(kept, name) and name not in MOVABLE and value != _listed(getattr(kept, name))
    ]  # fmt: skip
    if changed:
        raise ValueError(f"a run goes on with its own settings: leave out --{', --'.join(changed).replace('_', '-')}")
    return settle({name: flags.get(name) for name in MOVABLE}, out / SETTINGS)


@contextmanager
def _processes(workers: int | None, settings: Settings) -> Iterator[Executor | None]:
    """So many processes, each with one BLAS thread."""
    if workers is None:
        yield None
        return
    if settings.backend != "numpy":
        raise ValueError(f"--workers are processes on the host; {settings.backend} works on a batch at once")
    if settings.shards == 1:
        raise ValueError("--workers share the shards of a batch, and this run has one: --shards N when it begins")
    with ProcessPoolExecutor(check_count("workers", workers), get_context("spawn"), one_blas_thread) as executor:
        with deaf():  # they are born so: Ctrl-C is for this process, which ends them
            executor.submit(int)
        yield executor


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _resumed(run: Run, out: Path, backend: Backend, say: Callable[[str], None]) -> tuple[TrainingState, Any]:
    """The state and the generator of the run in the folder."""
    own = backend.rng(0)
    kept = load(out / CHECKPOINT, asarray=backend.asarray, rng=own)
    if kept.config.get("data") != saved_run.fingerprint(run.data):
        raise CheckpointError(f"the data of {run.data.name} are not those that the run in {out} began with")
    if kept.model != run.model or not isinstance(kept.state, TrainingState):
        raise CheckpointError(f"the model in {out} is not the one that {out / SETTINGS} describes")
    if kept.rng is None:
        say(f"the generator of the run is not one of {backend.name}'s: it goes on with other numbers, of the same law")
        return kept.state, backend.rng(hash((run.settings.seed, kept.state.step)) % 2**63)
    if kept.rng is own:
        return kept.state, own
    if not isinstance(own, (HostRng, type(kept.rng))):
        say(f"the random numbers are those of the run, which NumPy draws: each is copied to {backend.name}")
    return kept.state, host_noise(kept.rng, backend)


def _described(run: Run, backend: Backend, out: Path) -> list[str]:
    s, size = run.settings, sum(math.prod(shape) for shape in run.model.shapes.values())
    told = f", told {run.model.classes} labels" if run.model.classes else ""
    told = f", told {', '.join(run.data.given)}" if run.data.given else told
    return [
        f"refscore train: {s.net} {'-'.join(map(str, s.widths or ()))} with {size} parameters{told}, {run.model.sde}, "
        f"{s.objective}; {s.steps} steps of {s.batch} on {backend.name} ({backend.device()}), seed {s.seed}; "
        f"files in {out}/",
        f"noise at t = 1 and the prior: KL <= {prior_mismatch_bound(run.model.sde, run.data.x):.2g} nats",
    ]


def _walk(
    run: Run, start: TrainingState | None, rng: Any, backend: Backend, out: Path, executor: Executor | None,
    say: Callable[[str], None],
) -> TrainingState:  # fmt: skip
    """Walk through `fit`, writing as it goes; Ctrl-C ends it, and everything is kept."""
    s, steps = run.settings, run.settings.steps or 0
    done = 0 if start is None else start.step
    now: tuple[TrainingState | None, Any] = start, saved_run.snapshot(rng)  # one name: Ctrl-C does not come between
    metrics = Metrics(out / METRICS, done, _floor(run, backend))
    every, keep, draw = max(1, steps // 50), max(1, steps // 10), max(1, steps // 5)
    objective = run.objective if s.shards == 1 else Sharded(run.objective, s.shards, executor)
    training = fit(
        run.model, objective, run.training, run.optimizer, rng, steps=steps - done, batch=s.batch or 0, ema=run.ema,
        max_norm=100.0, start=start, unlabelled=s.unlabelled if run.model.classes else 0.0,
        compile=backend.compile,
    )  # fmt: skip
    total, drawn, began = 0.0, True, time.perf_counter()
    with progress(steps, say) as show:
        try:
            for now in ((state, saved_run.snapshot(rng)) for state in training):
                state = now[0]
                total = total + state.loss  # on the device: no waiting
                if state.step % every == 0 or state.step == steps:
                    n = state.step - metrics.last
                    seconds = time.perf_counter() - began
                    per_second = (state.step - done) * (s.batch or 0) / seconds
                    loss = _held_out_loss(run, average(run, state), backend)
                    metrics.add(state, float(total) / n, loss, per_second, seconds)
                    total = 0.0
                    show(state.step, metrics.words())
                if (state.step % keep == 0 or state.step == done + 1) and state.step < steps:
                    saved_run.write(out, run, *now, backend)
                if drawn and state.step % draw == 0:
                    drawn = picture(run.model, average(run, state), run.data, backend, out, state.step, say)
        except KeyboardInterrupt:
            if now[0] is None:
                raise
            say(f"interrupted after step {now[0].step}: saved; go on with refscore train --out {out} --resume")
        except DivergenceError as error:
            if error.last_good is not None:
                saved_run.write(out, run, error.last_good, None, backend)
            raise
        except Exception:  # out of memory, a device that fails: what was learned is kept
            if now[0] is not None and now[0].step > done:
                with suppress(Exception):  # the device may be gone
                    saved_run.write(out, run, *now, backend)
                    say(f"stopped after step {now[0].step}: saved; go on with refscore train --out {out} --resume")
            raise
    assert now[0] is not None
    saved_run.write(out, run, *now, backend)
    return now[0]


def average(run: Run, state: TrainingState) -> Array:
    """The averaged parameters, with which one samples."""
    assert state.average is not None
    return run.ema.mean(state.average)


def _held_out_loss(run: Run, theta: Array, backend: Backend) -> float:
    """The loss on samples that are not trained on, always with the same noise."""
    x, labels = run.held_out
    n = min(HELD_OUT, x.shape[0])
    if not n:
        return math.nan
    model = run.model if labels is None else run.model.told(labels[:n])
    return float(run.objective(model, theta, x[:n, ...], backend.rng(run.settings.seed + 1))[0])


def _floor(run: Run, backend: Backend) -> float | None:
    """The least loss that any model can have, where the law is a mixture and its samples are not labelled."""
    if not isinstance(run.data.law, GaussianMixture) or not isinstance(run.objective, Denoising):
        return None
    return float(denoising_floor(run.objective, run.data.law, run.model.sde, get("numpy").rng(0)).value)


class Metrics:
    """metrics.csv, written row by row: what a crash leaves can be read.

    Parameters
    ----------
    path : Path
        The file; rows of later steps, from before an interruption, are taken out.
    done : int
        Steps taken so far.
    floor : float or None
        What is taken off the loss for the column `excess`.
    """

    def __init__(self, path: Path, done: int, floor: float | None) -> None:
        self.path, self.last, self.floor = path, done, floor
        self.row: dict[str, float] = {}
        kept = []
        if done and path.exists():
            _, *lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.count(",") == len(COLUMNS) - 1 and int(line.split(",")[0]) <= done]
        save_text(path, "\n".join([",".join(COLUMNS), *kept]) + "\n")

    def add(self, state: TrainingState, loss: float, held_out: float, per_second: float, seconds: float) -> None:
        """Append a row; the loss is the mean since the last."""
        excess = math.nan if self.floor is None else loss - self.floor
        values = (state.step, loss, excess, held_out, float(state.grad_norm), per_second, seconds)
        self.row, self.last = dict(zip(COLUMNS, values, strict=True)), state.step
        with self.path.open("a", encoding="utf-8") as f:
            f.write(",".join("" if math.isnan(v) else f"{v:.7g}" for v in values) + "\n")
            f.flush()
            os.fsync(f.fileno())

    def words(self) -> str:
        """The last row in a few words."""
        said = f"loss {self.row['loss']:.4g}"
        if self.floor is not None:
            said = f"excess loss {self.row['excess']:.3g}"
        if not math.isnan(self.row["held_out"]):
            said += f", held out {self.row['held_out']:.4g}"
        return said
