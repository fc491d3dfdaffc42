"""The only place where the array library is a choice.

>>> from refscore_backends import get
>>> backend = get("numpy")
>>> rng = backend.rng(seed=0)
>>> rng.standard_normal((3, 2), dtype="float32").shape
(3, 2)
"""

from collections.abc import Callable

from refscore_backends.base import Backend, BackendUnavailable, HostRng
from refscore_backends.boxmuller import BoxMuller
from refscore_backends.cupy import CupyBackend
from refscore_backends.jax import JaxBackend
from refscore_backends.numpy import NumpyBackend, keep_memory
from refscore_backends.strict import StrictBackend
from refscore_backends.torch import TorchBackend

__all__ = ["BACKENDS", "Backend", "BackendUnavailable", "BoxMuller", "HostRng", "get", "keep_memory"]

BACKENDS: dict[str, Callable[[], Backend]] = {
    "numpy": NumpyBackend,
    "cupy": CupyBackend,
    "torch": TorchBackend,
    "jax": JaxBackend,
    "strict": StrictBackend,
}


def get(name: str) -> Backend:
    """The back end of this name.

    Parameters
    ----------
    name : str
        "numpy", "cupy", "torch", "jax" or "strict".

    Returns
    -------
    Backend
        Ready to use; see `Backend` for its methods.

    Raises
    ------
    ValueError
        For a name that is not in `BACKENDS`.
    BackendUnavailable
        When its library, or its device, is missing.

    Examples
    --------
    >>> from refscore_backends import get
    >>> backend = get("numpy")
    >>> backend.asarray([1, 2], dtype="float32")
    array([1., 2.], dtype=float32)
    """
    if name not in BACKENDS:
        raise ValueError(f"no back end called {name!r}; there are {', '.join(BACKENDS)}")
    return BACKENDS[name]()
