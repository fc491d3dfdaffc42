"""The workloads in JAX: everything compiled, training state donated, sampling in one `scan`.

    jax        W1, W2, W4: one jitted step a call.  W3: fifty steps in one jitted scan, the network with one
               conditioning row a step, the mixture by broadcasting
    jax-best   W3-mixture: matrix products, samples on the last axis, all the noise drawn at once

Tried and no faster: many training steps in one scan (6 % at best), noise of W3-net drawn at once.
"""

from math import log

import jax
import jax.numpy as jnp
import workloads as w

FREQUENCIES = jnp.asarray(w.FREQUENCIES, dtype=jnp.float32)
MEANS, STDS, WEIGHTS = (jnp.asarray(a, dtype=jnp.float32) for a in (w.MEANS, w.STDS, w.WEIGHTS))


def arrays(params):
    """The network's weights as JAX arrays of their own, which may be donated."""
    return {name: jnp.array(value) for name, value in params.items()}


def embed(level):
    """log σ/α (B, 1) -> (B, EMBEDDING)."""
    angles = level * FREQUENCIES
    return w.GAIN * jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=1)


def network(params, x, e):
    """x (B, 2) and its embedding e (B or 1, EMBEDDING) -> (B, 2), minus the predicted noise."""
    h = x
    for layer in range(w.DEPTH):
        h = jax.nn.silu(h @ params[f"W{layer}"] + e @ params[f"T{layer}"] + params[f"b{layer}"])
    return h @ params["head"] + params["bias"]


# ---- W1 -----------------------------------------------------------------------------------------


def loss(params, x0, log_sigma, noise):
    """½ |f + ε|², mean over the batch; log σ is (B, 1)."""
    sigma = jnp.exp(log_sigma)
    scaled = (x0 + sigma * noise) / jnp.sqrt(w.DATA_STD**2 + sigma**2)
    return 0.5 * jnp.mean(jnp.sum((network(params, scaled, embed(log_sigma)) + noise) ** 2, axis=1))


def sliced_loss(params, x0, log_sigma, noise, v):
    """W4: σ² (vᵀ∇s v + ½ |s|²), s = f/σ, mean over the batch; the divergence by forward mode."""
    sigma = jnp.exp(log_sigma)
    c = 1 / jnp.sqrt(w.DATA_STD**2 + sigma**2)
    e = embed(log_sigma)
    f, dot = jax.jvp(lambda x: network(params, x, e), (c * (x0 + sigma * noise),), (v,))
    return jnp.mean((sigma * c)[:, 0] * jnp.sum(dot * v, axis=1) + 0.5 * jnp.sum(f**2, axis=1))


def draw(key, pool):
    """A batch: data, log σ and noise."""
    which, level, noise = jax.random.split(key, 3)
    x0 = pool[jax.random.randint(which, (w.BATCH,), 0, w.POOL)]
    low, high = log(w.SIGMA_MIN), log(w.SIGMA_MAX)
    log_sigma = jax.random.uniform(level, (w.BATCH, 1), minval=low, maxval=high)
    return x0, log_sigma, jax.random.normal(noise, (w.BATCH, w.DIMENSION))


def update(state, grad):
    """Adam with bias correction, and the moving average."""
    count = state["count"] + 1
    first = jax.tree.map(lambda m, g: w.BETA1 * m + (1 - w.BETA1) * g, state["first"], grad)
    second = jax.tree.map(lambda v, g: w.BETA2 * v + (1 - w.BETA2) * g * g, state["second"], grad)
    c1, c2 = 1 - w.BETA1**count, 1 - w.BETA2**count
    params = jax.tree.map(
        lambda p, m, v: p - w.LEARNING_RATE * (m / c1) / (jnp.sqrt(v / c2) + w.EPSILON),
        state["params"],
        first,
        second,
    )
    mean = jax.tree.map(lambda e, p: w.EMA_DECAY * e + (1 - w.EMA_DECAY) * p, state["mean"], params)
    return {"params": params, "first": first, "second": second, "mean": mean, "count": count}


def draw_with_probe(key, pool):
    """W1's batch, and a probe."""
    here, probe = jax.random.split(key)
    inputs = draw(here, pool)
    return *inputs, jax.random.rademacher(probe, inputs[0].shape, dtype=jnp.float32)


