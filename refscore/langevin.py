"""Langevin dynamics: sample from a density knowing only its score. Chapter 2."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, sqrt

from refscore.arrays import Array, Rng, Score, at


@dataclass(frozen=True)
class Langevin:
    """One step of unadjusted Langevin dynamics, x + ε s(x, t) + √(2ε) z, z ~ N(0, I).

    A kernel: time does not move. Parisi 1981; many papers write ε/2 and √ε, which is the same
    chain with a step named twice as large.

    Its law tends to p_t up to a bias of order ε: on N(0, σ²) the stationary variance is
    σ²/(1 - ε/(2σ²)), and beyond ε = 2σ² the chain diverges.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
    step : float, or callable t -> float
        ε, in squared data units. It may depend on t alone: a step that looks at x changes the law.

    Raises
    ------
    ValueError
        For a float step that is not positive.
    """

    score: Score
    step: float | Callable[[float], float]

    def __post_init__(self) -> None:
        if not callable(self.step) and not (isfinite(self.step) and self.step > 0):
            raise ValueError(f"step must be positive and finite, got {self.step}")

    def __call__(self, x: Array, t: float, rng: Rng) -> Array:
        """x (B, ...) -> x (B, ...)."""
        eps = self.step(t) if callable(self.step) else self.step
        z = rng.standard_normal(x.shape, dtype=x.dtype)
        return x + eps * self.score(x, at(t, x)) + sqrt(2 * eps) * z
