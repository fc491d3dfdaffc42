"""Which noise levels do my data need? Techniques of Song and Ermon 2020 (NCSNv2), with reasons. Chapter 6."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.special import ndtr

from refscore.checks import (
    check_count,
    check_data,
    check_like,
    check_number,
    check_positive,
    check_range,
    is_number,
)
from refscore.library import array_namespace, device
from refscore.noise.grids import check_levels, geometric_levels
from refscore.protocols import Array

RATIO_CAP = 1.5
BLUR = 0.1  # the last noise, as a share of the deviation of the data about a point: 1 % of their variance
NUMBERS = 4e8  # differences of coordinates that are looked at: seconds
LEAST_ROWS = 16  # however many numbers that takes
DIRECTIONS = 32  # variances that a walk is tried on


@dataclass(frozen=True)
class Suggestion:
    """A ladder of noise levels and how to walk it, from `suggest_schedule`; `print` it for the reasons.

    Parameters
    ----------
    levels : tuple of L floats
        σ₁ > ... > σ_L, in data units.
    ratio : float
        γ = σ_i/σ_{i+1}.
    moves : int
        T, the number of Langevin steps at each level.
    step : float
        ε at the last level, for x + ε s + √(2ε) z, in squared data units.
    excess : float
        Variance of the noise over σ² when a level is left, where data are thin: `ladder_excess`.
    worst : float
        Variance over ν + σ_L² at the end, in the direction that fares worst: `walk_excess`.
    ema : float
        Decay of the moving average of the parameters.
    reasons : tuple of str
        One sentence for each choice.
    """

    levels: tuple[float, ...]  # σ₁ > ... > σ_L
    ratio: float  # γ = σ_i/σ_{i+1}
    moves: int  # Langevin steps a level, T
    step: float  # ε at the last level, for x + ε s + √(2ε) z
    excess: float  # variance of the noise over σ² when a level is left, where data are thin: `ladder_excess`
    worst: float  # variance over ν + σ_L² at the end, in the direction that fares worst: `walk_excess`
    ema: float
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "\n".join(self.reasons)


def suggest_schedule(data: Array, budget: int = 1000, smallest: float | None = None) -> Suggestion:
    """Suggest levels, steps and averaging for data (N, ...), after Song and Ermon 2020, Techniques 1, 2, 4 and 5.

    Technique 3, to let one network serve all levels by dividing its output by σ, is `ScoreModel`'s default. Technique 4
    is applied to the whole walk and to wide directions of the data too (`walk_excess`), not to one level and its noise.
    The walk begins at N(m, σ₁² I), with m the mean of the data or any point among them.

    Parameters
    ----------
    data : Array (N, ...), N >= 2
        Where all N² distances would take more than seconds, those of evenly chosen rows (at least 16) from all others.
        The largest distance is then found up to a factor of 2 at worst.
    budget : int, default 1000
        Evaluations of the score that a sample may cost: levels times moves. Four times as many halve what the walk
        leaves too much; the default leaves some 5 to 12 %.
    smallest : float, optional
        σ_L in data units, for those who know how fine the data are; by default `smallest_level`.

    Returns
    -------
    Suggestion
        The ladder, the step and the number of moves, with their reasons.

    Raises
    ------
    TypeError
        For data that are not floats.
    ValueError
        For data with NaN or infinity, of fewer than two rows, or of rows that are all the same; for a budget that is no
        integer or below the number of levels; unless 0 < smallest < the largest distance.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.noise.suggest import suggest_schedule
    >>> data = np.array([[0.0, 0.0], [0.0, 0.5], [3.0, 4.0], [3.0, 3.5]])  # the largest distance is 5
    >>> plan = suggest_schedule(data, budget=100, smallest=0.1)
    >>> round(plan.levels[0], 4), round(plan.levels[-1], 4), len(plan.levels), plan.moves  # ratio at most 1.5
    (5.0, 0.1, 11, 9)
    """
    check_data("data", data)
    budget = check_count("budget", budget)
    nearest, largest = _distances(data)
    if largest == 0:
        raise ValueError("all rows of data are the same: there is no distance to bridge")
    N, D = data.shape[0], math.prod(data.shape[1:])
    given = smallest is not None
    if smallest is not None:
        smallest = check_number("smallest", smallest)
    else:
        if nearest == 0:
            raise ValueError(
                "most rows of data have an equal twin, so their distance does not tell a smallest level: give one"
            )
        smallest = smallest_level(nearest, N, D)
    if not 0 < smallest < largest:
        raise ValueError(
            f"smallest must lie between 0 and the largest distance of two points, {largest}; got {smallest}"
        )
    wanted = overlap_ratio(D)
    L = max(2, 1 + math.ceil(math.log(largest / smallest) / math.log(min(wanted, RATIO_CAP))))
    ratio = (largest / smallest) ** (1 / (L - 1))
    if budget < L:
        raise ValueError(
            f"a budget of {budget} evaluations is less than one for each of the {L} levels: "
            f"give a budget of {L} or more, or a larger smallest level than {smallest:.4g}"
        )
    T, levels = budget // L, geometric_levels(largest, smallest, L)
    fraction, worst = walk_step(levels, T)
    excess = ladder_excess(fraction, ratio, T)
    solved = f"is one half at {wanted:.3g}" if wanted < math.inf else "is above one half at any ratio"
    capped = "" if wanted <= RATIO_CAP else f" (at most {RATIO_CAP}: in {D} dimensions the overlap {solved})"
    reasons = (
        f"largest level {largest:.4g}: the largest distance of two points, to go from any to any (technique 1)",
        f"smallest level {smallest:.4g}: {'as given' if given else _why(smallest, nearest)}; what is finer is lost",
        f"{L} levels, ratio {ratio:.4g}: typical points of one level are typical of the next{capped} (technique 2)",
        f"{T} moves a level: the budget of {budget} evaluations (technique 4)",
        f"step {fraction * smallest**2:.4g} = {fraction:.4g} σ_L²: no direction, wide or thin, ends with more than "
        f"{worst:.4g} times the variance of data and noise, the least that {T} moves can do; where data are thin each "
        f"level ends with noise of variance {excess:.4g} σ² (technique 4, along the ladder)",
        "moving average of the parameters, decay 0.999 (technique 5)",
    )
    return Suggestion(levels, ratio, T, fraction * smallest**2, excess, worst, 0.999, reasons)


def smallest_level(nearest: float, count: int, dim: int) -> float:
    """Return σ_L for N points in D dimensions whose nearest neighbours are d apart: d min(1, N^{1/D}/(10√(2D))).

    Noise acts on every coordinate, a distance is that of all: neighbours of N(0, s² I) are about √(2D) N^{-1/D} s
    apart, and solved for s this gives the deviation of the data about a point, per coordinate, to a quarter in any D
    (of the cloud that the point is in, where there are several; in directions without variance it is less). A tenth
    of it widens the variance by one per cent.

    In one and two dimensions, where points are many, d is less. With less noise than the distance of neighbours the law
    of the noised data falls apart into single points, and there is nothing to learn but the points: so d it is. In
    more dimensions one cannot have both: noise of the size d would drown the data. The smallest level is then below d,
    the exact score of these N points would give them back, and what lies between them is what a network makes of it.
    (Gaussian pictures with pixels of deviation .25 and a spectrum of 1/k² get .02; published ladders for pictures in
    [0, 1] end at .01.)

    Parameters
    ----------
    nearest : float
        d, the median distance of nearest neighbours, in data units.
    count : int
        N, the number of points.
    dim : int
        D, the number of coordinates.

    Returns
    -------
    float
        σ_L, in data units.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_positive(nearest=nearest)
    count, dim = check_count("count", count), check_count("dim", dim)
    return nearest * min(1.0, BLUR * math.pow(count, 1 / dim) / math.sqrt(2 * dim))


