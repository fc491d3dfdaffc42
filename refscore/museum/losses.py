"""Losses as tutorials write them, and what people wrote instead. Chapter 17.

A specimen takes the SDE and returns the loss: it draws its own times and noise.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from refscore.museum.mistake import Mistake
from refscore.noise.parametrisation import PARAMETRISATIONS

rng = np.random.default_rng(0)  # a tutorial's, for all draws


def ddpm_simple(sde: Any) -> Any:
    """Ho et al. 2020: the network predicts the noise, told an index."""
    alphas_bar = np.array(sde.alphas[1:]) ** 2
    N = len(alphas_bar)

    def loss(model: Any, x0: Any) -> Any:
        t = rng.integers(0, N, size=x0.shape[0])
        noise = rng.standard_normal(x0.shape)
        a = alphas_bar[t][:, None]
        x_t = np.sqrt(a) * x0 + np.sqrt(1 - a) * noise
        predicted = model(x_t, t)
        return np.mean((predicted - noise) ** 2)

    return loss


def score_vp(sde: Any) -> Any:
    """Song et al. 2021: a score in continuous time, likelihood weighting."""

    def loss(model: Any, x0: Any) -> Any:
        eps = 1e-3
        t = rng.uniform(eps, 1.0, size=x0.shape[0])
        z = rng.standard_normal(x0.shape)
        mean, std = sde.alpha(t)[:, None] * x0, sde.sigma(t)[:, None]
        x_t = mean + std * z
        residual = model(x_t, t) + z / std
        weight = sde.g(t) ** 2
        return 0.5 * np.mean(np.sum(residual**2, axis=1) * weight)

    return loss


def ncsn(sde: Any) -> Any:
    """Song and Ermon 2019: a ladder of noise levels, told σ."""
    sigmas = np.array(sde.sigmas[1:])

    def loss(model: Any, x0: Any) -> Any:
        labels = rng.integers(0, len(sigmas), size=x0.shape[0])
        sigma = sigmas[labels][:, None]
        noise = rng.standard_normal(x0.shape) * sigma
        target = -noise / sigma**2
        score = model(x0 + noise, labels)
        each = 0.5 * np.sum((score - target) ** 2, axis=1) * sigma[:, 0] ** 2
        return each.mean()

    return loss


def edm(sde: Any) -> Any:
    """Karras et al. 2022: a denoiser, told σ, log σ normal."""

    def loss(D: Any, y: Any) -> Any:
        P_mean, P_std, sigma_data = -1.2, 1.2, 0.5
        sigma = np.exp(P_mean + P_std * rng.standard_normal((y.shape[0], 1)))
        weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
        n = rng.standard_normal(y.shape) * sigma
        return np.mean(weight * (D(y + n, sigma[:, 0]) - y) ** 2)

    return loss


def v_prediction(sde: Any) -> Any:
    """Salimans and Ho 2022, with the min-SNR weight of Hang et al. 2023."""
    alphas, sigmas = np.array(sde.alphas[1:]), np.array(sde.sigmas[1:])

    def loss(model: Any, x0: Any) -> Any:
        t = rng.integers(0, len(alphas), size=x0.shape[0])
        noise = rng.standard_normal(x0.shape)
        alpha, sigma = alphas[t][:, None], sigmas[t][:, None]
        x_t = alpha * x0 + sigma * noise
        v = alpha * noise - sigma * x0
        snr = (alpha / sigma) ** 2
        weight = np.minimum(snr, 5.0) / (snr + 1)
        each = np.sum(weight * (model(x_t, t) - v) ** 2, axis=1)
        return np.mean(each)

    return loss


def flow_matching(sde: Any) -> Any:
    """Lipman et al. 2023, straight paths: x = (1 - t) x₀ + t z."""

    def loss(model: Any, x0: Any) -> Any:
        t = rng.random((x0.shape[0], 1))
        z = rng.standard_normal(x0.shape)
        x_t = (1 - t) * x0 + t * z
        target = z - x0
        return ((model(x_t, t[:, 0]) - target) ** 2).mean()

    return loss


class Straight:
    """The linear SDE of straight paths: α = 1 - t, σ = t."""

    prior_std = 1.0

    def alpha(self, t: Any) -> Any:
        """Return 1 - t."""
        return 1 - t

    def sigma(self, t: Any) -> Any:
        """Return the time itself."""
        return t

    def f(self, t: Any) -> Any:
        """Return α'/α."""
        return -1 / (1 - t)

    def g(self, t: Any) -> Any:
        """Return the root of 2 t/(1 - t)."""
        return (2 * t / (1 - t)) ** 0.5

    def time(self, sigma: Any) -> Any:
        """Return σ itself."""
        return sigma

    def time_at_log_ratio(self, ratio: Any) -> Any:
        """Return the logistic function of log σ/α."""
        return 1 / (1 + np.exp(-ratio))


