"""A float32 score for the float64 samples of the exact laws."""

from dataclasses import dataclass
from typing import Any

from refscore_backends import Backend


@dataclass(frozen=True)
class Widened:
    """A score in float32 on a back end, for float64 samples in NumPy, with its derivative.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        With a method jvp, as `model.bind(theta)` has.
    backend : Backend
        Where it computes.
    """

    score: Any
    backend: Backend

    def __call__(self, x: Any, t: Any) -> Any:
        """x (B, ...) -> (B, ...)."""
        there = (self.backend.asarray(a, "float32") for a in (x, t))
        return self.backend.to_numpy(self.score(*there)).astype("float64")

    def jvp(self, x: Any, t: Any, v: Any) -> tuple[Any, Any]:
        """v (K, B, ...) -> s (B, ...) and ∇s v (K, B, ...)."""
        there = (self.backend.asarray(a, "float32") for a in (x, t, v))
        s, sdot = (self.backend.to_numpy(a).astype("float64") for a in self.score.jvp(*there))
        return s, sdot
