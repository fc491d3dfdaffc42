"""Linear SDEs dx = f(t) x dt + g(t) dw on [0, 1]: data at t = 0, noise at t = 1. Chapter 7.

The law of x(t) given x(0) is N(α(t) x(0), σ(t)² I) with

    dα/dt = f α,   α(0) = 1,        dσ²/dt = 2 f σ² + g²,   σ(0) = 0,

so an SDE is given either by (f, g) or by (α, σ); each class has both, and the tests check that
they solve these two equations, Eq. (7.8) (Särkkä and Solin 2019, Sec. 5.5). A time is a Python float or an
array: every method returns the same kind, in the dtype and on the device of t.
"""

import math
from dataclasses import dataclass

from refscore.arrays import constant, namespace
from refscore.checks import check_kind, check_like, check_positive, check_size, check_time, is_number, plain, settle
from refscore.noise.interpolant import BELOW, Rectified
from refscore.protocols import SDE, Time


@dataclass(frozen=True)
class VP:
    """Variance-preserving SDE  dx = -½ β(t) x dt + √β(t) dw        Song et al. 2021, Eq. (11).

    with β(t) = β_min + t (β_max - β_min) and B(t) = ∫₀ᵗ β: α = exp(-½ B), α² + σ² = 1. Data of
    covariance I keep it at every time, hence the name.

    β is per unit time, σ has the units of the data.

    Parameters
    ----------
    beta_min, beta_max : float, default 0.1 and 20
        β at t = 0 and at t = 1, per unit time.

    Raises
    ------
    ValueError
        Unless 0 < beta_min <= beta_max < ∞; where α(1)² underflows; for a float t outside [0, 1].

    Examples
    --------
    >>> from refscore import VP
    >>> sde = VP(beta_min=2.0, beta_max=2.0)  # B(t) = 2t
    >>> round(sde.alpha(1.0), 4), round(sde.sigma(1.0) ** 2, 4)  # 1/e and 1 - 1/e²
    (0.3679, 0.8647)
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        settle(self)
        check_positive(beta_min=self.beta_min, beta_max=self.beta_max)
        if self.beta_min > self.beta_max:
            raise ValueError(f"need beta_min <= beta_max, got {self.beta_min}, {self.beta_max}")
        _check_signal(self)

    @property
    def prior_std(self) -> float:
        """The deviation 1 that x(t) tends to, for data of any scale, once B(1) is large."""
        return 1.0

    def f(self, t: Time) -> Time:
        """Return the drift rate f = -½ β."""
        t = check_time(t)
        return -0.5 * (self.beta_min + t * (self.beta_max - self.beta_min))

    def g(self, t: Time) -> Time:
        """Return the diffusion coefficient g = √β."""
        return namespace(t).sqrt(-2 * self.f(t))

    def alpha(self, t: Time) -> Time:
        """Return the signal scale α = exp(-½ B)."""
        return namespace(t).exp(-0.5 * self._B(t))

    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ = √(1 - e⁻ᴮ); expm1 keeps full precision as t -> 0, where σ ~ √B."""
        xp = namespace(t)
        return xp.sqrt(-xp.expm1(-self._B(t)))

    def time(self, sigma: Time) -> Time:
        """Return the t at which σ(t) = sigma, 0 <= sigma < 1. Near 1 it is as ill-conditioned as 1 - sigma."""
        sigma = plain(sigma)
        if is_number(sigma) and not 0 <= sigma < 1:
            raise ValueError(f"sigma must lie in [0, 1) for a variance-preserving SDE, got {sigma}")
        return self._time_of_B(-namespace(sigma).log1p(-(sigma**2)))

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """Return the t at which log σ/α = ratio: from e^B - 1 = σ²/α²."""
        return self._time_of_B(_softplus(2 * ratio))

    def _B(self, t: Time) -> Time:
        t = check_time(t)
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

    Parameters
    ----------
    sigma_min, sigma_max : float, default 0.01 and 50
        σ of the smallest and the largest level, in data units; σ(1) is √(σ_max² - σ_min²).

    Raises
    ------
    ValueError
        Unless 0 < sigma_min < sigma_max < ∞; for a float t outside [0, 1].

    Examples
    --------
    >>> from refscore import VE
    >>> sde = VE(sigma_min=0.1, sigma_max=1.0)  # r = 10
    >>> round(sde.sigma(0.5), 4), round(sde.prior_std, 4)  # √(0.01 (10 - 1)) and √(1 - 0.01)
    (0.3, 0.995)
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    def __post_init__(self) -> None:
        settle(self)
        check_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        check_size(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"need sigma_min < sigma_max, got {self.sigma_min}, {self.sigma_max}")

    @property
    def prior_std(self) -> float:
        """The deviation of the noise at t = 1, σ(1) = √(σ_max² - σ_min²)."""
        return float(self.sigma(1.0))

    def f(self, t: Time) -> Time:
        """Return the drift rate f, which is 0 for every variance-exploding SDE."""
        return constant(0.0, check_time(t))

    def g(self, t: Time) -> Time:
        """Return the diffusion coefficient g = σ_min rᵗ √(2 ln r)."""
        t = check_time(t)
        return self.sigma_min * math.sqrt(2 * self._log_r) * namespace(t).exp(t * self._log_r)

    def alpha(self, t: Time) -> Time:
        """Return the signal scale α, which is 1 for every variance-exploding SDE."""
        return constant(1.0, check_time(t))

    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ = σ_min √(r²ᵗ - 1); expm1 keeps full precision as t -> 0."""
        t = check_time(t)
        xp = namespace(t)
        return self.sigma_min * xp.sqrt(xp.expm1(2 * t * self._log_r))

    def time(self, sigma: Time) -> Time:
        """Return the t at which σ(t) = sigma >= 0."""
        sigma = plain(sigma)
        if is_number(sigma) and not sigma >= 0:
            raise ValueError(f"sigma must not be negative, got {sigma}")
        return namespace(sigma).log1p((sigma / self.sigma_min) ** 2) / (2 * self._log_r)

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """Return the t at which log σ/α = log σ = ratio."""
        return self.time(namespace(ratio).exp(ratio))

    @property
    def _log_r(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


@dataclass(frozen=True)
class CosineVP:
    """Variance-preserving with the cosine schedule of Nichol and Dhariwal 2021: α = cos φ(t)/cos φ(0), φ linear in t.

    φ(0) = s/(1 + s) π/2 with their offset s = 0.008. Theirs ends at φ = π/2, where α = 0 and β infinite, which they cut
    off at β < 1 for each step; here φ(1) is where α = alpha_end, so that there is an SDE. β = 2 φ' tan φ.

    Parameters
    ----------
    offset : float, default 0.008
        s, between 0 and 1: it keeps β(0) above 0.
    alpha_end : float, default 0.005
        α(1), between 0 and 1: the part of the data that is left at t = 1.

    Raises
    ------
    ValueError
        Unless 0 < offset < 1 and 0 < alpha_end < 1; for a float t outside [0, 1].

    Examples
    --------
    >>> from refscore.noise.sde import CosineVP
    >>> sde = CosineVP(alpha_end=0.01)
    >>> round(sde.alpha(1.0), 4), round(sde.alpha(0.5) ** 2 + sde.sigma(0.5) ** 2, 4)
    (0.01, 1.0)
    """

    offset: float = 0.008
    alpha_end: float = 5e-3

    def __post_init__(self) -> None:
        settle(self)
        for name, value in (("offset", self.offset), ("alpha_end", self.alpha_end)):
            if not 0 < value < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {value}")

    @property
    def prior_std(self) -> float:
        """The deviation 1 of the noise that sampling starts from."""
        return 1.0

    def f(self, t: Time) -> Time:
        """Return the drift rate f = -φ' tan φ."""
        return -self._turn * namespace(t).tan(self._angle(t))

    def g(self, t: Time) -> Time:
        """Return the diffusion coefficient g = √(2 φ' tan φ)."""
        return namespace(t).sqrt(-2 * self.f(t))

    def alpha(self, t: Time) -> Time:
        """Return the signal scale α = cos φ/cos φ₀."""
        return namespace(t).cos(self._angle(t)) / math.cos(self._start)

    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ = √(sin(φ - φ₀) sin(φ + φ₀))/cos φ₀.

        It is √(1 - α²), the difference of two cosines, without cancellation.
        """
        t = check_time(t)
        xp, a = namespace(t), self._start
        turned = t * self._turn
        return xp.sqrt(xp.sin(turned) * xp.sin(turned + 2 * a)) / math.cos(a)

    def time(self, sigma: Time) -> Time:
        """Return the t at which σ(t) = sigma, 0 <= sigma < 1."""
        sigma = plain(sigma)
        if is_number(sigma) and not 0 <= sigma < 1:
            raise ValueError(f"sigma must lie in [0, 1) for a variance-preserving SDE, got {sigma}")
        return self._time(sigma**2, 1 - sigma**2)

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """Return the t at which log σ/α = ratio: σ² and α² are the two logistic functions of 2 ratio."""
        xp = namespace(ratio)
        return self._time(xp.exp(-_softplus(-2 * ratio)), xp.exp(-_softplus(2 * ratio)))

    def _angle(self, t: Time) -> Time:
        t = check_time(t)
        return self._start + t * self._turn

    def _time(self, sigma2: Time, alpha2: Time) -> Time:
        """From σ² and α² = 1 - σ², given both: neither may be rebuilt from the other without loss."""
        xp, a = namespace(sigma2), self._start
        sin2, cos2 = math.sin(a) ** 2 + sigma2 * math.cos(a) ** 2, alpha2 * math.cos(a) ** 2
        sin, cos = xp.sqrt(sin2), xp.sqrt(cos2)
        # φ - φ₀ by its sine, σ² cos²φ₀/sin(φ + φ₀), and its cosine: small angles keep their precision
        sin_sum = sin * math.cos(a) + cos * math.sin(a)
        cos_turned = cos * math.cos(a) + sin * math.sin(a)
        return xp.atan2(sigma2 * math.cos(a) ** 2 / sin_sum, cos_turned) / self._turn

    @property
    def _start(self) -> float:
        return 0.5 * math.pi * self.offset / (1 + self.offset)

    @property
    def _turn(self) -> float:
        return math.acos(self.alpha_end * math.cos(self._start)) - self._start


@dataclass(frozen=True)
class SubVP(VP):
    """Sub-VP SDE  dx = -½ β(t) x dt + √(β(t) (1 - e^{-2B})) dw          Song et al. 2021.

    The same drift as `VP`, and less noise: α = e^{-B/2}, σ = 1 - e⁻ᴮ (no root), so that the variance of data of
    covariance I stays below 1, α² + σ² = 1 - e⁻ᴮ (1 - e⁻ᴮ).

    Parameters
    ----------
    beta_min, beta_max : float, default 0.1 and 20
        See `VP`.

    Raises
    ------
    ValueError
        As for `VP`.

    Examples
    --------
    >>> from refscore import SubVP
    >>> sde = SubVP(beta_min=2.0, beta_max=2.0)  # B(t) = 2t
    >>> round(sde.alpha(1.0), 4), round(sde.sigma(1.0), 4)  # 1/e and 1 - 1/e²: no root
    (0.3679, 0.8647)
    """

    def g(self, t: Time) -> Time:
        """Return the diffusion coefficient g = √(β (1 - e^{-2B}))."""
        xp = namespace(t)
        return xp.sqrt(2 * self.f(t) * xp.expm1(-2 * self._B(t)))

    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ = 1 - e⁻ᴮ."""
        return -namespace(t).expm1(-self._B(t))

    def time(self, sigma: Time) -> Time:
        """Return the t at which σ(t) = sigma, 0 <= sigma < 1."""
        sigma = plain(sigma)
        if is_number(sigma) and not 0 <= sigma < 1:
            raise ValueError(f"sigma must lie in [0, 1) for a sub-variance-preserving SDE, got {sigma}")
        return self._time_of_B(-namespace(sigma).log1p(-sigma))

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """Return the t at which log σ/α = ratio: σ/α = 2 sinh ½B."""
        xp = namespace(ratio)
        return self._time_of_B(2 * xp.asinh(0.5 * xp.exp(ratio)))


