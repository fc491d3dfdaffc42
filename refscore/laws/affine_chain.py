"""The exact law of a sampler on one Gaussian, computed by the code that runs. Chapter 10.

On Gaussian data the score is affine in x. So is every step, and the whole chain is x -> A x + Σ B_n z_n + c in its
start and its noise. Applied to unit vectors the code itself returns A, B_n and c: the law of what it makes, to
rounding, without a sample.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from refscore.arrays import constant
from refscore.checks import check_floating, check_like
from refscore.library import array_namespace, device
from refscore.protocols import Array, Rng, Step


class Gaussian(NamedTuple):
    """A Gaussian law N(m, S), given by its mean and its covariance.

    Parameters
    ----------
    mean : Array, shape (D,)
        The mean m.
    cov : Array, shape (D, D)
        The covariance S.
    """

    mean: Array
    cov: Array


class Affine(NamedTuple):
    """The random map x -> A x + c + Gaussian noise, as `probe` finds it.

    Parameters
    ----------
    matrix : Array, shape (D, D)
        A.
    noise : Array, shape (D, D)
        The covariance Σ B Bᵀ of the noise.
    shift : Array, shape (D,)
        c.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """

    matrix: Array
    noise: Array
    shift: Array

    def law(self, start: Gaussian) -> Gaussian:
        """Return the law of the result, N(m, S) -> N(A m + c, A S Aᵀ + Σ B Bᵀ)                          Eq. (10.11)."""
        check_like("gaussian", start=start)
        mt = array_namespace(self.matrix).matrix_transpose
        return Gaussian(self.matrix @ start.mean + self.shift, self.matrix @ start.cov @ mt(self.matrix) + self.noise)


class _Zeros:
    """Zeros for noise; counts the draws."""

    def __init__(self, like: Array) -> None:
        self.like, self.draws = like, 0

    def standard_normal(self, size: Any = None, dtype: Any = None) -> Array:
        self.draws += 1
        return array_namespace(self.like).zeros(size, dtype=self.like.dtype, device=device(self.like))


class _Units(_Zeros):
    """Zeros, but for D rows of each draw, which are the unit vectors: from row 1 + D on, the next D for each draw."""

    def standard_normal(self, size: Any = None, dtype: Any = None) -> Array:
        xp, dim = array_namespace(self.like), size[1]
        above = (self.draws + 1) * dim + 1
        z = super().standard_normal(size, dtype)
        unit = xp.eye(dim, dtype=z.dtype, device=device(z))
        return xp.concat([z[:above, :], unit, z[above + dim :, :]])


def probe(run: Callable[[Array, Rng], Array], like: Array) -> Affine:
    """Find the affine map that a chain is.

    No row may influence another, and the step sizes may not depend on x: so it is for every sampler here.
    A chain that is not affine is not detected: this is for scores of one Gaussian.

    Parameters
    ----------
    run : callable (x, rng) -> x
        The whole chain, x (B, D) -> (B, D), with every random number from `rng.standard_normal`.
    like : Array, shape (D,)
        Its library, dtype and device are used; its numbers are not.

    Returns
    -------
    Affine
        The map from the start to the end of the chain, its noise included.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.laws.affine_chain import probe
    >>> step = lambda x, rng: 0.5 * x + 2.0 * rng.standard_normal(x.shape, dtype=x.dtype) + 1.0
    >>> found = probe(step, np.zeros(1))
    >>> found.matrix, found.noise, found.shift  # the noise by its variance
    (array([[0.5]]), array([[4.]]), array([1.]))
    """
    check_floating("like", like, ndim=1)
    xp, dim = array_namespace(like), like.shape[0]
    count: Any = _Zeros(like)
    zero = constant(0.0, like[None, :])
    run(zero, count)
    start = xp.concat([zero, xp.eye(dim, dtype=like.dtype, device=device(like))])
    rest = xp.zeros((count.draws * dim, dim), dtype=like.dtype, device=device(like))
    units: Any = _Units(like)
    y = run(xp.concat([start, rest]), units)
    images = y[1:, :] - y[:1, :]
    mt = xp.matrix_transpose
    return Affine(mt(images[:dim, :]), mt(images[dim:, :]) @ images[dim:, :], y[0, :])


def law_of(step: Step, times: Sequence[float], start: Gaussian) -> Gaussian:
    """The law of what a step makes of N(m, S) along a grid of times, exact to rounding             Eq. (10.11).

    Steps without memory are probed one by one, and their laws composed; a chain that remembers is probed as a whole,
    which for N steps with noise takes some N D² rows.

    Parameters
    ----------
    step : callable (x, t, s, rng, memory) -> (x, memory)
        Affine in x and in its noise, as every sampler here is on the score of one Gaussian. What is not affine is not
        seen to be so.
    times : sequence of N + 1 floats
        The grid, at least two times.
    start : Gaussian
        Mean (D,) and covariance (D, D) at times[0]; their library, device and dtype are those of the run.

    Returns
    -------
    Gaussian
        Mean (D,) and covariance (D, D) at times[-1].

    Raises
    ------
    ValueError
        For fewer than two times; what the step refuses.

    Examples
    --------
    Twenty steps of DDIM leave data N(0, ¼ I) a little too narrow:

    >>> import numpy as np
    >>> from refscore import DDIM, VP, ExactScore, GaussianMixture
    >>> from refscore.laws.affine_chain import Gaussian, law_of
    >>> from refscore.noise.grids import log_snr_times
    >>> sde, p = VP(), GaussianMixture(np.ones(1), np.zeros((1, 2)), np.array([0.25]))
    >>> times = log_snr_times(sde, 20, 1e-4)
    >>> end = law_of(DDIM(sde, ExactScore(p, sde)), times, Gaussian(np.zeros(2), np.eye(2)))
    >>> end.cov.round(4).tolist()
    [[0.191, 0.0], [0.0, 0.191]]
    """
    check_like("gaussian", start=start)
    times = list(times)
    if len(times) < 2:
        raise ValueError(f"a grid has two times or more, got {times}")
    silent: Any = _Zeros(start.mean)
    _, memory = step(constant(0.0, start.mean[None, :]), times[0], times[1], silent)
    for leg in [times] if memory is not None else pairwise(times):
        start = probe(partial(_walk, step, leg), start.mean).law(start)
    return start


def _walk(step: Step, times: Sequence[float], x: Array, rng: Rng) -> Array:
    memory = None
    for t, s in pairwise(times):
        x, memory = step(x, t, s, rng, memory)
    return x


def wasserstein(p: Gaussian, q: Gaussian) -> float:
    """Return the 2-Wasserstein distance of two Gaussians                                              Eq. (10.12).

    W² = ‖m - m'‖² + min_U ‖S^½ - S'^½ U‖² over orthogonal U, the form that does not subtract traces: equal laws are
    1e-15 apart and not 1e-8.

    Parameters
    ----------
    p, q : Gaussian
        The two laws, in the same number of dimensions.

    Returns
    -------
    float
        W, in data units.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.laws.affine_chain import Gaussian, wasserstein
    >>> p = Gaussian(np.array([0.0]), np.array([[1.0]]))
    >>> q = Gaussian(np.array([3.0]), np.array([[25.0]]))
    >>> round(wasserstein(p, q), 4)  # means 3 apart, deviations 4 apart
    5.0
    """
    check_like("gaussian", p=p, q=q)
    xp = array_namespace(p.cov)
    a, b = _root(p.cov), _root(q.cov)
    left, _, right = xp.linalg.svd(b @ a)
    off, apart = a - b @ (left @ right), p.mean - q.mean
    return math.sqrt(float(xp.sum(off * off) + xp.sum(apart * apart)))


def _root(cov: Array) -> Array:
    """The symmetric root; eigenvalues below zero are rounding."""
    xp = array_namespace(cov)
    values, vectors = xp.linalg.eigh(0.5 * (cov + xp.matrix_transpose(cov)))
    return (vectors * xp.sqrt(xp.where(values > 0, values, 0.0))) @ xp.matrix_transpose(vectors)
