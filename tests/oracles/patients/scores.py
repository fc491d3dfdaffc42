"""Scores of mixtures under an SDE that people write by hand to test their code: score(x, t) -> (B, D).

Each is of the law that `mixture` returns as weights, means and covariances, under the SDE of `schedule`.
"""

import math
from typing import Any

import numpy as np

from refscore import OU, VE, VP

WEIGHTS, MEANS, STDS = [0.3, 0.5, 0.2], [[-2.0, 0.0], [1.0, 1.5], [2.0, -1.5]], [0.5, 0.3, 0.8]


def three():
    return np.array(WEIGHTS), np.array(MEANS), np.array(STDS) ** 2


def one():
    return np.array([1.0]), np.array([[1.0, -0.5]]), np.array([[[0.8, 0.3], [0.3, 0.5]]])


def vp_coefficients(t):
    log_alpha = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
    return np.exp(log_alpha), np.sqrt(1 - np.exp(2 * log_alpha))


# ------------------------------------------------------------------ of packages


def azula_gaussian(x, t):
    import torch
    from azula.denoise import GaussianDenoiser
    from azula.linalg.covariance import FullCovariance

    def schedule(t):
        alpha, sigma = vp_coefficients(float(t))
        return torch.tensor(alpha, dtype=x.dtype), torch.tensor(sigma, dtype=x.dtype)

    _, mean, cov = one()
    L, Q = torch.linalg.eigh(torch.tensor(cov[0], dtype=x.dtype))
    denoiser = GaussianDenoiser(torch.tensor(mean[0], dtype=x.dtype), FullCovariance(Q, L), schedule)
    alpha, sigma = schedule(t)
    return (alpha * denoiser(x, torch.tensor(t)).mean - x) / sigma**2


def torch_distributions(x, t):
    """Autograd of torch's MixtureSameFamily, for a VE SDE."""
    import torch
    from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

    sigma = 0.01 * math.sqrt(5000.0 ** (2 * t) - 1)
    x = x.detach().requires_grad_(True)
    std = torch.sqrt(torch.tensor(STDS, dtype=x.dtype) ** 2 + sigma**2)[:, None].expand(3, 2)
    components = Independent(Normal(torch.tensor(MEANS, dtype=x.dtype), std), 1)
    p = MixtureSameFamily(Categorical(torch.tensor(WEIGHTS, dtype=x.dtype)), components)
    return torch.autograd.grad(p.log_prob(x).sum(), x)[0]


def torch_annealed(x, t):
    """The same for annealed Langevin dynamics: the toy of a repository."""
    import torch
    from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

    sigma = 0.01 * math.sqrt(5000.0 ** (2 * t) - 1)
    x = x.detach().requires_grad_(True)
    covs = torch.eye(2, dtype=x.dtype).expand(3, 2, 2) * sigma**2
    p = MixtureSameFamily(
        Categorical(torch.tensor(WEIGHTS, dtype=x.dtype)), MultivariateNormal(torch.tensor(MEANS, dtype=x.dtype), covs)
    )
    return torch.autograd.grad(p.log_prob(x).sum(), x)[0]


# ------------------------------------------------------------------ as people write them


def by_hand(x, t):
    """NumPy, VP."""
    alpha, sigma = vp_coefficients(t)
    mu, var = alpha * np.array(MEANS), alpha**2 * np.array(STDS) ** 2 + sigma**2
    diff = x[:, None, :] - mu[None]
    log_r = np.log(WEIGHTS) - 0.5 * (diff**2).sum(-1) / var - np.log(var)
    r = np.exp(log_r - log_r.max(1, keepdims=True))
    r /= r.sum(1, keepdims=True)
    return -(r[:, :, None] * diff / var[None, :, None]).sum(1)


def by_hand_too(x, t):
    """NumPy, VP, another author."""
    alpha, sigma = vp_coefficients(t)
    num, den = np.zeros_like(x), np.zeros(len(x))
    for w, m, s in zip(WEIGHTS, MEANS, STDS, strict=True):
        var = (alpha * s) ** 2 + sigma**2
        d = x - np.array(m)
        p = w * np.exp(-(d**2).sum(1) / (2 * var)) / (2 * np.pi * var)
        num -= p[:, None] * d / var
        den += p
    return num / den[:, None]


def from_noise_prediction(x, t):
    """The score of one Gaussian from the best prediction of the noise; OU process of JAX course notes."""
    import jax.numpy as jnp

    alpha, sigma = math.exp(-5 * t), math.sqrt(1 - math.exp(-10 * t))
    _, mean, cov = one()
    S = alpha**2 * cov[0] + sigma**2 * np.eye(2)
    eps = sigma * (x - alpha * mean[0]) @ jnp.asarray(np.linalg.inv(S), dtype=x.dtype)
    return -eps / sigma**2


def jax_grad(x, t):
    """grad of log p in JAX, a generative process that starts with noise at 0."""
    import jax
    import jax.numpy as jnp

    alpha, sigma = vp_coefficients(1 - t)
    w, m, s = (jnp.asarray(v) for v in (WEIGHTS, MEANS, STDS))

    def log_p(x):
        var = alpha**2 * s**2 + sigma**2
        return jax.nn.logsumexp(jnp.log(w) - 0.5 * jnp.sum((x - alpha * m) ** 2, -1) / var - jnp.log(var))

    return jax.vmap(jax.grad(log_p))(x)


SCORE: dict[str, Any] = {"kind": "score", "mixture": three, "told": "time", "mistake": None}

PATIENTS: dict[str, dict[str, Any]] = {
    "azula_gaussian": {
        **SCORE, "patient": azula_gaussian, "library": "torch", "needs": ("torch", "azula"),
        "mixture": one, "schedule": lambda: VP(0.1, 20.0), "answer": {"name": "exact score"},
    },
    "torch_distributions": {
        **SCORE, "patient": torch_distributions, "library": "torch", "needs": ("torch",),
        "schedule": lambda: VE(0.01, 50.0), "answer": {"name": "exact score"},
    },
    "torch_annealed": {
        **SCORE, "patient": torch_annealed, "library": "torch", "needs": ("torch",),
        "schedule": lambda: VE(0.01, 50.0), "answer": {"name": "score"},
        "mistake": "the components have the noise's deviation σ alone: their own is forgotten",
    },
    "by_hand": {
        **SCORE, "patient": by_hand, "library": "numpy", "needs": (),
        "schedule": lambda: VP(0.1, 20.0), "answer": {"name": "exact score"},
    },
    "by_hand_too": {
        **SCORE, "patient": by_hand_too, "library": "numpy", "needs": (),
        "schedule": lambda: VP(0.1, 20.0), "answer": {"name": "score"},
        "mistake": "the means are not multiplied by α",
    },
    "from_noise_prediction": {
        **SCORE, "patient": from_noise_prediction, "library": "jax", "needs": ("jax",),
        "mixture": one, "schedule": lambda: OU(5.0, math.sqrt(10.0)), "answer": {"name": "score"},
        "mistake": "the predicted noise is divided by σ² instead of σ",
    },
    "jax_grad": {
        **SCORE, "patient": jax_grad, "library": "jax", "needs": ("jax",),
        "schedule": lambda: VP(0.1, 20.0), "answer": {"name": "score"},
        "mistake": "time runs the other way: the score is that of 1 - t",
    },
}  # fmt: skip