def _why(smallest: float, nearest: float) -> str:
    if smallest == nearest:
        return "the median distance of neighbours, below which noised data fall apart into points"
    return (
        f"a tenth of the deviation of the data about a point, as far as {nearest:.4g} tells, the median distance of "
        "neighbours (below that the noised data fall apart into points, but so much noise would drown them)"
    )


def suggest_sigma_max(data: Array, nats: float = 0.01) -> float:
    """Return the σ(1) of a variance-exploding SDE whose mismatch with its prior is at most so many nats.

    √(E‖x‖²/2 nats), Eq. (7.14). For the geometric `VE`, σ(1)² = sigma_max² - sigma_min². Data about their mean need the
    least.

    Parameters
    ----------
    data : Array, shape (N, ...)
        Their mean square E‖x‖² is used.
    nats : float, default 0.01
        The mismatch KL(p_1 ‖ prior) that is allowed.

    Returns
    -------
    float
        σ(1), in data units.

    Raises
    ------
    TypeError
        For data that are not floats.
    ValueError
        Unless 0 < nats < ∞; for data that are empty, not finite or all zero, where any σ would do.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.noise.suggest import suggest_sigma_max
    >>> round(suggest_sigma_max(np.array([[3.0, 4.0], [-4.0, 3.0]]), nats=0.5), 4)  # E‖x‖² = 25, so √(25/1)
    5.0
    """
    check_data("data", data)
    nats = check_number("nats", nats)
    check_positive(nats=nats)
    size = _rms(data)
    if size == 0:
        raise ValueError("all data are zero: any sigma_max will do")
    return size * math.sqrt(0.5 / nats)


