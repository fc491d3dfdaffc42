"""NumPy: the back end everybody has."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import array_api_compat.numpy as xp_numpy
import numpy as np

from refscore_backends.base import check_seed

M_TRIM_THRESHOLD = -1  # of glibc's malloc.h


@dataclass(frozen=True)
class NumpyBackend:
    """NumPy on the host. To make one asks malloc to keep freed memory: see `keep_memory`.

    Parameters
    ----------
    name : str
        "numpy", its name on the command line.
    xp : module
        The array namespace, array_api_compat.numpy.
    """

    name: str = "numpy"
    xp: Any = field(default=xp_numpy, repr=False)

    def __post_init__(self) -> None:
        keep_memory()

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Copy x (an array or numbers) to a NumPy array, as `dtype` if that is given."""
        return np.array(x, dtype=dtype)

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Return x as a NumPy array, without a copy where it is one."""
        return np.asarray(x)

    def rng(self, seed: int) -> np.random.Generator:
        """Make a numpy.random.Generator from a seed in [0, 2**64)."""
        return np.random.default_rng(check_seed(seed))

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function itself: NumPy's operations have nothing to be made into."""
        return function

    def synchronize(self) -> None:
        """Do nothing: NumPy has finished when it returns."""

    def device(self) -> str:
        """Return "CPU", the device of all NumPy arrays."""
        return "CPU"


def keep_memory() -> None:
    """Ask malloc to keep large freed blocks instead of handing them back to the system.

    NumPy allocates a temporary for every operation; glibc maps large ones afresh each time,
    and the page faults then cost more than the arithmetic. One block of 31 MiB, allocated
    and freed, raises glibc's thresholds for the rest of the process (its dynamic mmap
    threshold grows to the largest block freed, up to 32 MiB). Then glibc is asked not to give
    back the end of its heap below 1 GiB, in this order: asked first, it would fix the other
    threshold where it was. A training step of a U-Net takes a quarter less time. Harmless
    elsewhere. Called where a `NumpyBackend` is made and by the command line, never on import.
    """
    np.empty(31 << 20, dtype=np.uint8)
    with suppress(AttributeError, OSError, TypeError):  # where the C library is another
        ctypes.CDLL(None).mallopt(M_TRIM_THRESHOLD, 1 << 30)
