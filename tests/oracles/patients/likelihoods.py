"""Likelihoods: likelihood(model, x) -> (B,), in the unit that `gives` says; of packages, and as people write them."""

import math
from typing import Any

import numpy as np

from refscore import VE, VP


def flow_levels(t):
    return 1 - t, t


# ------------------------------------------------------------------ of packages


def flow_matching_exact(model, x):
    import torch
    from flow_matching.solver import ODESolver

    log_p0 = torch.distributions.Independent(
        torch.distributions.Normal(torch.zeros(2, dtype=x.dtype), torch.ones(2, dtype=x.dtype)), 1
    ).log_prob
    solver = ODESolver(velocity_model=lambda x, t: model(x, t))
    _, log_p = solver.compute_likelihood(
        x_1=x, log_p0=log_p0, method="midpoint", step_size=0.02, exact_divergence=True,
        time_grid=torch.tensor([1.0, 0.0]),
    )  # fmt: skip
    return log_p.detach()


def flow_matching_notebook(model, x):
    import torch
    from flow_matching.solver import ODESolver

    prior = torch.distributions.Normal(0.0, 1.0)
    solver = ODESolver(velocity_model=lambda x, t: model(x, t))
    _, log_p = solver.compute_likelihood(
        x_1=x, log_p0=lambda x: prior.log_prob(x).mean(-1), method="dopri5", step_size=None, exact_divergence=True,
        atol=1e-5, rtol=1e-5,
    )  # fmt: skip
    return log_p.detach()


def zuko_ffjord(model, x):
    import torch
    import zuko

    class Flow(zuko.transforms.FreeFormJacobianTransform):
        pass

    transform = Flow(f=lambda t, x: -model(x, 1 - t), t0=0.0, t1=1.0, exact=True)
    base = zuko.distributions.DiagNormal(torch.zeros(2, dtype=x.dtype), torch.ones(2, dtype=x.dtype))
    z, ladj = transform.call_and_ladj(x)
    return (base.log_prob(z) + ladj).detach()


# ------------------------------------------------------------------ as people write them


def black_box(model, x):
    """Probability flow of a VP SDE with a Rademacher probe, RK45, nats."""
    import torch
    from scipy import integrate

    shape = x.shape
    epsilon = torch.randint(0, 2, shape).to(x.dtype) * 2 - 1

    def drift(y, t):
        beta = 0.1 + 19.9 * t
        return -0.5 * beta * (y + model(y, torch.full((shape[0],), t, dtype=y.dtype)))

    def ode_func(t, state):
        y = torch.from_numpy(state[: -shape[0]].reshape(shape)).requires_grad_(True)
        with torch.enable_grad():
            d = drift(y, t)
            grad = torch.autograd.grad(torch.sum(d * epsilon), y)[0]
        div = torch.sum(grad * epsilon, dim=1)
        return np.concatenate([d.detach().numpy().reshape(-1), div.numpy()])

    init = np.concatenate([x.numpy().reshape(-1), np.zeros(shape[0])])
    y = integrate.solve_ivp(ode_func, (1e-5, 1), init, rtol=1e-5, atol=1e-5, method="RK45").y[:, -1]
    z, delta_logp = y[: -shape[0]].reshape(shape), y[-shape[0] :]
    prior_logp = -shape[1] / 2 * np.log(2 * np.pi) - np.sum(z**2, axis=1) / 2
    return torch.from_numpy(prior_logp + delta_logp)


def bits(model, x):
    """Bits/dim of data scaled from 256 grey values to [-1, 1]; the flow by Heun's method, exact divergence."""
    import torch

    n, D = 200, x.shape[1]
    ts = np.geomspace(1e-4, 1, n + 1)

    def f(y, t):
        y = y.detach().requires_grad_(True)
        d = -0.5 * (0.1 + 19.9 * t) * (y + model(y, t))
        div = sum(torch.autograd.grad(d[:, k].sum(), y, retain_graph=True)[0][:, k] for k in range(D))
        return d.detach(), div.detach()

    log_det = torch.zeros(x.shape[0], dtype=x.dtype)
    for t, t_next in zip(ts[:-1], ts[1:], strict=True):
        d1, div1 = f(x, t)
        d2, div2 = f(x + (t_next - t) * d1, t_next)
        x = x + (t_next - t) * (d1 + d2) / 2
        log_det = log_det + (t_next - t) * (div1 + div2) / 2
    prior = -0.5 * (x**2 + math.log(2 * math.pi)).sum(1)
    return -(prior + log_det) / (D * math.log(2)) + 8


def probes(model, x):
    """Four Gaussian probes; VP, 30 midpoint steps; JAX."""
    import jax
    import jax.numpy as jnp

    K, n = 4, 30
    v = jax.random.normal(jax.random.PRNGKey(np.random.randint(2**31 - 1)), (K, *x.shape))
    ts = np.linspace(1e-4, 1, n + 1)

    def field(y, t):
        return -0.5 * (0.1 + 19.9 * t) * (y + model(y, t))

    log_det = jnp.zeros(x.shape[0])
    for t, t_next in zip(ts[:-1], ts[1:], strict=True):
        h, middle = t_next - t, 0.5 * (t + t_next)
        d, pull = jax.vjp(lambda y, t=middle: field(y, t), x + 0.5 * h * field(x, t))
        x = x + h * d
        for k in range(K):
            log_det = log_det + h * jnp.sum(pull(v[k])[0] * v[k], axis=1)
    return -0.5 * jnp.sum(x**2, axis=1) - 0.5 * x.shape[1] * jnp.log(2 * jnp.pi) + log_det


