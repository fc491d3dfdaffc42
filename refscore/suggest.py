"""Which noise levels do my data need? Techniques of Song and Ermon 2020 (NCSNv2), with reasons. Chapter 6."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from array_api_compat import array_namespace, device
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr

from refscore.arrays import SDE, Array, check_data, check_positive
from refscore.schedules import geometric_levels

RATIO_CAP = 1.5
NUMBERS = 4e8  # differences of coordinates that are looked at: seconds
LEAST_ROWS = 16  # however many numbers that takes


@dataclass(frozen=True)
class Suggestion:
    """A ladder of noise levels and how to walk it; `print` it for the reasons."""

    levels: tuple[float, ...]  # σ₁ > ... > σ_L
    ratio: float  # γ = σ_i/σ_{i+1}
    moves: int  # Langevin steps a level, T
    step: float  # ε at the last level, for x + ε s + √(2ε) z
    excess: float  # variance of the noise over σ² when a level is left, where data are thin: `ladder_excess`
    ema: float
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.reasons)


def suggest_schedule(data: Array, budget: int = 1000, smallest: float | None = None) -> Suggestion:
    """Levels, steps and averaging for data (N, ...), after Song and Ermon 2020, Techniques 1, 2, 4 and 5.

    Technique 3, to let one network serve all levels by dividing its output by σ, is `ScoreModel`'s default. Technique 4
    is applied to the whole ladder (`ladder_excess`), not to one level begun from the exact law of the one before.

    Parameters
    ----------
    data : Array (N, ...), N >= 2
        Where all N² distances would take more than seconds, those of evenly chosen rows (at least 16) from all others.
        The largest distance is then found up to a factor of 2 at worst.
    budget : int
        Evaluations of the score that a sample may cost: levels times moves.
    smallest : float, optional
        σ_L; by default the median distance of a point from its nearest neighbour. With less noise than that the law of
        the noised data falls apart into single points, and there is nothing to learn but the points.

    Raises
    ------
    TypeError
        For data that are not floats.
    ValueError
        For data with NaN or infinity, of fewer than two rows, or of rows that are all the same; for a budget that is no
        integer or below the number of levels; unless 0 < smallest < the largest distance.
    """
    check_data("data", data)
    if not isinstance(budget, int):
        raise ValueError(f"budget must be an integer, got {budget!r}")
    nearest, largest = _distances(data)
    if largest == 0:
        raise ValueError("all rows of data are the same: there is no distance to bridge")
    if smallest is None:
        smallest = nearest
        if smallest == 0:
            raise ValueError(
                "most rows of data have an equal twin, so their distance does not tell a smallest level: give one"
            )
    if not 0 < smallest < largest:
        raise ValueError(
            f"smallest must lie between 0 and the largest distance of two points, {largest}; got {smallest}"
        )
    D = math.prod(data.shape[1:])
    wanted = overlap_ratio(D)
    L = max(2, 1 + math.ceil(math.log(largest / smallest) / math.log(min(wanted, RATIO_CAP))))
    ratio = (largest / smallest) ** (1 / (L - 1))
    if budget < L:
        raise ValueError(f"a budget of {budget} evaluations is less than one for each of the {L} levels")
    T = budget // L
    fraction, excess = best_step(ratio, T, ladder_excess)
    solved = f"is one half at {wanted:.3g}" if wanted < math.inf else "is above one half at any ratio"
    capped = "" if wanted <= RATIO_CAP else f" (at most {RATIO_CAP}: in {D} dimensions the overlap {solved})"
    reasons = (
        f"largest level {largest:.4g}: the largest distance of two points, to go from any to any (technique 1)",
        f"smallest level {smallest:.4g}: what is finer than this is lost",
        f"{L} levels, ratio {ratio:.4g}: typical points of one level are typical of the next{capped} (technique 2)",
        f"{T} moves a level: the budget of {budget} evaluations (technique 4)",
        f"step {fraction * smallest**2:.4g} = {fraction:.4g} σ_L²: where data are thin, each level ends with noise of "
        f"variance {excess:.4g} σ², the least that {T} moves can do (technique 4, along the ladder)",
        "moving average of the parameters, decay 0.999 (technique 5)",
    )
    return Suggestion(geometric_levels(largest, smallest, L), ratio, T, fraction * smallest**2, excess, 0.999, reasons)


def prior_mismatch_bound(sde: SDE, data: Array) -> float:
    """A bound of KL(p_1 ‖ prior) in nats, E_x₀ KL(N(α x₀, σ² I) ‖ N(0, prior_std² I)).                   Eq. (7.13).

    What a sampler gets wrong by starting at the prior; look at it before training. It asks for E‖x₀‖² alone; it is the
    divergence (`distance.prior_mismatch`) and the mutual information of x₀ and x₁.
    """
    check_data("data", data)
    D = math.prod(data.shape[1:])
    ratio = (sde.sigma(1.0) / sde.prior_std) ** 2
    shift = (sde.alpha(1.0) / sde.prior_std) ** 2 * _mean_square(data)
    return float(0.5 * (shift + D * (ratio - 1 - math.log(ratio))))


def suggest_sigma_max(data: Array, nats: float = 0.01) -> float:
    """σ(1) of a variance-exploding SDE whose mismatch with its prior is bounded by so many nats: √(E‖x‖²/2 nats).

    Eq. (7.14). For the geometric `VE`, σ(1)² = sigma_max² - sigma_min². Data about their mean need the least.

    Raises
    ------
    ValueError
        Unless 0 < nats < ∞; for data that are all zero, where any σ would do.
    """
    check_data("data", data)
    check_positive(nats=nats)
    square = _mean_square(data)
    if square == 0:
        raise ValueError("all data are zero: any sigma_max will do")
    return math.sqrt(0.5 * square / nats)


def suggest_beta_max(data: Array, nats: float = 0.01, beta_min: float = 0.1) -> float:
    """β_max of `VP` whose mismatch with N(0, I) is bounded by so many nats, at least β_min       Eq. (7.14).

    β_max = 2B - β_min, with B solving ½ [e⁻ᴮ E‖x‖² - D (e⁻ᴮ + log(1 - e⁻ᴮ))] = nats. The second term is about
    D e⁻²ᴮ/4: without it B = log(E‖x‖²/2 nats), and that is what B tends to where nats are few.

    Raises
    ------
    ValueError
        Unless nats and beta_min are positive and finite.
    """
    check_data("data", data)
    check_positive(nats=nats, beta_min=beta_min)
    square, D = _mean_square(data), float(math.prod(data.shape[1:]))

    def excess(B: float) -> float:  # falls with B
        left = math.exp(-B)
        return 0.5 * (left * square - D * (left + math.log(-math.expm1(-B)))) - nats

    if excess(beta_min) <= 0:
        return beta_min
    return 2 * float(brentq(excess, beta_min, beta_min + 800.0, xtol=1e-14)) - beta_min  # e⁻⁸⁰⁰ is 0


def _mean_square(data: Array) -> float:
    xp = array_namespace(data)
    return float(xp.sum(data * data) / data.shape[0])


def overlap(ratio: float, dim: int) -> float:
    """Φ(√(2D)(γ - 1) + 3γ) - Φ(√(2D)(γ - 1) - 3γ): how much of one level is typical of the next    Eq. (6.12).

    In high dimension a Gaussian N(0, σ² I) lives on a shell, ‖x‖ normal about √D σ with deviation σ/√2; this is the
    share of the smaller noise that is within three deviations of the larger one's shell (Song and Ermon 2020).
    """
    shift = math.sqrt(2 * dim) * (ratio - 1)
    return float(ndtr(shift + 3 * ratio) - ndtr(shift - 3 * ratio))


def overlap_ratio(dim: int) -> float:
    """γ with overlap ½; infinity in D <= 4, where the overlap never falls that low."""
    if dim < 1:
        raise ValueError(f"dim must be at least 1, got {dim}")
    if math.sqrt(2 * dim) <= 3:  # then the lower bound √(2D)(γ - 1) - 3γ falls with γ
        return math.inf
    # The lower bound reaches 0, and the overlap ½, at γ = √(2D)/(√(2D) - 3), but for what the upper end lacks.
    root = math.sqrt(2 * dim) / (math.sqrt(2 * dim) - 3)
    return float(brentq(lambda ratio: overlap(ratio, dim) - 0.5, 1.0, 1.1 * root))


def level_excess(fraction: float, ratio: float, moves: int) -> float:
    """Variance of the noise over σ² after one level begun with γ²σ²: (1 - η)²ᵀ (γ² - c) + c        Eq. (6.13).

    η = ε/σ² is the `fraction`, T the number of moves, c = 1/(1 - η/2): Langevin dynamics on N(0, σ²) from N(0, γ²σ²),
    as if the level before had been left exactly (Song and Ermon 2020, Technique 4).
    """
    c = 1 / (1 - fraction / 2)
    return float((1 - fraction) ** (2 * moves) * (ratio**2 - c) + c)


def ladder_excess(fraction: float, ratio: float, moves: int) -> float:
    """The excess that many levels settle at, each begun with that of the one before: c (1 - a)/(1 - γ² a)  Eq. (6.14).

    a = (1 - η)²ᵀ; it solves v = a (γ² v - c) + c. From γ² a = 1 on there is no such v: the noise falls behind the
    levels more and more, and the answer is infinity.
    """
    a, c = (1 - fraction) ** (2 * moves), 1 / (1 - fraction / 2)
    return c * (1 - a) / (1 - ratio**2 * a) if ratio**2 * a < 1 else math.inf


def best_step(
    ratio: float, moves: int, excess: Callable[[float, float, int], float] = level_excess
) -> tuple[float, float]:
    """The fraction η = ε/σ² that makes the excess least, and that least value: never 1, always above.

    `level_excess` (default) is technique 4 as published; `ladder_excess` is the same for a whole ladder.

    Raises
    ------
    ValueError
        Unless ratio > 1 and moves >= 1.
    """
    if not 1 < ratio < math.inf or moves < 1:
        raise ValueError(f"need ratio > 1 and moves >= 1, got {ratio}, {moves}")
    least = 1 - ratio ** (-1 / moves)  # below it the noise falls more slowly than the levels
    found = minimize_scalar(
        lambda e: excess(e, ratio, moves), bounds=(least, 1.0), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.x), float(found.fun)


def _distances(data: Array) -> tuple[float, float]:
    """Median distance to the nearest neighbour, and the largest of all; some rows against all where there are many."""
    xp = array_namespace(data)
    rows = xp.reshape(data, (data.shape[0], -1))
    N, D = rows.shape
    if N < 2:
        raise ValueError("data must hold at least two rows: distances between points are asked for")
    count = min(N, max(LEAST_ROWS, int(NUMBERS / (N * D))))
    index, nearest, farthest = xp.arange(N, device=device(data)), [], []
    for i in (j * N // count for j in range(count)):
        d = xp.sqrt(xp.sum((rows - rows[i : i + 1, :]) ** 2, axis=1))
        nearest.append(xp.min(xp.where(index == i, math.inf, d)))
        farthest.append(xp.max(d))
    middle = xp.sort(xp.stack(nearest))[(count - 1) // 2 : count // 2 + 1]  # one, or two whose mean is the median
    return float(xp.mean(middle)), float(xp.max(xp.stack(farthest)))
