"""array-api-strict: the GPU's stand-in in the tests.

`device1` refuses implicit host transfers and forgotten `device=`, `no_float64` refuses any
hidden float64. The arithmetic is NumPy's, so results can be compared to the last bit.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from refscore_backends.base import BackendUnavailable, HostRng, check_seed, dtype_name
from refscore_backends.recorded.compiled import Compiled
from refscore_backends.recorded.plain import build


class StrictBackend:
    """array-api-strict on one of its pretended devices.

    Parameters
    ----------
    device : str
        "CPU_DEVICE", "device1" (default) or "no_float64".

    Raises
    ------
    BackendUnavailable
        Without array-api-strict.
    """

    def __init__(self, device: str = "device1") -> None:
        try:
            import array_api_strict as xp
        except ImportError as error:
            raise BackendUnavailable(
                'array-api-strict is not installed: pip install -e ".[test]" in the checkout'
            ) from error
        self.name = f"strict-{device}"
        self.xp = xp
        self._device = xp.Device(device)

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Copy x (an array or numbers) to the pretended device, as `dtype` if that is given."""
        x = np.asarray(self.to_numpy(x), dtype=dtype)
        return self.xp.asarray(x, dtype=getattr(self.xp, dtype_name(x.dtype)), device=self._device)

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Copy x to a NumPy array, from any of the pretended devices."""
        return np.array(getattr(x, "_array", x))

    def rng(self, seed: int) -> HostRng:
        """Make a `HostRng`: NumPy's generator, whose numbers are moved to the pretended device."""
        return HostRng(np.random.default_rng(check_seed(seed)), self.asarray)

    def compile(self, function: Callable[..., Any]) -> Compiled:
        """Run the function as a recorded program, without kernels: what a compiler is given, where all is looked at."""
        return Compiled(function, lambda program: build(program, self.xp), lambda: self.rng(0))

    def synchronize(self) -> None:
        """Do nothing: the arithmetic is NumPy's, and has finished when it returns."""

    def device(self) -> str:
        """Return the name of the pretended device."""
        return str(self._device)
