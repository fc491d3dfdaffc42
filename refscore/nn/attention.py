"""Attention: every pixel asks all others. Chapter 14.                                            Vaswani et al. 2017.

For each sample and head, with queries, keys and values q, k, v (L, c) of the L pixels:

    S = q kᵀ/√c,   w = softmax(S) row by row,   o = w v                                      Eqs. (14.20), (14.21)

J is the Jacobian of softmax (see `refscore.nn.softmax`), B the derivative of <dẇ, J Ṡ> in w; products give a term to
each factor:

    jvp            Ṡ = (q̇ kᵀ + q k̇ᵀ)/√c,   ẇ = J Ṡ,   ȯ = ẇ v + w v̇
    backward       dv = wᵀ do,   dS = J (do vᵀ),   dq = dS k/√c,   dk = dSᵀ q/√c
    jvp_backward   dẇ = dȯ vᵀ,   dṠ = J dẇ,   dS = J (do vᵀ + Σ_k (dȯ v̇ᵀ + B)),
                   dv = wᵀ do + Σ_k ẇᵀ dȯ,   dq = (dS k + Σ_k dṠ k̇)/√c,   dk = (dSᵀ q + Σ_k dṠᵀ q̇)/√c,
                   dv̇ = wᵀ dȯ,   dq̇ = dṠ k/√c,   dk̇ = dṠᵀ q/√c
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from refscore.checks import settle
from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads
from refscore.nn.softmax import bend, slope, softmax
from refscore.protocols import Array, Params, Rng


@dataclass(frozen=True)
class Attention:
    """Queries, keys and values side by side, (H, W, B, 3 C) -> (H, W, B, C); each head looks at C/heads channels.

    The projections before and after are convolutions of kernel 1, rows of their own.

    Parameters
    ----------
    heads : int, default 1
        Number of heads; it divides C.

    Raises
    ------
    ValueError
        For heads < 1; at the call, for channels that the heads do not divide.
    """

    heads: int = 1
    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    def __post_init__(self) -> None:
        settle(self, heads=1)

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Return an empty dict: there is nothing to learn."""
        return {}

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (H, W, B, 3 C) -> o (H, W, B, C); the cache: q, k, v (B, heads, L, c) and w (B, heads, L, L)."""
        (x,) = xs
        if x.shape[-1] % (3 * self.heads):
            raise ValueError(f"{self} needs 3 C channels, C divided by the heads; got {x.shape[-1]}")
        xp = array_namespace(x)
        q, k, v = self._split(x)
        S = q @ xp.matrix_transpose(k)
        S *= q.shape[-1] ** -0.5
        w = softmax(S)
        return self._join((w @ v,), x.shape), (q, k, v, w, x.shape)

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoints of q, k and v, side by side."""
        T = array_namespace(dy).matrix_transpose
        q, k, v, w, size = cache
        do = self._heads(dy)
        dS = slope(w, do @ T(v))
        dS *= q.shape[-1] ** -0.5
        return (self._join((dS @ k, T(dS) @ q, T(w) @ do), size),), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ȯ = ẇ v + w v̇; the tape keeps q̇, k̇, v̇, Ṡ and ẇ."""
        (xdot,) = xdots
        if xdot is None:
            return None, None
        T = array_namespace(xdot).matrix_transpose
        q, k, v, w, size = cache
        qdot, kdot, vdot = self._split(xdot)
        Sdot = (qdot @ T(k) + q @ T(kdot)) * q.shape[-1] ** -0.5
        wdot = slope(w, Sdot)
        return self._join((wdot @ v + w @ vdot,), size), (qdot, kdot, vdot, Sdot, wdot)

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of q, k, v and of their tangents, by the formulas at the top of this file."""
        xp = array_namespace(dydot)
        T, (q, k, v, w, size), (qdot, kdot, vdot, Sdot, wdot) = xp.matrix_transpose, cache, tape
        scale, dodot = q.shape[-1] ** -0.5, self._heads(dydot)
        dwdot = dodot @ T(v)
        dSdot = slope(w, dwdot) * scale
        dw = xp.sum(dodot @ T(vdot), axis=0) + bend(w, Sdot, dwdot)
        dv = xp.sum(T(wdot) @ dodot, axis=0)
        if dy is not None:
            do = self._heads(dy)
            dw += do @ T(v)
            dv += T(w) @ do
        dS = slope(w, dw) * scale
        dq = dS @ k + xp.sum(dSdot @ kdot, axis=0)
        dk = T(dS) @ q + xp.sum(T(dSdot) @ qdot, axis=0)
        dots = self._join((dSdot @ k, T(dSdot) @ q, T(w) @ dodot), size)
        return (self._join((dq, dk, dv), size),), (dots,), {}

    def _heads(self, x: Array) -> Array:
        """(..., H, W, B, C) -> (..., B, heads, L, c)."""
        xp = array_namespace(x)
        *lead, H, W, B, C = x.shape
        n = len(lead)
        y = xp.reshape(x, (*lead, H * W, B, self.heads, C // self.heads))
        return xp.permute_dims(y, (*range(n), n + 1, n + 2, n, n + 3))

    def _split(self, x: Array) -> tuple[Array, Array, Array]:
        """(..., H, W, B, 3 C) -> q, k, v (..., B, heads, L, c)."""
        C = x.shape[-1] // 3
        return self._heads(x[..., :C]), self._heads(x[..., C : 2 * C]), self._heads(x[..., 2 * C :])

    def _join(self, parts: tuple[Array, ...], size: tuple[int, ...]) -> Array:
        """Each (..., B, heads, L, c) -> (..., H, W, B, C), side by side; size gives H, W and B."""
        xp = array_namespace(*parts)
        n = parts[0].ndim - 4
        images = [xp.permute_dims(o, (*range(n), n + 2, n, n + 1, n + 3)) for o in parts]
        shape = (*parts[0].shape[:n], *size[:3], -1)
        return xp.concat([xp.reshape(image, shape) for image in images], axis=-1)
