"""Objectives: what a score model is trained on, with its gradient. Chapters 3 and 6.

    Explicit           ½ ‖s - ∇log p‖²                      the score is known
    Implicit           tr ∇s + ½ ‖s‖²                        samples only; D tangents
    Sliced             vᵀ∇s v + ½ ‖s‖²                       samples only; K tangents
    FiniteDifference   vᵀ[s(x + hv) - s(x - hv)]/2h + ...    samples only; no tangent
    Denoising          ½ ‖s(x̃) + z/σ‖²                       samples and noise

each averaged over x ~ p_t and over t with a weight: L(θ) = E_t λ(t) E_x[...], summed over dimensions,
averaged over the batch. An objective is called as (model, theta, x0, rng) -> (loss, gradient): it draws
its times, noise and probes and hands them to its pure part, `at`, which draws nothing. The SDE is the
model's, so there are never two.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from array_api_compat import array_namespace, device

from refscore.arrays import SDE, Array, Rng, Score, Shapes, Time, check_positive, flat, per_sample, views
from refscore.levels import FixedTime, TimeLaw, UniformTime, sigma_squared, unweighted
from refscore.probes import Probes, rademacher, units

Draws = tuple[Array, Array, Any]


class Model(Protocol):
    """What an objective asks of a score model: its SDE, its layout, and the passes of a layer.

    `Implicit` and `Sliced` ask for `jvp` and `jvp_backward` as well (see `refscore.nn.layer`).
    """

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


@dataclass(frozen=True, kw_only=True)
class ScoreMatching(ABC):
    """What all objectives share: where t and x come from, and what they count.

    Parameters
    ----------
    weight : callable (sde, t) -> λ(t)
        `unweighted`, `sigma_squared`, `g_squared` or `SigmaPower`.
    times : TimeLaw
        `FixedTime`, `Levels`, `UniformTime` or `UniformLogSNR`. `FixedTime(0.0)` matches the score of the data
        as they are, which needs a model that is finite there: `ScoreModel(..., predict="score")`.
    antithetic : bool
        Spread the batch's times evenly, u_i = u + i/B mod 1: each is still uniform, the batch mean
        varies less (Kingma et al. 2021).
    """

    weight: Callable[[SDE, Time], Time] = unweighted
    times: TimeLaw = FixedTime(0.0)
    antithetic: bool = False

    @abstractmethod
    def __call__(self, model: Any, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,), with all that is random drawn from rng."""

    def draw(self, sde: SDE, x0: Array, rng: Rng) -> Draws:
        """t (B,) or (1,), noise z (B, ...), and the factor that undoes the law of t."""
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

    def share(self, sde: SDE, x: Array, t: Array, factor: Any) -> Array:
        """factor λ(t)/B: what one sample's loss adds to the mean, shaped to multiply x."""
        return per_sample(factor * self.weight(sde, t) / x.shape[0], x)


@dataclass(frozen=True)
class Explicit(ScoreMatching):
    """½ E‖s_θ(x, t) - s*(x, t)‖²: the Fisher divergence itself            Hyvärinen 2005. Eq. (3.1)

    For laws whose score s* is known, and as the truth that the other objectives are held against.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        s*, e.g. `ExactScore(mixture, sde)`.
    """

    score: Score

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,)."""
        t, z, factor = self.draw(model.sde, x0, rng)
        return self.at(model, theta, noised(model.sde, x0, t, z), t, factor)

    def at(self, model: Model, theta: Array, x: Array, t: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The pure part: x (B, ...) ~ p_t, t and factor (B,) or (1,) -> loss (0-d), gradient (P,)."""
        s, cache = model.forward(views(theta, model.shapes), x, t)
        error = s - self.score(x, t)
        ds = self.share(model.sde, x, t, factor) * error
        return _pull_back(model, theta, cache, 0.5 * array_namespace(x).sum(ds * error), ds)


@dataclass(frozen=True)
class Implicit(ScoreMatching):
    """E[tr ∇s_θ(x, t) + ½ ‖s_θ(x, t)‖²]                        Hyvärinen 2005, Theorem 1. Eq. (3.3)

    Equals `Explicit` less ½ E‖s*‖², a constant that nobody needs to know; so it may be negative. One tangent per
    dimension: for few dimensions only.
    """

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,)."""
        t, z, factor = self.draw(model.sde, x0, rng)
        return self.at(model, theta, noised(model.sde, x0, t, z), t, factor)

    def at(self, model: Any, theta: Array, x: Array, t: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The pure part: x (B, ...) ~ p_t, t and factor (B,) or (1,) -> loss (0-d), gradient (P,)."""
        w = self.share(model.sde, x, t, factor)
        return _with_divergence(self, model, theta, x, t, units(x), w, w, reduced=True)


