"""Six generators, of which five are wrong, and what each measure says of them, as a function of a seed. Chapter 20."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refscore.laws.examples import mixture
from refscore.laws.mixture import GaussianMixture
from refscore.measure.coverage import coverage
from refscore.measure.distance import energy_distance, sliced_wasserstein
from refscore.measure.frechet import frechet_distance
from refscore.measure.kernels import mmd, stein_discrepancy
from refscore.measure.neighbours import memorised, two_sample_test

Array = Any
LAW = mixture("two-modes")  # ⅘ N((5, 5), I) + ⅕ N((-5, -5), I)
WIDTH = 2.0  # of both kernels


def generator(weights: list[float], shift: float = 0.0, std: float = 1.0) -> Callable[[Any, Array], Array]:
    """Draw as many points as it was trained on, from the law with other weights, another place or width."""
    law = GaussianMixture(np.array(weights), LAW.means + shift, std**2 * LAW.covariances)
    return lambda rng, training: law.sample(rng, len(training))


GENERATORS: dict[str, Callable[[Any, Array], Array]] = {
    "true": generator([0.8, 0.2]),
    "weights": generator([0.5, 0.5]),
    "missing": generator([1.0, 0.0]),
    "narrow": generator([0.8, 0.2], std=0.8),
    "shifted": generator([0.8, 0.2], shift=0.2),
    "copies": lambda rng, training: rng.permutation(training),
}


def judge(x: Array, fresh: Array, training: Array, rng: Any) -> dict[str, float]:
    """What each measure says of samples x, beside as many fresh points of the law; the last one asks the training."""
    balls = coverage(x, fresh)
    return {
        "Fréchet": frechet_distance(x, fresh),
        "sliced": sliced_wasserstein(x, fresh, rng, 64) ** 2,
        "MMD": mmd(x, fresh, WIDTH).value,
        "energy": energy_distance(x, fresh).value,
        "Stein": stein_discrepancy(LAW.score, x, WIDTH).value,
        "classifier": two_sample_test(x, fresh).value,
        "precision": balls.precision,
        "recall": balls.recall,
        "coverage": balls.coverage,
        "memorised": memorised(x, training, fresh, level=0.1).share.value,
    }


def judged(name: str, seed: int, n: int) -> dict[str, float]:
    """Of one generator, with training and fresh points of its own."""
    rng = np.random.default_rng([seed, n, list(GENERATORS).index(name)])
    training, fresh = LAW.sample(rng, n), LAW.sample(rng, n)
    return judge(GENERATORS[name](rng, training), fresh, training, rng)


def power(n: int, runs: int, level: float = 0.05) -> dict[str, dict[str, float]]:
    """How often a measure is outside of what it is for the true generator, but for `level`: measure -> generator."""
    truth = [judged("true", seed, n) for seed in range(2 * runs)]
    bounds = {m: np.quantile([one[m] for one in truth[:runs]], [level / 2, 1 - level / 2]) for m in truth[0]}
    found = {name: [judged(name, seed, n) for seed in range(runs)] for name in GENERATORS if name != "true"}
    found = {"true": truth[runs:], **found}
    return {
        m: {name: float(np.mean([not low <= one[m] <= high for one in those])) for name, those in found.items()}
        for m, (low, high) in bounds.items()
    }
