"""The figures of chapter 10: python docs/figures/chapter10.py

10-step.svg            one step of four samplers from one point, in one dimension: the guesses, and where the step ends
10-work-precision.svg  exact error against the number of scores: a Gaussian, and a mixture in one dimension
10-laws.svg            what ten evaluations make of the mixture; a wrong score, by the flow and by the reverse SDE
10-snr.svg             what the published step size rule of a corrector converges to

It prints the numbers that the text quotes.
"""

import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr
from scipy.stats import chi, chi2
from where import HERE

from refscore import ExactScore, GaussianMixture, Reverse, simulate
from refscore.laws.affine_chain import Gaussian, probe, wasserstein
from refscore.laws.grid_chain import GridLaw
from refscore.measure.work_precision import GAUSSIAN, evaluations_per_step, gaussian_error, sample, starts
from refscore.noise.grids import karras_times
from refscore.noise.sde import SDES
from refscore.plots import EXACT, INK, LEARNED, figure, save
from refscore.sampling.compose import First, Repeat, Stay
from refscore.sampling.langevin import SNRLangevin
from refscore.sampling.loop import last
from refscore.sampling.transitions import SAMPLERS

VP = SDES["vp"]
LINE = GaussianMixture(np.array([0.8, 0.2]), np.array([[2.0], [-2.0]]), np.array([0.25, 0.25]))
END = 0.05  # σ/α at which the laws of the mixture are compared
BUDGETS = (8, 12, 16, 24, 32, 48, 64, 96, 128)
STYLE = {  # sampler: line (dashed: draws noise), colour
    "euler-maruyama": ("o--", LEARNED),
    "ancestral": ("s--", "#e39b7b"),
    "ancestral-large": ("D--", "#7a3b2e"),
    "sde-dpm-solver++2m": ("^--", "#b58900"),
    "ddim": ("o-", "#a9c9dd"),
    "euler": ("s-", "#6ba3c6"),
    "heun": ("D-", EXACT),
    "edm": ("v-", "#1a3a52"),
    "dpm-solver++2m": ("^-", "#56b4e9"),
    "rk4": ("P-", INK),
}


# ------------------------------------------------------------------ a mixture in one dimension


class Fixed:
    """One number for every draw."""

    def __init__(self, z: float) -> None:
        self.z = z

    def standard_normal(self, size: Any = None, dtype: Any = None) -> np.ndarray:
        return np.full(size, self.z)


def cdf(x: np.ndarray, t: float) -> np.ndarray:
    alpha, sigma = VP.alpha(t), VP.sigma(t)
    std = np.sqrt(alpha**2 * 0.25 + sigma**2)
    return 0.8 * ndtr((x - 2 * alpha) / std) + 0.2 * ndtr((x + 2 * alpha) / std)


def times_of(steps: int) -> list[float]:
    top = float(VP.sigma(1.0) / VP.alpha(1.0))
    return [1.0, *karras_times(VP, steps + 1, top, END)[1:-1]]


def by_map(name: str, times: list[float], n: int = 8000) -> tuple[np.ndarray, np.ndarray]:
    """Deterministic: where the points of equal probability of p₁ go, sorted, and their probabilities."""
    u = (np.arange(n) + 0.5) / n
    dense = np.linspace(-8, 8, 40_001)
    x = np.interp(u, cdf(dense, 1.0), dense)
    rng: Any = Fixed(0.0)
    y = last(simulate(SAMPLERS[name](VP, ExactScore(LINE, VP)), x[:, None], times, rng))[:, 0]
    return np.sort(y), u


def by_grid(name: str, times: list[float], half: float = 7.0) -> GridLaw:
    """Stochastic: the density, a matrix a step; with as many cells as the smallest noise needs."""
    step = SAMPLERS[name](VP, ExactScore(LINE, VP))

    def go(x: np.ndarray, t: float, s: float, z: float) -> np.ndarray:
        rng: Any = Fixed(z)
        return step(x[:, None], t, s, rng)[0][:, 0]

    for cells in (600, 1200, 2400):
        law = GridLaw(-half, half, np.diff(cdf(np.linspace(-half, half, cells + 1), 1.0)))
        try:
            for t, s in pairwise(times):
                noise = float(go(law.centres[:1], t, s, 1.0)[0] - go(law.centres[:1], t, s, 0.0)[0])
                law = law.push(law.transition(lambda x, t=t, s=s: go(x, t, s, 0.0), noise))
        except ValueError:
            continue
        return law
    raise ValueError(f"{name}: {len(times) - 1} steps need too many cells")