SPECIMENS = (ddpm_simple, score_vp, ncsn, edm, v_prediction, flow_matching)

MISTAKES = (
    Mistake(
        "root-of-alpha-missing",
        "loss",
        "np.sqrt(a) * x0",
        "a * x0",
        "x₀ is scaled by ᾱ and not by its root",
        "the network learns levels that the sampler never visits; grey samples",
        "textbook",
    ),
    Mistake(
        "root-of-sigma-missing",
        "loss",
        "np.sqrt(1 - a) * noise",
        "(1 - a) * noise",
        "the noise is scaled by 1 - ᾱ",
        "less noise than the sampler meets",
        "acids-ircam/diffusion_models#1",
    ),
    Mistake(
        "single-step",
        "loss",
        "np.array(sde.alphas[1:]) ** 2",
        "np.array([(b / a) ** 2 for a, b in zip(sde.alphas, sde.alphas[1:])])",
        "the noise is that of one step and not of all up to t",
        "samples stay noise",
        "acids-ircam/diffusion_models#5",
    ),
    Mistake(
        "one-index-early",
        "loss",
        "model(x_t, t)\n        return np.mean((",
        "model(x_t, t + 1)\n        return np.mean((",
        "the model is told t + 1 and shown t",
        "nothing in pictures",
        "cloneofsimo/minDiffusion; lucidrains#18",
    ),
    Mistake(
        "first-level-never-drawn",
        "loss",
        "rng.integers(0, N,",
        "rng.integers(1, N,",
        "the first level is never drawn",
        "the last step of sampling asks what was never learnt",
        "AkiRusProd/numpy-diffusion",
    ),
    Mistake(
        "last-level-never-drawn",
        "loss",
        "rng.integers(0, N,",
        "rng.integers(0, N - 1,",
        "the last level is never drawn",
        "the first step of sampling asks what was never learnt",
        "cloneofsimo/minDiffusion, randint(1, n_T)",
    ),
    Mistake(
        "one-time-for-the-batch",
        "loss",
        "size=x0.shape[0])\n        noise",
        "size=1)\n        noise",
        "one time is drawn for the whole batch",
        "a loss that jumps; training several times slower",
        "textbook",
    ),
    Mistake(
        "noise-not-gaussian",
        "loss",
        "rng.standard_normal(x0.shape)",
        "rng.random(x0.shape)",
        "uniform noise, as of torch.rand_like, for normal",
        "samples too bright, never sharp",
        "acids-ircam/diffusion_models#8",
    ),
    Mistake(
        "one-noise-for-the-batch",
        "loss",
        "noise = rng.standard_normal(x0.shape)",
        "noise = rng.standard_normal((1, x0.shape[1])) + 0 * x0",
        "all samples of the batch get the same noise",
        "a loss that jumps",
        "textbook",
    ),
    Mistake(
        "target-of-other-noise",
        "loss",
        "(predicted - noise)",
        "(predicted - rng.standard_normal(x0.shape))",
        "the target is drawn anew",
        "the loss stays at 1",
        "textbook",
    ),
    Mistake(
        "target-sign-flipped",
        "loss",
        "predicted - noise",
        "predicted + noise",
        "the sign of the target is wrong",
        "the loss falls as it should; samples fly apart",
        "torchebm PR#333",
    ),
    Mistake(
        "target-is-data",
        "loss",
        "predicted - noise",
        "predicted - x0",
        "the model is held to the data, not to the noise",
        "samples shrink to a blur in one step",
        "lucidrains/denoising-diffusion-pytorch#135",
    ),
    Mistake(
        "not-squared",
        "loss",
        "np.mean((predicted - noise) ** 2)",
        "np.mean(np.abs(predicted - noise))",
        "the absolute error is minimised by the median, not by the mean",
        "a score that is biased where modes are uneven",
        "lucidrains/denoising-diffusion-pytorch, loss_type='l1'",
    ),
    Mistake(
        "model-sees-clean-data",
        "loss",
        "model(x_t, t)\n        return np.mean((",
        "model(x0, t)\n        return np.mean((",
        "the model is given x₀, and not x_t",
        "the loss stays at 1",
        "textbook",
    ),
    Mistake(
        "target-sign-flipped",
        "loss",
        "model(x_t, t) + z / std",
        "model(x_t, t) - z / std",
        "the sign of the target is wrong",
        "samples fly apart",
        "torchebm PR#333",
    ),
    Mistake(
        "target-divided-again",
        "loss",
        "z / std",
        "z / std**2",
        "the target is divided by σ²: the variance for the deviation",
        "the score is too large by 1/σ",
        "yang-song/score_sde_pytorch#26",
    ),
    Mistake(
        "target-not-divided",
        "loss",
        "z / std",
        "z",
        "the target is -z where -z/σ is meant",
        "the score is too small by σ",
        "yang-song/score_sde_pytorch#49",
    ),
    Mistake(
        "diffusion-for-its-square",
        "loss",
        "sde.g(t) ** 2",
        "sde.g(t)",
        "the weight is g, and not g²",
        "no bound on the likelihood any more",
        "eje24/iap-diffusion-labs PR#28",
    ),
    Mistake(
        "weights-averaged-over-the-batch",
        "loss",
        "np.sum(residual**2, axis=1) * weight",
        "np.sum(residual**2, axis=1, keepdims=True) * weight",
        "(B, 1) beside (B,) becomes (B, B): every sample gets the mean weight",
        "the weighting is lost, silently",
        "pytorch#4938",
    ),
    Mistake(
        "label-scaled",
        "loss",
        "model(x_t, t) + z",
        "model(x_t, 999 * t) + z",
        "the label is 999 t",
        "a model that others call with t is told nonsense",
        "yang-song/score_sde_pytorch, models/utils.py",
    ),
    Mistake(
        "levels-never-drawn",
        "loss",
        "rng.uniform(eps, 1.0,",
        "rng.uniform(0.5, 1.0,",
        "the lower half of the times is never drawn",
        "details are missing",
        "textbook",
    ),
    Mistake(
        "target-not-divided",
        "loss",
        "-noise / sigma**2",
        "-noise / sigma**1",
        "the target is -z where -z/σ is meant",
        "the score is too small by σ",
        "ermongroup/ncsn",
        only=("ncsn",),
    ),
    Mistake(
        "target-sign-flipped",
        "loss",
        "-noise / sigma**2",
        "noise / sigma**2",
        "the sign of the target is wrong",
        "samples fly apart",
        "torchebm PR#333",
    ),
    Mistake(
        "weight-root-missing",
        "loss",
        "sigma[:, 0] ** 2",
        "sigma[:, 0]",
        "the weight is σ, and not σ²",
        "large noise counts most",
        "yang-song/score_sde_pytorch#26",
    ),
    Mistake(
        "edm-weight-without-square",
        "loss",
        "(sigma * sigma_data) ** 2",
        "(sigma * sigma_data)",
        "the denominator of EDM's weight is not squared",
        "small noise counts too little",
        "NVlabs/edm#9",
    ),
    Mistake(
        "levels-never-drawn",
        "loss",
        "rng.standard_normal((y.shape[0], 1))",
        "rng.random((y.shape[0], 1))",
        "log σ is uniform on a short piece",
        "levels outside .3 to 1 are never learnt",
        "textbook",
    ),
    Mistake(
        "target-sign-of-one-term",
        "loss",
        "alpha * noise - sigma * x0",
        "alpha * noise + sigma * x0",
        "v has the wrong sign of x₀",
        "a ghost of the negative",
        "huggingface/diffusers PR#1421",
    ),
    Mistake(
        "target-exchanged",
        "loss",
        "alpha * noise - sigma * x0",
        "alpha * x0 - sigma * noise",
        "α and σ are exchanged in v",
        "samples stay noise",
        "textbook",
    ),
    Mistake(
        "min-snr-of-noise",
        "loss",
        "/ (snr + 1)",
        "/ snr",
        "the min-SNR weight for noise is used for v",
        "the largest noise weighs 25 000 times too much",
        "huggingface/diffusers#9451; TiankaiHang/Min-SNR-Diffusion-Training#2",
    ),
    Mistake(
        "target-sign-flipped",
        "loss",
        "z - x0",
        "x0 - z",
        "the velocity points the wrong way",
        "samples fly apart",
        "facebookresearch/flow_matching: noise at t = 0, here at 1",
    ),
    Mistake(
        "alpha-and-sigma-exchanged",
        "loss",
        "(1 - t) * x0 + t * z",
        "t * x0 + (1 - t) * z",
        "the path runs the other way",
        "the first step goes to the noise",
        "facebookresearch/flow_matching: noise at t = 0, here at 1",
    ),
)

