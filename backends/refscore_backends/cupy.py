"""CuPy: the same lines on an NVIDIA (or AMD) GPU."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refscore_backends.base import BackendUnavailable, HostRng, check_seed
from refscore_backends.errors import in_words
from refscore_backends.recorded.compiled import Compiled
from refscore_backends.recorded.cuda import Source
from refscore_backends.recorded.launch import built
from refscore_backends.recorded.plain import settled
from refscore_backends.recorded.program import Program, Run


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

    def compile(self, function: Callable[..., Any]) -> Compiled:
        """Record the function, and run it as few kernels: see `refscore_backends.recorded.plan`."""
        return Compiled(function, self._built, lambda: self.rng(0))

    def _built(self, program: Program) -> Run:
        settled(program, self.xp)
        return built(program, self.xp, self._launcher, self._dense, self._lay)

    def _dense(self, array: Any) -> Any:
        return array if array.flags.c_contiguous else self._cupy.ascontiguousarray(array)

    def _lay(self, array: Any, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        return self._cupy.ndarray(shape, array.dtype, array.data + offset, strides)

    def _launcher(self, kernel: Source) -> Callable[..., Any]:
        # `kernel` is compiled here, and a launch of it costs the host less than one of the RawKernel.
        run = self._cupy.RawKernel(kernel.text, kernel.name).kernel
        outs = [(shape, self._cupy.dtype(dtype)) for shape, dtype in kernel.outs]
        grid, block, ndarray = kernel.grid, kernel.block, self._cupy.ndarray

        def launch(*given: Any) -> Any:
            made = [ndarray(shape, dtype) for shape, dtype in outs]
            run(grid, block, (*given, *made))
            return made if len(made) > 1 else made[0]

        return launch

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