@dataclass(frozen=True)
class LinearVE:
    """Variance-exploding SDE with σ(t) = σ_max t, as in Karras et al. 2022 (where t is σ itself): dx = σ_max √(2t) dw.

    Parameters
    ----------
    sigma_max : float, default 80
        σ(1), in data units.

    Raises
    ------
    ValueError
        Unless 0 < sigma_max < ∞; for a float t outside [0, 1].

    Examples
    --------
    >>> from refscore.noise.sde import LinearVE
    >>> sde = LinearVE(sigma_max=80.0)
    >>> sde.sigma(0.25), sde.time(20.0), sde.prior_std
    (20.0, 0.25, 80.0)
    """

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        settle(self)
        check_positive(sigma_max=self.sigma_max)
        check_size(sigma_max=self.sigma_max)

    @property
    def prior_std(self) -> float:
        """The deviation of the noise at t = 1, σ(1) = σ_max."""
        return self.sigma_max

    def f(self, t: Time) -> Time:
        """Return the drift rate f, which is 0 for every variance-exploding SDE."""
        return constant(0.0, check_time(t))

    def g(self, t: Time) -> Time:
        """Return the diffusion coefficient g = σ_max √(2t)."""
        t = check_time(t)
        return self.sigma_max * namespace(t).sqrt(2 * t)

    def alpha(self, t: Time) -> Time:
        """Return the signal scale α, which is 1 for every variance-exploding SDE."""
        return constant(1.0, check_time(t))

    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ = σ_max t."""
        t = check_time(t)
        return self.sigma_max * t

    def time(self, sigma: Time) -> Time:
        """Return the t at which σ(t) = sigma >= 0."""
        sigma = plain(sigma)
        if is_number(sigma) and not sigma >= 0:
            raise ValueError(f"sigma must not be negative, got {sigma}")
        if not is_number(sigma):
            check_kind("sigma", sigma)
        return sigma / self.sigma_max

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """Return the t at which log σ/α = log σ = ratio."""
        return namespace(ratio).exp(ratio) / self.sigma_max


@dataclass(frozen=True)
class OU:
    """Ornstein-Uhlenbeck process  dx = -θ x dt + σ dw: a longer horizon is a larger θ and σ      Eq. (7.7).

    α = e^{-θt}, σ(t)² = σ²/2θ (1 - e^{-2θt}); it tends to N(0, σ²/2θ) from any start. VP is this process with θ = 1,
    σ = √2, run at the time ½ B(t).

    Parameters
    ----------
    theta : float, default 5
        θ, the rate at which x forgets its start, per unit time.
    diffusion : float, default √10
        σ, in data units per √time; not to be confused with the noise scale σ(t).

    Raises
    ------
    ValueError
        Unless theta and diffusion are positive; where α(1)² underflows; for a float t outside [0, 1].

    Examples
    --------
    >>> from refscore import OU
    >>> sde = OU(theta=1.0, diffusion=2.0)
    >>> round(sde.alpha(1.0), 4), round(sde.prior_std**2, 4)  # 1/e and σ²/2θ
    (0.3679, 2.0)
    """

    theta: float = 5.0
    diffusion: float = math.sqrt(10.0)

    def __post_init__(self) -> None:
        settle(self)
        check_positive(theta=self.theta, diffusion=self.diffusion)
        _check_signal(self)

    @property
    def prior_std(self) -> float:
        """The deviation of the stationary law, σ/√(2θ)."""
        return self.diffusion / math.sqrt(2 * self.theta)

    def f(self, t: Time) -> Time:
        """Return the drift rate f = -θ, the same at every time."""
        return constant(-self.theta, check_time(t))

    def g(self, t: Time) -> Time:
        """Return the diffusion coefficient g = σ, the same at every time."""
        return constant(self.diffusion, check_time(t))

    def alpha(self, t: Time) -> Time:
        """Return the signal scale α = e^{-θt}."""
        t = check_time(t)
        return namespace(t).exp(-self.theta * t)

    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ(t) = σ √((1 - e^{-2θt})/2θ)."""
        t = check_time(t)
        xp = namespace(t)
        return self.prior_std * xp.sqrt(-xp.expm1(-2 * self.theta * t))

    def time(self, sigma: Time) -> Time:
        """Return the t at which σ(t) = sigma, below the stationary σ/√(2θ)."""
        sigma = plain(sigma)
        if is_number(sigma) and not 0 <= sigma < self.prior_std:
            raise ValueError(f"sigma must lie in [0, {self.prior_std}), below the stationary deviation; got {sigma}")
        return -namespace(sigma).log1p(-((sigma / self.prior_std) ** 2)) / (2 * self.theta)

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """Return the t at which log σ/α = ratio: σ²/α² = (σ²/2θ)(e^{2θt} - 1)."""
        if not is_number(ratio):
            check_kind("ratio", ratio)
        return _softplus(2 * (ratio - math.log(self.prior_std))) / (2 * self.theta)


