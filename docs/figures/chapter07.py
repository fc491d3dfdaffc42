"""The figures of chapter 7: python docs/figures/chapter07.py

07-orders.png  errors of methods for ODEs and of Euler-Maruyama against the number of steps, all from exact laws
07-sdes.png    the six SDEs: a two-mode law and some paths, each in units of its own scale

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


def orders(path: Path = HERE / "07-orders.png") -> str:
    counts = [8, 16, 32, 64, 128, 256, 512]
    fig, (axes,) = figure(2, size=4.6)
    for (name, tableau), color in zip(TABLEAUX.items(), (LEARNED, "#e9a178", EXACT, INK), strict=True):
        errors = ode_errors(name, counts)
        print(f"{name}: {errors[-2]:.2e} at 256 steps, slope {math.log2(errors[-2] / errors[-1]):.3f}")
        axes[0].loglog(counts, errors, "o-", ms=4, color=color, label=f"{name}, order {tableau.order}")
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


def sdes(path: Path = HERE / "07-sdes.png") -> str:
    fig, axes = figure(3, 2, size=3.3)
    y = np.linspace(-3, 3, 200)
    times = np.linspace(0, 1, 601).tolist()
    for ax, (name, sde) in zip(axes.ravel(), SDES.items(), strict=True):
        scale = np.array([math.hypot(sde.alpha(t), sde.sigma(t)) for t in times])
        columns = [
            np.exp(TWO_MODES.log_prob(u * y[:, None], sde.alpha(t), sde.sigma(t))) * u
            for t, u in list(zip(times, scale, strict=True))[::3]
        ]
        image = np.stack([c / c.max() for c in columns], axis=1)
        ax.imshow(image, origin="lower", extent=(0, 1, -3, 3), cmap=SHADE, aspect="auto", vmax=1.4)
        x0 = np.linspace(-1.9, 1.4, 7)[:, None]
        walk = [x0, *simulate(EulerMaruyama(Forward(sde)), x0, times, np.random.default_rng(7))]
        ax.plot(times, np.stack(walk)[..., 0] / scale[:, None], lw=0.5, color=LEARNED)
        ax.axvline(even := float(sde.time_at_log_ratio(0.0)), lw=0.8, ls=":", color=INK)
        print(f"{name}: σ = α at t = {even:.3f}, α(1) = {sde.alpha(1.0):.5f}, σ(1) = {sde.sigma(1.0):.6g}")
        ax.set(title=f"{name}", xlim=(0, 1), ylim=(-3, 3))
    for ax in axes[1]:
        ax.set_xlabel("t, from data to noise")
    for ax in axes[:, 0]:
        ax.set_ylabel("x / √(α² + σ²)")
    return save(fig, path)


if __name__ == "__main__":
    print(orders(), sdes())
