"""Stochastic assertions: each declares its false-alarm rate, and a run adds them up.

A test that compares draws with an exact answer fails sometimes where nothing is wrong. How often is said here and
nowhere else: `alpha`, of one assertion with all the numbers it compares, 1e-9 unless it says otherwise. What a mistake
must exceed to be seen is said where it matters, by `sees`: an error of that size is found in 999 of 1000 runs, and an
assertion with fewer draws than that takes fails.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.stats import beta, chi2, norm

from refscore import GaussianMixture
from tests.oracles.mixtures import full
from tests.oracles.rotation import where

ALPHA = 1e-9  # of each assertion, unless it says otherwise
POWER = 0.999  # with which an error of `sees` is found
BEYOND = float(norm.isf(1 - POWER))  # 3.09 deviations further out than what is allowed
DECLARED: list[float] = []  # rates of the assertions made since the last test; conftest empties it after each


# ------------------------------------------------------------------ what is allowed


def quantile(alpha: float = ALPHA, places: int = 1) -> float:
    """Deviations of a normal that one of `places` numbers exceeds with probability alpha at most; 6.11 for one."""
    return float(norm.isf(alpha / (2 * places)))


def hoeffding(n: int, width: float, alpha: float = ALPHA, places: int = 1) -> float:
    """How far means of n independent numbers, in an interval of this width, are from theirs (Hoeffding 1963)."""
    return width * math.sqrt(math.log(2 * places / alpha) / (2 * n))


def dkw(n: int, alpha: float = ALPHA) -> float:
    """How far the distribution function of n draws is from theirs, anywhere (Dvoretzky, Kiefer, Wolfowitz; Massart)."""
    return hoeffding(n, 1.0, alpha)


# ------------------------------------------------------------------ assertions


def assert_within(
    found: Any, exact: Any, error: Any, *, alpha: float = ALPHA, bias: Any = 0.0, sees: Any = None, n: Any = "any",
    why: object = "",
) -> None:  # fmt: skip
    """Estimates are the exact values, up to `bias` and the normal quantile of their standard errors.

    All are numbers or arrays that broadcast; alpha is that of all places together, `sees` in the units of `exact`.
    """
    found, exact, error, bias = np.broadcast_arrays(*(np.asarray(a, "float64") for a in (found, exact, error, bias)))
    z = quantile(alpha, found.size)
    _judge(found, exact - bias - z * error, exact + bias + z * error, alpha, n, why)
    _can_see(bias + (z + BEYOND) * error, sees, n)


def assert_mean(x: Any, mu: Any, *, alpha: float = ALPHA, bias: Any = 0.0, sees: Any = None, why: object = "") -> None:
    """The mean over the first axis, of independent rows, is mu at every place (central limit theorem).

    What is declared is alpha times what the first terms say of a Student statistic that far out: cosh(z³ γ/3√n), for
    numbers of skewness γ (Jing, Shao and Wang 2003), and exp(z⁴/4n). Above a thousand, n is too small.
    """
    x = np.asarray(x, "float64")
    n, mean, std = len(x), x.mean(axis=0), x.std(axis=0)
    z = quantile(alpha, mean.size)
    with np.errstate(invalid="ignore", divide="ignore"):
        skew = np.max(np.nan_to_num(np.abs(np.mean(((x - mean) / std) ** 3, axis=0)))) / math.sqrt(n)
    factor = math.cosh(min(z**3 * skew / 3, 99)) * math.exp(min(z**4 / (4 * n), 99))
    assert factor < 1000, f"of numbers of skewness {skew * math.sqrt(n):.3g} {n} are too few"
    allowed = bias + z * std / math.sqrt(n)
    _judge(mean, mu - allowed, mu + allowed, alpha * factor, n, why)
    _can_see(allowed + BEYOND * std / math.sqrt(n), sees, n)


def assert_share(
    hits: Any, p: Any, *, alpha: float = ALPHA, bias: float = 0.0, sees: float | None = None, why: object = ""
) -> None:
    """The share of hits in independent rows of booleans is p, at every place; exact at every n (Clopper, Pearson)."""
    hits = np.asarray(hits, bool)
    n, k = len(hits), np.count_nonzero(hits, axis=0)
    tail = alpha / (2 * k.size)
    low = np.where(k > 0, beta.ppf(tail, np.maximum(k, 1), n - k + 1), 0.0)
    high = np.where(k < n, beta.isf(tail, k + 1, np.maximum(n - k, 1)), 1.0)
    _judge(np.asarray(p), low - bias, high + bias, alpha, n, f"{k / n} of the draws; {why}")
    _can_see(bias + (quantile(alpha, k.size) + BEYOND) * np.sqrt(np.multiply(p, np.subtract(1, p)) / n), sees, n)


def assert_bounded(
    x: Any, mu: Any, low: float, high: float, *, alpha: float = ALPHA, bias: Any = 0.0, why: object = ""
) -> None:
    """The mean over the first axis, of independent rows in [low, high], is mu at every place (Hoeffding)."""
    x = np.asarray(x, "float64")
    assert x.min() >= low, (x.min(), low)
    assert x.max() <= high, (x.max(), high)
    found, n = x.mean(axis=0), len(x)
    allowed = bias + hoeffding(n, high - low, alpha, found.size)
    _judge(found, mu - allowed, mu + allowed, alpha, n, why)


def assert_cdf(
    x: Any, cdf: Callable[[Any], Any], *, alpha: float = ALPHA, bias: float = 0.0, at: Any = None, why: object = ""
) -> None:
    """Independent numbers have this distribution function, everywhere or at some places, at every n (`dkw`)."""
    x = np.sort(np.asarray(x, "float64").reshape(-1))
    n = len(x)
    if at is not None:
        found = np.searchsorted(x, at, side="right") / n
        allowed = bias + dkw(n, alpha)
        return _judge(found, cdf(np.asarray(at)) - allowed, cdf(np.asarray(at)) + allowed, alpha, n, why)
    F, steps = cdf(x), np.arange(n) / n
    allowed = bias + dkw(n, alpha)
    _judge(F, steps + 1 / n - allowed, steps + allowed, alpha, n, why)  # below its step and above it


def assert_from(statistic: float, law: Any, *, alpha: float = ALPHA, n: Any = "any", why: object = "") -> None:
    """One number is a draw of a law of scipy.stats, e.g. `chi2(n - 1)`: it lies between its quantiles."""
    _judge(np.asarray(statistic), law.ppf(alpha / 2), law.isf(alpha / 2), alpha, n, why)


def assert_spread(values: Any, errors: Any, *, kurtosis: float = 0.0, alpha: float = ALPHA, why: object = "") -> None:
    """The standard errors that n independent estimates state are their spread.

    Their variance over the mean squared error is χ²/(n - 1) of n - 1 degrees where they are normal; of fewer degrees,
    (n - 1)/(1 + κ/2), where they have an excess kurtosis κ.
    """
    values, freedom = np.asarray(values, "float64"), (len(values) - 1) / (1 + kurtosis / 2)
    ratio = values.var(ddof=1) / np.mean(np.square(errors))
    assert_from(freedom * ratio, chi2(freedom), alpha=alpha, n=len(values), why=why)


def assert_vector(x: Any, mu: Any, *, alpha: float = ALPHA, why: object = "") -> None:
    """The mean of independent rows (n, D) is mu, in all directions at once: n (x̄ - μ)ᵀ S⁻¹ (x̄ - μ) is χ²(D)."""
    x = np.asarray(x, "float64")
    n, D = x.shape
    assert n >= 1000 * D, f"the central limit theorem needs more than {n} draws"
    off = x.mean(axis=0) - mu
    statistic = n * off @ np.linalg.solve(np.atleast_2d(np.cov(x.T)), off)
    _judge(statistic, -np.inf, chi2(D).isf(alpha), alpha, n, why)


def assert_law(
    x: Any, mixture: GaussianMixture, frequencies: Any, *, alpha: float = ALPHA, bias: float = 0.0, why: object = ""
) -> None:
    """The characteristic function of the sample is that of the mixture at every frequency, at every n (Hoeffding)."""
    w, m, C = np.asarray(mixture.weights), np.asarray(mixture.means), full(mixture)
    exact = np.exp(-0.5 * np.einsum("fd,kde,fe->fk", frequencies, C, frequencies) + 1j * (frequencies @ m.T)) @ w
    phases = np.asarray(x) @ frequencies.T
    found = np.stack([np.cos(phases).mean(axis=0), np.sin(phases).mean(axis=0)])
    wanted = np.stack([exact.real, exact.imag])
    allowed = bias + hoeffding(len(x), 2.0, alpha, found.size)
    _judge(found, wanted - allowed, wanted + allowed, alpha, len(x), why)


def _judge(found: Any, low: Any, high: Any, alpha: float, n: Any, why: object) -> None:
    """Declare alpha; then every number has to lie where it may, and the one furthest out is told."""
    DECLARED.append(alpha)
    found, low, high = np.broadcast_arrays(found, low, high)
    out = ~((low <= found) & (found <= high))
    if np.any(out):
        beyond = np.where(out, np.nan_to_num(np.maximum(low - found, found - high), nan=np.inf, posinf=np.inf), -1.0)
        place = np.unravel_index(np.argmax(beyond), out.shape)
        raise AssertionError(
            f"{np.sum(out)} of {out.size} numbers are off; the worst, {tuple(map(int, place))}: {found[place]:.6g}, "
            f"allowed is {low[place]:.6g} to {high[place]:.6g} (n = {n}, alpha = {alpha:.1e}, {where()})"
            + (f"; {why}" if str(why) else "")
        )


def _can_see(needed: Any, sees: Any, n: Any) -> None:
    if sees is not None:
        short = np.max(needed - np.asarray(sees))
        assert short <= 0, f"no error of {np.min(sees):.3g} is sure to be seen, but of {np.max(needed):.3g} (n = {n})"
