"""The layer protocol: four passes, derived by hand. Chapter 14.

A layer is a function y = F(θ, x₁, x₂, ...) and three linear maps made from it:

    forward        y = F(θ, x)
    backward       (dx, dθ) = (∂F)ᵀ dy                                the transpose of its Jacobian
    jvp            ẏ = (∂F/∂x) ẋ                                      the Jacobian itself, θ held fixed
    jvp_backward   (dx, dẋ, dθ) = (∂(F, jvp))ᵀ (dy, dẏ)               the transpose for both outputs

The last is what implicit and sliced score matching need, whose losses contain ẏ. Tangents are
stacks, ẋ (K, ..., n) beside x (..., n). A tangent or an adjoint may be None: it is zero, and
costs nothing.

An energy's score is a derivative already, so there the same losses are of third order. For them a layer may have
two passes more, along two tangents u and v at once and a second-order one w (chapter 4):

    jet            y_u = F' u,   y_v = F' v,   y_w = F''[u, v] + F' w                            Eq. (4.6)
    jet_backward   the transpose of the derivative of (y, y_u, y_v, y_w), in x, u, v, w and θ
"""

from collections.abc import Iterable
from typing import Any, Protocol

from array_api_compat import array_namespace

from refscore.arrays import constant
from refscore.protocols import Array, Params, Rng, Shapes

Grads = dict[str, Array]
Adjoints = tuple[Array | None, ...]
Jet = tuple[Array | None, Array | None, Array | None]


class Layer(Protocol):
    """What every layer, every network, and a score model can do.

    What the layers do not check: shapes and values. A wrong shape is reported by the product that
    meets it, a NaN passes through; checks stand at the doors, in `fit` and `simulate`.
    """

    @property
    def shapes(self) -> Shapes:
        """Name -> shape of every parameter, in the order of the flat vector."""

    def init(self, rng: Rng, dtype: Any = "float32") -> dict[str, Array]:
        """Draw the initial parameters."""

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """Inputs -> y, and the cache that the other passes read."""

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """dy -> (dx for each input, gradients of the parameters)."""

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents (K, ...) of the inputs -> tangent (K, ...) of y, and the tape for `jvp_backward`."""

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """dy, dydot (K, ...) -> (dx for each input, dxdot for each input, gradients)."""


def zeros(params: Params, names: Iterable[str]) -> Grads:
    """The gradients of parameters that nothing depends on."""
    return {name: constant(0.0, params[name]) for name in names}


def rows(x: Array) -> Array:
    """Every axis but the last is a batch axis: (..., n) -> (N, n)."""
    return array_namespace(x).reshape(x, (-1, x.shape[-1]))


def sum_to(dy: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of broadcasting: sum dy over the axes along which `shape` was repeated."""
    extra = dy.ndim - len(shape)
    repeated = tuple(i + extra for i, n in enumerate(shape) if n == 1 and dy.shape[i + extra] != 1)
    if extra or repeated:
        xp = array_namespace(dy)
        dy = xp.reshape(xp.sum(dy, axis=tuple(range(extra)) + repeated), shape)
    return dy


def plus(a: Array | None, b: Array | None) -> Array | None:
    """a + b, where None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def times(a: Array | None, b: Array | None) -> Array | None:
    """a b, where None is zero."""
    return None if a is None or b is None else a * b
