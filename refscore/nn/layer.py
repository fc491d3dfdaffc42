"""The layer protocol: four passes, derived by hand. Chapter 14.

A layer is a function y = F(θ, x₁, x₂, ...) and three linear maps made from it:

    forward        y = F(θ, x)
    backward       (dx, dθ) = (∂F)ᵀ dy                                the transpose of its Jacobian         Eq. (14.1)
    jvp            ẏ = (∂F/∂x) ẋ                                      the Jacobian itself, θ held fixed     Eq. (14.1)
    jvp_backward   (dx, dẋ, dθ) = (∂(F, jvp))ᵀ (dy, dẏ)               the transpose for both outputs        Eq. (14.3)

The last is what implicit and sliced score matching need, whose losses contain ẏ. Tangents are
stacks, ẋ (K, ..., n) beside x (..., n). A tangent or an adjoint may be None: it is zero, and
costs nothing.

An energy's score is a derivative already, so there the same losses are of third order. For them a layer may have
two passes more, along two tangents u and v at once and a second-order one w (section 14.13):

    jet            y_u = F' u,   y_v = F' v,   y_w = F''[u, v] + F' w                            Eq. (14.27)
    jet_backward   the transpose of the derivative of (y, y_u, y_v, y_w), in x, u, v, w and θ
"""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from refscore.arrays import constant
from refscore.library import array_namespace
from refscore.protocols import Array, Params, Rng, Shapes

Grads = dict[str, Array]
Adjoints = tuple[Array | None, ...]
Jet = tuple[Array | None, Array | None, Array | None]


class Layer(Protocol):
    """The passes that every layer and every network has; a score model has them too, with t as its second input.

    The passes do not check shapes and values. A wrong shape is reported by the product that
    meets it, a NaN passes through; checks are made earlier, in `fit` and `simulate`. The arguments
    are explained in the methods below and mean the same in every layer.
    """

    @property
    def shapes(self) -> Shapes:
        """Name -> shape of every parameter, in the order of the flat vector."""

    def init(self, rng: Rng, dtype: Any = "float32") -> dict[str, Array]:
        """Draw the initial parameters.

        Parameters
        ----------
        rng : Rng
            Source of the random numbers.
        dtype : dtype or str
            Of the parameters; default "float32".

        Returns
        -------
        dict of str to Array
            The parameters by name, with the shapes in `shapes`.
        """

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """Evaluate the layer.

        Parameters
        ----------
        params : mapping of str to Array
            The parameters by name, with the shapes in `shapes`; the same in all passes.
        *xs : Array, shapes (..., n)
            The inputs; every axis but the last is a batch axis.

        Returns
        -------
        y : Array, shape (..., m)
            The output.
        cache : object
            What the other passes need from this evaluation; each layer decides what it holds.
        """

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Multiply by the transpose of the Jacobian.

        Parameters
        ----------
        params, cache : as given to and returned by `forward`
        dy : Array, shape of y
            The adjoint of the output: the derivative of a loss with respect to y.

        Returns
        -------
        dxs : tuple of Array or None
            One adjoint for each input, in its shape; None stands for zero.
        grads : dict of str to Array
            The adjoint of each parameter, by name.
        """

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Multiply by the Jacobian in x, the parameters held fixed.

        Parameters
        ----------
        params, cache : as given to and returned by `forward`
        *xdots : Array or None, shapes (K, ..., n)
            A stack of K tangents for each input; None stands for zero.

        Returns
        -------
        ydot : Array or None, shape (K, ..., m)
            The tangents of the output.
        tape : object
            What `jvp_backward` needs from this call.
        """

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Multiply by the transpose of the Jacobian of both outputs, y and ydot.

        Parameters
        ----------
        params, cache, tape : as given to and returned by `forward` and `jvp`
        dy : Array or None, shape of y
            The adjoint of the output; None stands for zero.
        dydot : Array, shape (K, ..., m)
            The adjoints of its tangents.

        Returns
        -------
        dxs, dxdots : tuples of Array or None
            The adjoints of the inputs and of their tangents.
        grads : dict of str to Array
            The adjoint of each parameter, by name.
        """


Row = tuple[str, Layer, Sequence[str]]  # of a net: name, layer, names of its inputs


def zeros(params: Params, names: Iterable[str]) -> Grads:
    """Gradients of parameters on which nothing depends: zeros.

    Parameters
    ----------
    params : mapping of str to Array
        The parameters, whose shape, dtype and device the zeros take.
    names : iterable of str
        The parameters for which zeros are wanted.

    Returns
    -------
    dict of str to Array
        A zero array for each name.
    """
    return {name: constant(0.0, params[name]) for name in names}


def rows(x: Array) -> Array:
    """Join all batch axes into one.

    Parameters
    ----------
    x : Array, shape (..., n)
        Every axis but the last is a batch axis.

    Returns
    -------
    Array, shape (N, n)
        The same numbers, one row a sample.
    """
    return array_namespace(x).reshape(x, (-1, x.shape[-1]))


def sum_to(dy: Array, shape: tuple[int, ...]) -> Array:
    """The transpose of broadcasting: sum dy over the axes along which an array of shape `shape` was repeated.

    Parameters
    ----------
    dy : Array
        Adjoint of the broadcast array.
    shape : tuple of int
        Shape of the array before it was broadcast.

    Returns
    -------
    Array, shape `shape`
        The adjoint of that array.
    """
    extra = dy.ndim - len(shape)
    repeated = tuple(i + extra for i, n in enumerate(shape) if n == 1 and dy.shape[i + extra] != 1)
    if extra or repeated:
        xp = array_namespace(dy)
        dy = xp.reshape(xp.sum(dy, axis=tuple(range(extra)) + repeated), shape)
    return dy


def plus(a: Array | None, b: Array | None) -> Array | None:
    """a + b, where None is zero.

    Parameters
    ----------
    a, b : Array or None
        The terms, of shapes that broadcast.

    Returns
    -------
    Array or None
        None if both are None.
    """
    if a is None or b is None:
        return b if a is None else a
    return a + b


def times(a: Array | None, b: Array | None) -> Array | None:
    """a b, where None is zero.

    Parameters
    ----------
    a, b : Array or None
        The factors, of shapes that broadcast.

    Returns
    -------
    Array or None
        None if one of them is None.
    """
    return None if a is None or b is None else a * b


def without_tangent(layer: object, *edots: Array | None) -> None:
    """Refuse a tangent of what a layer is conditioned on.

    Parameters
    ----------
    layer : object
        The layer, for the message.
    *edots : Array or None
        Tangents of its condition.

    Raises
    ------
    ValueError
        For a tangent that is not None.
    """
    if any(edot is not None for edot in edots):
        raise ValueError(f"{layer} is conditioned on what depends on x: add a Dense of it with Add, which has tangents")
