"""Fourier: what a network is told of the noise level."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace, device

from refscore.checks import settle
from refscore.nn.layer import Adjoints, Grads
from refscore.protocols import Array, Params, Rng


@dataclass(frozen=True)
class Fourier:
    """Sines and cosines of the noise level ℓ: e = √2 [sin ω_j ℓ, cos ω_j ℓ], ω_j geometric.

    ℓ (B,) or (1,) -> e (B or 1, n). ℓ = log σ/α runs over ten units or so, from data to noise;
    frequencies between 0.1 and 4 tell apart levels a tenth apart and do not mistake one end for the other.
    The √2 gives each pair of sine and cosine the mean square 1. There are no parameters, and the level is the
    same for every network, so neither tangent nor adjoint is sent further down.

    Raises
    ------
    ValueError
        Unless n is even and positive, and 0 < low < high.
    """

    n: int
    low: float = 0.1
    high: float = 4.0
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    def __post_init__(self) -> None:
        settle(self, n=2)
        if self.n % 2:
            raise ValueError(f"the number of features must be even, got {self.n}")
        if not 0 < self.low < self.high:
            raise ValueError(f"need 0 < low < high, got {self.low}, {self.high}")

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Nothing to learn."""
        return {}

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """ℓ (B,) -> e (B, n)."""
        (level,) = xs
        xp = array_namespace(level)
        exponents = xp.linspace(
            math.log(self.low), math.log(self.high), self.n // 2, dtype=level.dtype, device=device(level)
        )
        phase = level[:, None] * xp.exp(exponents)
        return math.sqrt(2) * xp.concat([xp.sin(phase), xp.cos(phase)], axis=1), None

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Nothing is sent back to the level."""
        return (None,), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """The level carries no tangent."""
        return None, None

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Nothing is sent back to the level."""
        return (None,), (None,), {}
