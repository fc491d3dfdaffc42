"""Likelihoods as people write them along the probability flow, and what they wrote instead. Chapter 17.

A specimen takes the SDE and returns log_prob(model, x), or bits per dimension where its name says so.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from refscore.laws.mixture import GaussianMixture
from refscore.likelihood.flow import FixedSteps, Flow
from refscore.museum.mistake import Mistake
from refscore.noise.exact_score import ExactScore
from refscore.protocols import SDE

rng = np.random.default_rng(0)


def flow_vp(sde: Any) -> Any:
    """Song et al. 2021, with the whole trace by differences, and the midpoint rule."""

    def velocity(model: Any, x: Any, t: float) -> Any:
        f, g2, D, h = sde.f(t), sde.g(t) ** 2, x.shape[1], 1e-4

        def score(y: Any) -> Any:
            return -model(y, t) / sde.sigma(t)

        trace = sum((score(x + h * e) - score(x - h * e))[:, i] / (2 * h) for i, e in enumerate(np.eye(D)))
        return f * x - 0.5 * g2 * score(x), f * D - 0.5 * g2 * trace

    def log_prob(model: Any, x: Any) -> Any:
        times, logdet = np.geomspace(1e-5, 1.0, 40), 0.0
        for s, t in pairwise(times):
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
        D, K, h, logdet = x.shape[1], 3, 1e-4, 0.0
        probes = rng.choice([-1.0, 1.0], size=(K, *x.shape))
        sigmas = np.geomspace(1e-3, sigma_max, 40)

        def slope(y: Any, at: float) -> Any:
            return (y - denoiser(y, at)) / at

        for s, t in pairwise(sigmas):
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
        "sign-flipped",
        "likelihood",
        "return prior + logdet",
        "return -(prior + logdet)",
        "it is minus the log density",
        "the likelier, the lower",
        "yang-song/score_sde_pytorch#59",
        only=("flow_vp",),
    ),
    Mistake(
        "divergence-sign-flipped",
        "likelihood",
        "return prior + logdet",
        "return prior - logdet",
        "the integral of the divergence has the wrong sign",
        "densities off by many nats, likely points unlikely",
        "bayesflow PR#617",
        only=("flow_vp",),
    ),
    Mistake(
        "divergence-missing",
        "likelihood",
        "return prior + logdet",
        "return prior",
        "the integral of the divergence is missing",
        "all points are about equally likely",
        "bayesflow PR#617: the solver ignores the added trace",
        only=("flow_vp",),
    ),
    Mistake(
        "prior-constant-once",
        "likelihood",
        "- 0.5 * x.shape[1] * np.log(2 * np.pi)",
        "- 0.5 * np.log(2 * np.pi)",
        "½ log 2π of the prior is counted once, and not D times",
        ".9 nats a further dimension too many",
        "ermongroup/ncsn, gmm.py",
    ),
    Mistake(
        "prior-constant-missing",
        "likelihood",
        " - 0.5 * x.shape[1] * np.log(2 * np.pi)",
        "",
        "½ D log 2π of the prior is missing",
        "the density does not integrate to 1",
        "facebookresearch/flow_matching#55",
    ),
    Mistake(
        "half-missing-in-divergence",
        "likelihood",
        "f * D - 0.5 * g2 * trace",
        "f * D - g2 * trace",
        "the divergence has g² tr ∇s, and not ½ g² tr ∇s",
        "densities too high by nats",
        "textbook",
    ),
    Mistake(
        "half-missing-in-drift",
        "likelihood",
        "f * x - 0.5 * g2 * score(x)",
        "f * x - g2 * score(x)",
        "the flow has g² s, and not ½ g² s: the reverse SDE's drift",
        "codes that are no noise",
        "textbook",
    ),
    Mistake(
        "drift-divergence-missing",
        "likelihood",
        "f * D - 0.5 * g2 * trace",
        "-0.5 * g2 * trace",
        "the divergence f D of the linear drift is missing",
        "densities too high by 5 nats a dimension",
        "textbook",
    ),
    Mistake(
        "drift-divergence-not-summed",
        "likelihood",
        "f * D - 0.5",
        "f - 0.5",
        "the divergence of the linear drift is f, and not f D",
        "too high by 5 nats a further dimension",
        "textbook",
    ),
    Mistake(
        "half-missing-in-prior",
        "likelihood",
        "-0.5 * np.sum(x**2, axis=1) -",
        "-np.sum(x**2, axis=1) -",
        "the prior has |x|², and not ½ |x|²",
        "off by the square of the code",
        "textbook",
    ),
    Mistake(
        "density-of-noised-data",
        "likelihood",
        "np.geomspace(1e-5, 1.0, 40)",
        "np.geomspace(1e-1, 1.0, 40)",
        "the flow starts at t = .1: the density is that of data with this noise",
        "smooth, flat densities",
        "google-research/score_flow",
    ),
    Mistake(
        "probes-summed",
        "likelihood",
        "for p in probes) / K",
        "for p in probes)",
        "the probes are summed and not averaged",
        "densities off by hundreds of nats, more with more probes",
        "bayesflow#772, #777",
    ),
    Mistake(
        "prior-of-other-variance",
        "likelihood",
        "np.sum(x**2, axis=1) / sigma_max**2 - 0.5 * D * np.log(2 * np.pi * sigma_max**2)",
        "np.sum(x**2, axis=1) - 0.5 * D * np.log(2 * np.pi)",
        "the prior has variance 1",
        "densities of e^-3000",
        "yang-song/score_sde_pytorch#64",
    ),
    Mistake(
        "prior-width-forgotten",
        "likelihood",
        "np.log(2 * np.pi * sigma_max**2)",
        "np.log(2 * np.pi)",
        "log σ of the prior is missing",
        "too high by log σ_max a dimension",
        "yang-song/score_sde_pytorch#64",
    ),
    Mistake(
        "not-per-dimension",
        "likelihood",
        "(x.shape[1] * np.log(2))",
        "np.log(2)",
        "it is not divided by the number of dimensions",
        "bits of the whole image",
        "textbook",
    ),
    Mistake(
        "nats-for-bits",
        "likelihood",
        "(x.shape[1] * np.log(2))",
        "x.shape[1]",
        "it is in nats: ln 2 is missing",
        "30 % fewer bits than others have",
        "openai/improved-diffusion#33",
    ),
    Mistake(
        "offset-of-8-bits",
        "likelihood",
        "np.log(2))",
        "np.log(2)) + 8",
        "8 bits a dimension are added to data that are no pictures in 256 levels",
        "figures that cannot be compared",
        "yang-song/score_sde_pytorch, likelihood.py; Weixy21/SafeDiffuser#9",
    ),
)

# ------------------------------------------------------------------ what slips make of a likelihood

Guess = tuple[str, str, Any]  # name, sentence, what such a patient would say


@dataclass(frozen=True)
class Scaled:
    """A score and its derivative, times a factor."""

    score: Any
    factor: float

    def __call__(self, x: Any, t: Any) -> Any:
        """Return the factor times the score."""
        return self.factor * self.score(x, t)

    def jvp(self, x: Any, t: Any, v: Any) -> tuple[Any, Any]:
        """Return both, times the factor."""
        s, sdot = self.score.jvp(x, t, v)
        return self.factor * s, self.factor * sdot


FLOWS = (
    (2.0, "half-missing-in-drift", "the flow has g² s, and not ½ g² s"),
    (-1.0, "sign-of-score-in-drift", "the flow has the score with the wrong sign"),
    (0.0, "score-missing-in-drift", "the flow has no score"),
)


def slips(mixture: GaussianMixture, sde: SDE, x: Any, found: Any, units: str) -> Iterator[Guess]:
    """What a patient says of x (B, D) who makes one slip: name, sentence, log densities; `found` is what it says."""
    gap, nearest = float(np.std(found - mixture.log_prob(x))), math.inf
    for guess in (*_units_and_offsets(mixture, sde, x, found, units), *_along_the_flow(mixture, sde, x, found)):
        nearest = min(nearest, float(np.sqrt(np.mean((found - guess[2]) ** 2))))
        yield guess
    for factor, name, says in FLOWS if nearest > 0.1 * gap else ():
        square, trace, drift, const = _parts(mixture, sde, x, factor, 20)
        for c in (1.0, 0.5, -1.0):  # such a flow may expand without end, each solver by its own factor
            rest = const + drift + c * trace
            yield name, says, rest + np.sum(square * (found - rest)) / np.sum(square**2) * square


def _units_and_offsets(mixture: GaussianMixture, sde: SDE, x: Any, found: Any, units: str) -> Iterator[Guess]:
    D, bit, exact = mixture.dim, math.log(2), mixture.log_prob(x)
    yield "sign-flipped", "it is minus the log density", -exact
    yield "per-dimension", "it is divided by the number of dimensions", exact / D
    if units == "nats":
        yield "bits-for-nats", "it is in bits: divided by ln 2", exact / bit
        yield "bits-per-dimension-for-nats", "it is -log₂ p per dimension", -exact / (D * bit)
    else:
        yield "nats-for-bits", "it is in nats: ln 2 is missing", exact * bit
        yield "not-per-dimension", "it is not divided by the number of dimensions", exact * D
    for t in (0.003, 0.01, 0.03, 0.1, 0.3):
        yield (
            "density-of-noised-data",
            f"it is the density at t = {t}, of data with that noise",
            mixture.log_prob(x, sde.alpha(t), sde.sigma(t)),
        )
    variance, once = float(sde.prior_std) ** 2, 0.5 * math.log(2 * math.pi)
    offsets = {
        "prior-constant-missing": ("½ D log 2π of the prior is missing", D * once),
        "prior-constant-once": ("½ log 2π of the prior is counted once, and not D times", (D - 1) * once),
        "prior-width-forgotten": ("log σ of the prior is missing", 0.5 * D * math.log(variance)),
    }  # fmt: skip
    for bits in (7, 8):
        for sign, word in ((1, "high"), (-1, "low")):
            says = f"it is {bits} bits a dimension too {word}"
            yield f"offset-of-{bits}-bits", says, exact + sign * bits * D * bit
    for k, word in ((127.5, "127.5"), (255.0, "255"), (2.0, "2")):
        for sign in (1, -1):
            yield (
                f"log-of-{word}-a-dimension",
                f"it is off by D log {word}: the data's units",
                exact + sign * D * math.log(k),
            )
    for name, (says, offset) in offsets.items():
        yield name, says, exact + offset
    says = "the normaliser of the prior is counted once, and not D times"
    yield "prior-constant-once", says, exact + (D - 1) * (once + 0.5 * math.log(variance))
    yield (
        "constant-offset",
        f"it is off by a constant, {np.mean(found - exact):+.4g} nats",
        exact + np.mean(found - exact),
    )


def _parts(mixture: GaussianMixture, sde: SDE, x: Any, factor: float, steps: int) -> tuple[Any, Any, float, float]:
    """-½ |x₁|²/ς², -½ ∫ g² tr ∇s, ∫ f D and -½ D log 2πς², along the flow of `factor` times the score."""
    D, variance, start = mixture.dim, float(sde.prior_std) ** 2, 1 / getattr(sde, "n", 100_000)
    flow = Flow(sde, Scaled(ExactScore(mixture, sde), factor), (D,))
    with np.errstate(all="ignore"):
        y = FixedSteps(sde, steps)(flow, np.concatenate([x, np.zeros((len(x), 1))], axis=1), start, 1.0)
    drift = D * float(np.log(sde.alpha(1.0) / sde.alpha(start)))
    square = -0.5 * np.sum(y[:, :D] ** 2, axis=1) / variance
    return square, y[:, D] - drift, drift, -0.5 * D * math.log(2 * math.pi * variance)


def _along_the_flow(mixture: GaussianMixture, sde: SDE, x: Any, found: Any) -> Iterator[Guess]:
    """What slips in the prior and in the divergence make."""
    D, variance = mixture.dim, float(sde.prior_std) ** 2
    square, trace, drift, const = _parts(mixture, sde, x, 1.0, 40)
    yield (
        "divergence-sign-flipped",
        "the integral of the divergence has the wrong sign",
        const + square - drift - trace,
    )
    yield "divergence-missing", "the integral of the divergence is missing", const + square
    yield "drift-divergence-missing", "the divergence f D of the linear drift is missing", const + square + trace
    yield "trace-missing", "the trace of the score's derivative is missing", const + square + drift
    yield (
        "trace-sign-flipped",
        "the trace of the score's derivative has the wrong sign",
        const + square + drift - trace,
    )
    yield (
        "half-missing-in-divergence",
        "the divergence has g² tr ∇s, and not ½ g² tr ∇s",
        const + square + drift + 2 * trace,
    )
    yield (
        "drift-divergence-not-summed",
        "the divergence of the linear drift is f, and not f D",
        const + square + drift / D + trace,
    )
    yield "half-missing-in-prior", "the prior has |x|², and not ½ |x|²", const + 2 * square + drift + trace
    other = -0.5 * D * math.log(2 * math.pi) + variance * square + drift + trace
    yield "prior-of-other-variance", "the prior has variance 1", other
    for name, part, rest in (("drift and all", drift + trace, 0.0), ("the trace", trace, drift)):
        k = float(np.sum(part * (found - const - square - rest)) / np.sum(part * part))
        if abs(k - round(k)) < 0.3 and round(k) >= 2:
            says = f"the probes are summed and not averaged: {name} counts {round(k)} times"
            yield "probes-summed", says, const + square + rest + round(k) * part
        if 0.05 < k < 0.7 and abs(1 / k - round(1 / k)) < 0.1 / k:
            says = f"the trace is averaged over the dimensions: {name} counts 1/{round(1 / k)}"
            yield "trace-averaged", says, const + square + rest + part / round(1 / k)
