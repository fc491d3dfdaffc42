"""What a seed of the reproduction might measure."""

from typing import Any

import numpy as np

from refscore.experiments import song_ermon_2019
from refscore.experiments.failures import LowDensity, Weights, manifold_floor


def fake(good: bool = True) -> tuple[Any, Any, LowDensity, Weights]:
    """What a seed might measure: as published, or not."""
    fall = np.linspace(0, -2e4 if good else -1e-9, 60) - 10
    floor = manifold_floor(song_ermon_2019.NOISE)
    deciles = np.array([0.3] * 9 + [1e-4]) if good else np.full(10, 0.3)
    density = LowDensity(
        deciles, np.full(10, 1e-3), np.full(5, 0.3), np.full(12, 0.01 if good else 0.2), 0.6, 0.78, np.zeros((60, 60))
    )
    samples = np.random.default_rng(0).standard_normal((1300, 2))
    w = Weights(0.51 if good else 0.8, 0.78 if good else 0.6, 0.509, 0.782, 0.0035, samples, samples)
    return fall, np.full(60, floor if good else 0.5 * floor), density, w
