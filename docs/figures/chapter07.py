"""The figures of chapter 7: python docs/figures/chapter07.py

07-root.svg    sums of z, of √h z and of h z on three grids
07-orders.svg  errors of methods for ODEs and of Euler-Maruyama against the number of steps, all from exact laws
07-map.svg     the SDEs as curves in the plane of α and σ, and their clocks
07-sdes.svg    six SDEs: a two-mode law and some paths, each in units of its own scale

It prints the numbers that the text quotes.
"""

import math
from pathlib import Path

import numpy as np
from where import HERE

from refscore import EulerMaruyama, Forward, GaussianMixture, RungeKutta, simulate
from refscore.laws.expectation import gauss_legendre
from refscore.noise.sde import SDES
from refscore.plots import EXACT, INK, LEARNED, SHADE, figure, save
from refscore.sampling.loop import NO_NOISE, last
from refscore.sampling.solvers import TABLEAUX

TWO_MODES = GaussianMixture(np.array([0.3, 0.7]), np.array([[-1.5], [1.0]]), np.array([0.06, 0.06]))


def ode_errors(name: str, counts: list[int]) -> list[float]:
    """Of dx/dt = -2 (1 + t) x² at t = 1, the largest of three starts."""
    x0 = np.array([[0.5], [1.0], [2.0]])
    step = RungeKutta(lambda x, t: -2 * (1 + t) * x**2, TABLEAUX[name])
    ends = [last(simulate(step, x0, np.linspace(0, 1, n + 1).tolist(), NO_NOISE)) for n in counts]
    return [float(np.max(np.abs(x - x0 / (1 + 3 * x0)))) for x in ends]


def geometric(n: int, mu: float = 0.5, c: float = 0.8) -> tuple[float, float]:
    """Weak and strong error of geometric Brownian motion: powers of one step's moments."""
    h = 1 / n
    weak = math.exp(mu) - (1 + mu * h) ** n
    cross = math.exp(mu * h) * (1 + mu * h + c * c * h)
    strong = ((1 + mu * h) ** 2 + c * c * h) ** n - 2 * cross**n + math.exp(2 * mu + c * c)
    return weak, math.sqrt(strong)


def additive(n: int, theta: float = 2.0) -> float:
    """Strong error of dx = -θ x dt + dw from 0: both are integrals of the same Brownian path."""
    node, weight = gauss_legendre(np.zeros(1), 8)
    h, i = 1 / n, np.arange(n)[:, None]
    return math.sqrt(h * np.sum(weight * (np.exp(-theta * (1 - (i + node) * h)) - (1 - theta * h) ** (n - 1 - i)) ** 2))


