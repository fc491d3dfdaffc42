"""The only place where NumPy or CuPy is a choice.

>>> backend = get("numpy")
>>> rng = backend.rng(seed=0)
>>> rng.standard_normal((3, 2), dtype="float32").shape
(3, 2)
"""

from collections.abc import Callable

from refscore_backends.base import Backend, BackendUnavailable, HostRng
from refscore_backends.cupy import CupyBackend
from refscore_backends.numpy import NumpyBackend, keep_memory
from refscore_backends.strict import StrictBackend

__all__ = ["BACKENDS", "Backend", "BackendUnavailable", "HostRng", "get", "keep_memory"]

BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": NumpyBackend,
    "cupy": CupyBackend,
    "strict": StrictBackend,
}


def get(name: str) -> Backend:
    """The back end of this name.

    Raises
    ------
    ValueError
        For a name that is not in `BACKENDS`.
    BackendUnavailable
        When its library, or its device, is not there.
    """
    if name not in BACKENDS:
        raise ValueError(f"no back end called {name!r}; there are {', '.join(BACKENDS)}")
    return BACKENDS[name]()
