"""The figures of chapter 5: python docs/figures/chapter05.py

05-manifold.png  the sliced score matching loss on a circle, without noise and with it
05-density.png   the error of a learned score by place, by density, and on the way of a sampler
05-weights.png   samples with the exact score: plain and annealed Langevin dynamics

The same as `refscore reproduce song-ermon-2019`: about a minute a seed; what is measured is kept, and found again.
"""

import tempfile
from pathlib import Path

from where import HERE

from refscore.plots import save
from refscore.reproduce import draw_density, draw_manifold, draw_weights, measure, song_ermon_2019

KEPT = Path(tempfile.gettempdir()) / "refscore-chapter05"

if __name__ == "__main__":
    KEPT.mkdir(exist_ok=True)
    results = measure(KEPT, range(3), 10_000)
    for claim in song_ermon_2019(results):
        print(f"{claim.where}: {claim.measured}")
    print("weights after learned scores:", [(d.weight, d.weight_annealed) for d in results.density])
    for name, draw in (("manifold", draw_manifold), ("density", draw_density), ("weights", draw_weights)):
        print(save(draw(results), HERE / f"05-{name}.png"))