@dataclass(frozen=True)
class Sliced(ScoreMatching):
    """E[1/K Σ_k vᵀ∇s_θ v + ½ ‖s_θ‖²], v random with E vvᵀ = I             Song et al. 2019. Eq. (3.6)

    Parameters
    ----------
    probes : int
        K, the number of random directions per sample.
    law : callable (rng, shape, dtype) -> v
        `rademacher` (default), `gaussian` or `sphere`, all with E vvᵀ = I. Probes of unit length would weigh the first
        term 1/D of the second, and have another minimiser.
    reduced : bool
        True (default) takes ½ ‖s‖² itself, False its estimate ½ (vᵀs)², which varies more.

    Raises
    ------
    ValueError
        Unless probes >= 1; in `at`, for probes whose shape does not go with x.
    TypeError
        For a model without the passes `jvp` and `jvp_backward`.
    """

    probes: int = 1
    law: Probes = rademacher
    reduced: bool = True

    def __post_init__(self) -> None:
        _check_probes(self.probes)

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,)."""
        t, z, factor = self.draw(model.sde, x0, rng)
        v = self.law(rng, (self.probes, *x0.shape), x0.dtype)
        return self.at(model, theta, noised(model.sde, x0, t, z), t, v, factor)

    def at(self, model: Any, theta: Array, x: Array, t: Array, v: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The pure part: x (B, ...) ~ p_t, probes v (K, B, ...) -> loss (0-d), gradient (P,)."""
        _check_match(v, x)
        w = self.share(model.sde, x, t, factor)
        return _with_divergence(self, model, theta, x, t, v, w, w / v.shape[0], self.reduced)


@dataclass(frozen=True)
class FiniteDifference(ScoreMatching):
    """E[1/K Σ_k vᵀ(s₊ - s₋)/2h + ½ ‖½ (s₊ + s₋)‖²], s± = s_θ(x ± hv)        Pang et al. 2020. Eq. (3.9)

    Sliced score matching, up to O(h²), from values of s alone: for a model that has no tangents, or none for free.
    In float32 the rounding error u |s|/h and the bias, of order h², balance at steps of some 5e-3 of the scale on which
    s varies.

    Parameters
    ----------
    step : float
        h, in the units of x.
    probes, law
        As for `Sliced`.

    Raises
    ------
    ValueError
        Unless step > 0 and probes >= 1; in `at`, for probes whose shape does not go with x.
    """

    step: float = 1e-2
    probes: int = 1
    law: Probes = rademacher

    def __post_init__(self) -> None:
        check_positive(step=self.step)
        _check_probes(self.probes)

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,)."""
        t, z, factor = self.draw(model.sde, x0, rng)
        v = self.law(rng, (self.probes, *x0.shape), x0.dtype)
        return self.at(model, theta, noised(model.sde, x0, t, z), t, v, factor)

    def at(self, model: Model, theta: Array, x: Array, t: Array, v: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The pure part: x (B, ...) ~ p_t, probes v (K, B, ...) -> loss (0-d), gradient (P,)."""
        _check_match(v, x)
        xp, K = array_namespace(x), v.shape[0]
        around = xp.reshape(xp.stack([x + self.step * v, x - self.step * v]), (-1, *x.shape[1:]))
        s, cache = model.forward(views(theta, model.shapes), around, _repeat(t, 2 * K))
        s = xp.reshape(s, (2, *v.shape))
        mean, slope = 0.5 * (s[0, ...] + s[1, ...]), (s[0, ...] - s[1, ...]) / (2 * self.step)
        w = self.share(model.sde, x, t, factor) / K
        loss = xp.sum(w * (v * slope + 0.5 * mean * mean))
        half, tilt = 0.5 * w * mean, w * v / (2 * self.step)  # ∂mean/∂s± = ½, ∂slope/∂s± = ±1/2h
        ds = xp.reshape(xp.stack([half + tilt, half - tilt]), around.shape)
        return _pull_back(model, theta, cache, loss, ds)