# ------------------------------------------------------------------ what slips make of noise, target and weight

Pair = tuple[Any, Any]


def levels(way: Any, t: Any) -> Iterator[tuple[str, str, Pair]]:
    """α and σ that a patient may use who should use those of t."""
    sde, N = way.sde, getattr(way.sde, "n", None)

    def at(s: Any) -> Pair:
        s = np.clip(s, 1e-9, 1.0)
        return sde.alpha(s), sde.sigma(s)

    alpha, sigma = at(t)
    yield "", "", (alpha, sigma)
    if N:
        yield "one-index-late", "x has the noise of one index more than the model is told", at(t + 1 / N)
        yield "one-index-early", "x has the noise of one index less than the model is told", at(t - 1 / N)
        step = alpha / sde.alpha(np.clip(t - 1 / N, 0.0, 1.0))
        yield (
            "single-step",
            "x has the noise of one step, √(1 - β) and √β, and not of all up to t",
            (step, np.sqrt(1 - step**2)),
        )
        yield "single-step", "x has the noise of one step, with β for √β", (step, 1 - step**2)
    yield "time-reversed", "x has the noise of the other end of the time", at(1 - t + (1 / N if N else 0.0))
    yield "root-of-alpha-missing", "x₀ is scaled by ᾱ = α² and not by its root", (alpha**2, sigma)
    yield "root-of-sigma-missing", "the noise is scaled by σ² and not by its root", (alpha, sigma**2)
    yield "roots-missing", "x₀ and the noise are scaled by α² and σ² and not by their roots", (alpha**2, sigma**2)
    yield "alpha-and-sigma-exchanged", "α and σ are exchanged", (sigma, alpha)
    yield "alpha-forgotten", "x₀ is not scaled by α", (np.ones_like(t), sigma)
    yield "sigma-forgotten", "the noise is not scaled by σ", (alpha, np.ones_like(t))


