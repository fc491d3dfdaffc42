"""DDPM and SMLD: chains of noise levels, and the SDEs that they are. Chapter 9.

    DDPM   x_i = √(1 - β_i) x_{i-1} + √β_i z        α_i = Π √(1 - β_j),   σ_i² = 1 - α_i²             Ho et al. 2020
    SMLD   x_i = x_{i-1} + √(σ_i² - σ_{i-1}²) z     α_i = 1                                  Song and Ermon 2019

At the times i/N both are marginals of a linear SDE: between two times let log α and σ²/α² be straight lines. So every
sampler of this library runs on a chain as it runs on an SDE, and on the grid the chain's own numbers are used.
"""

import math
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any

from refscore.arrays import namespace
from refscore.checks import (
    check_count,
    check_kind,
    check_number,
    check_positive,
    check_size,
    check_time,
    is_number,
    settle,
)
from refscore.library import array_namespace, device
from refscore.protocols import Time

BISECTIONS = 64  # of log t, over 708 at most: to the last bit of float64


@dataclass(frozen=True)
class Chain:
    """A linear SDE with given α_i and σ_i at the times i/N, i = 0, ..., N                  Eqs. (9.2), (9.8).

    Parameters
    ----------
    alphas : tuple of N + 1 floats
        α_0 = 1, α_1, ..., α_N, all positive.
    sigmas : tuple of N + 1 floats
        σ_0 = 0, σ_1, ..., σ_N, in data units.
    prior_std : float, default 1
        Deviation of the noise that sampling starts from.

    Raises
    ------
    ValueError
        Unless α_0 = 1, σ_0 = 0, all α are positive and σ/α rises and stays below 1e18; for a float t outside [0, 1].

    Examples
    --------
    >>> from refscore.noise.chains import Chain
    >>> chain = Chain(alphas=(1.0, 1.0, 1.0), sigmas=(0.0, 1.0, 7.0), prior_std=7.0)
    >>> chain.sigma(0.5), chain.sigma(1.0), chain.sigma(0.75)  # between 1 and 7: √((1 + 49)/2)
    (1.0, 7.0, 5.0)
    """

    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    prior_std: float = 1.0

    def __post_init__(self) -> None:
        settle(self)
        check_positive(prior_std=self.prior_std)
        if len(self.alphas) != len(self.sigmas) or len(self.alphas) < 2:
            raise ValueError(f"need as many alphas as sigmas, two or more; got {len(self.alphas)}, {len(self.sigmas)}")
        if self.alphas[0] != 1 or self.sigmas[0] != 0 or not min(self.alphas) > 0:
            raise ValueError("a chain starts at data, α_0 = 1 and σ_0 = 0, and keeps α > 0")
        top = max(s / a for a, s in zip(self.alphas, self.sigmas, strict=True))
        if not top < 1e18:
            raise ValueError(f"σ/α must stay below 1e18, whose square a float32 holds; got {top:.3g}")
        if not all(b > a for a, b in pairwise(self.ratios)):
            raise ValueError("σ/α must rise along the chain: every step adds noise")

    @property
    def n(self) -> int:
        """The number N of steps."""
        return len(self.alphas) - 1

    @property
    def times(self) -> list[float]:
        """The grid of the chain from noise to data, 1, 1 - 1/N, ..., 0."""
        return [i / self.n for i in range(self.n, -1, -1)]

    @cached_property
    def ratios(self) -> list[float]:
        """The N + 1 numbers (σ_i/α_i)², rising from 0."""
        return [(s / a) ** 2 for a, s in zip(self.alphas, self.sigmas, strict=True)]

    def alpha(self, t: Time) -> Time:
        """Return the signal scale α: log α is linear between the times of the chain."""
        return namespace(t).exp(_line(self._log_line, t)[0])

    def sigma(self, t: Time) -> Time:
        """Return the noise scale σ: (σ/α)² is linear between the times of the chain."""
        return self.alpha(t) * namespace(t).sqrt(_line(self._ratio_line, t)[0])

    def f(self, t: Time) -> Time:
        """Return the drift rate d log α/dt, constant within a step; at i/N that of the step which leads there."""
        return _line(self._log_line, t)[1]

    def g(self, t: Time) -> Time:
        """Return the diffusion coefficient, g² = α² d(σ/α)²/dt; at i/N that of the step which leads there."""
        return self.alpha(t) * namespace(t).sqrt(_line(self._ratio_line, t)[1])

    def time(self, sigma: Any) -> Any:
        """Return the first t at which σ(t) = sigma; beyond the largest σ an array gets the time of that.

        By bisection in log t, so that small times keep their digits, where σ rises in the first step that reaches it.

        Raises
        ------
        ValueError
            For a float below 0 or beyond the largest σ.
        """
        tops, peaks = self._tops
        if not is_number(sigma):
            check_kind("sigma", sigma)
        if is_number(sigma):
            if not 0 <= sigma <= peaks[-1] * (1 + 1e-12):
                raise ValueError(f"sigma must lie in [0, {peaks[-1]}], the largest of this chain; got {sigma}")
            i = bisect_left(peaks, min(sigma, peaks[-1]))
            low, high = max(i / self.n, sys.float_info.min), tops[i]
            for _ in range(BISECTIONS):
                middle = math.sqrt(low) * math.sqrt(high)
                low, high = (middle, high) if self.sigma(middle) < sigma else (low, middle)
            return high if sigma > 0 else 0.0
        xp = array_namespace(sigma)
        top, peak = (xp.asarray(v, dtype=sigma.dtype, device=device(sigma)) for v in self._tops)
        known = xp.where(sigma > 0, xp.minimum(sigma, peak[-1]), 0.0)  # NaN would lead past the last step
        i = xp.searchsorted(peak, known, side="left")
        low, high = xp.astype(i, sigma.dtype) / self.n, xp.take(top, i)
        low = xp.maximum(low, xp.finfo(sigma.dtype).smallest_normal)
        for _ in range(BISECTIONS):
            middle = xp.sqrt(low) * xp.sqrt(high)
            below = self.sigma(middle) < sigma
            low, high = xp.where(below, middle, low), xp.where(below, high, middle)
        return xp.where(sigma > 0, high, xp.where(sigma <= 0, 0.0, sigma))

    def time_at_log_ratio(self, ratio: Any) -> Any:
        """Return the t at which log σ/α = ratio; 1 beyond the end of the chain."""
        xp, end = namespace(ratio), 0.5 * math.log(self.ratios[-1])
        if is_number(ratio):
            target = math.exp(2 * min(ratio, end))
            i = min(bisect_right(self.ratios, target), self.n) - 1
            return min((i + (target - self.ratios[i]) / (self.ratios[i + 1] - self.ratios[i])) / self.n, 1.0)
        target = xp.exp(2 * xp.minimum(ratio, end))
        ratios = xp.asarray(self.ratios, dtype=target.dtype, device=device(target))
        i = xp.clip(xp.searchsorted(ratios, target, side="right"), 1, self.n) - 1
        low, high = xp.take(ratios, i), xp.take(ratios, i + 1)
        return xp.minimum((xp.astype(i, target.dtype) + (target - low) / (high - low)) / self.n, 1.0)

    @cached_property
    def _tops(self) -> tuple[list[float], list[float]]:
        """Of each step the time at which σ is largest in it, and the largest σ so far.

        σ² = α² R, R = (σ/α)², has one maximum in a step: where d log σ²/dt = 2 f + R'/R = 0.
        """
        tops = []
        for i, (f, rise) in enumerate(zip(self._log_line[1], self._ratio_line[1], strict=True)):
            low, high = self.ratios[i], self.ratios[i + 1]
            top = high if 2 * f * high + rise >= 0 else max(rise / (-2 * f), low)
            tops.append((i + (top - low) / (high - low)) / self.n)
        return tops, list(accumulate([float(self.sigma(t)) for t in tops], max))

    @cached_property
    def _log_line(self) -> "Line":
        return _through([math.log(a) for a in self.alphas])

    @cached_property
    def _ratio_line(self) -> "Line":
        return _through(self.ratios)


