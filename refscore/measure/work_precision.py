"""The error of a sampler against the number of scores that it evaluates. Chapter 10.

All run on one grid, the levels of Karras et al. 2022 from σ(1)/α(1) down to 0.002, and end with one denoising step,
which is an evaluation like the others. They start from the true law at t = 1, so that the error is that of the
steps and of the score; or from the prior, which shows what that adds.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from refscore.arrays import constant
from refscore.checks import check_like
from refscore.laws.affine_chain import Gaussian, probe, wasserstein
from refscore.laws.mixture import GaussianMixture
from refscore.library import array_namespace, device
from refscore.likelihood.flow import FixedSteps, error_split
from refscore.matching.probes import rademacher
from refscore.measure.distance import sliced_wasserstein
from refscore.noise.grids import karras_times
from refscore.noise.prior import prior
from refscore.noise.reverse import denoise
from refscore.noise.sde import SDES
from refscore.protocols import SDE, Array, Rng, Score, ScoreWithJvp
from refscore.sampling.loop import NotFiniteError, last, simulate, watch
from refscore.sampling.transitions import SAMPLERS

LOW = 0.002  # the last σ/α before the denoising step
POINTS = 100  # whose log-likelihood is taken apart
GAUSSIAN = GaussianMixture(np.ones(1), np.array([[1.5, -0.5]]), np.array([[[0.8, 0.3], [0.3, 0.4]]]))


Error = Callable[[Score, str, int, bool], float]  # score, sampler, steps, whether from the prior -> distance


def _sampler(name: str) -> Any:
    if not isinstance(name, str) or name not in SAMPLERS:
        raise ValueError(f"no sampler called {name!r}; there are {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def evaluations_per_step(name: str) -> int:
    """How often one step evaluates the score, counted.

    Parameters
    ----------
    name : str
        A key of `SAMPLERS`.

    Returns
    -------
    int
        The number of evaluations.

    Raises
    ------
    TypeError, ValueError
        For an argument that cannot be what it is given as, by its name.
    """
    asked = []

    def score(x: Array, t: Array) -> Array:
        asked.append(t)
        return -x

    _sampler(name)(SDES["vp"], score)(np.zeros((1, 1)), 0.5, 0.4, np.random.default_rng(0))
    return len(asked)


def sample(score: Score, sde: SDE, name: str, steps: int, x: Array, rng: Rng) -> Array:
    """Run a sampler from t = 1, and end with one step that denoises.

    Parameters
    ----------
    score : callable (x, t) -> (B, D)
        The score of the model.
    sde : SDE
        The SDE for which the score was made.
    name : str
        A key of `SAMPLERS`.
    steps : int
        Number of steps before the one that denoises.
    x : Array, shape (B, D)
        The start at t = 1.
    rng : Rng
        Source of the noise.

    Returns
    -------
    Array, shape (B, D)
        The samples at t = 0.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde, rng=rng)
    times = [1.0, *karras_times(sde, steps + 1, float(sde.sigma(1.0) / sde.alpha(1.0)), LOW)[1:-1]]
    states = simulate(_sampler(name)(sde, score), x, times, rng)
    return denoise(score, sde, last(watch(states, times, every=steps)), times[-1])


# ------------------------------------------------------------------ the error


def starts(sde: SDE, exact: GaussianMixture = GAUSSIAN) -> tuple[Gaussian, Gaussian]:
    """The true law of one Gaussian at t = 1, and the prior.

    Parameters
    ----------
    sde : SDE
        The SDE that adds the noise.
    exact : GaussianMixture, default GAUSSIAN
        The law of the data, of one component.

    Returns
    -------
    true, prior : Gaussian
        Both laws.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like("mixture", exact=exact)
    check_like(sde=sde)
    alpha, sigma = float(sde.alpha(1.0)), float(sde.sigma(1.0))
    m, C = exact.means[0, :], exact.covariances[0, ...]
    one = array_namespace(C).eye(exact.dim, dtype=C.dtype, device=device(C))
    return Gaussian(alpha * m, alpha**2 * C + sigma**2 * one), Gaussian(constant(0.0, m), sde.prior_std**2 * one)


def gaussian_error(sde: SDE, exact: GaussianMixture = GAUSSIAN) -> Error:
    """The exact error on one Gaussian: the law of the chain itself, Eq. (10.11), its distance by Eq. (10.12).

    Parameters
    ----------
    sde : SDE
        The SDE of the sampler.
    exact : GaussianMixture, default GAUSSIAN
        The law of the data, of one component; its arrays are where the work is done.

    Returns
    -------
    callable (score, name, steps, from_prior) -> float
        The Wasserstein distance, in data units.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde)
    check_like("mixture", exact=exact)
    true = Gaussian(exact.means[0, :], exact.covariances[0, ...])

    def error(score: Score, name: str, steps: int, from_prior: bool) -> float:
        made = probe(lambda x, rng: sample(score, sde, name, steps, x, rng), true.mean)
        return wasserstein(made.law(starts(sde, exact)[int(from_prior)]), true)

    return error


def sampled_error(
    sde: SDE, exact: GaussianMixture, n: int, seed: int, make: Callable[[Any], Rng] = np.random.default_rng
) -> Error:
    """The error by samples: their sliced Wasserstein distance to as many of the mixture.

    Parameters
    ----------
    sde : SDE
        The SDE of the sampler.
    exact : GaussianMixture
        The law of the data.
    n : int
        Number of samples.
    seed : int
        Of all that is random.
    make : callable, default numpy.random.default_rng
        Makes a generator from a list of integers; its numbers are where the law's arrays are.

    Returns
    -------
    callable (score, name, steps, from_prior) -> float
        The distance, in data units; infinite where a sample is not finite.

    Raises
    ------
    TypeError
        For an argument that cannot be what it is given as, by its name.
    """
    check_like(sde=sde)
    check_like("mixture", exact=exact)
    fresh = exact.sample(make([seed, 1]), n)

    def error(score: Score, name: str, steps: int, from_prior: bool) -> float:
        rng = make([seed, 2])  # the same noise for all: differences are not luck
        x = prior(sde, (n, exact.dim), rng, "float64")
        if not from_prior:
            x = sde.alpha(1.0) * exact.sample(rng, n) + sde.sigma(1.0) * x / sde.prior_std
        try:
            made = sample(score, sde, name, steps, x, rng)
        except NotFiniteError:
            return math.inf
        return sliced_wasserstein(made, fresh, make([seed, 3]))

    return error


def likelihood_split(
    score: ScoreWithJvp, exact: GaussianMixture, sde: SDE, seed: int,
    make: Callable[[Any], Rng] = np.random.default_rng,
) -> dict[str, float]:  # fmt: skip
    """Root mean square over exact points of the parts of log p_model - log p, with 50 steps of RK4 and one probe.

    Parameters
    ----------
    score : with a method jvp
        The score of the model.
    exact : GaussianMixture
        The law of the data.
    sde : SDE
        The SDE for which the score was made.
    seed : int
        Of the points and of the probe.
    make : callable, default numpy.random.default_rng
        As for `sampled_error`.

    Returns
    -------
    dict of str to float
        Cause, see `ErrorSplit` -> nats.
    """
    rng = make([seed, 4])
    x = exact.sample(rng, POINTS)
    probes = rademacher(rng, (1, *x.shape), "float64")
    split = error_split(score, exact, sde, x, probes=probes, solve=FixedSteps(sde, 50), fine=FixedSteps(sde, 200))
    xp = array_namespace(x)
    return {cause: math.sqrt(float(xp.mean(part * part))) for cause, part in split._asdict().items()}
