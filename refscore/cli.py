"""The command line: one command a file of `refscore.commands`."""

import argparse
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import refscore
from refscore.commands import check, demo, evaluate, info, reproduce, sample, samplers, train
from refscore.commands.progress import Outlet
from refscore_backends import BackendUnavailable, keep_memory
from refscore_backends.errors import in_words

COMMANDS = {
    "demo": demo, "train": train, "sample": sample, "evaluate": evaluate, "samplers": samplers, "reproduce": reproduce,
    "check": check, "info": info,
}  # fmt: skip
SMALLER = ("batch", "n", "samples", "points", "widths")  # flags by which a command takes less memory
STATUS = (
    "exit status: 0 done (Ctrl-C and SIGTERM end the work early: what was learned or measured is kept), 2 refused or "
    "failed, with a message, 130 interrupted before there was a result (`reproduce` goes on where it stopped); "
    "`check` has its own"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0 done, 2 refused or failed (in words), 130 interrupted, or its own."""
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
    argv = sys.argv[1:] if argv is None else argv
    args = _parser().parse_args(argv)
    keep_memory()
    try:
        status: int | None = args.run(args)  # of a command that has an answer: refscore check
    except (ValueError, ArithmeticError, OSError, BackendUnavailable) as error:
        print(f"refscore: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("refscore: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if (said := in_words(error)) is None:
            raise
        flags = [f"--{name}" for name in SMALLER if hasattr(args, name) and said.startswith("not enough memory")]
        print(f"refscore: {said}{'; give a smaller ' * bool(flags)}{' or '.join(flags)}", file=sys.stderr)
        return 2
    return status or 0


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="refscore", description="Score-based generative models, a textbook that runs.", epilog=STATUS
    )
    parser.add_argument("--version", action="version", version=f"refscore {refscore.__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, command in COMMANDS.items():
        own = commands.add_parser(name, help=command.HELP)
        command.add_arguments(own)
        own.set_defaults(run=command.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
