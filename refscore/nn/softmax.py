"""Softmax along the last axis. Chapter 14.

    w = e^x/Σ e^x,   J a = w∘a - w (w·a),   J symmetric                                     Eqs. (14.18), (14.19)

    jvp            ẇ = J ẋ
    backward       dx = J dw
    jvp_backward   dx = J (dw + Σ_k (q∘a - q (w·a) - a (w·q))),   dẋ = J q,   a = ẋ_k, q = dẇ_k

where the bracket is the derivative of q·J a in w, and J carries it on to x.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from refscore.arrays import real
from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads
from refscore.protocols import Array, Params, Rng


def softmax(x: Array) -> Array:
    """e^x/Σ e^x along the last axis, of numbers however large.

    Parameters
    ----------
    x : Array, shape (..., n)
        The logarithms of weights.

    Returns
    -------
    Array, shape (..., n)
        The weights, of sum 1.
    """
    xp = array_namespace(x)
    w = xp.exp(x - xp.max(real(x), axis=-1, keepdims=True))
    w /= xp.sum(w, axis=-1, keepdims=True)
    return w


def slope(w: Array, a: Array) -> Array:
    """J a = w∘a - w (w·a): the Jacobian of softmax, which is its own transpose, times a.

    Parameters
    ----------
    w : Array, shape (..., n)
        The weights.
    a : Array, shape (..., n)
        A tangent or an adjoint.

    Returns
    -------
    Array, shape (..., n)
        The product.
    """
    y = w * a
    y -= w * array_namespace(a).sum(y, axis=-1, keepdims=True)
    return y


def bend(w: Array, a: Array, q: Array) -> Array:
    """The derivative of q·J a in w: q∘a - q (w·a) - a (w·q), summed over the stack of tangents.

    Parameters
    ----------
    w : Array, shape (..., n)
        The weights.
    a, q : Array, shape (K, ..., n)
        Tangents of x, and adjoints of the tangents of w.

    Returns
    -------
    Array, shape (..., n)
        The adjoint of w.
    """
    xp = array_namespace(a)
    y = q * a
    y -= q * xp.sum(w * a, axis=-1, keepdims=True)
    y -= a * xp.sum(w * q, axis=-1, keepdims=True)
    return xp.sum(y, axis=0)


@dataclass(frozen=True)
class Softmax:
    """w = e^x/Σ e^x along the last axis: positive numbers of sum 1."""

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Return an empty dict: there is nothing to learn."""
        return {}

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (..., n) -> w (..., n), which is the cache."""
        w = softmax(xs[0])
        return w, w

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoint of the input, dx = J dw."""
        return (slope(cache, dy),), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ẇ = J ẋ; the tape keeps ẋ."""
        (xdot,) = xdots
        return (None if xdot is None else slope(cache, xdot)), xdot

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of the input and of its tangents, by the formulas at the top of this file."""
        dw = bend(cache, tape, dydot)
        if dy is not None:
            dw += dy
        return (slope(cache, dw),), (slope(cache, dydot),), {}
