"""The figures of chapter 4, and the numbers of its tables: python docs/figures/chapter04.py

04-energy.svg      exact -log p, a learned energy, their difference
04-likelihood.svg  score matching beside maximum likelihood by a chain; what a chain sees of weights
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import ndtr
from where import HERE

from refscore import MLP, VE, Adam, Denoising, EnergyModel, Implicit, Sliced, fit, last
from refscore.arrays import flat, views
from refscore.laws.examples import mixture
from refscore.laws.expectation import quadrature_grid
from refscore.laws.grid_chain import grid_law, langevin_law
from refscore.matching.maximum_likelihood import FromNoise, MaximumLikelihood
from refscore.matching.times import FixedTime
from refscore.plots import EXACT, INK, LEARNED, figure, grid, save
from refscore.training.loop import DivergenceError
from refscore.training.optim import WarmupCosine

CLEAN, SDE = mixture("tilted"), VE(0.01, 10.0)
T = SDE.time(0.5)
LAW = CLEAN.diffuse(1.0, 0.5)
DENOISING = Denoising(times=FixedTime(T))


def train(objective: Any, data: Any, steps: int = 300, width: int = 24, seed: int = 0) -> tuple[EnergyModel, Any]:
    model = EnergyModel(MLP((2, width, width, 1)), SDE, data_std=1.55, predict="score")
    optimizer, rng = Adam(WarmupCosine(0.015, steps)), np.random.default_rng(seed)
    state = last(fit(model, objective, data, optimizer, rng, steps=steps, batch=128))
    return model, state.theta


def errors(model: EnergyModel, theta: Any) -> tuple[float, float, float]:
    """Relative score error, standard deviation of E + log p, KL(p ‖ p_θ) in nats: under p, by quadrature."""
    x, cell = quadrature_grid(LAW)
    log_p, exact = LAW.log_prob(x), LAW.score(x)
    w, E, s = cell * np.exp(log_p), model.bind_energy(theta)(x, T), model.bind(theta)(x, T)
    off = np.sum(w * np.sum((s - exact) ** 2, axis=1)) / np.sum(w * np.sum(exact**2, axis=1))
    mean = np.sum(w * (E + log_p))
    log_Z = math.log(cell * np.sum(np.exp(np.min(E) - E))) - np.min(E)
    return float(off), float(np.sum(w * (E + log_p - mean) ** 2)) ** 0.5, float(mean + log_Z)


class KnownNormaliser:
    """Maximum likelihood as nobody has it beyond two dimensions: Eq. (1.2) with the expectation by quadrature."""

    def __init__(self) -> None:
        self.x, _ = quadrature_grid(LAW, spacing=0.6)

    def __call__(self, model: Any, theta: Any, x0: Any, rng: Any) -> tuple[Any, Any]:
        E, cache = model.energy(views(theta, model.shapes), np.concatenate([x0, self.x]), T)
        of_data, q = E[: len(x0)], np.exp(np.min(E) - E[len(x0) :])
        dE = np.concatenate([np.full(len(x0), 1 / len(x0)), -q / np.sum(q)])
        _, grads = model.energy_backward(views(theta, model.shapes), cache, dE)
        return np.mean(of_data) + np.log(np.sum(q)) - np.min(E), flat(grads, model.shapes)


def methods() -> dict[str, tuple[Any, Any, float]]:
    """Name -> objective, data, and the cost of a step: matrix products in units of one forward pass of the batch."""
    fixed, noise = FixedTime(T), FromNoise(1.6)
    return {
        "denoising": (DENOISING, CLEAN, 8),
        "sliced": (Sliced(times=fixed), CLEAN, 24),
        "implicit": (Implicit(times=fixed), CLEAN, 38),
        "likelihood, Z known": (KnownNormaliser(), LAW, math.nan),
        **{f"{n} from data": (MaximumLikelihood(n, 0.05, t=T), LAW, 3 * n + 6) for n in (1, 10, 100)},
        **{f"{n} from noise": (MaximumLikelihood(n, 0.05, noise, t=T), LAW, 3 * n + 6) for n in (1, 10, 100)},
    }


def compare() -> dict[str, tuple[float, float, float, float]]:
    """Name -> cost, score error, deviation of E + log p, KL, after 300 steps each; nan where training diverged."""
    found = {}
    for name, (objective, data, cost) in methods().items():
        try:
            found[name] = (cost, *errors(*train(objective, data)))
        except DivergenceError:
            found[name] = (cost, math.nan, math.nan, math.nan)
    return found


def energy(path: Path = HERE / "04-energy.svg", top: float = 8.0) -> str:
    """Contours one nat apart, as far up as `top` nats above the lowest point."""
    model, theta = train(DENOISING, CLEAN, steps=2000)
    box, n = (-5.4, 4.6, -5.1, 4.9), 200
    x, shape = grid(box, n)
    nodes, cell = quadrature_grid(LAW)
    w = cell * np.exp(LAW.log_prob(nodes))
    constant = np.sum(w * (model.bind_energy(theta)(nodes, T) + LAW.log_prob(nodes)))
    exact = -LAW.log_prob(x).reshape(shape).T
    learned = (model.bind_energy(theta)(x, T) - constant).reshape(shape).T
    ends = [
        np.linspace(low + (high - low) / (2 * n), high - (high - low) / (2 * n), n) for low, high in (box[:2], box[2:])
    ]
    levels = np.min(exact) + np.arange(0.5, top + 0.25, 1.0)

    fig, (axes,) = figure(3)
    for ax, values, color, title in (
        (axes[0], exact, EXACT, "exact energy, -log p"),
        (axes[1], learned, LEARNED, "learned energy, constant removed"),
    ):  # fmt: skip
        ax.contour(*ends, values, levels=levels, colors=color, linewidths=1, linestyles="solid")
        ax.set_title(title)
    difference = np.where(exact <= np.min(exact) + top, learned - exact, np.nan)
    image = axes[2].imshow(difference, origin="lower", extent=box, cmap="RdBu_r", vmin=-0.5, vmax=0.5, rasterized=True)
    axes[2].contour(*ends, exact, levels=levels[::2], colors=INK, linewidths=0.4, linestyles="solid")
    axes[2].set_title("learned - exact, in nats")
    fig.colorbar(image, ax=axes[2], shrink=0.8, extend="both", label="nats")
    for ax in axes:
        ax.set(xlim=box[:2], ylim=box[2:], aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    gap, log_p = model.bind_energy(theta)(nodes, T) + LAW.log_prob(nodes) - constant, LAW.log_prob(nodes)
    for low in (0.0, 2.0, 4.0, 6.0):
        band = (log_p <= np.max(log_p) - low) & (log_p > np.max(log_p) - low - 2)
        mass, worst = np.sum(w[band]), np.max(np.abs(gap[band]))
        rms = (np.sum(w[band] * gap[band] ** 2) / mass) ** 0.5
        print(f"04-energy: {low:g} to {low + 2:g} nats down, mass {mass:.4f}: rms {rms:.3f}, worst {worst:.2f}")
    near = np.max(np.abs(nodes - [0.3, 0.0]), axis=1) < 0.6
    print(f"04-energy: between the modes up to {np.max(np.abs(gap[near])):.2f}")
    off, deviation, kl = errors(model, theta)
    print(f"04-energy: score error {off:.4f}, deviation of E + log p {deviation:.3f}, KL {kl:.4f} nats")
    return save(fig, path)


def share_seen(distance: float, moves: int, eps: float = 0.1, weight: float = 0.8) -> float:
    """Gradient in the weight of two unit modes by a chain from the data, over that of the likelihood: the grid law.

    The data have weights .8 and .2, the model .5 and .5; the gradient is E[r₊ - r₋] of data less that of samples.
    """
    half = distance / 2
    data = grid_law(-half - 8, half + 8, 400, lambda x: weight * ndtr(x - half) + (1 - weight) * ndtr(x + half))
    after = langevin_law(data, lambda x, t: -x + half * np.tanh(half * x), [0.0], lambda t: eps, moves)
    lean: Callable[[Any], Any] = lambda x: np.tanh(half * x)  # noqa: E731
    return 1 - after.mean(lean) / data.mean(lean)


def likelihood(path: Path = HERE / "04-likelihood.svg") -> str:
    found = compare()
    print(f"{'':22s} cost/step  score error  sd(E + log p)  KL")
    for name, row in found.items():
        print(f"{name:22s} {row[0]:9.0f}  {row[1]:11.3f}  {row[2]:13.3f}  {row[3]:.4f}")
    fig, (axes,) = figure(2, size=4.6)
    ax = axes[0]
    groups = (
        ("score matching", ("denoising", "sliced", "implicit"), LEARNED, "o"),
        ("chain from the data", ("1 from data", "10 from data", "100 from data"), EXACT, "s"),
        ("chain from noise", ("10 from noise", "100 from noise"), INK, "^"),
    )
    for label, names, color, marker in groups:
        rows = np.array([found[name] for name in names])
        line = "-" if marker != "o" else "none"
        ax.plot(rows[:, 0], rows[:, 3], marker=marker, ls=line, lw=0.8, color=color, label=label)
        for name, row in zip(names, rows, strict=True):
            at = (-8, -14) if marker == "o" else (5, 5)
            ax.annotate(name.split()[0], (row[0], row[3]), xytext=at, textcoords="offset points", fontsize=8)
    ax.axhline(found["likelihood, Z known"][3], color=INK, lw=0.8, ls=":", label="likelihood, Z by quadrature")
    ax.set(
        xscale="log", yscale="log", xlim=(5, 700), ylim=(2e-3, 200), xlabel="cost of a training step, in forward passes"
    )
    ax.set(ylabel=r"KL$(p\,\|\,p_\theta)$, nats", title="after 300 steps each")
    ax.text(9, 12, "1 from noise: diverges", fontsize=8, color=INK)
    ax.legend(fontsize=8, loc="upper right")

    ax, moves = axes[1], np.unique(np.round(np.geomspace(1, 1000, 13)).astype(int))
    for distance, color, style in ((4.0, EXACT, "o-"), (6.0, INK, "s--"), (8.0, LEARNED, "^:")):
        seen = [share_seen(distance, int(n)) for n in moves]
        ax.loglog(moves, seen, style, ms=4, color=color, label=f"modes {distance:g} apart")
        print(f"weight seen, d = {distance:g}:", {n: round(share_seen(distance, n), 5) for n in (1, 10, 100, 1000)})
    ax.set(xlabel="Langevin steps from the data, ε = 0.1", ylabel="share of the likelihood's gradient", ylim=(2e-5, 2))
    ax.set_title("what the chain sees of the weights")
    ax.legend(fontsize=8, loc="lower right")
    return save(fig, path)


if __name__ == "__main__":
    print(energy(), likelihood())
