"""The figures of chapter 5: python docs/figures/chapter05.py

05-pipeline.svg  naive score matching from data to samples
05-manifold.svg  the sliced score matching loss on a circle, without noise and with it
05-density.svg   the error of a learned score by place, by density, and on the way of a sampler
05-weights.png   samples with the exact score: plain and annealed Langevin dynamics

The same as `refscore reproduce song-ermon-2019`: about a minute a seed; what is measured is kept, and found again.
"""

import math
import tempfile
from pathlib import Path

import numpy as np
from where import HERE

from refscore import MLP, VE, Adam, Langevin, ScoreModel, Sliced, fit, simulate
from refscore.commands.reproduce import draw_density, draw_manifold, draw_weights, measure
from refscore.experiments.song_ermon_2019 import song_ermon_2019
from refscore.laws.examples import mixture
from refscore.nn import Softplus
from refscore.noise.grids import uniform_times
from refscore.plots import EXACT, INK, LEARNED, arrows, figure, save
from refscore.sampling.compose import First, Stay
from refscore.sampling.loop import last
from refscore.training.optim import WarmupCosine
from refscore_backends import get

KEPT = Path(tempfile.gettempdir()) / "refscore-chapter05"


def pipeline(path: Path = HERE / "05-pipeline.svg", half: float = 9.0) -> str:
    """Samples, the field that sliced score matching learns from them, and where Langevin dynamics along it ends."""
    rng, box = np.random.default_rng(0), (-half, half, -half, half)
    data = mixture("two-modes").sample(rng, 3000)
    model = ScoreModel(MLP((2, 64, 64, 2), activation=Softplus()), VE(), data_std=math.sqrt(26), predict="score")
    adam, seen = Adam(WarmupCosine(3e-3, 3000)), data.astype("float32")
    state = last(fit(model, Sliced(), seen, adam, rng, steps=3000, batch=128))
    score = model.bind(state.theta)
    start = rng.uniform(-8, 8, (3000, 2)).astype("float32")
    walk = First(Langevin(lambda x, t: score(x, 0.0), 0.05), Stay())
    made = last(simulate(walk, start, uniform_times(1000), rng))
    fig, (axes,) = figure(3, size=3.6)
    for ax, x, title in ((axes[0], data, "1. samples of p"), (axes[2], made, "3. Langevin along it")):
        ax.scatter(*x.T, s=2, color=EXACT if x is data else LEARNED, alpha=0.5, linewidths=0, rasterized=True)
        ax.set(title=f"{title}: {np.mean(x.sum(axis=1) > 0):.2f} above right")
    axes[1].scatter(*data.T, s=2, color=EXACT, alpha=0.2, linewidths=0, rasterized=True)
    arrows(axes[1], lambda x: score(x.astype("float32"), 0.0), box, 6.0, INK, n=17)
    axes[1].set(title="2. the learned field (arrows cut at 6)")
    for ax in axes:
        ax.set(xlim=box[:2], ylim=box[2:], aspect="equal", xlabel="$x_1$")
    axes[0].set(ylabel="$x_2$")
    return save(fig, path)


if __name__ == "__main__":
    print(pipeline())
    KEPT.mkdir(exist_ok=True)
    results = measure(KEPT, range(3), 10_000, get("numpy"))
    for claim in song_ermon_2019(results):
        print(f"{claim.where}: {claim.measured}")
    print("weights after learned scores:", [(d.weight, d.weight_annealed) for d in results.density])
    drawn = {"manifold.svg": draw_manifold, "density.svg": draw_density, "weights.png": draw_weights}
    for name, draw in drawn.items():
        print(save(draw(results), HERE / f"05-{name}"))
