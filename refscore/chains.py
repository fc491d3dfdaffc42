"""DDPM and SMLD: chains of noise levels, and the SDEs that they are. Chapter 9.

    DDPM   x_i = √(1 - β_i) x_{i-1} + √β_i z        α_i = Π √(1 - β_j),   σ_i² = 1 - α_i²             Ho et al. 2020
    SMLD   x_i = x_{i-1} + √(σ_i² - σ_{i-1}²) z     α_i = 1                                  Song and Ermon 2019

At the times i/N both are marginals of a linear SDE: between two times let log α and σ²/α² be straight lines. So every
sampler of this library runs on a chain as it runs on an SDE, and on the grid the chain's own numbers are used.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from array_api_compat import array_namespace, device

from refscore.arrays import Time, check_time, namespace


@dataclass(frozen=True)
class Chain:
    """A linear SDE with given α_i and σ_i at the times i/N, i = 0, ..., N                  Eqs. (9.2), (9.8).

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
        if not all(b > a for a, b in pairwise(self.ratios)):
            raise ValueError("σ/α must rise along the chain: every step adds noise")

    @property
    def n(self) -> int:
        """N, the number of steps."""
        return len(self.alphas) - 1

    @property
    def times(self) -> list[float]:
        """The grid from noise to data, 1, 1 - 1/N, ..., 0."""
        return [i / self.n for i in range(self.n, -1, -1)]

    @cached_property
    def ratios(self) -> list[float]:
        """(σ_i/α_i)²."""
        return [(s / a) ** 2 for a, s in zip(self.alphas, self.sigmas, strict=True)]

    def alpha(self, t: Time) -> Time:
        """Signal scale, log-linear between the times of the chain."""
        return namespace(t).exp(_line(self._log_line, t)[0])

    def sigma(self, t: Time) -> Time:
        """Noise scale: (σ/α)² is linear between the times of the chain."""
        return self.alpha(t) * namespace(t).sqrt(_line(self._ratio_line, t)[0])

    def f(self, t: Time) -> Time:
        """Drift rate d log α/dt, constant within a step; at i/N that of the step which leads there."""
        return _line(self._log_line, t)[1]

    def g(self, t: Time) -> Time:
        """Diffusion coefficient, g² = α² d(σ/α)²/dt; at i/N that of the step which leads there."""
        return self.alpha(t) * namespace(t).sqrt(_line(self._ratio_line, t)[1])

    def time(self, sigma: Time) -> Time:
        """Not to be had in closed form."""
        raise NotImplementedError("a chain has no inverse of σ: use its own times, or time_at_log_ratio")

    def time_at_log_ratio(self, ratio: Time) -> Time:
        """The t at which log σ/α = ratio; 1 beyond the end of the chain."""
        xp, target = namespace(ratio), namespace(ratio).exp(2 * ratio)
        if isinstance(ratio, (float, int)):
            if target >= self.ratios[-1]:
                return 1.0
            i = next(i for i in range(self.n) if self.ratios[i + 1] > target)
            return (i + (target - self.ratios[i]) / (self.ratios[i + 1] - self.ratios[i])) / self.n
        ratios = xp.asarray(self.ratios, dtype=target.dtype, device=device(target))
        i = xp.searchsorted(ratios, target, side="right") - 1
        i = xp.where(i < self.n, i, i - 1)
        low, high = xp.take(ratios, i), xp.take(ratios, i + 1)
        return xp.minimum((xp.astype(i, target.dtype) + (target - low) / (high - low)) / self.n, 1.0)

    @cached_property
    def _log_line(self) -> "Line":
        return _through([math.log(a) for a in self.alphas])

    @cached_property
    def _ratio_line(self) -> "Line":
        return _through(self.ratios)


Line = tuple[list[float], list[float]]  # values at 0, 1/N, ..., 1, and the N slopes between them


def _through(values: list[float]) -> Line:
    return values, [(b - a) * (len(values) - 1) for a, b in pairwise(values)]


def _line(line: Line, t: Time) -> tuple[Time, Time]:
    """Value and slope at t; on the grid the chain's own number, and the slope of the step that leads there."""
    check_time(t)
    values, slopes = line
    n = len(slopes)
    if isinstance(t, (float, int)):
        near = round(t * n)
        if abs(t * n - near) <= 1e-9:
            return values[near], slopes[max(near - 1, 0)]
        i = int(t * n)
        return values[i] + (t - i / n) * slopes[i], slopes[i]
    xp = array_namespace(t)
    value, slope = (xp.asarray(v, dtype=t.dtype, device=device(t)) for v in line)
    nearest = xp.round(t * n)
    on = xp.abs(t * n - nearest) <= max(1e-9, 4 * n * float(xp.finfo(t.dtype).eps))  # what i/N is rounded by
    near = xp.astype(nearest, xp.int64)
    i = xp.where(on, near - 1, xp.astype(xp.floor(t * n), xp.int64))
    i = xp.where(i < 0, 0 * i, i)
    between = xp.take(value, i) + (t - xp.astype(i, t.dtype) / n) * xp.take(slope, i)
    return xp.where(on, xp.take(value, near), between), xp.take(slope, i)


def from_betas(betas: Sequence[float]) -> Chain:
    """The chain x_i = √(1 - β_i) x_{i-1} + √β_i z of any β_1, ..., β_N                               Eq. (9.1).

    Raises
    ------
    ValueError
        Unless there is a β and all lie in (0, 1).
    """
    for i, beta in enumerate(betas, start=1):
        if not 0 < beta < 1:
            raise ValueError(f"every beta must lie in (0, 1), got beta_{i} = {beta}")
    alphas, sigmas, log_alpha2 = [1.0], [0.0], 0.0
    for beta in betas:
        log_alpha2 += math.log1p(-beta)
        alphas.append(math.exp(0.5 * log_alpha2))
        sigmas.append(math.sqrt(-math.expm1(log_alpha2)))
    return Chain(tuple(alphas), tuple(sigmas))


def ddpm(n: int, beta_min: float = 0.1, beta_max: float = 20.0) -> Chain:
    """The DDPM chain, β_i = [β_min + (β_max - β_min)(i - 1)/(N - 1)]/N, Eq. (9.4); N = 1000 gives 1e-4 to 2e-2.

    Its limit for N -> ∞ is `VP(beta_min, beta_max)`, with an error of order 1/N, Eq. (9.6). It is not β(i/N)/N for
    VP's β(t), but less by a term of order 1/N²: i = 1 has β_min/N, as Ho et al. 2020 have it.

    Raises
    ------
    ValueError
        Unless n > beta_max: then β_N = β_max/N would be 1 or more, and nothing of the data left.
    """
    if n < 2 or n <= beta_max:
        raise ValueError(
            f"a DDPM chain needs more steps than beta_max = {beta_max} (β_N = beta_max/n < 1), got n = {n}"
        )
    return from_betas([(beta_min + (beta_max - beta_min) * i / (n - 1)) / n for i in range(n)])


def smld(n: int, sigma_min: float = 0.01, sigma_max: float = 50.0) -> Chain:
    """The SMLD chain, Eq. (9.3): the marginals of `VE(sigma_min, sigma_max)` at i/N, at every N, not only in the limit.

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
