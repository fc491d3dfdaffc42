"""CuPy: the same lines on an NVIDIA (or AMD) GPU."""

from typing import Any

import numpy as np

from refscore_backends.base import BackendUnavailable, HostRng, check_seed
from refscore_backends.errors import in_words


class CupyBackend:
    """CuPy on the current CUDA device.

    Parameters
    ----------
    host_noise : bool
        Draw noise with NumPy and move it, so that runs can be compared with the NumPy back
        end number by number. Slower; default False.

    Raises
    ------
    BackendUnavailable
        Without CuPy, or without a device that CuPy can use.
    """

    name = "cupy"

    def __init__(self, host_noise: bool = False) -> None:
        try:
            import array_api_compat.cupy as xp
            import cupy
        except ModuleNotFoundError as error:
            raise BackendUnavailable(
                'CuPy is not installed: pip install -e ".[cuda12]" or ".[cuda13]" in the checkout, by your driver'
            ) from error
        except ImportError as error:
            raise BackendUnavailable(f"CuPy is installed but cannot be loaded: {_first(error)}") from error
        if not cupy.is_available():
            raise BackendUnavailable(f"CuPy is installed but finds no usable GPU: {_why_not(cupy)}")
        self.xp = xp
        self._cupy = cupy
        self._host_noise = host_noise

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Copy x (an array or numbers) to the current device, as `dtype` if that is given."""
        return self._cupy.array(x, dtype=dtype)

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Copy x to the host, as a NumPy array; waits for the device."""
        return np.asarray(self._cupy.asnumpy(x))

    def rng(self, seed: int) -> Any:
        """Make a cupy.random.Generator, or with host_noise NumPy's generator with a copy for each draw."""
        seed = check_seed(seed)
        if self._host_noise:
            return HostRng(np.random.default_rng(seed), self.asarray)
        return self._cupy.random.default_rng(seed)

    def synchronize(self) -> None:
        """Wait until the current stream has finished its work."""
        self._cupy.cuda.get_current_stream().synchronize()

    def device(self) -> str:
        """Return the name of the current device."""
        number = self._cupy.cuda.runtime.getDevice()
        return str(self._cupy.cuda.runtime.getDeviceProperties(number)["name"].decode())


def _why_not(cupy: Any) -> str:
    try:
        cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        return in_words(error) or "check the driver (nvidia-smi)"
    return "check the driver (nvidia-smi)"


def _first(error: ImportError) -> str:
    """The first line with words: CuPy draws a frame around its explanation."""
    return next((line.strip() for line in str(error).splitlines() if line.strip(" =")), "no reason is given")
