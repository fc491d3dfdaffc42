"""The figures of chapter 20: python docs/figures/chapter20.py

20-generators.svg  samples of the six generators, and the true modes
20-weights.svg     what a lost weight costs, against the distance of the modes: exact
20-bias.svg        what three measures are for a right generator, against n: exact laws and means
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from where import HERE

from refscore import GaussianMixture
from refscore.experiments.measuring import GENERATORS, LAW
from refscore.measure.distance import fisher_divergence, sliced_wasserstein
from refscore.measure.frechet import frechet_bias, frechet_distance
from refscore.measure.kernels import kernel_mean
from refscore.plots import EXACT, INK, LEARNED, figure, save

GREEN, GREY = "#4f772d", "#7a7a7a"


def generators(path: Path = HERE / "20-generators.svg") -> str:
    rng = np.random.default_rng(0)
    training = LAW.sample(rng, 300)
    fig, axes = figure(3, 2, size=2.7)
    turn = np.linspace(0, 2 * math.pi, 100)
    for ax, (name, make) in zip(axes.ravel(), GENERATORS.items(), strict=True):
        x = make(rng, training)
        ax.plot(*x.T, ".", color=LEARNED, ms=2)
        for m in LAW.means:
            ax.plot(m[0] + 2 * np.cos(turn), m[1] + 2 * np.sin(turn), color=EXACT, lw=1.2)
        ax.set(xlim=(-9, 9), ylim=(-9, 9), aspect="equal", title=name, xlabel="$x_1$", ylabel="$x_2$")
        ax.label_outer()
    return save(fig, path)


def two(weights: list[float], d: float) -> GaussianMixture:
    return GaussianMixture(np.array(weights), np.array([[0.0], [d]]), np.ones(2))


def squared(p: GaussianMixture, q: GaussianMixture, h: float) -> float:
    return kernel_mean(p, p, h) + kernel_mean(q, q, h) - 2 * kernel_mean(p, q, h)


def costs(d: float, h: float = 2.0) -> list[float]:
    """Energy, Fréchet, MMD², TV, twice Fisher, KSD² of weights ½ in the place of ⅘."""
    p, q = two([0.8, 0.2], d), two([0.5, 0.5], d)
    x = np.linspace(-9, d + 9, 1200)
    cell = x[1] - x[0]
    F, G = (w * norm.cdf(x) + (1 - w) * norm.cdf(x - d) for w in (0.8, 0.5))
    a, b = (np.exp(law.log_prob(x[:, None])) for law in (p, q))
    push = cell * b * (p.score(x[:, None]) - q.score(x[:, None]))[:, 0]
    stein = push @ np.exp(-((x[:, None] - x) ** 2) / (2 * h**2)) @ push
    frechet = (0.3 * d) ** 2 + (math.sqrt(1 + 0.16 * d**2) - math.sqrt(1 + 0.25 * d**2)) ** 2
    fisher = 2 * fisher_divergence(q, p.score).value
    return [2 * cell * np.sum((F - G) ** 2), frechet, squared(p, q, h), 0.5 * cell * np.abs(a - b).sum(), fisher, stein]


def weights(path: Path = HERE / "20-weights.svg") -> str:
    distances = np.linspace(0.5, 12, 47)
    rows = np.array([costs(d) for d in distances]).T
    labels = ("energy distance", "Fréchet", "MMD², h = 2", "total variation", "2 × Fisher divergence", "KSD², h = 2")
    styles = ((EXACT, "-", "o"), (GREEN, "-", "s"), (INK, "-", "^"), (GREY, "-", "v"), (LEARNED, "--", "D"),
              (LEARNED, "--", "x"))  # fmt: skip
    fig, ((ax,),) = figure(1, size=5.0)
    for row, label, (colour, line, mark) in zip(rows, labels, styles, strict=True):
        ax.semilogy(distances, row, line, color=colour, marker=mark, markevery=6, ms=5, label=label)
    ax.set(xlabel="distance of the modes, in their widths", ylabel="what the lost weight costs", ylim=(1e-9, 30))
    ax.legend(fontsize=8, loc="lower left")
    return save(fig, path)


def bias(path: Path = HERE / "20-bias.svg", runs: int = 300) -> str:
    rng, counts = np.random.default_rng(0), np.array([10, 20, 40, 80, 160])
    plane = GaussianMixture(np.ones(1), np.zeros((1, 2)), np.ones(1))

    def similar(x: Any, y: Any) -> float:
        return float(np.exp(-0.5 * ((x[:, None] - y) ** 2).sum(axis=2)).mean())

    def kept(n: int) -> float:
        x, y = plane.sample(rng, n), plane.sample(rng, n)
        return similar(x, x) + similar(y, y) - 2 * similar(x, y)

    def frechet(n: int) -> float:
        return frechet_distance(plane.sample(rng, n), plane.sample(rng, n))

    def sliced(n: int) -> float:
        return sliced_wasserstein(rng.random((n, 1)), rng.random((n, 1)), rng, 1) ** 2

    away = 1 - kernel_mean(plane, plane, 1.0)
    fig, ((ax,),) = figure(1, size=5.0)
    lines: list[tuple[str, Any, Any, str, str]] = [
        ("MMD², all pairs kept, N(0, I) in the plane, h = 1", kept, 2 * away / counts, INK, "^"),
        ("Fréchet, N(0, I) in the plane", frechet, [2 * frechet_bias(np.eye(2), int(n)) for n in counts], EXACT, "o"),
        ("sliced W₂², uniform on [0, 1]", sliced, 1 / (3 * (counts + 1)), LEARNED, "s"),
    ]
    for label, draw, exact, colour, mark in lines:
        ax.loglog(counts, exact, "-", color=colour)
        means = [np.mean([draw(int(n)) for _ in range(runs)]) for n in counts]
        ax.loglog(counts, means, mark, color=colour, label=label)
    ax.set(xlabel="samples on both sides, n", ylabel="mean for a right generator")
    ax.set_xticks(counts, [str(n) for n in counts])
    ax.minorticks_off()
    ax.legend(fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    print(generators(), weights(), bias())
