"""What refscore needs of an array library beyond the array API standard.

The standard leaves out random numbers, moving data to the host, waiting for a device, and compiling. A `Backend` adds
just these; the formulas do not use it.
"""

import copy
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
        """Its name on the command line, the value of --backend."""

    @property
    def xp(self) -> Any:
        """The array namespace, for creating arrays and naming dtypes."""

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Copy x (an array of any library, or numbers) to this back end's device, as `dtype` if that is given."""

    def to_numpy(self, x: Array) -> np.ndarray[Any, Any]:
        """Copy x to the host, as a NumPy array; waits for the device."""

    def rng(self, seed: int) -> Any:
        """Make a generator (standard_normal, random, integers) on the device, from a seed in [0, 2**64)."""

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Make a function of arrays, numbers and generators faster: the same results, to rounding."""

    def synchronize(self) -> None:
        """Wait until the device has finished all its work."""

    def device(self) -> str:
        """Describe the device in words, for `refscore info`."""


@dataclass(frozen=True)
class HostRng:
    """NumPy's generator whose numbers are moved to a device.

    Equal seeds give different streams in NumPy and CuPy; with this wrapper two back ends use
    the same noise, at the price of a copy for each draw.

    Parameters
    ----------
    generator : numpy.random.Generator
        Draws the numbers, on the host.
    move : callable
        Copies a NumPy array to the device, e.g. `backend.asarray`.
    """

    generator: np.random.Generator
    move: Callable[[Any], Array]

    def standard_normal(self, size: Any = None, dtype: Any = "float64") -> Array:
        """Draw N(0, 1) numbers of shape `size`, in `dtype` (float32 or float64; default float64), and move them."""
        return self.move(self.generator.standard_normal(size, dtype=dtype_name(dtype)))

    def random(self, size: Any = None, dtype: Any = "float64") -> Array:
        """Draw uniform numbers in [0, 1) of shape `size`, in `dtype` (default float64), and move them."""
        return self.move(self.generator.random(size, dtype=dtype_name(dtype)))

    def integers(self, low: int, high: int, size: Any = None) -> Array:
        """Draw uniform integers in [low, high) of shape `size`, and move them."""
        return self.move(self.generator.integers(low, high, size))

    def __deepcopy__(self, memo: Any) -> "HostRng":
        """Copy the generator with its state; the device stays the same."""
        return HostRng(copy.deepcopy(self.generator, memo), self.move)

    def spawn(self, n: int) -> "list[HostRng]":
        """Make n independent generators of the same kind, as NumPy's `Generator.spawn` does."""
        return [HostRng(child, self.move) for child in self.generator.spawn(n)]


def host_noise(seed: Any, backend: Backend) -> Any:
    """Make NumPy's generator, with its numbers on a back end: the same numbers on each.

    Parameters
    ----------
    seed : int, sequence of int or numpy.random.Generator
        What `numpy.random.default_rng` takes.
    backend : Backend
        Where the numbers are wanted.

    Returns
    -------
    numpy.random.Generator or HostRng
        The generator itself on the NumPy back end, where nothing is moved.
    """
    rng = np.random.default_rng(seed)
    return rng if backend.name == "numpy" else HostRng(rng, backend.asarray)


def dtype_name(dtype: Any) -> Any:
    """The name of a dtype of any library.

    Parameters
    ----------
    dtype : dtype or str
        E.g. `cupy.float32`, `array_api_strict.float32` or "float32".

    Returns
    -------
    str
        E.g. "float32".
    """
    return str(getattr(dtype, "__name__", dtype)).rsplit(".", 1)[-1]  # NumPy's and JAX's may be classes


def shape_of(size: Any) -> tuple[int, ...]:
    """The shape that a `size` of NumPy's generators means.

    Parameters
    ----------
    size : int, sequence of int or None
        None is one number.

    Returns
    -------
    tuple of int
        The shape.
    """
    return () if size is None else (size,) if isinstance(size, int) else tuple(size)


def host_copy(x: Any, dtype: str | None = None) -> np.ndarray[Any, Any]:
    """Copy an array or numbers to a NumPy array in this machine's own order of bytes, the only one others read.

    Parameters
    ----------
    x : array or numbers
        What `numpy.array` takes.
    dtype : str, optional
        By default that of x.

    Returns
    -------
    numpy.ndarray
        The copy.
    """
    y = np.array(x, dtype=dtype)
    return y.astype(y.dtype.newbyteorder("="), copy=False)


def check_seed(seed: Any) -> int:
    """Convert a seed to a Python int.

    Parameters
    ----------
    seed : int
        An integer of Python's or NumPy's own, in [0, 2**64).

    Returns
    -------
    int
        The seed.

    Raises
    ------
    TypeError
        For what is not an integer.
    ValueError
        For an integer outside [0, 2**64).
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(f"seed must be an integer, got {seed!r}")
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed must lie in [0, 2**64), got {seed}")
    return int(seed)
