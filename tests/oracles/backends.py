"""The back ends that the tests run on."""

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from refscore_backends import BACKENDS, Backend, BackendUnavailable, HostRng
from refscore_backends.cupy import CupyBackend
from refscore_backends.numpy import NumpyBackend
from refscore_backends.strict import StrictBackend


class TestBackend(Backend, Protocol):
    __test__: bool = False


class ReadOnlyNumpy(NumpyBackend):
    """NumPy whose arrays refuse to be written into: whoever writes into an argument is found out."""

    def __init__(self) -> None:
        super().__init__(name="numpy-read-only")

    def asarray(self, x: Any, dtype: str | None = None) -> Any:
        y = np.array(x, dtype=dtype)
        y.flags.writeable = False
        return y

    def rng(self, seed: int) -> HostRng:  # type: ignore[override]
        return HostRng(np.random.default_rng(seed), self.asarray)


def _present() -> list[Any]:
    backends: list[Any] = [NumpyBackend(), ReadOnlyNumpy(), StrictBackend("device1")]
    with contextlib.suppress(BackendUnavailable):
        backends.append(CupyBackend(host_noise=True))
    return backends


LAW_BACKENDS = _present()
NARROW_BACKENDS: list[Any] = [StrictBackend("no_float64")]
FRAMEWORKS: list[Any] = []  # with random numbers of their own, where `pytest --backends` names them


def choose(names: Sequence[str]) -> None:
    """Let the laws run on these alone, with NumPy's random numbers on each."""
    own = [BACKENDS[name]() for name in names]
    LAW_BACKENDS[:] = [type(b)(host_noise=True) if b.name in ("cupy", "torch", "jax") else b for b in own]  # type: ignore[call-arg]
    NARROW_BACKENDS.clear()
    FRAMEWORKS[:] = [b for b in own if b.name in ("torch", "jax")]
