"""Is this score, is this sample right? Distances, each with its sampling error."""

import math
from collections.abc import Callable

from refscore.arrays import answer, ask, row_squares
from refscore.checks import check_count, check_data, check_like, check_same, check_squares
from refscore.laws.expectation import Estimate, expectation
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace
from refscore.protocols import Array, Rng, Score


def score_error(score: Score, exact: Score, x: Array, t: float) -> Estimate:
    """E‖s - s*‖² / E‖s*‖² over samples of p_t: the relative Fisher divergence.

    The error is that of a ratio of means, to first order in 1/√B.

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        The score s to be judged.
    exact : callable (x, t) -> (B, ...)
        The true score s*, e.g. `ExactScore(mixture, sde)`.
    x : Array, shape (B, ...)
        Samples of p_t.
    t : float
        Their time, in [0, 1].

    Returns
    -------
    Estimate
        The ratio and its standard error.

    Raises
    ------
    ValueError, TypeError
        For x that is not a batch of finite floats; for a score that does not return the shape of x.

    Examples
    --------
    A score half as long as the true one, -x, errs by ¼ everywhere:

    >>> import numpy as np
    >>> from refscore.measure.distance import score_error
    >>> score_error(lambda x, t: -0.5 * x, lambda x, t: -x, np.array([[1.0], [2.0]]), t=0.5)
    Estimate(value=0.25, error=0.0)
    """
    check_data("x", x)
    check_squares(x=x)
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
        Needed where the trapezoid rule cannot be used: in D > 2, or where p has modes too narrow for a grid.
    samples : int, default 20000
        Monte Carlo samples.

    Returns
    -------
    Estimate
        The value; its error is that of Monte Carlo, or the difference from the rule of twice the spacing.

    Raises
    ------
    ValueError
        If Monte Carlo is needed and there is no rng; for a score that does not return the shape of x.
    TypeError
        For a score that is not callable.

    Examples
    --------
    The scores of N(0, 1) and N(1, 1), -x and -(x - 1), differ by 1 everywhere: ½.

    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> from refscore.measure.distance import fisher_divergence
    >>> p = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))  # N(0, 1)
    >>> round(fisher_divergence(p, lambda x: 1 - x).value, 6)
    0.5
    """
    check_like("mixture", p=p)
    samples = check_count("samples", samples, 2)
    if not callable(score):
        raise TypeError(f"score must be a function of x alone, `q.score` or `lambda x: ...`; got {score!r}")

    def half_squares(x: Array) -> Array:
        return 0.5 * row_squares(p.score(x) - answer("the score", score(x), x))

    return expectation(p, half_squares, rng, samples)


def sliced_wasserstein(x: Array, y: Array, rng: Rng, directions: int = 128) -> float:
    """Sliced 2-Wasserstein distance between two samples of equal size         Rabin et al. 2012, Eq. (20.3).

    Root mean square, over random directions, of the distance between sorted projections. Even
    two samples of one law are some distance apart: `sliced_wasserstein_floor` computes how far.

    Parameters
    ----------
    x, y : Array, shape (N, D)
        The two samples.
    rng : Rng
        Source of the directions.
    directions : int, default 128
        Number of random directions.

    Returns
    -------
    float
        The distance, in the units of x; about 1/√D of the Wasserstein distance for a shift.

    Raises
    ------
    ValueError, TypeError
        For samples of different shape, dtype or library, or that are not finite.

    Examples
    --------
    In one dimension there is one direction, and a shift by 3 is a distance of 3:

    >>> import numpy as np
    >>> from refscore.measure.distance import sliced_wasserstein
    >>> x = np.array([[0.0], [1.0], [5.0]])
    >>> round(sliced_wasserstein(x, x + 3, np.random.default_rng(0)), 6)
    3.0
    """
    check_like(rng=rng)
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
    """The distance between two samples of the mixture itself: its mean, and the deviation of one such distance.

    Parameters
    ----------
    mixture : GaussianMixture
        The law of both samples.
    n : int
        Size of each sample.
    rng : Rng
        Source of the samples and directions.
    directions : int, default 128
        As for `sliced_wasserstein`.
    repeats : int, default 20
        Number of pairs of samples, at least 2.

    Returns
    -------
    Estimate
        Mean over the pairs, and the standard deviation of a single distance.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(mixture=mixture, rng=rng)
    repeats = check_count("repeats", repeats, 2)
    values = [
        sliced_wasserstein(mixture.sample(rng, n), mixture.sample(rng, n), rng, directions) for _ in range(repeats)
    ]
    mean = sum(values) / repeats
    return Estimate(mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (repeats - 1)))


