"""The command line: `refscore demo`, `refscore evaluate`, `refscore reproduce` and `refscore info`."""

import argparse
import importlib.metadata
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

import refscore
from refscore.data import MIXTURES
from refscore.progress import Outlet
from refscore_backends import BACKENDS, BackendUnavailable, get, keep_memory

STATUS = (
    "exit status: 0 done (Ctrl-C and SIGTERM end the work early: what was learned or measured is kept), 2 refused or "
    "failed, with a message, 130 interrupted with nothing to keep"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 2 refused or failed with a message, 130 interrupted."""
    out: Any = Outlet(sys.stdout)
    err: Any = Outlet(sys.stderr)
    with redirect_stdout(out), redirect_stderr(err), _terminated_as_interrupted():
        status = _run(argv)
        out.flush()
        if out.failure is not None and not isinstance(out.failure, BrokenPipeError):  # a reader may leave
            print(f"refscore: cannot print: {getattr(out.failure, 'strerror', None) or out.failure}", file=err)
            status = status or 2
        err.flush()
    return status


def _run(argv: Sequence[str] | None) -> int:
    args = _parser().parse_args(argv)
    keep_memory()
    try:
        args.run(args)
    except (ValueError, ArithmeticError, OSError, BackendUnavailable) as error:
        print(f"refscore: {error}", file=sys.stderr)
        return 2
    except MemoryError as error:
        print(f"refscore: not enough memory: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("refscore: interrupted", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM and SIGHUP, where nobody handles them, do what Ctrl-C does: the work ends, and keeps what it has."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # others may not set handlers
        for number in {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
            if signal.getsignal(number) is signal.SIG_DFL:
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def blas_threads(asked: int | None) -> Iterator[str]:
    """Run with so many BLAS threads (None: one); yields what was chosen and why, as a line."""
    if asked is not None and asked < 1:
        raise ValueError(f"threads must be at least 1, got {asked}")
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield "BLAS threads: as many as BLAS takes; threadpoolctl, which could set them, is not installed"
        return
    why = "as asked" if asked else "more gain little on networks this small, and lose much on a busy machine: --threads"
    with threadpool_limits(asked or 1, user_api="blas"):
        yield f"BLAS threads: {asked or 1} ({why})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="refscore", description="Score-based generative models, a textbook that runs.", epilog=STATUS
    )
    parser.add_argument("--version", action="version", version=f"refscore {refscore.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")

    demo = commands.add_parser("demo", help="learn the score of a 2-D law and compare it with the exact one")
    demo.add_argument(
        "--data", default="tilted", metavar="NAME|FILE",
        help=f"{', '.join(MIXTURES)} (default: tilted), or 2-D points in a .npy, .npz or .csv file",
    )  # fmt: skip
    demo.add_argument("--steps", type=int, default=6000, help="training steps (default: 6000)")
    demo.add_argument("--seed", type=int, default=0, help="same seed, same machine: same numbers (default: 0)")
    demo.add_argument("--backend", default="numpy", choices=list(BACKENDS), help="array library (default: numpy)")
    demo.add_argument("--out", type=Path, default=Path("refscore-demo"), help="folder for numbers and pictures")
    demo.set_defaults(run=_demo)

    again = commands.add_parser("reproduce", help="hold published toy results against measurements")
    again.add_argument("name", nargs="?", metavar="NAME", help="what to reproduce; left out, a list of what there is")
    again.add_argument("--seeds", type=int, default=3, help="networks to train, each from its own seed (default: 3)")
    again.add_argument(
        "--steps",
        type=int,
        default=10_000,
        help="training steps of each, at least 600 (default: 10000, the paper's: a minute a seed)",
    )
    again.add_argument("--out", type=Path, default=Path("refscore-reproduce"), help="folder for numbers and pictures")
    again.set_defaults(run=_reproduce)

    measure = commands.add_parser("evaluate", help="the error of every sampler by its number of score evaluations")
    measure.add_argument(
        "--data", metavar="NAME",
        help=f"gaussian (default; its errors are exact) or {', '.join(MIXTURES)}; with --model, the model's own",
    )  # fmt: skip
    measure.add_argument("--samplers", nargs="+", metavar="NAME", help="default: all; an unknown name lists them")
    measure.add_argument("--evaluations", nargs="+", type=int, default=[8, 16, 32, 64, 128], metavar="N",
                         help="budgets of score evaluations (default: 8 16 32 64 128)")  # fmt: skip
    measure.add_argument("--sde", default="vp", help="vp (default), ve, subvp, cosine, linear ve, ou")
    measure.add_argument("--samples", type=int, default=20_000, help="for a mixture, whose errors are measured")
    measure.add_argument("--seed", type=int, default=0, help="same seed, same machine: same numbers (default: 0)")
    measure.add_argument("--model", type=Path, metavar="FOLDER", help="the learned score of a `refscore demo`")
    measure.add_argument("--out", type=Path, default=Path("refscore-evaluate"), help="folder for numbers and picture")
    measure.set_defaults(run=_evaluate)

    for command in (demo, again, measure):
        command.add_argument("--threads", type=int, metavar="N", help="BLAS threads (default: 1)")

    info = commands.add_parser("info", help="print versions, back ends, devices and BLAS")
    info.set_defaults(run=lambda args: print("\n".join(info_lines())))
    return parser


def _demo(args: Any) -> None:
    from refscore import demo

    with blas_threads(args.threads) as said:
        print(said)
        demo.run(args.data, get(args.backend), args.steps, args.seed, args.out)


def _evaluate(args: Any) -> None:
    from refscore import budget

    with blas_threads(args.threads) as said:
        print(said)
        budget.run(args.data, args.samplers, args.evaluations, args.sde, args.samples, args.seed, args.model, args.out)


def _reproduce(args: Any) -> None:
    from refscore import reproduce

    if args.name is None:
        print("\n".join(f"{name:20} {about}" for name, (about, _) in reproduce.PAPERS.items()))
        return
    with blas_threads(args.threads) as said:
        print(said)
        reproduce.run(args.name, args.out, args.seeds, args.steps)


def info_lines() -> list[str]:
    """What `refscore info` prints: the first thing to put into a bug report."""
    lines = [f"refscore {refscore.__version__}, Python {platform.python_version()} on {platform.platform()}"]
    for package in ("numpy", "scipy", "array-api-compat", "matplotlib", "tqdm"):
        try:
            lines.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            lines.append(f"{package}: not installed")
    for name in BACKENDS:
        try:
            lines.append(f"back end {name}: {get(name).device()}")
        except BackendUnavailable as error:
            lines.append(f"back end {name}: {error}")
    return [*lines, *blas_lines()]


def blas_lines() -> list[str]:
    """The BLAS NumPy was built with, and which core type it chose: that halves or doubles its speed."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    lines = [f"BLAS: {blas.get('name')} {blas.get('version')}"]
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return [*lines, "BLAS core type: unknown (install threadpoolctl)"]
    for pool in threadpool_info():
        if pool.get("user_api") == "blas":
            lines.append(f"BLAS core type: {pool.get('architecture')}, {pool['num_threads']} threads")
    return lines


if __name__ == "__main__":
    sys.exit(main())
