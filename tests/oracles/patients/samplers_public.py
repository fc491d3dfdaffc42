"""Samplers of installed packages, as people call them."""

import math
from typing import Any

import numpy as np

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # Stable Diffusion's


def linear(n=1000, **options):
    """The levels of diffusers, in its own single precision."""

    def schedule():
        from diffusers import DDPMScheduler

        return "alphas_bar", DDPMScheduler(n, **options).alphas_cumprod.tolist()

    return schedule


def straight(t):
    return 1 - t, t


def from_sigmas(high, low):
    return lambda: ("sigmas", [low, high])


# ------------------------------------------------------------------ diffusers


def loop(scheduler, model, x, **options):
    """The loop of diffusers' documentation, from standard normal latents."""
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(x, t)
        noise_pred = model(model_input, t)
        x = scheduler.step(noise_pred, t, x, **options).prev_sample
    return x


def diffusers_ddpm(model, x, rng):
    from diffusers import DDPMScheduler

    scheduler = DDPMScheduler(num_train_timesteps=1000, clip_sample=False)
    scheduler.set_timesteps(50)
    return loop(scheduler, model, x)


def diffusers_ddim_v(model, x, rng):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        **SD,
    )
    scheduler.set_timesteps(25)
    return loop(scheduler, model, x)


def diffusers_ddim_linspace(model, x, rng):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(timestep_spacing="linspace", clip_sample=False)
    scheduler.set_timesteps(25)
    return loop(scheduler, model, x)


def diffusers_ddim_trailing(model, x, rng):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(num_train_timesteps=1000, timestep_spacing="trailing")
    scheduler.set_timesteps(40)
    return loop(scheduler, model, x, eta=0.0)


def diffusers_ddim_loop(model, x, rng):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(50)
    for t in scheduler.timesteps[25:]:
        x = scheduler.step(model(x, t), t, x, eta=0.0).prev_sample
    return x


def diffusers_euler(model, x, rng):
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(timestep_spacing="trailing", beta_schedule="linear")
    scheduler.set_timesteps(20)
    return loop(scheduler, model, x)


def diffusers_euler_handmade_loop(model, x, rng):
    from diffusers import EulerDiscreteScheduler

    scheduler = EulerDiscreteScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(25)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        noise_pred = model(x, t)
        x = scheduler.step(noise_pred, t, x).prev_sample
    return x


def diffusers_euler_ancestral(model, x, rng):
    from diffusers import EulerAncestralDiscreteScheduler

    scheduler = EulerAncestralDiscreteScheduler(timestep_spacing="leading", steps_offset=1, **SD)
    scheduler.set_timesteps(25)
    return loop(scheduler, model, x)


def euler_ancestral_subclass(model, x, rng):
    import torch
    from diffusers import EulerAncestralDiscreteScheduler

    class Ancestral(EulerAncestralDiscreteScheduler):
        def step(self, model_output, timestep, sample):
            if self.step_index is None:
                self._init_step_index(timestep)
            sigma_from, sigma_to = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
            sigma_up = (sigma_to**2 * (sigma_from**2 - sigma_to**2) / sigma_from**2) ** 0.5
            sample = sample + model_output * (sigma_to - sigma_from)
            sample = sample + torch.randn_like(sample) * sigma_up
            self._step_index += 1
            return sample

    scheduler = Ancestral(timestep_spacing="trailing")
    scheduler.set_timesteps(50)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x)
    return x


def diffusers_dpmpp_karras(model, x, rng):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(use_karras_sigmas=True, **SD)
    scheduler.set_timesteps(20)
    return loop(scheduler, model, x)


def diffusers_dpmpp_default(model, x, rng):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    return loop(scheduler, model, x)


def diffusers_dpmpp_from_config(model, x, rng):
    from diffusers import DPMSolverMultistepScheduler

    scheduler = DPMSolverMultistepScheduler(timestep_spacing="trailing", **SD)
    scheduler.set_timesteps(25)
    return loop(scheduler, model, x)


def diffusers_heun(model, x, rng):
    from diffusers import HeunDiscreteScheduler

    scheduler = HeunDiscreteScheduler(timestep_spacing="trailing", beta_start=1e-4, beta_end=0.02)
    scheduler.set_timesteps(20)
    return loop(scheduler, model, x)