def _softplus(u: Time) -> Time:
    """log(1 + e^u), in the form that neither overflows nor loses the small end."""
    u = plain(u)
    xp = namespace(u)
    return 0.5 * (u + abs(u)) + xp.log1p(xp.exp(-abs(u)))


def _check_signal(sde: SDE) -> None:
    """Refuse α(1) whose square is below the range of floats: samplers divide by it."""
    if not sde.alpha(1.0) ** 2 > 1e-300:
        raise ValueError(
            f"{sde} leaves {sde.alpha(1.0):.3g} of the data at t = 1, too little to divide by: lower its rate"
        )


def log_ratio(sde: SDE, t: Time) -> Time:
    """Return log σ(t)/α(t), the noise level that is an input of networks: minus half the log signal-to-noise ratio.

    Parameters
    ----------
    sde : SDE
        Whose σ(t) and α(t) are compared.
    t : float or Array
        Times in (0, 1].

    Returns
    -------
    float or Array
        As t is.

    Raises
    ------
    ValueError
        For a float t outside [0, 1], or t = 0, where it is -∞, or a t at which α = 0, where it is ∞.

    Examples
    --------
    >>> from refscore.noise.sde import LinearVE, log_ratio
    >>> log_ratio(LinearVE(4.0), 0.25)  # σ = α = 1
    0.0
    """
    check_like(sde=sde)
    alpha = sde.alpha(t)
    if is_number(alpha) and alpha == 0:
        raise ValueError(f"at t = {t} α is 0, and log σ/α infinite: {BELOW}")
    return namespace(t).log(sde.sigma(t) / alpha)


SDES: dict[str, SDE] = {
    "vp": VP(),
    "ve": VE(),
    "subvp": SubVP(),
    "cosine": CosineVP(),
    "linear-ve": LinearVE(),
    "ou": OU(),
    "rectified": Rectified(alpha_end=1e-3),  # a little of the data is left at t = 1, so that f and g are finite
}
