"""Objectives: what a score model is trained on, with its gradient. Chapters 3 and 6.

An objective is called as (model, theta, x0, rng) -> (loss, gradient): it draws its times, noise and
probes and hands them to its pure part, `at`, which draws nothing. Losses are ½ E‖·‖², summed over
dimensions, averaged over the batch. The SDE is the model's, so there are never two.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from array_api_compat import array_namespace

from refscore.arrays import SDE, Array, Rng, Shapes, Time, at, flat, per_sample, views
from refscore.sde import log_ratio


class Model(Protocol):
    """What an objective asks of a score model: its SDE, its layout, and the passes of a layer."""

    @property
    def sde(self) -> SDE:
        """The SDE whose marginal scores it learns."""

    @property
    def shapes(self) -> Shapes:
        """Layout of the flat vector θ."""

    def init(self, rng: Rng, dtype: Any = ...) -> Array:
        """A first θ."""

    def forward(self, params: Any, x: Array, t: Time) -> tuple[Array, Any]:
        """x, t -> score and cache."""

    def backward(self, params: Any, cache: Any, dy: Array) -> tuple[Any, Any]:
        """Adjoint of the score -> (dx,), gradients."""


class Objective(Protocol):
    """What `fit` asks of an objective."""

    def __call__(self, model: Any, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """Loss (0-d) and gradient, of the shape of theta."""


# ------------------------------------------------------------------ laws of the time


def _check_t_min(t_min: float) -> None:
    if not 0 < t_min < 1:
        raise ValueError(f"t_min must lie in (0, 1), got {t_min}")


class TimeLaw(Protocol):
    """A law of t on (0, 1], told by its quantiles."""

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """u in [0, 1) -> t, and a factor for the loss: 1, or what makes the mean that of uniform t on [t_min, 1]."""


@dataclass(frozen=True)
class UniformTime:
    """t uniform on [t_min, 1]. Below t_min σ is so small that the loss would be all noise."""

    t_min: float = 1e-3

    def __post_init__(self) -> None:
        _check_t_min(self.t_min)

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """t = t_min + u (1 - t_min), factor 1."""
        return self.t_min + u * (1 - self.t_min), 1.0


@dataclass(frozen=True)
class UniformLogSNR:
    """log σ/α uniform between its values at t_min and 1: density ∝ g²/σ².

    For every linear SDE d(log σ/α)/dt = g²/(2σ²), so that drawing t with density ∝ g²/σ², which Song et
    al. 2021 (arXiv 2101.09258) propose to lower the variance of likelihood weighting, needs no
    numerical inversion: it is this. The factor undoes it, so the expected loss is that of uniform t.
    """

    t_min: float = 1e-3

    def __post_init__(self) -> None:
        _check_t_min(self.t_min)

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """ℓ = ℓ(t_min) + u (ℓ(1) - ℓ(t_min)), t its inverse; factor 2σ²/g² (ℓ(1) - ℓ(t_min))/(1 - t_min)."""
        low, high = log_ratio(sde, self.t_min), log_ratio(sde, 1.0)
        # The inverse may round to a hair above 1.
        t = array_namespace(u).minimum(sde.time_at_log_ratio(low + u * (high - low)), 1.0)
        rate = 2 * (high - low) / (1 - self.t_min)
        return t, rate * (sde.sigma(t) / sde.g(t)) ** 2


@dataclass(frozen=True)
class FixedTime:
    """One noise level for all: `FixedTime(sde.time(0.5))` trains at σ = 0.5 only."""

    t: float

    def __post_init__(self) -> None:
        if not 0 < self.t <= 1:
            raise ValueError(f"t must lie in (0, 1], got {self.t}: at t = 0 there is no noise to remove")

    def at(self, sde: SDE, u: Array) -> tuple[Array, Any]:
        """t (1,), whatever u."""
        return at(float(self.t), u), 1.0


# ------------------------------------------------------------------ weights λ(t)


def sigma_squared(sde: SDE, t: Time) -> Time:
    """λ = σ²: every level counts alike, ½ E‖z - ẑ‖² (up to the ½, the "simple" loss of Ho et al. 2020)."""
    return sde.sigma(t) ** 2


def g_squared(sde: SDE, t: Time) -> Time:
    """λ = g²: likelihood weighting; the excess bounds KL(data ‖ reverse SDE), up to the ends (arXiv 2101.09258)."""
    return sde.g(t) ** 2


def unweighted(sde: SDE, t: Time) -> Time:
    """λ = 1: the plain Fisher divergence, ruled by the smallest noise."""
    return 1 + 0 * t


# ------------------------------------------------------------------ denoising score matching


@dataclass(frozen=True)
class Denoising:
    """Denoising score matching over an SDE                Vincent 2011; Song et al. 2021, Eq. (7).

        L(θ) = E_t λ(t) ½ E‖s_θ(x_t, t) + z/σ(t)‖²,   x_t = α x₀ + σ z

    The minimiser is ∇log p_t, the minimum is not zero: `denoising_floor` computes it.

    Parameters
    ----------
    weight : callable (sde, t) -> λ(t)
        `sigma_squared` (default), `g_squared` or `unweighted`.
    times : TimeLaw
        `UniformTime` (default), `UniformLogSNR` or `FixedTime`.
    antithetic : bool
        Spread the batch's times evenly, u_i = u + i/B mod 1: each is still uniform, the batch mean
        varies less (Kingma et al. 2021).
    """

    weight: Callable[[SDE, Time], Time] = sigma_squared
    times: TimeLaw = UniformTime()
    antithetic: bool = False

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,), at times and noise drawn from rng."""
        B = x0.shape[0]
        if self.antithetic:
            xp = array_namespace(x0)
            u = rng.random((1,), dtype=x0.dtype)
            u = u + xp.arange(B, dtype=x0.dtype, device=x0.device) / B
            u = u - xp.floor(u)
        else:
            u = rng.random((B,), dtype=x0.dtype)
        t, factor = self.times.at(model.sde, u)
        z = rng.standard_normal(x0.shape, dtype=x0.dtype)
        return self.at(model, theta, x0, t, z, factor)

    def at(self, model: Model, theta: Array, x0: Array, t: Array, z: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The pure part: x0, z (B, ...), t and factor (B,) or (1,) -> loss (0-d), gradient (P,)."""
        xp = array_namespace(x0)
        sde, params = model.sde, views(theta, model.shapes)
        alpha, sigma = per_sample(sde.alpha(t), x0), per_sample(sde.sigma(t), x0)
        s, cache = model.forward(params, alpha * x0 + sigma * z, t)
        error = s + z / sigma
        ds = per_sample(factor * self.weight(sde, t) / x0.shape[0], x0) * error
        loss = 0.5 * xp.sum(ds * error)
        _, grads = model.backward(params, cache, ds)
        return loss, flat(grads, model.shapes)


OBJECTIVES: dict[str, Objective] = {"denoising": Denoising()}