def heun_subclass(model, x, rng):
    from diffusers import HeunDiscreteScheduler

    class Heun(HeunDiscreteScheduler):
        def step(self, model_output, timestep, sample):
            if self.step_index is None:
                self._init_step_index(timestep)
            if self.state_in_first_order:
                sigma, sigma_next = self.sigmas[self.step_index], self.sigmas[self.step_index + 1]
                derivative = model_output
                dt = sigma_next - sigma
                self.prev_derivative, self.dt, self.sample = derivative, dt, sample
            else:
                sigma, sigma_next = self.sigmas[self.step_index - 1], self.sigmas[self.step_index]
                pred_original_sample = sample - sigma_next * model_output
                derivative = (sample - pred_original_sample) / sigma
                derivative = (self.prev_derivative + derivative) / 2
                dt, sample = self.dt, self.sample
                self.prev_derivative = self.dt = self.sample = None
            self._step_index += 1
            return sample + derivative * dt

    scheduler = Heun(timestep_spacing="trailing", beta_start=1e-4, beta_end=0.02)
    scheduler.set_timesteps(25)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x)
    return x


def diffusers_unipc(model, x, rng):
    from diffusers import UniPCMultistepScheduler

    scheduler = UniPCMultistepScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(20)
    return loop(scheduler, model, x)


def diffusers_lms(model, x, rng):
    from diffusers import LMSDiscreteScheduler

    scheduler = LMSDiscreteScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(25)
    return loop(scheduler, model, x)


def diffusers_edm(model, x, rng):
    from diffusers import EDMEulerScheduler

    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    scheduler.set_timesteps(30)
    return loop(scheduler, model, x)


def diffusers_flow_match(model, x, rng):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(28)
    for t in scheduler.timesteps:
        x = scheduler.step(model(x, t), t, x).prev_sample
    return x


def diffusers_flow_match_pipeline(model, x, rng):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(40)
    for t in scheduler.timesteps:
        timestep = t.expand(x.shape[0])
        noise_pred = model(x, timestep / 1000)
        x = scheduler.step(noise_pred, t, x).prev_sample
    return x


# ------------------------------------------------------------------ k-diffusion


def kdiffusion_dpmpp_2m(model, x, rng):
    from k_diffusion.sampling import get_sigmas_karras, sample_dpmpp_2m

    sigmas = get_sigmas_karras(20, 0.02, 40.0)
    return sample_dpmpp_2m(model, x, sigmas, disable=True)


def kdiffusion_euler_ancestral(model, x, rng):
    from k_diffusion.sampling import get_sigmas_exponential, sample_euler_ancestral

    sigmas = get_sigmas_exponential(40, 0.02, 30.0)
    return sample_euler_ancestral(model, x, sigmas, disable=True)


def kdiffusion_heun_wrapped(model, x, rng):
    from k_diffusion.sampling import get_sigmas_karras, sample_heun

    def denoiser(x, sigma):
        return x - model(x, sigma)

    return sample_heun(denoiser, x, get_sigmas_karras(20, 0.02, 20.0), disable=True)


def kdiffusion_dpm_2(model, x, rng):
    from k_diffusion.sampling import get_sigmas_karras, sample_dpm_2

    return sample_dpm_2(model, x, get_sigmas_karras(20, 0.02, 20.0), disable=True)


# ------------------------------------------------------------------ azula


def azula_denoiser(model, schedule):
    from azula.denoise import Denoiser, DiracPosterior

    class Exact(Denoiser):
        def __init__(self):
            super().__init__()
            self.schedule = schedule

        def forward(self, x_t, t, **kwargs):
            return DiracPosterior(mean=model(x_t, t))

    return Exact()


def azula_vp(t):
    alpha = np.exp(math.log(1e-3) * np.asarray(t) ** 2)
    return alpha, np.sqrt(1 - alpha**2 + 1e-6)


def azula_rectified(t):
    return t * 1e-3 + (1 - t), t + (1 - t) * 1e-3


def azula_ddim(model, x, rng):
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler

    return DDIMSampler(azula_denoiser(model, VPSchedule()), eta=0.5, steps=64, silent=True)(x)


