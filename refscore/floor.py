"""The floor of denoising score matching: "is my loss normal?" has an answer. Chapter 6.

The loss compares the score with the noise of one draw, which no function of x_t can know. At the
exact score there remains, with D the dimension and by Tweedie's formula,

    ½ E‖s(x_t) + z/σ‖² = ½ (α²/σ⁴) E tr Cov[x₀ | x_t] = ½ (D/σ² - E‖s(x_t)‖²)

and no model does better in expectation. We use the middle form: at small σ the right one is a small
difference of large numbers.
"""

import math

from array_api_compat import array_namespace, device

from refscore.arrays import SDE, Array, Rng
from refscore.distance import Estimate
from refscore.mixture import GaussianMixture
from refscore.objectives import Denoising, FixedTime


def denoising_floor(
    objective: Denoising,
    mixture: GaussianMixture,
    sde: SDE,
    rng: Rng | None = None,
    levels: int = 48,
    samples: int = 20_000,
) -> Estimate:
    """The least expected loss that `objective` has on data from `mixture`.

    The integral over times is Gauss-Legendre; that over x_t is the trapezoid rule for D <= 2 where
    the grid needs no more than a million evaluations (spacing a quarter of the smallest standard
    deviation: within 1e-6 σ²/α² of E tr Cov), Monte Carlo otherwise.

    Parameters
    ----------
    objective : Denoising
    mixture : GaussianMixture
    sde : SDE
    rng : Rng, optional
        Needed only where Monte Carlo is.
    levels : int
        Times at which the floor is computed; the error is judged against half as many.
    samples : int
        Monte Carlo samples per time.

    Returns
    -------
    Estimate
        Value and error, in the units of the loss.
    """
    if isinstance(objective.times, FixedTime):
        return _mean_over_times(objective, mixture, sde, rng, 1, samples)
    coarse = _mean_over_times(objective, mixture, sde, rng, max(1, levels // 2), samples)
    fine = _mean_over_times(objective, mixture, sde, rng, levels, samples)
    return Estimate(fine.value, math.hypot(fine.error, fine.value - coarse.value))


def _mean_over_times(
    objective: Denoising, mixture: GaussianMixture, sde: SDE, rng: Rng | None, levels: int, samples: int
) -> Estimate:
    nodes, weights = gauss_legendre(mixture.means, levels)
    t, factor = objective.times.at(sde, nodes)
    scale = 0.5 * factor * objective.weight(sde, t) * sde.alpha(t) ** 2 / sde.sigma(t) ** 4
    scale = scale + 0 * nodes  # (levels,), also where there is one time
    value, variance = 0.0, 0.0
    for i in range(levels):
        now = float(t[min(i, t.shape[0] - 1)])
        level = mean_posterior_variance(mixture, sde.alpha(now), sde.sigma(now), rng, samples)
        weight = float(scale[i]) * float(weights[i])
        value += weight * level.value
        variance += (weight * level.error) ** 2
    return Estimate(value, math.sqrt(variance))


def mean_posterior_variance(
    mixture: GaussianMixture, alpha: float, sigma: float, rng: Rng | None = None, samples: int = 20_000
) -> Estimate:
    """E tr Cov[x₀ | x], x = α x₀ + σ z: the least mean squared error of a denoiser."""
    xp = array_namespace(mixture.means)
    diffused = mixture.diffuse(alpha, sigma)
    grid = quadrature_grid(diffused) if mixture.dim <= 2 else None
    if grid is not None:
        x, cell = grid
        p = xp.exp(diffused.log_prob(x))
        value = float(cell * xp.sum(p * mixture.posterior_variance(x, alpha, sigma)))
        return Estimate(value, 1e-6 * (sigma / alpha) ** 2)
    if rng is None:
        raise ValueError("this floor needs Monte Carlo (D > 2, or too fine a grid): give an rng")
    variance = mixture.posterior_variance(diffused.sample(rng, samples), alpha, sigma)
    return Estimate(float(xp.mean(variance)), float(xp.std(variance)) / math.sqrt(samples))


def quadrature_grid(mixture: GaussianMixture, budget: float = 1e6) -> tuple[Array, float] | None:
    """Nodes (N, D) and cell volume of a trapezoid rule for D <= 2; None if it needs too many.

    Over ±9 standard deviations of every component, spacing h = a quarter of the smallest, σ. For densities
    twice that spacing would do; but quotients by p, such as the score, have poles where p(x + iy) = 0, at
    y = π σ²/∆ for two modes ∆ apart. There p ~ exp(-∆²/8σ²) and the rule errs by about exp(-2π y/h): for unit
    modes at the worst ∆ that leaves 5e-7 of E‖s‖² (at twice the spacing 3e-4).
    """
    xp = array_namespace(mixture.means)
    variances = mixture.variances
    smallest = math.sqrt(float(xp.min(variances)))
    reach = 9 * xp.sqrt(xp.max(variances, axis=1))[:, None]
    low, high = xp.min(mixture.means - reach, axis=0), xp.max(mixture.means + reach, axis=0)
    spans = [(float(low[i]), float(high[i])) for i in range(mixture.dim)]
    if smallest == 0 or mixture.n_components * math.prod(4 * (b - a) / smallest for a, b in spans) > budget:
        return None
    axes, cell = [], 1.0
    for a, b in spans:
        n = math.ceil(4 * (b - a) / smallest) + 1
        axes.append(xp.linspace(a, b, n, dtype=mixture.means.dtype, device=device(mixture.means)))
        cell *= (b - a) / (n - 1)
    nodes = xp.stack([xp.reshape(x, (-1,)) for x in xp.meshgrid(*axes, indexing="ij")], axis=-1)
    return nodes, cell


def gauss_legendre(like: Array, n: int) -> tuple[Array, Array]:
    """Nodes and weights (n,) of Gauss-Legendre on [0, 1], in the dtype and on the device of `like`.

    The nodes are eigenvalues of the Jacobi matrix (Golub and Welsch 1969), so no table is needed.
    """
    xp = array_namespace(like)
    i = xp.arange(1, n, dtype=like.dtype, device=device(like))
    b = i / xp.sqrt(4 * i * i - 1)
    row = xp.arange(n, dtype=like.dtype, device=device(like))
    above = xp.astype(row[:, None] + 1 == row, like.dtype)
    padded = xp.concat([b, xp.zeros((1,), dtype=like.dtype, device=device(like))])
    J = above * padded[:, None]
    nodes, vectors = xp.linalg.eigh(J + xp.matrix_transpose(J))
    return 0.5 * (1 + nodes), vectors[0, :] ** 2
