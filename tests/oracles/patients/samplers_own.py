"""Samplers as tutorials, blogs, homework and papers' repositories write them."""

import math
from typing import Any

import numpy as np

from refscore import VE, VP


def linear_betas(n=1000, first=1e-4, last=0.02):
    return "betas", np.linspace(first, last, n).tolist()


def cosine_levels(t):
    return np.cos(0.5 * np.pi * t), np.sin(0.5 * np.pi * t)


def straight_levels(t):
    return 1 - t, t


def sigmoid_levels(t):
    """Linear log SNR from 10 to -10."""
    return 1 / np.sqrt(1 + np.exp(-(10 - 20 * t))), 1 / np.sqrt(1 + np.exp(10 - 20 * t))


# ------------------------------------------------------------------ DDPM


def annotated(model, x, rng):
    """A blog post with a plot of a spiral; 300 steps."""
    import torch
    import torch.nn.functional as F

    timesteps = 300
    betas = torch.linspace(0.0001, 0.02, timesteps)
    alphas = 1.0 - betas
    alphas_cumprod = torch.cumprod(alphas, axis=0)
    alphas_cumprod_prev = F.pad(alphas_cumprod[:-1], (1, 0), value=1.0)
    sqrt_recip_alphas = torch.sqrt(1.0 / alphas)
    sqrt_one_minus_alphas_cumprod = torch.sqrt(1.0 - alphas_cumprod)
    posterior_variance = betas * (1.0 - alphas_cumprod_prev) / (1.0 - alphas_cumprod)

    with torch.no_grad():
        for i in reversed(range(timesteps)):
            t = torch.full((x.shape[0],), i, dtype=torch.long)
            model_mean = sqrt_recip_alphas[i] * (x - betas[i] * model(x, t) / sqrt_one_minus_alphas_cumprod[i])
            if i == 0:
                x = model_mean
            else:
                x = model_mean + torch.sqrt(posterior_variance[i]) * torch.randn_like(x)
    return x


def minimal(model, x, rng):
    """DDPM in as few lines as possible."""
    import torch

    n_T = 500
    beta_t = (0.02 - 1e-4) * torch.arange(0, n_T + 1, dtype=torch.float32) / n_T + 1e-4
    alpha_t = 1 - beta_t
    alphabar_t = torch.cumsum(torch.log(alpha_t), dim=0).exp()
    sqrtmab = torch.sqrt(1 - alphabar_t)
    oneover_sqrta = 1 / torch.sqrt(alpha_t)
    mab_over_sqrtmab = (1 - alpha_t) / sqrtmab

    for i in range(n_T, 0, -1):
        z = torch.randn(x.shape) if i > 1 else 0
        eps = model(x, torch.tensor(i - 1).repeat(x.shape[0]))
        x = oneover_sqrta[i] * (x - eps * mab_over_sqrtmab[i]) + torch.sqrt(beta_t[i]) * z
    return x


def minimal_betas():
    """The n_T + 1 betas, of which the first belongs to index 0."""
    return "betas", ((0.02 - 1e-4) * np.arange(501) / 500 + 1e-4).tolist()


class NoiseScheduler:
    """From a repository of toy diffusions in two dimensions; the network is fed noise indices."""

    def __init__(self, num_timesteps=200):
        import torch

        self.num_timesteps = num_timesteps
        self.betas = torch.linspace(1e-4, 0.05, num_timesteps, dtype=torch.float64)
        self.alphas = 1.0 - self.betas
        self.alphas_cumprod = torch.cumprod(self.alphas, axis=0)
        self.alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
        self.posterior_mean_coef1 = self.betas * torch.sqrt(self.alphas_cumprod_prev) / (1.0 - self.alphas_cumprod)
        self.posterior_mean_coef2 = (
            (1.0 - self.alphas_cumprod_prev) * torch.sqrt(self.alphas) / (1.0 - self.alphas_cumprod)
        )

    def reconstruct_x0(self, x_t, t, noise):
        return x_t / self.alphas_cumprod[t] ** 0.5 - (1 / self.alphas_cumprod[t] - 1) ** 0.5 * noise

    def get_variance(self, t):
        if t == 0:
            return 0
        return self.betas[t] * (1.0 - self.alphas_cumprod_prev[t]) / (1.0 - self.alphas_cumprod[t])

    def step(self, model_output, t, sample):
        import torch

        pred_original_sample = self.reconstruct_x0(sample, t, model_output)
        pred_prev_sample = self.posterior_mean_coef1[t] * pred_original_sample + self.posterior_mean_coef2[t] * sample
        if t > 0:
            noise = torch.randn_like(model_output)
            pred_prev_sample = pred_prev_sample + self.get_variance(t) * noise
        return pred_prev_sample


