"""ScoreModel: a network of ordinary size, made into a score at every noise level."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from refscore.arrays import (
    SDE,
    Array,
    Params,
    Rng,
    Score,
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

# What a network is asked for, told by the factor that makes a score of it: (c, σ) -> factor.
PREDICTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "noise": lambda c, sigma: -1 / sigma,
    "score": lambda c, sigma: c,
}


@dataclass(frozen=True)
class Scales:
    """How a network of ordinary size is told x, and how its answer becomes a score.

    Inputs c x, c = 1/√(α² σ_d² + σ²), have unit variance at every level, and outputs are of order 1:

        predict="noise"   s = -F(c x, ℓ)/σ      F is E[z | x] = -σ s (Tweedie); Ho et al. 2020. Needs σ > 0
        predict="score"   s = c F(c x, ℓ)       for data of one scale, also without noise

    ℓ = log σ/α tells the level to bodies that read it.

    Raises
    ------
    ValueError
        Unless data_std is positive and finite; for a prediction that is not in `PREDICTIONS`.
    """

    body: Net
    sde: SDE
    data_std: float = 1.0
    predict: str = "noise"

    def __post_init__(self) -> None:
        check_positive(data_std=self.data_std)
        if self.predict not in PREDICTIONS:
            raise ValueError(f"predict must be one of {', '.join(PREDICTIONS)}; got {self.predict!r}")

    @property
    def shapes(self) -> Shapes:
        """Those of the body."""
        return self.body.shapes

    def init(self, rng: Rng, dtype: Any = "float32") -> Array:
        """Initial parameters as one flat vector θ."""
        return flat(self.body.init(rng, dtype), self.shapes)

    def scales(self, x: Array, t: Time) -> tuple[Array, Array, tuple[Array, ...]]:
        """c and the factor of the output, shaped to multiply x, and the level if the body reads one."""
        t = at(t, x)
        alpha, sigma = self.sde.alpha(t), self.sde.sigma(t)
        c = 1 / namespace(t).sqrt(alpha**2 * self.data_std**2 + sigma**2)
        level = (log_ratio(self.sde, t),) if "level" in self.body.inputs else ()
        return per_sample(c, x), per_sample(PREDICTIONS[self.predict](c, sigma), x), level

    @property
    def no_tangent(self) -> tuple[None, ...]:
        """For the level, if the body reads one."""
        return (None,) * (len(self.body.inputs) - 1)


@dataclass(frozen=True)
class ScoreModel(Scales):
    """s(x, t) = factor F(c x, ℓ): the network answers with a vector, see `Scales`.

    Parameters
    ----------
    body : Net
        Reads x (B, ...) and, if it has a "level" input, ℓ (B,) or (1,); answers in the shape of x.
    sde : SDE
    data_std : float
        σ_d, standard deviation of the data about 0, per coordinate.
    predict : str
        "noise" (default) or "score".

    A layer like any other: t takes the place of the second input, and carries no tangent.

    Raises
    ------
    ValueError
        Unless data_std is positive and finite; for an unknown prediction.
    """

    def bind(self, theta: Array) -> Score:
        """The score (x, t) -> (B, ...) at these parameters."""
        params = views(theta, self.shapes)

        def score(x: Array, t: Time) -> Array:
            c, out, level = self.scales(x, t)
            return out * self.body.apply(params, c * x, *level)

        return score

    def forward(self, params: Params, x: Array, t: Time) -> tuple[Array, Any]:
        """x (B, ...), t (B,) or (1,) -> s (B, ...), and the cache."""
        c, out, level = self.scales(x, t)
        y, cache = self.body.forward(params, c * x, *level)
        return out * y, (cache, c, out)

    def backward(self, params: Params, cache: Any, dy: Array) -> tuple[Adjoints, Grads]:
        """ds -> (dx,) and the gradients."""
        cache, c, out = cache
        dxs, grads = self.body.backward(params, cache, out * dy)
        return (c * dxs[0],), grads

    def jvp(self, params: Params, cache: Any, xdot: Array | None) -> tuple[Array | None, Any]:
        """ẋ (K, B, ...) -> ṡ (K, B, ...), and the tape."""
        cache, c, out = cache
        ydot, tape = self.body.jvp(params, cache, None if xdot is None else c * xdot, *self.no_tangent)
        return (None if ydot is None else out * ydot), tape

    def jvp_backward(
        self, params: Params, cache: Any, tape: Any, dy: Array | None, dydot: Array
    ) -> tuple[Adjoints, Adjoints, Grads]:
        """ds, dṡ -> (dx,), (dẋ,) and the gradients."""
        cache, c, out = cache
        dxs, dxdots, grads = self.body.jvp_backward(params, cache, tape, None if dy is None else out * dy, out * dydot)
        dx = None if dxs[0] is None else c * dxs[0]  # a linear body sends x nothing unless ds does
        return (dx,), (c * dxdots[0],), grads
