"""Training losses: of installed packages, and as people write them.

An answer says of which quantity the squared error is taken, its weight, the factor before it, the reduction over the
dimensions and over the batch, and the law of the times.
"""

import math
from typing import Any

import numpy as np

from refscore import VE, VP
from tests.oracles.patients.samplers_public import small_levels


def vp_linear():
    return "betas", np.linspace(1e-4, 0.02, 1000).tolist()


def line(t):
    return 1 - t, t


def cosine_200():
    from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import cosine_beta_schedule

    return "betas", cosine_beta_schedule(200).tolist()


def azula_cosine(t):
    alpha = np.cos(math.acos(1e-3) * np.asarray(t))
    return alpha, np.sqrt(1 - alpha**2 + 1e-6)


# ------------------------------------------------------------------ of packages


def lucidrains_loss(model, x0):
    import torch
    from denoising_diffusion_pytorch import GaussianDiffusion1D

    def net(x, t):
        return model(x, t)

    net.channels, net.self_condition = 1, False
    diffusion = GaussianDiffusion1D(net, seq_length=2, timesteps=200, objective="pred_v", auto_normalize=False)
    t = torch.randint(0, diffusion.num_timesteps, (x0.shape[0],)).long()
    return diffusion.p_losses(x0, t)


def smalldiffusion_loss(model, x0):
    import torch
    from smalldiffusion import ScheduleLogLinear
    from smalldiffusion.diffusion import generate_train_sample

    x0, sigma, eps, _ = generate_train_sample(x0, ScheduleLogLinear(N=200, sigma_min=0.005, sigma_max=10))
    return torch.nn.MSELoss()(eps, model(x0 + sigma * eps, sigma))


def azula_loss(model, x0):
    import torch
    from azula.denoise import DiracPosterior, KarrasDenoiser
    from azula.noise import CosineSchedule

    class Exact(KarrasDenoiser):
        def forward(self, x_t, t, **kwargs):
            return DiracPosterior(mean=model(x_t, t))

    return Exact(torch.nn.Identity(), CosineSchedule()).loss(x0, torch.rand(x0.shape[0], dtype=x0.dtype))


def torchcfm_loss(model, x0):
    import torch
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    FM = ConditionalFlowMatcher(sigma=0.0)
    noise = torch.randn_like(x0)
    t, xt, ut = FM.sample_location_and_conditional_flow(x0, noise)
    vt = model(xt, t)
    return torch.mean((vt - ut) ** 2)


def diffusers_loss(model, x0):
    import torch
    import torch.nn.functional as F
    from diffusers import DDPMScheduler

    noise_scheduler = DDPMScheduler(num_train_timesteps=1000, prediction_type="v_prediction")
    noise = torch.randn(x0.shape, dtype=x0.dtype)
    timesteps = torch.randint(0, noise_scheduler.config.num_train_timesteps, (x0.shape[0],), dtype=torch.int64)
    noisy = noise_scheduler.add_noise(x0, noise, timesteps)
    target = noise_scheduler.get_velocity(noise, x0, timesteps)
    return F.mse_loss(model(noisy, timesteps), target)


# ------------------------------------------------------------------ as people write them


def score_loss(model, x0):
    """Denoising score matching of a VP SDE, continuous times, sum over dimensions."""
    import torch

    t = torch.rand(x0.shape[0], dtype=x0.dtype) * (1 - 1e-5) + 1e-5
    z = torch.randn_like(x0)
    log_mean_coeff = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
    mean = torch.exp(log_mean_coeff)[:, None] * x0
    std = torch.sqrt(1.0 - torch.exp(2.0 * log_mean_coeff))
    score = model(mean + std[:, None] * z, t)
    losses = torch.square(score * std[:, None] + z)
    return torch.mean(0.5 * torch.sum(losses.reshape(losses.shape[0], -1), dim=-1))


def edm_loss(model, x0):
    """Karras et al., data of deviation 0.5."""
    import torch

    P_mean, P_std, sigma_data = -1.2, 1.2, 0.5
    rnd_normal = torch.randn([x0.shape[0], 1], dtype=x0.dtype)
    sigma = (rnd_normal * P_std + P_mean).exp()
    weight = (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2
    n = torch.randn_like(x0) * sigma
    D_yn = model(x0 + n, sigma)
    return (weight * ((D_yn - x0) ** 2)).mean()


def simple_loss(model, x0):
    """The training loop of a tutorial."""
    import torch
    import torch.nn.functional as F

    T = 1000
    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, T), 0)
    t = torch.randint(1, T, (x0.shape[0],))
    noise = torch.randn_like(x0)
    ab = alphas_cumprod[t][:, None]
    x_t = ab.sqrt() * x0 + (1 - ab).sqrt() * noise
    return F.mse_loss(model(x_t, t), noise)


def anneal_dsm_score_estimation(model, x0):
    """Noise conditional score network: NumPy, ten levels."""
    sigmas = np.geomspace(10.0, 0.1, 10)
    labels = np.random.randint(0, len(sigmas), len(x0))
    used_sigmas = sigmas[labels][:, None]
    perturbed = x0 + np.random.randn(*x0.shape) * used_sigmas
    target = (perturbed - x0) / used_sigmas**2
    scores = model(perturbed, labels)
    loss = 0.5 * ((scores - target) ** 2).sum(axis=-1) * used_sigmas.squeeze(1) ** 2
    return loss.mean(axis=0)