def targets(way: Any, t: Any, used: Pair) -> Iterator[tuple[str, str, Pair]]:
    """A and C of what a patient may regress on, who noised with `used`; the right one first."""
    alpha, sigma = used
    mine = "data" if way.predicts == "denoiser" else way.predicts
    zero, one, right = np.zeros_like(t), np.ones_like(t), way.sde.sigma(np.clip(t, 1e-9, 1.0))
    a, b = way.affine(t, "velocity")
    found: dict[str, Any] = {
        "noise": (zero, 1 / sigma), "data": (one, zero), "score": (zero, -1 / sigma**2),
        "v": (-sigma, alpha / sigma), "velocity": (a * way.sde.alpha(t), (a - b / right**2) * right / sigma),
    }  # fmt: skip
    found["velocity-to-data"] = tuple(-c for c in found["velocity"])
    k, m = way.affine(t, "F")  # F = k x - m z/σ
    found["F"] = (k * alpha, k - m / (right * sigma))
    yield "", "", found[mine]
    for name, (A, C) in found.items():
        if name not in (mine, "F", "velocity-to-data"):
            yield f"target-is-{name}", f"the model should predict {mine}, and is held to the {name}", (A, C)
            yield f"target-is-minus-{name}", f"the model is held to minus the {name}", (-A, -C)
    A, C = found[mine]
    yield "target-sign-flipped", "the sign of the target is wrong", (-A, -C)
    yield "target-noise-scaled", "the target is σ z, the noise that was added, and not z", (zero, one)
    yield "target-not-divided", "the target is -z, and is not divided by σ", (zero, -1 / sigma)
    yield "target-divided-again", "the target is divided by σ once too often", (A / sigma, C / sigma)
    if mine in ("v", "velocity", "velocity-to-data"):
        yield "target-sign-of-one-term", "one of the two terms of the target has the wrong sign", (-A, C)
    yield "target-exchanged", "x₀ and the noise are exchanged in the target", (alpha, -one)
    yield "target-is-x", "the target is x_t itself", (alpha, one)
    yield (
        "target-of-the-right-noise",
        "the target is divided by the σ that is due, and x has another",
        (zero, -1 / (sigma * right)),
    )


