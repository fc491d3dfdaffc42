"""Recorded numbers, handed out again."""

from collections.abc import Iterable
from typing import Any


class ReplayRng:
    """Hands out recorded noise and uniform numbers, in order; asking for another shape, or for more, is an error."""

    def __init__(self, *normals: Any, uniforms: Iterable[Any] = ()) -> None:
        self.normals, self.uniforms = list(normals), list(uniforms)

    def standard_normal(self, size: Any = None, dtype: Any = None) -> Any:
        return self._next(self.normals, size)

    def random(self, size: Any = None, dtype: Any = None) -> Any:
        return self._next(self.uniforms, size)

    def integers(self, low: int, high: int, size: Any = None) -> Any:
        raise AssertionError("integers were asked for; none are recorded")

    @staticmethod
    def _next(recorded: list[Any], size: Any) -> Any:
        numbers = recorded.pop(0)
        assert tuple(numbers.shape) == tuple(size), f"asked for {size}, recorded {numbers.shape}"
        return numbers
