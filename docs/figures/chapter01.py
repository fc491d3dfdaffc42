"""The figures of chapter 1: python docs/figures/chapter01.py

01-score-and-langevin.png  density with its score field; Langevin paths
01-weights.png             what Kullback-Leibler and Fisher see of two modes' weights
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


def score_and_langevin(path: Path = HERE / "01-score-and-langevin.png") -> str:
    p, box = mixture("tilted"), (-4.5, 4.0, -4.25, 4.25)
    fig, (axes,) = figure(2, size=4.6)
    for ax in axes:
        density(ax, p.log_prob, box)
    arrows(axes[0], p.score, box, 8.0, EXACT)
    axes[0].set_title("density p and score ∇ log p")

    start = np.random.default_rng(4).uniform(-4, 4, size=(12, 2))
    step = First(Langevin(lambda x, t: p.score(x), 0.005), Stay())
    chain = np.stack([start, *simulate(step, start, uniform_times(600), np.random.default_rng(5))])
    axes[1].plot(chain[..., 0], chain[..., 1], lw=0.5, color=LEARNED, alpha=0.8)
    axes[1].scatter(*chain[0].T, s=20, facecolors="none", edgecolors=INK, zorder=3, label="start")
    axes[1].scatter(*chain[-1].T, s=14, color=INK, zorder=3, label="after 600 steps")
    axes[1].set_title("Langevin dynamics, ε = 0.005")
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


def weights(path: Path = HERE / "01-weights.png") -> str:
    distances = np.linspace(0.5, 14, 55)
    kl, fisher = np.array([weights_seen(d) for d in distances]).T
    fig, ((ax,),) = figure(1, size=4.4)
    ax.semilogy(distances, kl, color=EXACT, label="Kullback-Leibler")
    ax.semilogy(distances, fisher, color=LEARNED, label="Fisher")
    ax.set(xlabel="distance of the two modes, in standard deviations", ylabel="divergence", ylim=(1e-10, 1))
    ax.set_title("weights .8/.2 against .5/.5", fontsize=10)
    ax.legend()
    return save(fig, path)


if __name__ == "__main__":
    print(score_and_langevin(), weights())