def weights(way: Any, t: Any) -> dict[str, Any]:
    """λ of known weights, as of a loss of the score: λ ‖s - s*‖²."""
    alpha, sigma, g = way.sde.alpha(t), way.sde.sigma(t), way.sde.g(t)
    snr, data = (alpha / sigma) ** 2, sigma**4 / alpha**2
    edm = {f"EDM's, data of deviation {s}": ((sigma / alpha) ** 2 + s**2) * snr / s**2 * data for s in (0.5, 1.0)}
    plain = {
        name: way.affine(t, name)[1] ** 2 for name in PARAMETRISATIONS if name not in ("F", "score", "noise", "data")
    }
    return {
        "σ²": sigma**2, "g²": g**2, "1": np.ones_like(t), "σ⁴/α² (of the data)": data,
        **{f"that of the {name}": value for name, value in plain.items()}, **edm,
        "σ² min(SNR, 5)/SNR": sigma**2 * np.minimum(snr, 5) / snr,
    }  # fmt: skip


def weight_slips(way: Any, t: Any) -> dict[str, tuple[str, Any]]:
    """λ of weights with a slip, as `weights` has them, and what it is."""
    alpha, sigma, g, b2 = way.sde.alpha(t), way.sde.sigma(t), way.sde.g(t), way.affine(t)[1] ** 2
    snr, ratio = (alpha / sigma) ** 2, (sigma / alpha) ** 2
    return {
        "weight-root-missing": ("λ is σ, and not σ²", sigma),
        "diffusion-for-its-square": ("λ is g, and not g²", g),
        "weight-inverted": ("the weight is inverted", sigma**4 / g**2),
        "min-snr-of-noise": (
            "min(SNR, 5)/SNR is the weight for noise; of v it is min(SNR, 5)/(SNR + 1), of the data min(SNR, 5)",
            b2 * np.minimum(snr, 5) / snr,
        ),
        "edm-weight-without-square": (
            "(ς² + σ_d²)/(ς σ_d) lacks the square below", b2 * (ratio + 0.25) / (np.sqrt(ratio) * 0.5),
        ),
    }  # fmt: skip
