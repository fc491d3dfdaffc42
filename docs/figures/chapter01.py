"""The figures of chapter 1: python docs/figures/chapter01.py

01-energy.svg              an energy and the same one lifted, their density, their score
01-tweedie.svg             a noisy point, where it may come from, and the score that leads to the mean of that
01-score-and-langevin.png  density with its score field; Langevin paths
01-weights.svg             what Kullback-Leibler and Fisher see of two modes' weights
"""

from pathlib import Path

import numpy as np
from where import HERE

from refscore import GaussianMixture, Langevin, simulate
from refscore.laws.examples import mixture
from refscore.laws.expectation import quadrature_grid
from refscore.noise.grids import uniform_times
from refscore.plots import EXACT, INK, LEARNED, arrows, density, figure, save
from refscore.sampling.compose import First, Stay


def energy(path: Path = HERE / "01-energy.svg") -> str:
    """E and E + 2 have one density and one score: minus the slope."""
    x = np.linspace(-2.4, 2.4, 481)
    E, slope = 0.8 * x**4 - 2 * x**2 + 0.4 * x, 3.2 * x**3 - 4 * x + 0.4
    p = np.exp(-E) / (np.sum(np.exp(-E)) * (x[1] - x[0]))
    fig, (axes,) = figure(3, size=3.4)
    axes[0].plot(x, E, color=EXACT, label="E")
    axes[0].plot(x, E + 2, "--", color=LEARNED, label="E + 2")
    axes[0].set(title="an energy, and one lifted by 2", ylim=(-2.5, 6), ylabel="energy, nats")
    axes[1].plot(x, p, color=EXACT, label="from E")
    axes[1].plot(x, p, "--", dashes=(3, 5), color=LEARNED, label="from E + 2")
    axes[1].set(title="density: Z takes the lift away", ylim=(0, 0.8), ylabel="p = exp(-E)/Z")
    axes[2].plot(x, -slope, color=EXACT, label="from E")
    axes[2].plot(x, -slope, "--", dashes=(3, 5), color=LEARNED, label="from E + 2")
    axes[2].axhline(0, color=INK, lw=0.6)
    axes[2].set(title="score: the slope knows no lift", ylim=(-8, 8), ylabel="s = -dE/dx")
    still = np.sort(np.roots([3.2, 0, -4, 0.4]).real)  # where the slope is zero
    axes[0].plot(still, 0.8 * still**4 - 2 * still**2 + 0.4 * still, "o", color=INK, ms=4)
    axes[1].plot(still, np.interp(still, x, p), "o", color=INK, ms=4)
    axes[2].plot(still, 0 * still, "o", color=INK, ms=4)
    for ax in axes:
        ax.set(xlabel="x", xlim=(-2.2, 2.2))
        ax.legend(fontsize=8, loc="upper right")
    return save(fig, path)


def tweedie(path: Path = HERE / "01-tweedie.svg", sigma: float = 1.25) -> str:
    """Origins are drawn from the posterior: a draw of p is kept with probability N(x; x₀, σ²) over its largest."""
    p, x, rng = mixture("tilted"), np.array([[-0.3, 3.4]]), np.random.default_rng(1)
    draws = p.sample(rng, 8000)
    likely = np.exp(-0.5 * np.sum((draws - x) ** 2, axis=1) / sigma**2)
    origins = draws[rng.random(len(draws)) < likely][:80]
    mean, s = p.posterior_mean(x, 1.0, sigma)[0], p.score(x, 1.0, sigma)[0]
    fig, ((ax,),) = figure(1, size=5.2)
    density(ax, p.log_prob, (-4.0, 3.5, -3.5, 4.0))
    for origin in origins:
        ax.plot(*np.stack([x[0], origin]).T, color=EXACT, lw=0.5, alpha=0.5)
    ax.scatter(*origins.T, s=10, color=EXACT, label="possible origins $x_0$", zorder=3)
    arrow = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008, "zorder": 5}
    ax.quiver(*x[0], *(sigma**2 * s), color=LEARNED, label="$σ^2 s(x)$", **arrow)
    ax.scatter(*x[0], s=50, color=INK, zorder=4, label="noisy point x")
    ax.scatter(*mean, s=90, marker="X", color=INK, edgecolors="white", zorder=6, label="their mean, $E[x_0|x]$")
    ax.set_title(f"noise of σ = {sigma:g}, α = 1", fontsize=10)
    ax.legend(loc="lower left", fontsize=8)
    return save(fig, path)


def score_and_langevin(path: Path = HERE / "01-score-and-langevin.png") -> str:
    p, box = mixture("tilted"), (-4.5, 4.0, -4.25, 4.25)
    fig, (axes,) = figure(2, size=4.6)
    for ax in axes:
        density(ax, p.log_prob, box)
        for w, m in zip(p.weights, p.means, strict=True):
            ax.annotate(f"{w:g}", m + np.array([0.7, 0.8]), color=INK, fontsize=11, fontweight="bold")
    arrows(axes[0], p.score, box, 8.0, EXACT)
    axes[0].set_title("density p and score ∇ log p (arrows cut at 8)", fontsize=10)

    start = np.random.default_rng(4).uniform(-4, 4, size=(12, 2))
    step = First(Langevin(lambda x, t: p.score(x), 0.005), Stay())
    chain = np.stack([start, *simulate(step, start, uniform_times(600), np.random.default_rng(5))])
    axes[1].plot(chain[..., 0], chain[..., 1], lw=0.5, color=LEARNED, alpha=0.8, rasterized=True)
    axes[1].scatter(*chain[0].T, s=20, facecolors="none", edgecolors=INK, zorder=3, label="start")
    axes[1].scatter(*chain[-1].T, s=14, color=INK, zorder=3, label="after 600 steps")
    axes[1].set_title("twelve Langevin chains, ε = 0.005", fontsize=10)
    axes[1].legend(loc="lower left", fontsize=8)
    return save(fig, path)


def weights_seen(distance: float) -> tuple[float, float]:
    """KL and Fisher divergence of .8/.2 against .5/.5, unit modes `distance` apart, by quadrature."""
    means = np.array([[distance / 2], [-distance / 2]])
    p, q = (GaussianMixture(np.array(w), means, np.ones(2)) for w in ([0.8, 0.2], [0.5, 0.5]))
    nodes, cell = quadrature_grid(p, spacing=1 / 16)  # what Fisher sees is e^{-d²/8}: a quarter errs by 12 % at d = 14
    weight = cell * np.exp(p.log_prob(nodes))
    kl = np.sum(weight * (p.log_prob(nodes) - q.log_prob(nodes)))
    fisher = 0.5 * np.sum(weight * np.sum((p.score(nodes) - q.score(nodes)) ** 2, axis=1))
    return float(kl), float(fisher)


def weights(path: Path = HERE / "01-weights.svg") -> str:
    distances = np.linspace(0.5, 14, 55)
    kl, fisher = np.array([weights_seen(d) for d in distances]).T
    fig, ((ax,),) = figure(1, size=4.4)
    ax.semilogy(distances, kl, color=EXACT, label="Kullback-Leibler")
    ax.semilogy(distances, fisher, "--", color=LEARNED, label="Fisher")
    ax.set(xlabel="distance d of the two modes, in standard deviations", ylabel="divergence", ylim=(1e-10, 1))
    ax.set_title("weights .8/.2 against .5/.5", fontsize=10)
    ax.legend()
    return save(fig, path)


if __name__ == "__main__":
    print(energy(), tweedie(), score_and_langevin(), weights())
