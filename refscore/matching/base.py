"""What every objective shares: which model, at which times and noise, and how much each counts. Chapter 3."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from refscore.arrays import flat, one_each, per_sample, views
from refscore.checks import check_array, check_like, settle
from refscore.library import array_namespace, device
from refscore.matching.times import FixedTime, TimeLaw
from refscore.matching.weights import unweighted
from refscore.protocols import SDE, Array, NeedsNoise, Rng, Time

Draws = tuple[Array, Array, Any]


@dataclass(frozen=True, kw_only=True)
class ScoreMatching(ABC):
    """What all objectives share: the law of the times t, the noise, and the weight of each level.

    Parameters
    ----------
    weight : callable (sde, t) -> λ(t), default `unweighted`
        `unweighted` (default), `sigma_squared`, `g_squared` or `SigmaPower`.
    times : TimeLaw, default `FixedTime(t=0.0)`
        `FixedTime`, `Levels`, `UniformTime` or `UniformLogSNR`. `FixedTime(0.0)` (default) matches the score of the
        data as they are, which needs a model that is finite there: `ScoreModel(..., predict="score")`.
    antithetic : bool, default False
        Spread the batch's times evenly, u_i = u + i/B mod 1: each is still uniform, the batch mean
        varies less (Kingma et al. 2021). Default False.
    """

    weight: Callable[[SDE, Time], Time] = unweighted
    times: TimeLaw = FixedTime(0.0)
    antithetic: bool = False

    def __post_init__(self) -> None:
        settle(self)

    @abstractmethod
    def __call__(self, model: Any, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """Draw times, noise and probes from rng: data x0 (B, ...) -> loss (0-d) and gradient (P,) at theta (P,)."""

    def check_model(self, model: Any) -> None:
        """Raise ValueError for a model that divides by zero at the times of this objective, as some do at t = 0."""
        check_like(model=model)
        if self.times == FixedTime(0.0) and isinstance(model, NeedsNoise):
            model.check_clean()

    def draw(self, sde: SDE, x0: Array, rng: Rng) -> Draws:
        """Draw t (B,) or (1,) and noise z (B, ...) for x0 (B, ...); the third result is the factor of the law of t."""
        check_like(sde=sde, rng=rng)
        check_array(x0=x0)
        B = x0.shape[0]
        if self.antithetic:
            xp = array_namespace(x0)
            u = rng.random((1,), dtype=x0.dtype)
            u = u + xp.arange(B, dtype=x0.dtype, device=device(x0)) / B
            u = u - xp.floor(u)
        else:
            u = rng.random((B,), dtype=x0.dtype)
        t, factor = self.times.at(sde, u)
        return t, rng.standard_normal(x0.shape, dtype=x0.dtype), factor

    def sample_weights(self, sde: SDE, x: Array, t: Array, factor: Any) -> Array:
        """Compute factor λ(t)/B: what one sample's loss adds to the mean, shaped to multiply x (B, ...)."""
        if not x.shape[0]:
            raise ValueError("there are no samples: of nothing there is no mean loss")
        return per_sample(one_each("factor", factor, x) * self.weight(sde, t) / x.shape[0], x)


def noised(sde: SDE, x0: Array, t: Array, z: Array) -> Array:
    """α(t) x₀ + σ(t) z, data with noise.

    Parameters
    ----------
    sde : SDE
        Gives α(t) and σ(t).
    x0 : Array, shape (B, ...)
        Data.
    t : Array, shape (B,) or (1,)
        Times in [0, 1].
    z : Array, shape (B, ...)
        Noise, N(0, I).

    Returns
    -------
    Array, shape (B, ...)
        Samples of p_t.
    """
    return per_sample(sde.alpha(t), x0) * x0 + per_sample(sde.sigma(t), x0) * z


class Terms(NamedTuple):
    """The loss of a batch, not yet added up, and what its gradient needs.

    Parameters
    ----------
    loss : Array, shape (B, ...)
        Its sum over all axes is the mean loss.
    cache : object
        From `model.forward`.
    ds : Array, shape (B, ...)
        Adjoint of the score.
    tape : object, optional
        From `model.jvp`, where the loss has tangents.
    dsdot : Array, shape (K, B, ...), optional
        Adjoint of the tangents.
    """

    loss: Array
    cache: Any
    ds: Array
    tape: Any = None
    dsdot: Array | None = None

    def mean_and_gradient(self, model: Any, theta: Array) -> tuple[Array, Array]:
        """The loss (0-d), and its gradient (P,) from the adjoints."""
        params = views(theta, model.shapes)
        if self.dsdot is None:
            _, grads = model.backward(params, self.cache, self.ds)
        else:
            _, _, grads = model.jvp_backward(params, self.cache, self.tape, self.ds, self.dsdot)
        return array_namespace(self.loss).sum(self.loss), flat(grads, model.shapes, theta)

    def per_sample(self) -> Array:
        """(B,), with the loss as its mean."""
        xp, B = array_namespace(self.loss), self.loss.shape[0]
        return B * xp.sum(xp.reshape(self.loss, (B, -1)), axis=1)


def repeat(t: Array, n: int) -> Array:
    """Repeat the times for a batch that is n copies of another.

    Parameters
    ----------
    t : Array, shape (B,) or (1,)
        One time a sample, or one for all.
    n : int
        Number of copies.

    Returns
    -------
    Array, shape (n B,) or (1,)
        t n times over; a t of shape (1,), which all share, as it is.
    """
    return t if t.shape == (1,) else array_namespace(t).concat([t] * n)
