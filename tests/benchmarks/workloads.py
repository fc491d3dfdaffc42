"""The workloads, defined once: every side builds its own version from these numbers.

    W1           one training step of denoising score matching: a small network, batch 512
    W3-net       50 of the 1000 Euler-Maruyama steps of a reverse VP SDE, 4096 samples, score
                 from that network
    W3-mixture   the same 50 steps with the exact score of a Gaussian mixture
    W4           one training step of sliced score matching: W1 with the divergence of the score in the loss

Plain NumPy, in double precision wherever something is a reference; the sides run in float32.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import exp, expm1, log, sqrt
from typing import NamedTuple

import numpy as np

NAMES = ("W1", "W3-net", "W3-mixture", "W4")

# ---- the network: z = h W + e T + b, h = silu(z), three times; then a linear head ----------------
# e = GAIN [sin, cos](FREQUENCIES level), level = log(σ/α), as in the library. The network answers
# with f, minus the noise it believes x to hold, so the score is f / σ.
DIMENSION, WIDTH, DEPTH, EMBEDDING = 2, 256, 3, 64
FREQUENCIES, GAIN = np.geomspace(0.1, 4.0, EMBEDDING // 2), sqrt(2)

# ---- W1 -----------------------------------------------------------------------------------------
BATCH, POOL = 512, 65536
SIGMA_MIN, SIGMA_MAX = 0.01, 10.0  # log σ is uniform between their logarithms; α = 1
DATA_STD = 1.0  # the network sees x / √(α² DATA_STD² + σ²)
LEARNING_RATE, BETA1, BETA2, EPSILON = 1e-3, 0.9, 0.999, 1e-8
EMA_DECAY = 0.999

# ---- W3 -----------------------------------------------------------------------------------------
SAMPLES, STEPS, UNIT_STEPS = 4096, 1000, 50
BETA_MIN, BETA_MAX = 0.1, 20.0
FIRST_TIME, LAST_TIME = 1.0, 1e-3

# ---- the mixtures: eight components on a circle -------------------------------------------------
COMPONENTS, RADIUS, POOL_STD = 8, 2.0, 0.1
ANGLES = 2 * np.pi * np.arange(COMPONENTS) / COMPONENTS
MEANS = RADIUS * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
STDS = np.linspace(0.1, 0.3, COMPONENTS)
WEIGHTS = np.linspace(1.0, 2.0, COMPONENTS) / np.linspace(1.0, 2.0, COMPONENTS).sum()


def pool(seed=0):
    """W1's data, (POOL, 2) float32: eight narrow Gaussians of equal weight."""
    rng = np.random.default_rng(seed)
    means = MEANS[rng.integers(0, COMPONENTS, POOL)]
    return (means + POOL_STD * rng.standard_normal(means.shape)).astype(np.float32)


def parameters(seed=1):
    """Weights of the network in float32, so that all sides may start from the same ones."""
    rng = np.random.default_rng(seed)
    params = {}
    for layer in range(DEPTH):
        n_in = WIDTH if layer else DIMENSION
        params[f"W{layer}"] = rng.standard_normal((n_in, WIDTH)) * n_in**-0.5
        params[f"T{layer}"] = rng.standard_normal((EMBEDDING, WIDTH)) * EMBEDDING**-0.5
        params[f"b{layer}"] = np.zeros(WIDTH)
    params["head"] = rng.standard_normal((WIDTH, DIMENSION)) * WIDTH**-0.5
    params["bias"] = np.zeros(DIMENSION)
    return {name: value.astype(np.float32) for name, value in params.items()}


def prior(seed=2):
    """W3's samples at t = 1, (SAMPLES, 2) float32."""
    return np.random.default_rng(seed).standard_normal((SAMPLES, DIMENSION), dtype=np.float32)


def beta(t):
    """The VP SDE's rate β(t): dx = -½ β x dt + √β dw."""
    return BETA_MIN + t * (BETA_MAX - BETA_MIN)


def alpha_sigma(t):
    """x(t) = α x(0) + σ z for the VP SDE."""
    integral = t * BETA_MIN + 0.5 * t**2 * (BETA_MAX - BETA_MIN)
    return exp(-0.5 * integral), sqrt(-expm1(-integral))


class Step(NamedTuple):
    """One Euler-Maruyama step of the reverse SDE: x ← keep x + push score + noise z; level = log σ/α."""

    t: float
    alpha: float
    sigma: float
    level: float
    keep: float
    push: float
    noise: float


