"""The figure of chapter 12: python docs/figures/chapter12.py

12-bridge.svg  the loss at each noise level, against log σ/α and against t; what it weighs; the chain and its limit
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from where import HERE

from refscore import VP, ExactScore, GaussianMixture
from refscore.likelihood.elbo import noise_error
from refscore.noise.grids import log_snr_times, uniform_times
from refscore.noise.sde import CosineVP, LinearVE, log_ratio
from refscore.plots import EXACT, INK, LEARNED, figure, save

P = GaussianMixture(np.array([0.7, 0.3]), np.array([[-1.0], [1.2]]), np.array([0.09, 0.25]))
SCHEDULES = {"VP": (VP(), EXACT, "-"), "cosine": (CosineVP(), LEARNED, "--"), "linear VE": (LinearVE(20.0), INK, ":")}
LOW, HIGH = -4.0, 2.9
X0 = np.arange(-3, 4, 0.04)
WEIGHT = 0.04 * np.exp(P.log_prob(X0[:, None]))
Z = np.linspace(-6, 6, 97)
NORMAL = np.exp(-0.5 * Z**2) / math.sqrt(2 * math.pi) * (Z[1] - Z[0])
PAIRS = [a.reshape(-1, 1) for a in np.meshgrid(X0, Z, indexing="ij")]


def time(sde: Any, level: float) -> float:
    return min(float(sde.time_at_log_ratio(level)), 1.0)


def error(sde: Any, t: float) -> float:
    """E‖z - ẑ‖² over data and noise."""
    e = noise_error(ExactScore(P, sde), sde, PAIRS[0], t, PAIRS[1])
    return float(WEIGHT @ (e.reshape(len(X0), -1) @ NORMAL))


def rate(sde: Any, t: float) -> float:
    """dℓ/dt = g²/2σ²."""
    return float(0.5 * (sde.g(t) / sde.sigma(t)) ** 2)


def chain(sde: Any, times: list[float]) -> float:
    total = 0.0
    for t, s in pairwise(times):
        total += 0.5 * math.expm1(2 * (log_ratio(sde, t) - log_ratio(sde, s))) * error(sde, t)
    return total


def bridge(path: Path = HERE / "12-bridge.svg") -> str:
    fig, axes = figure(2, 2, size=4.2)
    levels = np.linspace(LOW, HIGH, 70)
    for name, (sde, colour, line) in SCHEDULES.items():
        times = [time(sde, level) for level in levels]
        e = np.array([error(sde, t) for t in times])
        axes[0, 0].plot(levels, e, line, color=colour, label=name, lw=2)
        dense = np.array([e_ * rate(sde, t) for e_, t in zip(e, times, strict=True)])
        axes[0, 1].plot(times, dense, line, color=colour, label=name)
        weight = np.array([1 / rate(sde, t) for t in times])
        axes[1, 0].plot(levels, weight / weight.max(), line, color=colour, label=name)
        area = np.sum(0.5 * (e[1:] + e[:-1]) * np.diff(levels))
        print(f"{name}: area {area:.4f}, plain loss is heaviest at log σ/α = {levels[weight.argmax()]:.2f}")
    axes[0, 0].set(xlabel="log σ/α", ylabel="E‖z - ẑ‖²", title="error at a noise level: one curve")
    axes[0, 1].set(xlabel="t", ylabel="½ g² E‖s + z/σ‖²", title="the same in time: three, of equal area", ylim=(0, 12))
    axes[1, 0].set(xlabel="log σ/α", ylabel="weight, largest = 1", title="what λ = σ², t uniform, weighs: σ²/g²")

    sde, t_min = VP(), 0.01
    span = log_ratio(sde, 1.0) - log_ratio(sde, t_min)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    limit = (
        0.5
        * span
        * sum(
            w * error(sde, time(sde, log_ratio(sde, t_min) + 0.5 * span * (1 + u)))
            for u, w in zip(nodes, weights, strict=True)
        )
    )
    counts = [8, 16, 32, 64, 128, 256]
    for name, grid, line, colour in (("equal in log σ/α", True, "o-", EXACT), ("equal in t", False, "s--", LEARNED)):
        gaps = [chain(sde, log_snr_times(sde, n, t_min) if grid else uniform_times(n, t_min)) - limit for n in counts]
        axes[1, 1].loglog(counts, gaps, line, ms=5, color=colour, label=name)
        print(name, [f"{g:.3f}" for g in gaps])
    constant = span * (limit + 0.5 * (error(sde, 1.0) - error(sde, t_min)))
    axes[1, 1].loglog(counts, constant / np.array(counts), ":", color=INK, label="its leading term, Eq. (12.13)")
    axes[1, 1].set(xlabel="steps T", ylabel="nats above the limit", title=f"VP chain; the limit is {limit:.3f} nats")
    print(f"limit {limit:.4f}, constant {constant:.2f}, span {span:.3f}")
    for ax in axes.ravel():
        ax.legend(fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    print(bridge())
