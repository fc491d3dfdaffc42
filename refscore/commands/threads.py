"""How many BLAS threads a command runs on."""

import argparse
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from refscore.checks import check_count


@contextmanager
def blas_threads(asked: int | None) -> Iterator[str]:
    """Run with so many BLAS threads (None: one); yields what was chosen and why, as a line."""
    if asked is not None:
        check_count("threads", asked)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        yield "BLAS threads: as many as BLAS takes; threadpoolctl, which could set them, is not installed"
        return
    n = str(asked or 1)
    why = "as asked" if asked else "more gain little on networks this small, and lose much on a busy machine: --threads"
    with threadpool_limits(asked or 1, user_api="blas"), _environment(OMP_NUM_THREADS=n, NPROC=n):
        yield f"BLAS threads: {n} ({why})"


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Libraries that are loaded inside, PyTorch and JAX, take their number of threads from the environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads."""
    parser.add_argument("--threads", type=int, metavar="N", help="BLAS threads (default: 1)")


@contextmanager
def deaf() -> Iterator[None]:
    """Ignore Ctrl-C for a moment, and in processes that are started in it for good."""
    if threading.current_thread() is not threading.main_thread():  # others may not set handlers
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def one_blas_thread() -> None:
    """Give this process one BLAS thread: it is one of several that share the processors; Ctrl-C is for their parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(ImportError):
        from threadpoolctl import threadpool_limits

        threadpool_limits(1, user_api="blas")