def suggest_beta_max(data: Array, nats: float = 0.01, beta_min: float = 0.1) -> float:
    """Return the β_max of a `VP` whose mismatch with N(0, I) is at most so many nats, at least β_min       Eq. (7.14).

    β_max = 2B - β_min, with B solving ½ [e⁻ᴮ E‖x‖² - D (e⁻ᴮ + log(1 - e⁻ᴮ))] = nats. The second term is about
    D e⁻²ᴮ/4: without it B = log(E‖x‖²/2 nats), and that is what B tends to where nats are few.

    Parameters
    ----------
    data : Array, shape (N, ...)
        Their mean square E‖x‖² is used.
    nats : float, default 0.01
        The mismatch KL(p_1 ‖ prior) that is allowed.
    beta_min : float, default 0.1
        β_min of the `VP`, per unit time.

    Returns
    -------
    float
        β_max, per unit time.

    Raises
    ------
    TypeError
        For data that are not floats.
    ValueError
        Unless nats and beta_min are positive and finite; for data that are empty or not finite.
    """
    check_data("data", data)
    nats, beta_min = check_number("nats", nats), check_number("beta_min", beta_min)
    check_positive(nats=nats, beta_min=beta_min)
    size, D = _rms(data), float(math.prod(data.shape[1:]))
    square = size * size

    def excess(B: float) -> float:  # falls with B
        left = math.exp(-B)
        return 0.5 * (left * square - D * (left + math.log(-math.expm1(-B)))) - nats

    if excess(beta_min) <= 0:
        return beta_min
    return 2 * float(brentq(excess, beta_min, beta_min + 800.0, xtol=1e-14)) - beta_min  # e⁻⁸⁰⁰ is 0


def _rms(data: Array) -> float:
    """√(E‖x‖²)."""
    xp, unit = array_namespace(data), _unit(data)
    return unit * math.sqrt(float(xp.sum((data / unit) ** 2)) / data.shape[0])


def _unit(data: Array) -> float:
    """The power of two at or below the largest number: division by it is exact, and squares then stay in range."""
    xp = array_namespace(data)
    return math.ldexp(0.5, math.frexp(float(xp.max(xp.abs(data))))[1])