Line = tuple[list[float], list[float]]  # values at 0, 1/N, ..., 1, and the N slopes between them


def _through(values: list[float]) -> Line:
    return values, [(b - a) * (len(values) - 1) for a, b in pairwise(values)]


def _line(line: Line, t: Any) -> tuple[Time, Time]:
    """Value and slope at t; at i/N the chain's own number, and the slope of the step that leads there.

    For the slope whatever rounding may have made of i/N is i/N, since it jumps there; for the value, which does not
    jump, i/N alone: close to t = 0 no time is 0 but 0.
    """
    check_time(t)
    values, slopes = line
    n = len(slopes)
    if is_number(t):
        i, near = min(int(t * n), n - 1), round(t * n)
        leads = near - 1 if abs(t * n - near) <= 1e-9 else i
        value = values[near] if t == near / n else values[i] + (t - i / n) * slopes[i]
        return value, slopes[max(leads, 0)]
    xp = array_namespace(t)
    value, slope = (xp.asarray(v, dtype=t.dtype, device=device(t)) for v in line)
    known = xp.where(t >= 0, t * n, 0.0)  # the index of a NaN would be anywhere
    start, nearest = xp.clip(xp.floor(known), 0, n - 1), xp.clip(xp.round(known), 0, n)
    close = xp.abs(t * n - nearest) <= max(1e-9, 4 * n * float(xp.finfo(t.dtype).eps))
    leads = xp.clip(xp.where(close, nearest - 1, start), 0, n - 1)
    i, near, leads = (xp.astype(k, xp.int64) for k in (start, nearest, leads))
    between = xp.take(value, i) + (t - start / n) * xp.take(slope, i)
    return xp.where(t == nearest / n, xp.take(value, near), between), xp.where(t == t, xp.take(slope, leads), t)


