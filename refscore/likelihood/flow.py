"""Likelihood by the probability flow: the exact log density of a score model, up to its solver. Chapter 11.

Along dx/dt = v(x, t), v = f x - ½ g² s, probability is carried and thinned: d/dt log p_t(x(t)) = -div v. So

    log p_ε(x) = log p_1(x(1)) + ∫_ε^1 div v(x(t), t) dt,      div v = f D - ½ g² tr ∇s                Eq. (11.3)
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from refscore.arrays import answer, at
from refscore.checks import (
    check_array,
    check_count,
    check_data,
    check_inverse,
    check_kind,
    check_like,
    check_made_for,
    check_number,
    check_positive,
    check_squares,
    settle,
)
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace, device
from refscore.matching.probes import units
from refscore.noise.exact_score import ExactScore
from refscore.noise.prior import gaussian_prior
from refscore.noise.reverse import Reverse
from refscore.noise.sde import log_ratio
from refscore.protocols import SDE, Array, HasJvp, HasRows, NeedsNoise, Score, ScoreWithJvp
from refscore.sampling.loop import NO_NOISE, last, simulate
from refscore.sampling.solvers import RungeKutta


class LogLikelihood(NamedTuple):
    """log p, and its standard error: 0 where nothing was drawn, infinite if that was one draw.

    Parameters
    ----------
    value : Array, shape (B,)
        log p in nats.
    error : Array, shape (B,)
        Its standard error in nats.
    """

    value: Array
    error: Array


@dataclass(frozen=True)
class Flow:
    """The probability flow together with its divergence, as one ODE for y = (x, L): dL/dt = div v       Eq. (11.4).

    y is (B, D + 1) with the divergence itself, from D unit vectors, or (B, D + K) with one estimate a probe.

    Parameters
    ----------
    sde : SDE
        Gives f(t) and g(t).
    score : with a method jvp
        The score and its derivative along tangents.
    shape : tuple of int
        Shape of one sample, with D the product of its axes.
    probes : Array (K, B, ...), optional
        Random directions with E vvᵀ = I; None (default) for the D unit vectors.
    """

    sde: SDE
    score: ScoreWithJvp
    shape: tuple[int, ...]  # of one sample
    probes: Array | None = None  # (K, B, ...), or None for the unit vectors

    def __post_init__(self) -> None:
        settle(self)
        object.__setattr__(self, "shape", tuple(check_count("shape", n) for n in self.shape))

    def __call__(self, y: Array, t: float) -> Array:
        """The right-hand side of the ODE: y (B, D + K), t a float -> dy/dt (B, D + K).

        Raises
        ------
        ValueError
            For a score or a jvp whose shape is wrong.
        """
        check_array(y=y)
        if y.ndim != 2:
            raise ValueError(f"y must be (B, D + K), got shape {tuple(y.shape)}")
        if t == 0 and isinstance(self.score, NeedsNoise):
            self.score.check_clean()
        xp, D = array_namespace(y), math.prod(self.shape)
        x = xp.reshape(y[:, :D], (-1, *self.shape))
        v = units(x) if self.probes is None else self.probes
        s, sdot = self.score.jvp(x, at(t, x), v)
        s, sdot = answer("the score", s, x), answer("the score's jvp", sdot, v)
        traces = xp.sum(xp.reshape(v * sdot, (v.shape[0], v.shape[1], -1)), axis=2)  # (K, B)
        if self.probes is None:
            traces = xp.sum(traces, axis=0, keepdims=True)
        f, half = float(self.sde.f(t)), 0.5 * float(self.sde.g(t)) ** 2
        return xp.concat([xp.reshape(f * x - half * s, (-1, D)), xp.matrix_transpose(f * D - half * traces)], axis=1)

    def row(self, i: int) -> "Flow":
        """The flow of sample i alone, with its own probes and condition: for solvers that take one sample at a time."""
        score = self.score.row(i) if isinstance(self.score, HasRows) else self.score
        return replace(self, score=score, probes=None if self.probes is None else self.probes[:, i : i + 1, ...])


Solve = Callable[[Callable[[Array, float], Array], Array, float, float], Array]


@dataclass(frozen=True)
class FixedSteps:
    """Solve an ODE in `steps` steps of RK4, equal in log σ/α: where the flow changes at an even pace.

    The error falls as 1/steps⁴: with the default 200 a log likelihood from t = 1e-3 is off by 1e-8 to 1e-5 nats, the
    most where modes are narrow beside their distance (chapter 11).

    Parameters
    ----------
    sde : SDE
        Gives the levels log σ(t)/α(t).
    steps : int, default 200
        Number of steps, each of four evaluations.

    Raises
    ------
    ValueError
        Unless steps >= 1; at the call, for a time without noise.
    TypeError
        For an SDE without `time_at_log_ratio`.

    Examples
    --------
    dx/dt = x multiplies by √e from t = ½ to 1:

    >>> import numpy as np
    >>> from refscore import VP
    >>> from refscore.likelihood.flow import FixedSteps
    >>> FixedSteps(VP(), steps=50)(lambda x, t: x, np.array([[1.0]]), 0.5, 1.0).round(6)
    array([[1.648721]])
    """

    sde: SDE
    steps: int = 200

    def __post_init__(self) -> None:
        settle(self, steps=1)
        check_inverse(self.sde)

    def __call__(self, velocity: Callable[[Array, float], Array], y: Array, t: float, s: float) -> Array:
        """Solve dy/dt = velocity(y, t) from y (B, ...) at time t to y (B, ...) at time s, up or down."""
        for time in (t, s):
            if not 0 < time <= 1:
                raise ValueError(f"steps equal in log σ/α need times in (0, 1], got {time}")
        start, end = float(log_ratio(self.sde, t)), float(log_ratio(self.sde, s))
        levels = (start + (end - start) * i / self.steps for i in range(1, self.steps))
        times = [t, *(min(float(self.sde.time_at_log_ratio(level)), 1.0) for level in levels), s]
        return last(simulate(RungeKutta(velocity), y, times, NO_NOISE))


def encode(score: Score, sde: SDE, x: Array, t_min: float = 1e-5, solve: Solve | None = None) -> Array:
    """Follow the probability flow from data at t_min up to t = 1.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        The score of the model.
    sde : SDE
        The SDE for which the score was made.
    x : Array, shape (B, ...)
        Data.
    t_min : float, default 1e-05
        Where the flow starts, in (0, 1).
    solve : callable (velocity, y, t, s) -> y, optional
        `FixedSteps(sde)` by default.

    Returns
    -------
    Array, shape (B, ...)
        Their codes at t = 1.

    Raises
    ------
    ValueError
        For t_min outside (0, 1); for a score that was made for another SDE.

    Examples
    --------
    N(0, 1) with noise of σ(t)² = 3t² is N(0, 1 + 3t²): at t = 1 the deviation has doubled, and the flow doubles x.

    >>> import numpy as np
    >>> from refscore.likelihood.flow import encode
    >>> from refscore.noise.sde import LinearVE
    >>> score = lambda x, t: -x / (1 + 3 * t**2)
    >>> encode(score, LinearVE(sigma_max=3**0.5), np.array([[1.0], [-5.0]])).round(4)
    array([[  2.],
           [-10.]])
    """
    return (solve or FixedSteps(sde))(Reverse(sde, score, lam=0.0).drift, x, _check_start(t_min), 1.0)


def decode(score: Score, sde: SDE, x1: Array, t_min: float = 1e-5, solve: Solve | None = None) -> Array:
    """Follow the probability flow from t = 1 down to t_min: the inverse of `encode`.

    Parameters
    ----------
    score, sde : see `encode`
    x1 : Array, shape (B, ...)
        Codes at t = 1.
    t_min, solve : see `encode`

    Returns
    -------
    Array, shape (B, ...)
        The points at t_min that `encode` maps to them.

    Raises
    ------
    ValueError
        As `encode`.

    Examples
    --------
    The flow of the example of `encode`, backwards, halves x:

    >>> import numpy as np
    >>> from refscore.likelihood.flow import decode
    >>> from refscore.noise.sde import LinearVE
    >>> score = lambda x, t: -x / (1 + 3 * t**2)
    >>> decode(score, LinearVE(sigma_max=3**0.5), np.array([[2.0], [-10.0]])).round(4)
    array([[ 1.],
           [-5.]])
    """
    return (solve or FixedSteps(sde))(Reverse(sde, score, lam=0.0).drift, x1, 1.0, _check_start(t_min))


def interpolate(
    score: Score, sde: SDE, x: Array, y: Array, w: float, t_min: float = 1e-5, solve: Solve | None = None
) -> Array:
    """Between x (w = 0) and y (w = 1): on the quarter circle between their codes at t = 1              Eq. (11.11).

    If the codes are independent draws of N(0, σ²I), then so is cos φ x₁ + sin φ y₁ at every φ = ½πw. On the straight
    line the variance would fall to a half midway, to codes that hardly ever occur. For independent x and y only:
    between two near points the middle is up to √2 too far out, and between x and x it is not x.

    Parameters
    ----------
    score, sde : see `encode`
    x, y : Array, shape (B, ...)
        The two ends, data.
    w : float
        How far to go from x to y, in [0, 1].
    t_min, solve : see `encode`

    Returns
    -------
    Array, shape (B, ...)
        The points between.

    Raises
    ------
    ValueError
        Unless 0 <= w <= 1, and as `encode`.
    """
    check_array(x=x, y=y)
    w, y = check_number("w", w), answer("y", y, x)
    if not 0 <= w <= 1:
        raise ValueError(f"w must lie in [0, 1], from x to y; got {w}")
    x1, y1, turn = encode(score, sde, x, t_min, solve), encode(score, sde, y, t_min, solve), 0.5 * math.pi * w
    return decode(score, sde, math.cos(turn) * x1 + math.sin(turn) * y1, t_min, solve)


def log_likelihood(
    score: ScoreWithJvp,
    sde: SDE,
    x: Array,
    *,
    t_min: float = 1e-5,
    probes: Array | None = None,
    prior: Callable[[Array], Array] | None = None,
    solve: Solve | None = None,
) -> LogLikelihood:
    """log p_{t_min}(x) of the flow of a score, in nats                                                  Eq. (11.3).

    Parameters
    ----------
    score : with a method jvp
        `ExactScore(mixture, sde)` or `model.bind(theta)`.
    sde : SDE
        The SDE for which the score was made.
    x : Array (B, ...)
        Points at which the density is wanted.
    t_min : float, default 1e-05
        Where the flow starts, default 1e-5; the density is that of data with the noise σ(t_min).
    probes : Array (K, B, ...), optional
        Random directions with E vvᵀ = I (see `refscore.matching.probes`), kept along the way: then the divergence is
        estimated, by K tangents, and with K > 1 the error is known. Without them it is exact, by D tangents. (Unit
        vectors do not qualify: their mean would be the trace over D.)
    prior : callable x (B, ...) -> (B,), optional
        log density at t = 1 (not `refscore.prior`, which draws); by default that of N(0, prior_std²).
    solve : callable (velocity, y, t, s) -> y, optional
        `FixedSteps(sde)` by default; `refscore.likelihood.adaptive.solve` for an adaptive solver, but not on a `Chain`,
        where the jumps of the schedule force it to very small steps.

    Returns
    -------
    LogLikelihood
        Nats (B,), and their standard error from the probes (B,).

    Raises
    ------
    ValueError, TypeError
        For t_min outside (0, 1); a score without jvp, or made for another SDE; probes that do not go with x; a prior
        that does not return (B,).

    Examples
    --------
    VP leaves N(0, 1) as it is, so that -½ log 2π - ½ x² is found, at x = 0 and 2:

    >>> import numpy as np
    >>> from refscore import VP, ExactScore, GaussianMixture, log_likelihood
    >>> from refscore.likelihood.flow import FixedSteps
    >>> score = ExactScore(GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1)), VP())  # of N(0, 1)
    >>> log_likelihood(score, VP(), np.array([[0.0], [2.0]]), solve=FixedSteps(VP(), 20)).value.round(4)
    array([-0.9189, -2.9189])
    """
    check_data("x", x)
    check_squares(x=x)
    t_min = _check_start(t_min)
    if not isinstance(score, HasJvp):
        raise TypeError(f"the score needs a method jvp, as ExactScore and model.bind(theta) have; got {score!r}")
    check_made_for(score, sde)
    if probes is not None:
        check_data("probes", probes)
        if tuple(probes.shape[1:]) != tuple(x.shape):
            raise ValueError(f"probes must have shape (K, {', '.join(map(str, x.shape))}), got {tuple(probes.shape)}")
    xp, (B, *shape) = array_namespace(x), x.shape
    D, K = math.prod(shape), 1 if probes is None else probes.shape[0]
    flow = Flow(sde, score, tuple(shape), probes)
    y = xp.concat([xp.reshape(x, (B, D)), xp.zeros((B, K), dtype=x.dtype, device=device(x))], axis=1)
    y = answer("solve", (solve or FixedSteps(sde))(flow, y, t_min, 1.0), y)
    ends = (prior or gaussian_prior(sde))(xp.reshape(y[:, :D], x.shape))
    if getattr(ends, "shape", None) != (B,):
        raise ValueError(f"prior must answer with one log density a row, ({B},); got {getattr(ends, 'shape', ends)}")
    gained = y[:, D:]
    if K > 1:
        error = xp.std(gained, axis=1, correction=1) / math.sqrt(K)
    else:  # of its own error one probe knows nothing
        error = xp.full(ends.shape, 0.0 if probes is None else math.inf, dtype=x.dtype, device=device(x))
    return LogLikelihood(ends + xp.mean(gained, axis=1), error)


def _check_start(t_min: float) -> float:
    t_min = check_number("t_min", t_min)
    if not 0 < t_min < 1:
        raise ValueError(f"t_min must lie in (0, 1), got {t_min}")
    return t_min


def bits_per_dim(nats: Array, dim: int, bins: float = 1.0) -> Array:
    """-log₂ p per dimension, of data quantised to cells of width `bins` and dequantised by uniform noise  Eq. (11.9).

    For 8-bit images scaled to [0, 1] the width is 1/256, to [-1, 1] it is 1/128: the constant offsets of 8 and 7 bits.

    Parameters
    ----------
    nats : Array, shape (B,)
        Log densities, as `log_likelihood(...).value`.
    dim : int
        D, the number of coordinates of a sample.
    bins : float, default 1.0
        Width of a cell, in the units of x.

    Returns
    -------
    Array, shape (B,)
        Bits per dimension.

    Raises
    ------
    ValueError
        Unless dim >= 1 and bins > 0.

    Examples
    --------
    The uniform density 1 on [0, 1]³ has log density 0, and its 256 equal levels take 8 bits a dimension:

    >>> import numpy as np
    >>> from refscore.likelihood.flow import bits_per_dim
    >>> bits_per_dim(np.array([0.0]), dim=3, bins=1 / 256)
    array([8.])
    """
    check_positive(bins=bins)
    dim = check_count("dim", dim)
    check_kind("nats", nats)
    return -nats / (dim * math.log(2)) - math.log2(bins)


# ------------------------------------------------------------------ where an error comes from


class ErrorSplit(NamedTuple):
    """log p_model(x) - log p_data(x) in nats, cause by cause, each (B,)                                 Eq. (11.8).

    Parameters
    ----------
    truncation : Array, shape (B,)
        The flow starts at t_min: log p_ε - log p₀.
    prior : Array, shape (B,)
        It ends at N(0, prior_std²) and not at p_1.
    score : Array, shape (B,)
        The score is not the exact one.
    discretisation : Array, shape (B,)
        The solver is not the fine one.
    probes : Array, shape (B,)
        The divergence is estimated.
    """

    truncation: Array  # the flow starts at t_min: log p_ε - log p₀
    prior: Array  # it ends at N(0, prior_std²) and not at p_1
    score: Array  # the score is not the exact one
    discretisation: Array  # the solver is not the fine one
    probes: Array  # the divergence is estimated

    @property
    def total(self) -> Array:
        """The sum of the five parts (B,), log p_model(x) - log p_data(x)."""
        return self.truncation + self.prior + self.score + self.discretisation + self.probes


def error_split(
    score: ScoreWithJvp,
    mixture: GaussianMixture,
    sde: SDE,
    x: Array,
    *,
    t_min: float = 1e-5,
    probes: Array | None = None,
    solve: Solve | None = None,
    fine: Solve | None = None,
) -> ErrorSplit:
    """Why `log_likelihood(score, sde, x, ...)` is not the log density of the mixture that the data come from.

    The causes are added to the exact setting one after the other, in the order of `ErrorSplit`, so the differences add
    up by themselves. In another order single terms would change (a bad score has another prior error), their sum would
    not. The error of `fine` itself is counted with the prior.

    Parameters
    ----------
    score : as for `log_likelihood`
    mixture : GaussianMixture
        Not singular: its density is needed without noise.
    sde, x, t_min, probes, solve : see `log_likelihood`
    fine : callable, optional
        A solver of negligible error; `FixedSteps(sde, 800)` by default.

    Returns
    -------
    ErrorSplit
        The parts, each (B,), in nats.

    Raises
    ------
    ValueError, TypeError
        As `log_likelihood`, and for a singular mixture.

    Examples
    --------
    A model of N(0, 1) for data of N(1, 1): at x = 1 it errs by -½ x² + ½ (x - 1)² = -½, through its score alone.

    >>> import numpy as np
    >>> from refscore import VP, ExactScore, GaussianMixture
    >>> from refscore.likelihood.flow import FixedSteps, error_split
    >>> data, model = (GaussianMixture(np.ones(1), np.full((1, 1), m), np.ones(1)) for m in (1.0, 0.0))
    >>> solve = FixedSteps(VP(), 10)
    >>> split = error_split(ExactScore(model, VP()), data, VP(), np.ones((1, 1)), solve=solve, fine=solve)
    >>> split.score.round(3), split.total.round(3)
    (array([-0.5]), array([-0.5]))
    """
    check_data("x", x)
    check_squares(x=x)
    check_like(score=score, sde=sde, mixture=mixture)
    fine, t_min = fine or FixedSteps(sde, 800), _check_start(t_min)
    ladder = [
        mixture.log_prob(x),
        mixture.log_prob(x, sde.alpha(t_min), sde.sigma(t_min)),
        log_likelihood(ExactScore(mixture, sde), sde, x, t_min=t_min, solve=fine).value,
        log_likelihood(score, sde, x, t_min=t_min, solve=fine).value,
        log_likelihood(score, sde, x, t_min=t_min, solve=solve).value,
    ]
    estimated = None if probes is None else log_likelihood(score, sde, x, t_min=t_min, solve=solve, probes=probes).value
    ladder.append(ladder[-1] if estimated is None else estimated)
    return ErrorSplit(*(b - a for a, b in pairwise(ladder)))
