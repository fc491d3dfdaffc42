"""Linear SDEs dx = f(t) x dt + g(t) dw on [0, 1]: data at t = 0, noise at t = 1. Chapter 7.

The law of x(t) given x(0) is N(α(t) x(0), σ(t)² I) with

    dα/dt = f α,   α(0) = 1,        dσ²/dt = 2 f σ² + g²,   σ(0) = 0,

so an SDE is told either by (f, g) or by (α, σ); each class gives both, and the tests check that
they solve these two equations (Särkkä and Solin 2019, Sec. 5.5). A time is a Python float or an
array: every method answers in kind, in the dtype and on the device of t.
"""

import math
from dataclasses import dataclass

from refscore.arrays import SDE, Array, Rng, Time, check_positive, check_time, namespace


@dataclass(frozen=True)
class VP:
    """Variance-preserving SDE  dx = -½ β(t) x dt + √β(t) dw        Song et al. 2021, Eq. (11).

    with β(t) = β_min + t (β_max - β_min) and B(t) = ∫₀ᵗ β: α = exp(-½ B), α² + σ² = 1. Data of
    covariance I keep it at every time, whence the name.

    β is per unit time, σ has the units of the data.

    Raises
    ------
    ValueError
        Unless 0 < beta_min <= beta_max < ∞; for a float t outside [0, 1].
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        check_positive(beta_min=self.beta_min, beta_max=self.beta_max)
        if self.beta_min > self.beta_max:
            raise ValueError(f"need beta_min <= beta_max, got {self.beta_min}, {self.beta_max}")

    @property
    def prior_std(self) -> float:
        """1: what x(t) tends to for data of any scale, once B(1) is large."""
        return 1.0

    def f(self, t: Time) -> Time:
        """Drift rate f = -½ β."""
        check_time(t)
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))

    def g(self, t: Time) -> Time:
        """Diffusion coefficient g = √β."""
        return namespace(t).sqrt(-2 * self.f(t))

    def alpha(self, t: Time) -> Time:
        """Signal scale α = exp(-½ B)."""
        return namespace(t).exp(-0.5 * self._B(t))

    def sigma(self, t: Time) -> Time:
        """Noise scale σ = √(1 - e⁻ᴮ); expm1 keeps full precision as t -> 0, where σ ~ √B."""
        xp = namespace(t)
        return xp.sqrt(-xp.expm1(-self._B(t)))

    def time(self, sigma: Time) -> Time:
        """The t at which σ(t) = sigma, 0 <= sigma < 1. Near 1 it is as ill-conditioned as 1 - sigma."""
        if isinstance(sigma, (float, int)) and not 0 <= sigma < 1:
            raise ValueError(f"sigma must lie in [0, 1) for a variance-preserving SDE, got {sigma}")
        return self._time_of_B(-namespace(sigma).log1p(-(sigma**2)))

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """The t at which log σ/α = ratio: from e^B - 1 = σ²/α²."""
        xp, u = namespace(ratio), 2 * ratio
        # B = log(1 + e^u), in the form that neither overflows nor loses the small end.
        return self._time_of_B(0.5 * (u + abs(u)) + xp.log1p(xp.exp(-abs(u))))

    def _B(self, t: Time) -> Time:
        check_time(t)
        return t * self.beta_min + 0.5 * t**2 * (self.beta_max - self.beta_min)

    def _time_of_B(self, B: Time) -> Time:
        # The root of ½ Δβ t² + β_min t = B, written so that nothing cancels for small B.
        rise = self.beta_max - self.beta_min
        return 2 * B / (self.beta_min + namespace(B).sqrt(self.beta_min**2 + 2 * rise * B))


@dataclass(frozen=True)
class VE:
    """Variance-exploding SDE  dx = g(t) dw, geometric noise levels   Song et al. 2021, Eqs. (9), (29).

    With r = σ_max/σ_min: g = σ_min rᵗ √(2 ln r), α = 1 and

        σ(t)² = σ_min² (r²ᵗ - 1),

    which is the variance of the kernel in their Eq. (29) with σ(0) = σ_min there. The kernel they go on with,
    and their code, has σ_min rᵗ instead, as if the data already carried noise of variance σ_min²; we
    integrate from 0, so σ(0) = 0 and the prior has variance σ_max² - σ_min².

    Raises
    ------
    ValueError
        Unless 0 < sigma_min < sigma_max < ∞; for a float t outside [0, 1].
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"need sigma_min < sigma_max, got {self.sigma_min}, {self.sigma_max}")

    @property
    def prior_std(self) -> float:
        """σ(1) = √(σ_max² - σ_min²)."""
        return float(self.sigma(1.0))

    def f(self, t: Time) -> Time:
        """Drift rate 0."""
        check_time(t)
        return 0 * t

    def g(self, t: Time) -> Time:
        """Diffusion coefficient g = σ_min rᵗ √(2 ln r)."""
        check_time(t)
        return self.sigma_min * math.sqrt(2 * self._log_r) * namespace(t).exp(t * self._log_r)

    def alpha(self, t: Time) -> Time:
        """Signal scale 1."""
        check_time(t)
        return 1.0 + 0 * t

    def sigma(self, t: Time) -> Time:
        """Noise scale σ = σ_min √(r²ᵗ - 1); expm1 keeps full precision as t -> 0."""
        check_time(t)
        xp = namespace(t)
        return self.sigma_min * xp.sqrt(xp.expm1(2 * t * self._log_r))

    def time(self, sigma: Time) -> Time:
        """The t at which σ(t) = sigma >= 0."""
        if isinstance(sigma, (float, int)) and not sigma >= 0:
            raise ValueError(f"sigma must not be negative, got {sigma}")
        return namespace(sigma).log1p((sigma / self.sigma_min) ** 2) / (2 * self._log_r)

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """The t at which log σ/α = log σ = ratio."""
        return self.time(namespace(ratio).exp(ratio))

    @property
    def _log_r(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


def log_ratio(sde: SDE, t: Time) -> Time:
    """log σ(t)/α(t), the noise level that networks are told: minus half the log signal-to-noise ratio."""
    return namespace(t).log(sde.sigma(t) / sde.alpha(t))


def prior(sde: SDE, shape: tuple[int, ...], rng: Rng, dtype: object = "float32") -> Array:
    """Draw x(1) ~ N(0, prior_std² I) of the given shape (B, ...): where sampling starts."""
    if 0 in shape or not shape:
        raise ValueError(f"prior needs a shape (B, ...) without zeros, got {shape}")
    return sde.prior_std * rng.standard_normal(shape, dtype=dtype)


SDES: dict[str, SDE] = {"vp": VP(), "ve": VE()}
