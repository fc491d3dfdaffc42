"""The figures of chapter 2: python docs/figures/chapter02.py

02-bias.svg    the law of the chain for two steps, computed and drawn from; its bias against the step
02-escape.svg  relaxation time against the barrier between two modes
"""

import math
from pathlib import Path

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr
from where import HERE

from refscore import GaussianMixture, Langevin, simulate
from refscore.laws.grid_chain import GridLaw, gap, grid_law
from refscore.plots import EXACT, INK, LEARNED, figure, save
from refscore.sampling.compose import First, Repeat, Stay
from refscore.sampling.loop import last


def line(w: float, m: float, variance: float = 1.0) -> GaussianMixture:
    return GaussianMixture(np.array([w, 1 - w]), np.array([[m], [-m]]), np.array([variance, variance]))


def transition(law: GridLaw, p: GaussianMixture, eps: float) -> np.ndarray:
    return law.transition(lambda x: x + eps * p.score(x[:, None])[:, 0], math.sqrt(2 * eps))


def settled(p: GaussianMixture, half: float, eps: float) -> GridLaw:
    """The stationary law of the chain. A step stretches the place between the modes by up to 1 + 32 ε."""
    law = grid_law(-half, half, math.ceil(2 * half * (1 + 32 * eps) / (0.8 * math.sqrt(2 * eps))), ndtr)
    return law.push(transition(law, p, eps), 10_000_000)


# ------------------------------------------------------------------ 02-bias.svg


def bias(path: Path = HERE / "02-bias.svg") -> str:
    p, rng = line(0.8, 1.5, 0.25), np.random.default_rng(0)
    fig, (axes,) = figure(3, size=4.2)
    x = np.linspace(-4, 4, 801)
    for ax, eps in zip(axes, (0.05, 0.25), strict=False):
        steps = round(100 / eps)
        kernel = Repeat(Langevin(lambda x, t: p.score(x), eps), steps)
        draws = last(simulate(First(kernel, Stay()), rng.standard_normal((8000, 1)), [1.0, 0.0], rng))
        law = grid_law(-7.0, 7.0, 200, ndtr)
        law = law.push(transition(law, p, eps), steps)
        ax.hist(draws[:, 0], bins=80, range=(-4, 4), density=True, color=EXACT, alpha=0.3, label=f"{len(draws)} chains")
        ax.plot(law.centres, law.mass / law.width, color=LEARNED, label="law of the chain, computed")
        ax.plot(x, np.exp(p.log_prob(x[:, None])), color=INK, lw=1, ls="--", label="target p")
        ax.set(xlim=(-4, 4), ylim=(0, 0.72), xlabel="x", ylabel="density")
        ax.set_title(f"ε = {eps}, after {steps} steps", fontsize=10)
    axes[0].legend(fontsize=8, loc="upper left")

    ax, steps = axes[2], 0.2 / 2.0 ** np.arange(8)
    distances = []
    for eps in steps:
        law = settled(p, 5.5, float(eps))
        q = law.width * np.exp(p.log_prob(law.centres[:, None]))
        distances.append(0.5 * np.sum(np.abs(law.mass - q)))
    h = 0.5 * p.score(law.centres[:, None])[:, 0] ** 2 + p.divergence(law.centres[:, None])
    constant = 0.25 * float(q @ np.abs(h - q @ h))
    ax.loglog(steps, distances, "o", color=LEARNED, label="stationary law of the chain, computed")
    ax.loglog(steps, constant * steps, color=INK, lw=1, label=f"Eq. (2.7): {constant:.2f} ε")
    ax.set(xlabel="step ε", ylabel="total variation distance from p")
    ax.set_title("bias", fontsize=10)
    ax.legend(fontsize=8)
    return (
        save(fig, path)
        + f"\n  TV/ε {[round(d / e, 3) for d, e in zip(distances, steps, strict=True)]} -> {constant:.4f}"
    )