def toy_repository(model, x, rng):
    import torch

    scheduler = NoiseScheduler()
    for t in reversed(range(scheduler.num_timesteps)):
        t_batch = torch.from_numpy(np.repeat(t, len(x))).long()
        with torch.no_grad():
            residual = model(x, t_batch)
        x = scheduler.step(residual, t, x)
    return x


def homework_x0(model, x, rng):
    """NumPy homework: a network that predicts the clean data, posterior q(x_{t-1} | x_t, x_0)."""
    T = 100
    beta = np.linspace(1e-3, 0.2, T)
    alpha = 1 - beta
    abar = np.cumprod(alpha)
    abar_prev = np.append(1.0, abar[:-1])
    for t in range(T - 1, -1, -1):
        x0 = model(x, t)
        mean = (np.sqrt(abar[t]) * beta[t] * x0 + np.sqrt(alpha[t]) * (1 - abar_prev[t]) * x) / (1 - abar[t])
        std = np.sqrt(beta[t] * (1 - abar_prev[t]) / (1 - abar[t]))
        x = mean + std * rng.standard_normal(x.shape)
    return x


def course_algorithm_2(model, x, rng):
    """Algorithm 2 of the paper, 1, ..., T as there, sigma_t² = beta_t."""
    T = 400
    beta = np.concatenate([[0.0], np.linspace(2e-4, 0.04, T)])  # beta[1], ..., beta[T]
    alpha = 1 - beta
    alpha_bar = np.cumprod(alpha)
    for t in range(T, 0, -1):
        z = np.random.randn(*x.shape) if t > 1 else np.zeros_like(x)
        eps = model(x, np.full(len(x), t))
        x = (x - (1 - alpha[t]) / np.sqrt(1 - alpha_bar[t]) * eps) / np.sqrt(alpha[t]) + np.sqrt(beta[t]) * z
    return x


def lecture_notebook(model, x, rng):
    """As in a lecture's notebook, with the noise prepared for every step."""
    import torch

    T = 200
    betas = torch.linspace(1e-4, 0.06, T, dtype=x.dtype)
    alphas = 1 - betas
    alphas_bar = torch.cumprod(alphas, 0)
    for t in range(T - 1, -1, -1):
        z = torch.randn_like(x)
        noise_pred = model(x, torch.full((x.shape[0], 1), t))
        x = (x - betas[t] / (1 - alphas_bar[t]) * noise_pred) / alphas[t].sqrt()
        if t > 0:
            x = x + betas[t].sqrt() * z
    return x


# ------------------------------------------------------------------ DDIM


def generalized_steps(model, x, rng):
    """The sampler of a paper's repository: 20 of 1000 steps."""
    import torch

    betas = torch.from_numpy(np.linspace(0.0001, 0.02, 1000)).float()
    seq = range(0, 1000, 50)

    def compute_alpha(beta, t):
        beta = torch.cat([torch.zeros(1), beta], dim=0)
        return (1 - beta).cumprod(dim=0).index_select(0, t + 1).view(-1, 1)

    eta = 0.0
    with torch.no_grad():
        n = x.size(0)
        seq_next = [-1, *list(seq[:-1])]
        for i, j in zip(reversed(seq), reversed(seq_next), strict=True):
            t = torch.ones(n) * i
            next_t = torch.ones(n) * j
            at = compute_alpha(betas, t.long())
            at_next = compute_alpha(betas, next_t.long())
            et = model(x, t)
            x0_t = (x - et * (1 - at).sqrt()) / at.sqrt()
            c1 = eta * ((1 - at / at_next) * (1 - at_next) / (1 - at)).sqrt()
            c2 = ((1 - at_next) - c1**2).sqrt()
            x = at_next.sqrt() * x0_t + c1 * torch.randn_like(x) + c2 * et
    return x


def fast_sampling(model, x, rng):
    """A blog's implicit sampler with its eta, 50 steps of 1000."""
    import torch

    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    eta = 1.0
    steps = torch.arange(19, 1000, 20)
    for i in range(49, -1, -1):
        alpha_t = alphas_cumprod[steps[i]]
        alpha_prev = alphas_cumprod[steps[i - 1]] if i > 0 else torch.tensor(1.0, dtype=torch.float64)
        eps = model(x, torch.full((x.shape[0],), int(steps[i])))
        x0 = (x - (1 - alpha_t).sqrt() * eps) / alpha_t.sqrt()
        sigma = eta * torch.sqrt((1 - alpha_prev) / (1 - alpha_t)) * torch.sqrt(1 - alpha_t / alpha_prev)
        x = alpha_prev.sqrt() * x0 + (1 - alpha_prev).sqrt() * eps + sigma * torch.randn_like(x)
    return x


