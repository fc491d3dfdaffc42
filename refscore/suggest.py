"""Which noise levels do my data need? Techniques of Song and Ermon 2020 (NCSNv2), with reasons. Chapter 6."""

import math
from dataclasses import dataclass

from array_api_compat import array_namespace, device
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr

from refscore.arrays import Array, check_data
from refscore.schedules import geometric_levels

RATIO_CAP = 1.5
NUMBERS = 4e8  # differences of coordinates that are looked at, at most: seconds


@dataclass(frozen=True)
class Suggestion:
    """A ladder of noise levels and how to walk it; `print` it for the reasons."""

    levels: tuple[float, ...]  # σ₁ > ... > σ_L
    ratio: float  # γ = σ_i/σ_{i+1}
    moves: int  # Langevin steps a level, T
    step: float  # ε at the last level, for x + ε s + √(2ε) z
    excess: float  # variance of the noise over σ² when a level is left, in the theory of technique 4
    ema: float
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.reasons)


def suggest_schedule(data: Array, budget: int = 1000, smallest: float | None = None) -> Suggestion:
    """Levels, steps and averaging for data (N, ...), after Song and Ermon 2020, Techniques 1, 2, 4 and 5.

    (Technique 3, to let one network serve all levels by dividing its output by σ, is `ScoreModel`'s default.)

    Parameters
    ----------
    data : Array (N, ...), N >= 2
        Where all N² distances would take more than seconds, those of evenly chosen rows from all others.
    budget : int
        Evaluations of the score that a sample may cost: levels times moves.
    smallest : float, optional
        σ_L; by default the median distance of a point from its nearest neighbour. With less noise than that the law of
        the noised data falls apart into single points, and there is nothing to learn but the points.

    Raises
    ------
    ValueError
        For fewer than two rows, or rows that are all the same; for a budget below the number of levels; unless
        0 < smallest < the largest distance.
    """
    check_data("data", data)
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
    wanted, ratio = overlap_ratio(D), min(overlap_ratio(D), RATIO_CAP)
    L = 1 + math.ceil(math.log(largest / smallest) / math.log(ratio))
    L = max(L, 2)
    ratio = (largest / smallest) ** (1 / (L - 1))
    if budget < L:
        raise ValueError(f"a budget of {budget} evaluations is less than one for each of the {L} levels")
    T = budget // L
    fraction, excess = best_step(ratio, T)
    solved = (
        f"the overlap would be one half at {wanted:.3g}"
        if wanted < math.inf
        else "the overlap is above one half at any ratio"
    )
    solved = f"is one half at {wanted:.3g}" if wanted < math.inf else "is above one half at any ratio"
    capped = "" if wanted <= RATIO_CAP else f" (at most {RATIO_CAP}: in {D} dimensions the overlap {solved})"
    reasons = (
        f"largest level {largest:.4g}: the largest distance of two points, to go from any to any (technique 1)",
        f"smallest level {smallest:.4g}: what is finer than this is lost",
        f"{L} levels, ratio {ratio:.4g}: samples of one are typical points of the next{capped} (technique 2)",
        f"{T} moves a level: the budget of {budget} evaluations (technique 4)",
        f"step {fraction * smallest**2:.4g} = {fraction:.4g} σ_L²: in theory a level ends with {excess:.4g} σ², "
        f"the least that {T} moves can do (technique 4)",
        "moving average of the parameters, decay 0.999 (technique 5)",
    )
    return Suggestion(geometric_levels(largest, smallest, L), ratio, T, fraction * smallest**2, excess, 0.999, reasons)


def overlap(ratio: float, dim: int) -> float:
    """Φ(√(2D)(γ - 1) + 3γ) - Φ(√(2D)(γ - 1) - 3γ): how much of one level is typical of the next  Song and Ermon 2020.

    In high dimension a Gaussian N(0, σ² I) lives on the shell ‖x‖ ≈ √D σ of thickness σ/√2; this is the mass that the
    shell of the larger noise has within three deviations of the smaller one's.
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
    """Variance of the noise over σ² after `moves` steps of ε = fraction·σ², begun with that of the level before, γ²σ².

    (1 - e)²ᵀ (γ² - c) + c, c = 1/(1 - e/2): Langevin dynamics on N(0, σ²) from N(0, γ²σ²)
    """
    c = 1 / (1 - fraction / 2)
    return float((1 - fraction) ** (2 * moves) * (ratio**2 - c) + c)


def best_step(ratio: float, moves: int) -> tuple[float, float]:
    """The fraction e = ε/σ² that makes `level_excess` least, and that least value: never 1, always above."""
    found = minimize_scalar(
        lambda e: level_excess(e, ratio, moves), bounds=(1e-9, 1.0), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.x), float(found.fun)


def _distances(data: Array) -> tuple[float, float]:
    """Median distance to the nearest neighbour, and the largest of all; some rows against all where there are many."""
    xp = array_namespace(data)
    rows = xp.reshape(data, (data.shape[0], -1))
    N = rows.shape[0]
    if N < 2:
        raise ValueError("data must hold at least two rows: distances between points are asked for")
    looked = range(0, N, max(1, math.ceil(N * rows.shape[0] * rows.shape[1] / NUMBERS)))
    index, nearest, farthest = xp.arange(N, device=device(data)), [], []
    for i in looked:
        d = xp.sqrt(xp.sum((rows - rows[i : i + 1, :]) ** 2, axis=1))
        nearest.append(xp.min(xp.where(index == i, math.inf, d)))
        farthest.append(xp.max(d))
    return float(xp.sort(xp.stack(nearest))[len(looked) // 2]), float(xp.max(xp.stack(farthest)))
