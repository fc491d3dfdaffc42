"""NumPy: the back end everybody has."""

from dataclasses import dataclass
from typing import Any

import array_api_compat.numpy as xp_numpy
import numpy as np

from refscore_backends.base import check_seed


@dataclass(frozen=True)
class NumpyBackend:
    """NumPy on the host."""

    name: str = "numpy"
    xp: Any = xp_numpy

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Copy x to a NumPy array."""
        return np.array(x, dtype=dtype)

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Return x as it is: it lives here."""
        return np.asarray(x)

    def rng(self, seed: int) -> np.random.Generator:
        """numpy.random.Generator itself."""
        return np.random.default_rng(check_seed(seed))

    def synchronize(self) -> None:
        """Nothing to wait for."""

    def device(self) -> str:
        """The host."""
        return "CPU"


def keep_memory() -> None:
    """Ask malloc to keep large freed blocks instead of handing them back to the system.

    NumPy allocates a temporary for every operation; glibc maps large ones afresh each time,
    and the page faults then cost more than the arithmetic. One block of 31 MiB, allocated
    and freed, raises glibc's thresholds for the rest of the process (its dynamic mmap
    threshold grows to the largest block freed, up to 32 MiB). Harmless elsewhere. Called by
    the command line and the benchmarks, never on import.
    """
    np.empty(31 << 20, dtype=np.uint8)
