"""Layers that move numbers about, or add them up: linear maps without parameters. Chapter 14.

A linear map y = A x is its own tangent map, and the transpose Aᵀ serves adjoints and adjoints of tangents alike, so
the passes are written once, here, and a layer says only what A and Aᵀ are. Both act on the last axes, and leave a
stack of tangents in front alone. For pooling P and doubling U, P U = I, Pᵀ = ¼ U and Uᵀ = 4 P, Eq. (14.22).

Images come and go as (B, H, W, C). Inside a network they are (H, W, B, C): a shift by a pixel is then a slice whose
inner runs are B C numbers long, sums over pixels are sums over the first axes, and what belongs to a sample, (B, C),
broadcasts by itself.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from refscore.arrays import constant
from refscore.library import array_namespace, device
from refscore.nn.layer import Adjoints, Grads, Jet
from refscore.protocols import Array, Params, Rng

Sizes = Sequence[tuple[int, ...]]


class Linear(ABC):
    """A linear map without parameters: a subclass gives `apply` and its transpose `back`."""

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    @abstractmethod
    def apply(self, *xs: Array) -> Array:
        """Apply the map to inputs (..., n), with or without a stack of tangents in front."""

    @abstractmethod
    def back(self, dy: Array, sizes: Sizes) -> Adjoints:
        """Apply its transpose: adjoint of y -> one of each input, whose shapes (without the stack) are `sizes`."""

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Return an empty dict: there is nothing to learn."""
        return {}

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """Apply the map; the cache: the inputs' shapes."""
        return self.apply(*xs), tuple(x.shape for x in xs)

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Apply the transpose; there are no gradients."""
        return self.back(dy, cache), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output: the map again, a missing tangent being zero; the tape: which inputs have one."""
        there = [xdot is not None for xdot in xdots]
        given = next((xdot for xdot in xdots if xdot is not None), None)
        if given is None:
            return None, there
        xp, K = array_namespace(given), given.shape[0]
        return self.apply(*(
            xp.zeros((K, *size), dtype=given.dtype, device=device(given)) if xdot is None else xdot
            for xdot, size in zip(xdots, cache, strict=True)
        )), there  # fmt: skip

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of the inputs and of their tangents: the transpose twice."""
        dxs = (None,) * len(cache) if dy is None else self.back(dy, cache)
        return dxs, self._back(dydot, cache, tape), {}

    def jet(self, params: Params, cache: Any, us: Adjoints, vs: Adjoints, ws: Adjoints) -> tuple[Jet, Any]:
        """Second-order tangents: the map of the u, of the v, and of the w; the tape: which inputs have them."""
        (u, there), (v, _), (w, _) = (self.jvp(params, cache, *dots) for dots in (us, vs, ws))
        return (u, v, w), there

    def jet_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, djet: Jet
    ) -> tuple[Adjoints, tuple[Adjoints, Adjoints, Adjoints], Grads]:
        """Adjoints of the inputs and of u, v, w: the transpose for each."""
        dxs = (None,) * len(cache) if dy is None else self.back(dy, cache)
        du, dv, dw = (self._back(d, cache, tape) for d in djet)
        return dxs, (du, dv, dw), {}

    def _back(self, d: Array | None, sizes: Sizes, there: Sequence[bool]) -> Adjoints:
        """The transpose for tangents: an input that has none gets none."""
        if d is None:
            return (None,) * len(sizes)
        return tuple(dx if has else None for dx, has in zip(self.back(d, sizes), there, strict=True))


@dataclass(frozen=True)
class Inside(Linear):
    """(..., B, H, W, C) -> (..., H, W, B, C): images as the layers of a network want them."""

    def apply(self, *xs: Array) -> Array:
        """Put the axis of the samples behind the pixels."""
        return _moved(xs[0], (-3, -2, -4, -1))

    def back(self, dy: Array, sizes: Sizes) -> Adjoints:
        """Move everything back."""
        return (_moved(dy, (-2, -4, -3, -1)),)


@dataclass(frozen=True)
class Outside(Linear):
    """(..., H, W, B, C) -> (..., B, H, W, C): images as the user has them."""

    def apply(self, *xs: Array) -> Array:
        """Put the axis of the samples in front of the pixels."""
        return _moved(xs[0], (-2, -4, -3, -1))

    def back(self, dy: Array, sizes: Sizes) -> Adjoints:
        """Move everything back."""
        return (_moved(dy, (-3, -2, -4, -1)),)


def _moved(x: Array, last: tuple[int, ...]) -> Array:
    """Permute the last four axes, in memory too."""
    xp, n = array_namespace(x), x.ndim
    y = xp.permute_dims(x, (*range(n - 4), *(n + i for i in last)))
    return xp.reshape(xp.reshape(y, (-1,)), y.shape)


@dataclass(frozen=True)
class Reshape(Linear):
    """Each sample in another shape: (..., B, *before) -> (..., B, *after), the numbers in the same order.

    Parameters
    ----------
    before, after : tuple of int
        Shapes of one sample, of equally many numbers; after=(n,) flattens images for a dense layer.

    Raises
    ------
    ValueError
        For shapes of different size.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]

    def __post_init__(self) -> None:
        if math.prod(self.before) != math.prod(self.after):
            raise ValueError(f"{self.before} and {self.after} hold different numbers of numbers")

    def apply(self, *xs: Array) -> Array:
        """Give each sample its other shape."""
        return _shaped(xs[0], self.before, self.after)

    def back(self, dy: Array, sizes: Sizes) -> Adjoints:
        """Move everything back."""
        return (_shaped(dy, self.after, self.before),)


