"""Smooth activations: y = φ(x), elementwise, with three derivatives by hand. Eqs. (14.28), (14.29), (14.9).

    backward       dx = φ' dy
    jvp            ẏ = φ' ẋ
    jvp_backward   dx = φ' dy + φ'' Σ_k ẋ_k dẏ_k,   dẋ = φ' dẏ
    jet            y_u = φ' u,   y_v = φ' v,   y_w = φ'' u v + φ' w
    jet_backward   dx = φ' dy + φ'' Σ_k (u dy_u + v dy_v + w dy_w) + φ''' Σ_k u v dy_w,
                   du = φ' dy_u + φ'' v dy_w,   dv = φ' dy_v + φ'' u dy_w,   dw = φ' dy_w

Smooth ones only: with ReLU φ'' vanishes almost everywhere, and a mistake in the second-order
passes would go unseen.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from refscore.arrays import real
from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads, Jet, Layer, plus, times
from refscore.protocols import Array, HasTangents, Params, Rng


class Activation(ABC):
    """The passes of any elementwise activation φ, written once; a subclass gives φ and its three derivatives.

    An activation has no parameters: `params` is an empty dict in every method, and so are the gradients. The
    arguments of the passes are explained in `refscore.nn.layer.Layer`.
    """

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    @abstractmethod
    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """Evaluate φ: x (..., n) -> φ(x) (..., n), and the cache from which the derivatives are computed."""

    @abstractmethod
    def slope(self, cache: Any) -> Array:
        """Compute φ'(x) from the cache, as a new array of the shape of x, which the caller may change."""

    @abstractmethod
    def curvature(self, cache: Any) -> Array:
        """Compute φ''(x) from the cache, as a new array of the shape of x, which the caller may change."""

    @abstractmethod
    def third(self, cache: Any) -> Array:
        """Compute φ'''(x) from the cache, as a new array of the shape of x."""

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Return an empty dict: an activation has no parameters."""
        return {}

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoint of the input, dx = φ' dy, of the shape of x, and no gradients."""
        dx = self.slope(cache)
        dx *= dy
        return (dx,), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ẏ = φ' ẋ (K, ..., n); the tape keeps φ' and ẋ."""
        (xdot,) = xdots
        u = self.slope(cache)
        return (None if xdot is None else u * xdot), (u, xdot)

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of the input and of its tangents: dx = φ' dy + φ'' Σ_k ẋ_k dẏ_k, dẋ = φ' dẏ."""
        u, xdot = tape
        dx = self.curvature(cache)
        dx *= array_namespace(dydot).sum(xdot * dydot, axis=0)
        return (plus(dx, times(u, dy)),), (u * dydot,), {}

    def jet(self, params: Params, cache: Any, us: Adjoints, vs: Adjoints, ws: Adjoints) -> tuple[Jet, Any]:
        """Second-order tangents: φ' u, φ' v, φ'' u v + φ' w; the tape keeps u, v, w                     Eq. (14.28)."""
        (u,), (v,), (w,) = us, vs, ws
        slope = self.slope(cache)
        bent = times(self.curvature(cache), times(u, v))
        return (times(slope, u), times(slope, v), plus(bent, times(slope, w))), (u, v, w)

    def jet_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, djet: Jet
    ) -> tuple[Adjoints, tuple[Adjoints, Adjoints, Adjoints], Grads]:
        """Adjoints of the input and of u, v, w, by the formulas at the top of this file                 Eq. (14.28)."""
        (u, v, w), (dyu, dyv, dyw) = tape, djet
        first, second = self.slope(cache), self.curvature(cache)
        dx = times(first, dy)
        bent = plus(plus(times(u, dyu), times(v, dyv)), times(w, dyw))
        for derivative, terms in ((second, bent), (self.third(cache), times(times(u, v), dyw))):
            if terms is not None:
                dx = plus(dx, derivative * array_namespace(terms).sum(terms, axis=0))
        du = plus(times(first, dyu), times(second, times(v, dyw)))
        dv = plus(times(first, dyv), times(second, times(u, dyw)))
        return (dx,), ((du,), (dv,), (times(first, dyw),)), {}