def v_diffusion(model, x, rng):
    """Deterministic sampling of a v network on the cosine schedule; time from 1 to 0."""
    import torch

    steps = 50
    t = torch.linspace(1, 0, steps + 1)[:-1]
    alphas, sigmas = torch.cos(t * math.pi / 2), torch.sin(t * math.pi / 2)
    ts = x.new_ones([x.shape[0]])
    for i in range(steps):
        v = model(x, ts * t[i])
        pred = x * alphas[i] - v * sigmas[i]
        eps = x * sigmas[i] + v * alphas[i]
        if i < steps - 1:
            x = pred * alphas[i + 1] + eps * sigmas[i + 1]
    return pred


def v_student(model, x, rng):
    """The same idea in NumPy, for a network that sees the log SNR, linear in time."""
    n = 64
    for i in range(n):
        lam, lam_next = -10 + 20 * i / n, -10 + 20 * (i + 1) / n
        a, s = np.sqrt(1 / (1 + np.exp(-lam))), np.sqrt(1 / (1 + np.exp(lam)))
        a_next, s_next = np.sqrt(1 / (1 + np.exp(-lam_next))), np.sqrt(1 / (1 + np.exp(lam_next)))
        v = model(x, np.full(x.shape[0], lam))
        x0 = a * x + s * v
        eps = (x - a * x0) / s
        x = a_next * x0 + s_next * eps
    return x


def thresholded(model, x, rng):
    """DDIM with dynamic thresholding, 50 of 1000 steps."""
    import torch

    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=x.dtype), 0)
    times = list(range(999, -1, -20))
    for i, t in enumerate(times):
        a = alphas_cumprod[t]
        a_next = alphas_cumprod[times[i + 1]] if i + 1 < len(times) else torch.ones((), dtype=x.dtype)
        eps = model(x, torch.full((len(x),), t))
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        s = torch.quantile(x0.abs().flatten(), 0.95).clamp(min=1.0)
        x0 = x0.clamp(-s, s)
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        x = a_next.sqrt() * x0 + (1 - a_next).sqrt() * eps
    return x


def memory_saver(model, x, rng):
    """DDIM, every tenth of 1000 steps, small tensors."""
    import torch

    alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0).half()
    alphas_cumprod = torch.cat([torch.ones(1).half(), alphas_cumprod])
    seq = list(range(0, 1001, 10))
    for t, t_next in zip(reversed(seq[1:]), reversed(seq[:-1]), strict=True):
        a, a_next = alphas_cumprod[t].to(x.dtype), alphas_cumprod[t_next].to(x.dtype)
        eps = model(x, torch.full((x.shape[0],), t))
        x0 = (x - (1 - a).sqrt() * eps) / a.sqrt()
        x = a_next.sqrt() * x0 + (1 - a_next).sqrt() * eps
    return x


# ------------------------------------------------------------------ SDEs and their flows


def reverse_sde(model, x, rng):
    """Euler-Maruyama from t = 1 to 0.001, beta(t) from 0.1 to 20, NumPy."""
    n, eps = 500, 1e-3
    ts = np.linspace(1, eps, n + 1)
    for t, t_next in zip(ts[:-1], ts[1:], strict=True):
        dt = t - t_next
        beta = 0.1 + t * (20 - 0.1)
        score = model(x, t)
        x = x + (0.5 * beta * x + beta * score) * dt + np.sqrt(beta * dt) * rng.standard_normal(x.shape)
    return x


def time_reversal(model, x, rng):
    """A notebook on stochastic differential equations."""
    import torch

    N = 1000
    dt = 0.999 / N
    for i in range(N):
        t = 1 - i * dt
        beta_t = 0.1 + 19.9 * t
        s = model(x, torch.full((x.shape[0],), t, dtype=x.dtype))
        drift = -0.5 * beta_t * x - 0.5 * beta_t * s
        x = x - drift * dt + math.sqrt(beta_t * dt) * torch.randn_like(x)
    return x


def ve_colab(model, x, rng):
    """Predictor of a colab: VE with sigma^t, 250 steps, the last mean returned."""
    import torch

    sigma, num_steps, eps = 25.0, 250, 1e-3

    def diffusion_coeff(t):
        return torch.tensor(sigma**t)

    time_steps = np.linspace(1.0, eps, num_steps)
    step_size = time_steps[0] - time_steps[1]
    with torch.no_grad():
        for time_step in time_steps:
            batch_time_step = torch.ones(x.shape[0]) * time_step
            g = diffusion_coeff(time_step)
            mean_x = x + g**2 * model(x, batch_time_step) * step_size
            x = mean_x + g * torch.sqrt(torch.tensor(step_size)) * torch.randn_like(x)
    return mean_x


