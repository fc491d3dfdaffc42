"""`refscore info`: versions, back ends, devices and BLAS: the first thing to put into a bug report."""

import argparse
import importlib.metadata
import platform

import numpy as np

import refscore
from refscore_backends import BACKENDS, BackendUnavailable, get

HELP = "print versions, back ends, devices and BLAS"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""
    parser.epilog = "example: refscore info"


def run(args: argparse.Namespace) -> None:
    """`refscore info`."""
    print("\n".join(info_lines()))


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