def training(objective=loss, draw=draw, parameters=w.parameters, pool=w.pool):
    """W1, W2 or W4: one call of a jitted step that may overwrite the old state."""
    pool = jnp.asarray(pool())
    zeros = {name: jnp.zeros_like(p) for name, p in arrays(parameters()).items()}
    state = {
        "params": arrays(parameters()),
        "first": zeros,
        "second": {name: jnp.copy(z) for name, z in zeros.items()},
        "mean": arrays(parameters()),
        "count": jnp.float32(0),
    }
    key = jax.random.key(0)

    def step(state, key, pool):
        key, here = jax.random.split(key)
        value, grad = jax.value_and_grad(objective)(state["params"], *draw(here, pool))
        return update(state, grad), key, value

    compiled = jax.jit(step, donate_argnums=(0, 1))

    def unit():
        nonlocal state, key
        state, key, value = compiled(state, key, pool)
        return value

    return unit


# ---- W2: images (B, H, W, C), kernels (3, 3, in, out) -------------------------------------------


def convolved(p, name, x):
    """Convolution with zeros beyond the edge."""
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, p[f"{name}.W"], (1, 1), "SAME", dimension_numbers=layout) + p[f"{name}.b"]


def normed(p, name, x):
    """Group norm."""
    groups = x.reshape(*x.shape[:3], w.GROUPS, -1)
    c = groups - jnp.mean(groups, axis=(1, 2, 4), keepdims=True)
    n = c * jax.lax.rsqrt(jnp.mean(c**2, axis=(1, 2, 4), keepdims=True) + w.NORM_EPSILON)
    return n.reshape(x.shape) * p[f"{name}.g"] + p[f"{name}.b"]


def block(p, name, x, e):
    """One residual block."""
    h = convolved(p, f"{name}.conv1", jax.nn.silu(normed(p, f"{name}.norm1", x)))
    h = h + (e @ p[f"{name}.conv1.T"])[:, None, None, :]
    h = convolved(p, f"{name}.conv2", jax.nn.silu(normed(p, f"{name}.norm2", h)))
    return h + (convolved(p, f"{name}.skip", x) if f"{name}.skip.W" in p else x)


def attended(p, name, x):
    """Attention of one head."""
    qkv = convolved(p, f"{name}.qkv", normed(p, f"{name}.norm3", x)).reshape(len(x), -1, 3 * x.shape[3])
    q, k, v = jnp.split(qkv, 3, axis=2)
    o = jax.nn.softmax(q @ jnp.swapaxes(k, 1, 2) * x.shape[3] ** -0.5, axis=2) @ v
    return x + convolved(p, f"{name}.out", o.reshape(x.shape))