def colab_levels(t):
    return np.ones_like(t), np.sqrt((25.0 ** (2 * t) - 1) / (2 * np.log(25.0)))


def black_box_ode(model, x, rng):
    """The probability flow by a black-box solver."""
    from scipy import integrate

    shape = x.shape

    def ode_func(t, y):
        y = y.reshape(shape)
        beta = 0.1 + t * 19.9
        return (-0.5 * beta * (y + model(y, np.full(len(y), t)))).reshape(-1)

    res = integrate.solve_ivp(ode_func, (1.0, 1e-3), x.reshape(-1), rtol=1e-5, atol=1e-5, method="RK45")
    return res.y[:, -1].reshape(shape)


def deterministic_student(model, x, rng):
    """The probability flow of VE in NumPy, by Heun's method in the paper's t."""
    smin, smax, n = 0.01, 50.0, 60
    t = np.linspace(1, 1e-5, n + 1)
    g2 = lambda u: smin**2 * (smax / smin) ** (2 * u) * 2 * np.log(smax / smin)
    for i in range(n):
        h = t[i + 1] - t[i]
        k1 = -0.5 * g2(t[i]) * model(x, t[i])
        k2 = -0.5 * g2(t[i + 1]) * model(x + h * k1, t[i + 1])
        x = x + h * (k1 + k2) / 2
    return x


def pc_sampler(model, x, rng):
    """Predictor and corrector of VE: reverse diffusion, then one Langevin step; 200 levels."""
    import torch

    N, snr = 200, 0.16
    discrete_sigmas = torch.exp(torch.linspace(np.log(0.01), np.log(50.0), N, dtype=x.dtype))
    with torch.no_grad():
        for i in range(N - 1, -1, -1):
            sigma = discrete_sigmas[i]
            label = sigma * torch.ones(x.shape[0], dtype=x.dtype)
            grad = model(x, label)
            noise = torch.randn_like(x)
            grad_norm = torch.norm(grad.reshape(grad.shape[0], -1), dim=-1).mean()
            noise_norm = torch.norm(noise.reshape(noise.shape[0], -1), dim=-1).mean()
            step_size = (snr * noise_norm / grad_norm) ** 2 * 2
            x = x + step_size * grad + torch.sqrt(step_size * 2) * noise

            adjacent_sigma = discrete_sigmas[i - 1] if i > 0 else torch.zeros((), dtype=x.dtype)
            G2 = sigma**2 - adjacent_sigma**2
            x_mean = x + G2 * model(x, label)
            x = x_mean + G2.sqrt() * torch.randn_like(x)
    return x_mean


# ------------------------------------------------------------------ Langevin


def langevin_levels():
    return "sigmas", np.exp(np.linspace(np.log(20.0), np.log(0.01), 20)).tolist()


def anneal_langevin_dynamics(model, x, rng):
    """Annealed Langevin dynamics, 20 levels of 30 steps, conditioned on the index of the level."""
    import torch

    sigmas = np.exp(np.linspace(np.log(20.0), np.log(0.01), 20))
    step_lr, n_steps_each = 2e-5, 30
    with torch.no_grad():
        for c, sigma in enumerate(sigmas):
            labels = torch.ones(x.shape[0]) * c
            labels = labels.long()
            step_size = step_lr * (sigma / sigmas[-1]) ** 2
            for _ in range(n_steps_each):
                noise = torch.randn_like(x) * np.sqrt(step_size * 2)
                grad = model(x, labels)
                x = x + step_size * grad + noise
    return x


def langevin_blog(model, x, rng):
    """The same, with the step of the first pages of the paper, and the network told sigma."""
    sigmas = np.geomspace(10.0, 0.02, 15)
    eps, T = 2e-4, 50
    for sigma in sigmas:
        alpha = eps * sigma**2 / sigmas[-1] ** 2
        for _ in range(T):
            z = np.random.normal(size=x.shape)
            x = x + alpha / 2 * model(x, sigma) + np.sqrt(alpha / 2) * z
    return x


# ------------------------------------------------------------------ EDM