def energy_distance(x: Array, y: Array) -> Estimate:
    """2 E‖X - Y‖ - E‖X - X'‖ - E‖Y - Y'‖ from two samples        Székely and Rizzo 2013, Eq. (20.8).

    Zero exactly when the laws agree. Without bias, so it may come out negative; the error is that of
    the U-statistic's first-order projection. For two samples of one law that projection vanishes, and the
    error, itself random, is some √2 too large: there compare with the distance between two exact samples.

    Parameters
    ----------
    x, y : Array, shapes (N, D), (M, D)
        The two samples, each of at least 2 rows.

    Returns
    -------
    Estimate
        The distance, in the units of x, and its standard error.

    Raises
    ------
    ValueError, TypeError
        For samples of fewer than 2 rows, of different D, dtype or library, or that are not finite.

    Examples
    --------
    All X at 0 and all Y at 1: 2 · 1 - 0 - 0.

    >>> import numpy as np
    >>> from refscore.measure.distance import energy_distance
    >>> energy_distance(np.zeros((2, 1)), np.ones((3, 1)))
    Estimate(value=2.0, error=0.0)
    """
    return _discrepancy(x, y, lambda square: -array_namespace(square).sqrt(square), own=0.0)


def mode_weights(mixture: GaussianMixture, x: Array) -> list[Estimate]:
    """How much of a sample belongs to each component: means of its responsibilities.

    For samples of the mixture itself the expectation is exactly its weights.

    Parameters
    ----------
    mixture : GaussianMixture
        The K components.
    x : Array, shape (N, D)
        The sample.

    Returns
    -------
    list of Estimate
        The weight of each component in the sample, and its standard error; the values sum to 1.

    Raises
    ------
    ValueError, TypeError
        For x that is not a batch of finite floats.

    Examples
    --------
    Three of four points lie at the first of two distant modes:

    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> from refscore.measure.distance import mode_weights
    >>> mixture = GaussianMixture(np.array([0.5, 0.5]), np.array([[-10.0], [10.0]]), np.ones(2))
    >>> x = np.array([[-10.0], [-11.0], [-9.0], [10.0]])
    >>> [round(weight.value, 6) for weight in mode_weights(mixture, x)]
    [0.75, 0.25]
    """
    check_like(mixture=mixture)
    check_data("x", x)
    xp = array_namespace(x)
    r = mixture.responsibilities(x)
    mean, error = xp.mean(r, axis=0), xp.std(r, axis=0) / math.sqrt(x.shape[0])
    return [Estimate(float(mean[k]), float(error[k])) for k in range(mixture.n_components)]


def _discrepancy(x: Array, y: Array, kernel: Callable[[Array], Array], own: float) -> Estimate:
    """E k(X, X') + E k(Y, Y') - 2 E k(X, Y), each without the pairs of a point with itself, k(x, x) = own."""
    _check_pair(x, y)
    xp = array_namespace(x)
    n, m = x.shape[0], y.shape[0]
    if min(n, m) < 2:
        raise ValueError(f"both samples need at least 2 rows, got {n} and {m}")
    xy, yx = _kernel_means(x, y, kernel), _kernel_means(y, x, kernel)
    xx, yy = ((_kernel_means(z, z, kernel) * z.shape[0] - own) / (z.shape[0] - 1) for z in (x, y))
    value = float(xp.mean(xx) + xp.mean(yy) - 2 * xp.mean(xy))
    variance = 4 * (float(xp.var(xy - xx)) / n + float(xp.var(yx - yy)) / m)
    return Estimate(value, math.sqrt(variance))


def _kernel_means(x: Array, y: Array, kernel: Callable[[Array], Array], rows: int = 512) -> Array:
    """Mean over the rows of y of k(‖x - y‖²), for every row of x, some rows at a time: memory O(rows · M)."""
    xp = array_namespace(x)
    means = []
    for i in range(0, x.shape[0], rows):
        part = x[i : min(i + rows, x.shape[0]), :]  # the standard allows no slice past the end
        square = sum((part[:, d, None] - y[None, :, d]) ** 2 for d in range(x.shape[1]))
        means.append(xp.mean(kernel(square), axis=1))
    return xp.concat(means)


def _check_pair(x: Array, y: Array) -> None:
    check_data("x", x)
    check_data("y", y)
    check_squares(x=x, y=y)
    check_same(x, y=y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"samples must be (N, D) and (M, D), got {tuple(x.shape)} and {tuple(y.shape)}")
