"""Whose arrays: numbers of a patient's library on the host, and back."""

from importlib import import_module
from typing import Any

import numpy as np

from refscore.library import array_namespace, device

HostArray = np.ndarray[Any, Any]
LIBRARIES = ("numpy", "torch", "jax", "cupy")


def host(a: Any) -> Any:
    """Return numbers of any library as float64 in NumPy.

    Parameters
    ----------
    a : array or number
        Of NumPy, torch, JAX, CuPy.

    Returns
    -------
    numpy.ndarray
        The same numbers.
    """
    for leave in ("detach", "cpu", "get"):  # the graph of torch, and a device
        a = getattr(a, leave)() if hasattr(a, leave) and hasattr(a, "shape") else a
    return np.asarray(a, dtype="float64")


def place(a: Any, like: Any = None) -> Any:
    """Return numbers of NumPy as an array of the patient's library, dtype and device; integers stay integers.

    Parameters
    ----------
    a : numpy.ndarray
        The numbers.
    like : array, optional
        One of the patient's; NumPy's float64 by default.

    Returns
    -------
    array
        The same numbers.
    """
    if like is None or isinstance(like, np.ndarray):
        return a if like is None or a.dtype.kind == "i" else a.astype(like.dtype)
    xp = array_namespace(like)
    return xp.asarray(np.array(a), dtype=xp.int64 if a.dtype.kind == "i" else like.dtype, device=device(like))


def made(x: HostArray, library: str, where: Any) -> Any:
    """Return a copy of x in the library.

    Parameters
    ----------
    x : array
        On the host.
    library : str
        One of `LIBRARIES`.
    where : object
        Of torch.

    Returns
    -------
    array
        Of the library.
    """
    if library == "torch":
        return import_module("torch").tensor(x, device=where)
    if library == "jax":
        return import_module("jax").numpy.asarray(x)
    return import_module("cupy").asarray(x) if library == "cupy" else np.array(x)