def azula_heun(model, x, rng):
    import torch
    from azula.noise import RectifiedSchedule
    from azula.sample import HeunSampler

    denoiser = azula_denoiser(model, RectifiedSchedule())
    return HeunSampler(denoiser, steps=32, silent=True, dtype=torch.float64)(x)


def azula_subclass(model, x, rng):
    import torch
    from azula.noise import VPSchedule
    from azula.sample import DDPMSampler

    class MySampler(DDPMSampler):
        def step(self, x_t, t, s, **kwargs):
            alpha_s, sigma_s = self.denoiser.schedule(s)
            alpha_t, sigma_t = self.denoiser.schedule(t)
            tau = 1 - (alpha_t / alpha_s * sigma_s / sigma_t) ** 2
            mean = self.denoiser(x_t, t).mean
            z = torch.sqrt(1 - tau) * (x_t - mean) / sigma_t + torch.sqrt(tau) * torch.randn_like(x_t)
            return alpha_s * mean + sigma_s * z

    return MySampler(azula_denoiser(model, VPSchedule()), steps=64, silent=True)(x)


# ------------------------------------------------------------------ denoising-diffusion-pytorch


def lucidrains(model, **options):
    from denoising_diffusion_pytorch import GaussianDiffusion1D

    model.channels, model.self_condition = 1, False
    return GaussianDiffusion1D(model, seq_length=2, **options)


def lucidrains_cosine(n):
    def schedule():
        from denoising_diffusion_pytorch.denoising_diffusion_pytorch_1d import cosine_beta_schedule

        return "betas", cosine_beta_schedule(n).tolist()

    return schedule


def lucidrains_ddpm(model, x, rng):
    diffusion = lucidrains(lambda x, t: model(x, t), timesteps=200, objective="pred_v", beta_schedule="cosine")
    for t in reversed(range(diffusion.num_timesteps)):
        x, _ = diffusion.p_sample(x, t, clip_denoised=False)
    return x


def lucidrains_ddim(model, x, rng):
    import torch

    diffusion = lucidrains(lambda x, t: model(x, t), timesteps=200, objective="pred_noise", beta_schedule="cosine")
    times = list(reversed(torch.linspace(0, 199, steps=41).int().tolist()))
    for time, time_next in zip(times[:-1], times[1:], strict=True):
        time_cond = torch.full((x.shape[0],), time, dtype=torch.long)
        pred_noise, x_start, *_ = diffusion.model_predictions(x, time_cond)
        alpha_next = diffusion.alphas_cumprod[time_next]
        x = x_start * alpha_next.sqrt() + (1 - alpha_next).sqrt() * pred_noise
    return x


def lucidrains_plain(model, x, rng):
    diffusion = lucidrains(lambda x, t: model(x, t), timesteps=200, objective="pred_x0", beta_schedule="cosine")
    for t in reversed(range(diffusion.num_timesteps)):
        x, _ = diffusion.p_sample(x, t)
    return x


# ------------------------------------------------------------------ smalldiffusion


def small_levels():
    from smalldiffusion import ScheduleLogLinear

    return "sigmas", ScheduleLogLinear(N=200, sigma_min=0.005, sigma_max=10).sigmas.tolist()


def smalldiffusion_ddpm(model, x, rng):
    import torch
    from smalldiffusion import ScheduleLogLinear, samples

    class Wrapper:
        def eval(self):
            pass

        def rand_input(self, batchsize):
            return torch.randn(batchsize, 2)

        def predict_eps_cfg(self, x, sigma, cond, cfg_scale):
            return model(x, sigma)

    schedule = ScheduleLogLinear(N=200, sigma_min=0.005, sigma_max=10)
    *_, x = samples(Wrapper(), schedule.sample_sigmas(50), gam=1, mu=0.5, xt=x)
    return x


# ------------------------------------------------------------------ flows


def flow_matching_midpoint(model, x, rng):
    import torch
    from flow_matching.solver import ODESolver

    solver = ODESolver(velocity_model=lambda x, t: model(x, t))
    return solver.sample(x_init=x, method="midpoint", step_size=0.05, time_grid=torch.tensor([0.0, 1.0]))


