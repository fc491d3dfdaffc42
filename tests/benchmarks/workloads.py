"""The workloads, defined once: every side builds its own version from these numbers.

    W1           one training step of denoising score matching: a small network, batch 512
    W2           one training step of denoising score matching of images: a U-Net, 64 images of 16 x 16
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

NAMES = ("W1", "W2", "W3-net", "W3-mixture", "W4")

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

# ---- W2: noise levels, scaling, optimiser and average as W1 -------------------------------------
# x -> conv -> at each level (width) a block; halved by means; at the lowest level attention of one
# head between two blocks; on the way up doubled, beside the level's own images, a block; norm, silu,
# conv.  block(x) = skip x + conv(silu(norm(conv(silu(norm x)) + e T)))
IMAGES, SIDE, UNET_BATCH = 4096, 16, 64
UNET_WIDTHS, UNET_COND, GROUPS, NORM_EPSILON = (32, 64, 64), 128, 8, 1e-5

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


def images(seed=0):
    """W2's data, (IMAGES, SIDE, SIDE, 1) float32: waves of random direction and phase."""
    rng = np.random.default_rng(seed)
    kx, ky, phase = rng.uniform(-1.5, 1.5, (3, IMAGES, 1, 1))
    at = np.arange(SIDE)
    return np.sin(kx * at[:, None] + ky * at + 4 * phase)[..., None].astype(np.float32)


def unet_blocks():
    """Name of each block, channels before and after."""
    a, b, c = UNET_WIDTHS
    down = {"down0.0": (a, a), "down1.0": (a, b), "down2.0": (b, c)}
    return down | {"up2.0": (c, c), "up1.0": (c + b, b), "up0.0": (b + a, a)}


def unet_shapes():
    """Parameter of W2's network -> shape; kernels are (3, 3, in, out)."""
    first, lowest = UNET_WIDTHS[0], UNET_WIDTHS[-1]
    dense = {"level1": (EMBEDDING, UNET_COND), "level2": (UNET_COND, UNET_COND)}
    convs = {"first": (3, 3, 1, first), "last": (3, 3, first, 1)}
    convs |= {"down2.0.qkv": (1, 1, lowest, 3 * lowest), "down2.0.out": (1, 1, lowest, lowest)}
    norms = {"down2.0.norm3": lowest, "norm": first}
    shapes = {}
    for name, (n_in, n_out) in unet_blocks().items():
        convs |= {f"{name}.conv1": (3, 3, n_in, n_out), f"{name}.conv2": (3, 3, n_out, n_out)}
        norms |= {f"{name}.norm1": n_in, f"{name}.norm2": n_out}
        shapes[f"{name}.conv1.T"] = (UNET_COND, n_out)
        if n_in != n_out:
            convs[f"{name}.skip"] = (1, 1, n_in, n_out)
    for name, shape in (dense | convs).items():
        shapes |= {f"{name}.W": shape, f"{name}.b": shape[-1:]}
    for name, n in norms.items():
        shapes |= {f"{name}.g": (n,), f"{name}.b": (n,)}
    return shapes


def unet_parameters(seed=1):
    """Weights of W2's network in float32; every bias and scale is moved, so that none hides."""
    rng, params = np.random.default_rng(seed), {}
    for name, shape in unet_shapes().items():
        if len(shape) > 1:
            params[name] = rng.standard_normal(shape) * np.prod(shape[:-1]) ** -0.5
        else:
            params[name] = (name[-1] == "g") + 0.1 * rng.standard_normal(shape)
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


def unet_loss(params, x0, log_sigma, noise):
    """W2's loss, mean over the batch of ½ |f + ε|²; complex-safe."""
    sigma = np.exp(log_sigma)[:, None, None, None]
    scaled = (x0 + sigma * noise) / np.sqrt(DATA_STD**2 + sigma**2)
    return 0.5 * np.sum((unet(params, scaled, log_sigma) + noise) ** 2) / len(x0)


def unet(p, x, level):
    """W2's network: images (B, H, W, 1), levels (B,) -> (B, H, W, 1)."""
    angles = level[:, None] * FREQUENCIES
    e = GAIN * np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    for name in ("level1", "level2"):
        e = silu(e @ p[f"{name}.W"] + p[f"{name}.b"])
    high = block(p, "down0.0", convolved(p, "first", x), e)
    middle = block(p, "down1.0", halved(high), e)
    low = attended(p, "down2.0", block(p, "down2.0", halved(middle), e))
    low = block(p, "up2.0", low, e)
    middle = block(p, "up1.0", np.concatenate([doubled(low), middle], axis=3), e)
    high = block(p, "up0.0", np.concatenate([doubled(middle), high], axis=3), e)
    return convolved(p, "last", silu(normed(p, "norm", high)))


def silu(z):
    """z / (1 + e⁻ᶻ)."""
    return z / (1 + np.exp(-z))


def convolved(p, name, x):
    """A sum of shifted images times matrices."""
    W, (_, height, width, _) = p[f"{name}.W"], x.shape
    k = len(W)
    x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    return sum(x[:, i : i + height, j : j + width] @ W[i, j] for i in range(k) for j in range(k)) + p[f"{name}.b"]


def normed(p, name, x):
    """Group norm."""
    groups = x.reshape(*x.shape[:3], GROUPS, -1)
    c = groups - groups.mean(axis=(1, 2, 4), keepdims=True)
    n = c / np.sqrt((c**2).mean(axis=(1, 2, 4), keepdims=True) + NORM_EPSILON)
    return n.reshape(x.shape) * p[f"{name}.g"] + p[f"{name}.b"]


def block(p, name, x, e):
    """One residual block."""
    h = convolved(p, f"{name}.conv1", silu(normed(p, f"{name}.norm1", x)))
    h = h + (e @ p[f"{name}.conv1.T"])[:, None, None, :]
    h = convolved(p, f"{name}.conv2", silu(normed(p, f"{name}.norm2", h)))
    return h + (convolved(p, f"{name}.skip", x) if f"{name}.skip.W" in p else x)


def attended(p, name, x):
    """Attention of one head."""
    q, k, v = np.split(
        convolved(p, f"{name}.qkv", normed(p, f"{name}.norm3", x)).reshape(len(x), -1, 3 * x.shape[3]), 3, axis=2
    )
    w = np.exp(q @ k.transpose(0, 2, 1) * x.shape[3] ** -0.5)
    return x + convolved(p, f"{name}.out", (w / w.sum(axis=2, keepdims=True) @ v).reshape(x.shape))


def halved(x):
    """Means of 2 x 2 pixels."""
    return 0.25 * sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1))


def doubled(x):
    """Every pixel four times."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


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
