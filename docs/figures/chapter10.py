"""The figures of chapter 10: python docs/figures/chapter10.py

10-work-precision.png  exact error against the number of scores: a Gaussian, and a mixture in one dimension
10-laws.png            what ten evaluations make of the mixture; a wrong score, by the flow and by the reverse SDE
10-snr.png             what the published step size rule of a corrector converges to

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

from refscore import ExactScore, GaussianMixture, simulate
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
STYLE = {  # sampler: line, colour
    "euler-maruyama": ("o--", LEARNED),
    "ancestral": ("s--", "#e39b7b"),
    "ancestral-large": ("D--", "#7a3b2e"),
    "sde-dpm-solver++2m": ("^--", "#b58900"),
    "ddim": ("o-", "#a9c9dd"),
    "euler": ("s-", "#6ba3c6"),
    "heun": ("D-", EXACT),
    "edm": ("v-", "#1a3a52"),
    "dpm-solver++2m": ("^-", "#4c9f70"),
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


# ------------------------------------------------------------------ 10-work-precision.png


def work_precision(path: Path = HERE / "10-work-precision.png") -> str:
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


# ------------------------------------------------------------------ 10-laws.png


def biased(delta: float) -> Any:
    """The noise is told δ too large in every coordinate, at every level: s - δ/σ."""
    score = ExactScore(GAUSSIAN, VP)
    return lambda x, t: score(x, t) - delta / VP.sigma(t)[..., None]


def laws(path: Path = HERE / "10-laws.png") -> str:
    fig, (axes,) = figure(2, size=4.6)
    times = times_of(10)
    ax = axes[0]
    x = np.linspace(-5, 5, 1001)
    ax.plot(x, np.exp(LINE.log_prob(x[:, None], VP.alpha(times[-1]), VP.sigma(times[-1]))), "--", color=INK, lw=1,
            label="exact")  # fmt: skip
    for name, color in (("ancestral", "#e39b7b"), ("euler-maruyama", LEARNED)):
        law = by_grid(name, times)
        ax.plot(law.centres, law.mass / law.width, color=color, lw=1.3, label=name)
        print(name, "weight of the larger mode", law.mean(lambda x: x > 0), "lost", law.lost)
    y, u = by_map("ddim", times, 200_000)
    ax.plot(0.5 * (y[500:] + y[:-500]), 500 / len(u) / (y[500:] - y[:-500]), color=EXACT, lw=1.3, label="ddim")
    print("ddim weight", np.mean(y > 0))
    ax.set(xlim=(-4.5, 4.5), ylim=(0, None), xlabel="x", ylabel="density", title="ten steps each")
    ax.legend(fontsize=8, loc="upper left")

    ax = axes[1]
    deltas = np.array([0.0, 0.005, 0.01, 0.02, 0.05, 0.1])
    exact = Gaussian(GAUSSIAN.means[0], GAUSSIAN.covariances[0])
    for name, steps, style, color in (
        ("dpm-solver++2m", 31, "^-", "#4c9f70"), ("dpm-solver++2m", 127, "^--", "#4c9f70"),
        ("sde-dpm-solver++2m", 31, "o-", "#b58900"), ("sde-dpm-solver++2m", 127, "o--", "#b58900"),
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


def snr(path: Path = HERE / "10-snr.png", r: float = 0.1) -> str:
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
    sys.stdout.write(f"{work_precision()} {laws()} {snr()}\n")