def chosen(activation: Layer | None) -> Layer:
    """Take the activation that a user gave, SiLU() if none.

    Parameters
    ----------
    activation : Layer or None
        What was given.

    Returns
    -------
    Layer
        The activation.

    Raises
    ------
    TypeError
        For what is not a layer, such as a name or a class.
    """
    if activation is not None and (isinstance(activation, type) or not isinstance(activation, HasTangents)):
        raise TypeError(f"activation must be a layer, SiLU(), GELU(), ELU(), Tanh() or Softplus(); got {activation!r}")
    return activation or SiLU()


@dataclass(frozen=True)
class SiLU(Activation):
    """φ(x) = x s, s = 1/(1 + e⁻ˣ) = ½ (1 + tanh ½x): that form cannot overflow.   Elfwing et al. 2018.

    φ' = s + y (1 - s),   φ'' = q (2 + x - 2 y),   φ''' = q (3 (1 - 2 s) + x (1 - 6 q)),   q = s (1 - s)    Eq. (14.10).
    """

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (..., n) -> x s (..., n); the cache keeps x, s and y."""
        (x,) = xs
        s = array_namespace(x).tanh(0.5 * x)
        s *= 0.5
        s += 0.5
        y = x * s
        return y, (x, s, y)

    def slope(self, cache: Any) -> Array:
        """φ' = s + y (1 - s), from the cache."""
        _, s, y = cache
        u = 1 - s
        u *= y
        u += s
        return u

    def curvature(self, cache: Any) -> Array:
        """φ'' = s (1 - s) (2 + x - 2 y), from the cache."""
        x, s, y = cache
        return s * (1 - s) * (2 + x - 2 * y)

    def third(self, cache: Any) -> Array:
        """φ''' = q (3 (1 - 2 s) + x (1 - 6 q)), from the cache                                          Eq. (14.29)."""
        x, s, _ = cache
        q = s * (1 - s)
        return q * (3 * (1 - 2 * s) + x * (1 - 6 * q))


@dataclass(frozen=True)
class Tanh(Activation):
    """Hyperbolic tangent, y = φ(x) = tanh x,   φ' = 1 - y²,   φ'' = -2 y (1 - y²),   φ''' = (1 - y²) (6 y² - 2)."""

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (..., n) -> tanh x (..., n); the cache keeps y."""
        (x,) = xs
        y = array_namespace(x).tanh(x)
        return y, y

    def slope(self, cache: Any) -> Array:
        """φ' = 1 - y², from the cache."""
        return 1 - cache * cache

    def curvature(self, cache: Any) -> Array:
        """φ'' = -2 y (1 - y²), from the cache."""
        return -2 * cache * (1 - cache * cache)

    def third(self, cache: Any) -> Array:
        """φ''' = (1 - y²) (6 y² - 2), from the cache                                                    Eq. (14.29)."""
        square = cache * cache
        return (1 - square) * (6 * square - 2)


@dataclass(frozen=True)
class Softplus(Activation):
    """A smooth ramp, φ(x) = log(1 + eˣ).

    φ' = s,   φ'' = s (1 - s),   φ''' = s (1 - s) (1 - 2 s),   s = 1/(1 + e⁻ˣ)
    """

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x -> max(x, 0) + log(1 + e^-|x|), which neither overflows nor loses the tail; the cache keeps s."""
        (x,) = xs
        xp = array_namespace(x)
        positive = xp.astype(real(x) > 0, real(x).dtype)
        y = positive * x + xp.log1p(xp.exp((1 - 2 * positive) * x))
        return y, 0.5 * xp.tanh(0.5 * x) + 0.5

    def slope(self, cache: Any) -> Array:
        """φ' = s, from the cache, as a new array."""
        return 1 * cache

    def curvature(self, cache: Any) -> Array:
        """φ'' = s (1 - s), from the cache."""
        return cache * (1 - cache)

    def third(self, cache: Any) -> Array:
        """φ''' = s (1 - s) (1 - 2 s), from the cache                                                    Eq. (14.29)."""
        return cache * (1 - cache) * (1 - 2 * cache)