def edm_sampler(model, x, rng):
    """Algorithm 2 without churn, 18 steps, in double precision."""
    import torch

    num_steps, sigma_min, sigma_max, rho = 18, 0.002, 80, 7
    step_indices = torch.arange(num_steps, dtype=torch.float64)
    t_steps = sigma_max ** (1 / rho) + step_indices / (num_steps - 1) * (
        sigma_min ** (1 / rho) - sigma_max ** (1 / rho)
    )
    t_steps = torch.cat([t_steps**rho, torch.zeros_like(t_steps[:1])])

    x_next = x.to(torch.float64)
    for i, (t_cur, t_next) in enumerate(zip(t_steps[:-1], t_steps[1:], strict=True)):
        x_cur = x_next
        d_cur = (x_cur - model(x_cur, t_cur).to(torch.float64)) / t_cur
        x_next = x_cur + (t_next - t_cur) * d_cur
        if i < num_steps - 1:
            d_prime = (x_next - model(x_next, t_next).to(torch.float64)) / t_next
            x_next = x_cur + (t_next - t_cur) * (0.5 * d_cur + 0.5 * d_prime)
    return x_next


def churned(model, x, rng):
    """Algorithm 2 with churn, as a thesis has it."""
    import torch

    n, s_churn, s_min, s_max = 40, 30.0, 0.05, 50.0
    ramp = torch.linspace(0, 1, n, dtype=x.dtype)
    sigmas = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigmas = torch.cat([sigmas, torch.zeros(1, dtype=x.dtype)])
    for i in range(n):
        sigma = sigmas[i]
        gamma = min(s_churn / n, math.sqrt(2) - 1) if s_min <= sigma <= s_max else 0.0
        sigma_hat = sigma * (1 + gamma)
        if gamma > 0:
            x = x + torch.randn_like(x) * (sigma_hat - sigma)
        d = (x - model(x, sigma_hat)) / sigma_hat
        dt = sigmas[i + 1] - sigma_hat
        if sigmas[i + 1] == 0:
            x = x + d * dt
        else:
            x_2 = x + d * dt
            d_2 = (x_2 - model(x_2, sigmas[i + 1])) / sigmas[i + 1]
            x = x + (d + d_2) / 2 * dt
    return x


# ------------------------------------------------------------------ multistep


def half_log_snr(t):
    """½ log α²/σ² of the linear VP SDE, and α and σ themselves."""
    log_alpha = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
    alpha, sigma = np.exp(log_alpha), np.sqrt(-np.expm1(2 * log_alpha))
    return np.log(alpha / sigma), alpha, sigma


def inverse_half_log_snr(lam):
    tmp = 2 * 19.9 * np.logaddexp(-2 * lam, 0.0)
    return tmp / (np.sqrt(0.1**2 + tmp) + 0.1) / 19.9


def second_order_multistep(model, x, rng):
    """DPM-Solver++(2M), 20 steps uniform in log SNR from 1 to 0.001."""
    n = 20
    t = inverse_half_log_snr(np.linspace(half_log_snr(1.0)[0], half_log_snr(1e-3)[0], n + 1))
    old = h_last = None
    for i in range(n):
        (lam, a, s), (lam_next, a_next, s_next) = half_log_snr(t[i]), half_log_snr(t[i + 1])
        x0 = (x - s * model(x, np.full(len(x), t[i]))) / a
        h = lam_next - lam
        if old is None:
            D = x0
        else:
            r = h_last / h
            D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * old
        x = s_next / s * x - a_next * np.expm1(-h) * D
        old, h_last = x0, h
    return x


def two_step(model, x, rng):
    """The same order for a denoiser, on Karras' levels, in torch."""
    import torch

    n = 25
    ramp = torch.linspace(0, 1, n, dtype=x.dtype)
    sigmas = (10 ** (1 / 7) + ramp * (0.03 ** (1 / 7) - 10 ** (1 / 7))) ** 7
    sigmas = torch.cat([sigmas, sigmas.new_zeros(1)])
    t_fn = lambda sigma: sigma.log().neg()
    old_denoised = None
    for i in range(n):
        denoised = model(x, sigmas[i] * x.new_ones(x.shape[0]))
        t, t_next = t_fn(sigmas[i]), t_fn(sigmas[i + 1])
        h = t_next - t
        if old_denoised is None or sigmas[i + 1] == 0:
            x = (sigmas[i + 1] / sigmas[i]) * x - (-h).expm1() * denoised
        else:
            h_last = t - t_fn(sigmas[i - 1])
            r = h / h_last
            denoised_d = (1 + 1 / (2 * r)) * denoised - (1 / (2 * r)) * old_denoised
            x = (sigmas[i + 1] / sigmas[i]) * x - (-h).expm1() * denoised_d
        old_denoised = denoised
    return x


# ------------------------------------------------------------------ JAX