# ------------------------------------------------------------------ 02-escape.svg


def turning_points(p: GaussianMixture, m: float) -> np.ndarray:
    """Mode, minimum, mode."""
    s = lambda x: float(p.score(np.array([[x]]))[0, 0])  # noqa: E731
    return np.array([brentq(s, a * m, b * m) for a, b in ((-1.5, -0.55), (-0.55, 0.55), (0.55, 1.5))])


def barrier(p: GaussianMixture, m: float) -> float:
    """How far -log p rises from the minor mode, near -m, to the top."""
    left, top, _ = -p.log_prob(turning_points(p, m)[:, None])
    return float(top - left)


def relaxation_time(p: GaussianMixture, m: float) -> float:
    """1/(1 - second eigenvalue) in units of time nε, from ε and ε/2 to ε = 0."""
    rates = []
    for eps in (0.08 / m**2, 0.04 / m**2):
        half = m + 7
        law = grid_law(-half, half, math.ceil(2 * half / (0.7 * math.sqrt(2 * eps))), ndtr)
        rates.append(gap(transition(law, p, eps)) / eps)
    return 1 / (2 * rates[1] - rates[0])


def kramers_time(p: GaussianMixture, m: float) -> float:
    """Eq. (2.9): wells and top as parabolas."""
    x = turning_points(p, m)[:, None]
    U, curvature = -p.log_prob(x), -p.divergence(x)
    rate = sum(math.sqrt(-curvature[i] * curvature[1]) / (2 * math.pi) * math.exp(U[i] - U[1]) for i in (0, 2))
    return 1 / rate


def integral_time(p: GaussianMixture, m: float) -> float:
    """Eq. (2.10): the integral over the barrier as it is."""
    left, top, right = turning_points(p, m)
    x = np.linspace(left, right, 4001)
    w = float(p.weights @ ndtr((p.means[:, 0] - top) / np.sqrt(p.covariances)))
    return w * (1 - w) * float(np.trapezoid(np.exp(-p.log_prob(x[:, None])), x))


def escape(path: Path = HERE / "02-escape.svg") -> str:
    fig, (axes,) = figure(2, size=4.4)
    x = np.linspace(-7, 7, 701)
    for m, color, style in ((2.0, EXACT, "-"), (4.0, LEARNED, "--")):
        axes[0].plot(x, -line(0.8, m).log_prob(x[:, None]), style, color=color, label=f"m = {m:g}")
    axes[0].set(xlabel="x", ylabel="-log p", ylim=(0, 12), xlim=(-7, 7))
    axes[0].set_title("0.8 N(m, 1) + 0.2 N(-m, 1)", fontsize=10)
    axes[0].legend(fontsize=8)

    rows = []
    for m in np.arange(2.0, 5.01, 0.25).tolist():
        p = line(0.8, m)
        rows.append((m, barrier(p, m), relaxation_time(p, m), integral_time(p, m), kramers_time(p, m)))
    _, height, measured, integral, kramers = np.array(rows).T
    ax = axes[1]
    ax.semilogy(height, measured, "o", color=LEARNED, label="measured: second eigenvalue")
    ax.semilogy(height, integral, color=INK, lw=1, label="integral, Eq. (2.10)")
    ax.semilogy(height, kramers, color=EXACT, lw=1, ls="--", label="Kramers, Eq. (2.9)")
    ax.set(xlabel="barrier from the minor mode, in nats", ylabel="relaxation time, in units of nε")
    ax.legend(fontsize=8)
    table = [
        f"  m {m:.0f}  barrier {b:.2f}  time {t:.4g}  integral {i:.4g}, {i / t:.3f}  Kramers {k:.4g}, {k / t:.3f}"
        for m, b, t, i, k in rows
        if m == int(m)
    ]
    return "\n".join([save(fig, path), *table])


if __name__ == "__main__":
    print(bias(), escape(), sep="\n")
