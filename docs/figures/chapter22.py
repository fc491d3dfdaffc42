"""The figures of chapter 22: python docs/figures/chapter22.py

22-weights.svg   what each recipe of training weighs, by noise level
22-guidance.svg  the exact variance of guided samples: in an interval, and guided by a worse model
"""

from pathlib import Path

import numpy as np
from scipy.stats import norm
from where import HERE

from refscore import VP
from refscore.matching.times import LogNormal
from refscore.matching.weights import MinSNR, g_squared, sigma_squared
from refscore.noise.parametrisation import LossOf
from refscore.noise.sde import log_ratio
from refscore.plots import EXACT, INK, LEARNED, figure, save

SDE = VP()
GREY = "#8a8a8a"


def weights(path: Path = HERE / "22-weights.svg") -> str:
    fig, ((ax,),) = figure(1, size=4.6)
    fig.set_size_inches(7.0, 3.8)
    level = np.linspace(float(log_ratio(SDE, 1e-3)), float(log_ratio(SDE, 1.0)), 400)
    t, edm = SDE.time_at_log_ratio(level), norm.pdf(level, LogNormal().mean, LogNormal().std)
    uniform = 2 * SDE.sigma(t) ** 2 / SDE.g(t) ** 2  # dt/d(log ς), up to a constant
    for name, weight, density, color, style in (
        ("simple loss, uniform t", sigma_squared, uniform, GREY, "-"),
        ("likelihood (g²), uniform t", g_squared, uniform, INK, ":"),
        ("EDM, log-normal ς", LossOf("F", 0.5), edm, LEARNED, "-"),
        ("min-SNR, uniform t", MinSNR(), uniform, EXACT, "--"),
    ):
        w = density * weight(SDE, t) / SDE.sigma(t) ** 2
        ax.plot(np.exp(level), w / np.trapezoid(w, level), style, color=color, label=name, lw=1.8)
    ax.plot(np.exp(level), edm, color=LEARNED, label="how often EDM draws a level", lw=0.8)
    ax.set(xscale="log", xlabel="noise level ς = σ/α", ylabel="weight of a level, per unit of log ς", ylim=(0, None))
    ax.legend(fontsize=8)
    return save(fig, path)


def guidance(path: Path = HERE / "22-guidance.svg") -> str:
    fig, (axes,) = figure(2, size=3.9)
    w = np.linspace(1, 6, 101)
    V, C = 0.2, 1.0
    for name, low, high, color, style in (
        ("everywhere", 0.0, 1e9, LEARNED, "-"),
        ("0.4 < σ < 2", 0.16, 4.0, EXACT, "--"),
        ("σ > 2", 4.0, 1e9, GREY, "-."),
    ):
        met = (V + low) / (C + low) * (C + high) / (V + high)
        axes[0].plot(w, V * met ** (w - 1), style, color=color, lw=1.8, label=name)
    axes[0].axhline(V, color=INK, lw=1, ls="--")
    axes[0].set(xlabel="weight w of guidance", ylabel="variance of the samples", title="in an interval", ylim=(0, 0.22))
    axes[0].legend(fontsize=8, loc="center right")
    w = np.linspace(1, 4, 101)
    for good, bad, color, style in ((1.1, 1.3, LEARNED, "-"), (1.1, 2.0, EXACT, "--")):
        axes[1].plot(w, good * (good / bad) ** (w - 1), style, color=color, lw=1.8, label=f"{good}, guided by {bad}")
    axes[1].axhline(1.0, color=INK, lw=1, ls="--")
    axes[1].set(xlabel="weight w of guidance", title="by a worse model", ylim=(0, 1.2))
    axes[1].legend(fontsize=8, title="variances of the models", title_fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    print(weights(), guidance(), sep="\n")