def root(path: Path = HERE / "07-root.svg") -> str:
    fig, axes = figure(3, 3, size=2.6)
    rows = ((0.0, INK, "sum of z", 90), (0.5, EXACT, "sum of √h z", 3.5), (1.0, LEARNED, "sum of h z", 1))
    for (power, color, label, top), row in zip(rows, axes, strict=True):
        for ax, steps in zip(row, (10, 100, 1000), strict=True):
            z = np.random.default_rng(steps).standard_normal((steps, 8)) * steps**-power
            w = np.concatenate([np.zeros((1, 8)), np.cumsum(z, axis=0)])
            shown = slice(None, None, max(1, steps // 200))
            ax.plot(np.linspace(0, 1, steps + 1)[shown], w[shown], lw=0.6, color=color)
            ax.set(ylim=(-top, top), title=f"{steps} steps" if ax in axes[0] else "")
        row[0].set_ylabel(label)
    for ax in axes[2]:
        ax.set_xlabel("t")
    return save(fig, path)


def world(path: Path = HERE / "07-map.svg") -> str:
    styles = {
        "vp": (EXACT, "-", "o"), "cosine": (INK, "--", "s"), "ou": ("#6ba3c6", ":", "^"), "subvp": (LEARNED, "-.", "D"),
        "ve": ("#8a5a00", "-", "v"), "linear-ve": ("#8a5a00", ":", "x"),
    }  # fmt: skip
    fig, (axes,) = figure(2, size=4.8)
    plane, clocks = axes
    t = np.concatenate([np.geomspace(1e-4, 0.01, 100), np.linspace(0.01, 1, 400)])
    for name, (color, style, marker) in styles.items():
        sde = SDES[name]
        alpha, sigma, dots = sde.alpha(t), sde.sigma(t), np.array([0.25, 0.5, 0.75])
        shift = 0.012 if name == "linear-ve" else 0.0  # beside VE, which it covers otherwise
        plane.plot(alpha + shift, sigma, style, color=color, lw=1.6, label=name)
        plane.plot(sde.alpha(dots) + shift, sde.sigma(dots), marker, ms=5, color=color)
        clocks.plot(t, np.log10(sigma / alpha), style, color=color, lw=1.6, label=name)
    plane.plot([1, 0], [0, 1], "--", color="#999999", lw=1)
    plane.text(0.42, 0.46, "flow matching", rotation=-45, color="#777777", fontsize=8, ha="center", va="center")
    plane.plot([0, 1.3], [0, 1.3], ":", color=INK, lw=0.8)
    plane.text(1.07, 1.12, "σ = α", rotation=45, fontsize=8, ha="left")
    plane.annotate("VE: to σ = 50 and 80", (1.006, 1.3), (0.45, 1.25), fontsize=8, arrowprops={"arrowstyle": "->"})
    plane.plot([1], [0], "o", ms=9, mfc="none", color=INK)
    plane.text(1.03, -0.005, "data", fontsize=9)
    plane.text(0.02, 1.04, "noise", fontsize=9)
    plane.set(xlim=(0, 1.25), ylim=(-0.03, 1.33), xlabel="α, what is left of the signal", ylabel="σ, noise")
    clocks.axhline(0, color=INK, lw=0.8, ls=":")
    clocks.set(xlim=(0, 1), ylim=(-2.6, 2.6), xlabel="t, from data to noise", ylabel="$\\log_{10}$ σ/α")
    clocks.legend(fontsize=8, loc="lower right")
    return save(fig, path)


def orders(path: Path = HERE / "07-orders.svg") -> str:
    counts = [8, 16, 32, 64, 128, 256, 512]
    fig, (axes,) = figure(2, size=4.6)
    for (name, tableau), (color, marker) in zip(
        TABLEAUX.items(), ((LEARNED, "o-"), ("#e9a178", "s--"), (EXACT, "^-"), (INK, "D-")), strict=True
    ):
        errors = ode_errors(name, counts)
        print(f"{name}: {errors[-2]:.2e} at 256 steps, slope {math.log2(errors[-2] / errors[-1]):.3f}")
        axes[0].loglog(counts, errors, marker, ms=4, color=color, label=f"{name}, order {tableau.order}")
    axes[0].set(title="an ODE", ylabel="error at t = 1")
    weak, strong = np.array([geometric(n) for n in counts]).T
    added = np.array([additive(n) for n in counts])
    for y, color, marker, label in (
        (strong, LEARNED, "o-", "strong, noise c x: order ½"),
        (added, EXACT, "s-", "strong, constant noise: order 1"),
        (weak, INK, "^-", "weak (the mean), noise c x: order 1"),
    ):
        print(f"{label}: {y[1]:.4f} at 16, {y[-2]:.2e} at 256 steps, slope {math.log2(y[-2] / y[-1]):.3f}")
        axes[1].loglog(counts, y, marker, ms=4, color=color, label=label)
    axes[1].set(title="Euler-Maruyama", ylabel="error at t = 1", ylim=(3e-4, 3))
    for ax in axes:
        ax.set_xlabel("steps N")
        ax.legend(fontsize=8)
    return save(fig, path)


def sdes(path: Path = HERE / "07-sdes.svg") -> str:
    fig, axes = figure(3, 2, size=3.3)
    y = np.linspace(-3, 3, 150)
    times = np.linspace(0, 1, 601).tolist()
    for ax, (name, sde) in zip(axes.ravel(), list(SDES.items())[:6], strict=True):  # chapter 18 has the seventh
        scale = np.array([math.hypot(sde.alpha(t), sde.sigma(t)) for t in times])
        columns = [
            np.exp(TWO_MODES.log_prob(u * y[:, None], sde.alpha(t), sde.sigma(t))) * u
            for t, u in list(zip(times, scale, strict=True))[::4]
        ]
        image = np.stack([c / c.max() for c in columns], axis=1)
        ax.imshow(
            image, origin="lower", extent=(0, 1, -3, 3), cmap=SHADE, aspect="auto", vmax=1.4, interpolation="none"
        )
        x0 = np.linspace(-1.9, 1.4, 7)[:, None]
        walk = [x0, *simulate(EulerMaruyama(Forward(sde)), x0, times, np.random.default_rng(7))]
        ax.plot(times[::5], (np.stack(walk)[..., 0] / scale[:, None])[::5], lw=0.5, color=LEARNED)
        ax.axvline(even := float(sde.time_at_log_ratio(0.0)), lw=0.8, ls=":", color=INK)
        print(f"{name}: σ = α at t = {even:.3f}, α(1) = {sde.alpha(1.0):.5f}, σ(1) = {sde.sigma(1.0):.6g}")
        ax.set(title=f"{name}", xlim=(0, 1), ylim=(-3, 3))
    for ax in axes[1]:
        ax.set_xlabel("t, from data to noise")
    for ax in axes[:, 0]:
        ax.set_ylabel("x / √(α² + σ²)")
    return save(fig, path)


if __name__ == "__main__":
    print(root(), orders(), world(), sdes())
