"""The figures of chapter 9: python docs/figures/chapter09.py

09-variance.png  variance against time for data of several variances, under VP, sub-VP and VE
09-limit.png     a DDPM chain and its limit; what its two reverse variances do to the variance of the samples
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from where import HERE

from refscore import VE, VP, ExactScore, GaussianMixture
from refscore.noise.chains import ddpm
from refscore.noise.sde import SubVP
from refscore.plots import EXACT, INK, LEARNED, figure, save
from refscore.sampling.transitions import Ancestral


def variance(path: Path = HERE / "09-variance.png") -> str:
    t = np.linspace(0, 1, 401)
    fig, (axes,) = figure(3, size=3.6)
    for ax, (name, sde) in zip(axes, {"VP": VP(), "sub-VP": SubVP(), "VE": VE()}.items(), strict=True):
        for v0, color in ((4.0, LEARNED), (1.0, INK), (0.25, EXACT)):
            ax.plot(t, sde.alpha(t) ** 2 * v0 + sde.sigma(t) ** 2, color=color, label=f"data of variance {v0:g}")
        ax.set(title=name, xlabel="t")
    axes[0].set(ylabel="variance of x(t)", ylim=(0, 4.2))
    axes[1].set(ylim=(0, 4.2))
    axes[2].set(yscale="log")
    axes[0].legend(fontsize=8)
    return save(fig, path)


class OneNoise:
    """Hands a step the noise that it is told to."""

    def __init__(self, z: Any) -> None:
        self.z = z

    def standard_normal(self, size: Any = None, dtype: Any = None) -> Any:
        return self.z


def made(n: int, v0: float, kind: str) -> float:
    """Variance of the samples over that of the data N(0, v0), n of 1000 steps, from the law at 1: by unit vectors."""
    chain = ddpm(1000)
    step = Ancestral(chain, ExactScore(GaussianMixture(np.ones(1), np.zeros((1, 1)), np.array([v0])), chain), kind)
    x, z = np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])
    v = chain.alpha(1.0) ** 2 * v0 + chain.sigma(1.0) ** 2
    for t, s in pairwise([i / n for i in range(n, -1, -1)]):
        a, b = step(x, t, s, OneNoise(z))[0][:, 0]
        v = a * a * v + b * b
    return float(v / v0)


def limit(path: Path = HERE / "09-limit.png") -> str:
    fig, (axes,) = figure(2, size=4.4)
    ladder = [50, 100, 250, 500, 1000, 2000, 4000]
    errors = [np.max(np.abs(np.array(ddpm(n).alphas) - VP().alpha(np.arange(n + 1) / n))) for n in ladder]
    axes[0].loglog(ladder, errors, "o-", color=EXACT, ms=4, label="largest difference of α")
    axes[0].loglog(ladder, errors[-1] * ladder[-1] / np.array(ladder), "--", color=INK, lw=0.8, label="∝ 1/N")
    axes[0].set(xlabel="steps N of the chain", ylabel="chain against VP SDE")
    steps = [10, 20, 25, 50, 100, 200, 500, 1000]
    for kind, style in (("small", "o-"), ("large", "s--")):
        for v0, color in ((1.0, INK), (0.25, EXACT)):
            letter = "β̃" if kind == "small" else "β"
            axes[1].semilogx(
                steps,
                [made(n, v0, kind) for n in steps],
                style,
                color=color,
                ms=4,
                label=f"{letter}, data of variance {v0:g}",
            )
    axes[1].axhline(1, color=INK, lw=0.5)
    axes[1].set(xlabel="reverse steps, of 1000", ylabel="variance of the samples / of the data")
    for ax in axes:
        ax.legend(fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    print(variance(), limit())
