"""The figures of chapter 9: python docs/figures/chapter09.py

09-limit.svg     a DDPM chain and its limit
09-ddpm.svg      samples of DDPM in plain NumPy with the exact score, both reverse variances
09-reverse.svg   what the two reverse variances do to the variance of the samples when steps are few
09-variance.svg  variance against time for data of several variances, under VP, sub-VP and VE

It prints the numbers that the solutions of the exercises quote.
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

TWO_MODES = GaussianMixture(np.array([0.3, 0.7]), np.array([[-1.5], [1.0]]), np.array([0.06, 0.06]))
BETA = np.linspace(1e-4, 2e-2, 1000)


def variance(path: Path = HERE / "09-variance.svg") -> str:
    t = np.linspace(0, 1, 401)
    fig, (axes,) = figure(3, size=3.6)
    for ax, (name, sde) in zip(axes, {"VP": VP(), "sub-VP": SubVP(), "VE": VE()}.items(), strict=True):
        for v0, color, style in ((4.0, LEARNED, "--"), (1.0, INK, "-"), (0.25, EXACT, ":")):
            y = sde.alpha(t) ** 2 * v0 + sde.sigma(t) ** 2
            ax.plot(t, y, style, color=color, label=f"data of variance {v0:g}")
        ax.set(title=name, xlabel="t, from data to noise")
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


def limit(path: Path = HERE / "09-limit.svg") -> str:
    fig, ((ax,),) = figure(1, size=3.8)
    ladder = [50, 100, 250, 500, 1000, 2000, 4000]
    errors = [np.max(np.abs(np.array(ddpm(n).alphas) - VP().alpha(np.arange(n + 1) / n))) for n in ladder]
    ax.loglog(ladder, errors, "o", color=EXACT, ms=5, label="largest difference of α")
    ax.loglog(ladder, errors[-1] * ladder[-1] / np.array(ladder), "--", color=INK, lw=0.8, label="proportional to 1/N")
    ax.set(xlabel="steps N of the chain", ylabel="DDPM's chain against the VP SDE")
    ax.legend(fontsize=8)
    return save(fig, path)


def reverse(path: Path = HERE / "09-reverse.svg") -> str:
    fig, ((ax,),) = figure(1, size=4.4)
    steps = [10, 20, 25, 50, 100, 200, 500, 1000]
    for kind, style, letter in (("small", "o-", "β̃"), ("large", "s--", "β")):
        for v0, color in ((1.0, INK), (0.25, EXACT)):
            label = f"{letter}, data of variance {v0:g}"
            ax.semilogx(steps, [made(n, v0, kind) for n in steps], style, color=color, ms=4, label=label)
    ax.axhline(1, color=INK, lw=0.5)
    ax.set(xlabel="reverse steps, of 1000", ylabel="variance of the samples / of the data")
    ax.legend(fontsize=8)
    return save(fig, path)


# ------------------------------------------------------------------ the program of the chapter


def sampled(beta: Any, count: int, kind: str, last: bool = False) -> Any:
    """DDPM backwards on the chain of these β; kind "none" draws no noise, `last` draws it in the last step, too."""
    alpha, rng = np.sqrt(np.cumprod(1 - beta)), np.random.default_rng(1)
    before, x = np.concatenate([[1.0], alpha[:-1]]), rng.standard_normal((count, 1))
    for i in reversed(range(len(beta))):
        x = (x + beta[i] * TWO_MODES.score(x, alpha[i], np.sqrt(1 - alpha[i] ** 2))) / np.sqrt(1 - beta[i])
        small = beta[i] * (1 - before[i] ** 2) / (1 - alpha[i] ** 2)
        if i or last:
            x = x + np.sqrt({"small": small, "large": beta[i], "none": 0.0}[kind]) * rng.standard_normal(x.shape)
    return x[:, 0]


def histogram(path: Path = HERE / "09-ddpm.svg") -> str:
    fig, (axes,) = figure(2, size=3.6)
    y = np.linspace(-3, 3, 500)
    for ax, kind in zip(axes, ("small", "large"), strict=True):
        x = sampled(BETA, 20_000, kind)
        ax.hist(x, bins=np.linspace(-3, 3, 81).tolist(), density=True, color=LEARNED, alpha=0.6, label="samples")
        ax.plot(y, np.exp(TWO_MODES.log_prob(y[:, None])), color=EXACT, label="density of the data")
        ax.set(title=f"{kind} variance", xlabel="x", ylim=(0, 1.25))
    axes[0].set_ylabel("density")
    axes[0].legend(fontsize=8, loc="upper left")
    return save(fig, path)


def exercises() -> None:
    coarse = np.linspace(1e-3, 0.2, 100)
    runs = {
        "3, no noise": (BETA, "none", False), "4, small": (coarse, "small", False),
        "4, large": (coarse, "large", False),
        "5, large without": (BETA, "large", False), "5, large with the last noise": (BETA, "large", True),
    }  # fmt: skip
    for name, (beta, kind, last) in runs.items():
        x = sampled(beta, 20_000, kind, last)
        right = x[x > 0]
        print(
            f"exercise {name}: {len(right) / len(x):.4f} on the right, mean {right.mean():.4f}, var {right.var():.4f}"
        )


if __name__ == "__main__":
    exercises()
    print(variance(), limit(), reverse(), histogram())
