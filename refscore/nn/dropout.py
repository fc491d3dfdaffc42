"""Dropout: features left out at random, by uniform numbers that are an input of the network. Chapter 14."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from refscore.checks import settle
from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads, Jet, Row
from refscore.protocols import Array, Params, Rng


@dataclass(frozen=True)
class Dropout:
    """y = m x, m = [u ≥ rate]/(1 - rate) for each sample and feature, so that E y = x.               Eq. (14.23).

    Srivastava et al. 2014. x (..., B, n), u (B, number of uniforms) in [0, 1), of which the columns offset to
    offset + n are read; in images (H, W, B, n) a whole channel of a sample is left out. Where u is None the layer does
    nothing, as in sampling. At given u the layer is linear: all passes are products with m. m is a constant of the
    sample, no adjoint goes to u.

    Parameters
    ----------
    n : int
        Number of features.
    rate : float
        Probability with which a feature is left out, in [0, 1).
    offset : int, default 0
        First column of u that is read: every dropout of a net reads its own.

    Raises
    ------
    ValueError
        For n < 1, offset < 0, or a rate outside [0, 1); at the call, for a u with too few columns.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.nn import Dropout
    >>> x, u = np.array([[1.0, 2.0]]), np.array([[0.3, 0.7]])
    >>> Dropout(2, 0.5).forward({}, x, u)[0], Dropout(2, 0.5).forward({}, x, None)[0]
    (array([[0., 4.]]), array([[1., 2.]]))
    """

    n: int
    rate: float
    offset: int = 0
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    def __post_init__(self) -> None:
        settle(self, n=1, offset=0)
        if not 0 <= self.rate < 1:
            raise ValueError(f"rate must lie in [0, 1): features left out; got {self.rate}")

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Return an empty dict: there is nothing to learn."""
        return {}

    def forward(self, params: Params, *xs: Any) -> tuple[Array, Any]:
        """x (..., B, n), u (B, M) or None -> y (..., B, n), and the cache: the mask m (B, n), or None."""
        x, u = xs
        if u is None:
            return x, None
        stop = self.offset + self.n
        if u.shape[-1] < stop:
            raise ValueError(f"{self} reads columns {self.offset} to {stop} of u, which has {u.shape[-1]}")
        m = array_namespace(x).astype(u[:, self.offset : stop] >= self.rate, x.dtype)
        m /= 1 - self.rate
        return x * m, m

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoint of the input, dx = m dy; none of u."""
        return (_masked(cache, dy), None), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ẏ = m ẋ; the tape says that some came here."""
        return _masked(cache, xdots[0]), True

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of the input and of its tangents, dx = m dy, dẋ = m dẏ."""
        return (_masked(cache, dy), None), (_masked(cache, dydot), None), {}

    def jet(self, params: Params, cache: Any, us: Adjoints, vs: Adjoints, ws: Adjoints) -> tuple[Jet, Any]:
        """Second-order tangents: m u, m v, m w."""
        return (_masked(cache, us[0]), _masked(cache, vs[0]), _masked(cache, ws[0])), True

    def jet_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, djet: Jet
    ) -> tuple[Adjoints, tuple[Adjoints, Adjoints, Adjoints], Grads]:
        """Adjoints of the input and of u, v, w: m times those of the output."""
        du, dv, dw = ((_masked(cache, d), None) for d in djet)
        return (_masked(cache, dy), None), (du, dv, dw), {}


def _masked(m: Array | None, a: Array | None) -> Array | None:
    """m a; no mask leaves everything as it is."""
    return a if m is None or a is None else m * a


def numbered(rows: Iterable[Row]) -> tuple[Row, ...]:
    """Give every dropout columns of its own, in the order of the rows.

    Parameters
    ----------
    rows : iterable of (name, layer, names of its inputs)
        Rows of a net.

    Returns
    -------
    tuple of rows
        The same, but for the offsets.
    """
    done, offset = [], 0
    for name, layer, inputs in rows:
        if isinstance(layer, Dropout):
            layer, offset = replace(layer, offset=offset), offset + layer.n
        done.append((name, layer, inputs))
    return tuple(done)
