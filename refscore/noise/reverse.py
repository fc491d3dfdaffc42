"""Time reversal: from a score back to the data. Chapter 8.

If dx = f(t) x dt + g(t) dw has marginals p_t, then for every λ >= 0

    dx = [f(t) x - ½ (1 + λ²) g(t)² ∇log p_t(x)] dt + λ g(t) dw̄

run backwards from p_1 has them too, Eq. (8.5): λ = 1 is Anderson's reversal (Anderson 1982), λ = 0 the
probability-flow ODE (Song et al. 2021, Eq. (13)).
"""

import math
from dataclasses import dataclass

from array_api_compat import array_namespace

from refscore.arrays import ask, beside, per_sample
from refscore.checks import check_made_for, is_number, settle
from refscore.protocols import SDE, Array, Score, Time


def denoise(score: Score, sde: SDE, x: Array, t: Time) -> Array:
    """E[x₀ | x_t = x] = (x + σ² s)/α, x (B, ...), t a float, (1,) or (B,) -> (B, ...)       Eqs. (1.13), (6.11).

    The last step of a sampler, to be taken explicitly.
    What remains at the last level is noise of variance σ²; this takes the best guess of the point below it. Where t = 0
    there is no noise, and x is the answer: the score is not asked there, which a network need not know.
    """
    t = beside(t, x)
    if is_number(t):
        return x if t == 0 else _denoised(score, sde, x, t)
    xp = array_namespace(x)
    noisy = t != 0
    return xp.where(per_sample(noisy, x), _denoised(score, sde, x, xp.where(noisy, t, 1.0)), x)


def _denoised(score: Score, sde: SDE, x: Array, t: Time) -> Array:
    sigma, alpha = per_sample(sde.sigma(t), x), per_sample(sde.alpha(t), x)
    return (x + sigma**2 * ask(score, x, t)) / alpha


@dataclass(frozen=True)
class Forward:
    """The SDE itself, dx = f x dt + g dw, as a process that `EulerMaruyama` walks upwards, from data to noise."""

    sde: SDE
    upwards = True

    def drift(self, x: Array, t: Time) -> Array:
        """f x, x (B, ...) -> (B, ...)."""
        return per_sample(self.sde.f(beside(t, x)), x) * x

    def noise(self, x: Array, t: Time) -> Time:
        """g(t)."""
        return per_sample(self.sde.g(beside(t, x)), x)


@dataclass(frozen=True)
class Reverse:
    """The reverse-time process of a linear SDE, for one λ of the family above                  Eqs. (8.5), (8.6).

    Parameters
    ----------
    sde : SDE
    score : callable (x, t) -> (B, ...)
    lam : float
        1 (default) reverses the SDE, 0 gives the deterministic probability flow.

    Raises
    ------
    ValueError
        Unless lam >= 0; for a score that was made for another SDE.
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
        """f x - ½ (1 + λ²) g² s, x (B, ...) -> (B, ...)."""
        t = beside(t, x)
        f, g, s = self.sde.f(t), self.sde.g(t), ask(self.score, x, t)
        return per_sample(f, x) * x - per_sample(0.5 * (1 + self.lam**2) * g**2, x) * s

    def noise(self, x: Array, t: Time) -> Time:
        """λ g(t)."""
        return per_sample(self.lam * self.sde.g(beside(t, x)), x)
