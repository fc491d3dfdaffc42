"""DDPM and SMLD: chains of noise levels, and the SDEs that they are. Chapter 9.

    DDPM   x_i = √(1 - β_i) x_{i-1} + √β_i z        α_i = Π √(1 - β_j),   σ_i² = 1 - α_i²             Ho et al. 2020
    SMLD   x_i = x_{i-1} + √(σ_i² - σ_{i-1}²) z     α_i = 1                                  Song and Ermon 2019

At the times i/N both are marginals of a linear SDE: between two times let log α and σ²/α² be straight lines. So every
sampler of this library runs on a chain as it runs on an SDE, and on the grid the chain's own numbers are used.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from array_api_compat import array_namespace, device

from refscore.arrays import Time, check_time


@dataclass(frozen=True)
class Chain:
    """A linear SDE with given α_i and σ_i at the times i/N, i = 0, ..., N.

    Raises
    ------
    ValueError
        Unless α_0 = 1, σ_0 = 0, all α are positive and σ/α rises; for a float t outside [0, 1].
    """

    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    prior_std: float = 1.0

    def __post_init__(self) -> None:
        if len(self.alphas) != len(self.sigmas) or len(self.alphas) < 2:
            raise ValueError(f"need as many alphas as sigmas, two or more; got {len(self.alphas)}, {len(self.sigmas)}")
        if self.alphas[0] != 1 or self.sigmas[0] != 0 or not min(self.alphas) > 0:
            raise ValueError("a chain starts at data, α_0 = 1 and σ_0 = 0, and keeps α > 0")
        ratios = self.ratios
        if not all(b > a for a, b in pairwise(ratios)):
            raise ValueError("σ/α must rise along the chain: every step adds noise")

    @property
    def n(self) -> int:
        """N, the number of steps."""
        return len(self.alphas) - 1

    @property
    def times(self) -> list[float]:
        """The grid from noise to data, 1, 1 - 1/N, ..., 0."""
        return [i / self.n for i in range(self.n, -1, -1)]

    @property
    def ratios(self) -> list[float]:
        """(σ_i/α_i)²."""
        return [(s / a) ** 2 for a, s in zip(self.alphas, self.sigmas, strict=True)]

    def alpha(self, t: Time) -> Time:
        """Signal scale, log-linear between the times of the chain."""
        logs = [math.log(a) for a in self.alphas]
        value, _ = _line(logs, t)
        return math.exp(value) if isinstance(t, (float, int)) else array_namespace(value).exp(value)

    def sigma(self, t: Time) -> Time:
        """Noise scale: (σ/α)² is linear between the times of the chain."""
        value, _ = _line(self.ratios, t)
        root = math.sqrt(value) if isinstance(t, (float, int)) else array_namespace(value).sqrt(value)
        return self.alpha(t) * root

    def f(self, t: Time) -> Time:
        """Drift rate d log α/dt, constant within a step; at i/N that of the step which leads there."""
        return _line([math.log(a) for a in self.alphas], t)[1]

    def g(self, t: Time) -> Time:
        """Diffusion coefficient, g² = α² d(σ/α)²/dt."""
        slope = _line(self.ratios, t)[1]
        root = math.sqrt(slope) if isinstance(t, (float, int)) else array_namespace(slope).sqrt(slope)
        return self.alpha(t) * root

    def time(self, sigma: Time) -> Time:
        """Not to be had in closed form."""
        raise NotImplementedError("a chain has no inverse of σ: use its own times, Chain.times")

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """The t at which log σ/α = ratio, for a float."""
        target, ratios = math.exp(2 * ratio), self.ratios
        if target >= ratios[-1]:
            return 1.0
        i = next(i for i in range(self.n) if ratios[i + 1] > target)
        return (i + (target - ratios[i]) / (ratios[i + 1] - ratios[i])) / self.n


def _line(values: list[float], t: Time) -> tuple[Time, Time]:
    """Value and slope at t of the straight lines through `values` at 0, 1/N, ..., 1."""
    check_time(t)
    n = len(values) - 1
    slopes = [(b - a) * n for a, b in pairwise(values)]
    if isinstance(t, (float, int)):
        near = round(t * n)
        if abs(t * n - near) <= 1e-9:  # on the grid the chain's own number
            return values[near], slopes[max(near - 1, 0)]
        i = min(int(t * n), n - 1)
        return values[i] + (t - i / n) * slopes[i], slopes[i]
    xp = array_namespace(t)
    i = xp.astype(xp.maximum(xp.ceil(t * n - 1e-6) - 1.0, 0.0), xp.int64)  # 1e-6: on the grid in float32, too
    value, slope = (xp.take(xp.asarray(v, dtype=t.dtype, device=device(t)), i) for v in (values[:-1], slopes))
    return value + (t - xp.astype(i, t.dtype) / n) * slope, slope


def ddpm(n: int, beta_min: float = 0.1, beta_max: float = 20.0) -> Chain:
    """The DDPM chain with β_i from β_min/N to β_max/N in equal steps; N = 1000 gives 1e-4 to 2e-2.

    Its limit for N -> ∞ is `VP(beta_min, beta_max)`, with an error of order 1/N.

    Raises
    ------
    ValueError
        Unless n > beta_max: then β_N = β_max/N would be 1 or more, and nothing of the data left.
    """
    if n < 2 or n <= beta_max:
        raise ValueError(
            f"a DDPM chain needs more steps than beta_max = {beta_max} (β_N = beta_max/n < 1), got n = {n}"
        )
    alphas = [1.0]
    log_alpha2 = 0.0
    sigmas = [0.0]
    for i in range(n):
        log_alpha2 += math.log1p(-(beta_min + (beta_max - beta_min) * i / (n - 1)) / n)
        alphas.append(math.exp(0.5 * log_alpha2))
        sigmas.append(math.sqrt(-math.expm1(log_alpha2)))
    return Chain(tuple(alphas), tuple(sigmas))


def smld(n: int, sigma_min: float = 0.01, sigma_max: float = 50.0) -> Chain:
    """The SMLD chain: the marginals of `VE(sigma_min, sigma_max)` at i/N, at every N, not only in the limit.

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 < sigma_min < sigma_max.
    """
    if n < 1 or not 0 < sigma_min < sigma_max:
        raise ValueError(f"need n >= 1 and 0 < sigma_min < sigma_max, got {n}, {sigma_min}, {sigma_max}")
    log_r = math.log(sigma_max / sigma_min)
    sigmas = tuple(sigma_min * math.sqrt(math.expm1(2 * log_r * i / n)) for i in range(n + 1))
    return Chain((1.0,) * (n + 1), sigmas, sigmas[-1])
