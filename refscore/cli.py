"""The command line: `refscore demo`, `refscore evaluate`, `refscore reproduce` and `refscore info`."""

import argparse
import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import refscore
from refscore.data import MIXTURES
from refscore_backends import BACKENDS, BackendUnavailable, get, keep_memory


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 2 refused or failed with a message, 130 interrupted."""
    args = _parser().parse_args(argv)
    keep_memory()
    try:
        args.run(args)
    except (ValueError, ArithmeticError, OSError, BackendUnavailable) as error:
        print(f"refscore: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("refscore: interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="refscore", description="Score-based generative models, a textbook that runs."
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

    info = commands.add_parser("info", help="print versions, back ends, devices and BLAS")
    info.set_defaults(run=lambda args: print("\n".join(info_lines())))
    return parser


def _demo(args: Any) -> None:
    from refscore import demo

    demo.run(args.data, get(args.backend), args.steps, args.seed, args.out)


def _evaluate(args: Any) -> None:
    from refscore import budget

    budget.run(args.data, args.samplers, args.evaluations, args.sde, args.samples, args.seed, args.model, args.out)


def _reproduce(args: Any) -> None:
    from refscore import reproduce

    if args.name is None:
        print("\n".join(f"{name:20} {about}" for name, (about, _) in reproduce.PAPERS.items()))
    else:
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