def torchcfm_tutorial(model, x, rng):
    import torch
    from torchdyn.core import NeuralODE

    class torch_wrapper(torch.nn.Module):
        def forward(self, t, x, *args, **kwargs):
            return model(x, t.repeat(x.shape[0])[:, None])

    node = NeuralODE(torch_wrapper(), solver="euler", sensitivity="adjoint")
    with torch.no_grad():
        traj = node.trajectory(x, t_span=torch.linspace(1, 0, 101))
    return traj[-1]


# ------------------------------------------------------------------ diffusionjax


def diffusionjax_betas():
    return "betas", ((0.1 + 19.9 * np.arange(1, 201) / 200) / 200).tolist()


def diffusionjax_ddim(model, x, rng):
    import jax
    from diffusionjax.solvers import DDIMVP
    from diffusionjax.utils import get_sampler, get_times

    ts, _ = get_times(num_steps=200)
    sampler = get_sampler(x.shape, DDIMVP(model, eta=0.0, ts=ts))
    return sampler(jax.random.PRNGKey(0), x)[0]


TORCH: dict[str, Any] = {"kind": "sampler", "library": "torch", "prior_std": 1.0, "mistake": None}
DIFFUSERS: dict[str, Any] = {
    **TORCH, "needs": ("torch", "diffusers"),
    "predicts": "noise", "told": "index from 0", "schedule": linear(),
}  # fmt: skip
KDIFFUSION: dict[str, Any] = {
    **TORCH, "needs": ("torch", "k_diffusion"), "predicts": "denoiser", "told": "sigma",
}  # fmt: skip
AZULA: dict[str, Any] = {
    **TORCH, "needs": ("torch", "azula"), "predicts": "data", "told": "time", "schedule": lambda: azula_vp,
}  # fmt: skip
LUCIDRAINS: dict[str, Any] = {
    **TORCH, "needs": ("torch", "denoising_diffusion_pytorch"),
    "told": "index from 0", "schedule": lucidrains_cosine(200),
}  # fmt: skip

