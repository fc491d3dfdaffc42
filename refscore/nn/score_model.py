"""ScoreModel: a network of ordinary size, made into a score at every noise level."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refscore.arrays import (
    SDE,
    Array,
    Params,
    Rng,
    Shapes,
    Time,
    at,
    check_positive,
    flat,
    namespace,
    per_sample,
    views,
)
from refscore.nn.layer import Adjoints, Grads
from refscore.nn.net import Net
from refscore.sde import log_ratio


@dataclass(frozen=True)
class ScoreModel:
    """s(x, t) = -F(c x, ℓ)/σ(t), where the network F predicts the noise z of x = α x₀ + σ z.

    c = 1/√(α² σ_d² + σ²) brings inputs of every level to unit variance, ℓ = log σ/α tells the level;
    since E[z | x] = -σ s (Tweedie), F has outputs of order 1 at most, at every level (the noise
    parametrisation, Ho et al. 2020).

    Parameters
    ----------
    body : Net
        Reads x (B, ...) and, if it has a "level" input, ℓ (B,) or (1,); answers in the shape of x.
    sde : SDE
    data_std : float
        σ_d, standard deviation of the data about 0, per coordinate.

    A layer like any other: t takes the place of the second input, and carries no tangent.

    Raises
    ------
    ValueError
        Unless data_std is positive and finite.
    """

    body: Net
    sde: SDE
    data_std: float = 1.0

    def __post_init__(self) -> None:
        check_positive(data_std=self.data_std)

    @property
    def shapes(self) -> Shapes:
        """Those of the body."""
        return self.body.shapes

    def init(self, rng: Rng, dtype: Any = "float32") -> Array:
        """Initial parameters as one flat vector θ."""
        return flat(self.body.init(rng, dtype), self.shapes)

    def bind(self, theta: Array) -> Callable[[Array, Time], Array]:
        """The score (x, t) -> (B, ...) at these parameters."""
        params = views(theta, self.shapes)

        def score(x: Array, t: Time) -> Array:
            scale, out, level = self._scales(x, t)
            return out * self.body.apply(params, scale * x, *level)

        return score

    def forward(self, params: Params, x: Array, t: Time) -> tuple[Array, Any]:
        """x (B, ...), t (B,) or (1,) -> s (B, ...), and the cache."""
        scale, out, level = self._scales(x, t)
        y, cache = self.body.forward(params, scale * x, *level)
        return out * y, (cache, scale, out)

    def _scales(self, x: Array, t: Time) -> tuple[Array, Array, tuple[Array, ...]]:
        """c and -1/σ, shaped to multiply x, and the level if the body reads one."""
        t = at(t, x)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        scale = 1 / namespace(t).sqrt(alpha**2 * self.data_std**2 + sigma**2)
        level = (log_ratio(self.sde, t),) if "level" in self.body.inputs else ()
        return per_sample(scale, x), per_sample(-1 / sigma, x), level

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """ds -> (dx,) and the gradients."""
        cache, scale, out = cache
        dxs, grads = self.body.backward(params, cache, out * dy)
        return (scale * dxs[0],), grads

    def jvp(self, params: Params, cache: Any, xdot: Array | None) -> tuple[Array | None, Any]:
        """ẋ (K, B, ...) -> ṡ (K, B, ...), and the tape."""
        cache, scale, out = cache
        ydot, tape = self.body.jvp(params, cache, None if xdot is None else scale * xdot, *self._no_tangent)
        return (None if ydot is None else out * ydot), tape

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """ds, dṡ -> (dx,), (dẋ,) and the gradients."""
        cache, scale, out = cache
        dxs, dxdots, grads = self.body.jvp_backward(params, cache, tape, None if dy is None else out * dy, out * dydot)
        dx = None if dxs[0] is None else scale * dxs[0]  # a linear body sends x nothing unless ds does
        return (dx,), (scale * dxdots[0],), grads

    @property
    def _no_tangent(self) -> tuple[None, ...]:
        return (None,) * (len(self.body.inputs) - 1)
