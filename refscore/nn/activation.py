"""Smooth activations: y = φ(x), elementwise, with φ' and φ'' by hand.

    backward  φ' dy        jvp  φ' ẋ        jvp_backward  dx = φ' dy + φ'' Σ_k ẋ_k dẏ_k,   dẋ = φ' dẏ

Smooth ones only: with ReLU φ'' vanishes almost everywhere, and a mistake in the second-order
passes would go unseen.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import array_namespace

from refscore.arrays import Array, Params, Rng, real
from refscore.nn.layer import Adjoints, Grads, plus


class Activation(ABC):
    """The four passes of any elementwise φ. A subclass says what φ, φ' and φ'' are."""

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    @abstractmethod
    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x -> φ(x), and the cache."""

    @abstractmethod
    def slope(self, cache: Any) -> Array:
        """φ'(x), a new array."""

    @abstractmethod
    def curvature(self, cache: Any) -> Array:
        """φ''(x), a new array."""

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Nothing to learn."""
        return {}

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """dx = φ' dy."""
        dx = self.slope(cache)
        dx *= dy
        return (dx,), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """ẏ = φ' ẋ; the tape: φ' and ẋ."""
        (xdot,) = xdots
        u = self.slope(cache)
        return (None if xdot is None else u * xdot), (u, xdot)

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """dx = φ' dy + φ'' Σ_k ẋ_k dẏ_k, dẋ = φ' dẏ."""
        u, xdot = tape
        dx = self.curvature(cache)
        dx *= array_namespace(dydot).sum(xdot * dydot, axis=0)
        return (plus(dx, None if dy is None else u * dy),), (u * dydot,), {}


@dataclass(frozen=True)
class SiLU(Activation):
    """φ(x) = x s, s = 1/(1 + e⁻ˣ) = ½ (1 + tanh ½x): that form cannot overflow.   Elfwing et al. 2018.

    φ' = s + y (1 - s),   φ'' = s (1 - s) (2 + x - 2 y)
    """

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x -> x s; the cache: x, s, y."""
        (x,) = xs
        s = array_namespace(x).tanh(0.5 * x)
        s *= 0.5
        s += 0.5
        y = x * s
        return y, (x, s, y)

    def slope(self, cache: Any) -> Array:
        """s + y (1 - s)."""
        _, s, y = cache
        u = 1 - s
        u *= y
        u += s
        return u

    def curvature(self, cache: Any) -> Array:
        """s (1 - s) (2 + x - 2 y)."""
        x, s, y = cache
        return s * (1 - s) * (2 + x - 2 * y)


@dataclass(frozen=True)
class Tanh(Activation):
    """φ(x) = tanh x,   φ' = 1 - y²,   φ'' = -2 y (1 - y²)."""

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x -> tanh x; the cache: y."""
        (x,) = xs
        y = array_namespace(x).tanh(x)
        return y, y

    def slope(self, cache: Any) -> Array:
        """1 - y²."""
        return 1 - cache * cache

    def curvature(self, cache: Any) -> Array:
        """-2 y (1 - y²)."""
        return -2 * cache * (1 - cache * cache)


@dataclass(frozen=True)
class Softplus(Activation):
    """φ(x) = log(1 + eˣ),   φ' = s,   φ'' = s (1 - s),   s = 1/(1 + e⁻ˣ)."""

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x -> max(x, 0) + log(1 + e^-|x|), which neither overflows nor loses the tail; cache: s."""
        (x,) = xs
        xp = array_namespace(x)
        positive = xp.astype(real(x) > 0, real(x).dtype)
        y = positive * x + xp.log1p(xp.exp((1 - 2 * positive) * x))
        return y, 0.5 * xp.tanh(0.5 * x) + 0.5

    def slope(self, cache: Any) -> Array:
        """s, as a new array."""
        return 1 * cache

    def curvature(self, cache: Any) -> Array:
        """s (1 - s)."""
        return cache * (1 - cache)
