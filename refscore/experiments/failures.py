"""The three failures of vanilla score matching, and the cure, as numbers against the exact law. Chapter 5.

Each experiment is a function of a seed that returns arrays; chapter 5 draws them, `refscore reproduce` judges them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from refscore.arrays import as_array, constant, long_sum, row_squares
from refscore.laws.examples import mixture
from refscore.laws.grid_chain import GridLaw, grid_law, langevin_law
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace
from refscore.matching.denoising import Denoising
from refscore.matching.objectives import Sliced
from refscore.matching.probes import gaussian
from refscore.matching.times import FixedTime, Levels
from refscore.nn.activation import Softplus
from refscore.nn.mlp import MLP
from refscore.nn.score_model import ScoreModel
from refscore.noise.exact_score import ExactScore
from refscore.noise.grids import geometric_levels, level_times, uniform_times
from refscore.noise.sde import VE
from refscore.protocols import Objective, Score
from refscore.sampling.compose import AnnealedLangevin, First, Stay
from refscore.sampling.langevin import Langevin, LevelStep
from refscore.sampling.loop import last, simulate
from refscore.training.loop import fit
from refscore.training.optim import EMA, Adam, WarmupCosine
from refscore_backends import Backend, get
from refscore_backends.base import host_noise

Array = Any
Show = Callable[[int, str], None]  # step, words: a progress bar
SDE_TOY = VE(0.01, 25.0)
BOX = 8.0  # Song and Ermon 2019 look at [-8, 8]², and start there


# ------------------------------------------------------------------ 1. data on a manifold


@dataclass(frozen=True)
class Circle:
    """Points on the circle of radius 1 in the plane: a law without a density, and so without a score."""

    def sample(self, rng: Any, n: int) -> Array:
        """n points (n, 2), float32."""
        angle = 2 * math.pi * rng.random((n,), dtype="float32")
        xp = array_namespace(angle)
        return xp.stack([xp.cos(angle), xp.sin(angle)], axis=1)


def thick_circle(thickness: float) -> GaussianMixture:
    """The circle with noise: with components half a thickness apart a smooth ring, to exp(-8π²/r) at radius r."""
    n = max(16, math.ceil(4 * math.pi / thickness))
    angle = 2 * math.pi * np.arange(n) / n
    means = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return GaussianMixture(np.full(n, 1 / n), means, np.full(n, thickness**2))


def ring_fisher_information(thickness: float) -> float:
    """E‖s‖² of the noisy circle, along one ray: the law looks the same from every angle."""
    p: Any = thick_circle(thickness)
    r = np.arange(max(1e-9, 1 - 9 * thickness), 1 + 9 * thickness, thickness / 20)
    x = np.stack([r, np.zeros_like(r)], axis=1)
    mass = np.exp(p.log_prob(x)) * r
    return float(mass @ np.sum(p.score(x) ** 2, axis=1) / mass.sum())


def manifold_curve(noise: float, steps: int, seed: int, show: Show, backend: Backend | None = None) -> Array:
    """The sliced score matching loss, in 60 means, on the circle with this much noise; 0.0 is none."""
    backend = backend or get("numpy")
    model = ScoreModel(MLP((2, 64, 64, 2)), SDE_TOY, data_std=math.sqrt(0.5), predict="score")
    objective = Sliced(times=FixedTime(float(SDE_TOY.time(noise))))
    return _train(model, objective, Circle(), steps, 256, seed, show, backend)[1]


def manifold_floor(noise: float) -> float:
    """The least that this loss can be in expectation: -½ E‖s‖²."""
    return -0.5 * ring_fisher_information(noise)


# ------------------------------------------------------------------ 2. regions of low density


@dataclass(frozen=True)
class LowDensity:
    """Relative errors of learned scores: by tenths of the box, the least dense first, and on the way of a sampler."""

    deciles: Array  # (10,) learned from the data as they are
    deciles_noised: Array  # (10,) the same places, at the largest noise level of the cure
    walk: Array  # (5,) plain Langevin from the box, after `WALK` steps
    walk_annealed: Array  # (levels,) annealed Langevin from the box, after each level
    weight: float  # of the major mode, in plain Langevin's last sample
    weight_annealed: float
    errors: Array  # (n, n) log10 ‖s - s*‖²/‖s*‖² over the box, learned from the data as they are


WALK = (0, 1, 10, 100, 1000)
LEVELS = geometric_levels(20.0, 0.2, 12)


def low_density(
    steps: int, seed: int, show: Show, n: int = 60, chains: int = 2000, backend: Backend | None = None
) -> LowDensity:
    """Learn the score of ⅘ N((5, 5), I) + ⅕ N((-5, -5), I) without noise, and with noise at many levels."""
    backend = backend or get("numpy")
    move, host = backend.asarray, backend.to_numpy
    p, data = mixture("two-modes", move), mixture("two-modes", move, "float32")
    exact, sde = ExactScore(p, SDE_TOY), SDE_TOY
    vanilla = ScoreModel(MLP((2, 128, 128, 2), activation=Softplus()), sde, data_std=5.1, predict="score")
    theta, _ = _train(vanilla, Sliced(law=gaussian), data, steps, 128, seed, show, backend)
    cured = ScoreModel(MLP((2, 128, 128, 2), embed=16), sde, data_std=5.1)
    theta_cured, _ = _train(
        cured, Denoising(times=Levels(LEVELS)), data, steps, 128, seed, lambda i, w: show(steps + i, w), backend
    )
    plain, many = (_double(score) for score in (vanilla.bind(theta), cured.bind(theta_cured)))

    axis = BOX * ((np.arange(n) + 0.5) / n * 2 - 1)
    box = move(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2))
    order, top = np.argsort(host(p.log_prob(box))), float(sde.time(LEVELS[0]))
    off, size = map(host, _squares(plain, exact, box, 0.0))
    noised_off, noised_size = map(host, _squares(many, exact, box, top))
    tenths = np.array_split(order, 10)

    rng = host_noise([seed, 1], backend)
    start = 2 * BOX * rng.random((chains, 2)) - BOX
    walk = First(Langevin(lambda x, t: plain(x, 0.0), 0.05), Stay())
    states: list[Any] = [start, *simulate(walk, start, uniform_times(WALK[-1]), rng)]
    times = level_times(sde, LEVELS)
    annealed = AnnealedLangevin(many, sde, step=0.1 * LEVELS[-1] ** 2, last=LEVELS[-1], moves=100)
    ends: list[Any] = list(simulate(annealed, start, times, rng))
    return LowDensity(
        np.array([off[i].sum() / size[i].sum() for i in tenths]),
        np.array([noised_off[i].sum() / noised_size[i].sum() for i in tenths]),
        np.array([_relative(plain, exact, states[k], 0.0) for k in WALK]),
        np.array([_relative(many, exact, x, t) for x, t in zip(ends, times, strict=False)]),
        float(np.mean(host(states[-1]).sum(axis=1) > 0)),
        float(np.mean(host(ends[-1]).sum(axis=1) > 0)),
        np.log10(off / size).reshape(n, n),
    )


# ------------------------------------------------------------------ 3. weights of modes


@dataclass(frozen=True)
class Weights:
    """The weight of the major mode in samples made with the exact score, and in the law of the same chain."""

    plain: float
    annealed: float
    plain_law: float
    annealed_law: float
    error: float  # of the first two: the standard error is at most this
    plain_samples: Array  # (chains, 2)
    annealed_samples: Array


TOY_LEVELS = geometric_levels(20.0, 1.0, 10)


def weights(seed: int, chains: int = 20_000, moves: int = 100, backend: Backend | None = None) -> Weights:
    """Song and Ermon 2019, Figure 3: exact scores, 1000 steps of ε = 0.05 (theirs is 0.1 in name), from the box.

    Their noised laws have components of standard deviation σ, from 20 down to 1, where it is the mixture itself: two
    points with noise added.
    """
    backend = backend or get("numpy")
    rng = host_noise(seed, backend)
    start = 2 * BOX * rng.random((chains, 2)) - BOX
    p, sde = mixture("two-modes", backend.asarray), SDE_TOY
    points = GaussianMixture(p.weights, p.means, constant(0.0, p.weights))
    step = First(Langevin(lambda x, t: p.score(x), 0.05), Stay())
    plain: Any = last(simulate(step, start, uniform_times(len(TOY_LEVELS) * moves), rng))
    sampler = AnnealedLangevin(ExactScore(points, sde), sde, step=0.05, last=TOY_LEVELS[-1], moves=moves)
    annealed: Any = last(simulate(sampler, start, level_times(sde, TOY_LEVELS), rng))
    plain, annealed = map(backend.to_numpy, (plain, annealed))
    share = [float(np.mean(x.sum(axis=1) > 0)) for x in (plain, annealed)]
    plain_law, annealed_law = weights_law(moves)
    return Weights(share[0], share[1], plain_law, annealed_law, 0.5 / math.sqrt(chains), plain, annealed)


def weights_law(moves: int) -> tuple[float, float]:
    """The same two weights without sampling.

    The components are round, so along the diagonal, u = (x₁ + x₂)/√2, the chain is one of its own: modes at ±√50, and
    the box seen from the side, a triangle.
    """
    reach, sde = math.sqrt(50.0), SDE_TOY
    p = mixture("two-modes")
    along = GaussianMixture(p.weights, np.array([[reach], [-reach]]), np.ones(2))
    points = GaussianMixture(p.weights, along.means, np.zeros(2))
    plain = langevin_law(
        diagonal_of_box(18.0, 720), lambda x, t: along.score(x), [0.0], lambda t: 0.05, len(TOY_LEVELS) * moves
    )
    exact, times = ExactScore(points, sde), level_times(sde, TOY_LEVELS)[:-1]
    annealed = langevin_law(diagonal_of_box(120.0, 1400), exact, times, LevelStep(sde, 0.05, TOY_LEVELS[-1]), moves)
    return plain.mean(lambda u: u > 0), annealed.mean(lambda u: u > 0)


def diagonal_of_box(half: float, cells: int) -> GridLaw:
    """The law of (x₁ + x₂)/√2 for a uniform point of [-8, 8]², on cells of [-half, half]."""
    edge = BOX * math.sqrt(2)

    def cdf(u: Array) -> Array:
        v = np.clip(u / edge, -1, 1)
        return 0.5 + v - 0.5 * v * np.abs(v)

    return grid_law(-half, half, cells, cdf)


# ------------------------------------------------------------------ inside


def _train(
    model: ScoreModel, objective: Objective, data: Any, steps: int, batch: int, seed: int, show: Show, backend: Backend
) -> tuple[Array, Array]:
    """Averaged parameters, and the loss in 60 means."""
    adam, ema = Adam(WarmupCosine(2e-3, steps, end=2e-5)), EMA(min(0.999, 1 - 20 / (steps + 20)))
    rng, losses = host_noise(seed, backend), []
    for state in fit(model, objective, data, adam, rng, steps=steps, batch=batch, ema=ema, max_norm=100.0):
        losses.append(state.loss)  # on the device: no waiting
        if state.step % max(1, steps // 60) == 0:
            show(state.step, f"loss {float(state.loss):.3g}")
    assert state.average is not None
    return ema.mean(state.average), np.array([np.mean(part) for part in np.array_split([*map(float, losses)], 60)])


def _double(score: Score) -> Score:
    """A float32 network for float64 samples."""

    def double(x: Array, t: Any) -> Array:
        xp = array_namespace(x)
        return xp.astype(score(xp.astype(x, xp.float32), xp.astype(as_array(t, x), xp.float32)), x.dtype)

    return double


def _squares(score: Score, exact: Score, x: Array, t: float) -> tuple[Array, Array]:
    """‖s - s*‖² and ‖s*‖² at each x (N, 2)."""
    truth = exact(x, t)
    return row_squares(score(x, t) - truth), row_squares(truth)


def _relative(score: Score, exact: Score, x: Array, t: float) -> float:
    off, size = (float(long_sum(part, 0)) for part in _squares(score, exact, x, t))
    return off / size
