"""Time reversal: from a score back to the data. Chapter 8.

If dx = f(t) x dt + g(t) dw has marginals p_t, then for every λ >= 0

    dx = [f(t) x - ½ (1 + λ²) g(t)² ∇log p_t(x)] dt + λ g(t) dw̄

run backwards from p_1 has them too, Eq. (8.5): λ = 1 is Anderson's reversal (Anderson 1982), λ = 0 the
probability-flow ODE (Song et al. 2021, Eq. (13)).
"""

import math
from dataclasses import dataclass

from refscore.arrays import answer, ask, at, beside, per_sample
from refscore.checks import check_like, check_made_for, is_number, settle
from refscore.library import array_namespace
from refscore.noise.parametrisation import rates
from refscore.protocols import SDE, Array, HasPosteriorMean, Score, Time


def denoise(score: Score, sde: SDE, x: Array, t: Time) -> Array:
    """Return the mean of clean samples, E[x₀ | x_t = x] = (x + σ² s)/α                         Eqs. (1.13), (6.11).

    The last step of a sampler, to be taken explicitly.
    What remains at the last level is noise of variance σ²; this takes the best guess of the point below it. Where t = 0
    there is no noise, and x is returned: a network, which need not be defined there, is not evaluated there.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        ∇ log p_t(x).
    sde : SDE
        The forward SDE that the score belongs to.
    x : Array, shape (B, ...)
        Samples with noise.
    t : float, or Array of shape (1,) or (B,)
        Their time, in [0, 1].

    Returns
    -------
    Array, shape (B, ...)
        The best guess of each clean sample.

    Raises
    ------
    ValueError
        For a float t outside [0, 1], an array t of another shape, or a score that has not the shape of x.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.noise.reverse import denoise
    >>> from refscore.noise.sde import LinearVE
    >>> score = lambda x, t: -x / (1 + t**2)  # data N(0, 1) with noise of σ = t
    >>> denoise(score, LinearVE(1.0), np.array([[2.0]]), 1.0)  # signal and noise are as large: one half
    array([[1.]])
    """
    check_like(sde=sde)
    t = beside(t, x)
    if is_number(t):
        return x if t == 0 else _denoised(score, sde, x, t)
    xp = array_namespace(x)
    noisy = t != 0
    return xp.where(per_sample(noisy, x), _denoised(score, sde, x, xp.where(noisy, t, 1.0)), x)


def mean_without_signal(score: Score, x: Array, t: Time) -> Array:
    """Return E[x₀ | x_t = x] at a t where α = 0, from a score that knows it: the score itself is -x/σ² there.

    Parameters
    ----------
    score : callable with a method posterior_mean
        `ExactScore`, or a bound model that predicts "velocity", "v", "data" or "F".
    x : Array, shape (B, ...)
        Noise.
    t : float
        The time.

    Returns
    -------
    Array, shape (B, ...)
        The mean of the data, as far as the score has it right.

    Raises
    ------
    ValueError
        For a score without that method, or a model that predicts the noise or the score.
    """
    if not isinstance(score, HasPosteriorMean):
        raise ValueError(
            f"at t = {t} α is 0: the score is -x/σ² whatever the data are, and does not tell E[x₀ | x]. Give a score "
            "with a method posterior_mean(x, t), as ExactScore and models that predict velocity, v or data have; or "
            "start below t = 1"
        )
    return answer("posterior_mean", score.posterior_mean(x, at(t, x)), x)


def _denoised(score: Score, sde: SDE, x: Array, t: Time) -> Array:
    if is_number(t) and sde.alpha(t) == 0:
        return mean_without_signal(score, x, t)
    sigma, alpha = per_sample(sde.sigma(t), x), per_sample(sde.alpha(t), x)
    return (x + sigma**2 * ask(score, x, t)) / alpha


@dataclass(frozen=True)
class Forward:
    """The SDE itself, dx = f x dt + g dw, as a process for `EulerMaruyama` from data (t = 0) to noise (t = 1).

    Parameters
    ----------
    sde : SDE
        Its f and g are used.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VP, Forward
    >>> process = Forward(VP(2.0, 2.0))  # dx = -x dt + √2 dw
    >>> process.drift(np.array([[3.0]]), 0.5), round(process.noise(np.array([[3.0]]), 0.5), 4)
    (array([[-3.]]), 1.4142)
    """

    sde: SDE

    def __post_init__(self) -> None:
        settle(self)

    upwards = True

    def drift(self, x: Array, t: Time) -> Array:
        """Return the drift f x, x (B, ...) -> (B, ...), for t a float or an array (1,) or (B,)."""
        return per_sample(self.sde.f(beside(t, x)), x) * x

    def noise(self, x: Array, t: Time) -> Time:
        """Return g(t): a float, or for an array t an array that broadcasts against x."""
        return per_sample(self.sde.g(beside(t, x)), x)


@dataclass(frozen=True)
class Reverse:
    """The reverse-time process of a linear SDE, for one λ of the family above                  Eqs. (8.5), (8.6).

    Parameters
    ----------
    sde : SDE
        The forward SDE.
    score : callable (x, t) -> (B, ...)
        ∇ log p_t(x) under this SDE, for x (B, ...) and t an array (1,) or (B,).
    lam : float, default 1
        λ >= 0: 1 reverses the SDE, 0 gives the deterministic probability flow.

    Raises
    ------
    ValueError
        Unless lam >= 0; for a score that was made for another SDE.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import VP, Reverse
    >>> sde, score, x = VP(4.0, 4.0), lambda x, t: -x, np.array([[3.0]])  # data N(0, 1), which VP keeps
    >>> Reverse(sde, score).drift(x, 0.5)  # f x - g² s = -2x + 4x
    array([[6.]])
    >>> Reverse(sde, score, lam=0).drift(x, 0.5)  # f x - ½ g² s = -2x + 2x: the law stays, and so does the flow
    array([[0.]])
    """

    sde: SDE
    score: Score
    lam: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        if not 0 <= self.lam < math.inf:
            raise ValueError(f"lam must be finite and not negative, got {self.lam}")
        check_made_for(self.score, self.sde)

    @property
    def upwards(self) -> bool | None:
        """False where noise is added: upwards that would be no reversal. None for the flow, which goes both ways."""
        return None if self.lam == 0 else False

    def drift(self, x: Array, t: Time) -> Array:
        """Return the drift f x - ½ (1 + λ²) g² s, x (B, ...) -> (B, ...), for t a float or an array (1,) or (B,).

        The flow (λ = 0) also at a float t where α = 0: α' x̂₀ + σ' x/σ, with a score that knows x̂₀.
        """
        t = beside(t, x)
        if self._blind(t):
            up, rise = rates(self.sde, t)  # v = α' x̂₀ + σ' ẑ, and ẑ = x/σ
            return up * mean_without_signal(self.score, x, t) + rise / self.sde.sigma(t) * x
        f, g, s = self.sde.f(t), self.sde.g(t), ask(self.score, x, t)
        return per_sample(f, x) * x - per_sample(0.5 * (1 + self.lam**2) * g**2, x) * s

    def noise(self, x: Array, t: Time) -> Time:
        """Return λ g(t): a float, or for an array t an array that broadcasts against x."""
        return per_sample(self.lam * self.sde.g(beside(t, x)), x)

    def _blind(self, t: Time) -> bool:
        """Whether this is the flow at a time where α = 0: f and g are infinite, its velocity is not."""
        return self.lam == 0 and is_number(t) and self.sde.alpha(t) == 0
