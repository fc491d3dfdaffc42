"""A device whose arrays refuse to become anything on the host: whoever waits for it is found out."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import array_api_strict
import pytest

from refscore.sampling import loop as simulation
from refscore_backends.strict import StrictBackend

BACKEND = StrictBackend("device1")
ARRAY = type(BACKEND.asarray(0.0))
WAYS_OUT = (
    "__bool__", "__float__", "__int__", "__index__", "__complex__", "__iter__", "__array__", "__buffer__",
    "__dlpack__", "to_device", "__repr__", "__str__",
)  # fmt: skip


class Waited(AssertionError):
    pass


@contextmanager
def nobody_waits(at_the_end: bool = False) -> Iterator[None]:
    """Inside, an array of the device cannot become anything else; the look of `simulate` at its end may be let pass."""

    def forbid(name: str) -> Callable[..., Any]:
        def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
            raise Waited(f"{name} makes the device wait")

        return refuse

    to_numpy = StrictBackend.to_numpy

    def numbers_only(self: Any, x: Any) -> Any:
        if isinstance(x, ARRAY):
            raise Waited("to_numpy makes the device wait")
        return to_numpy(self, x)  # the noise of HostRng, on its way to the device

    with pytest.MonkeyPatch.context() as patch:
        for name in WAYS_OUT:
            patch.setattr(ARRAY, name, forbid(name))
        patch.setattr(StrictBackend, "to_numpy", numbers_only)
        if not at_the_end:
            patch.setattr(simulation, "_warn", lambda x: None)
        for name in ("nonzero", "unique_values", "unique_all"):  # whose shapes depend on values
            patch.setattr(array_api_strict, name, forbid(name))
        yield
