"""Inverse problems: a given score, an observation y = H x₀ + e, e ~ N(0, R), and samples of x₀ given y. Chapter 19.

What the score lacks is ∇ log p_t(y | x), Eq. (13.1). It is an average over the clean points x₀ that x may come from,
and each guess puts a Gaussian of mean x̂₀ and covariance C in their place, so that y ~ N(H x̂₀, V), V = H C Hᵀ + R:

    ∇ log p_t(y | x) ≈ J Hᵀ V⁻¹ (y - H x̂₀),   J = ∂x̂₀/∂x = (I + σ² ∇s)/α                              Eq. (19.3)

`DPS` takes C = 0, `PiGDM` C = r² I, `Moment` the true covariance; `Exact` knows the answer, where the data are a
mixture. Each is a score, for any sampler. `Twisted` weighs samples for what the guess got wrong.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from refscore.arrays import answer, as_array, ask, at, beside, long_sum, per_sample
from refscore.checks import (
    check_finite,
    check_floating,
    check_like,
    check_made_for,
    check_positive,
    check_range,
    check_same,
    check_squares,
    is_number,
    settle,
)  # fmt: skip
from refscore.laws.mixture import GaussianMixture
from refscore.laws.posterior import linear_posterior, observe
from refscore.library import array_namespace, device
from refscore.noise.interpolant import BELOW
from refscore.protocols import SDE, Array, HasJvp, Rng, ScoreWithJvp, Time
from refscore.sampling.transitions import _with_signal, transition


class Terms(NamedTuple):
    """What a guess says of samples x (B, ...) at one time.

    Parameters
    ----------
    score : Array, shape (B, ...)
        The score without the observation.
    log_likelihood : Array, shape (B,)
        log p_t(y | x), as guessed, in nats.
    pull : Array, shape (B, ...)
        Its gradient in x, with V held fixed.
    """

    score: Array
    log_likelihood: Array
    pull: Array


def _check_observation(H: Array, y: Array, R: Array) -> None:
    check_floating("H", H, ndim=2)
    check_same(H, y=y, R=R)
    M, D = H.shape
    if M < 1 or D < 1 or y.shape != (M,) or R.shape != (M, M):
        got = ", ".join(f"{name} {tuple(v.shape)}" for name, v in (("H", H), ("y", y), ("R", R)))
        raise ValueError(f"H must be (M, D), y (M,) and R (M, M); got {got}")
    for name, value in (("H", H), ("y", y), ("R", R)):
        check_finite(name, value)
        check_squares(**{name: value})
    try:
        noise = GaussianMixture(array_namespace(R).ones_like(y[:1]), y[None, :], R[None, ...])
    except ValueError as error:
        raise ValueError(f"R must be a covariance: {error}") from None
    if not noise.least_variance > 8 * M * array_namespace(R).finfo(R.dtype).eps * float(R[0, 0]):
        raise ValueError(
            f"R must be positive: its least eigenvalue is {noise.least_variance:.3g}, and these guesses divide by R; "
            "an observation without noise needs `Replace`, or a small R"
        )


def _log_normal(miss: Array, V: Array) -> tuple[Array, Array]:
    """V⁻¹ miss (B, M) and log N(miss; 0, V) (B,), for miss (B, M) and V (1, M, M) or (B, M, M)."""
    xp = array_namespace(V)
    if V.shape[0] == 1:  # one factorisation for all
        solved = xp.matrix_transpose(xp.linalg.solve(V[0, ...], xp.matrix_transpose(miss)))
    else:
        solved = xp.linalg.solve(V, miss[..., None])[..., 0]
    log_det = xp.linalg.slogdet(2 * math.pi * V)[1]
    return solved, -0.5 * long_sum(solved * miss, axis=1) - 0.5 * log_det


@dataclass(frozen=True)
class Guess:
    """The score s + J Hᵀ V⁻¹ (y - H x̂₀), for one guess V of the covariance of y given x            Eq. (19.3).

    What all guesses share; where they differ is `_spread`, H C Hᵀ. J is symmetric, since s is a gradient: what is asked
    of the score is its jvp. That of a network is symmetric only nearly; chapter 19 measures it.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...), with a method jvp
        The score without the observation: `ExactScore`, or `model.bind(theta)`.
    sde : SDE
        The one that the score belongs to.
    H : Array, shape (M, D)
        What is observed of a clean sample, whose coordinates are taken in one row of D.
    y : Array, shape (M,)
        The observation.
    R : Array, shape (M, M)
        Covariance of its noise: symmetric, all eigenvalues positive.

    Raises
    ------
    ValueError
        For shapes that do not go together; for an R that is no covariance, or singular; at the call, for x of other
        than D coordinates, for t = 0 where the score is a network that cannot be evaluated there, and for a float t at
        which α = 0.
    TypeError
        For a score without jvp; for arrays of another library, dtype or device than H.
    """

    score: ScoreWithJvp
    sde: SDE
    H: Array
    y: Array
    R: Array
    takes_numbers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self)
        _check_observation(self.H, self.y, self.R)
        check_made_for(self.score, self.sde)
        if not isinstance(self.score, HasJvp):
            raise TypeError(
                f"the score needs a method jvp, as ExactScore and model.bind(theta) have; got {self.score!r}"
            )

    def _spread(self, x: Array, t: Time) -> Array:
        """Return H C Hᵀ for x (B, ...) at t, a float or an array (1,) or (B,): (1, M, M) or (B, M, M)."""
        raise NotImplementedError

    def __call__(self, x: Array, t: Time) -> Array:
        """Return the guided score of x (B, ...) at t, a float or an array (1,) or (B,): (B, ...)."""
        terms = self.terms(x, t)
        return terms.score + terms.pull

    def terms(self, x: Array, t: Time) -> Terms:
        """Return the score, log p_t(y | x) and its gradient for x (B, ...) at t, a float or an array (1,) or (B,)."""
        t = beside(t, x)
        if is_number(t) and self.sde.alpha(t) == 0:
            raise ValueError(f"at t = {t} α is 0, and every guess divides by it: {BELOW}")
        s = ask(self.score, x, t)
        alpha, sigma = per_sample(self.sde.alpha(t), x), per_sample(self.sde.sigma(t), x)
        miss = self._miss((x + sigma**2 * s) / alpha)
        solved, log_likelihood = _log_normal(miss, self.R + self._spread(x, t))
        v = array_namespace(x).reshape(solved @ self.H, x.shape)
        return Terms(s, log_likelihood, (v + sigma**2 * self._jvp(x, t, v[None, ...])[0, ...]) / alpha)

    def clean(self, x: Array) -> Array:
        """Return log N(y; H x, R) of samples x (B, ...) without noise, which is no guess: (B,)."""
        return _log_normal(self._miss(x), self.R[None, ...])[1]

    def _miss(self, x0: Array) -> Array:
        """y - H x₀, (B, M)."""
        xp, D = array_namespace(x0), self.H.shape[1]
        check_same(self.H, x=x0)
        if math.prod(x0.shape[1:]) != D:
            raise ValueError(f"H sees samples of {D} coordinates, x has shape {tuple(x0.shape)}")
        return self.y - xp.reshape(x0, (x0.shape[0], D)) @ xp.matrix_transpose(self.H)

    def _jvp(self, x: Array, t: Time, v: Array) -> Array:
        return answer("the score's jvp", self.score.jvp(x, at(t, x), v)[1], v)


@dataclass(frozen=True)
class DPS(Guess):
    """Diffusion posterior sampling: as if x̂₀ were the clean sample, C = 0                            Chung et al. 2023.

    Right at t = 0 alone. With noise the pull is too strong, on a Gaussian by the factor (R + H C Hᵀ)/R; what it
    samples instead of the posterior of N(0, C) is known, Eqs. (19.7), (19.8).

    Parameters
    ----------
    score, sde, H, y, R : see `Guess`.

    Raises
    ------
    ValueError, TypeError
        As `Guess`.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import ExactScore, GaussianMixture
    >>> from refscore.noise.sde import LinearVE
    >>> from refscore.sampling.inverse import DPS
    >>> sde, one = LinearVE(1.0), np.eye(1)
    >>> score = ExactScore(GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1)), sde)  # data N(0, 1)
    >>> DPS(score, sde, H=one, y=np.array([3.0]), R=one)(np.array([[2.0]]), 1.0)  # σ = 1: -1 + ½ (3 - 1)
    array([[0.]])
    """

    def _spread(self, x: Array, t: Time) -> Array:
        """Return zeros (1, M, M)."""
        return array_namespace(x).zeros_like(self.R)[None, ...]


@dataclass(frozen=True)
class PiGDM(Guess):
    """Pseudoinverse guidance: C = r² I, r² = σ² σ_d²/(σ² + α² σ_d²)                      Eq. (19.5); Song et al. 2023.

    The covariance of x₀ given x for data N(0, σ_d² I): exact on these.

    Parameters
    ----------
    score, sde, H, y, R : see `Guess`.
    data_std : float, default 1
        σ_d, deviation of the data, in data units.

    Raises
    ------
    ValueError, TypeError
        As `Guess`; unless data_std is positive and finite.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import ExactScore, GaussianMixture
    >>> from refscore.noise.sde import LinearVE
    >>> from refscore.sampling.inverse import PiGDM
    >>> sde, one = LinearVE(1.0), np.eye(1)
    >>> score = ExactScore(GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1)), sde)  # data N(0, 1)
    >>> guided = PiGDM(score, sde, H=one, y=np.array([3.0]), R=one)
    >>> guided(np.array([[2.0]]), 1.0).round(4)  # σ = 1: -1 + ½ (3 - 1)/(1 + ½)
    array([[-0.3333]])
    """

    data_std: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(data_std=self.data_std)

    def _spread(self, x: Array, t: Time) -> Array:
        """Return r² H Hᵀ for x (B, ...) at t: (1, M, M) or (B, M, M)."""
        xp = array_namespace(x)
        data, sigma = self.data_std**2, as_array(self.sde.sigma(t), x)
        r2 = sigma**2 * data / (sigma**2 + self.sde.alpha(t) ** 2 * data)
        return xp.reshape(r2, (-1, 1, 1)) * (self.H @ xp.matrix_transpose(self.H))


@dataclass(frozen=True)
class Moment(Guess):
    """Moment guidance: C = σ²/α² (I + σ² ∇s), the covariance that the score itself tells  Eq. (19.4); Boys et al. 2024.

    Exact on one Gaussian. The derivative of V in x, which is of third order in the score, is left out. It takes a
    jvp of M directions at each evaluation. No covariance has a negative eigenvalue, but that of a network may: it is
    taken as 0.

    Parameters
    ----------
    score, sde, H, y, R : see `Guess`.

    Raises
    ------
    ValueError, TypeError
        As `Guess`.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import ExactScore, GaussianMixture
    >>> from refscore.noise.sde import LinearVE
    >>> from refscore.sampling.inverse import Moment
    >>> sde, one = LinearVE(1.0), np.eye(1)
    >>> score = ExactScore(GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1)), sde)  # data N(0, 1)
    >>> guided = Moment(score, sde, H=one, y=np.array([3.0]), R=one)
    >>> guided(np.array([[2.0]]), 1.0).round(4)  # the variance of x₀ given x is ½, as `PiGDM` has it
    array([[-0.3333]])
    """

    def _spread(self, x: Array, t: Time) -> Array:
        """Return H C Hᵀ for x (B, ...) at t: (B, M, M)."""
        xp, (M, D) = array_namespace(x), self.H.shape
        alpha, sigma = per_sample(self.sde.alpha(t), x), per_sample(self.sde.sigma(t), x)
        v = xp.broadcast_to(xp.reshape(self.H, (M, 1, *x.shape[1:])), (M, *x.shape))
        CHt = (sigma / alpha) ** 2 * (v + sigma**2 * self._jvp(x, t, v))
        V = xp.permute_dims(xp.reshape(CHt, (M, x.shape[0], D)) @ xp.matrix_transpose(self.H), (1, 0, 2))
        values, axes = xp.linalg.eigh(0.5 * (V + xp.matrix_transpose(V)))
        kept = xp.maximum(values, xp.zeros_like(values))[:, None, :]
        return (axes * kept) @ xp.matrix_transpose(axes)


@dataclass(frozen=True)
class Exact:
    """The conditional score of a mixture, in the same form as the guesses: what each of them is to be      Eq. (19.1).

    log p_t(y | x) by Bayes' rule, log p_t(x | y) + log p(y) - log p_t(x).

    Parameters
    ----------
    mixture : GaussianMixture
        The law of the data, in D dimensions.
    sde : SDE
        Its α(t) and σ(t) are those of the noised data.
    H, y, R : see `Guess`.

    Raises
    ------
    ValueError, TypeError
        As `Guess`.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> from refscore.noise.sde import LinearVE
    >>> from refscore.sampling.inverse import Exact
    >>> sde, one = LinearVE(1.0), np.eye(1)
    >>> p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))  # N(0, 1)
    >>> Exact(p, sde, H=one, y=np.array([3.0]), R=one)(np.array([[2.0]]), 1.0).round(4)
    array([[-0.3333]])
    """

    mixture: GaussianMixture
    sde: SDE
    H: Array
    y: Array
    R: Array
    takes_numbers: ClassVar[bool] = True

    def __post_init__(self) -> None:
        settle(self)
        _check_observation(self.H, self.y, self.R)
        object.__setattr__(self, "_posterior", linear_posterior(self.mixture, self.H, self.y, self.R))
        evidence = observe(self.mixture, self.H, self.R).log_prob(self.y[None, :])
        object.__setattr__(self, "_evidence", evidence)

    def __call__(self, x: Array, t: Time) -> Array:
        """Return the score of x₀ given y with noise, for x (B, D) at t, a float or an array (1,) or (B,): (B, D)."""
        t = beside(t, x)
        return self._posterior.score(x, self.sde.alpha(t), self.sde.sigma(t))  # type: ignore[attr-defined]

    def terms(self, x: Array, t: Time) -> Terms:
        """Return the score, log p_t(y | x) and its gradient for x (B, D) at t, a float or an array (1,) or (B,)."""
        t = beside(t, x)
        level, p, q = (self.sde.alpha(t), self.sde.sigma(t)), self.mixture, self._posterior  # type: ignore[attr-defined]
        s = p.score(x, *level)
        log_likelihood = q.log_prob(x, *level) + self._evidence - p.log_prob(x, *level)  # type: ignore[attr-defined]
        return Terms(s, log_likelihood, q.score(x, *level) - s)

    def clean(self, x: Array) -> Array:
        """Return log N(y; H x, R) of samples x (B, D) without noise: (B,)."""
        return self.terms(x, 0.0).log_likelihood


class Weights(NamedTuple):
    """What `Twisted` remembers of its particles: the memory of the step.

    Parameters
    ----------
    log_weights : Array, shape (B,)
        Logarithms of the weights; they are not normalised.
    terms : Terms
        What the guess says of the particles where they are now; None at the end, where nothing is guessed.
    """

    log_weights: Array
    terms: Terms | None

    @property
    def log_evidence(self) -> Array:
        """The logarithm of the mean weight, 0-d; the mean weight has the mean p(y), at any number   Eq. (19.12)."""
        xp, top = array_namespace(self.log_weights), array_namespace(self.log_weights).max(self.log_weights)
        return top + xp.log(xp.mean(xp.exp(self.log_weights - top)))

    @property
    def effective(self) -> Array:
        """(Σ w)²/Σ w², 0-d: how many particles of equal weight say as much, from 1 to B               Eq. (19.13)."""
        xp = array_namespace(self.log_weights)
        w = xp.exp(self.log_weights - xp.max(self.log_weights))
        return xp.sum(w) ** 2 / xp.sum(w * w)


@dataclass(frozen=True)
class Twisted:
    """Guided ancestral sampling whose particles are weighted, and drawn again by their weights        Wu et al. 2023.

    The guess chooses where particles go, and the weights undo what it chose wrongly, Eqs. (19.10), (19.11): of
    infinitely many particles the law is that of what `Ancestral` makes without observation, times N(y; H x, R). A
    bad guess costs particles, and not truth.

    Here samples influence each other: a batch is one population, and its rows are not independent draws.

    Parameters
    ----------
    guess : Guess or Exact
        Any of this module.
    variance : str, default "small"
        Of the steps, as for `Ancestral`: "small" or "large".
    threshold : float, default 0.5
        Particles are drawn again where fewer than this share of them is effective, and at the last level, σ = 0, so
        that what comes out needs no weights. 0: never, and what comes out is weighted.

    Raises
    ------
    TypeError
        For a guess that is none of this module.
    ValueError
        For another variance; unless 0 <= threshold <= 1; at a step that removes no noise, or starts where α = 0.

    Examples
    --------
    Data N(0, 1), y = x + e with as much noise: p(y = 3) = N(3; 0, 2), and x given y is N(1.5, ½).

    >>> import numpy as np
    >>> from itertools import pairwise
    >>> from refscore import VP, ExactScore, GaussianMixture
    >>> from refscore.sampling.inverse import DPS, Twisted
    >>> p, one, rng = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1)), np.eye(1), np.random.default_rng(0)
    >>> guess = DPS(ExactScore(p, VP()), VP(), H=one, y=np.array([3.0]), R=one)
    >>> step = Twisted(guess, variance="large")
    >>> x, memory = rng.standard_normal((4000, 1)), None
    >>> for t, s in pairwise(np.linspace(1, 0, 31).tolist()):
    ...     x, memory = step(x, t, s, rng, memory)
    >>> print(f"{x.mean():.1f} {x.var():.1f}")
    1.5 0.5
    """

    guess: Guess | Exact
    variance: str = "small"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        settle(self)
        check_range(0.0, 1.0, threshold=self.threshold)
        if not isinstance(self.guess, (Guess, Exact)):
            raise TypeError(f"guess must be DPS, PiGDM, Moment or Exact, which say how likely y is; got {self.guess!r}")
        if self.variance not in ("small", "large"):
            raise ValueError(f"variance must be 'small' (β̃) or 'large' (β), got {self.variance!r}")

    def __call__(self, x: Array, t: float, s: float, rng: Rng, memory: Weights | None = None) -> tuple[Array, Weights]:
        """Move particles x (B, ...) from time t to time s < t; the memory is their weights."""
        check_like(rng=rng)
        p, guess = _with_signal(transition(self.guess.sde, t, s, x), t, self), self.guess
        terms = (memory and memory.terms) or guess.terms(x, t)
        log_w = memory.log_weights if memory else terms.log_likelihood
        # Where a step without observation goes, and how far the guess moves it                        Eq. (19.10)
        gain, xp = p.sigma_t**2 * p.lost, array_namespace(x)
        mean, shift = (x + gain * terms.score) / p.a, gain / p.a * terms.pull
        std = (p.sigma_s if self.variance == "small" else p.sigma_t) * p.lost**0.5
        if p.sigma_s == 0:
            x, found = mean, None
            log_w = log_w + guess.clean(x) - terms.log_likelihood
        else:
            z, u = rng.standard_normal(x.shape, dtype=x.dtype), shift / std
            x = mean + shift + std * z
            found = guess.terms(x, s)
            # N(x; mean, c²)/N(x; mean + shift, c²)                                                    Eq. (19.11)
            odds = xp.reshape(u * (z + 0.5 * u), (x.shape[0], -1))
            log_w = log_w + found.log_likelihood - terms.log_likelihood - long_sum(odds, axis=1)
        memory = Weights(log_w, found)
        if self.threshold == 0:
            return x, memory
        return _drawn_again(x, memory, rng, math.inf if p.sigma_s == 0 else self.threshold * x.shape[0])


def _drawn_again(x: Array, memory: Weights, rng: Rng, fewer: float) -> tuple[Array, Weights]:
    """Where fewer than so many are effective, copies in numbers of mean B w/Σw, by one uniform number for all.

    Neither choice makes a device wait: what is copied is computed in any case.
    """
    xp, B, log_w = array_namespace(x), x.shape[0], memory.log_weights
    w = xp.cumulative_sum(xp.exp(log_w - xp.max(log_w)))
    comb = (xp.arange(B, dtype=x.dtype, device=device(x)) + rng.random((1,), dtype=x.dtype)) / B * w[-1, ...]
    k = xp.searchsorted(w, comb)
    few = memory.effective < fewer
    k = xp.where(few, xp.minimum(k, xp.full_like(k, B - 1)), xp.arange(B, dtype=k.dtype, device=device(k)))
    terms = None if memory.terms is None else Terms(*(xp.take(a, k, axis=0) for a in memory.terms))
    return xp.take(x, k, axis=0), Weights(xp.where(few, memory.log_evidence, log_w), terms)


GUESSES: dict[str, Callable[..., Guess]] = {"dps": DPS, "pigdm": PiGDM, "moment": Moment}