PATIENTS: dict[str, dict[str, Any]] = {
    "diffusers_ddpm": {
        **DIFFUSERS, "patient": diffusers_ddpm,
        "answer": {"name": "ancestral", "variance": "small", "grid": "leading, 50 of 1000: 980, 960, ..., 0"},
    },
    "diffusers_ddim_v": {
        **DIFFUSERS, "patient": diffusers_ddim_v, "predicts": "v",
        "schedule": linear(rescale_betas_zero_snr=True, **SD),
        "answer": {
            "name": "ddim", "eta": 0.0, "grid": "trailing, 25 of 1000: 999, 959, ..., 39; zero terminal SNR",
        },
    },
    "diffusers_ddim_linspace": {
        **DIFFUSERS, "patient": diffusers_ddim_linspace,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "linspace, 25 of 1000: 999, 957, ..., 0"},
        "mistake": "each step goes to index t - 1000//25 and not to the next index of the grid: "
        "the model is then told another noise level than x has",
    },
    "diffusers_ddim_trailing": {
        **DIFFUSERS, "patient": diffusers_ddim_trailing,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "trailing, 40 of 1000: 999, 974, ..., 24"},
        "mistake": "x0 is clipped to [-1, 1] (clip_sample is True by default), data are not within",
    },
    "diffusers_ddim_loop": {
        **DIFFUSERS, "patient": diffusers_ddim_loop,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "leading, 50 of 1000, without its first 25: 480, 460, ..., 0"},
        "mistake": "the first half of the steps is left out: pure noise enters at index 480, as if it had that level",
    },
    "diffusers_euler": {
        **DIFFUSERS, "patient": diffusers_euler, "schedule": linear(),
        "answer": {"name": "euler in sigma, which is ddim", "eta": 0.0, "grid": "trailing, 20 of 1000: 999, ..., 49"},
    },
    "diffusers_euler_handmade_loop": {
        **DIFFUSERS, "patient": diffusers_euler_handmade_loop,
        "answer": {"name": "euler in sigma, which is ddim", "eta": 0.0, "grid": "trailing, 25 of 1000"},
        "mistake": "scale_model_input is missing: the model is given x0 + σ z instead of α x0 + √(1 - α²) z",
    },
    "diffusers_euler_ancestral": {
        **DIFFUSERS, "patient": diffusers_euler_ancestral, "schedule": linear(**SD),
        "answer": {"name": "euler ancestral", "is": "ddim, eta 1", "grid": "leading, 25 of 1000: 961, 921, ..., 1"},
    },
    "euler_ancestral_subclass": {
        **DIFFUSERS, "patient": euler_ancestral_subclass,
        "answer": {"name": "euler ancestral", "grid": "trailing, 50 of 1000"},
        "mistake": "the step goes down to sigma_to instead of sigma_down = √(sigma_to² - sigma_up²) "
        "before sigma_up is added: too much noise",
    },
    "diffusers_dpmpp_karras": {
        **DIFFUSERS, "patient": diffusers_dpmpp_karras, "schedule": linear(**SD),
        "answer": {
            "name": "dpm-solver++2m",
            "grid": "karras, 20 from 14.61 to 0.0292, then 0; told the nearest index",
        },
    },
    "diffusers_dpmpp_default": {
        **DIFFUSERS, "patient": diffusers_dpmpp_default, "predicts": "v",
        "answer": {"name": "dpm-solver++2m", "grid": "trailing, 20 of 1000"},
        "mistake": "the model predicts v, the scheduler takes it for noise (prediction_type)",
    },
    "diffusers_dpmpp_from_config": {
        **DIFFUSERS, "patient": diffusers_dpmpp_from_config,
        "answer": {"name": "dpm-solver++2m", "grid": "trailing, 25 of 1000"},
        "mistake": "another schedule than in training: scaled_linear from 0.00085 to 0.012, the model has linear "
        "from 0.0001 to 0.02",
    },
    "diffusers_heun": {
        **DIFFUSERS, "patient": diffusers_heun,
        "answer": {"name": "heun in sigma", "is": "edm, churn 0", "grid": "trailing, 20 of 1000, then 0"},
    },
    "heun_subclass": {
        **DIFFUSERS, "patient": heun_subclass,
        "answer": {"name": "heun in sigma", "is": "edm, churn 0", "grid": "trailing, 25 of 1000, then 0"},
        "mistake": "the second slope is divided by the sigma of the start of the step instead of sigma_next",
    },
    "diffusers_unipc": {
        **DIFFUSERS, "patient": diffusers_unipc,
        "answer": {"name": "unipc", "order": 2, "solver": "bh2", "grid": "trailing, 20 of 1000"},
    },
    "diffusers_lms": {
        **DIFFUSERS, "patient": diffusers_lms,
        "answer": {"name": "linear multistep in sigma", "order": 4, "grid": "trailing, 25 of 1000"},
    },
    "diffusers_edm": {
        **DIFFUSERS, "patient": diffusers_edm, "predicts": "F", "told": "log sigma over 4",
        "schedule": from_sigmas(80.0, 0.002),
        "answer": {"name": "euler in sigma, which is ddim", "eta": 0.0, "grid": "karras, 30 from 80 to 0.002, then 0"},
    },
    "diffusers_flow_match": {
        **DIFFUSERS, "patient": diffusers_flow_match, "predicts": "velocity", "told": "1000 time",
        "schedule": lambda: straight,
        "answer": {"name": "euler", "grid": "28 equal levels from 1 to 0.003, shifted by 3, then 0"},
    },
    "diffusers_flow_match_pipeline": {
        **DIFFUSERS, "patient": diffusers_flow_match_pipeline, "predicts": "velocity", "told": "1000 time",
        "schedule": lambda: straight,
        "answer": {"name": "euler", "grid": "40 equal levels from 1 to 0.001, then 0"},
        "mistake": "the model is told t/1000 and expects t: the unit of time",
    },
    "kdiffusion_dpmpp_2m": {
        **KDIFFUSION, "patient": kdiffusion_dpmpp_2m, "schedule": from_sigmas(40.0, 0.02), "prior_std": 40.0,
        "answer": {"name": "dpm-solver++2m", "grid": "karras, 20 levels from 40 to 0.02, rho 7, then 0"},
    },
    "kdiffusion_euler_ancestral": {
        **KDIFFUSION, "patient": kdiffusion_euler_ancestral, "schedule": from_sigmas(30.0, 0.02), "prior_std": 30.0,
        "answer": {
            "name": "euler ancestral", "is": "ancestral, small", "grid": "geometric, 40 levels from 30 to 0.02, then 0",
        },
    },
    "kdiffusion_heun_wrapped": {
        **KDIFFUSION, "patient": kdiffusion_heun_wrapped, "predicts": "noise",
        "schedule": from_sigmas(20.0, 0.02), "prior_std": 20.0,
        "answer": {"name": "edm", "churn": 0.0, "grid": "karras, 20 levels from 20 to 0.02, rho 7, then 0"},
        "mistake": "the denoiser is x - ε instead of x - σ ε: a factor σ is missing",
    },
    "kdiffusion_dpm_2": {
        **KDIFFUSION, "patient": kdiffusion_dpm_2, "schedule": from_sigmas(20.0, 0.02), "prior_std": 20.0,
        "answer": {
            "name": "dpm-solver-2", "is": "midpoint at the geometric mean of the levels, in sigma",
            "grid": "karras, 20 levels from 20 to 0.02, rho 7, then 0",
        },
    },
    "azula_ddim": {
        **AZULA, "patient": azula_ddim,
        "answer": {"name": "ddim", "eta": "0.5 of τ, that is η = √0.5 of Song's", "grid": "64 equal steps from 1 to 0"},
    },
    "azula_heun": {
        **AZULA, "patient": azula_heun, "schedule": lambda: azula_rectified,
        "answer": {"name": "heun in sigma/alpha", "is": "edm, churn 0", "grid": "32 equal steps from 1 to 0"},
    },
    "azula_subclass": {
        **AZULA, "patient": azula_subclass,
        "answer": {"name": "ancestral", "variance": "small", "grid": "64 equal steps from 1 to 0"},
        "mistake": "the predicted noise is (x_t - x0)/σ_t: the α_t before x0 is missing",
    },
    "lucidrains_ddpm": {
        **LUCIDRAINS, "patient": lucidrains_ddpm, "predicts": "v",
        "answer": {"name": "ancestral", "variance": "small", "grid": "all 200 indices"},
    },
    "lucidrains_ddim": {
        **LUCIDRAINS, "patient": lucidrains_ddim, "predicts": "noise",
        "answer": {"name": "ddim", "eta": 0.0, "grid": "40 steps: 199, 194, ..., 4, 0"},
        "mistake": "the grid ends at index 0 instead of the data (-1): the last step is missing, its noise remains",
    },
    "lucidrains_plain": {
        **LUCIDRAINS, "patient": lucidrains_plain, "predicts": "data",
        "answer": {"name": "ancestral", "variance": "small", "grid": "all 200 indices"},
        "mistake": "x0 is clipped to [-1, 1] (clip_denoised is True by default), data are not within",
    },
    "smalldiffusion_ddpm": {
        **TORCH, "patient": smalldiffusion_ddpm, "needs": ("torch", "smalldiffusion"), "prior_std": 10.0,
        "predicts": "noise", "told": "sigma", "schedule": small_levels,
        "answer": {
            "name": "ancestral", "variance": "small",
            "grid": "trailing, 50 of 200 geometric levels from 10 to 0.005, where it ends",
        },
    },
    "flow_matching_midpoint": {
        **TORCH, "patient": flow_matching_midpoint, "needs": ("torch", "flow_matching"),
        "predicts": "velocity to data", "told": "time from noise", "schedule": lambda: straight,
        "answer": {"name": "midpoint", "grid": "20 equal steps from 0 to 1"},
    },
    "torchcfm_tutorial": {
        **TORCH, "patient": torchcfm_tutorial, "needs": ("torch", "torchcfm", "torchdyn"),
        "predicts": "velocity to data", "told": "time from noise", "schedule": lambda: straight,
        "answer": {"name": "euler", "grid": "100 equal steps"},
        "mistake": "the flow is walked backwards, from the data's end of time to the noise's",
    },
    "diffusionjax_ddim": {
        "patient": diffusionjax_ddim, "kind": "sampler", "library": "jax", "needs": ("jax", "diffusionjax"),
        "predicts": "noise", "told": "index over N", "schedule": diffusionjax_betas, "prior_std": 1.0,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "all 200 indices"},
        "mistake": None,
    },
}  # fmt: skip