def overlap(ratio: float, dim: int) -> float:
    """Return Φ(√(2D)(γ - 1) + 3γ) - Φ(√(2D)(γ - 1) - 3γ): how much of one level is typical of the next    Eq. (6.12).

    In high dimension a Gaussian N(0, σ² I) is close to a shell, ‖x‖ normal about √D σ with deviation σ/√2; this is the
    share of the smaller noise that is within three deviations of the larger one's shell (Song and Ermon 2020).

    Parameters
    ----------
    ratio : float
        γ, the ratio of two neighbouring levels.
    dim : int
        D, the number of coordinates.

    Returns
    -------
    float
        A probability.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_range(0.0, 1e150, ratio=ratio)
    dim = check_count("dim", dim)
    shift = math.sqrt(2 * dim) * (ratio - 1)
    return float(ndtr(shift + 3 * ratio) - ndtr(shift - 3 * ratio))


def overlap_ratio(dim: int) -> float:
    """Return the γ with overlap ½; infinity in D <= 4, where the overlap never falls that low.

    Parameters
    ----------
    dim : int
        D, the number of coordinates, at least 1.

    Returns
    -------
    float
        The ratio of two neighbouring levels, above 1.

    Raises
    ------
    ValueError
        Unless dim is an integer >= 1.
    """
    dim = check_count("dim", dim)
    if math.sqrt(2 * dim) <= 3:  # then the lower bound √(2D)(γ - 1) - 3γ falls with γ
        return math.inf
    # The lower bound reaches 0, and the overlap ½, at γ = √(2D)/(√(2D) - 3), but for what the upper end lacks.
    root = math.sqrt(2 * dim) / (math.sqrt(2 * dim) - 3)
    return float(brentq(lambda ratio: overlap(ratio, dim) - 0.5, 1.0, 1.1 * root))


def _check_moves(fraction: float, moves: int, ratio: float = 1.0) -> None:
    if is_number(fraction):
        check_range(0.0, 1.999, fraction=fraction)
    check_range(0.0, 1e150, ratio=ratio)
    check_count("moves", moves)


def level_excess(fraction: float, ratio: float, moves: int) -> float:
    """Return the variance of the noise over σ² after one level begun with γ²σ²: (1 - η)²ᵀ (γ² - c) + c    Eq. (6.13).

    η = ε/σ² is the `fraction`, T the number of moves, c = 1/(1 - η/2): Langevin dynamics on N(0, σ²) from N(0, γ²σ²),
    as if the level before had been left exactly (Song and Ermon 2020, Technique 4).

    Parameters
    ----------
    fraction : float
        η = ε/σ², from 0 to 1.
    ratio : float
        γ, the ratio of two neighbouring levels.
    moves : int
        T, the number of moves at a level.

    Returns
    -------
    float
        1 where the noise of the level is exact.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    _check_moves(fraction, moves, ratio)
    c = 1 / (1 - fraction / 2)
    return float((1 - fraction) ** (2 * moves) * (ratio**2 - c) + c)


