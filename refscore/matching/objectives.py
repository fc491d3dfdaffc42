"""Objectives: what a score model is trained on, with its gradient. Chapters 3 and 6.

    Explicit           ½ ‖s - ∇log p‖²                      the score is known
    Implicit           tr ∇s + ½ ‖s‖²                        samples only; D tangents
    Sliced             vᵀ∇s v + ½ ‖s‖²                       samples only; K tangents
    FiniteDifference   vᵀ[s(x + hv) - s(x - hv)]/2h + ...    samples only; no tangent
    Denoising          ½ ‖s(x̃) + z/σ‖²                       samples and noise

each averaged over x ~ p_t and over t with a weight: L(θ) = E_t λ(t) E_x[...], summed over dimensions,
averaged over the batch. An objective is called as (model, theta, x0, rng) -> (loss, gradient): it draws
its times, noise and probes and gives them to its method `at`, which draws nothing. The SDE is the
model's, so there are never two.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

from refscore.arrays import ask, same_dtype, views
from refscore.checks import check_array, check_like, check_positive, settle
from refscore.library import array_namespace
from refscore.matching.base import ScoreMatching, Terms, noised, repeat
from refscore.matching.denoising import Denoising
from refscore.matching.probes import Probes, rademacher, units
from refscore.protocols import Array, HasTangents, Model, Rng, Score


class OfSamples(ScoreMatching):
    """A loss of x ~ p_t alone.

    Parameters
    ----------
    weight, times, antithetic : see `ScoreMatching`

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """Draw times and noise from rng: data x0 (B, ...) -> loss (0-d) and gradient (P,) at theta (P,)."""
        self.check_model(model)
        t, z, factor = self.draw(model.sde, x0, rng)
        return self.at(model, theta, noised(model.sde, x0, t, z), t, factor)

    def at(self, model: Any, theta: Array, x: Array, t: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The loss without randomness: x (B, ...) ~ p_t, t and factor (B,) or (1,) -> loss (0-d), gradient (P,)."""
        check_like(model=model)
        check_array(x=x, t=t, theta=theta)
        return self._terms(model, theta, x, t, factor).mean_and_gradient(model, theta)

    def losses(self, model: Any, theta: Array, x: Array, t: Array, factor: Any = 1.0) -> Array:
        """The loss of each sample, weighted: their mean is the loss of `at`. No gradient.

        Parameters
        ----------
        model : ScoreModel or EnergyModel
        theta : Array, shape (P,)
        x : Array, shape (B, ...)
            Samples of p_t.
        t : Array, shape (B,) or (1,)
            Their times.
        factor : float or Array, shape (B,) or (1,)
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
        check_like(model=model)
        check_array(x=x, t=t, theta=theta)
        return self._terms(model, theta, x, t, factor).per_sample()

    @abstractmethod
    def _terms(self, model: Any, theta: Array, x: Array, t: Array, factor: Any) -> Terms: ...


@dataclass(frozen=True, kw_only=True)
class OfProbes(ScoreMatching):
    """A loss of x ~ p_t and random directions v.

    Parameters
    ----------
    weight, times, antithetic : see `ScoreMatching`
    probes : int, default 1
        K, the number of random directions per sample.
    law : callable (rng, shape, dtype) -> v, default `rademacher`
        `rademacher` (default), `gaussian` or `sphere`, all with E vvᵀ = I.

    Raises
    ------
    ValueError
        Unless probes >= 1; in `at`, for probes whose shape does not go with x.
    TypeError
        For a law that is not callable.
    """

    probes: int = 1
    law: Probes = rademacher

    def __post_init__(self) -> None:
        settle(self, probes=1)

    def __call__(self, model: Model, theta: Array, x0: Array, rng: Rng) -> tuple[Array, Array]:
        """Draw times, noise and probes from rng: data x0 (B, ...) -> loss (0-d) and gradient (P,) at theta (P,)."""
        self.check_model(model)
        t, z, factor = self.draw(model.sde, x0, rng)
        v = self.law(rng, (self.probes, *x0.shape), x0.dtype)
        return self.at(model, theta, noised(model.sde, x0, t, z), t, v, factor)

    def at(self, model: Any, theta: Array, x: Array, t: Array, v: Array, factor: Any = 1.0) -> tuple[Array, Array]:
        """The loss without randomness: x (B, ...) ~ p_t, probes v (K, B, ...) -> loss (0-d), gradient (P,)."""
        check_like(model=model)
        check_array(x=x, t=t, v=v, theta=theta)
        v = _beside(v, x)
        return self._terms(model, theta, x, t, v, factor).mean_and_gradient(model, theta)

    def losses(self, model: Any, theta: Array, x: Array, t: Array, v: Array, factor: Any = 1.0) -> Array:
        """The loss of each sample, weighted: their mean is the loss of `at`. No gradient.

        Parameters
        ----------
        model, theta, x, t, factor : see `OfSamples`
        v : Array, shape (K, B, ...)
            Probes.

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
        check_like(model=model)
        check_array(x=x, t=t, v=v, theta=theta)
        v = _beside(v, x)
        return self._terms(model, theta, x, t, v, factor).per_sample()

    @abstractmethod
    def _terms(self, model: Any, theta: Array, x: Array, t: Array, v: Array, factor: Any) -> Terms: ...


@dataclass(frozen=True)
class Explicit(OfSamples):
    """½ E‖s_θ(x, t) - s*(x, t)‖²: the Fisher divergence itself            Hyvärinen 2005. Eq. (3.1)

    For laws whose score s* is known, and as the truth to which the other objectives are compared.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        s*, e.g. `ExactScore(mixture, sde)`.
    weight, times, antithetic : see `ScoreMatching`

    Raises
    ------
    ValueError
        At the call, for a score that does not return the shape of x.

    Examples
    --------
    Zero at the exact score, here s*(x) = -x; and ½ (1 + 9)/2 at s = 0:

    >>> import numpy as np
    >>> from refscore import MLP, VP, Explicit, ScoreModel
    >>> model = ScoreModel(MLP((1, 1)), VP(), predict="score")  # s(x) = w x + b, theta = (w, b)
    >>> x, rng = np.array([[1.0], [3.0]]), np.random.default_rng(0)
    >>> objective = Explicit(lambda x, t: -x)
    >>> [float(objective(model, np.array([w, 0.0]), x, rng)[0]) for w in (-1.0, 0.0)]
    [0.0, 2.5]
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

    Equals `Explicit` less ½ E‖s*‖², a constant that need not be known; so it may be negative. One tangent per
    dimension: for few dimensions only.

    Parameters
    ----------
    weight, times, antithetic : see `ScoreMatching`

    Raises
    ------
    TypeError
        At the call, for a model without the passes `jvp` and `jvp_backward`.

    Examples
    --------
    For s(x) = w x and data of mean square 1 it is w + ½ w², least at w = -1, where the gradient is 0:

    >>> import numpy as np
    >>> from refscore import MLP, VP, Implicit, ScoreModel
    >>> model = ScoreModel(MLP((1, 1)), VP(), predict="score")  # s(x) = w x + b, theta = (w, b)
    >>> x, rng = np.array([[1.0], [-1.0]]), np.random.default_rng(0)
    >>> loss, gradient = Implicit()(model, np.array([-1.0, 0.0]), x, rng)
    >>> float(loss), float(abs(gradient).max())
    (-0.5, 0.0)
    """

    def _terms(self, model: Any, theta: Array, x: Array, t: Array, factor: Any) -> Terms:
        w = self.sample_weights(model.sde, x, t, factor)
        return _with_divergence(self, model, theta, x, t, units(x), w, w, reduced=True)


@dataclass(frozen=True)
class Sliced(OfProbes):
    """E[1/K Σ_k vᵀ∇s_θ v + ½ ‖s_θ‖²], v random with E vvᵀ = I             Song et al. 2019. Eq. (3.6)

    Parameters
    ----------
    reduced : bool, default True
        True (default) takes ½ ‖s‖² itself, False its estimate ½ (vᵀs)²: the same mean and, from three dimensions
        on, usually more variance (section 3.3).
    weight, times, antithetic : see `ScoreMatching`
    probes, law : see `OfProbes`
        Probes of unit length would weigh the first term 1/D of the second, and have another minimiser.

    Raises
    ------
    ValueError
        As `OfProbes`.
    TypeError
        For a model without the passes `jvp` and `jvp_backward`.

    Examples
    --------
    In one dimension v = ±1, so vᵀ∇s v is the trace and the loss that of `Implicit`, -1 + ½:

    >>> import numpy as np
    >>> from refscore import MLP, VP, ScoreModel, Sliced
    >>> model = ScoreModel(MLP((1, 1)), VP(), predict="score")  # s(x) = w x + b, theta = (w, b)
    >>> x, rng = np.array([[1.0], [-1.0]]), np.random.default_rng(0)
    >>> loss, gradient = Sliced(probes=4)(model, np.array([-1.0, 0.0]), x, rng)
    >>> float(loss)
    -0.5
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
    step : float, default 0.01
        h, in the units of x.
    weight, times, antithetic : see `ScoreMatching`
    probes, law : see `OfProbes`

    Raises
    ------
    ValueError
        Unless step > 0, and as `OfProbes`.

    Examples
    --------
    A linear score has no error of order h², so the loss is that of `Sliced` and `Implicit`, -1 + ½:

    >>> import numpy as np
    >>> from refscore import MLP, VP, FiniteDifference, ScoreModel
    >>> model = ScoreModel(MLP((1, 1)), VP(), predict="score")  # s(x) = w x + b, theta = (w, b)
    >>> x, rng = np.array([[1.0], [-1.0]]), np.random.default_rng(0)
    >>> loss, gradient = FiniteDifference(step=0.1)(model, np.array([-1.0, 0.0]), x, rng)
    >>> round(float(loss), 6)
    -0.5
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
    has_tangents = isinstance(model, HasTangents)
    if not has_tangents:
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


def _beside(v: Array, x: Array) -> Array:
    """Probes in the dtype of x, if they go with it."""
    if v.ndim != x.ndim + 1 or v.shape[1:] != x.shape or v.shape[0] < 1:
        raise ValueError(
            f"probes must have shape (K, {', '.join(map(str, x.shape))}), a stack of directions for each sample of "
            f"x {tuple(x.shape)}; got {tuple(v.shape)}"
        )
    return same_dtype(v, x)


OBJECTIVES: dict[str, ScoreMatching] = {
    "explicit": Explicit(lambda x, t: -x),  # the score of N(0, I)
    "implicit": Implicit(),
    "sliced": Sliced(),
    "finite-difference": FiniteDifference(),
    "denoising": Denoising(),
}
