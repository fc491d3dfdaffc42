"""GroupNorm: each sample's groups of channels at mean 0 and mean square 1. Chapter 14.               Wu and He 2018.

With c = x - mean x, r = √(mean c² + eps) and n = c/r, means over the pixels and the channels of a group,

    y = g n + b,   J a = (a - mean a - n mean(n a))/r,   J symmetric                            Eqs. (14.11), (14.12)

    jvp            ẏ = g J ẋ
    backward       dx = J (g dy)
    jvp_backward   dx = J (g dy) - Σ_k (n mean(q Ja) + Jq mean(n a) + Ja mean(n q))/r,   dẋ = J q,   a = ẋ, q = g dẏ

Eqs. (14.13), (14.14). The bracket: n and r move with x, ṅ = J ẋ and ṙ = mean(n ẋ), so that <q, J a> changes by
-<q, ṙ J a + ṅ mean(n a) + n mean(ṅ a)>/r, and <ṅ, a> = <ẋ, J a>.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from refscore.arrays import constant
from refscore.checks import check_like, check_positive, settle
from refscore.library import array_namespace
from refscore.nn.layer import Adjoints, Grads, plus, times
from refscore.protocols import Array, Params, Rng


@dataclass(frozen=True)
class GroupNorm:
    """Images (H, W, B, n), or vectors (B, n) that have no pixels -> the same shape, normalised sample by sample.

    One group is layer norm, as many groups as channels is instance norm: see `LayerNorm` and `InstanceNorm`. A group
    of one number, one channel of one pixel, is its own mean: y is b there, whatever x.

    Parameters
    ----------
    n : int
        Number of channels.
    groups : int, default 8
        Number of groups; it divides n.
    eps : float, default 1e-05
        Added to the mean square: a constant image becomes 0.

    Raises
    ------
    ValueError
        For groups that do not divide n, n < 1, or an eps that is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.nn import GroupNorm
    >>> params = {"g": np.ones(4), "b": np.zeros(4)}
    >>> GroupNorm(4, groups=2).forward(params, np.array([[1.0, 3.0, 10.0, 30.0]]))[0].round(4)
    array([[-1.,  1., -1.,  1.]])
    """

    n: int
    groups: int = 8
    eps: float = 1e-5

    def __post_init__(self) -> None:
        settle(self, n=1, groups=1)
        check_positive(eps=self.eps)
        if self.n % self.groups:
            raise ValueError(f"{self.groups} groups do not divide {self.n} channels")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters: g and b (n,)."""
        return {"g": (self.n,), "b": (self.n,)}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Set every scale g to 1, and every shift b to 0."""
        check_like(rng=rng)
        like = rng.standard_normal((self.n,), dtype=dtype)
        return {"g": constant(1.0, like), "b": constant(0.0, like)}

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (..., B, n) -> y, and the cache: c = x - mean x, as (pixels, B, n), and 1/r (B, n)."""
        (x,) = xs
        xp = array_namespace(x)
        c = xp.reshape(x, (-1, *x.shape[-2:]))
        c = c - self._mean(c)
        inverse = 1 / xp.sqrt(self._mean(c * c) + self.eps)
        y = c * (inverse * params["g"])
        y += params["b"]
        return xp.reshape(y, x.shape), (c, inverse)

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoint of the input, dx = J (g dy); what is summed over the pixels first gives dg and db as well."""
        xp, (c, inverse), g = array_namespace(dy), cache, params["g"]
        d = xp.reshape(dy, c.shape)
        s, t = xp.sum(d, axis=0), xp.sum(d * c, axis=0) * inverse  # Σ dy, Σ n dy: (B, n)
        dx = d * (inverse * g)
        dx -= c * (inverse**2 * self._spread(g * t, c))
        dx -= inverse * self._spread(g * s, c)
        return (xp.reshape(dx, dy.shape),), {"g": xp.sum(t, axis=0), "b": xp.sum(s, axis=0)}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ẏ = g J ẋ; the tape keeps ẋ and J ẋ, both (K, pixels, B, n)."""
        (xdot,) = xdots
        if xdot is None:
            return None, None
        xp, (c, _) = array_namespace(xdot), cache
        a = xp.reshape(xdot, (-1, *c.shape))
        Ja = self._J(cache, a)
        return xp.reshape(params["g"] * Ja, xdot.shape), (a, Ja)

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of the input and of its tangents, by the formulas at the top of this file."""
        xp, (c, inverse), (a, Ja) = array_namespace(dydot), cache, tape
        dots = xp.reshape(dydot, a.shape)
        q, n = params["g"] * dots, c * inverse
        Jq = self._J(cache, q)
        bent = n * self._mean(q * Ja) + Jq * self._mean(n * a) + Ja * self._mean(n * q)
        dx = xp.reshape(-inverse * xp.sum(bent, axis=0), dydot.shape[1:])
        grads = {"g": xp.sum(dots * Ja, axis=(0, 1, 2)), "b": constant(0.0, params["b"])}
        if dy is not None:
            (first,), more = self.backward(params, cache, dy)
            dx, grads = dx + first, {name: grads[name] + more[name] for name in grads}
        return (dx,), (xp.reshape(Jq, dydot.shape),), grads

    def _J(self, cache: Any, a: Array) -> Array:
        """(a - mean a - n mean(n a))/r for each a (K, pixels, B, n)."""
        c, inverse = cache
        y = a - self._mean(a)
        y -= c * (inverse**2 * self._mean(a * c))
        y *= inverse
        return y

    def _mean(self, x: Array) -> Array:
        """Means over pixels and group, for every channel: (..., pixels, B, n) -> (B, n) or (K, 1, B, n)."""
        mean = self._spread(array_namespace(x).sum(x, axis=-3), x)
        return mean[:, None, :, :] if x.ndim > 3 else mean

    def _spread(self, total: Array, x: Array) -> Array:
        """Sums over the pixels (..., B, n) -> the mean over pixels and group, for every channel (..., B, n)."""
        xp, size = array_namespace(total), x.shape[-3] * (self.n // self.groups)
        grouped = xp.reshape(total, (*total.shape[:-1], self.groups, -1))
        mean = xp.sum(grouped, axis=-1, keepdims=True) / size
        return xp.reshape(xp.broadcast_to(mean, grouped.shape), total.shape)


def LayerNorm(n: int, eps: float = 1e-5) -> GroupNorm:
    """All channels, and pixels if there are any, together: a `GroupNorm` of one group.                Ba et al. 2016.

    Parameters
    ----------
    n : int
        Number of channels.
    eps : float, default 1e-05
        Added to the mean square.

    Returns
    -------
    GroupNorm
        The layer.
    """
    return GroupNorm(n, 1, eps)


def InstanceNorm(n: int, eps: float = 1e-5) -> GroupNorm:
    """Each channel for itself, over the pixels: a `GroupNorm` of n groups.                       Ulyanov et al. 2016.

    Parameters
    ----------
    n : int
        Number of channels.
    eps : float, default 1e-05
        Added to the mean square.

    Returns
    -------
    GroupNorm
        The layer.
    """
    return GroupNorm(n, n, eps)


@dataclass(frozen=True)
class ScaleShift:
    """y = x (1 + γ) + β: a normalised image told by e = [γ, β] how large each channel is.     Dumoulin et al. 2017.

    x (H, W, B, C), e (B or 1, 2 C) -> y (H, W, B, C); adjoints and tangents go to both. The map is bilinear:

        jvp            ẏ = ẋ (1 + γ) + x γ̇ + β̇
        jvp_backward   dx = (1 + γ) dy + Σ_k γ̇ dẏ,   dγ = Σ (x dy + Σ_k ẋ dẏ),   dβ = Σ dy,
                       dẋ = (1 + γ) dẏ,   dγ̇ = Σ x dẏ,   dβ̇ = Σ dẏ                      Σ over the pixels
    """

    shapes: ClassVar[dict[str, tuple[int, ...]]] = {}

    def init(self, rng: Rng, dtype: Any = "float32") -> Grads:
        """Return an empty dict: there is nothing to learn."""
        return {}

    def forward(self, params: Params, *xs: Array) -> tuple[Array, Any]:
        """x (H, W, B, C), e (B or 1, 2 C) -> y (H, W, B, C), and the cache: x and e."""
        x, e = xs
        gamma, beta = _halves(e)
        y = x * (1 + gamma)
        y += beta
        return y, xs

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """Adjoints of both inputs, dx = (1 + γ) dy, de = [Σ x dy, Σ dy]."""
        x, e = cache
        return ((1 + _halves(e)[0]) * dy, _both(x * dy, dy, e, dy.ndim - 4)), {}

    def jvp(self, params: Params, cache: Any, *xdots: Array | None) -> tuple[Array | None, Any]:
        """Tangents of the output, ẏ = ẋ (1 + γ) + x γ̇ + β̇; the tape keeps ẋ and ė."""
        (x, e), (xdot, edot) = cache, xdots
        ydot = times(xdot, 1 + _halves(e)[0])
        if edot is not None:
            gamma, beta = (a[:, None, None, :, :] for a in _halves(edot))
            ydot = plus(ydot, x * gamma + beta)
        return ydot, xdots

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """Adjoints of the inputs and of their tangents, by the formulas above."""
        xp, (x, e), (xdot, edot) = array_namespace(dydot), cache, tape
        dx, de = (None, None) if dy is None else self.backward(params, cache, dy)[0]
        dxdot = dedot = None
        if xdot is not None:
            dxdot = (1 + _halves(e)[0]) * dydot
            more = xp.sum(xdot * dydot, axis=0)
            de = plus(de, _both(more, constant(0.0, more), e, 0))
        if edot is not None:
            dx = plus(dx, xp.sum(_halves(edot)[0][:, None, None, :, :] * dydot, axis=0))
            dedot = _both(x * dydot, dydot, e, 1)
        return (dx, de), (dxdot, dedot), {}


def _halves(e: Array) -> tuple[Array, Array]:
    """[γ, β] -> γ, β."""
    C = e.shape[-1] // 2
    return e[..., :C], e[..., C:]


def _both(dgamma: Array, dbeta: Array, e: Array, stack: int) -> Array:
    """Adjoints of γ and β at every pixel, (..., H, W, B, C) -> that of e, (..., B or 1, 2 C)."""
    xp = array_namespace(dgamma)
    axes = (stack, stack + 1)
    de = xp.concat([xp.sum(d, axis=axes) for d in (dgamma, dbeta)], axis=-1)
    return xp.sum(de, axis=-2, keepdims=True) if e.shape[0] == 1 and de.shape[-2] != 1 else de