def variational(model, x, rng):
    """Ancestral steps in the log SNR, as papers on variational diffusion write them; JAX."""
    import jax
    import jax.numpy as jnp

    key = jax.random.PRNGKey(int(rng.integers(2**31)))
    T = 64
    gamma = lambda t: -10.0 + 20.0 * t  # minus log SNR
    for i in range(T):
        t, s = (T - i) / T, (T - i - 1) / T
        g_t, g_s = gamma(t), gamma(s)
        key, sub = jax.random.split(key)
        eps_hat = model(x, -g_t * jnp.ones(x.shape[0]))
        a = jax.nn.sigmoid(-g_s)
        b = jax.nn.sigmoid(-g_t)
        c = -jnp.expm1(g_s - g_t)
        sigma_t = jnp.sqrt(jax.nn.sigmoid(g_t))
        x = jnp.sqrt(a / b) * (x - sigma_t * c * eps_hat) + jnp.sqrt((1.0 - a) * c) * jax.random.normal(sub, x.shape)
    return x / jnp.sqrt(jax.nn.sigmoid(-gamma(0.0)))


def keyed(model, x, rng):
    """Euler-Maruyama of the reverse VP SDE in JAX, 100 steps."""
    import jax
    import jax.numpy as jnp

    key = jax.random.PRNGKey(int(rng.integers(2**31)))
    n = 100
    dt = (1 - 1e-3) / n
    for i in range(n):
        t = 1.0 - i * dt
        beta = 0.1 + 19.9 * t
        z = jax.random.normal(key, x.shape)
        x = x + dt * beta * (0.5 * x + model(x, t * jnp.ones(len(x)))) + jnp.sqrt(beta * dt) * z
    return x


def from_noise_to_data(model, x, rng):
    """Rectified flow in JAX: 0 is noise, 1 is data."""
    import jax.numpy as jnp

    steps = 64
    dt = 1.0 / steps
    for t in jnp.linspace(dt, 1.0, steps):
        x = x + dt * model(x, t)
    return x


# ------------------------------------------------------------------ flows


def rectified_flow(model, x, rng):
    """Euler steps from t = 1 to 0 with the velocity noise - data."""
    import torch

    sample_steps = 50
    b = x.size(0)
    dt = torch.tensor([1.0 / sample_steps] * b).view([b, 1])
    for i in range(sample_steps, 0, -1):
        t = torch.tensor([i / sample_steps] * b)
        x = x - dt * model(x, t)
    return x


def second_order_flow(model, x, rng):
    """Rectified flow by Heun's method, 0 is noise, as in a workshop's notebook."""
    import torch

    n = 32
    ts = torch.linspace(0, 1, n + 1, dtype=x.dtype)
    for i in range(n):
        t = ts[i].expand(x.shape[0])
        dt = ts[i + 1] - ts[i]
        k1 = model(x, t)
        k2 = model(x + dt * k1, t)
        x = x + dt * (k1 + k2) / 2
    return x


