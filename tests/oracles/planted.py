"""The exhibits of the museum beside the clinic: how each specimen is asked."""

from collections.abc import Callable
from typing import Any

import numpy as np

from refscore import VP, GaussianMixture
from refscore.clinic.derivatives import derivatives
from refscore.clinic.diagnosis import Diagnosis
from refscore.clinic.exact import TimeConvention, network
from refscore.clinic.likelihood import likelihood
from refscore.clinic.loss import loss
from refscore.clinic.schedule import schedule
from refscore.clinic.score import score
from refscore.museum import layers, likelihoods, losses, schedules, scores
from refscore.noise.chains import ddpm, from_sigmas
from refscore.noise.grids import geometric_levels
from refscore.noise.sde import LinearVE

Specimen = Callable[..., Any]

THREE = GaussianMixture(
    np.array([0.5, 0.3, 0.2]),
    np.array([[-2.0, 0.5], [1.5, 1.5], [0.5, -2.0]]),
    np.array([[0.5, 0.1], [0.3, 0.05], [0.2, 0.2]]),
)
TWO = GaussianMixture(np.array([0.7, 0.3]), np.array([[-2.0, 0.5], [1.5, 1.5]]), np.array([0.5, 0.1]))

SCORES: dict[str, Any] = {  # SDE, what its network predicts and is told, what the score is told
    "of_mixture": (VP(), "noise", "time", "time"), "from_noise": (ddpm(1000), "noise", "index", "time"),
    "from_denoiser": (LinearVE(80.0), "denoiser", "sigma", "sigma"), "from_v": (VP(), "v", "time", "time"),
}  # fmt: skip
LOSSES: dict[str, Any] = {  # SDE, what its model predicts and is told
    "ddpm_simple": (ddpm(1000), "noise", "index"), "score_vp": (VP(), "score", "time"),
    "ncsn": (from_sigmas(geometric_levels(1.0, 0.01, 10)), "score", "index"),
    "edm": (LinearVE(80.0), "denoiser", "sigma"), "v_prediction": (ddpm(1000), "v", "index"),
    "flow_matching": (losses.Straight(), "velocity", "time"),
}  # fmt: skip
LIKELIHOODS: dict[str, Any] = {  # and the units of its answer
    "flow_vp": (VP(), "noise", "time", "nats"), "hutchinson_sigma": (LinearVE(80.0), "denoiser", "sigma", "nats"),
    "flow_bits": (VP(), "noise", "time", "bits"),
}  # fmt: skip


def of_schedule(specimen: Specimen) -> Diagnosis:
    """A schedule is what the end of its name says."""
    kind = next(end for end in ("alphas_bar", "betas", "sigmas") if specimen.__name__.endswith(end))
    return schedule(**{kind: specimen()})


def of_score(specimen: Specimen) -> Diagnosis:
    """A score around an exact network."""
    sde, predicts, told, label = SCORES[specimen.__name__]
    exact = network(TimeConvention(sde, predicts, told), THREE)
    return score(specimen(THREE, sde, exact), THREE, sde, told=label)


def of_loss(specimen: Specimen) -> Diagnosis:
    """A loss draws its own noise."""
    sde, predicts, told = LOSSES[specimen.__name__]
    return loss(specimen(sde), sde, predicts=predicts, told=told)


def of_likelihood(specimen: Specimen) -> Diagnosis:
    """A likelihood of two modes."""
    sde, predicts, told, units = LIKELIHOODS[specimen.__name__]
    return likelihood(specimen(sde), TWO, sde, predicts=predicts, told=told, units=units)


def of_layer(specimen: Specimen) -> Diagnosis:
    """A layer at sizes that are made smaller."""
    return derivatives(specimen(), at=layers.sizes(specimen))


ROOMS: dict[str, tuple[Any, Callable[[Specimen], Diagnosis]]] = {
    "schedule": (schedules, of_schedule), "score": (scores, of_score), "loss": (losses, of_loss),
    "likelihood": (likelihoods, of_likelihood), "layer": (layers, of_layer),
}  # fmt: skip
