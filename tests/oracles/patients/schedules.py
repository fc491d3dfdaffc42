"""Lists of betas, alphas_bar or sigmas: of installed packages, and as people write them; `gives` says which."""

import math
from typing import Any

import numpy as np

# ------------------------------------------------------------------ of packages


def diffusers_cosine():
    from diffusers import DDPMScheduler

    return DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2").betas.tolist()


def diffusers_rescaled():
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    return scheduler.alphas_cumprod.tolist()


def diffusers_short():
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=100).betas.tolist()


def kdiffusion_karras():
    from k_diffusion.sampling import get_sigmas_karras

    return get_sigmas_karras(25, 0.03, 14.6).tolist()


def smalldiffusion_ldm():
    from smalldiffusion import ScheduleLDM

    return ScheduleLDM().sigmas.tolist()


def trained_betas():
    """DDPMScheduler with betas of one's own, of Stable Diffusion's numbers."""
    from diffusers import DDPMScheduler

    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000)
    return DDPMScheduler(trained_betas=betas).betas.tolist()


# ------------------------------------------------------------------ as people write them


def cosine_of_a_blog():
    """Cosine schedule, 500 steps; ᾱ of the indices 0, ..., 499."""
    T, s = 500, 0.008
    t = np.arange(T + 1) / T
    f = np.cos((t + s) / (1 + s) * np.pi / 2) ** 2
    alphas_cumprod = f / f[0]
    return alphas_cumprod[:-1].tolist()


def geometric():
    """The levels of the first score networks."""
    return np.exp(np.linspace(np.log(1.0), np.log(0.01), 10)).tolist()


def karras_of_a_student():
    """Karras' levels."""
    n, sigma_min, sigma_max, rho = 30, 0.002, 80.0, 7.0
    i = np.arange(n) / (n - 1)
    return [*((sigma_max ** (1 / rho) + i * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho).tolist(), 0.0]


def vp_discretised():
    """ᾱ of the VP SDE at i/N, i = 1, ..., N, N = 200."""
    t = np.arange(1, 201) / 200
    return np.exp(-0.25 * t**2 * (20 - 0.1) - 0.5 * t * 0.1).tolist()


def warmed_up():
    """Linear betas for 250 steps, scaled as 1000/T."""
    T = 250
    scale = 1000 / T
    return [scale * (1e-4 + (0.02 - 1e-4) * i / (T - 1)) for i in range(T)]


def sigmoid_of_a_repository():
    """ᾱ by a sigmoid, of Jabri et al., 300 steps."""
    steps, start, end, tau = 300, -3, 3, 1
    t = np.linspace(0, steps, steps + 1) / steps
    v_start, v_end = 1 / (1 + math.exp(-start / tau)), 1 / (1 + math.exp(-end / tau))
    ab = (v_end - 1 / (1 + np.exp(-(t * (end - start) + start) / tau))) / (v_end - v_start)
    betas = 1 - ab[1:] / ab[:-1]
    return np.clip(betas, 0, 0.999).tolist()


SCHEDULE: dict[str, Any] = {"kind": "schedule", "needs": (), "mistake": None}
DIFFUSERS: dict[str, Any] = {**SCHEDULE, "needs": ("torch", "diffusers")}

PATIENTS: dict[str, dict[str, Any]] = {
    "diffusers_cosine": {
        **DIFFUSERS, "patient": diffusers_cosine, "gives": "betas",
        "answer": {"name": "cosine", "n": 1000, "offset": 0.008, "largest beta": 0.999},
    },
    "diffusers_rescaled": {
        **DIFFUSERS, "patient": diffusers_rescaled, "gives": "alphas_bar",
        "answer": {"name": "scaled linear", "n": 1000, "from": 0.00085, "to": 0.012, "terminal SNR": "zero, rescaled"},
    },
    "diffusers_short": {
        **DIFFUSERS, "patient": diffusers_short, "gives": "betas",
        "answer": {"name": "linear", "n": 100, "from": 1e-4, "to": 0.02},
        "mistake": "the betas of 1000 steps for 100 steps: ᾱ ends at 0.36, the prior is far from N(0, 1)",
    },
    "kdiffusion_karras": {
        **SCHEDULE, "patient": kdiffusion_karras, "needs": ("torch", "k_diffusion"), "gives": "sigmas",
        "answer": {"name": "karras", "n": 25, "from": 14.6, "to": 0.03, "rho": 7, "and then": 0},
    },
    "smalldiffusion_ldm": {
        **SCHEDULE, "patient": smalldiffusion_ldm, "needs": ("torch", "smalldiffusion"), "gives": "sigmas",
        "answer": {"name": "scaled linear, as sigma = √(1/ᾱ - 1)", "n": 1000, "from": 0.00085, "to": 0.012},
    },
    "trained_betas": {
        **DIFFUSERS, "patient": trained_betas, "gives": "betas",
        "answer": {"name": "scaled linear", "n": 1000, "from": 0.00085, "to": 0.012},
        "mistake": "the roots of scaled linear betas are not squared: 0.029 to 0.11 instead of 0.00085 to 0.012",
    },
    "cosine_of_a_blog": {
        **SCHEDULE, "patient": cosine_of_a_blog, "gives": "alphas_bar",
        "answer": {"name": "cosine", "n": 500, "offset": 0.008},
        "mistake": "shifted by one: ᾱ of index 0 is 1 (no noise), the last level is missing",
    },
    "geometric": {
        **SCHEDULE, "patient": geometric, "gives": "sigmas",
        "answer": {"name": "geometric", "n": 10, "from": 1.0, "to": 0.01},
    },
    "karras_of_a_student": {
        **SCHEDULE, "patient": karras_of_a_student, "gives": "sigmas",
        "answer": {"name": "karras", "n": 30, "from": 80.0, "to": 0.002, "rho": 7, "and then": 0},
    },
    "vp_discretised": {
        **SCHEDULE, "patient": vp_discretised, "gives": "alphas_bar",
        "answer": {"name": "vp", "n": 200, "beta_min": 0.1, "beta_max": 20.0},
        "mistake": "α, the root of ᾱ, is given as ᾱ: the exponent lacks a factor 2",
    },
    "warmed_up": {
        **SCHEDULE, "patient": warmed_up, "gives": "betas",
        "answer": {"name": "linear", "n": 250, "from": 4e-4, "to": 0.08, "is": "ddpm, N β from 0.1 to 20"},
    },
    "sigmoid_of_a_repository": {
        **SCHEDULE, "patient": sigmoid_of_a_repository, "gives": "betas",
        "answer": {"name": "sigmoid", "n": 300, "start": -3, "end": 3, "tau": 1, "largest beta": 0.999},
    },
}  # fmt: skip
