"""Expectations under a mixture: by a trapezoid rule where a grid is possible, by Monte Carlo where it is not."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from refscore.checks import check_count, check_kind, check_like, check_positive, check_range
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace, device
from refscore.protocols import Array, Rng


@dataclass(frozen=True)
class Estimate:
    """A number and its standard error.

    Parameters
    ----------
    value : float
        The number.
    error : float
        Its standard error, or an estimate of the error of the quadrature.
    """

    value: float
    error: float


def expectation(p: GaussianMixture, f: Callable[[Array], Array], rng: Rng | None, samples: int) -> Estimate:
    """Return E_p f(x), by the trapezoid rule where a grid is possible, by Monte Carlo otherwise.

    Parameters
    ----------
    p : GaussianMixture
        The law of x, in D dimensions.
    f : callable
        x (B, D) -> (B,).
    rng : Rng or None
        Needed only for Monte Carlo: in D > 2, or where the grid would be too large.
    samples : int
        Number of Monte Carlo samples.

    Returns
    -------
    Estimate
        The value; its error is that of Monte Carlo, or the difference from the rule of twice the spacing.

    Raises
    ------
    ValueError
        If Monte Carlo is needed and there is no rng.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> from refscore.laws.expectation import expectation
    >>> p = GaussianMixture(np.array([1.0]), np.array([[0.0]]), np.array([1.0]))
    >>> found = expectation(p, lambda x: x[:, 0] ** 4, rng=None, samples=0)  # one dimension: a grid
    >>> round(found.value, 9)
    3.0
    """
    check_like("mixture", p=p)
    xp, samples = array_namespace(p.means), check_count("samples", samples, 0)
    if rng is not None:
        check_like(rng=rng)
    grid, wide_grid = (quadrature_grid(p, spacing=h) if p.dim <= 2 else None for h in (0.25, 0.5))
    if grid is None or wide_grid is None:
        if rng is None:
            raise ValueError("this needs Monte Carlo (D > 2, or too fine a grid): give an rng")
        draws = f(p.sample(rng, samples))
        return Estimate(float(xp.mean(draws)), float(xp.std(draws)) / math.sqrt(samples))
    fine, coarse = (float(cell * xp.sum(xp.exp(p.log_prob(x)) * f(x))) for x, cell in (grid, wide_grid))
    return Estimate(fine, max(abs(fine - coarse), float(xp.finfo(p.means.dtype).eps) * abs(fine)))


def moments(p: GaussianMixture) -> tuple[Array, Array]:
    """Return mean and covariance of a mixture: the mean of the covariances, and the covariance of the means.

    Parameters
    ----------
    p : GaussianMixture
        In D dimensions.

    Returns
    -------
    mean, cov : Array, shapes (D,) and (D, D)
        In data units, and in their squares.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore import GaussianMixture
    >>> from refscore.laws.expectation import moments
    >>> p = GaussianMixture(np.array([0.5, 0.5]), np.array([[-3.0], [3.0]]), np.array([1.0, 1.0]))
    >>> moments(p)  # 1 within the components, 3² between them
    (array([0.]), array([[10.]]))
    """
    check_like("mixture", p=p)
    xp, w = array_namespace(p.means), p.weights
    mean = xp.sum(w[:, None] * p.means, axis=0)
    away = p.means - mean
    if p.covariances.ndim == 3:
        within = xp.sum(w[:, None, None] * p.covariances, axis=0)
    else:
        flat = xp.reshape(p.covariances, (p.n_components, -1))
        within = xp.sum(w[:, None] * flat, axis=0) * xp.eye(p.dim, dtype=flat.dtype, device=device(flat))
    return mean, within + xp.matrix_transpose(w[:, None] * away) @ away


def quadrature_grid(mixture: GaussianMixture, budget: float = 1e6, spacing: float = 0.25) -> tuple[Array, float] | None:
    """Return the nodes of a trapezoid rule for D <= 2 and their weight.

    Over ±9 standard deviations of every component, spacing h = `spacing` (a quarter) of the smallest, σ. For densities
    twice that spacing would do; but quotients by p, such as the score, have poles where p(x + iy) = 0, at
    y = π σ²/∆ for two modes ∆ apart. There p ~ exp(-∆²/8σ²) and the rule errs by about exp(-2π y/h): for unit
    modes at the worst ∆ that leaves 5e-7 of E‖s‖² (at twice the spacing 3e-4).

    Parameters
    ----------
    mixture : GaussianMixture
        In one or two dimensions.
    budget : float, default 1e6
        The largest number of nodes times components.
    spacing : float, default 0.25
        h over σ, the deviation of the narrowest component.

    Returns
    -------
    nodes, cell : Array of shape (N, D), and float
        The points, and the volume of a cell; None instead of both where the budget is too small or σ = 0.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(mixture=mixture)
    check_positive(budget=budget)
    check_range(1e-6, 10.0, spacing=spacing)
    xp = array_namespace(mixture.means)
    variances = mixture.variances
    smallest = math.sqrt(float(xp.min(variances)))
    reach = 9 * xp.sqrt(xp.max(variances, axis=1))[:, None]
    low, high = xp.min(mixture.means - reach, axis=0), xp.max(mixture.means + reach, axis=0)
    spans = [(float(low[i]), float(high[i])) for i in range(mixture.dim)]
    if smallest == 0 or mixture.n_components * math.prod((b - a) / (spacing * smallest) for a, b in spans) > budget:
        return None
    axes, cell = [], 1.0
    for a, b in spans:
        n = math.ceil((b - a) / (spacing * smallest)) + 1
        axes.append(xp.linspace(a, b, n, dtype=mixture.means.dtype, device=device(mixture.means)))
        cell *= (b - a) / (n - 1)
    nodes = xp.stack([xp.reshape(x, (-1,)) for x in xp.meshgrid(*axes, indexing="ij")], axis=-1)
    return nodes, cell


def gauss_legendre(like: Array, n: int) -> tuple[Array, Array]:
    """Return nodes and weights of the Gauss-Legendre rule on [0, 1].

    The nodes are eigenvalues of the Jacobi matrix (Golub and Welsch 1969), so no table is needed.

    Parameters
    ----------
    like : Array
        Its library, dtype and device are used; its numbers are not.
    n : int
        Number of nodes.

    Returns
    -------
    nodes, weights : Array, shape (n,)
        The rule is exact for polynomials up to degree 2n - 1.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.

    Examples
    --------
    >>> import numpy as np
    >>> from refscore.laws.expectation import gauss_legendre
    >>> nodes, weights = gauss_legendre(np.zeros(1), 3)
    >>> print(round(float((weights * nodes**5).sum()), 9))  # ∫ t⁵ dt = 1/6
    0.166666667
    """
    check_kind("like", like)
    xp, n = array_namespace(like), check_count("n", n)
    i = xp.arange(1, n, dtype=like.dtype, device=device(like))
    b = i / xp.sqrt(4 * i * i - 1)
    row = xp.arange(n, dtype=like.dtype, device=device(like))
    above = xp.astype(row[:, None] + 1 == row, like.dtype)
    padded = xp.concat([b, xp.zeros((1,), dtype=like.dtype, device=device(like))])
    J = above * padded[:, None]
    nodes, vectors = xp.linalg.eigh(J + xp.matrix_transpose(J))
    return 0.5 * (1 + nodes), vectors[0, :] ** 2