def distance(name: str, steps: int) -> float:
    """1-Wasserstein, ∫ |F - F*|, to the true law at σ/α = END."""
    times = times_of(steps)
    if STYLE[name][0].endswith("--"):
        law = by_grid(name, times)
        return float(np.abs(np.cumsum(law.mass) - cdf(law.edges[1:], times[-1])).sum() * law.width)
    y, u = by_map(name, times)
    dense = np.linspace(-8, 8, 40_001)
    return float(np.mean(np.abs(y - np.interp(u, cdf(dense, times[-1]), dense))))


# ------------------------------------------------------------------ 10-work-precision.svg


def work_precision(path: Path = HERE / "10-work-precision.svg") -> str:
    fig, (axes,) = figure(2, size=5.0)
    error = gaussian_error(VP)
    score = ExactScore(GAUSSIAN, VP)
    for name, (style, color) in STYLE.items():
        each = evaluations_per_step(name)
        steps = [(b - 1) // each for b in BUDGETS]
        found = [error(score, name, n, False) for n in steps if n]
        print(
            "gaussian",
            name,
            [(n * each + 1, float(f"{e:.3g}")) for n, e in zip(filter(None, steps), found, strict=True)],
        )
        axes[0].plot([n * each + 1 for n in steps if n], found, style, ms=3.5, lw=1.2, color=color, label=name)
        if name.startswith("sde"):
            continue  # its memory is a second state: no law on a line of points
        steps = [b // each for b in BUDGETS]
        found = [distance(name, n) for n in steps]
        print("mixture", name, [(n * each, float(f"{e:.3g}")) for n, e in zip(steps, found, strict=True)])
        axes[1].plot([n * each for n in steps], found, style, ms=3.5, lw=1.2, color=color)
    axes[0].axhline(0.0079, color=INK, lw=0.8, ls=":")
    axes[0].text(4.6, 0.007, "what the prior costs the flow", fontsize=7, color=INK, va="top")
    for ax, title, what in (
        (axes[0], "one Gaussian in 2-D, to σ = 0", "2-Wasserstein distance, exact"),
        (axes[1], "two modes in 1-D, to σ/α = 0.05", "1-Wasserstein distance, computed"),
    ):
        ax.set(xscale="log", yscale="log", xlabel="score evaluations", ylabel=what, title=title)
        ax.set_xticks((8, 16, 32, 64, 128), ("8", "16", "32", "64", "128"))
        ax.minorticks_off()
        ax.grid(alpha=0.25, lw=0.5)
    axes[0].set_ylim(2e-6, 6)
    axes[0].legend(fontsize=7, loc="lower left")
    return save(fig, path)


# ------------------------------------------------------------------ 10-laws.svg


def biased(delta: float) -> Any:
    """The noise is told δ too large in every coordinate, at every level: s - δ/σ."""
    score = ExactScore(GAUSSIAN, VP)
    return lambda x, t: score(x, t) - delta / VP.sigma(t)[..., None]


def laws(path: Path = HERE / "10-laws.svg") -> str:
    fig, (axes,) = figure(2, size=4.6)
    times = times_of(10)
    ax = axes[0]
    x = np.linspace(-5, 5, 1001)
    ax.plot(x, np.exp(LINE.log_prob(x[:, None], VP.alpha(times[-1]), VP.sigma(times[-1]))), "--", color=INK, lw=1,
            label="the true law")  # fmt: skip
    for name, line, color in (("ancestral", "-.", "#b58900"), ("euler-maruyama", "-", LEARNED)):
        law = by_grid(name, times)
        ax.plot(law.centres, law.mass / law.width, line, color=color, lw=1.5, label=name)
        print(name, "weight of the larger mode", law.mean(lambda x: x > 0), "lost", law.lost)
    y, u = by_map("ddim", times, 200_000)
    ax.plot(0.5 * (y[500:] + y[:-500]), 500 / len(u) / (y[500:] - y[:-500]), ":", color=EXACT, lw=1.8, label="ddim")
    print("ddim weight", np.mean(y > 0))
    ax.set(xlim=(-4.5, 4.5), ylim=(0, None), xlabel="x", ylabel="density", title="ten steps each")
    ax.legend(fontsize=8, loc="upper left")

    ax = axes[1]
    deltas = np.array([0.0, 0.005, 0.01, 0.02, 0.05, 0.1])
    exact = Gaussian(GAUSSIAN.means[0], GAUSSIAN.covariances[0])
    for name, steps, style, color in (
        ("dpm-solver++2m", 31, "^-", EXACT), ("dpm-solver++2m", 127, "^--", EXACT),
        ("sde-dpm-solver++2m", 31, "o-", LEARNED), ("sde-dpm-solver++2m", 127, "o--", LEARNED),
    ):  # fmt: skip
        found = []
        for delta in deltas:
            made = probe(lambda x, rng, d=delta, n=name, k=steps: sample(biased(d), VP, n, k, x, rng), exact.mean)
            found.append(wasserstein(made.law(starts(VP)[0]), exact))
        print("wrong score", name, steps + 1, np.round(found, 5))
        ax.plot(deltas, found, style, ms=4, lw=1.2, color=color, label=f"{name}, {steps + 1} evaluations")
    ax.set(xlabel="bias δ of the predicted noise", ylabel="2-Wasserstein distance, exact", title="a wrong score")
    ax.legend(fontsize=8)
    return save(fig, path)


# ------------------------------------------------------------------ 10-step.svg


def one_step(path: Path = HERE / "10-step.svg", t: float = 0.6, s: float = 0.35) -> str:
    """From one point of one mixture: x̂₀ and ẑ, and where four steps of the same length land."""
    x, score = np.array([[0.9]]), ExactScore(LINE, VP)
    at, alpha, sigma = VP.alpha, VP.alpha(t), VP.sigma(t)
    z_hat = float(-sigma * score(x, np.array([t]))[0, 0])
    x0_hat = float((x[0, 0] - sigma * z_hat) / alpha)
    fig, (axes,) = figure(2, size=4.8)
    ax = axes[0]
    grid, height = np.linspace(-4, 4, 401), np.linspace(0, 1, 201)[1:]
    p = np.array([np.exp(LINE.log_prob(grid[:, None], at(u), VP.sigma(u))) for u in height])
    ax.pcolormesh(height, grid, np.sqrt(p / p.max()).T, cmap="Blues", vmax=1.5, rasterized=True, shading="nearest")
    exact = last(simulate(SAMPLERS["rk4"](VP, score), x, np.linspace(t, s, 101).tolist(), np.random.default_rng(0)))
    times = np.linspace(0, t, 100)
    ax.plot(times, [at(u) * x0_hat + VP.sigma(u) * z_hat for u in times], color=EXACT, lw=1.2, ls="--",
            label="α x̂₀ + σ ẑ: both guesses kept (DDIM)")  # fmt: skip
    slope = float(Reverse(VP, score, 0.0).drift(x, np.array([t]))[0, 0])
    ax.plot([t, s], [x[0, 0], x[0, 0] + (s - t) * slope], color=LEARNED, lw=1.2, label="tangent (Euler in t)")
    ax.plot(t, x[0, 0], "o", color=INK, ms=7)
    ax.annotate("x_t", (t, x[0, 0]), (t + 0.03, x[0, 0] + 0.2), color=INK)
    ax.plot(0, x0_hat, "D", color=EXACT, ms=7, clip_on=False)
    ax.annotate("x̂₀", (0, x0_hat), (0.03, x0_hat + 0.25), color=INK, fontsize=11)
    ax.text(0.64, x[0, 0] - 0.5, f"x̂₀ = {x0_hat:.2f}, ẑ = {z_hat:.2f}", color=INK, fontsize=9)
    ax.axvline(s, color=INK, lw=0.7, ls=":")
    ax.axvline(t, color=INK, lw=0.7, ls=":")
    ax.set(xlabel="t (noise on the right)", ylabel="x", title="two guesses, and the step", xlim=(-0.02, 1))
    ax.text(0.5 * (s + t), -3.7, f"the step, {t} to {s}", ha="center", fontsize=8, color=INK)
    ax.legend(fontsize=8, loc="upper right")

    ax = axes[1]
    ax.plot(grid, p[np.argmin(np.abs(height - s))], color=INK, lw=0.8, ls=":", label=f"p at t = {s}, all paths")
    for name, color, line in (("ancestral", "#b58900", "-."), ("euler-maruyama", LEARNED, "-")):
        rng: Any = Fixed(0.0)
        mean = float(SAMPLERS[name](VP, score)(x, t, s, rng, None)[0][0, 0])
        rng = Fixed(1.0)
        std = float(SAMPLERS[name](VP, score)(x, t, s, rng, None)[0][0, 0]) - mean
        law = np.exp(-0.5 * ((grid - mean) / std) ** 2) / (std * math.sqrt(2 * math.pi))
        ax.plot(grid, law, line, color=color, lw=1.6, label=f"{name}: N({mean:.2f}, {std:.2f}²)")
    posterior = np.exp(LINE.log_prob(grid[:, None], at(s), VP.sigma(s)) - 0.5 * ((x[0, 0] - alpha / at(s) * grid) ** 2)
                       / (sigma**2 - (alpha / at(s) * VP.sigma(s)) ** 2))  # fmt: skip
    ax.fill_between(grid, posterior / (posterior.sum() * (grid[1] - grid[0])), color=EXACT, alpha=0.2, lw=0,
                    label="the true law of x_s given x_t")  # fmt: skip
    for name, color, mark in (("ddim", EXACT, "v"), ("euler", LEARNED, "^")):
        rng = Fixed(0.0)
        end = float(SAMPLERS[name](VP, score)(x, t, s, rng, None)[0][0, 0])
        ax.plot(end, 0.03, mark, color=color, ms=9, label=f"{name}: {end:.3f}")
    ax.plot(exact[0, 0], 0.03, "o", color=INK, ms=6, label=f"flow, solved exactly: {exact[0, 0]:.3f}")
    ax.set(xlim=(-2.5, 3.2), ylim=(0, None), xlabel=f"x at t = {s}", ylabel="density", title="where the step ends")
    ax.legend(fontsize=7, loc="upper left")
    return save(fig, path)


def snr(path: Path = HERE / "10-snr.svg", r: float = 0.1) -> str:
    fig, (axes,) = figure(2, size=4.4)
    notes = []
    for ax, D, steps in zip(axes, (3, 10), (600, 500), strict=True):
        rng, v = np.random.default_rng(0), (D + 2) / D
        kernel = Repeat(SNRLangevin(lambda x, t: -x, r), steps)
        x = last(simulate(First(kernel, Stay()), rng.standard_normal((10_000, D)), [1.0, 0.0], rng))
        radius = np.linalg.norm(x, axis=1)
        R = np.linspace(0, 9, 400)
        ax.hist(radius, bins=90, range=(0, 9), density=True, color=EXACT, alpha=0.3, label=f"{len(x)} chains, r = {r}")
        ax.plot(R, chi.pdf(R / math.sqrt(v), D + 2) / math.sqrt(v), color=LEARNED, label="predicted, Eq. (10.15)")
        ax.plot(R, chi.pdf(R, D), color=INK, lw=1, ls="--", label="target N(0, I)")
        ax.set(xlim=(0, 9), xlabel="|x|", ylabel="density", title=f"D = {D}")
        steps_up = (np.arange(len(x)) + 0.5) / len(x)
        away = np.max(np.abs(np.sort(chi2.cdf(radius**2 / v, D + 2)) - steps_up))
        from_target = np.max(np.abs(np.sort(chi2.cdf(radius**2, D)) - steps_up))
        notes.append(
            f"  D = {D}: variance {np.mean(radius**2) / D:.3f}, limit {v * v:.3f}; median |x| {np.median(radius):.3f}, "
            f"limit {math.sqrt(v * chi2.median(D + 2)):.3f}, target {math.sqrt(chi2.median(D)):.3f}, "
            f"cdf off by {away:.3f} from the limit, {from_target:.3f} from the target; largest {radius.max():.1f}"
        )
    axes[0].legend(fontsize=8)
    return "\n".join([save(fig, path), *notes])


if __name__ == "__main__":
    sys.stdout.write(f"{one_step()} {work_precision()} {laws()} {snr()}\n")