ROOT, CUBE = math.sqrt(2 / math.pi), 0.044715  # of GELU


@dataclass(frozen=True)
class GELU(Activation):
    """φ(x) = ½ x (1 + T), T = tanh u, u = √(2/π) (x + 0.044715 x³): x times Φ(x), nearly.   Hendrycks and Gimpel 2016.

    The tanh form: the array API has no erf, and it differs from x Φ(x) by 5e-4 at most.

    φ' = ½ (1 + T) + ½ x T',   φ'' = T' + ½ x T'',   φ''' = 3/2 T'' + ½ x T''',
    T' = p u',   T'' = p (u'' - 2 T u'²),   T''' = p (u''' - 6 T u' u'' + (6 T² - 2) u'³),   p = 1 - T²
    """

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x -> ½ x (1 + T); the cache keeps x and T."""
        (x,) = xs
        T = array_namespace(x).tanh(ROOT * x * (1 + CUBE * x * x))
        return 0.5 * x * (1 + T), (x, T)

    def slope(self, cache: Any) -> Array:
        """φ' = ½ (1 + T) + ½ x T', from the cache."""
        x, T = cache
        u = _times_slope(1 - T * T, x)
        u *= x
        u += T
        u += 1
        u *= 0.5
        return u

    def curvature(self, cache: Any) -> Array:
        """φ'' = T' + ½ x T'', from the cache."""
        x, T = cache
        p, u2 = 1 - T * T, 6 * ROOT * CUBE * x
        T1 = _times_slope(p, x)
        return T1 + 0.5 * x * (p * u2 - 2 * T * _times_slope(T1, x))

    def third(self, cache: Any) -> Array:
        """φ''' = 3/2 T'' + ½ x T''', from the cache                                                     Eq. (14.29)."""
        x, T = cache
        p, u2, u3 = 1 - T * T, 6 * ROOT * CUBE * x, 6 * ROOT * CUBE
        T1 = _times_slope(p, x)
        T11 = _times_slope(T1, x)
        T3 = p * u3 - 6 * T * T1 * u2 + (6 * T * T - 2) * _times_slope(T11, x)
        return 1.5 * (p * u2 - 2 * T * T11) + 0.5 * x * T3


def _times_slope(p: Array, x: Array) -> Array:
    """p u' of GELU, x beside p each time: where p is 0 so is this, however large x² would be."""
    u = p * x
    u *= x
    u *= 3 * CUBE
    u += p
    u *= ROOT
    return u


@dataclass(frozen=True)
class ELU(Activation):
    """φ(x) = x for x > 0, eˣ - 1 below.                                                       Clevert et al. 2016.

    With n = min(x, 0): φ' = eⁿ,   φ'' = φ''' = eˣ below 0, and 0 above. φ' is continuous, φ'' is not.
    """

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x -> max(x, 0) + expm1(min(x, 0)); the cache keeps eⁿ, and where x is negative."""
        (x,) = xs
        xp = array_namespace(x)
        below = xp.astype(real(x) <= 0, real(x).dtype)
        n = below * x
        return (x - n) + xp.expm1(n), (xp.exp(n), below)

    def slope(self, cache: Any) -> Array:
        """φ' = eⁿ, from the cache, as a new array."""
        return 1 * cache[0]

    def curvature(self, cache: Any) -> Array:
        """φ'' = eˣ below 0, from the cache."""
        return cache[0] * cache[1]

    def third(self, cache: Any) -> Array:
        """φ''' = eˣ below 0, from the cache                                                             Eq. (14.29)."""
        return cache[0] * cache[1]
