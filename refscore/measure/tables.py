"""Tables against the truth: scores by noise level, samples, mode weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from refscore.arrays import per_sample
from refscore.checks import check_count, check_data, check_like, check_place, check_positive
from refscore.laws.expectation import Estimate
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace
from refscore.matching.denoising import Denoising
from refscore.measure.distance import mode_weights, score_error, sliced_wasserstein, sliced_wasserstein_floor
from refscore.noise.exact_score import ExactScore
from refscore.noise.grids import log_snr_times
from refscore.noise.prior import prior
from refscore.noise.reverse import Reverse
from refscore.protocols import SDE, Array, Rng, Score
from refscore.sampling.loop import last, simulate, watch
from refscore.sampling.solvers import Heun

LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


@dataclass(frozen=True)
class ScoreRow:
    """The relative score error E‖s - s*‖²/E‖s*‖² where noise over signal, σ/α, is `level`.

    Parameters
    ----------
    level : float
        σ/α.
    t : float
        The time at which that is the level.
    error : Estimate
        The error, see `score_error`.
    """

    level: float
    t: float
    error: Estimate


@dataclass(frozen=True)
class ModeRow:
    """The share of one component in samples, beside its weight in the mixture.

    Parameters
    ----------
    weight : float
        Weight of the component in the mixture.
    learned : Estimate
        Its share of the samples drawn with the learned score.
    exact : Estimate
        Its share of the samples drawn with the exact score.
    """

    weight: float
    learned: Estimate
    exact: Estimate


@dataclass(frozen=True)
class SampleTable:
    """Sliced Wasserstein distance to fresh data, beside the distance between two fresh samples.

    Parameters
    ----------
    learned : float
        Distance of the samples drawn with the learned score.
    exact : float
        Distance of the samples drawn with the exact score.
    floor : Estimate
        Distance between two fresh samples, see `sliced_wasserstein_floor`.
    modes : list of ModeRow
        The shares of the components.
    """

    learned: float
    exact: float
    floor: Estimate
    modes: list[ModeRow]


def score_table(
    score: Score, mixture: GaussianMixture, sde: SDE, rng: Rng, dtype: object,
    n: int = 20_000, levels: Sequence[float] = LEVELS,
) -> list[ScoreRow]:  # fmt: skip
    """The score error at several noise levels; levels beyond the end of the SDE are left out.

    Parameters
    ----------
    score : callable (x, t) -> (n, D)
        The score to be judged.
    mixture : GaussianMixture
        The law of the data.
    sde : SDE
        The SDE for which the score was made.
    rng : Rng
        Source of the samples.
    dtype : dtype
        In which the score is evaluated.
    n : int, default 20000
        Samples of p_t at each level.
    levels : sequence of float, default `LEVELS`
        The levels σ/α.

    Returns
    -------
    list of ScoreRow
        One row a level.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde, mixture=mixture, rng=rng)
    exact = ExactScore(mixture, sde)
    rows = []
    for level in levels:
        check_positive(levels=level)
        t = float(sde.time_at_log_ratio(math.log(level)))
        if t <= 1:
            z = rng.standard_normal((n, mixture.dim), dtype=mixture.means.dtype)
            x = sde.alpha(t) * mixture.sample(rng, n) + sde.sigma(t) * z
            rows.append(ScoreRow(level, t, score_error(score, exact, _cast(x, dtype), t)))
    return rows


def excess_loss(
    score: Score, mixture: GaussianMixture, sde: SDE, objective: Denoising, rng: Rng, dtype: object, n: int = 50_000
) -> Estimate:
    """E_t λ(t) ½ E‖s - s*‖², by Monte Carlo: how much `objective` lies above its floor.

    The score is compared with the exact score instead of the noise, so the result is free of the floor's own variance,
    which buries the excess in any training curve. With λ = g², (1 - t_min) times it plus KL(p₁ ‖ prior) bounds, in
    nats, KL(p_{t_min} ‖ law of the reverse SDE, lam = 1, with this score) (arXiv 2101.09258, Theorem 1). The law
    of the probability flow has no such bound, its divergence can be larger.

    Parameters
    ----------
    score, mixture, sde : see `score_table`
    objective : Denoising
        Its weight λ and its law of the times are used.
    rng, dtype : see `score_table`
    n : int, default 50000
        Monte Carlo samples.

    Returns
    -------
    Estimate
        The excess and its standard error, in the units of the loss.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde, mixture=mixture, rng=rng)
    if not isinstance(objective, Denoising):
        raise TypeError(f"objective must be something like Denoising(), got {objective!r}")
    n = check_count("n", n, 2)
    x0, z = mixture.sample(rng, n), rng.standard_normal((n, mixture.dim), dtype=mixture.means.dtype)
    t, factor = objective.times.at(sde, rng.random((n,), dtype=mixture.means.dtype))
    x = per_sample(sde.alpha(t), x0) * x0 + per_sample(sde.sigma(t), x0) * z
    xp = array_namespace(x)
    truth = ExactScore(mixture, sde)(x, t)
    off = xp.astype(score(_cast(x, dtype), _cast(t, dtype)), truth.dtype) - truth
    losses = 0.5 * factor * objective.weight(sde, t) * xp.sum(off * off, axis=1)
    return Estimate(float(xp.mean(losses)), float(xp.std(losses)) / math.sqrt(n))


def sample_table(learned: Array, exact: Array, mixture: GaussianMixture, rng: Rng) -> SampleTable:
    """Distances and shares of samples drawn with the learned and with the exact score.

    Parameters
    ----------
    learned, exact : Array, shape (N, D)
        Samples drawn with the learned and with the exact score.
    mixture : GaussianMixture
        The law of the data.
    rng : Rng
        Source of the fresh data and of the directions.

    Returns
    -------
    SampleTable
        Distances beside their floor, and the shares of the components.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(mixture=mixture, rng=rng)
    for name, x in (("learned", learned), ("exact", exact)):
        check_data(name, x)
        check_place(mixture.means, **{name: x})
    learned, exact = (_cast(x, mixture.means.dtype) for x in (learned, exact))
    fresh = mixture.sample(rng, learned.shape[0])
    modes = [
        ModeRow(float(mixture.weights[k]), of_learned, of_exact)
        for k, (of_learned, of_exact) in enumerate(
            zip(mode_weights(mixture, learned), mode_weights(mixture, exact), strict=True)
        )
    ]
    return SampleTable(
        sliced_wasserstein(learned, fresh, rng),
        sliced_wasserstein(exact, fresh, rng),
        sliced_wasserstein_floor(mixture, learned.shape[0], rng),
        modes,
    )


def flow_samples(score: Score, sde: SDE, n: int, dim: int, rng: Rng, dtype: object, steps: int = 64) -> Array:
    """Samples by Heun's method on the probability flow, in steps equal in log SNR.

    Parameters
    ----------
    score : callable (x, t) -> (n, dim)
        The score of the model.
    sde : SDE
        The SDE for which the score was made.
    n, dim : int
        Number of samples, and of their coordinates.
    rng : Rng
        Source of the start at t = 1.
    dtype : dtype
        Of the samples.
    steps : int, default 64
        Number of steps, each of two evaluations.

    Returns
    -------
    Array, shape (n, dim)
        The samples, at the last time of the grid.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(rng=rng)
    times = log_snr_times(sde, steps)
    x = prior(sde, (n, dim), rng, dtype)
    return last(watch(simulate(Heun(Reverse(sde, score, lam=0.0).drift), x, times, rng), times, every=16))


def _cast(x: Array, dtype: object) -> Array:
    return array_namespace(x).astype(x, dtype)
