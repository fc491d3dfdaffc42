"""Interpolants x_t = α(t) x₀ + σ(t) z as linear SDEs; the straight one, α = 1 - t and σ = t. Chapter 18.

Given α and σ with their rates α' and σ', the moment equations (7.8) leave one choice of f and g:

    f = α'/α,        g² = 2 σ σ' - 2 f σ²                                                             Eq. (18.5)

Where α = 0 both are infinite. The velocity α' x̂₀ + σ' ẑ of the probability flow is not.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from refscore.arrays import constant, namespace
from refscore.checks import check_kind, check_time, is_number, plain, settle
from refscore.protocols import Time


class Interpolant(ABC):
    """A linear SDE that is given by α(t) and σ(t): write these, their rates and the two inverses.       Eq. (18.5).

    Raises
    ------
    ValueError
        From f and g, at a float t where α = 0.

    Examples
    --------
    The quarter circle, α = cos ½πt and σ = sin ½πt, is variance preserving: f = -½π tan ½πt and g² = -2f.

    >>> import math
    >>> from refscore.noise.interpolant import Interpolant
    >>> class Circle(Interpolant):
    ...     prior_std = 1.0
    ...     def alpha(self, t): return math.cos(0.5 * math.pi * t)
    ...     def sigma(self, t): return math.sin(0.5 * math.pi * t)
    ...     def rates(self, t): return -0.5 * math.pi * self.sigma(t), 0.5 * math.pi * self.alpha(t)
    >>> sde = Circle()
    >>> round(sde.f(0.5) / math.pi, 4), round(sde.g(0.5) ** 2 / math.pi, 4)
    (-0.5, 1.0)
    """

    @abstractmethod
    def alpha(self, t: Time) -> Time:
        """Return the signal scale α, 1 at t = 0."""

    @abstractmethod
    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ, 0 at t = 0."""

    @abstractmethod
    def rates(self, t: Time) -> tuple[Time, Time]:
        """Return α' and σ', the derivatives in t."""

    def f(self, t: Time) -> Time:
        """Return the drift rate f = α'/α. ValueError for a float t at which α = 0."""
        alpha = self.alpha(t)
        if is_number(alpha) and alpha == 0:
            raise ValueError(f"at t = {t} α is 0, and f and g are infinite: {BELOW}")
        return self.rates(t)[0] / alpha

    def g(self, t: Time) -> Time:
        """Return the diffusion coefficient g = √(2 σ σ' - 2 f σ²). ValueError for a float t at which α = 0."""
        sigma = self.sigma(t)
        return namespace(t).sqrt(2 * sigma * (self.rates(t)[1] - self.f(t) * sigma))


BELOW = (
    "start below t = 1, take an SDE that keeps a little of the data, Rectified(alpha_end=1e-3), or a step written in "
    "x̂₀ and ẑ (DDIM, DPMSolver, Ancestral; Euler or Heun on the flow) with a score that knows x̂₀"
)


@dataclass(frozen=True)
class Rectified(Interpolant):
    """Straight lines from data to noise: x_t = (1 - t) x₀ + t z, so α = 1 - t, σ = t            Eqs. (18.1), (18.5).

    Rectified flow and flow matching train on these. As a linear SDE it has f = -1/(1 - t) and g² = 2t/(1 - t). With
    alpha_end = a > 0 a little of the data is left, α = 1 - (1 - a) t, f = -(1 - a)/α, g² = 2t/α, all finite; then every
    sampler, grid and likelihood of the library applies at t = 1 too.

    Parameters
    ----------
    alpha_end : float, default 0
        α(1), from 0 (included) to 1.

    Raises
    ------
    ValueError
        Unless 0 <= alpha_end < 1; for a float t outside [0, 1]; for f and g at a float t where α = 0.

    Examples
    --------
    >>> from refscore import Rectified
    >>> sde = Rectified()
    >>> sde.alpha(0.75), sde.sigma(0.75), sde.f(0.75), round(sde.g(0.75) ** 2, 12)
    (0.25, 0.75, -4.0, 6.0)
    >>> sde.rates(1.0)  # the velocity z - x₀ is finite where f and g are not
    (-1.0, 1.0)
    """

    alpha_end: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        if not 0 <= self.alpha_end < 1:
            raise ValueError(f"alpha_end must lie in [0, 1), got {self.alpha_end}")

    @property
    def prior_std(self) -> float:
        """The deviation 1 of the noise at t = 1."""
        return 1.0

    def alpha(self, t: Time) -> Time:
        """Return the signal scale α = 1 - (1 - α(1)) t."""
        t = check_time(t)
        return (1 - t) + self.alpha_end * t

    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ = t."""
        return check_time(t)

    def rates(self, t: Time) -> tuple[Time, Time]:
        """Return the rates of both scales, α' = -(1 - α(1)) and σ' = 1."""
        t = check_time(t)
        return constant(self.alpha_end - 1, t), constant(1.0, t)

    def time(self, sigma: Time) -> Time:
        """Return the t at which σ(t) = sigma, in [0, 1]: sigma itself."""
        sigma = plain(sigma)
        if is_number(sigma) and not 0 <= sigma <= 1:
            raise ValueError(f"sigma must lie in [0, 1] on straight lines, got {sigma}")
        if not is_number(sigma):
            check_kind("sigma", sigma)
        return sigma

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """Return the t at which log σ/α = ratio: t = 1/(e^{-ratio} + 1 - α(1))."""
        ratio = plain(ratio)
        xp = namespace(ratio)
        up, down = xp.exp(0.5 * (ratio - abs(ratio))), xp.exp(-0.5 * (ratio + abs(ratio)))  # neither overflows
        return up / (down + (1 - self.alpha_end) * up)
