"""The evidence lower bound of a diffusion: the bridge to variational diffusion models. Chapter 12.

    -log p(x₀) <= KL(q(x_1 | x₀) ‖ π) + ∫ ½ g² E‖s(x_t) + z/σ‖² dt - E log p(x₀ | x_ε)

from t = ε to 1, the last term a Gaussian decoder at Tweedie's mean (Kingma et al. 2021; Song et al. 2021, arXiv
2101.09258); p is the law that the model itself generates. Since g² dt = 2σ² dℓ, ℓ = log σ/α, the integral is
∫ E‖z - ẑ‖² dℓ with ẑ = -σ s: it depends only on the ends of the schedule. Kingma et al. write γ = 2ℓ, SNR = e^{-γ}.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from refscore.arrays import ask, beside, constant, per_sample, row_squares
from refscore.checks import check_array, check_count, check_data, check_like, check_number, check_squares
from refscore.library import array_namespace
from refscore.likelihood.flow import LogLikelihood
from refscore.matching.times import UniformLogSNR
from refscore.noise.prior import prior_kl
from refscore.noise.sde import log_ratio
from refscore.protocols import SDE, Array, Rng, Score, Time


def noise_error(score: Score, sde: SDE, x0: Array, t: Time, z: Array) -> Array:
    """The squared error of the predicted noise, ‖z - ẑ‖² at x_t = α x₀ + σ z, ẑ = -σ s            Eq. (12.9).

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        The score s.
    sde : SDE
        Gives α(t) and σ(t).
    x0 : Array, shape (B, ...)
        Data.
    t : float or Array, shape (B,) or (1,)
        Times in (0, 1].
    z : Array, shape (B, ...)
        Noise.

    Returns
    -------
    Array, shape (B,)
        One number a sample.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde)
    check_array(x0=x0, z=z)
    t = beside(t, x0)
    alpha, sigma = per_sample(sde.alpha(t), x0), per_sample(sde.sigma(t), x0)
    return row_squares(z + sigma * ask(score, alpha * x0 + sigma * z, t))


def decoder(score: Score, sde: SDE, x0: Array, z: Array, t: float) -> Array:
    """The log density of the decoder, log N(x₀; E[x₀ | x_t], (σ/α)² I) at x_t = α x₀ + σ z       Eq. (12.11).

    Parameters
    ----------
    score, sde, x0, z : see `noise_error`
    t : float
        The time from which the decoder starts, in (0, 1].

    Returns
    -------
    Array, shape (B,)
        Log densities in nats.

    Raises
    ------
    ValueError, TypeError
        Unless t is one number in (0, 1]: without noise there is nothing to decode.
    """
    check_like(sde=sde)
    check_array(x0=x0, z=z)
    t = check_number("t", t)
    if not 0 < t <= 1:
        raise ValueError(f"the decoder needs noise to take away, a time in (0, 1]; got {t}")
    scale, D = float(sde.sigma(t) / sde.alpha(t)), math.prod(x0.shape[1:])
    # x₀ - (x_t + σ² s)/α = -(σ/α)(z - ẑ)
    return -0.5 * noise_error(score, sde, x0, t, z) - 0.5 * D * math.log(2 * math.pi * scale**2)


def discrete_loss(score: Score, sde: SDE, x0: Array, z: Sequence[Array], times: Sequence[float]) -> Array:
    """Σ ½ (e^{2h} - 1)‖z - ẑ‖² over the steps of a falling grid, h the gain in log α/σ          Eqs. (12.8), (12.9).

    The loss of the chain with `Ancestral`'s small variance. A last step to σ = 0 is the decoder's: end above it.

    Parameters
    ----------
    score, sde, x0 : see `noise_error`
    z : sequence of Array, shape (B, ...)
        One noise for each step.
    times : sequence of float
        The grid, falling, in (0, 1]; one more than there are steps.

    Returns
    -------
    Array, shape (B,)
        The loss of each sample, in nats.

    Raises
    ------
    ValueError
        Unless there is a noise for each step.
    """
    check_like(sde=sde)
    check_array(x0=x0)
    if len(z) != len(times) - 1:
        raise ValueError(f"{len(times) - 1} steps need a noise each, got {len(z)} noises")
    if not min(times) > 0:
        raise ValueError(f"end above t = 0, the last step is the decoder's; got times down to {min(times)}")
    total = constant(0.0, row_squares(x0))
    for (t, s), noise in zip(pairwise(times), z, strict=True):
        h = log_ratio(sde, t) - log_ratio(sde, s)
        total = total + 0.5 * math.expm1(2 * h) * noise_error(score, sde, x0, t, noise)
    return total


def elbo(score: Score, sde: SDE, x0: Array, rng: Rng, samples: int = 1000, t_min: float = 1e-3) -> LogLikelihood:
    """A lower bound of log p(x₀) in nats, by Monte Carlo over times and noise           Eqs. (12.7), (12.10).

    Parameters
    ----------
    score : callable (x, t) -> (B, ...)
        The score of the model.
    sde : SDE
        The SDE for which the score was made.
    x0 : Array (B, ...)
        Data.
    rng : Rng
        Source of times and noise.
    samples : int, default 1000
        Draws of time and noise for each row, at least 2.
    t_min : float, default 0.001
        Where the decoder takes over.

    Returns
    -------
    LogLikelihood
        Nats (B,) and their standard error (B,).

    Raises
    ------
    ValueError, TypeError
        For x0 that is not a batch of finite floats, fewer than 2 samples, t_min outside (0, 1).

    Examples
    --------
    A model of data that are all at 0 predicts the noise without error. What is left is the decoder N(0, 0.1²) at 0,
    -log(0.1 √(2π)):

    >>> import numpy as np
    >>> from refscore.likelihood.elbo import elbo
    >>> from refscore.noise.sde import LinearVE
    >>> score, rng = lambda x, t: -x / t[:, None] ** 2, np.random.default_rng(0)
    >>> elbo(score, LinearVE(sigma_max=1.0), np.array([[0.0]]), rng, samples=10, t_min=0.1).value.round(4)
    array([1.3836])
    """
    check_like(sde=sde, rng=rng)
    check_data("x0", x0)
    check_squares(x0=x0)
    samples = check_count("samples", samples, 2)
    xp, law = array_namespace(x0), UniformLogSNR(t_min)
    span = float(log_ratio(sde, 1.0) - log_ratio(sde, t_min))
    mean, squares = 0.0, 0.0  # Welford 1962: squares are taken about the mean, so that float32 does not lose them
    for n in range(1, samples + 1):
        t, _ = law.at(sde, rng.random((x0.shape[0],), dtype=x0.dtype))
        z, last = (rng.standard_normal(x0.shape, dtype=x0.dtype) for _ in range(2))
        one = decoder(score, sde, x0, last, t_min) - span * noise_error(score, sde, x0, t, z)
        away = one - mean
        mean = mean + away / n
        squares = squares + away * (one - mean)
    error = xp.sqrt(squares / (samples * (samples - 1)))
    return LogLikelihood(mean - prior_kl(sde, x0), error)
