"""Likelihoods as people write them along the probability flow, and what they wrote instead. Chapter 17.

A specimen takes the SDE and returns log_prob(model, x), or bits per dimension where its name says so.
"""

from typing import Any

import numpy as np

from refscore.museum.mistake import Mistake

rng = np.random.default_rng(0)


def flow_vp(sde: Any) -> Any:
    """Song et al. 2021, with the whole trace by differences, and the midpoint rule."""

    def velocity(model: Any, x: Any, t: float) -> Any:
        f, g2, D, h = sde.f(t), sde.g(t) ** 2, x.shape[1], 1e-4
        score = lambda y: -model(y, t) / sde.sigma(t)
        trace = sum((score(x + h * e) - score(x - h * e))[:, i] / (2 * h) for i, e in enumerate(np.eye(D)))
        return f * x - 0.5 * g2 * score(x), f * D - 0.5 * g2 * trace

    def log_prob(model: Any, x: Any) -> Any:
        times, logdet = np.geomspace(1e-5, 1.0, 60), 0.0
        for s, t in zip(times[:-1], times[1:], strict=True):
            half, _ = velocity(model, x, s)
            v, div = velocity(model, x + (np.sqrt(s * t) - s) * half, np.sqrt(s * t))
            x, logdet = x + (t - s) * v, logdet + (t - s) * div
        prior = -0.5 * np.sum(x**2, axis=1) - 0.5 * x.shape[1] * np.log(2 * np.pi)
        return prior + logdet

    return log_prob


def hutchinson_sigma(sde: Any) -> Any:
    """Karras et al. 2022's ODE in σ, with the trace from random signs."""
    sigma_max = sde.sigma(1.0)

    def log_prob(denoiser: Any, x: Any) -> Any:
        D, K, h, logdet = x.shape[1], 4, 1e-4, 0.0
        probes = rng.choice([-1.0, 1.0], size=(K, *x.shape))
        sigmas = np.geomspace(1e-3, sigma_max, 50)
        for s, t in zip(sigmas[:-1], sigmas[1:], strict=True):
            slope = lambda y, at: (y - denoiser(y, at)) / at
            m = np.sqrt(s * t)
            y = x + (m - s) * slope(x, s)
            div = sum(np.sum(p * (slope(y + h * p, m) - slope(y - h * p, m)), axis=1) / (2 * h) for p in probes) / K
            x, logdet = x + (t - s) * slope(y, m), logdet + (t - s) * div
        prior = -0.5 * np.sum(x**2, axis=1) / sigma_max**2 - 0.5 * D * np.log(2 * np.pi * sigma_max**2)
        return prior + logdet

    return log_prob


def flow_bits(sde: Any) -> Any:
    """Bits per dimension of the flow's density."""
    log_prob = flow_vp(sde)

    def bits(model: Any, x: Any) -> Any:
        nats = log_prob(model, x)
        return -nats / (x.shape[1] * np.log(2))

    return bits


SPECIMENS = (flow_vp, hutchinson_sigma, flow_bits)

MISTAKES = (
    Mistake(
        "sign-flipped", "likelihood", "return prior + logdet", "return -(prior + logdet)", "it is minus the log density",
        "the likelier, the lower", "yang-song/score_sde_pytorch#59",
    ),
    Mistake(
        "divergence-sign-flipped", "likelihood", "return prior + logdet", "return prior - logdet",
        "the integral of the divergence has the wrong sign", "densities off by many nats, likely points unlikely",
        "bayesflow PR#617",
    ),
    Mistake(
        "divergence-missing", "likelihood", "return prior + logdet", "return prior", "the integral of the divergence is missing",
        "all points are about equally likely", "bayesflow PR#617: the solver ignores the added trace",
    ),
    Mistake(
        "prior-constant-once", "likelihood", "- 0.5 * x.shape[1] * np.log(2 * np.pi)", "- 0.5 * np.log(2 * np.pi)",
        "½ log 2π of the prior is counted once, and not D times", ".9 nats a further dimension too many",
        "ermongroup/ncsn, gmm.py",
    ),
    Mistake(
        "prior-constant-missing", "likelihood", " - 0.5 * x.shape[1] * np.log(2 * np.pi)", "",
        "½ D log 2π of the prior is missing", "the density does not integrate to 1", "facebookresearch/flow_matching#55",
    ),
    Mistake(
        "half-missing-in-divergence", "likelihood", "f * D - 0.5 * g2 * trace", "f * D - g2 * trace",
        "the divergence has g² tr ∇s, and not ½ g² tr ∇s", "densities too high by nats", "textbook",
    ),
    Mistake(
        "half-missing-in-drift", "likelihood", "f * x - 0.5 * g2 * score(x)", "f * x - g2 * score(x)",
        "the flow has g² s, and not ½ g² s: the reverse SDE's drift", "codes that are no noise", "textbook",
    ),
    Mistake(
        "drift-divergence-missing", "likelihood", "f * D - 0.5 * g2 * trace", "-0.5 * g2 * trace",
        "the divergence f D of the linear drift is missing", "densities too high by 5 nats a dimension", "textbook",
    ),
    Mistake(
        "drift-divergence-not-summed", "likelihood", "f * D - 0.5", "f - 0.5",
        "the divergence of the linear drift is f, and not f D", "too high by 5 nats a further dimension", "textbook",
    ),
    Mistake(
        "half-missing-in-prior", "likelihood", "-0.5 * np.sum(x**2, axis=1) -", "-np.sum(x**2, axis=1) -",
        "the prior has |x|², and not ½ |x|²", "off by the square of the code", "textbook",
    ),
    Mistake(
        "density-of-noised-data", "likelihood", "np.geomspace(1e-5, 1.0, 60)", "np.geomspace(1e-1, 1.0, 60)",
        "the flow starts at t = .1: the density is that of data with this noise", "smooth, flat densities",
        "google-research/score_flow",
    ),
    Mistake(
        "probes-summed", "likelihood", "for p in probes) / K", "for p in probes)", "the probes are summed and not averaged",
        "densities off by hundreds of nats, more with more probes", "bayesflow#772, #777",
    ),
    Mistake(
        "prior-of-other-variance", "likelihood",
        "np.sum(x**2, axis=1) / sigma_max**2 - 0.5 * D * np.log(2 * np.pi * sigma_max**2)",
        "np.sum(x**2, axis=1) - 0.5 * D * np.log(2 * np.pi)",
        "the prior has variance 1", "densities of e^-3000", "yang-song/score_sde_pytorch#64",
    ),
    Mistake(
        "prior-width-forgotten", "likelihood", "np.log(2 * np.pi * sigma_max**2)", "np.log(2 * np.pi)",
        "log σ of the prior is missing", "too high by log σ_max a dimension", "yang-song/score_sde_pytorch#64",
    ),
    Mistake(
        "not-per-dimension", "likelihood", "(x.shape[1] * np.log(2))", "np.log(2)", "it is not divided by the number of dimensions",
        "bits of the whole image", "textbook",
    ),
    Mistake(
        "nats-for-bits", "likelihood", "(x.shape[1] * np.log(2))", "x.shape[1]", "it is in nats: ln 2 is missing",
        "30 % fewer bits than others have", "openai/improved-diffusion#33",
    ),
    Mistake(
        "offset-of-8-bits", "likelihood", "np.log(2))", "np.log(2)) + 8", "8 bits a dimension are added to data that are no pictures in 256 levels",
        "figures that cannot be compared", "yang-song/score_sde_pytorch, likelihood.py; Weixy21/SafeDiffuser#9",
    ),
)  # fmt: skip
