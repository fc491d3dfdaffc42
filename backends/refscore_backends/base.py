"""What refscore needs of an array library beyond the array API standard.

The standard leaves out random numbers, and says nothing of moving data to the host or of
waiting for a device. A `Backend` adds just these; the formulas never see it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

Array = Any


class BackendUnavailable(RuntimeError):
    """The back end cannot run here; the message says in one sentence what would help."""


class Backend(Protocol):
    """An array library as refscore uses it."""

    @property
    def name(self) -> str:
        """What --backend calls it."""

    @property
    def xp(self) -> Any:
        """The array namespace, for creating arrays and naming dtypes."""

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Copy x (an array of any library, or numbers) to this back end's device."""

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Copy x to the host; waits for it."""

    def rng(self, seed: int) -> Any:
        """A generator with standard_normal, random and integers, drawing on the device."""

    def synchronize(self) -> None:
        """Wait until the device has done all it was asked."""

    def device(self) -> str:
        """The device in words, for `refscore info`."""


@dataclass(frozen=True)
class HostRng:
    """NumPy's generator whose numbers are moved to a device.

    Equal seeds give different streams in NumPy and CuPy; with this wrapper two back ends see
    the same noise, at the price of a copy for each draw.
    """

    generator: np.random.Generator
    move: Callable[[Any], Array]

    def standard_normal(self, size: Any = None, dtype: Any = "float64") -> Array:
        """N(0, 1) numbers of the given shape."""
        return self.move(self.generator.standard_normal(size, dtype=dtype_name(dtype)))

    def random(self, size: Any = None, dtype: Any = "float64") -> Array:
        """Uniform numbers in [0, 1)."""
        return self.move(self.generator.random(size, dtype=dtype_name(dtype)))

    def integers(self, low: int, high: int, size: Any = None) -> Array:
        """Uniform integers in [low, high)."""
        return self.move(self.generator.integers(low, high, size))


def dtype_name(dtype: Any) -> Any:
    """'float32' for whatever a library calls it."""
    return str(dtype).rsplit(".", 1)[-1]


def check_seed(seed: Any) -> int:
    """An integer seed in [0, 2**64), or an error that says so."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in [0, 2**64), got {seed}")
    return int(seed)
