"""Recorded noise, handed out again."""

from typing import Any


class ReplayRng:
    """Hands out recorded noise, in order; asking for another shape, or for more, is an error."""

    def __init__(self, *normals: Any) -> None:
        self.normals = list(normals)

    def standard_normal(self, size: Any = None, dtype: Any = None) -> Any:
        z = self.normals.pop(0)
        assert tuple(z.shape) == tuple(size), f"asked for {size}, recorded {z.shape}"
        return z
