"""Conv: convolutions of images, told the noise level. Chapter 14.

    y = W ∗ x + e T + b

`refscore.nn.shifts` says what ∗ and its transposes are. For the usual kernel, 3 x 3 with stride 1, four ninths of its
products do, see `refscore.nn.winograd`: the same numbers but for rounding.
"""

from dataclasses import dataclass
from typing import Any

import refscore.nn.shifts as shifts
import refscore.nn.winograd as winograd
from refscore.arrays import constant
from refscore.checks import check_like, check_positive, settle
from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads, rows, without_tangent, zeros
from refscore.protocols import Array, Params, Rng


@dataclass(frozen=True)
class Conv:
    """y = W ∗ x + e T + b: a k x k convolution of images (H, W, B, n_in) -> (⌈H/stride⌉, ⌈W/stride⌉, B, n_out).

    e embeds the noise level or a label, (B, n_cond), or (1, n_cond) when all samples share it: the same at every
    pixel. It may depend on parameters, so its adjoint goes on; it does not depend on x, so it has no tangent.

    Parameters
    ----------
    n_in, n_out : int
        Number of channels of x and y.
    kernel : int, default 3
        k, odd. Zeros stand beyond the edge, so that stride 1 keeps the size.
    stride, dilation : int, default 1
        Every how many pixels an answer is wanted, and how far apart the pixels are that it reads.
    groups : int, default 1
        The channels fall into as many groups, each with a kernel of its own; it divides n_in and n_out.
    n_cond : int, default 0
        Number of features of e; 0 (default) for a layer without that second input.
    gain : float, default 1.0
        Standard deviation that initial W and T each give to outputs of unit-variance inputs.

    Raises
    ------
    ValueError
        For counts below 1 (n_cond: 0), an even kernel, groups that do not divide, or a gain that is not positive; at
        the call, for an x whose shape does not fit.

    Examples
    --------
    A kernel of ones sums each pixel and its neighbours:

    >>> import numpy as np
    >>> from refscore.nn import Conv
    >>> x = np.arange(12.0).reshape(3, 4, 1, 1)  # one image of 3 x 4 pixels and one channel
    >>> y, _ = Conv(1, 1).forward({"W": np.ones((3, 3, 1, 1)), "b": np.zeros(1)}, x)
    >>> y[:, :, 0, 0]
    array([[10., 18., 24., 18.],
           [27., 45., 54., 39.],
           [26., 42., 48., 34.]])
    """

    n_in: int
    n_out: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    n_cond: int = 0
    gain: float = 1.0

    def __post_init__(self) -> None:
        settle(self, n_in=1, n_out=1, kernel=1, stride=1, dilation=1, groups=1, n_cond=0)
        check_positive(gain=self.gain)
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, so that it has a middle; got {self.kernel}")
        if self.n_in % self.groups or self.n_out % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {self.n_in} and {self.n_out} channels")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes: W (k, k, n_in/groups, n_out), T (n_cond, n_out) where there is a condition, b (n_out,)."""
        cond = {"T": (self.n_cond, self.n_out)} if self.n_cond else {}
        return {"W": (self.kernel, self.kernel, self.n_in // self.groups, self.n_out), **cond, "b": (self.n_out,)}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Draw W ~ N(0, gain²/(k² n_in/groups)) and T ~ N(0, gain²/n_cond), and set b = 0."""
        check_like(rng=rng)
        reads = {"W": self.kernel**2 * self.n_in // self.groups, "T": self.n_cond}
        params = {
            name: rng.standard_normal(shape, dtype=dtype) * (self.gain * reads[name] ** -0.5)
            for name, shape in self.shapes.items()
            if name != "b"
        }
        params["b"] = constant(0.0, params["W"][0, 0, 0, :])
        return params

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (H, W, B, n_in), e (B or 1, n_cond) -> y (H', W', B, n_out), and the cache: the inputs."""
        x, *condition = xs
        if x.ndim != 4 or x.shape[-1] != self.n_in:
            raise ValueError(f"{self} takes images (H, W, B, {self.n_in}); got {tuple(x.shape)}")
        y = self._convolve(x, params["W"])
        y += params["b"] if not condition else condition[0] @ params["T"] + params["b"]
        return y, xs

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoints and gradients: dx, dW as in `refscore.nn.shifts`, dT = eᵀ Σ dy, de = Σ dy Tᵀ, db = Σ dy."""
        xp, (x, *condition) = array_namespace(dy), cache
        total = xp.sum(xp.reshape(dy, (-1, dy.shape[-2] * self.n_out)), axis=0)
        total = xp.reshape(total, (-1, self.n_out))  # Σ over the pixels (B, n_out)
        dxs = [self._image_gradient(x, dy, params)]
        grads = {"W": self._kernel_gradient(x, dy), "b": xp.sum(total, axis=0)}
        for e in condition:
            if e.shape[0] == 1:
                total = xp.sum(total, axis=0, keepdims=True)
            grads["T"] = xp.matrix_transpose(e) @ total
            dxs.append(total @ xp.matrix_transpose(params["T"]))
        return tuple(dxs), grads

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ẏ = W ∗ ẋ (K, H', W', B, n_out); the tape keeps ẋ."""
        without_tangent(self, *xdots[1:])
        return (None if xdots[0] is None else self._convolve(xdots[0], params["W"])), xdots[0]

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of x, e and ẋ: the transpose twice, in (x, dy) and in (ẋ, dẏ); e and b do not reach ẏ."""
        none: Adjoints = (None,) * len(cache)
        dxs, grads = (none, zeros(params, self.shapes)) if dy is None else self.backward(params, cache, dy)
        grads["W"] = grads["W"] + self._kernel_gradient(tape, dydot)
        return dxs, (self._image_gradient(tape, dydot, params), *none[1:]), grads

    def _convolve(self, x: Array, W: Array) -> Array:
        """W ∗ x: (..., H, W, B, n_in) -> (..., H', W', B, n_out)."""
        if self.kernel == self.stride == 1 and self.groups == 1:
            return _pointwise(x, W[0, 0, ...])
        parts = [
            winograd.convolve(v, w)
            if self._is_usual(v, *w.shape[2:])
            else shifts.convolve(v, w, self.stride, self.dilation)
            for v, w in zip(self._split(x), self._split(W), strict=True)
        ]
        return _joined(parts)

    def _image_gradient(self, x: Array, dy: Array, params: Params) -> Array:
        """dx, of the shape of x."""
        xp = array_namespace(dy)
        if self.kernel == self.stride == 1 and self.groups == 1:
            return _pointwise(dy, xp.matrix_transpose(params["W"][0, 0, ...]))
        parts = [
            winograd.convolve(d, shifts.turned(w))
            if self._is_usual(d, *w.shape[2:])
            else shifts.image_gradient(d, w, x.shape[-4], x.shape[-3], self.stride, self.dilation)
            for d, w in zip(self._split(dy), self._split(params["W"]), strict=True)
        ]
        return _joined(parts)

    def _kernel_gradient(self, x: Array, dy: Array) -> Array:
        """dW, summed over pixels, samples and tangents."""
        if self.kernel == self.stride == 1 and self.groups == 1:
            return (array_namespace(x).matrix_transpose(rows(x)) @ rows(dy))[None, None, :, :]
        parts = [
            winograd.kernel_gradient(v, d)
            if self._is_usual(v, v.shape[-1], d.shape[-1])
            else shifts.kernel_gradient(v, d, self.kernel, self.stride, self.dilation)
            for v, d in zip(self._split(x), self._split(dy), strict=True)
        ]
        return _joined(parts)

    def _is_usual(self, x: Array, C: int, O: int) -> bool:
        """Whether the fast form can be taken, and pays."""
        usual = (self.kernel, self.stride, self.dilation) == (3, 1, 1)
        return usual and not shifts.side_by_side(x, min(C, O))

    def _split(self, a: Array) -> list[Array]:
        """The channels of each group, last axis."""
        n = a.shape[-1] // self.groups
        return [a] if self.groups == 1 else [a[..., i * n : (i + 1) * n] for i in range(self.groups)]


def _pointwise(x: Array, W: Array) -> Array:
    """A kernel of one pixel: x W at each."""
    return array_namespace(x).reshape(rows(x) @ W, (*x.shape[:-1], W.shape[-1]))


def _joined(parts: list[Array]) -> Array:
    """The channels of all groups."""
    return parts[0] if len(parts) == 1 else array_namespace(parts[0]).concat(parts, axis=-1)