def from_betas(betas: Sequence[float]) -> Chain:
    """Return the chain x_i = √(1 - β_i) x_{i-1} + √β_i z of any β_1, ..., β_N                           Eq. (9.1).

    Parameters
    ----------
    betas : sequence of N floats
        β_1, ..., β_N, all in (0, 1).

    Returns
    -------
    Chain
        Of N steps, with prior_std 1.

    Raises
    ------
    ValueError
        Unless there is a β and all lie in (0, 1).

    Examples
    --------
    >>> from refscore.noise.chains import from_betas
    >>> chain = from_betas([0.5, 0.5])
    >>> [round(a**2, 4) for a in chain.alphas], [round(s**2, 4) for s in chain.sigmas]  # α² halves twice
    ([1.0, 0.5, 0.25], [0.0, 0.5, 0.75])
    """
    betas = _numbers("betas", betas)
    for i, beta in enumerate(betas, start=1):
        if not 0 < beta < 1:
            raise ValueError(f"every beta must lie in (0, 1), got beta_{i} = {beta}")
    alphas, sigmas, log_alpha2 = [1.0], [0.0], 0.0
    for beta in betas:
        log_alpha2 += math.log1p(-beta)
        alphas.append(math.exp(0.5 * log_alpha2))
        sigmas.append(math.sqrt(-math.expm1(log_alpha2)))
    return Chain(tuple(alphas), tuple(sigmas))