@dataclass(frozen=True, kw_only=True)
class Denoising(ScoreMatching):
    """E_t λ(t) ½ E‖s_θ(x_t, t) + z/σ(t)‖², x_t = α x₀ + σ z  Vincent 2011; Song et al. 2021, Eq. (7). Eq. (3.10)

    The minimiser is ∇log p_t, the minimum is not zero: `denoising_floor` computes it. Weighted with σ² (the default)
    over `Levels` it is the objective of Song and Ermon 2019, over `UniformTime` that of Song et al. 2021.

    Parameters
    ----------
    control : bool
        Subtract z·s_θ(α x₀)/σ + ½ (‖z‖² - D)/σ², Eq. (3.14), whose mean given x₀ is zero for every θ (Song and Kingma
        2021, arXiv 2101.03288): the same expected loss and gradient. At small σ the variance of the plain loss grows
        as 1/σ⁴; with it, it does not. It costs a second evaluation, and at large σ it adds variance.

    Raises
    ------
    ValueError
        For `FixedTime(0.0)`: without noise there is nothing to remove.
    """

    weight: Callable[[SDE, Time], Time] = sigma_squared
    times: TimeLaw = UniformTime()
    control: bool = False

    def __post_init__(self) -> None:
        if self.times == FixedTime(0.0):
            raise ValueError("denoising needs noise, and at t = 0 there is none to remove: give a time above 0")

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,), at times and noise drawn from rng."""
        return self.at(model, theta, x0, *self.draw(model.sde, x0, rng))

    def at(self, model: Model, theta: Array, x0: Array, t: Array, z: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The pure part: x0, z (B, ...), t and factor (B,) or (1,) -> loss (0-d), gradient (P,)."""
        xp, params = array_namespace(x0), views(theta, model.shapes)
        push = z / per_sample(model.sde.sigma(t), x0)  # minus the score of the kernel
        w = self.share(model.sde, x0, t, factor)
        x = noised(model.sde, x0, t, z)
        if not self.control:
            s, cache = model.forward(params, x, t)
            error = s + push
            ds = w * error
            return _pull_back(model, theta, cache, 0.5 * xp.sum(ds * error), ds)
        clean = per_sample(model.sde.alpha(t), x0) * x0
        s, cache = model.forward(params, xp.concat([x, clean]), _repeat(t, 2))
        s, s_clean = s[: x0.shape[0], ...], s[x0.shape[0] :, ...]
        error = s + push
        expected = per_sample(model.sde.sigma(t) ** -2, x0)  # of each push²
        loss = xp.sum(w * (0.5 * (error * error - push * push + expected) - push * s_clean))
        return _pull_back(model, theta, cache, loss, xp.concat([w * error, -w * push]))


def noised(sde: SDE, x0: Array, t: Array, z: Array) -> Array:
    """α(t) x₀ + σ(t) z."""
    return per_sample(sde.alpha(t), x0) * x0 + per_sample(sde.sigma(t), x0) * z


def _pull_back(model: Model, theta: Array, cache: Any, loss: Array, ds: Array) -> tuple[Array, Array]:
    """The loss, and its gradient from the adjoint of the score."""
    _, grads = model.backward(views(theta, model.shapes), cache, ds)
    return loss, flat(grads, model.shapes)


def _with_divergence(
    objective: ScoreMatching, model: Any, theta: Array, x: Array, t: Array, v: Array,
    w: Array, each: Array, reduced: bool,
) -> tuple[Array, Array]:  # fmt: skip
    """Σ each vᵀ∇s v + Σ w ½ ‖s‖², or with `reduced` false Σ each ½ (vᵀs)²; w and each multiply x and v.

    The loss is linear in ṡ = ∇s v, with adjoint each·v: one `jvp`, and one `jvp_backward`.
    """
    if not hasattr(model, "jvp_backward"):
        raise TypeError(
            f"{type(objective).__name__} differentiates ∇s, for which {type(model).__name__} has no passes jvp and "
            "jvp_backward: add them, or take Denoising or FiniteDifference, which need none"
        )
    xp, params = array_namespace(x), views(theta, model.shapes)
    s, cache = model.forward(params, x, t)
    sdot, tape = model.jvp(params, cache, v)
    dsdot = each * v
    if reduced:
        ds = w * s
    else:
        along = xp.sum(v * s, axis=tuple(range(2, v.ndim)), keepdims=True)  # (K, B, 1, ...)
        ds = xp.sum(dsdot * along, axis=0)
    _, _, grads = model.jvp_backward(params, cache, tape, ds, dsdot)
    return xp.sum(dsdot * sdot) + 0.5 * xp.sum(ds * s), flat(grads, model.shapes)


def _repeat(t: Array, n: int) -> Array:
    """t (B,) n times over, (nB,); a t (1,) that all share as it is."""
    return t if t.shape == (1,) else array_namespace(t).concat([t] * n)


def _check_probes(n: int) -> None:
    if n < 1:
        raise ValueError(f"probes must be at least 1, got {n}")


def _check_match(v: Array, x: Array) -> None:
    if v.ndim != x.ndim + 1 or v.shape[1:] != x.shape or v.shape[0] < 1:
        raise ValueError(
            f"probes must have shape (K, {', '.join(map(str, x.shape))}), a stack of directions for each sample of "
            f"x {tuple(x.shape)}; got {tuple(v.shape)}"
        )


OBJECTIVES: dict[str, ScoreMatching] = {
    "explicit": Explicit(lambda x, t: -x),  # the score of N(0, I)
    "implicit": Implicit(),
    "sliced": Sliced(),
    "finite difference": FiniteDifference(),
    "denoising": Denoising(),
}
