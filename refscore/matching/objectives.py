"""Objectives: what a score model is trained on, with its gradient. Chapters 3 and 6.

    Explicit           ½ ‖s - ∇log p‖²                      the score is known
    Implicit           tr ∇s + ½ ‖s‖²                        samples only; D tangents
    Sliced             vᵀ∇s v + ½ ‖s‖²                       samples only; K tangents
    FiniteDifference   vᵀ[s(x + hv) - s(x - hv)]/2h + ...    samples only; no tangent
    Denoising          ½ ‖s(x̃) + z/σ‖²                       samples and noise

each averaged over x ~ p_t and over t with a weight: L(θ) = E_t λ(t) E_x[...], summed over dimensions,
averaged over the batch. An objective is called as (model, theta, x0, rng) -> (loss, gradient): it draws
its times, noise and probes and hands them to its pure part, `at`, which draws nothing; `losses` takes the same and
answers sample by sample. The SDE is the model's, so there are never two.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace

from refscore.arrays import ask, views
from refscore.checks import check_positive, settle
from refscore.matching.base import ScoreMatching, Terms, noised, repeat
from refscore.matching.denoising import Denoising
from refscore.matching.probes import Probes, rademacher, units
from refscore.protocols import Array, Model, Rng, Score


class OfSamples(ScoreMatching):
    """A loss of x ~ p_t alone."""

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,)."""
        self.check_model(model)
        t, z, factor = self.draw(model.sde, x0, rng)
        return self.at(model, theta, noised(model.sde, x0, t, z), t, factor)

    def at(self, model: Any, theta: Array, x: Array, t: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The pure part: x (B, ...) ~ p_t, t and factor (B,) or (1,) -> loss (0-d), gradient (P,)."""
        return self._terms(model, theta, x, t, factor).mean_and_gradient(model, theta)

    def losses(self, model: Any, theta: Array, x: Array, t: Array, factor: Any = 1.0) -> Array:
        """The loss of each sample, weighted: their mean is the loss of `at`. No gradient.

        Parameters
        ----------
        model : ScoreModel or EnergyModel
        theta : Array (P,)
        x : Array (B, ...)
            Samples of p_t.
        t : Array (B,) or (1,)
            Their times.
        factor : float or Array (B,) or (1,)
            What undoes the law of t, see `draw`.

        Returns
        -------
        Array (B,)
            factor λ(t) times the loss of each; for the losses without λ build the objective with `unweighted`.

        Examples
        --------
        >>> import numpy as np
        >>> from refscore import MLP, VP, Implicit, ScoreModel
        >>> model = ScoreModel(MLP((2, 2)), VP(), data_std=None, predict="score")  # s = x W + b
        >>> theta, x = np.array([-1.0, 0.0, 0.0, -1.0, 0.0, 0.0]), np.array([[0.0, 0.0], [2.0, 0.0]])  # s = -x
        >>> Implicit().losses(model, theta, x, np.zeros(1)).tolist()  # -2 + ½ ‖x‖²
        [-2.0, 0.0]
        """
        return self._terms(model, theta, x, t, factor).per_sample()

    @abstractmethod
    def _terms(self, model: Any, theta: Array, x: Array, t: Array, factor: Any) -> Terms: ...


@dataclass(frozen=True, kw_only=True)
class OfProbes(ScoreMatching):
    """A loss of x ~ p_t and random directions v.

    Parameters
    ----------
    probes : int
        K, the number of random directions per sample.
    law : callable (rng, shape, dtype) -> v
        `rademacher` (default), `gaussian` or `sphere`, all with E vvᵀ = I.

    Raises
    ------
    ValueError
        Unless probes >= 1; in `at`, for probes whose shape does not go with x.
    """

    probes: int = 1
    law: Probes = rademacher

    def __post_init__(self) -> None:
        settle(self, probes=1)
        if not callable(self.law):
            raise TypeError(
                f"law must be a function (rng, shape, dtype) -> v, one of refscore.matching.probes; got {self.law!r}"
            )

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """x0 (B, ...) -> loss (0-d) and gradient (P,)."""
        self.check_model(model)
        t, z, factor = self.draw(model.sde, x0, rng)
        v = self.law(rng, (self.probes, *x0.shape), x0.dtype)
        return self.at(model, theta, noised(model.sde, x0, t, z), t, v, factor)

    def at(self, model: Any, theta: Array, x: Array, t: Array, v: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The pure part: x (B, ...) ~ p_t, probes v (K, B, ...) -> loss (0-d), gradient (P,)."""
        _check_match(v, x)
        return self._terms(model, theta, x, t, v, factor).mean_and_gradient(model, theta)

    def losses(self, model: Any, theta: Array, x: Array, t: Array, v: Array, factor: Any = 1.0) -> Array:
        """The loss of each sample, weighted: their mean is the loss of `at`. No gradient.

        Parameters
        ----------
        model : ScoreModel or EnergyModel
        theta : Array (P,)
        x : Array (B, ...)
            Samples of p_t.
        t : Array (B,) or (1,)
            Their times.
        v : Array (K, B, ...)
            Probes.
        factor : float or Array (B,) or (1,)
            What undoes the law of t, see `draw`.

        Returns
        -------
        Array (B,)
            factor λ(t) times the loss of each; for the losses without λ build the objective with `unweighted`.

        Examples
        --------
        >>> import numpy as np
        >>> from refscore import MLP, VP, Sliced, ScoreModel
        >>> model = ScoreModel(MLP((2, 2)), VP(), data_std=None, predict="score")  # s = x W + b
        >>> theta, x = np.array([-1.0, 0.0, 0.0, -1.0, 0.0, 0.0]), np.array([[0.0, 0.0], [2.0, 0.0]])  # s = -x
        >>> Sliced().losses(model, theta, x, np.zeros(1), np.array([[[1.0, 1.0], [1.0, -1.0]]])).tolist()  # -2 + ½ ‖x‖²
        [-2.0, 0.0]
        """
        _check_match(v, x)
        return self._terms(model, theta, x, t, v, factor).per_sample()

    @abstractmethod
    def _terms(self, model: Any, theta: Array, x: Array, t: Array, v: Array, factor: Any) -> Terms: ...


@dataclass(frozen=True)
class Explicit(OfSamples):
    """½ E‖s_θ(x, t) - s*(x, t)‖²: the Fisher divergence itself            Hyvärinen 2005. Eq. (3.1)

    For laws whose score s* is known, and as the truth that the other objectives are held against.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        s*, e.g. `ExactScore(mixture, sde)`.
    """

    score: Score

    def _terms(self, model: Model, theta: Array, x: Array, t: Array, factor: Any) -> Terms:
        s, cache = model.forward(views(theta, model.shapes), x, t)
        error = s - ask(self.score, x, t)
        ds = self.sample_weights(model.sde, x, t, factor) * error
        return Terms(0.5 * ds * error, cache, ds)


@dataclass(frozen=True)
class Implicit(OfSamples):
    """E[tr ∇s_θ(x, t) + ½ ‖s_θ(x, t)‖²]                        Hyvärinen 2005, Theorem 1. Eq. (3.3)

    Equals `Explicit` less ½ E‖s*‖², a constant that nobody needs to know; so it may be negative. One tangent per
    dimension: for few dimensions only.
    """

    def _terms(self, model: Any, theta: Array, x: Array, t: Array, factor: Any) -> Terms:
        w = self.sample_weights(model.sde, x, t, factor)
        return _with_divergence(self, model, theta, x, t, units(x), w, w, reduced=True)


@dataclass(frozen=True)
class Sliced(OfProbes):
    """E[1/K Σ_k vᵀ∇s_θ v + ½ ‖s_θ‖²], v random with E vvᵀ = I             Song et al. 2019. Eq. (3.6)

    Parameters
    ----------
    reduced : bool
        True (default) takes ½ ‖s‖² itself, False its estimate ½ (vᵀs)²: the same mean and, from three dimensions
        on, usually more variance (section 3.3).
    probes, law
        See `OfProbes`. Probes of unit length would weigh the first term 1/D of the second, and have another minimiser.

    Raises
    ------
    ValueError
        As `OfProbes`.
    TypeError
        For a model without the passes `jvp` and `jvp_backward`.
    """

    reduced: bool = True

    def _terms(self, model: Any, theta: Array, x: Array, t: Array, v: Array, factor: Any) -> Terms:
        w = self.sample_weights(model.sde, x, t, factor)
        return _with_divergence(self, model, theta, x, t, v, w, w / v.shape[0], self.reduced)


@dataclass(frozen=True)
class FiniteDifference(OfProbes):
    """E[1/K Σ_k vᵀ(s₊ - s₋)/2h + ½ ‖½ (s₊ + s₋)‖²], s± = s_θ(x ± hv)        Pang et al. 2020. Eq. (3.9)

    Sliced score matching, up to O(h²), from values of s alone: for a model that has no tangents, or none for free.
    In float32 the rounding error u |s|/h and the bias, of order h², balance at steps of some 5e-3 of the scale on which
    s varies.

    Parameters
    ----------
    step : float
        h, in the units of x.
    probes, law
        See `OfProbes`.

    Raises
    ------
    ValueError
        Unless step > 0, and as `OfProbes`.
    """

    step: float = 1e-2

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(step=self.step)

    def _terms(self, model: Model, theta: Array, x: Array, t: Array, v: Array, factor: Any) -> Terms:
        xp, K = array_namespace(x), v.shape[0]
        around = xp.reshape(xp.stack([x + self.step * v, x - self.step * v]), (-1, *x.shape[1:]))
        s, cache = model.forward(views(theta, model.shapes), around, repeat(t, 2 * K))
        s = xp.reshape(s, (2, *v.shape))
        mean, slope = 0.5 * (s[0, ...] + s[1, ...]), (s[0, ...] - s[1, ...]) / (2 * self.step)
        w = self.sample_weights(model.sde, x, t, factor) / K
        loss = xp.sum(w * (v * slope + 0.5 * mean * mean), axis=0)
        half, tilt = 0.5 * w * mean, w * v / (2 * self.step)  # ∂mean/∂s± = ½, ∂slope/∂s± = ±1/2h
        ds = xp.reshape(xp.stack([half + tilt, half - tilt]), around.shape)
        return Terms(loss, cache, ds)


def _with_divergence(
    objective: ScoreMatching, model: Any, theta: Array, x: Array, t: Array, v: Array,
    w: Array, each: Array, reduced: bool,
) -> Terms:  # fmt: skip
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
    return Terms(xp.sum(dsdot * sdot, axis=0) + 0.5 * ds * s, cache, ds, tape, dsdot)


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