PATIENTS: dict[str, dict[str, Any]] = {
    "annotated": {
        "patient": annotated, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "noise", "told": "index from 0", "schedule": lambda: linear_betas(300), "prior_std": 1.0,
        "answer": {"name": "ancestral", "variance": "small", "grid": "all 300 indices"},
        "mistake": None,
    },
    "minimal": {
        "patient": minimal, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "noise", "told": "index from 0", "schedule": minimal_betas, "prior_std": 1.0,
        "answer": {"name": "ancestral", "variance": "large", "grid": "all indices from 500 to 1"},
        "mistake": "the model is told index t - 1 where x is at index t: the time is one step early (off by one)",
    },
    "toy_repository": {
        "patient": toy_repository, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "noise", "told": "index from 0", "schedule": lambda: linear_betas(200, 1e-4, 0.05),
        "prior_std": 1.0,
        "answer": {"name": "ancestral", "variance": "small", "grid": "all 200 indices"},
        "mistake": "the noise is multiplied by the variance instead of the standard deviation: a root is missing",
    },
    "homework_x0": {
        "patient": homework_x0, "kind": "sampler",
        "library": "numpy", "needs": (),
        "predicts": "data", "told": "index from 0", "schedule": lambda: linear_betas(100, 1e-3, 0.2), "prior_std": 1.0,
        "answer": {"name": "ancestral", "variance": "small", "grid": "all 100 indices"},
        "mistake": "the posterior mean's weight of x0 has √ᾱ_t where it must have √ᾱ_{t-1}",
    },
    "course_algorithm_2": {
        "patient": course_algorithm_2, "kind": "sampler",
        "library": "numpy", "needs": (),
        "predicts": "noise", "told": "index from 1", "schedule": lambda: linear_betas(400, 2e-4, 0.04),
        "prior_std": 1.0,
        "answer": {"name": "ancestral", "variance": "large", "grid": "all 400 indices"},
        "mistake": None,
    },
    "lecture_notebook": {
        "patient": lecture_notebook, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "noise", "told": "index from 0", "schedule": lambda: linear_betas(200, 1e-4, 0.06),
        "prior_std": 1.0,
        "answer": {"name": "ancestral", "variance": "large", "grid": "all 200 indices"},
        "mistake": "the predicted noise is divided by 1 - ᾱ instead of √(1 - ᾱ): a root is missing in the mean",
    },
    "generalized_steps": {
        "patient": generalized_steps, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "noise", "told": "index from 0", "schedule": linear_betas, "prior_std": 1.0,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "leading, 20 of 1000: 950, 900, ..., 0, then the data"},
        "mistake": None,
    },
    "fast_sampling": {
        "patient": fast_sampling, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "noise", "told": "index from 0", "schedule": linear_betas, "prior_std": 1.0,
        "answer": {"name": "ddim", "eta": 1.0, "grid": "trailing, 50 of 1000: 999, 979, ..., 19, then the data"},
        "mistake": "the direction to x_t has √(1 - ᾱ_prev) without - σ²: too much noise for eta > 0",
    },
    "thresholded": {
        "patient": thresholded, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "noise", "told": "index from 0", "schedule": linear_betas, "prior_std": 1.0,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "trailing, 50 of 1000: 999, 979, ..., 19, then the data"},
        "mistake": "the quantile of dynamic thresholding is taken over the whole batch: rows influence each other",
    },
    "memory_saver": {
        "patient": memory_saver, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "noise", "told": "index from 1", "schedule": linear_betas, "prior_std": 1.0,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "trailing, 100 of 1000: 1000, 990, ..., 10, 0"},
        "mistake": "ᾱ is kept in half precision: levels close to 1 and to 0 lose their digits",
    },
    "v_diffusion": {
        "patient": v_diffusion, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "v", "told": "time", "schedule": lambda: cosine_levels, "prior_std": 1.0,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "50 equal steps in t from 1; the last returns x0 at t = 0.02"},
        "mistake": None,
    },
    "v_student": {
        "patient": v_student, "kind": "sampler",
        "library": "numpy", "needs": (),
        "predicts": "v", "told": "log snr", "schedule": lambda: sigmoid_levels, "prior_std": 1.0,
        "answer": {"name": "ddim", "eta": 0.0, "grid": "64 steps, log SNR linear from -10 to 10"},
        "mistake": "wrong sign in v to x0: α x + σ v instead of α x - σ v",
    },
    "reverse_sde": {
        "patient": reverse_sde, "kind": "sampler",
        "library": "numpy", "needs": (),
        "predicts": "score", "told": "time", "schedule": lambda: VP(0.1, 20.0), "prior_std": 1.0,
        "answer": {"name": "euler-maruyama", "grid": "500 equal steps in t from 1 to 0.001"},
        "mistake": None,
    },
    "time_reversal": {
        "patient": time_reversal, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "score", "told": "time", "schedule": lambda: VP(0.1, 20.0), "prior_std": 1.0,
        "answer": {"name": "euler-maruyama", "grid": "1000 equal steps in t from 1 to 0.001"},
        "mistake": "half of the score, as in the probability flow, but with the noise of the reverse SDE",
    },
    "ve_colab": {
        "patient": ve_colab, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "score", "told": "time", "schedule": lambda: colab_levels, "prior_std": float(colab_levels(1.0)[1]),
        "answer": {"name": "euler-maruyama", "grid": "250 equal steps in t from 1 to 0.001, one beyond; its mean"},
        "mistake": None,
    },
    "black_box_ode": {
        "patient": black_box_ode, "kind": "sampler",
        "library": "numpy", "needs": (),
        "predicts": "score", "told": "time", "schedule": lambda: VP(0.1, 20.0), "prior_std": 1.0,
        "answer": {"name": "probability flow", "solver": "RK45 of SciPy, adaptive, 1e-5", "grid": "from 1 to 0.001"},
        "mistake": None,
    },
    "deterministic_student": {
        "patient": deterministic_student, "kind": "sampler",
        "library": "numpy", "needs": (),
        "predicts": "score", "told": "time", "schedule": lambda: VE(0.01, 50.0), "prior_std": 50.0,
        "answer": {"name": "heun", "grid": "60 equal steps in t from 1 to 1e-5"},
        "mistake": None,
    },
    "pc_sampler": {
        "patient": pc_sampler, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "score", "told": "sigma", "prior_std": 50.0,
        "schedule": lambda: ("sigmas", np.geomspace(0.01, 50.0, 200).tolist()),
        "answer": {
            "name": "reverse-diffusion with a langevin corrector before it", "snr": 0.16,
            "grid": "200 geometric levels from 50 to 0.01, then 0; the last mean",
        },
        "mistake": "the corrector's step comes from norms averaged over the batch, of x and of the noise: rows "
        "influence each other",
    },
    "anneal_langevin_dynamics": {
        "patient": anneal_langevin_dynamics, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "score", "told": "index of sigmas", "schedule": langevin_levels, "prior_std": 20.0,
        "answer": {"name": "annealed langevin", "steps": 30, "grid": "20 geometric levels from 20 to 0.01"},
        "mistake": None,
    },
    "langevin_blog": {
        "patient": langevin_blog, "kind": "sampler",
        "library": "numpy", "needs": (),
        "predicts": "score", "told": "sigma", "schedule": lambda: ("sigmas", np.geomspace(10.0, 0.02, 15).tolist()),
        "prior_std": 10.0,
        "answer": {"name": "annealed langevin", "steps": 50, "grid": "15 geometric levels from 10 to 0.02"},
        "mistake": "Langevin noise of √(α/2) beside a drift of α/2 must be √α: a factor √2 is missing, half the "
        "temperature",
    },
    "edm_sampler": {
        "patient": edm_sampler, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "denoiser", "told": "sigma", "schedule": lambda: ("sigmas", [0.002, 80.0]), "prior_std": 80.0,
        "answer": {"name": "edm", "churn": 0.0, "grid": "karras, 18 levels from 80 to 0.002, rho 7, then 0"},
        "mistake": None,
    },
    "churned": {
        "patient": churned, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "denoiser", "told": "sigma", "schedule": lambda: ("sigmas", [0.002, 80.0]), "prior_std": 80.0,
        "answer": {"name": "edm", "churn": math.sqrt(2) - 1, "grid": "karras, 40 from 80 to 0.002, then 0"},
        "mistake": "churn adds noise of σ̂ - σ instead of √(σ̂² - σ²)",
    },
    "second_order_multistep": {
        "patient": second_order_multistep, "kind": "sampler",
        "library": "numpy", "needs": (),
        "predicts": "noise", "told": "time", "schedule": lambda: VP(0.1, 20.0), "prior_std": 1.0,
        "answer": {"name": "dpm-solver++2m", "grid": "20 steps equal in log SNR from t = 1 to 0.001"},
        "mistake": None,
    },
    "two_step": {
        "patient": two_step, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "denoiser", "told": "sigma", "schedule": lambda: ("sigmas", [0.03, 10.0]), "prior_std": 10.0,
        "answer": {"name": "dpm-solver++2m", "grid": "karras, 25 levels from 10 to 0.03, rho 7, then 0"},
        "mistake": "the ratio of the two steps is upside down: h/h_last instead of h_last/h",
    },
    "variational": {
        "patient": variational, "kind": "sampler",
        "library": "jax", "needs": ("jax",),
        "predicts": "noise", "told": "log snr", "schedule": lambda: sigmoid_levels, "prior_std": 1.0,
        "answer": {"name": "ancestral", "variance": "small", "grid": "64 steps, log SNR linear from -10 to 10"},
        "mistake": None,
    },
    "keyed": {
        "patient": keyed, "kind": "sampler",
        "library": "jax", "needs": ("jax",),
        "predicts": "score", "told": "time", "schedule": lambda: VP(0.1, 20.0), "prior_std": 1.0,
        "answer": {"name": "euler-maruyama", "grid": "100 equal steps in t from 1 to 0.001"},
        "mistake": "the key is never split: every step adds the same noise",
    },
    "from_noise_to_data": {
        "patient": from_noise_to_data, "kind": "sampler",
        "library": "jax", "needs": ("jax",),
        "predicts": "velocity to data", "told": "time from noise", "schedule": lambda: straight_levels,
        "prior_std": 1.0,
        "answer": {"name": "euler", "grid": "64 equal steps from 0 to 1"},
        "mistake": "the model is told the time at the end of the step instead of its start: one step late",
    },
    "rectified_flow": {
        "patient": rectified_flow, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "velocity", "told": "time", "schedule": lambda: straight_levels, "prior_std": 1.0,
        "answer": {"name": "euler", "grid": "50 equal steps from 1 to 0"},
        "mistake": None,
    },
    "second_order_flow": {
        "patient": second_order_flow, "kind": "sampler",
        "library": "torch", "needs": ("torch",),
        "predicts": "velocity to data", "told": "time from noise", "schedule": lambda: straight_levels,
        "prior_std": 1.0,
        "answer": {"name": "heun", "grid": "32 equal steps from 0 to 1"},
        "mistake": "the second slope is taken at the time of the first: the order falls from 2 to 1",
    },
}  # fmt: skip