def ladder_excess(fraction: float, ratio: float, moves: int) -> float:
    """Return the excess that many levels settle at, each begun with that before: c (1 - a)/(1 - γ² a)  Eq. (6.14).

    a = (1 - η)²ᵀ; it solves v = a (γ² v - c) + c. From γ² a = 1 on there is no such v: the noise falls behind the
    levels more and more, and the answer is infinity.

    Parameters
    ----------
    fraction, ratio, moves : see `level_excess`.

    Returns
    -------
    float
        1 where the noise is exact.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    _check_moves(fraction, moves, ratio)
    a, c = (1 - fraction) ** (2 * moves), 1 / (1 - fraction / 2)
    return c * (1 - a) / (1 - ratio**2 * a) if ratio**2 * a < 1 else math.inf


def best_step(
    ratio: float, moves: int, excess: Callable[[float, float, int], float] = level_excess
) -> tuple[float, float]:
    """Return the fraction η = ε/σ² that makes the excess least, and that least value: never 1, always above.

    `level_excess` (default) is technique 4 as published; `ladder_excess` is the same for a whole ladder.

    Parameters
    ----------
    ratio : float
        γ, the ratio of two neighbouring levels, above 1.
    moves : int
        T, the number of moves at a level, at least 1.
    excess : callable (fraction, ratio, moves) -> float, default `level_excess`
        What is made least.

    Returns
    -------
    fraction, excess : float
        η, and the excess there.

    Raises
    ------
    ValueError
        Unless ratio > 1 and moves >= 1.
    """
    if not 1 < ratio < math.inf or moves < 1:
        raise ValueError(f"need ratio > 1 and moves >= 1, got {ratio}, {moves}")
    _check_moves(0.0, moves, ratio)
    check_like("function", excess=excess)
    least = 1 - ratio ** (-1 / moves)  # below it the noise falls more slowly than the levels
    found = minimize_scalar(
        lambda e: excess(e, ratio, moves), bounds=(least, 1.0), method="bounded", options={"xatol": 1e-10}
    )
    return float(found.x), float(found.fun)


def walk_excess(fraction: float, levels: Sequence[float], moves: int, deviation: Any) -> Any:
    """Return the variance over ν + σ_L² at the end of a walk, where the data have variance ν = deviation²    Eq. (6.8).

    From N(0, σ₁²) down the levels; v is in units of S = ν + σ², and η σ²/S is the step there.

    Parameters
    ----------
    fraction : float
        η = ε/σ², from 0 to 1.
    levels : sequence of L floats
        σ₁ > ... > σ_L, in data units.
    moves : int
        T, the number of moves at each level.
    deviation : array (n,)
        Deviations √ν of the data, one for each direction that is looked at.

    Returns
    -------
    array (n,)
        1 where the law is exact.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    _check_moves(fraction, moves)
    sigmas, deviation = np.asarray(levels), np.asarray(deviation)
    for name, a in (("levels", sigmas), ("deviation", deviation)):
        if a.dtype.kind not in "fiu" or a.ndim != 1 or not a.size or not np.all((a >= 0) & np.isfinite(a)):
            raise ValueError(f"{name} must be a sequence of finite numbers from 0 on, got {a}")
    check_positive(levels=float(np.min(sigmas)))
    s, d = sigmas[:, None], deviation[None, :]
    root = np.hypot(s, d)  # √S
    share = (s / root) ** 2
    q, c = (1 - fraction * share) ** (2 * moves), 1 / (1 - fraction * share / 2)
    growth = (root[:-1] / root[1:]) ** 2
    v = q[0] * (share[0] - c[0]) + c[0]
    for g, q_i, c_i in zip(growth, q[1:], c[1:], strict=True):
        v = q_i * (g * v - c_i) + c_i
    return v


def walk_step(levels: Sequence[float], moves: int) -> tuple[float, float]:
    """Return the fraction η = ε/σ² with which the worst direction of a walk ends nearest to its variance.

    Deviations are tried from 0 to σ₁/2, the most that data have whose largest distance is σ₁. Small steps leave wide
    directions too wide, and large ones the noise: at levels dense in log σ both excesses are ln(σ₁/σ_L)/(ηM), M the
    number of all moves, and noise has η/2 on top. So the least is of the size √(2 ln(σ₁/σ_L)/M).

    Parameters
    ----------
    levels : sequence of L floats
        σ₁ > ... > σ_L, in data units, at least two.
    moves : int
        T, the number of moves at each level.

    Returns
    -------
    fraction, excess : float
        η, and the excess of the worst direction, by `walk_excess`.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    levels, moves = check_levels(levels), check_count("moves", moves)
    if len(levels) < 2:
        raise ValueError(f"levels must be at least two, got {levels}")
    deviations = np.concatenate([[0.0], np.geomspace(levels[-1], levels[0] / 2, DIRECTIONS)])
    least = 1 - (levels[0] / levels[-1]) ** (-1 / (moves * (len(levels) - 1)))  # as in `best_step`
    found = minimize_scalar(
        lambda e: float(np.max(walk_excess(e, levels, moves, deviations))),
        bounds=(least, 1.0),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(found.x), float(found.fun)


def _distances(data: Array) -> tuple[float, float]:
    """Median distance to the nearest neighbour, and the largest of all; some rows against all where there are many."""
    xp = array_namespace(data)
    unit = _unit(data)
    rows = xp.reshape(data, (data.shape[0], -1)) / unit
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
    return unit * float(xp.mean(middle)), unit * float(xp.max(xp.stack(farthest)))
