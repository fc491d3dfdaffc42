"""The floor of denoising score matching: "is my loss normal?" has an answer. Chapter 3.

The loss compares the score with the noise of one draw, which no function of x_t can predict. At the
exact score there remains, with D the dimension and by Tweedie's formula,

    ½ E‖s(x_t) + z/σ‖² = ½ (α²/σ⁴) E tr Cov[x₀ | x_t] = ½ (D/σ² - E‖s(x_t)‖²)

and no model does better in expectation. We use the middle form: at small σ the right one is a small
difference of large numbers.
"""

import math

from refscore.arrays import constant
from refscore.checks import check_count, check_like, check_positive
from refscore.laws.expectation import Estimate, gauss_legendre, quadrature_grid
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace, device
from refscore.matching.denoising import Denoising
from refscore.protocols import SDE, Array, Rng


def denoising_floor(
    objective: Denoising,
    mixture: GaussianMixture,
    sde: SDE,
    rng: Rng | None = None,
    levels: int = 48,
    samples: int = 20_000,
) -> Estimate:
    """The least expected loss that `objective` has on data from `mixture`                             Eq. (3.12).

    The integral over times is Gauss-Legendre, or a sum where times are discrete; that over x_t is the trapezoid
    rule for D <= 2 where the grid needs no more than a million evaluations (spacing a quarter of the smallest
    standard deviation: within 1e-6 σ²/α² of E tr Cov), Monte Carlo otherwise.

    Parameters
    ----------
    objective : Denoising
        Its weight and its law of the times count.
    mixture : GaussianMixture
        The law of the data.
    sde : SDE
        The SDE that adds the noise.
    rng : Rng, optional
        Needed only where Monte Carlo is.
    levels : int, default 48
        Times at which the floor is computed, default 48; the error is judged against half as many. With λ = g² or 1 the
        small times rule: `UniformLogSNR`, which has the same expected loss as `UniformTime`, needs far fewer.
    samples : int, default 20000
        Monte Carlo samples per time.

    Returns
    -------
    Estimate
        Value and error, in the units of the loss.

    Raises
    ------
    TypeError
        For an objective that is not `Denoising`.
    ValueError
        Where Monte Carlo is needed and there is no rng; for levels or samples that are too few.

    Examples
    --------
    For N(0, 1) the floor of the loss with λ = σ² is ½ α²/(α² + σ²), and ¼ at α = σ = 1:

    >>> import numpy as np
    >>> from refscore import Denoising, GaussianMixture
    >>> from refscore.matching.times import FixedTime
    >>> from refscore.measure.floor import denoising_floor
    >>> from refscore.noise.sde import LinearVE
    >>> mixture = GaussianMixture(np.ones(1), np.zeros((1, 1)), np.ones(1))
    >>> round(denoising_floor(Denoising(times=FixedTime(1.0)), mixture, LinearVE(sigma_max=1.0)).value, 5)
    0.25
    """
    check_like(sde=sde, mixture=mixture)
    if not isinstance(objective, Denoising):
        raise TypeError(f"the floor is that of denoising score matching, got {objective!r}; others reach -½ E‖s‖²")
    levels, samples = check_count("levels", levels), check_count("samples", samples, 2)
    if objective.times.atoms is not None:
        return _mean_over_times(objective, mixture, sde, rng, objective.times.atoms, samples)
    coarse = _mean_over_times(objective, mixture, sde, rng, max(1, levels // 2), samples)
    fine = _mean_over_times(objective, mixture, sde, rng, levels, samples)
    return Estimate(fine.value, math.hypot(fine.error, fine.value - coarse.value))


def _mean_over_times(
    objective: Denoising, mixture: GaussianMixture, sde: SDE, rng: Rng | None, levels: int, samples: int
) -> Estimate:
    nodes, weights = _times(objective.times.atoms, mixture.means, levels)
    t, factor = objective.times.at(sde, nodes)
    scale = 0.5 * factor * objective.weight(sde, t) * sde.alpha(t) ** 2 / sde.sigma(t) ** 4
    scale = scale * array_namespace(nodes).ones_like(nodes)  # (levels,), also where there is one time
    value, variance = 0.0, 0.0
    for i in range(levels):
        now = float(t[min(i, t.shape[0] - 1)])
        level = mean_posterior_variance(mixture, float(sde.alpha(now)), float(sde.sigma(now)), rng, samples)
        weight = float(scale[i]) * float(weights[i])
        value += weight * level.value
        variance += (weight * level.error) ** 2
    return Estimate(value, math.sqrt(variance))


def mean_posterior_variance(
    mixture: GaussianMixture, alpha: float, sigma: float, rng: Rng | None = None, samples: int = 20_000
) -> Estimate:
    """E tr Cov[x₀ | x], x = α x₀ + σ z: the least mean squared error of a denoiser.

    Parameters
    ----------
    mixture : GaussianMixture
        The law of x₀.
    alpha, sigma : float
        α and σ > 0.
    rng : Rng, optional
        Needed only where Monte Carlo is: in D > 2, or for a mixture too narrow for a grid.
    samples : int, default 20000
        Monte Carlo samples.

    Returns
    -------
    Estimate
        Value and error, in squared units of x₀.

    Raises
    ------
    ValueError
        If Monte Carlo is needed and there is no rng.
    """
    check_like(mixture=mixture)
    check_positive(alpha=alpha)
    samples = check_count("samples", samples)
    if rng is not None:
        check_like(rng=rng)
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


def _times(atoms: int | None, like: Array, levels: int) -> tuple[Array, Array]:
    """Quantiles and weights that integrate over a law of t: each atom once, or Gauss-Legendre."""
    if atoms is None:
        return gauss_legendre(like, levels)
    u = (array_namespace(like).arange(atoms, dtype=like.dtype, device=device(like)) + 0.5) / atoms
    return u, constant(1 / atoms, u)