def from_alphas_bar(alphas_bar: Sequence[float]) -> Chain:
    """The DDPM chain with the given ᾱ_i = Π_{j <= i} (1 - β_j): α_i = √ᾱ_i, σ_i = √(1 - ᾱ_i).

    `from_betas(betas)` and `from_alphas_bar(cumprod(1 - betas))` are one chain, to rounding. In diffusers the list is
    `scheduler.alphas_cumprod`.

    Parameters
    ----------
    alphas_bar : sequence of N floats in (0, 1]
        ᾱ_1 > ... > ᾱ_N, from data to noise; a leading ᾱ_0 = 1 changes nothing. A list, a tuple or an array on the
        host. Of float32 numbers near 1 few digits of 1 - ᾱ are left: 3 or 4 where it is 1e-4.

    Returns
    -------
    Chain
        N steps, `prior_std` 1; at the times i/N it has these levels, to rounding.

    Raises
    ------
    TypeError
        For what is not a sequence of numbers.
    ValueError
        Unless they fall strictly within (0, 1] and one is below 1. ᾱ_N = 0, zero terminal signal-to-noise ratio, is
        refused: σ/α is infinite there.

    Examples
    --------
    >>> from refscore.noise.chains import from_alphas_bar
    >>> sde = from_alphas_bar([0.99, 0.75, 0.36])
    >>> sde.n, sde.alpha(1.0), sde.sigma(1.0)
    (3, 0.6, 0.8)
    """
    levels = _numbers("alphas_bar", alphas_bar)
    for i, level in enumerate(levels):
        if level == 0:
            raise ValueError(
                f"alphas_bar[{i}] = 0 (zero terminal SNR) leaves nothing of the data, and samplers divide by √ᾱ: leave "
                "it out, alphas_bar[:-1], and start one step later"
            )
        if not 0 < level <= 1:
            raise ValueError(f"every ᾱ must lie in (0, 1], got alphas_bar[{i}] = {level}")
    for i, (a, b) in enumerate(pairwise(levels)):
        if not a > b:
            raise ValueError(
                f"alphas_bar must fall strictly, from data to noise; got alphas_bar[{i}] = {a} and then {b}"
            )
    levels = [1.0, *(a for a in levels if a < 1)]
    if len(levels) < 2:
        raise ValueError("alphas_bar must hold a level below 1, got 1 alone")
    return Chain(tuple(map(math.sqrt, levels)), tuple(math.sqrt(1 - a) for a in levels))


def from_sigmas(sigmas: Sequence[float]) -> Chain:
    """The chain with the given noise levels and α = 1: x_i = x_{i-1} + √(σ_i² - σ_{i-1}²) z                Eq. (9.3).

    For who has a list of σ, say of Karras et al. 2022 or of k-diffusion: its grid `times` walks exactly these levels,
    and then 0. The network of k-diffusion, D(x, σ), is a score by s(x, t) = (D(x, σ) - x)/σ², σ = sde.sigma(t).

    Parameters
    ----------
    sigmas : sequence of floats
        In units of the data, all rising or all falling, with or without the 0 at the end of the data. A list, a tuple
        or an array on the host.

    Returns
    -------
    Chain
        One step a positive level; `prior_std` is the largest.

    Raises
    ------
    TypeError
        For what is not a sequence of numbers.
    ValueError
        Unless one is positive, all are finite and not negative, and they rise or fall strictly.

    Examples
    --------
    Sample along somebody's list in three lines, here with the score of data N(0, 1):

    >>> import numpy as np
    >>> from refscore import DDIM, last, prior, simulate
    >>> from refscore.noise.chains import from_sigmas
    >>> rng = np.random.default_rng(0)
    >>> sde = from_sigmas([80.0, 24.4, 5.84, 0.9, 0.06, 0.002, 0.0])
    >>> score = lambda x, t: -x / (1 + sde.sigma(t) ** 2)
    >>> x = last(simulate(DDIM(sde, score), prior(sde, (5, 2), rng), sde.times, rng))
    >>> [sde.sigma(t) for t in sde.times]
    [80.0, 24.4, 5.84, 0.9, 0.06, 0.002, 0.0]
    >>> x.shape
    (5, 2)
    """
    levels = _numbers("sigmas", sigmas)
    for i, level in enumerate(levels):
        if not 0 <= level < math.inf:
            raise ValueError(f"every σ must be finite and not negative, got sigmas[{i}] = {level}")
    way = 1 if levels[0] < levels[-1] else -1
    for i, (a, b) in enumerate(pairwise(levels)):
        if not way * a < way * b:
            raise ValueError(f"sigmas must all rise or all fall; got sigmas[{i}] = {a} and then {b}")
    levels = [0.0, *(s for s in levels[::way] if s > 0)]
    if len(levels) < 2:
        raise ValueError("sigmas must hold a level above 0, got 0 alone")
    return Chain((1.0,) * len(levels), tuple(levels), prior_std=levels[-1])


