"""The figures of chapter 8: python docs/figures/chapter08.py

08-sign.svg       the forward process, the same with its sign changed, and the reverse SDE
08-step.svg       one step back in the plane, λ = 0 and 1, in its parts
08-histogram.svg  samples of a plain loop of NumPy, λ = 0 and 1, over the density of the data
08-paths.svg      paths for λ = 0, 1, 2 over the exact marginals, and the laws they end with, without sampling

It prints the numbers that the text quotes.
"""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr
from where import HERE

from refscore import VP, EulerMaruyama, ExactScore, Forward, GaussianMixture, Reverse, simulate
from refscore.laws.examples import mixture
from refscore.laws.grid_chain import GridLaw, grid_law
from refscore.noise.grids import log_snr_times, uniform_times
from refscore.noise.sde import LinearVE
from refscore.plots import EXACT, INK, LEARNED, SHADE, density, figure, save

TWO_MODES = GaussianMixture(np.array([0.3, 0.7]), np.array([[-1.5], [1.0]]), np.array([0.06, 0.06]))
SDE, SLOW = VP(), VP(0.1, 5.0)
SCORE = ExactScore(TWO_MODES, SDE)


def shade(ax: Any, sde: Any, reach: float, down: bool) -> None:
    """The exact density at every t, each t on its own scale."""
    x, ts = np.linspace(-reach, reach, 200)[:, None], np.linspace(0, 1, 200)
    columns = [np.exp(TWO_MODES.log_prob(x, sde.alpha(t), sde.sigma(t))) for t in ts.tolist()]
    image = np.stack([c / c.max() for c in (columns[::-1] if down else columns)], axis=1)
    extent = (1, 0, -reach, reach) if down else (0, 1, -reach, reach)
    ax.imshow(image, origin="lower", extent=extent, cmap=SHADE, aspect="auto", vmax=1.4, interpolation="none")
    ax.set(xlim=extent[:2], ylim=(-reach, reach))


def sign(path: Path = HERE / "08-sign.svg") -> str:
    rng, n, reach = np.random.default_rng(8), 24, 9.5
    up = np.linspace(0, 1, 801).tolist()
    x0 = TWO_MODES.sample(rng, n)
    walk = np.stack([x0, *simulate(EulerMaruyama(Forward(SLOW)), x0, up, rng)])[..., 0]
    x1 = SLOW.alpha(1.0) * TWO_MODES.sample(rng, n) + SLOW.sigma(1.0) * rng.standard_normal((n, 1))
    score = ExactScore(TWO_MODES, SLOW)
    panels = [("forward", up, walk)]
    no_score = Reverse(SLOW, lambda x, t: np.zeros_like(x))  # drift f x and noise g on the way back, too
    for title, process in (("sign changed", no_score), ("reversed, λ = 1", Reverse(SLOW, score))):
        steps = simulate(EulerMaruyama(process), x1, up[::-1], np.random.default_rng(9))
        panels.append((title, up[::-1], np.stack([x1, *steps])[..., 0]))
    fig, (axes,) = figure(3, size=3.6)
    for ax, (title, times, paths) in zip(axes, panels, strict=True):
        shade(ax, SLOW, reach, down=times[0] == 1)
        ax.plot(times[::8], paths[::8], lw=0.5, color=LEARNED)
        ax.set(title=title, xlabel="t, from data to noise" if times[0] == 0 else "t, from noise to data")
    axes[0].set_ylabel("x")
    B = -2 * math.log(SLOW.alpha(1.0))
    mean = float(TWO_MODES.weights @ TWO_MODES.means[:, 0])
    variance = float(TWO_MODES.weights @ (0.06 + (TWO_MODES.means[:, 0] - mean) ** 2))
    print(f"B = {B:.3f}: variance {variance:.4f} comes back as {variance + 2 * math.expm1(B):.2f}")
    return save(fig, path)


def step(path: Path = HERE / "08-step.svg") -> str:
    fig, (axes,) = figure(2, size=4.4)
    law, sde, t, h, x = mixture("tilted"), LinearVE(2.0), 0.4, 0.1, np.array([[1.9, -1.4]])
    g, s = sde.g(t), law.score(x, 1.0, sde.sigma(t))
    for ax, lam in zip(axes, (0.0, 1.0), strict=True):
        density(ax, lambda y: law.log_prob(y, 1.0, sde.sigma(t)), (-3.5, 3.5, -3.5, 3.5), n=80)
        ax.images[0].set(interpolation="none", alpha=0.6)
        end = x + 0.5 * (1 + lam**2) * h * g**2 * s
        arrow = {"arrowstyle": "-|>", "color": LEARNED, "lw": 2, "shrinkA": 0, "shrinkB": 0}
        ax.annotate("", end[0], x[0], arrowprops=arrow)
        ax.plot([], [], color=LEARNED, lw=2, label="½(1 + λ²) h g² s")
        if lam:
            cloud = end + lam * g * math.sqrt(h) * np.random.default_rng(0).standard_normal((60, 2))
            ax.plot(*cloud.T, ".", ms=4, color=INK, label="60 draws of the noise")
        ax.plot(*x[0], "o", ms=7, mfc="white", color=INK, label="x at t = 0.4")
        ax.plot(*end[0], "s", ms=6, color=INK, label="end of the step" if lam == 0 else "its mean")
        ax.set(title=f"λ = {lam:g}")
        ax.legend(fontsize=8, loc="upper right")
    return save(fig, path)


