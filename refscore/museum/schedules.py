"""Schedules as tutorials write them, and what people wrote instead. Chapter 17.

The name of a specimen ends in what it returns: betas, alphas_bar or sigmas.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from refscore.museum.mistake import Mistake

List = Any  # of float64


def linear_alphas_bar(N: int = 1000) -> Any:
    """Ho et al. 2020."""
    betas = np.linspace(1e-4, 0.02, N)
    alphas = 1.0 - betas
    alphas_bar = np.cumprod(alphas)
    return alphas_bar


def scaled_linear_betas(N: int = 1000) -> Any:
    """Latent diffusion: the root of β is linear."""
    start, end = 0.00085, 0.012
    betas = np.linspace(start**0.5, end**0.5, N) ** 2
    return betas


def cosine_betas(N: int = 1000) -> Any:
    """Nichol and Dhariwal 2021."""
    s = 0.008
    t = np.linspace(0, N, N + 1) / N
    f = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    alphas_bar = f / f[0]
    betas = 1 - alphas_bar[1:] / alphas_bar[:-1]
    return np.clip(betas, 0, 0.999)


def respaced_betas(N: int = 250) -> Any:
    """Fewer steps of the schedule of 1000: the ratios of every fourth ᾱ."""
    alphas_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    kept = alphas_bar[1000 // N - 1 :: 1000 // N]
    before = np.append(1.0, kept[:-1])
    betas = 1 - kept / before
    return betas


def scaled_alphas_bar(N: int = 250) -> Any:
    """The linear schedule for any number of steps."""
    scale = 1000 / N
    betas = np.linspace(scale * 1e-4, scale * 0.02, N)
    return np.cumprod(1 - betas)


def vp_alphas_bar(N: int = 1000) -> Any:
    """The VP SDE of Song et al. 2021 at the times i/N."""
    beta_min, beta_max = 0.1, 20.0
    t = np.arange(1, N + 1) / N
    integral = beta_min * t + 0.5 * (beta_max - beta_min) * t**2
    return np.exp(-integral)


def karras_sigmas(N: int = 18) -> Any:
    """Karras et al. 2022, with the 0 at the end."""
    sigma_min, sigma_max, rho = 0.002, 80.0, 7.0
    ramp = np.linspace(0, 1, N)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    sigmas = (high + ramp * (low - high)) ** rho
    return np.append(sigmas, 0.0)


def geometric_sigmas(N: int = 232) -> Any:
    """The noise levels of Song and Ermon 2020."""
    sigma_max, sigma_min = 50.0, 0.01
    sigmas = np.exp(np.linspace(np.log(sigma_max), np.log(sigma_min), N))
    return sigmas


SPECIMENS = (
    linear_alphas_bar, scaled_linear_betas, cosine_betas, respaced_betas, scaled_alphas_bar, vp_alphas_bar,
    karras_sigmas, geometric_sigmas,
)  # fmt: skip

MISTAKES = (
    Mistake(
        "product-of-betas",
        "schedule",
        "np.cumprod(alphas)",
        "np.cumprod(betas)",
        "ᾱ is the product of β and not of 1 - β",
        "pure noise from the second step on; the loss is that of noise alone",
        "textbook",
    ),
    Mistake(
        "not-cumulated",
        "schedule",
        "np.cumprod(alphas)",
        "alphas",
        "ᾱ is α = 1 - β of each step, and not their product",
        "the network never sees strong noise; samples stay noise",
        "acids-ircam/diffusion_models#5",
    ),
    Mistake(
        "sum-for-product",
        "schedule",
        "np.cumprod(alphas)",
        "1 - np.cumsum(betas)",
        "ᾱ is 1 minus the sum of β: negative after a tenth of the way",
        "NaN from the root of a negative number",
        "textbook",
    ),
    Mistake(
        "one-late",
        "schedule",
        "np.cumprod(alphas)",
        "np.append(1.0, np.cumprod(alphas)[:-1])",
        "the list of ᾱ of the step before is taken for ᾱ",
        "the first level has no noise: division by 0, or a wasted step",
        "lucidrains/denoising-diffusion-pytorch#18",
    ),
    Mistake(
        "root-taken",
        "schedule",
        "np.cumprod(alphas)",
        "np.sqrt(np.cumprod(alphas))",
        "√ᾱ stands where ᾱ is meant, and a root of it is taken again",
        "the terminal level keeps 8 % of the data",
        "google-research/vdm, 2-D colab",
    ),
    Mistake(
        "last-step-lost",
        "schedule",
        "np.linspace(1e-4, 0.02, N)",
        "np.linspace(1e-4, 0.02, N, endpoint=False)",
        "the end point is left out: β_N is a step short of .02",
        "nothing: ᾱ_N is 4.1e-5 for 4.0e-5; another chain all the same",
        "cloneofsimo/minDiffusion",
        only=("linear_alphas_bar",),
    ),
    Mistake(
        "half-precision",
        "schedule",
        "np.cumprod(alphas)",
        "np.cumprod(alphas).astype('float16')",
        "ᾱ is in half precision, where .9999 is 1",
        "the first steps add no noise; NaN where 1/σ is needed",
        "huggingface/diffusers#9004",
    ),
    Mistake(
        "reversed",
        "schedule",
        "return alphas_bar",
        "return alphas_bar[::-1]",
        "the list runs from noise to data",
        "step 1 gets the noise of step N",
        "ermongroup/ncsn and DDPM differ",
    ),
    Mistake(
        "root-taken",
        "schedule",
        "end**0.5, N) ** 2",
        "end**0.5, N)",
        "β is not squared after its root was made linear",
        "all noise after thirty steps",
        "textbook",
    ),
    Mistake(
        "square-without-root",
        "schedule",
        "np.linspace(start**0.5, end**0.5, N)",
        "np.linspace(start, end, N)",
        "the ends are squared though no root was taken of them",
        "hardly any noise at the end: ᾱ_N = .95",
        "textbook",
    ),
    Mistake(
        "cosine-unclipped",
        "schedule",
        "np.clip(betas, 0, 0.999)",
        "betas",
        "the last β is 1",
        "the first step of sampling divides by 1e-16: huge numbers or NaN",
        "openai/guided-diffusion#137",
    ),
    Mistake(
        "one-minus-alpha-bar",
        "schedule",
        "1 - alphas_bar[1:] / alphas_bar[:-1]",
        "1 - alphas_bar[1:]",
        "β is 1 - ᾱ, and not one minus a ratio of two",
        "all noise after a few steps",
        "textbook",
    ),
    Mistake(
        "cosine-without-offset",
        "schedule",
        "s = 0.008",
        "s = 0.0",
        "the offset of the cosine is missing",
        "β_1 is 2e-6: the least noise is below what a network resolves",
        "textbook",
        only=("cosine_betas",),
    ),
    Mistake(
        "cosine-without-quarter-turn",
        "schedule",
        " * np.pi / 2",
        "",
        "the angle is not multiplied by π/2",
        "ᾱ_N = .29: sampling starts from noise that the network never saw",
        "textbook",
        only=("cosine_betas",),
    ),
    Mistake(
        "betas-skipped",
        "schedule",
        "betas = 1 - kept / before",
        "betas = np.linspace(1e-4, 0.02, 1000)[:: 1000 // N]",
        "every fourth β is kept, and what the others did is lost",
        "ᾱ at the end .08 for 4e-5: grey, washed-out samples",
        "IDEALLab/EngiOpt PR#67",
    ),
    Mistake(
        "schedule-too-short",
        "schedule",
        "scale = 1000 / N",
        "scale = 1",
        "the ends of β made for 1000 steps are used for 250",
        "ᾱ at the end .08, and sampling starts from N(0, I)",
        "IDEALLab/EngiOpt PR#67; tanelp/tiny-diffusion#4",
    ),
    Mistake(
        "slope-not-halved",
        "schedule",
        "0.5 * (beta_max",
        "(beta_max",
        "∫β has t² (β_max - β_min) without its ½",
        "more noise than the sampler believes",
        "textbook",
    ),
    Mistake(
        "root-taken",
        "schedule",
        "np.exp(-integral)",
        "np.exp(-0.5 * integral)",
        "α stands where ᾱ = α² is meant",
        "the terminal level keeps .7 % of the data's amplitude for .004 %",
        "yang-song/score_sde_pytorch#44",
    ),
    Mistake(
        "rho-inverted",
        "schedule",
        "(low - high)) ** rho",
        "(low - high)) ** (1 / rho)",
        "the power ρ is inverted on the way back",
        "all levels lie between .6 and 1.1",
        "textbook",
        only=(),
    ),
    Mistake(
        "variance-for-deviation",
        "schedule",
        "return sigmas",
        "return sigmas**2",
        "the list holds σ² and is used as σ",
        "the noise starts at 2500 and not at 50",
        "yang-song/score_sde_pytorch#26",
        only=("geometric_sigmas",),
    ),
    Mistake(
        "natural-log-base-ten",
        "schedule",
        "np.exp(np.linspace(",
        "10 ** (np.linspace(",
        "10 is raised to natural logarithms",
        "levels from 2.5e-5 to 8200",
        "torch.logspace takes exponents of base 10",
        only=("geometric_sigmas",),
    ),
)

# ------------------------------------------------------------------ what slips make of a list


def _cosine(n: int, offset: float = 0.008, quarter: float = 0.5 * math.pi) -> List:
    return np.cos((np.arange(n + 1) / n + offset) / (1 + offset) * quarter) ** 2


def _clipped(f: List, most: float = 0.999) -> List:
    return np.cumprod(1 - np.minimum(1 - f[1:] / f[:-1], most))


def _sigmoid(n: int) -> List:  # start -3, end 3, τ 1
    f = 1 / (1 + np.exp(-3 + 6 * np.arange(n + 1) / n))
    return (f - f[-1]) / (f[0] - f[-1])


def _vp(n: int, half: float = 0.5) -> List:
    t = np.arange(1, n + 1) / n
    return np.exp(-(0.1 * t + half * 19.9 * t**2))


def _betas(betas: Callable[[int], List]) -> Callable[[int], List]:
    return lambda n: np.cumprod(1 - betas(n))


KNOWN: dict[str, Callable[[int], List]] = {  # number of steps -> ᾱ_1, ..., ᾱ_N
    "linear": _betas(lambda n: np.linspace(1e-4, 0.02, n)),
    "linear-scaled": _betas(lambda n: np.linspace(0.1, 20, n) / n),
    "scaled-linear": _betas(lambda n: np.linspace(0.00085**0.5, 0.012**0.5, n) ** 2),
    "quadratic": _betas(lambda n: np.linspace(1e-4**0.5, 0.02**0.5, n) ** 2),
    "sigmoid-betas": _betas(lambda n: 1e-4 + 0.0199 / (1 + np.exp(-np.linspace(-6, 6, n)))),
    "cosine": lambda n: _clipped(_cosine(n)),
    "sigmoid": lambda n: _clipped(_sigmoid(n)),
    "exponential": lambda n: _clipped(np.exp(-12 * np.arange(n + 1) / n)),
    "vp": _vp,
}
VARIANTS: dict[str, tuple[str, str, Callable[[int], List]]] = {  # one slip in the making of one of them
    "cosine-unclipped": (
        "cosine", "β_N is not cut off below 1, so that nothing is left to divide by",
        lambda n: _cosine(n)[1:] / _cosine(n)[0],
    ),
    "cosine-not-normalised": ("cosine", "ᾱ is not divided by its value at 0: ᾱ_0 is not 1", lambda n: _cosine(n)[1:]),
    "cosine-without-offset": ("cosine", "the offset s = .008 is missing", lambda n: _clipped(_cosine(n, offset=0.0))),
    "cosine-without-quarter-turn": (
        "cosine", "the angle is not multiplied by π/2, and the noise never wins",
        lambda n: _clipped(_cosine(n, 0.008, 1.0)),
    ),
    "slope-not-halved": ("vp", "∫β has t² (β_max - β_min) without its ½", lambda n: _vp(n, half=1.0)),
    "square-without-root": (
        "scaled-linear", "the ends are squared though no root was taken of them",
        _betas(lambda n: np.linspace(0.00085, 0.012, n) ** 2),
    ),
}  # fmt: skip


def _before(ab: List) -> List:
    return np.concatenate([[1.0], ab[:-1]])


def listed(kind: str, ab: List) -> List:
    """What a list of betas, alphas_bar or sigmas (σ/α) holds, from ᾱ."""
    return 1 - ab / _before(ab) if kind == "betas" else np.sqrt(1 / ab - 1) if kind == "sigmas" else ab


Known = Callable[[int], List]
SLIPS: dict[str, tuple[str, str, Callable[[Known, Callable[[List], List], int], List]]] = {  # kinds, sentence, list
    "one-late": (
        "betas alphas_bar", "it starts one step late (β_1 = 0, ᾱ_1 = 1), and the last step is lost",
        lambda known, of, n: of(_before(known(n))),
    ),
    "first-step-lost": ("betas alphas_bar", "the first step is missing", lambda known, of, n: of(known(n + 1))[1:]),
    "last-step-lost": (
        "betas alphas_bar", "the end point is left out, as by range or endpoint=False",
        lambda known, of, n: of(known(n + 1))[:-1],
    ),
    "product-of-betas": (
        "alphas_bar", "the product is of β and not of 1 - β",
        lambda known, of, n: np.cumprod(listed("betas", known(n))),
    ),
    "not-cumulated": (
        "alphas_bar", "it is α = 1 - β of each step, and not their product",
        lambda known, of, n: 1 - listed("betas", known(n)),
    ),
    "sum-for-product": (
        "alphas_bar", "it is 1 minus the sum of β, and not the product of 1 - β",
        lambda known, of, n: 1 - np.cumsum(listed("betas", known(n))),
    ),
    "one-minus-alpha-bar": ("betas alphas_bar", "it is 1 - ᾱ", lambda known, of, n: 1 - known(n)),
    "root-taken": ("betas alphas_bar", "a root is taken", lambda known, of, n: np.sqrt(of(known(n)))),
    "squared": ("betas alphas_bar sigmas", "it is squared", lambda known, of, n: of(known(n)) ** 2),
    "reversed": ("betas alphas_bar", "it runs from noise to data", lambda known, of, n: of(known(n))[::-1]),
    "betas-skipped": (
        "betas", "every k-th β of 1000 is kept: the product of what was left out is lost; take ratios of every k-th ᾱ",
        lambda known, of, n: of(known(1000))[:: 1000 // n],
    ),
    "alphas-bar-of-skipped-betas": (
        "alphas_bar", "it is the product of every k-th 1 - β; take every k-th ᾱ of 1000",
        lambda known, of, n: np.cumprod((1 - listed("betas", known(1000)))[:: 1000 // n]),
    ),
    "half-precision": (
        "alphas_bar", "it is in half precision, where ᾱ near 1 is 1: the first steps add no noise",
        lambda known, of, n: of(known(n)).astype("float16").astype("float64"),
    ),
    "sigma-of-vp": (
        "sigmas", "it is √(1 - ᾱ) and lacks the division by √ᾱ", lambda known, of, n: np.sqrt(1 - known(n)),
    ),
}  # fmt: skip
