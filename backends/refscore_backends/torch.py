"""PyTorch: the same lines on its tensors, on the host or on a GPU; its automatic derivatives are not used."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from refscore_backends.base import BackendUnavailable, HostRng, check_seed, dtype_name, host_copy, shape_of
from refscore_backends.recorded.compiled import Compiled
from refscore_backends.recorded.plain import drawn, runner, settled
from refscore_backends.recorded.program import Program, Run

WORDS = slice(3, 3 + 624)  # in the state of a generator on the host, as uint64: those of the Mersenne Twister


class TorchBackend:
    """PyTorch on one device.

    Parameters
    ----------
    device : str, optional
        "cpu", "cuda", "cuda:1", "mps", ...; by default a GPU where there is one, else the host.
    host_noise : bool
        Draw noise with NumPy and move it, so that runs can be compared with the NumPy back
        end number by number. Default False.

    Raises
    ------
    BackendUnavailable
        Without PyTorch, or for a device that it does not find.
    """

    name = "torch"

    def __init__(self, device: str | None = None, host_noise: bool = False) -> None:
        try:
            import array_api_compat.torch as xp
            import torch
        except ImportError as error:
            raise BackendUnavailable(
                'PyTorch is not installed: pip install -e ".[torch]" in the checkout, or as pytorch.org says'
            ) from error
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        try:
            self._device = torch.empty(0, device=device).device  # with the number of the GPU
        except (RuntimeError, AssertionError) as error:
            raise BackendUnavailable(f"PyTorch is installed but finds no device {device!r} here") from error
        self.xp = xp
        self._torch = torch
        self._host_noise = host_noise

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        """Copy x (a tensor, a NumPy array or numbers) to the device, as `dtype` if that is given."""
        torch = self._torch
        if not isinstance(x, torch.Tensor):
            x = torch.from_numpy(host_copy(x, dtype))
        wanted = getattr(torch, dtype_name(x.dtype if dtype is None else dtype))
        if self._device.type == "mps" and wanted in (torch.float64, torch.complex128):
            raise TypeError("Apple's GPUs (mps) have no float64: use float32, or TorchBackend('cpu')")
        return torch.asarray(x.detach(), dtype=wanted, device=self._device, copy=True)

    def to_numpy(self, x: Any) -> np.ndarray[Any, Any]:
        """Return x as a NumPy array on the host, without a copy where it is there; waits for the device."""
        return np.asarray(x.numpy(force=True) if isinstance(x, self._torch.Tensor) else x)

    def rng(self, seed: int) -> Any:
        """Make a `TorchRng` on the device, or with host_noise NumPy's generator with a copy for each draw."""
        seed = check_seed(seed)
        if self._host_noise:
            return HostRng(np.random.default_rng(seed), self.asarray)
        return TorchRng(_seeded(seed, self._device))

    def compile(self, function: Callable[..., Any]) -> Compiled:
        """Record the function, and let torch.compile make kernels of the program; its draws are made before."""
        return Compiled(function, self._built, lambda: self.rng(0))

    def _built(self, program: Program) -> Run:
        torch = self._torch
        settled(program, self.xp)
        body = torch.compile(runner(program, _functions(program, self.xp)))
        wide = any(kind.dtype in (torch.float64, torch.complex128) for kind in program.tape.values.values())
        dtype = torch.float64 if wide else torch.float32

        def run(arrays: list[Any], numbers: dict[str, float], rngs: Sequence[Any]) -> list[Any]:
            # Tensors: of numbers of Python torch.compile would make a program for each value.
            kinds = {n: dtype if isinstance(numbers[n], float) else None for n in program.used}  # None: as it is
            given = {name: torch.tensor(numbers[name], dtype=kind) for name, kind in kinds.items()}
            return list(body(arrays, given, drawn(program, rngs)))

        return run

    def synchronize(self) -> None:
        """Wait until the device has finished its work."""
        if self._device.type != "cpu":
            getattr(self._torch, self._device.type).synchronize()

    def device(self) -> str:
        """Return the name of the device."""
        return str(self._torch.cuda.get_device_name(self._device)) if self._device.type == "cuda" else str(self._device)


@dataclass(frozen=True, eq=False)
class TorchRng:
    """A torch.Generator with the methods of NumPy's.

    Parameters
    ----------
    generator : torch.Generator
        Draws the numbers, on its device.
    """

    generator: Any

    def standard_normal(self, size: Any = None, dtype: Any = "float64") -> Any:
        """Draw N(0, 1) numbers of shape `size`, in `dtype` (float32 or float64; default float64)."""
        import torch

        return torch.randn(shape_of(size), dtype=getattr(torch, dtype_name(dtype)), **self._here())

    def random(self, size: Any = None, dtype: Any = "float64") -> Any:
        """Draw uniform numbers in [0, 1) of shape `size`, in `dtype` (default float64)."""
        import torch

        return torch.rand(shape_of(size), dtype=getattr(torch, dtype_name(dtype)), **self._here())

    def integers(self, low: int, high: int, size: Any = None) -> Any:
        """Draw uniform integers in [low, high) of shape `size`."""
        import torch

        return torch.randint(low, high, shape_of(size), **self._here())

    def spawn(self, n: int) -> "list[TorchRng]":
        """Make n generators from seeds that this one draws; waits for the device."""
        seeds = self.integers(-(2**63), 2**63 - 1, n).tolist()
        return [TorchRng(_seeded(seed % 2**64, self.generator.device)) for seed in seeds]

    def get_state(self) -> dict[str, str]:
        """Write down where the stream is; `set_state` of a generator on such a device goes on from there."""
        state = self.generator.get_state().numpy().tobytes()
        return {"bit_generator": f"torch-{self.generator.device.type}", "state": state.hex()}

    def set_state(self, state: dict[str, str]) -> None:
        """Go on from where `get_state` was called; RuntimeError or ValueError for what is no such state."""
        import torch

        self.generator.set_state(torch.frombuffer(bytearray.fromhex(state["state"]), dtype=torch.uint8))

    def _here(self) -> dict[str, Any]:
        return {"generator": self.generator, "device": self.generator.device}


def _functions(program: Program, xp: Any) -> Any:
    """The functions that a program calls; `full` takes a number that is a tensor."""
    used = {"asarray"} | {line.function.partition(".")[0] for line in program.tape.lines}
    found = SimpleNamespace(**{name: getattr(xp, name) for name in used if hasattr(xp, name)})

    def full(shape: Any, value: Any, dtype: Any = None, device: Any = None) -> Any:
        if not hasattr(value, "expand"):
            return xp.full(shape, value, dtype=dtype, device=device)
        return value.to(dtype=dtype, device=device).expand(shape)

    found.full = full
    return found


def _seeded(seed: int, device: Any) -> Any:
    """Make a torch.Generator of which all 64 bits of the seed count: on the host PyTorch itself takes 32 of them."""
    import torch

    generator = torch.Generator(device).manual_seed(seed)
    if device.type == "cpu":
        state = generator.get_state()
        state.numpy().view(np.uint64)[WORDS] = np.random.SeedSequence(seed).generate_state(624)
        generator.set_state(state)
    return generator