def halved(x):
    """Means of 2 x 2 pixels."""
    B, H, W, C = x.shape
    return jnp.mean(x.reshape(B, H // 2, 2, W // 2, 2, C), axis=(2, 4))


def doubled(x):
    """Every pixel four times."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def unet(p, x, level):
    """W2's network: images (B, H, W, 1), levels (B, 1) -> (B, H, W, 1)."""
    e = embed(level)
    for name in ("level1", "level2"):
        e = jax.nn.silu(e @ p[f"{name}.W"] + p[f"{name}.b"])
    high = block(p, "down0.0", convolved(p, "first", x), e)
    middle = block(p, "down1.0", halved(high), e)
    low = attended(p, "down2.0", block(p, "down2.0", halved(middle), e))
    low = block(p, "up2.0", low, e)
    middle = block(p, "up1.0", jnp.concatenate([doubled(low), middle], axis=3), e)
    high = block(p, "up0.0", jnp.concatenate([doubled(middle), high], axis=3), e)
    return convolved(p, "last", jax.nn.silu(normed(p, "norm", high)))


def unet_loss(params, x0, log_sigma, noise):
    """½ |f + ε|², mean over the batch; log σ is (B, 1), images (B, H, W, 1)."""
    sigma = jnp.exp(log_sigma)[:, :, None, None]
    scaled = (x0 + sigma * noise) / jnp.sqrt(w.DATA_STD**2 + sigma**2)
    return 0.5 * jnp.mean(jnp.sum((unet(params, scaled, log_sigma) + noise) ** 2, axis=(1, 2, 3)))


def draw_images(key, pool):
    """A batch: images, log σ and noise."""
    which, level, noise = jax.random.split(key, 3)
    x0 = pool[jax.random.randint(which, (w.UNET_BATCH,), 0, len(pool))]
    low, high = log(w.SIGMA_MIN), log(w.SIGMA_MAX)
    log_sigma = jax.random.uniform(level, (w.UNET_BATCH, 1), minval=low, maxval=high)
    return x0, log_sigma, jax.random.normal(noise, x0.shape)


def unet_training():
    """W2: one step."""
    return training(unet_loss, draw_images, w.unet_parameters, w.images)


# ---- W3 -----------------------------------------------------------------------------------------


def repeated(sample):
    """Compile sample(key) -> x; each call of the unit uses a new key."""

    @jax.jit
    def advance(key):
        key, here = jax.random.split(key)
        return key, sample(here)

    key = jax.random.key(0)

    def unit():
        nonlocal key
        key, x = advance(key)
        return x

    return unit


def table(path):
    """The steps' numbers as arrays of length 50, to scan over."""
    columns = zip(*path.steps(), strict=True)
    return w.Step(*(jnp.asarray(column, dtype=jnp.float32) for column in columns))


def network_scan(path=w.TIMED):
    """W3-net: conditioning of all steps before the loop, as JAX would not hoist it by itself."""
    params, start, steps = arrays(w.parameters()), jnp.asarray(w.prior()), table(path)

    def sample(key):
        e = embed(steps.level[:, None])
        rows = [e @ params[f"T{k}"] + params[f"b{k}"] for k in range(w.DEPTH)]

        def step(x, at):
            s, row, key = at
            h = x
            for layer in range(w.DEPTH):
                h = jax.nn.silu(h @ params[f"W{layer}"] + row[layer])
            score = (h @ params["head"] + params["bias"]) / s.sigma
            return s.keep * x + s.push * score + s.noise * jax.random.normal(key, x.shape), None

        return jax.lax.scan(step, start, (steps, rows, jax.random.split(key, w.UNIT_STEPS)))[0]

    return repeated(sample)


def mixture_plain(path=w.TIMED):
    """W3-mixture as first written: all differences x - μ at once, (B, 8, 2)."""
    start, steps = jnp.asarray(w.prior()), table(path)

    def score(x, s):
        variances = (s.alpha * STDS) ** 2 + s.sigma**2
        difference = s.alpha * MEANS - x[:, None, :]
        logits = jnp.log(WEIGHTS / variances) - 0.5 * jnp.sum(difference**2, axis=2) / variances
        r = jax.nn.softmax(logits, axis=1)
        return jnp.sum((r / variances)[:, :, None] * difference, axis=1)

    def step(x, at):
        s, key = at
        return s.keep * x + s.push * score(x, s) + s.noise * jax.random.normal(key, x.shape), None

    def sample(key):
        return jax.lax.scan(step, start, (steps, jax.random.split(key, w.UNIT_STEPS)))[0]

    return repeated(sample)


def mixture_best(path=w.TIMED):
    """W3-mixture by matrix products, samples on the last axis: x is (2, B)."""
    start, steps = jnp.asarray(w.prior().T), table(path)

    def score(x, s):
        precision = 1 / ((s.alpha * STDS) ** 2 + s.sigma**2)
        scaled = s.alpha * precision[:, None] * MEANS
        c = jnp.log(WEIGHTS * precision) - 0.5 * s.alpha**2 * precision * jnp.sum(MEANS**2, axis=1)
        logits = scaled @ x - (0.5 * precision)[:, None] * jnp.sum(x**2, axis=0) + c[:, None]
        r = jnp.exp(logits - jnp.max(logits, axis=0))
        return (scaled.T @ r - x * (precision @ r)) / jnp.sum(r, axis=0)

    def step(x, at):
        s, z = at
        return s.keep * x + s.push * score(x, s) + s.noise * z, None

    def sample(key):
        noise = jax.random.normal(key, (w.UNIT_STEPS, *start.shape))
        return jax.lax.scan(step, start, (steps, noise))[0].T

    return repeated(sample)


VARIANTS = {
    "jax": {
        "W1": training,
        "W2": unet_training,
        "W3-net": network_scan,
        "W3-mixture": mixture_plain,
        "W4": lambda: training(sliced_loss, draw_with_probe),
    },
    "jax-best": {"W3-mixture": mixture_best},
}


def describe():
    """Version and device."""
    return f"jax {jax.__version__}, {jax.devices()[0].platform}"


def set_threads(threads):
    """Nothing to do: XLA's pool has one thread a processor this process may run on."""


def wait(result):
    """JAX returns before it has finished."""
    jax.block_until_ready(result)


def gradient(x0, log_sigma, noise):
    """W1's loss and gradient at the initial weights, for comparison with the reference."""
    value, grad = jax.value_and_grad(loss)(arrays(w.parameters()), x0, log_sigma[:, None], noise)
    return float(value), {name: jax.device_get(g) for name, g in grad.items()}


def unet_gradient(x0, log_sigma, noise):
    """W2's loss and gradient, likewise."""
    compiled = jax.jit(jax.value_and_grad(unet_loss))
    value, grad = compiled(arrays(w.unet_parameters()), x0, log_sigma[:, None], noise)
    return float(value), {name: jax.device_get(g) for name, g in grad.items()}


def sliced_gradient(x0, log_sigma, noise, v):
    """W4's loss and gradient, likewise."""
    value, grad = jax.value_and_grad(sliced_loss)(arrays(w.parameters()), x0, log_sigma[:, None], noise, v)
    return float(value), {name: jax.device_get(g) for name, g in grad.items()}
