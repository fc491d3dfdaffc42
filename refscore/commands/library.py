"""--backend and --compile: which array library, and whether its compiler is used."""

import argparse
from collections.abc import Callable

from refscore_backends import BACKENDS, Backend, get


def add_backend(parser: argparse.ArgumentParser, default: str | None = "numpy", compiles: bool = True) -> None:
    """Add --backend and --compile.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of a command.
    default : str or None, default 'numpy'
        What is taken where --backend is not given; None leaves that to the command.
    compiles : bool, default True
        Whether the command compiles: without it there is no --compile.
    """
    parser.add_argument("--backend", default=default, choices=list(BACKENDS), help="array library (default: numpy)")
    if not compiles:
        return
    parser.add_argument(
        "--compile", action="store_true", help="compile steps: kernels on cupy, torch.compile, jax.jit; numpy: nothing"
    )


def chosen(name: str, compiles: bool, say: Callable[[str], None] = print) -> Backend:
    """The back end of a name; what its `compile` has compiled says how long its first call took.

    Parameters
    ----------
    name : str
        Of the back end.
    compiles : bool
        Whether its `compile` compiles; if not it answers with the function itself.
    say : callable, default print
        Takes a line.

    Returns
    -------
    Backend
        Ready to use.

    Raises
    ------
    BackendUnavailable
        When its library, or its device, is missing.
    """
    backend = get(name)
    compile = backend.compile

    def told(function: Callable[..., object]) -> Callable[..., object]:
        made = compile(function)
        if made is not function:
            setattr(made, "say", say)  # noqa: B010 (a protocol does not know of it)
        return made

    object.__setattr__(backend, "compile", told if compiles else _itself)  # NumPy's is frozen
    return backend


def _itself(function: Callable[..., object]) -> Callable[..., object]:
    return function