def sample(lam: float, count: int, steps: int, rng: Any, width: float = 1.0) -> Any:
    """The program of the chapter; `width` is for its exercise 4."""
    x, h = width * rng.standard_normal((count, 1)), 1 / steps
    for i in range(steps, 0, -1):
        t = i * h
        beta = SDE.g(t) ** 2
        drift = -0.5 * beta * x - 0.5 * (1 + lam**2) * beta * SCORE(x, t)
        x = x - h * drift + lam * math.sqrt(beta * h) * rng.standard_normal(x.shape)
    return x[:, 0]


def histogram(path: Path = HERE / "08-histogram.svg") -> str:
    fig, (axes,) = figure(2, size=3.6)
    y = np.linspace(-3.2, 3.2, 500)
    for ax, lam in zip(axes, (0.0, 1.0), strict=True):
        x = sample(lam, 20_000, 500, np.random.default_rng(1))
        ax.hist(x, bins=np.linspace(-3.2, 3.2, 81).tolist(), density=True, color=LEARNED, alpha=0.6, label="samples")
        ax.plot(y, np.exp(TWO_MODES.log_prob(y[:, None])), color=EXACT, label="density of the data")
        ax.plot(
            y, np.exp(-0.5 * y**2) / math.sqrt(2 * math.pi), "--", lw=1, color="#777777", label="the start, N(0, 1)"
        )
        ax.set(title=f"λ = {lam:g}", xlabel="x", ylim=(0, 1.25))
    axes[0].set_ylabel("density")
    axes[0].legend(fontsize=8, loc="upper left")
    return save(fig, path)


def exercises() -> None:
    runs = [(lam, 500, 2.0) for lam in (0.0, 1.0)] + [(lam, 20, 1.0) for lam in (0.0, 1.0, 2.0)]
    for lam, steps, width in runs:
        x = sample(lam, 5000, steps, np.random.default_rng(1), width)
        deviations = f"deviations {x[x < 0].std():.3f} and {x[x > 0].std():.3f}"
        print(f"λ = {lam:g}, {steps} steps from N(0, {width:g}²): {np.mean(x > 0):.4f} on the right, {deviations}")


def cdf(x: Any, t: float) -> Any:
    """Distribution function of p_t."""
    sd = np.sqrt(SDE.alpha(t) ** 2 * TWO_MODES.variances[:, 0] + SDE.sigma(t) ** 2)
    return ndtr((np.asarray(x)[:, None] - SDE.alpha(t) * TWO_MODES.means[:, 0]) / sd) @ TWO_MODES.weights


def grid(steps: int) -> list[float]:
    return log_snr_times(SDE, steps, float(SDE.time_at_log_ratio(math.log(0.1))))


def law(lam: float, steps: int, n: int = 1600, reach: float = 6.0) -> tuple[Any, Any, float]:
    """Edges and masses of the law that Euler-Maruyama ends with from the exact p₁; its distance in total variation."""
    process, times = Reverse(SDE, SCORE, lam), grid(steps)
    if lam == 0:  # a map: cells keep their mass and move
        edges = np.linspace(-reach, reach, 4001)
        mass = np.diff(cdf(edges, 1.0))
        for t, s in pairwise(times):
            edges = edges + (s - t) * process.drift(edges[:, None], t)[:, 0]
        assert np.all(np.diff(edges) > 0)
    else:
        now: GridLaw = grid_law(-reach, reach, n, lambda x: cdf(x, 1.0))
        for t, s in pairwise(times):
            move = lambda x, t=t, s=s: x + (s - t) * process.drift(x[:, None], t)[:, 0]  # noqa: E731
            now = now.push(now.transition(move, lam * SDE.g(t) * math.sqrt(t - s)))
        edges, mass = now.edges, now.mass
    return edges, mass, 0.5 * float(np.sum(np.abs(mass - np.diff(cdf(edges, times[-1])))))


def paths(path: Path = HERE / "08-paths.svg") -> str:
    fig, axes = figure(3, 2, size=3.5)
    for (top, bottom), lam in zip(axes.T, (0.0, 1.0, 2.0), strict=True):
        shade(top, SDE, 3.2, down=True)
        times, x1 = uniform_times(2000, 1e-3), np.linspace(-1.9, 1.9, 8 if lam else 16)[:, None]
        walk = [x1, *simulate(EulerMaruyama(Reverse(SDE, SCORE, lam)), x1, times, np.random.default_rng(3))]
        top.plot(times[::20], np.stack(walk)[::20, :, 0], lw=0.5, color=LEARNED)
        top.set(title=f"λ = {lam:g}", xlabel="t, from noise to data")
        distances = {steps: law(lam, steps) for steps in (50, 100, 200)}
        print(f"λ = {lam:g}: total variation", {n: round(tv, 5) for n, (_, _, tv) in distances.items()})
        x, t = np.linspace(-3, 3, 600), grid(50)[-1]
        bottom.fill_between(
            x, np.exp(TWO_MODES.log_prob(x[:, None], SDE.alpha(t), SDE.sigma(t))), color=EXACT, alpha=0.3
        )
        for steps, style in ((50, ":"), (200, "-")):
            edges, mass, _ = distances[steps]
            label = f"after {steps} steps"
            centres, shown = 0.5 * (edges[1:] + edges[:-1]), slice(None, None, 1 if lam == 0 else 4)
            bottom.plot(centres[shown], (mass / np.diff(edges))[shown], style, color=INK, lw=1, label=label)
        bottom.set(xlabel="x at the end", xlim=(-3, 3), ylim=(0, 1.25))
        bottom.legend(fontsize=8, loc="upper left")
    axes[0, 0].set_ylabel("x")
    axes[1, 0].set_ylabel("density: exact (shaded), Euler-Maruyama")
    return save(fig, path)


if __name__ == "__main__":
    exercises()
    print(sign(), step(), histogram(), paths())