def _shaped(x: Array, before: tuple[int, ...], after: tuple[int, ...]) -> Array:
    return array_namespace(x).reshape(x, (*x.shape[: x.ndim - len(before)], *after))


@dataclass(frozen=True)
class Concat(Linear):
    """Channels side by side: (..., C₁), (..., C₂), ... -> (..., C₁ + C₂ + ...); axes of length 1 are repeated."""

    def apply(self, *xs: Array) -> Array:
        """Concatenate along the last axis."""
        xp = array_namespace(*xs)
        batch = xp.broadcast_arrays(*(x[..., 0] for x in xs))[0].shape
        return xp.concat([xp.broadcast_to(x, (*batch, x.shape[-1])) for x in xs], axis=-1)

    def back(self, dy: Array, sizes: Sizes) -> Adjoints:
        """Cut apart again."""
        cuts, start = [], 0
        for size in sizes:
            stop = start + size[-1]
            cuts.append(_summed(dy[..., start:stop], size))
            start = stop
        return tuple(cuts)


def _summed(dy: Array, size: tuple[int, ...]) -> Array:
    """The transpose of repeating axes of length 1; a stack of tangents in front stays."""
    xp, extra = array_namespace(dy), dy.ndim - len(size)
    axes = tuple(i + extra for i, n in enumerate(size) if n == 1 and dy.shape[i + extra] != 1)
    return xp.sum(dy, axis=axes, keepdims=True) if axes else dy


@dataclass(frozen=True)
class Total(Linear):
    """The sum over the pixels: (..., H, W, B, C) -> (..., B, C)."""

    def apply(self, *xs: Array) -> Array:
        """Add up all pixels."""
        return array_namespace(xs[0]).sum(xs[0], axis=(-4, -3))

    def back(self, dy: Array, sizes: Sizes) -> Adjoints:
        """Give every pixel the same adjoint."""
        (size,) = sizes
        lead = dy.shape[:-2]
        xp = array_namespace(dy)
        return (xp.broadcast_to(xp.reshape(dy, (*lead, 1, 1, *dy.shape[-2:])), (*lead, *size)),)


@dataclass(frozen=True)
class AvgPool(Linear):
    """Means of 2 x 2 pixels: (..., H, W, B, C) -> (..., ⌈H/2⌉, ⌈W/2⌉, B, C).

    At an odd edge the mean is over the two pixels, or the one, that there are: the last row counts twice.
    """

    def apply(self, *xs: Array) -> Array:
        """Take a quarter of the sum of each four."""
        y = _added(_doubled_edge(_doubled_edge(xs[0], -4), -3))
        y *= 0.25
        return y

    def back(self, dy: Array, sizes: Sizes) -> Adjoints:
        """Give a quarter to each; what the doubled edge gets belongs to the edge."""
        ((H, W, _, _),) = sizes
        return (_folded_edge(_folded_edge(_repeated(0.25 * dy), -3, W), -4, H),)


@dataclass(frozen=True)
class Upsample(Linear):
    """Every pixel four times, cut to the size of a second input: (..., h, w, B, C), (H, W, ...) -> (..., H, W, B, C).

    Of the second input only the size counts, h = ⌈H/2⌉ and w = ⌈W/2⌉: so no adjoint goes there.
    """

    def apply(self, *xs: Array) -> Array:
        """Copy each pixel, and cut."""
        x, like = xs
        H, W = like.shape[-4:-2]
        return _repeated(x)[..., :H, :W, :, :]

    def back(self, dy: Array, sizes: Sizes) -> Adjoints:
        """Add up the adjoints of each four, of those that there are."""
        return _added(_zero_edge(_zero_edge(dy, -4), -3)), None


def _added(x: Array) -> Array:
    """The sum of each 2 x 2 pixels, H and W even."""
    xp = array_namespace(x)
    *lead, H, W, B, C = x.shape
    k = xp.reshape(x, (*lead, H // 2, 2, W // 2, 2, B, C))
    y = k[..., 0, :, 0, :, :] + k[..., 0, :, 1, :, :]
    y += k[..., 1, :, 0, :, :]
    y += k[..., 1, :, 1, :, :]
    return y


def _repeated(x: Array) -> Array:
    """Each pixel as 2 x 2 pixels."""
    xp = array_namespace(x)
    *lead, H, W, B, C = x.shape
    wide = xp.broadcast_to(xp.reshape(x, (*lead, H, 1, W, 1, B, C)), (*lead, H, 2, W, 2, B, C))
    return xp.reshape(wide, (*lead, 2 * H, 2 * W, B, C))


def _last(x: Array, axis: int, start: int, stop: int | None = None) -> Array:
    """x[start:stop] along an axis counted from the end."""
    return x[(..., slice(start, stop), *(slice(None),) * (-axis - 1))]


def _doubled_edge(x: Array, axis: int) -> Array:
    """An odd axis with its last row twice."""
    n = x.shape[axis]
    return array_namespace(x).concat([x, _last(x, axis, n - 1)], axis=axis) if n % 2 else x


def _zero_edge(x: Array, axis: int) -> Array:
    """An odd axis with a row of zeros more."""
    n = x.shape[axis]
    return array_namespace(x).concat([x, constant(0.0, _last(x, axis, n - 1))], axis=axis) if n % 2 else x


def _folded_edge(x: Array, axis: int, n: int) -> Array:
    """The transpose of `_doubled_edge`, n the length before it."""
    if n % 2 == 0:
        return x
    edge = _last(x, axis, n - 1, n) + _last(x, axis, n)
    return array_namespace(x).concat([_last(x, axis, 0, n - 1), edge], axis=axis)