def ve_nats(model, x):
    """VE, NumPy, the divergence by central differences."""
    smin, smax, n = 0.01, 50.0, 300
    ts = np.linspace(1e-5, 1, n + 1)

    def f(y, t):
        g2 = smin**2 * (smax / smin) ** (2 * t) * 2 * np.log(smax / smin)
        field = lambda y: -0.5 * g2 * model(y, t)
        div = 0.0
        for k in range(y.shape[1]):
            e = np.zeros(y.shape[1])
            e[k] = 1e-4
            div = div + (field(y + e) - field(y - e))[:, k] / 2e-4
        return field(y), div

    log_det = np.zeros(len(x))
    for t, t_next in zip(ts[:-1], ts[1:], strict=True):
        h = t_next - t
        d1, div1 = f(x, t)
        d2, div2 = f(x + h * d1, t_next)
        x, log_det = x + h * (d1 + d2) / 2, log_det + h * (div1 + div2) / 2
    prior = -np.sum(x**2, axis=1) / (2 * smax**2) - 0.5 * np.log(2 * np.pi * smax**2)
    return prior + log_det


def variational_bound(model, x):
    """The bound of DDPM on log p in nats: 200 terms, variances β̃, the last one a Gaussian of variance β_1."""
    T = 200
    beta = np.linspace(0.01, 0.3, T) ** 2
    alpha, ab = 1 - beta, np.cumprod(1 - beta)
    ab_prev = np.append(1.0, ab[:-1])
    bound = -0.5 * np.sum(ab[-1] * x**2 - ab[-1] - np.log(1 - ab[-1]), axis=1)  # - KL of the prior
    for t in range(T):
        z = np.random.randn(*x.shape)
        x_t = np.sqrt(ab[t]) * x + np.sqrt(1 - ab[t]) * z
        eps = model(x_t, np.full(len(x), t))
        if t == 0:
            mean = (x_t - beta[t] / np.sqrt(1 - ab[t]) * eps) / np.sqrt(alpha[t])
            bound -= np.sum((x - mean) ** 2 / (2 * beta[t]) + 0.5 * np.log(2 * np.pi * beta[t]), axis=1)
        else:
            var = beta[t] * (1 - ab_prev[t]) / (1 - ab[t])
            c = beta[t] ** 2 / (alpha[t] * (1 - ab[t]))
            bound -= np.sum(c * (z - eps) ** 2 / (2 * var), axis=1)
    return bound


TORCH: dict[str, Any] = {
    "kind": "likelihood", "library": "torch", "needs": ("torch",), "mistake": None, "gives": "nats",
}  # fmt: skip
FLOW: dict[str, Any] = {
    **TORCH, "predicts": "velocity to data", "told": "time from noise", "schedule": lambda: flow_levels,
}  # fmt: skip
VP_SCORE: dict[str, Any] = {"predicts": "score", "told": "time", "schedule": lambda: VP(0.1, 20.0)}

PATIENTS: dict[str, dict[str, Any]] = {
    "flow_matching_exact": {
        **FLOW, "patient": flow_matching_exact, "needs": ("torch", "flow_matching"),
        "answer": {"name": "probability flow", "divergence": "exact", "solver": "midpoint, 50 steps"},
    },
    "flow_matching_notebook": {
        **FLOW, "patient": flow_matching_notebook, "needs": ("torch", "flow_matching"),
        "answer": {"name": "probability flow", "divergence": "exact", "solver": "dopri5, adaptive"},
        "mistake": "the prior's log density is averaged over the dimensions instead of summed",
    },
    "zuko_ffjord": {
        **FLOW, "patient": zuko_ffjord, "needs": ("torch", "zuko"),
        "answer": {"name": "probability flow", "divergence": "exact", "solver": "dopri5, adaptive"},
    },
    "black_box": {
        **TORCH, **VP_SCORE, "patient": black_box,
        "answer": {"name": "probability flow", "divergence": "one Rademacher probe", "solver": "RK45 from t = 1e-5"},
    },
    "bits": {
        **TORCH, **VP_SCORE, "patient": bits, "gives": "bits/dim", "data": "grey values 0..255 as [-1, 1]",
        "answer": {"name": "probability flow", "divergence": "exact", "solver": "heun, 200 steps from t = 1e-4"},
        "mistake": "an offset of 8 bits where data in [-1, 1] have 7: one bit too many (8 is for [0, 1])",
    },
    "probes": {
        **VP_SCORE, "patient": probes, "kind": "likelihood", "library": "jax", "needs": ("jax",), "gives": "nats",
        "answer": {"name": "probability flow", "divergence": "4 Gaussian probes", "solver": "midpoint, 30 steps"},
        "mistake": "the probes are summed instead of averaged: 4 times the divergence",
    },
    "ve_nats": {
        "patient": ve_nats, "kind": "likelihood", "library": "numpy", "needs": (), "gives": "nats",
        "predicts": "score", "told": "time", "schedule": lambda: VE(0.01, 50.0),
        "answer": {"name": "probability flow", "divergence": "exact, by differences", "solver": "heun, 300 steps"},
        "mistake": "the prior's normaliser is counted once and not once a dimension",
    },
    "variational_bound": {
        "patient": variational_bound, "kind": "likelihood", "library": "numpy", "needs": (), "gives": "nats",
        "predicts": "noise", "told": "index from 0", "schedule": lambda: ("betas", np.linspace(0.01, 0.3, 200) ** 2),
        "answer": {"name": "variational bound of ddpm", "variance": "small", "grid": "all 200 indices"},
        "mistake": None,
    },
}  # fmt: skip