def _numbers(name: str, values: Sequence[float]) -> list[float]:
    """A list of Python floats, at least one, from any sequence of numbers."""
    if isinstance(values, str) or getattr(values, "ndim", 1) != 1 or not hasattr(values, "__getitem__"):
        raise TypeError(f"{name} must be a list of numbers, got {values!r}")
    numbers = [check_number(f"{name}[{i}]", value) for i, value in enumerate(values)]
    if not numbers:
        raise ValueError(f"{name} is empty: give one level at least")
    return numbers


def ddpm(n: int, beta_min: float = 0.1, beta_max: float = 20.0) -> Chain:
    """Return the DDPM chain, β_i = [β_min + (β_max - β_min)(i - 1)/(N - 1)]/N                                Eq. (9.4).

    N = 1000 gives 1e-4 to 2e-2. Its limit for N -> ∞ is `VP(beta_min, beta_max)`, with an error of order 1/N,
    Eq. (9.6). It is not β(i/N)/N for VP's β(t), but less by a term of order 1/N²: i = 1 has β_min/N, as Ho et al. 2020
    have it.

    Parameters
    ----------
    n : int
        N, the number of steps: at least 2, and more than beta_max.
    beta_min, beta_max : float, default 0.1 and 20
        N β_1 and N β_N: β per unit time, as in `VP`.

    Returns
    -------
    Chain
        Of n steps, with prior_std 1.

    Raises
    ------
    ValueError
        Unless n >= 2 and n > beta_max: else β_N = β_max/N would be 1 or more, and nothing of the data left.

    Examples
    --------
    >>> from refscore.noise.chains import ddpm
    >>> chain = ddpm(1000)
    >>> round(1 - chain.alphas[1] ** 2, 8)  # β_1 = 0.1/1000
    0.0001
    >>> round(1 - (chain.alphas[1000] / chain.alphas[999]) ** 2, 8)  # β_1000 = 20/1000
    0.02
    """
    n = check_count("n", n, 2)
    if n <= beta_max:
        raise ValueError(
            f"a DDPM chain needs more steps than beta_max = {beta_max} (β_N = beta_max/n < 1), got n = {n}"
        )
    return from_betas([(beta_min + (beta_max - beta_min) * i / (n - 1)) / n for i in range(n)])


def smld(n: int, sigma_min: float = 0.01, sigma_max: float = 50.0) -> Chain:
    """Return the SMLD chain, the marginals of `VE(sigma_min, sigma_max)` at i/N                              Eq. (9.3).

    So it is at every N, not only in the limit.

    Parameters
    ----------
    n : int
        N, the number of steps.
    sigma_min, sigma_max : float, default 0.01 and 50
        See `VE`.

    Returns
    -------
    Chain
        Of n steps, with prior_std σ_N = √(σ_max² - σ_min²).

    Raises
    ------
    ValueError
        Unless n >= 1 and 0 < sigma_min < sigma_max.

    Examples
    --------
    >>> from refscore.noise.chains import smld
    >>> chain = smld(2, sigma_min=3.0, sigma_max=5.0)
    >>> [round(s**2, 4) for s in chain.sigmas]  # 9 (r^i - 1), r = 5/3
    [0.0, 6.0, 16.0]
    """
    n = check_count("n", n)
    check_size(sigma_min=check_number("sigma_min", sigma_min), sigma_max=check_number("sigma_max", sigma_max))
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"need 0 < sigma_min < sigma_max, got {sigma_min}, {sigma_max}")
    log_r = math.log(sigma_max / sigma_min)
    sigmas = tuple(sigma_min * math.sqrt(math.expm1(2 * log_r * i / n)) for i in range(n + 1))
    return Chain((1.0,) * (n + 1), sigmas, sigmas[-1])