@dataclass(frozen=True)
class Path:
    """Fifty of the thousand Euler-Maruyama steps from FIRST_TIME to LAST_TIME.

    What is timed are the first fifty. The checks also run the last fifty, where the mixture has come
    apart into its components, and they run quietly: the noise is drawn and multiplied by 0, so that
    all sides end at the same points.
    """

    first: int = 0
    quiet: bool = False

    def times(self):
        """The 51 times."""
        grid = np.linspace(FIRST_TIME, LAST_TIME, STEPS + 1)
        return [float(t) for t in grid[self.first : self.first + UNIT_STEPS + 1]]

    def steps(self):
        """The 50 steps. Reverse drift: -½ β x - β score, run from t down to s."""
        steps = []
        for t, s in pairwise(self.times()):
            bh = beta(t) * (t - s)
            alpha, sigma = alpha_sigma(t)
            noise = 0.0 if self.quiet else sqrt(bh)
            steps.append(Step(t, alpha, sigma, log(sigma / alpha), keep=1 + 0.5 * bh, push=bh, noise=noise))
        return steps


TIMED = Path()


# ---- references: slow, double precision, and as close to the formulas as can be -----------------


def network(params, x, level):
    """The network's answer (B, 2) to scaled inputs x (B, 2) and levels (B,)."""
    angles = level[:, None] * FREQUENCIES
    e = GAIN * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    h = x
    for layer in range(DEPTH):
        z = h @ params[f"W{layer}"] + e @ params[f"T{layer}"] + params[f"b{layer}"]
        h = z / (1 + np.exp(-z))
    return h @ params["head"] + params["bias"]


def denoising_loss(params, x0, log_sigma, noise):
    """W1's loss, mean over the batch of ½ |f + ε|²; complex-safe, for derivatives by complex step."""
    sigma = np.exp(log_sigma)[:, None]
    scaled = (x0 + sigma * noise) / np.sqrt(DATA_STD**2 + sigma**2)
    return 0.5 * np.sum((network(params, scaled, log_sigma) + noise) ** 2) / len(x0)


def sliced_loss(params, x0, log_sigma, noise, v):
    """W4's loss, mean over the batch of σ² (vᵀ∇s v + ½ |s|²), s = f/σ; for derivatives by complex step."""
    sigma = np.exp(log_sigma)[:, None]
    c = 1 / np.sqrt(DATA_STD**2 + sigma**2)
    x = c * (x0 + sigma * noise)
    f = network(params, x, log_sigma)
    along = np.sum(network_tangent(params, x, log_sigma, v) * v, axis=1)  # vᵀ(∂f/∂input) v
    return np.mean((sigma * c)[:, 0] * along + 0.5 * np.sum(f**2, axis=1))


def network_tangent(params, x, level, v):
    """Derivative of the network's answer along v, a direction of its input."""
    angles = level[:, None] * FREQUENCIES
    e = GAIN * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    h, dot = x, v
    for layer in range(DEPTH):
        z = h @ params[f"W{layer}"] + e @ params[f"T{layer}"] + params[f"b{layer}"]
        s = 1 / (1 + np.exp(-z))
        h, dot = z * s, (s + z * s * (1 - s)) * (dot @ params[f"W{layer}"])
    return dot @ params["head"]


def network_score(x, t):
    """W3's score from the network with its initial weights; at DATA_STD = 1 a VP SDE scales inputs by 1."""
    alpha, sigma = alpha_sigma(t)
    return network(parameters(), x, np.full(len(x), log(sigma / alpha))) / sigma


def mixture_score(x, t):
    """W3's exact score: the mixture's, each component diffused to time t."""
    alpha, sigma = alpha_sigma(t)
    variances = (alpha * STDS) ** 2 + sigma**2
    difference = alpha * MEANS - x.astype(np.float64)[:, None, :]
    logits = np.log(WEIGHTS / variances) - 0.5 * np.sum(difference**2, axis=2) / variances
    r = np.exp(logits - logits.max(axis=1, keepdims=True))
    r /= r.sum(axis=1, keepdims=True)
    return np.sum((r / variances)[:, :, None] * difference, axis=1)


def follow(path, score, rows):
    """Where the first samples are after the steps of a quiet path."""
    x = prior()[:rows].astype(np.float64)
    for step in path.steps():
        x = step.keep * x + step.push * score(x, step.t)
    return x
