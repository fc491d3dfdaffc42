"""When training passes from learning the law to learning the points, as a function of a seed. Chapter 15.

Data of a mixture have two exact scores: s* of the law they were drawn from, and ŝ of the points themselves. The loss on
fresh samples is its floor and the distance to s*, the loss on the N points theirs and the distance to ŝ, Eq. (15.9).
Both distances can be computed at any step, without the noise of a loss.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore.laws.empirical import empirical
from refscore.laws.examples import mixture
from refscore.laws.mixture import GaussianMixture
from refscore.matching.base import noised
from refscore.matching.denoising import Denoising
from refscore.matching.times import UniformLogSNR
from refscore.matching.weights import g_squared
from refscore.measure.neighbours import Memorised, memorised
from refscore.nn.mlp import MLP
from refscore.nn.score_model import ScoreModel
from refscore.noise.exact_score import ExactScore
from refscore.noise.grids import log_snr_times
from refscore.noise.prior import prior
from refscore.noise.reverse import Reverse, denoise
from refscore.noise.sde import VP
from refscore.protocols import Score
from refscore.sampling.loop import last, simulate
from refscore.sampling.solvers import Heun
from refscore.training.loop import fit
from refscore.training.optim import Adam, WarmupCosine

Array = Any
SDE, T_MIN = VP(), 1e-2
OBJECTIVE = Denoising(weight=g_squared, times=UniformLogSNR(T_MIN), antithetic=True)


@dataclass(frozen=True, eq=False)
class Course:
    """How far a score is from the law and from the points, as excess losses, in the course of training on N points."""

    steps: Array  # (rows,)
    truth: Array  # (rows,) E λ ½‖s - s*‖² on fresh noised data: the loss there, less its floor
    memory: Array  # (rows,) E λ ½‖s - ŝ‖² on the noised points: the training loss, less its floor
    truth_of_memory: float  # of ŝ: what complete memory costs on fresh data
    memory_of_truth: float  # of s*: what knowing the law costs on the points
    copies: Memorised  # samples of the last score

    @property
    def best(self) -> int:
        """The step at which the score was nearest to the truth."""
        return int(self.steps[np.argmin(self.truth)])

    @property
    def crossing(self) -> float:
        """The first step at which the training loss is less than that of the true score; infinite if it never is."""
        below = self.memory < self.memory_of_truth
        return float(self.steps[np.argmax(below)]) if below.any() else np.inf


def course(
    seed: int, n: int, steps: int = 6000, rows: int = 24, width: int = 96, batch: int = 256, name: str = "tilted",
    draws: int = 4096,
) -> Course:  # fmt: skip
    """Train on n points of a mixture, and look at both distances at steps that grow as a geometric series."""
    law, rng = mixture(name), np.random.default_rng([seed, n])
    points: Array = law.sample(rng, n)
    seen = np.unique(np.geomspace(30, steps, rows).astype(int))
    model = ScoreModel(MLP((2, width, width, width, 2), embed=32), SDE, data_std=2.0)
    truth, memory = Away(law, rng, draws), Away(empirical(points), rng, draws)
    found: list[tuple[float, float]] = []
    theta: Array = None
    adam = Adam(WarmupCosine(3e-3, steps, warmup=min(100, steps - 1), end=3e-5))
    for state in fit(model, OBJECTIVE, points.astype("float32"), adam, rng, steps=steps, batch=batch, max_norm=100.0):
        theta = state.theta
        if state.step in seen:
            score = model.bind(theta)
            found.append((truth(score), memory(score)))
    to_truth, to_memory = np.array(found).T
    samples = drawn(model.bind(theta), rng, 500)
    return Course(
        seen, to_truth, to_memory, truth(ExactScore(memory.law, SDE)), memory(ExactScore(law, SDE)),
        memorised(samples, points, law.sample(rng, 999), level=0.1),
    )  # fmt: skip


def drawn(score: Score, rng: Any, n: int) -> Array:
    """Samples of the flow, in float64."""
    times = log_snr_times(SDE, 48, T_MIN)
    x = last(simulate(Heun(Reverse(SDE, score, 0.0).drift), prior(SDE, (n, 2), rng, "float32"), times, rng))
    return np.asarray(denoise(score, SDE, x, T_MIN), dtype="float64")


def stopping(
    seed: int, n: int, steps: int = 2000, rows: int = 8, width: int = 64, batch: int = 128, count: int = 200
) -> tuple[Array, Array, Array]:
    """Steps; the share of copies among samples at each; the distance from the truth. By chance 0.1 are copies."""
    law, rng = mixture("tilted"), np.random.default_rng([seed, n])
    points: Array = law.sample(rng, n)
    held_out = law.sample(rng, 999)
    seen = np.unique(np.geomspace(50, steps, rows).astype(int))
    model, truth = ScoreModel(MLP((2, width, width, width, 2), embed=32), SDE, data_std=2.0), Away(law, rng, 2048)
    adam, found = Adam(WarmupCosine(3e-3, steps, warmup=min(100, steps - 1), end=3e-5)), []
    for state in fit(model, OBJECTIVE, points.astype("float32"), adam, rng, steps=steps, batch=batch, max_norm=100.0):
        if state.step in seen:
            score = model.bind(state.theta)
            copies = memorised(drawn(score, rng, count), points, held_out, level=0.1)
            found.append((copies.share.value, truth(score)))
    share, away = np.array(found).T
    return seen, share, away


class Away:
    """The distance of a score from that of a mixture, always at the same noised samples of the mixture."""

    def __init__(self, law: GaussianMixture, rng: Any, draws: int) -> None:
        self.law, x0 = law, law.sample(rng, draws)
        self.t, z, factor = OBJECTIVE.draw(SDE, x0, rng)
        x: Array = noised(SDE, x0, self.t, z)
        self.weight, self.exact = 0.5 * factor * g_squared(SDE, self.t), ExactScore(law, SDE)(x, self.t)
        self.x = x

    def __call__(self, score: Score) -> float:
        """E λ ½‖s - exact‖²."""
        s = score(self.x.astype("float32"), np.asarray(self.t, dtype="float32"))
        return float(np.mean(self.weight * np.sum((s - self.exact) ** 2, axis=1)))