def ve_loss(model, x0):
    """A VE loss with the weight that makes every level count alike; JAX."""
    import jax
    import jax.numpy as jnp

    k1, k2 = jax.random.split(jax.random.PRNGKey(np.random.randint(2**31 - 1)))
    t = jax.random.uniform(k1, (x0.shape[0],), minval=1e-5, maxval=1.0)
    std = 0.01 * jnp.sqrt(5000.0 ** (2 * t) - 1)
    z = jax.random.normal(k2, x0.shape)
    score = model(x0 + std[:, None] * z, t)
    return jnp.mean(jnp.sum((score + z / std[:, None]) ** 2, axis=1) * std)


def flow_loss(model, x0):
    """Rectified flow with logit-normal times."""
    import torch

    t = torch.sigmoid(torch.randn(x0.shape[0], dtype=x0.dtype))
    z1 = torch.randn_like(x0)
    texp = t[:, None]
    zt = (1 - texp) * x0 + texp * z1
    vtheta = model(zt, t)
    return ((z1 - x0 - vtheta) ** 2).mean(dim=1).mean()


TORCH: dict[str, Any] = {"kind": "loss", "library": "torch", "needs": ("torch",), "mistake": None}
MEAN = "mean over dimensions and batch, factor 1"

PATIENTS: dict[str, dict[str, Any]] = {
    "lucidrains_loss": {
        **TORCH, "patient": lucidrains_loss, "needs": ("torch", "denoising_diffusion_pytorch"),
        "predicts": "v", "told": "index from 0", "schedule": cosine_200,
        "answer": {
            "squared error of": "v", "weight": "SNR/(SNR + 1) = ᾱ", "reduction": MEAN, "times": "all indices alike",
        },
    },
    "smalldiffusion_loss": {
        **TORCH, "patient": smalldiffusion_loss, "needs": ("torch", "smalldiffusion"),
        "predicts": "noise", "told": "sigma", "schedule": small_levels,
        "answer": {
            "squared error of": "noise", "weight": "1", "reduction": MEAN,
            "times": "all 200 geometric levels from 0.005 to 10 alike",
        },
    },
    "azula_loss": {
        **TORCH, "patient": azula_loss, "needs": ("torch", "azula"),
        "predicts": "data", "told": "time", "schedule": lambda: azula_cosine,
        "answer": {
            "squared error of": "data", "weight": "α²/σ² + 1", "reduction": MEAN, "times": "uniform in [0, 1]",
        },
    },
    "torchcfm_loss": {
        **TORCH, "patient": torchcfm_loss, "needs": ("torch", "torchcfm"),
        "predicts": "velocity to data", "told": "time from noise", "schedule": lambda: line,
        "answer": {
            "squared error of": "velocity", "weight": "1", "reduction": MEAN, "times": "uniform in [0, 1]",
        },
        "mistake": "data and noise are exchanged: the target has the wrong sign, and time runs from data to noise",
    },
    "diffusers_loss": {
        **TORCH, "patient": diffusers_loss, "needs": ("torch", "diffusers"),
        "predicts": "v", "told": "index from 0", "schedule": vp_linear,
        "answer": {"squared error of": "v", "weight": "1", "reduction": MEAN, "times": "all indices alike"},
        "mistake": "get_velocity is given noise and data in the wrong order: the target is α x0 - σ z, not α z - σ x0",
    },
    "score_loss": {
        **TORCH, "patient": score_loss, "predicts": "score", "told": "time", "schedule": lambda: VP(0.1, 20.0),
        "answer": {
            "squared error of": "score", "weight": "σ²", "reduction": "half the sum over dimensions, mean over batch",
            "times": "uniform in [1e-5, 1]",
        },
    },
    "edm_loss": {
        **TORCH, "patient": edm_loss, "predicts": "denoiser", "told": "sigma",
        "schedule": lambda: ("sigmas", [0.002, 80.0]),
        "answer": {
            "squared error of": "data", "weight": "(σ² + σ_d²)/(σ σ_d)², σ_d = 0.5", "reduction": MEAN,
            "times": "log σ ~ N(-1.2, 1.2²)",
        },
    },
    "simple_loss": {
        **TORCH, "patient": simple_loss, "predicts": "noise", "told": "index from 0", "schedule": vp_linear,
        "answer": {"squared error of": "noise", "weight": "1", "reduction": MEAN, "times": "indices 1 to 999 alike"},
        "mistake": "index 0, the level of the least noise, is never drawn",
    },
    "anneal_dsm_score_estimation": {
        "patient": anneal_dsm_score_estimation, "kind": "loss", "library": "numpy", "needs": (),
        "predicts": "score", "told": "index of sigmas", "schedule": lambda: ("sigmas", np.geomspace(10.0, 0.1, 10)),
        "answer": {
            "squared error of": "score", "weight": "σ²", "reduction": "half the sum over dimensions, mean over batch",
            "times": "all 10 levels alike",
        },
        "mistake": "the target has the wrong sign: (x_t - x0)/σ² instead of -(x_t - x0)/σ²",
    },
    "ve_loss": {
        "patient": ve_loss, "kind": "loss", "library": "jax", "needs": ("jax",),
        "predicts": "score", "told": "time", "schedule": lambda: VE(0.01, 50.0),
        "answer": {
            "squared error of": "score", "weight": "σ", "reduction": "sum over dimensions, mean over batch",
            "times": "uniform in [1e-5, 1]",
        },
        "mistake": "the weight is σ where it should be σ²: the standard deviation in place of the variance",
    },
    "flow_loss": {
        **TORCH, "patient": flow_loss, "predicts": "velocity", "told": "time", "schedule": lambda: line,
        "answer": {"squared error of": "velocity", "weight": "1", "reduction": MEAN, "times": "logit-normal(0, 1)"},
    },
}  # fmt: skip
