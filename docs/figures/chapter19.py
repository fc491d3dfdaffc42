"""The figures of chapter 19: python docs/figures/chapter19.py

19-fields.png     scores of the data and of the posterior, and their difference, at three levels of noise
19-bias.svg       what the guesses make of one Gaussian and of two modes, against the noise of the observation
19-plane.svg      the posterior in the plane, and samples of each guess
19-particles.svg  the error of weighted particles, against their number
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import norm
from where import HERE

from refscore import VP, Ancestral, ExactScore, GaussianMixture, Heun, Reverse, last, simulate
from refscore.laws.examples import mixture
from refscore.laws.posterior import linear_posterior
from refscore.noise.grids import log_snr_times
from refscore.plots import EXACT, INK, LEARNED, arrows, density, figure, save
from refscore.sampling.inverse import GUESSES, Exact, PiGDM, Twisted

SDE = VP()
TILTED, TWO = (
    mixture("tilted"),
    GaussianMixture(np.array([0.5, 0.5]), np.array([[1.0], [-1.0]]), np.array([0.05, 0.05])),
)
SUM = {"H": np.ones((1, 2)), "y": np.array([0.5]), "R": np.array([[0.1]])}
LOOK = {"dps": (LEARNED, "o", "DPS"), "pigdm": (EXACT, "s", "ΠGDM"), "moment": ("#777777", "^", "moments")}
NOTHING: Any = np.random.default_rng(0)  # the flow draws nothing


def seen(noise: float) -> dict[str, Any]:
    """The two modes, seen at 0.3."""
    return {"H": np.eye(1), "y": np.array([0.3]), "R": noise * np.eye(1)}


def flow_weight(guess: Any, n: int = 1000) -> float:
    """The probability of x > 0 that the flow ends with: it moves quantiles."""
    z = norm.ppf((np.arange(n) + 0.5) / n)[:, None]
    return float(
        np.mean(last(simulate(Heun(Reverse(SDE, guess, 0.0).drift), z, log_snr_times(SDE, 150, 1e-4), NOTHING)) > 0)
    )


def fields(path: Path = HERE / "19-fields.png") -> str:
    fig, rows = figure(3, 3, size=2.9)
    exact, post, box = Exact(TILTED, SDE, **SUM), linear_posterior(TILTED, **SUM), (-4.0, 4.0, -4.0, 4.0)
    for axes, sigma in zip(rows, (0.9, 0.6, 0.2), strict=True):
        t = float(SDE.time(sigma))
        alpha = SDE.alpha(t)
        data, given = TILTED.diffuse(alpha, sigma), post.diffuse(alpha, sigma)
        shown = (
            ("score of the data", data, data.score, 6.0),
            ("score of the posterior", given, given.score, 6.0),
            ("difference: the pull", given, lambda x, t=t: exact.terms(x, t).pull, 3.0),
        )
        for ax, (title, law, vectors, unit) in zip(axes, shown, strict=True):
            density(ax, law.log_prob, box, n=70)
            arrows(ax, vectors, box, unit, INK, n=13)
            line = alpha * np.array([-4.0, 4.0])
            ax.plot(line, alpha * 0.5 - line, color=LEARNED, ls="--", lw=1)
            ax.set(title=f"σ = {sigma}: {title}\none spacing = {unit:g}, longer ones cut", xlim=box[:2], ylim=box[2:])
            ax.title.set_fontsize(9)
    return save(fig, path)


def bias(path: Path = HERE / "19-bias.svg") -> str:
    fig, ((left, right),) = figure(2, size=4.2)
    R = np.geomspace(0.02, 20, 200)
    ratio = 1 / R
    truth = 1 / (1 + ratio)
    left.semilogx(R, R / 2 * (1 - np.exp(-2 * ratio)) / truth, color=LEARNED, lw=2, label="DPS, reverse SDE (19.8)")
    left.semilogx(R, np.exp(-ratio) / truth, color=LEARNED, lw=2, ls="--", label="DPS, flow (19.7)")
    left.axhline(1, color=INK, lw=1)
    left.set(xlabel="R, variance of the noise of y", ylabel="variance / that of the posterior", ylim=(0, 1.1))
    left.set_title("one Gaussian, variance 1")
    left.legend(fontsize=8, loc="lower right")
    noises = np.geomspace(0.03, 8, 13)
    right.semilogx(
        noises, [linear_posterior(TWO, **seen(r)).weights[0] for r in noises], color=INK, lw=2, label="posterior"
    )
    for name, (color, marker, label) in LOOK.items():
        score = ExactScore(TWO, SDE)
        weights = [flow_weight(GUESSES[name](score, SDE, **seen(r))) for r in noises]
        right.semilogx(noises, weights, color=color, marker=marker, ms=5, lw=1.2, label=label)
    right.set(
        xlabel="R, variance of the noise of y", ylabel="probability of the right mode", title="two modes, y = 0.3"
    )
    right.legend(fontsize=8)
    return save(fig, path)


def plane(path: Path = HERE / "19-plane.svg") -> str:
    fig, (axes,) = figure(4, size=3.4)
    post, box, times = linear_posterior(TILTED, **SUM), (-4.0, 3.0, -2.5, 4.5), [*log_snr_times(SDE, 150, 1e-3), 0.0]
    steps = [(LOOK[name][2], Ancestral(SDE, GUESSES[name](ExactScore(TILTED, SDE), SDE, **SUM))) for name in LOOK]
    weighted = Twisted(PiGDM(ExactScore(TILTED, SDE), SDE, **SUM))
    for ax, (label, step) in zip(axes, [*steps, ("ΠGDM, weighted", weighted)], strict=True):
        rng = np.random.default_rng(3)
        x = last(simulate(step, rng.standard_normal((600, 2)), times, rng))
        density(ax, post.log_prob, box, n=90)
        ax.scatter(*x.T, s=3, color=LEARNED, lw=0, rasterized=True)
        share = post.responsibilities(x)[:, 0].mean()
        print(f"{label}: upper left {share:.3f}, posterior {post.weights[0]:.3f}")
        ax.set(title=f"{label}: {share:.2f} upper left", xlim=box[:2], ylim=box[2:])
    return save(fig, path)


def particles(path: Path = HERE / "19-particles.svg", populations: int = 40) -> str:
    fig, ((ax,),) = figure(1, size=4.6)
    times = [*log_snr_times(SDE, 60, 1e-3), 0.0]
    numbers, truth = (8, 32, 128, 512, 2048), linear_posterior(TWO, **seen(0.25)).weights[0]
    for name, (color, marker, label) in LOOK.items():
        guess, errors = GUESSES[name](ExactScore(TWO, SDE), SDE, **seen(0.25)), []
        for n in numbers:
            found, rng = [], np.random.default_rng(n)
            for _ in range(populations):
                x = last(simulate(Twisted(guess), rng.standard_normal((n, 1)), times, rng))
                found.append(np.mean(x > 0))
            errors.append(math.sqrt(np.mean((np.array(found) - truth) ** 2)))
        print(label, [round(e, 4) for e in errors])
        ax.loglog(numbers, errors, color=color, marker=marker, lw=1.4, label=f"{label}, weighted")
        ax.axhline(abs(flow_weight(guess) - truth), color=color, ls="--", lw=1)
    ax.loglog(numbers, 0.4 / np.sqrt(numbers), color=INK, lw=0.7)
    ax.set(xlabel="number of particles", ylabel="error of the probability of the right mode")
    ax.legend(fontsize=8)
    return save(fig, path)


if __name__ == "__main__":
    for draw in (fields, bias, plane, particles):
        print(draw())
