"""Likelihood by the probability flow: the exact log density of a score model, up to its solver. Chapter 11.

Along dx/dt = v(x, t), v = f x - ½ g² s, probability is carried and thinned: d/dt log p_t(x(t)) = -div v. So

    log p_ε(x) = log p_1(x(1)) + ∫_ε^1 div v(x(t), t) dt,      div v = f D - ½ g² tr ∇s
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from array_api_compat import array_namespace, device

from refscore.arrays import SDE, Array, Score, Time, at, check_data
from refscore.probes import units
from refscore.reverse import Reverse
from refscore.samplers import RungeKutta
from refscore.schedules import log_snr_times
from refscore.simulation import NO_NOISE, last, simulate


class ScoreWithJvp(Protocol):
    """A score that can be differentiated: `ExactScore`, or what `model.bind(theta)` gives."""

    def __call__(self, x: Array, t: Time) -> Array:
        """x (B, ...) -> s (B, ...)."""

    def jvp(self, x: Array, t: Time, v: Array) -> tuple[Array, Array]:
        """v (K, B, ...) -> s (B, ...) and ∇s v (K, B, ...)."""


class LogLikelihood(NamedTuple):
    """log p in nats (B,), and its standard error from the probes (B,): 0 where the divergence is exact."""

    value: Array
    error: Array


@dataclass(frozen=True)
class Flow:
    """The probability flow together with its divergence, as one ODE for y = (x, L): dL/dt = div v.

    y is (B, D + 1) with the divergence itself, from D unit vectors, or (B, D + K) with one estimate a probe.
    """

    sde: SDE
    score: ScoreWithJvp
    shape: tuple[int, ...]  # of one sample
    probes: Array | None = None  # (K, B, ...), or None for the unit vectors

    def __call__(self, y: Array, t: float) -> Array:
        """y (B, D + K) -> dy/dt."""
        xp, D = array_namespace(y), math.prod(self.shape)
        x = xp.reshape(y[:, :D], (-1, *self.shape))
        v = units(x) if self.probes is None else self.probes
        s, sdot = self.score.jvp(x, at(t, x), v)
        traces = xp.sum(xp.reshape(v * sdot, (v.shape[0], v.shape[1], -1)), axis=2)  # (K, B)
        if self.probes is None:
            traces = xp.sum(traces, axis=0, keepdims=True)
        f, half = float(self.sde.f(t)), 0.5 * float(self.sde.g(t)) ** 2
        return xp.concat([xp.reshape(f * x - half * s, (-1, D)), xp.matrix_transpose(f * D - half * traces)], axis=1)


Solve = Callable[[Callable[[Array, float], Array], Array, float, float], Array]


@dataclass(frozen=True)
class FixedSteps:
    """Solve an ODE in `steps` steps of RK4, equal in log σ/α: where the flow changes at an even pace."""

    sde: SDE
    steps: int = 200

    def __call__(self, velocity: Callable[[Array, float], Array], y: Array, t: float, s: float) -> Array:
        """y (B, ...) at t -> y (B, ...) at s."""
        down = log_snr_times(self.sde, self.steps, min(t, s))  # from 1
        times = down if t > s else down[::-1]
        return last(simulate(RungeKutta(velocity), y, times, NO_NOISE))


def encode(score: Score, sde: SDE, x: Array, t_min: float = 1e-5, solve: Solve | None = None) -> Array:
    """Follow the probability flow from data x (B, ...) at t_min up to t = 1."""
    return (solve or FixedSteps(sde))(Reverse(sde, score, lam=0.0).drift, x, t_min, 1.0)


def decode(score: Score, sde: SDE, x1: Array, t_min: float = 1e-5, solve: Solve | None = None) -> Array:
    """The way back: x1 (B, ...) at t = 1 down to t_min."""
    return (solve or FixedSteps(sde))(Reverse(sde, score, lam=0.0).drift, x1, 1.0, t_min)


def log_likelihood(
    score: ScoreWithJvp,
    sde: SDE,
    x: Array,
    *,
    t_min: float = 1e-5,
    probes: Array | None = None,
    prior: Callable[[Array], Array] | None = None,
    solve: Solve | None = None,
) -> LogLikelihood:
    """log p_{t_min}(x) of the flow of a score, in nats.

    Parameters
    ----------
    score : with a method jvp
        `ExactScore(mixture, sde)` or `model.bind(theta)`.
    sde : SDE
    x : Array (B, ...)
    t_min : float
        Where the flow starts; the density is that of data with the noise σ(t_min).
    probes : Array (K, B, ...), optional
        Random directions with E vvᵀ = I (see `refscore.probes`), kept along the way: then the divergence is estimated,
        by K tangents, and the error says how well. Without them it is exact, by D tangents.
    prior : callable x (B, ...) -> (B,), optional
        log density at t = 1; by default that of N(0, prior_std²).
    solve : callable (velocity, y, t, s) -> y, optional
        `FixedSteps(sde)` by default; `refscore.host.solve` for an adaptive solver.

    Returns
    -------
    LogLikelihood
        Nats (B,), and their standard error from the probes (B,).
    """
    check_data("x", x)
    xp, (B, *shape) = array_namespace(x), x.shape
    D, K = math.prod(shape), 1 if probes is None else probes.shape[0]
    if probes is not None and tuple(probes.shape[1:]) != tuple(x.shape):
        raise ValueError(f"probes must have shape (K, {', '.join(map(str, x.shape))}), got {tuple(probes.shape)}")
    flow = Flow(sde, score, tuple(shape), probes)
    y = xp.concat([xp.reshape(x, (B, D)), xp.zeros((B, K), dtype=x.dtype, device=device(x))], axis=1)
    y = (solve or FixedSteps(sde))(flow, y, t_min, 1.0)
    ends = (prior or gaussian_prior(sde))(xp.reshape(y[:, :D], x.shape))
    gained = y[:, D:]
    error = xp.std(gained, axis=1, correction=1) / math.sqrt(K) if K > 1 else 0 * ends
    return LogLikelihood(ends + xp.mean(gained, axis=1), error)


def gaussian_prior(sde: SDE) -> Callable[[Array], Array]:
    """log density of N(0, prior_std² I), x (B, ...) -> (B,)."""

    def log_prob(x: Array) -> Array:
        xp, variance = array_namespace(x), sde.prior_std**2
        squares = xp.sum(xp.reshape(x * x, (x.shape[0], -1)), axis=1)
        return -0.5 * (squares / variance + math.prod(x.shape[1:]) * math.log(2 * math.pi * variance))

    return log_prob


def bits_per_dim(nats: Array, dim: int, bins: float = 1.0) -> Array:
    """-log₂ p per dimension, of data quantised to cells of width `bins` and dequantised by uniform noise in the cell.

    For 8-bit images scaled to [0, 1] the width is 1/256, to [-1, 1] it is 1/128: the constant offsets of 8 and 7 bits.
    """
    return -nats / (dim * math.log(2)) - math.log2(bins)
