"""Scores as people write them, from a mixture or around a network; and what they wrote instead. Chapter 17.

A specimen takes the law of the data, the SDE and an exact network (None where it needs none) and returns the score.
"""

from typing import Any

import numpy as np

from refscore.museum.mistake import Mistake


def of_mixture(mixture: Any, sde: Any, network: Any = None) -> Any:
    """The score of a mixture of diagonal Gaussians, in one function."""
    w, m, C = mixture.weights, mixture.means, mixture.covariances

    def score(x: Any, t: Any) -> Any:
        alpha, sigma = sde.alpha(t)[:, None, None], sde.sigma(t)[:, None, None]
        v = alpha**2 * C + sigma**2
        d = alpha * m - x[:, None, :]
        log_r = np.log(w) - 0.5 * np.sum(d**2 / v + np.log(v), axis=2)
        r = np.exp(log_r - log_r.max(axis=1, keepdims=True))
        r = r / r.sum(axis=1, keepdims=True)
        return np.sum(r[:, :, None] * d / v, axis=1)

    return score


def from_noise(mixture: Any, sde: Any, network: Any) -> Any:
    """The score of a network that predicts the noise at one of N indices."""
    N = sde.n

    def score(x: Any, t: Any) -> Any:
        index = np.rint(t * N).astype(int) - 1
        eps = network(x, index)
        return -eps / sde.sigma(t)[:, None]

    return score


def from_denoiser(mixture: Any, sde: Any, network: Any) -> Any:
    """The score of EDM's D(x, σ), told σ."""

    def score(x: Any, sigma: Any) -> Any:
        D = network(x, sigma)
        return (D - x) / sigma[:, None] ** 2

    return score


def from_v(mixture: Any, sde: Any, network: Any) -> Any:
    """The score of a network that predicts v = α z - σ x₀."""

    def score(x: Any, t: Any) -> Any:
        alpha, sigma = sde.alpha(t)[:, None], sde.sigma(t)[:, None]
        v = network(x, t)
        eps = sigma * x + alpha * v
        return -eps / sigma

    return score


SPECIMENS = (of_mixture, from_noise, from_denoiser, from_v)

MISTAKES = (
    Mistake(
        "mean-not-scaled", "score", "alpha * m - x", "m - x", "the means of the data are not scaled by α",
        "samples spread out too far; the error grows with the noise", "textbook",
    ),
    Mistake(
        "width-forgotten", "score", "alpha**2 * C + sigma**2", "sigma**2",
        "the data's own variance is forgotten beside σ²", "modes collapse to points", "ermongroup/ncsn, GMMDistAnneal",
    ),
    Mistake(
        "width-not-scaled", "score", "alpha**2 * C", "C", "the data's variance is not scaled by α²",
        "scores are too small in the middle of the way", "textbook",
    ),
    Mistake(
        "weights-ignored", "score", "np.log(w) - 0.5", "-0.5", "the weights of the modes are ignored",
        "every mode gets as many samples", "textbook",
    ),
    Mistake(
        "modes-without-volume", "score", "d**2 / v + np.log(v)", "d**2 / v",
        "the modes are weighed without the normalisers of their Gaussians", "wide modes take samples from narrow ones",
        "ermongroup/ncsn, gmm.py",
    ),
    Mistake(
        "sign-flipped", "score", "d / v, axis=1)", "-d / v, axis=1)", "the sign is wrong", "samples fly apart",
        "kamenbliznashki and others: energy and log density exchanged",
    ),
    Mistake(
        "sign-flipped", "score", "-eps / sde", "eps / sde", "the sign is wrong", "samples fly apart",
        "SheffieldML and others: ε points away from the data",
    ),
    Mistake(
        "not-divided-by-sigma", "score", "-eps / sde.sigma(t)[:, None]", "-eps",
        "the noise is given where a score is wanted: a division by σ is missing", "hardly any denoising at the end",
        "sp-uhh/sgmse#65; yang-song/score_sde_pytorch#49",
    ),
    Mistake(
        "divided-by-sigma-again", "score", "sde.sigma(t)[:, None]", "sde.sigma(t)[:, None] ** 2",
        "it is divided by σ² where σ is meant", "the last steps overshoot and diverge", "yang-song/score_sde_pytorch#26",
        only=("from_noise",),
    ),
    Mistake(
        "one-index-late", "score", ".astype(int) - 1", ".astype(int).clip(0, N - 1)", "the index is one too large",
        "nothing in pictures: 4e-3 of the score", "lucidrains/denoising-diffusion-pytorch#81",
    ),
    Mistake(
        "time-reversed", "score", "network(x, index)", "network(x, N - 1 - index)", "the network is told N - 1 - i",
        "noise comes out as it went in", "ermongroup/ncsn counts levels downwards, DDPM upwards",
    ),
    Mistake(
        "not-divided-by-sigma", "score", "sigma[:, None] ** 2", "sigma[:, None]",
        "D(x) - x is divided by σ where σ² is meant", "steps are σ times what they should be", "crowsonkb/k-diffusion to_d",
        only=("from_denoiser",),
    ),
    Mistake(
        "sign-of-x", "score", "sigma * x + alpha * v", "alpha * v - sigma * x", "v → ε has the wrong sign of x",
        "grey pictures", "huggingface/diffusers PR#1421",
    ),
    Mistake(
        "it-is-v", "score", "eps = sigma * x + alpha * v", "eps = v", "v is used where ε is meant",
        "right at the least noise only", "huggingface/diffusers#1733",
    ),
)  # fmt: skip
