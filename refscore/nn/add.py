"""Add: where paths of a network meet."""

from dataclasses import dataclass
from typing import Any, ClassVar

from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads, Jet, sum_to
from refscore.protocols import Array, Params, Rng


@dataclass(frozen=True)
class Add:
    """y = x₁ + x₂ + ..., each broadcast to the shape of y: a skip connection, or one row added to all.

    Linear, so the tangent pass is the sum again; the transpose of broadcasting is summing.
    """

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Return an empty dict: a sum has no parameters."""
        return {}

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """Add inputs whose shapes broadcast -> y, and the cache: the shapes, that of y first."""
        y = sum(xs[1:], xs[0])
        return y, [x.shape for x in (y, *xs)]

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Give dy to each input, summed over the axes along which the input was repeated; there are no gradients."""
        return tuple(sum_to(dy, shape) for shape in cache[1:]), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ẏ = ẋ₁ + ẋ₂ + ... (K, ...); the tape keeps which inputs have a tangent."""
        there = [xdot is not None for xdot in xdots]
        if not any(there):
            return None, there
        dots = [xdot for xdot in xdots if xdot is not None]
        ydot = sum(dots[1:], dots[0])
        return array_namespace(ydot).broadcast_to(ydot, (ydot.shape[0], *cache[0])), there

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of the inputs and of their tangents: the transpose twice; a missing tangent gets no adjoint."""
        shapes = cache[1:]
        dxs: Adjoints = (None,) * len(shapes) if dy is None else tuple(sum_to(dy, shape) for shape in shapes)
        K = dydot.shape[0]
        dxdots = tuple(sum_to(dydot, (K, *shape)) if there else None for shape, there in zip(shapes, tape, strict=True))
        return dxs, dxdots, {}

    def jet(self, params: Params, cache: Any, us: Adjoints, vs: Adjoints, ws: Adjoints) -> tuple[Jet, Any]:
        """Second-order tangents: the sums of the u, of the v, and of the w; the tape keeps which inputs have them."""
        (u, there), (v, _), (w, _) = (self.jvp(params, cache, *dots) for dots in (us, vs, ws))
        return (u, v, w), there

    def jet_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, djet: Jet
    ) -> tuple[Adjoints, tuple[Adjoints, Adjoints, Adjoints], Grads]:
        """Adjoints of the inputs and of u, v, w: the transpose for each; an input without tangents gets none."""
        shapes = cache[1:]

        def back(d: Array | None) -> Adjoints:
            if d is None:
                return (None,) * len(shapes)
            K = d.shape[0]
            return tuple(sum_to(d, (K, *shape)) if there else None for shape, there in zip(shapes, tape, strict=True))

        dxs: Adjoints = (None,) * len(shapes) if dy is None else tuple(sum_to(dy, shape) for shape in shapes)
        du, dv, dw = (back(d) for d in djet)
        return dxs, (du, dv, dw), {}
