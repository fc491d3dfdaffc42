"""The figures of chapter 18: python docs/figures/chapter18.py

18-lines.svg  straight lines from data to noise, and the paths of their mean velocity
18-floor.svg  the floor of the flow matching loss along t, and the loss of a trained network
18-steps.svg  error of Euler's method against the number of steps: straight lines, VP, Heun, after one reflow
18-learned.png  samples of the trained network beside the density of the data
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri
from where import HERE

from refscore import (
    DDIM,
    EMA,
    MLP,
    VP,
    Adam,
    Denoising,
    ExactScore,
    GaussianMixture,
    Heun,
    Rectified,
    Reverse,
    RungeKutta,
    ScoreModel,
    fit,
    last,
    prior,
    simulate,
)
from refscore.laws.examples import mixture
from refscore.matching.times import UniformTime
from refscore.measure.floor import mean_posterior_variance
from refscore.noise.grids import uniform_times
from refscore.noise.parametrisation import LossOf
from refscore.plots import EXACT, INK, LEARNED, density, figure, save
from refscore.sampling.loop import NO_NOISE
from refscore.sampling.solvers import EULER
from refscore.training.optim import WarmupCosine

W, M, C = np.array([0.3, 0.7]), np.array([-2.0, 1.0]), np.array([0.1, 0.2])
LINE, PLANE, SDE = GaussianMixture(W, M[:, None], C), mixture("tilted"), Rectified()
FLOW = Reverse(SDE, ExactScore(LINE, SDE), lam=0.0).drift


def lines(path: Path = HERE / "18-lines.svg") -> str:
    fig, ((left, right),) = figure(2, 1, size=4.4)
    rng = np.random.default_rng(2)
    x0, x1 = LINE.sample(rng, 40), rng.standard_normal((40, 1))
    times = uniform_times(200, 1e-3)
    paths = np.stack([x1, *simulate(Heun(FLOW), x1, times, NO_NOISE)])[..., 0]
    t, x = np.linspace(0, 1, 161), np.linspace(-3.2, 3.2, 200)
    p = np.stack([np.exp(LINE.log_prob(x[:, None], 1 - s, s)) for s in t], axis=1)
    for ax, title in ((left, "straight lines, drawn independently"), (right, "paths of their mean velocity")):
        image = ax.imshow(np.sqrt(p), origin="lower", extent=(0, 1, -3.2, 3.2), cmap="Greys", aspect="auto", alpha=0.55)
        image.set_rasterized(True)
        ax.set(xlabel="time $t$  (0 data, 1 noise)", ylabel="$x$", title=title, xlim=(0, 1), ylim=(-3.2, 3.2))
    for a, b in zip(x0[:, 0], x1[:, 0], strict=True):
        left.plot([0, 1], [a, b], color=EXACT, lw=1)
    right.plot(times, paths, color=EXACT, lw=1)
    return save(fig, path)


@cache
def trained() -> tuple[ScoreModel, Any]:
    model = ScoreModel(MLP((2, 64, 64, 2), embed=16), SDE, data_std=1.6, predict="velocity")
    objective = Denoising(weight=LossOf("velocity"), times=UniformTime(1e-3), antithetic=True)
    rate, ema, rng = Adam(WarmupCosine(4e-3, 1000, warmup=50, end=4e-5)), EMA(0.99), np.random.default_rng(0)
    data = mixture("tilted", dtype="float32")
    return model, ema.mean(last(fit(model, objective, data, rate, rng, steps=1000, ema=ema)).average)


def losses(t: float, n: int = 100_000) -> float:
    """E‖u - (z - x₀)‖² of the trained network at a time."""
    (model, theta), rng = trained(), np.random.default_rng(1)
    x0, z = (a.astype("float32") for a in (PLANE.sample(rng, n), rng.standard_normal((n, 2))))
    x = np.float32(1 - t) * x0 + np.float32(t) * z
    u = Reverse(SDE, model.bind(theta), lam=0.0).drift(x, t)
    return float(np.mean(np.sum((u - (z - x0)) ** 2, axis=1)))


def floor(path: Path = HERE / "18-floor.svg") -> str:
    fig, ((ax,),) = figure(1, 1, size=5.0)
    t = np.linspace(0.02, 0.995, 60)
    for law, colour, line, name in (
        (PLANE, EXACT, "-", "floor, two dimensions"),
        (LINE, INK, ":", "floor, the law of 18.1"),
    ):
        value = [mean_posterior_variance(law, 1 - s, s).value / s**2 for s in t]
        ax.plot(t, value, line, color=colour, lw=2, label=name)
    at = np.linspace(0.05, 0.95, 10)
    ax.plot(at, [losses(float(s)) for s in at], "o", color=LEARNED, label="loss of the network")
    ax.set(xlabel="time $t$  (0 data, 1 noise)", ylabel=r"$E\,\|u - (z - x_0)\|^2$", ylim=(0, None), xlim=(0, 1))
    ax.legend(frameon=False)
    return save(fig, path)


def steps(path: Path = HERE / "18-steps.svg") -> str:
    share, fine = (np.arange(2000) + 0.5) / 2000, np.linspace(-6, 6, 100_001)
    z = ndtri(share)[:, None]
    q = np.interp(share, np.sum(W * ndtr((fine[:, None] - M) / np.sqrt(C)), axis=1), fine)
    vp = VP()

    def reflowed(x: Any, t: Any) -> Any:
        return np.interp(x, (1 - t) * q + t * z[:, 0], z[:, 0] - q)

    walkers: tuple[tuple[str, Callable[..., Any], str, str, float], ...] = (
        ("Euler, straight lines", RungeKutta(FLOW, EULER), LEARNED, "s--", 0.0),
        ("DDIM, VP", DDIM(vp, ExactScore(LINE, vp)), "#7f7f7f", "^:", 0.0),
        ("Euler, flow of VP", RungeKutta(Reverse(vp, ExactScore(LINE, vp), 0.0).drift, EULER), INK, "D-.", 0.0),
        ("Heun, straight lines", Heun(FLOW), "#7fb2d0", "x-", 1e-6),
        ("Euler, after one reflow", RungeKutta(reflowed, EULER), EXACT, "o-", 0.0),
    )
    fig, ((ax,),) = figure(1, 1, size=5.2)
    counts = [1, 2, 4, 8, 16, 32, 64, 128]
    for name, step, colour, style, end in walkers:
        found = [last(simulate(step, z, uniform_times(n, end), NO_NOISE))[:, 0] for n in counts]
        error = [max(float(np.sqrt(np.mean((np.sort(x) - q) ** 2))), 1e-5) for x in found]
        ax.loglog(counts, error, style, color=colour, label=name, ms=5)
    ax.set(xlabel="steps", ylabel="error $W_2$ (errors below $10^{-5}$ drawn there)", ylim=(5e-6, 3))
    ax.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0.0, 0.33))
    return save(fig, path)


def learned(path: Path = HERE / "18-learned.png") -> str:
    (model, theta), rng = trained(), np.random.default_rng(0)
    step = Heun(Reverse(SDE, model.bind(theta), lam=0.0).drift)
    x = last(simulate(step, prior(SDE, (1000, 2), rng), uniform_times(20, 1e-3), rng))
    fig, ((left, right),) = figure(2, 1, size=4.2)
    for ax, points, colour, title in (
        (left, PLANE.sample(rng, 1000), EXACT, "the data"),
        (right, x, LEARNED, "20 steps of Heun, learned velocity"),
    ):
        density(ax, PLANE.log_prob, (-5.0, 5.0, -5.0, 5.0))
        for image in ax.images:
            image.set_rasterized(True)
        ax.plot(*points.T, ".", color=colour, ms=2.5, alpha=0.6, rasterized=True)
        ax.set(title=title)
    return save(fig, path)


if __name__ == "__main__":
    for draw in (lines, floor, steps, learned):
        print(draw())
