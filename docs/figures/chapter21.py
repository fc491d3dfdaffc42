"""The figures of chapter 21: python docs/figures/chapter21.py

21-paths.svg     the flow of the empirical score: paths choose a mode, then a point
21-widened.svg   squared error of widened memory, and what memory and widened memory cost on fresh data
21-collapse.svg  the weight of the origin against the noise over the collapse level, four dimensions
21-stopping.svg  a network on few points: copies and distance from the truth in the course of training
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from where import HERE

from refscore.experiments.memorising import stopping
from refscore.laws.empirical import collapse_level, empirical
from refscore.plots import EXACT, INK, LEARNED, figure, save

STYLES = ((EXACT, "-", "o"), (LEARNED, "--", "s"), (INK, ":", "^"), ("#4f772d", "-.", "v"))


def paths(path: Path = HERE / "21-paths.svg") -> str:
    """Modes at ±2 of deviation 0.5, 12 points each; the flow dx/dσ = -σ s from σ = 8."""
    rng = np.random.default_rng(3)
    points = np.concatenate([2 * side + 0.5 * rng.standard_normal((12, 1)) for side in (1, -1)])
    p, levels = empirical(points), np.geomspace(8, 0.004, 600)
    x = 8 * np.linspace(-1.8, 1.8, 41)[:, None]
    run = [x]
    for sigma, lower in pairwise(levels):
        x = x - (lower - sigma) * sigma * p.score(x, 1.0, sigma)
        run.append(x)
    fig, ((ax,),) = figure(1, size=5.2)
    ax.semilogx(levels, np.stack(run)[..., 0], "-", color=EXACT, lw=0.6)
    ax.plot(np.full(24, 0.0034), points, "_", color=LEARNED, ms=9, mew=1.5, label="training points")
    parting, collapse = math.sqrt(4 - 0.25), 0.5 * collapse_level(12, 1)
    ax.axvline(parting, color=INK, ls="--", lw=1, label=f"modes part, σ = {parting:.2f}")
    ax.axvline(collapse, color=INK, ls=":", lw=1.4, label=f"points part, σ = {collapse:.3f}")
    ax.set(xlabel="σ, large to small", ylabel="x", ylim=(-6, 6), xlim=(9, 0.003))
    ax.legend(fontsize=8, loc="lower left")
    return save(fig, path)


def widened(n: float, sigma: float, h: Any) -> Any:
    """Eq. (21.4) on a line."""
    S, v = 1 + sigma**2, sigma**2 + h**2
    variance = ((4 * np.pi * v) ** -0.5 - (4 * np.pi * (S + h**2)) ** -0.5) / n
    return (
        variance + (4 * np.pi * (S + h**2)) ** -0.5 - 2 * (2 * np.pi * (2 * S + h**2)) ** -0.5 + (4 * np.pi * S) ** -0.5
    )


def excess(points: Any, sigma: float, h: float) -> float:
    """½ E‖s - s*‖² on fresh data of N(0, 1), by quadrature; the score of the points, widened by h."""
    S = 1 + sigma**2
    x = math.sqrt(S) * np.linspace(-6, 6, 3001)[:, None]
    off = empirical(points).score(x, 1.0, math.hypot(sigma, h)) + x / S
    mass = np.exp(-(x**2) / (2 * S)) / math.sqrt(2 * math.pi * S) * (x[1, 0] - x[0, 0])
    return float(0.5 * np.sum(mass * off**2))


def smoothing(path: Path = HERE / "21-widened.svg", n: int = 100, sets: int = 20) -> str:
    rng = np.random.default_rng(0)
    fig, (axes,) = figure(2, size=4.4)
    h = np.linspace(0, 1.2, 121)
    for count, (colour, line, mark) in zip((10, 100, 1000), STYLES, strict=False):
        error = widened(count, 0.1, h)
        axes[0].semilogy(h, error, line, color=colour, label=f"n = {count}")
        axes[0].plot(h[error.argmin()], error.min(), mark, color=colour, ms=7)
    axes[0].set(xlabel="width h", ylabel="squared error of the density", title="noise σ = 0.1; marks: the best h")
    levels, points = np.geomspace(0.02, 5, 15), rng.standard_normal((sets, n, 1))
    best = [h[widened(n, sigma, h).argmin()] for sigma in levels]
    kinds = (("memory", 0 * levels), ("widened by the best h", best), ("widened by 0.3 at every σ", 0 * levels + 0.3))
    for (label, widths), (colour, line, mark) in zip(kinds, STYLES, strict=False):
        found = [np.mean([s**2 * excess(p, s, w) for p in points]) for s, w in zip(levels, widths, strict=True)]
        axes[1].loglog(levels, found, line, color=colour, marker=mark, ms=4, label=label)
    axes[1].set(xlabel="noise σ", ylabel="σ² × excess loss", title=f"on fresh data, n = {n}, mean of {sets} sets")
    for ax in axes:
        ax.legend(fontsize=8)
    return save(fig, path)


def collapse(path: Path = HERE / "21-collapse.svg", n: int = 1000, runs: int = 500) -> str:
    rng, factors = np.random.default_rng(0), np.geomspace(0.3, 3, 13)
    fig, ((ax,),) = figure(1, size=5.0)
    for D, (colour, line, mark) in zip((2, 8, 32, 128), STYLES, strict=True):
        points, level, own, bound = rng.standard_normal((n, D)), collapse_level(n, D), [], []
        for sigma in factors * level:
            i = rng.integers(0, n, runs)
            x = points[i] + sigma * rng.standard_normal((runs, D))
            own.append(empirical(points).responsibilities(x, 1.0, sigma)[np.arange(runs), i].mean())
            u, v = rng.standard_normal((2, 20_000, D))
            odds = math.log(n - 1) - 0.5 * D * math.log1p(sigma**-2) + (u * v).sum(axis=1) / math.sqrt(1 + sigma**2)
            bound.append(np.mean(1 / (1 + np.exp(odds))))
        ax.semilogx(factors, bound, line, color=colour)
        ax.plot(factors, own, mark, color=colour, ms=5, label=f"D = {D}, σ_c = {level:.3g}")
    ax.axvline(1, color=INK, lw=0.6)
    ax.axhline(0.5, color=INK, lw=0.6)
    ax.set(
        xlabel="σ/σ_c", ylabel="weight of the origin", title=f"n = {n}; marks measured, lines the bound", ylim=(0, 1.02)
    )
    ax.set_xticks([0.3, 0.5, 1, 2, 3], ["0.3", "0.5", "1", "2", "3"])
    ax.minorticks_off()
    ax.legend(fontsize=8)
    return save(fig, path)


def course(path: Path = HERE / "21-stopping.svg") -> str:
    fig, (axes,) = figure(2, size=4.2)
    for n, (colour, line, mark) in zip((16, 64, 256), STYLES, strict=False):
        steps, share, away = stopping(0, n, 6000, rows=14)
        axes[0].semilogx(steps, 100 * share, line, color=colour, marker=mark, ms=4, label=f"n = {n}")
        axes[1].loglog(steps, away, line, color=colour, marker=mark, ms=4, label=f"n = {n}")
        print(n, steps[away.argmin()], away.min(), away[-1], share[away.argmin()], share[-1])
    axes[0].axhline(10, color=INK, lw=0.8, ls=":", label="chance")
    axes[0].set(xlabel="steps", ylabel="copies among the samples, %")
    axes[1].set(xlabel="steps", ylabel="distance from the truth")
    for ax in axes:
        ax.legend(fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    print(paths(), smoothing(), collapse(), course())
