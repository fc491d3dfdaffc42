"""Is this score, is this sample right? Distances, each with its sampling error."""

import math
from collections.abc import Callable

from array_api_compat import array_namespace

from refscore.arrays import answer, ask, row_squares
from refscore.checks import check_count, check_data, check_same
from refscore.laws.expectation import Estimate, expectation
from refscore.laws.mixture import GaussianMixture
from refscore.protocols import Array, Rng, Score


def score_error(score: Score, exact: Score, x: Array, t: float) -> Estimate:
    """E‖s - s*‖² / E‖s*‖² over samples x (B, ...) of p_t: the relative Fisher divergence.

    The error is that of a ratio of means, to first order in 1/√B.
    """
    check_data("x", x)
    xp = array_namespace(x)
    s, truth = ask(score, x, t), ask(exact, x, t)
    off = row_squares(s - truth)
    size = row_squares(truth)
    mean = float(xp.mean(size))
    ratio = float(xp.mean(off)) / mean
    return Estimate(ratio, float(xp.std(off - ratio * size)) / (mean * math.sqrt(x.shape[0])))


def fisher_divergence(
    p: GaussianMixture, score: Callable[[Array], Array], rng: Rng | None = None, samples: int = 20_000
) -> Estimate:
    """½ E_p‖∇log p(x) - score(x)‖², how far a field is from the score of p                             Eq. (1.7).

    Parameters
    ----------
    p : GaussianMixture
        With its noise, if there is any: `mixture.diffuse(alpha, sigma)`.
    score : callable x (B, D) -> (B, D)
        `q.score` for another law q, or `lambda x: model.bind(theta)(x, t)`. Only the score of q counts, not its height.
    rng : Rng, optional
        Needed where the trapezoid rule is not to be had: in D > 2, or where p has modes too narrow for a grid.
    samples : int
        Monte Carlo samples.

    Returns
    -------
    Estimate
        The value; its error is that of Monte Carlo, or the difference from the rule of twice the spacing.

    Raises
    ------
    ValueError
        If Monte Carlo is needed and there is no rng.
    """
    samples = check_count("samples", samples, 2)
    if not callable(score):
        raise TypeError(f"score must be a function of x alone, `q.score` or `lambda x: ...`; got {score!r}")

    def half_squares(x: Array) -> Array:
        return 0.5 * row_squares(p.score(x) - answer("the score", score(x), x))

    return expectation(p, half_squares, rng, samples)


def sliced_wasserstein(x: Array, y: Array, rng: Rng, directions: int = 128) -> float:
    """Sliced 2-Wasserstein distance between two samples (N, D) of equal size    Rabin et al. 2012.

    Root mean square, over random directions, of the distance between sorted projections. Even
    two samples of one law are some distance apart: `sliced_wasserstein_floor` tells how far.
    """
    _check_pair(x, y)
    if x.shape != y.shape:
        raise ValueError(f"both samples must have the same shape, got {tuple(x.shape)} and {tuple(y.shape)}")
    xp, directions = array_namespace(x), check_count("directions", directions)
    u = rng.standard_normal((x.shape[1], directions), dtype=x.dtype)
    u = u / xp.sqrt(xp.sum(u * u, axis=0))
    gap = xp.sort(x @ u, axis=0) - xp.sort(y @ u, axis=0)
    return math.sqrt(float(xp.mean(gap * gap)))


def sliced_wasserstein_floor(
    mixture: GaussianMixture, n: int, rng: Rng, directions: int = 128, repeats: int = 20
) -> Estimate:
    """The distance between two samples of size n of the mixture itself: mean, and deviation of one."""
    values = [
        sliced_wasserstein(mixture.sample(rng, n), mixture.sample(rng, n), rng, directions) for _ in range(repeats)
    ]
    mean = sum(values) / repeats
    return Estimate(mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (repeats - 1)))


def energy_distance(x: Array, y: Array) -> Estimate:
    """2 E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖ from samples (N, D), (M, D)      Székely and Rizzo 2013.

    Zero exactly when the laws agree. Without bias, so it may come out negative; the error is that of
    the U-statistic's first-order projection. For two samples of one law that projection vanishes, and the
    error, itself random, is some √2 too large: there compare with the distance between two exact samples.
    """
    _check_pair(x, y)
    xp = array_namespace(x)
    n, m = x.shape[0], y.shape[0]
    if min(n, m) < 2:
        raise ValueError(f"both samples need at least 2 rows, got {n} and {m}")
    xy, yx = _mean_distances(x, y), _mean_distances(y, x)
    # A sample's mean distance to the others of its own: the distance 0 to itself is left out.
    xx, yy = _mean_distances(x, x) * (n / (n - 1)), _mean_distances(y, y) * (m / (m - 1))
    value = float(2 * xp.mean(xy) - xp.mean(xx) - xp.mean(yy))
    variance = 4 * (float(xp.var(xy - xx)) / n + float(xp.var(yx - yy)) / m)
    return Estimate(value, math.sqrt(variance))


def mode_weights(mixture: GaussianMixture, x: Array) -> list[Estimate]:
    """How much of the sample x (N, D) belongs to each component: means of its responsibilities.

    For samples of the mixture itself the expectation is exactly its weights.
    """
    check_data("x", x)
    xp = array_namespace(x)
    r = mixture.responsibilities(x)
    mean, error = xp.mean(r, axis=0), xp.std(r, axis=0) / math.sqrt(x.shape[0])
    return [Estimate(float(mean[k]), float(error[k])) for k in range(mixture.n_components)]


def _mean_distances(x: Array, y: Array, rows: int = 512) -> Array:
    """Mean distance of every row of x to the rows of y, some rows at a time: memory O(rows · M)."""
    xp = array_namespace(x)
    means = []
    for i in range(0, x.shape[0], rows):
        part = x[i : min(i + rows, x.shape[0]), :]  # the standard allows no slice past the end
        square = sum((part[:, d, None] - y[None, :, d]) ** 2 for d in range(x.shape[1]))
        means.append(xp.mean(xp.sqrt(square), axis=1))
    return xp.concat(means)


def _check_pair(x: Array, y: Array) -> None:
    check_data("x", x)
    check_data("y", y)
    check_same(x, y=y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"samples must be (N, D) and (M, D), got {tuple(x.shape)} and {tuple(y.shape)}")
