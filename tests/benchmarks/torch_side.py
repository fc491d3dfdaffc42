"""The workloads in PyTorch: as one would first write them, as fast as we know how, and compiled.

    torch        plain: per-row conditioning, default Adam, broadcast mixture
    torch-best   W1: fused Adam, `_foreach` mean.  W2: that, and channels last in memory.
                 W3-net: `inference_mode`, one conditioning row a step from a table, buffers
                 kept, chunks of samples that stay in the cache.
                 W3-mixture: matrix products, samples on the last axis
    torch-gemm   W3-mixture as matrix products with the samples on the first axis: 2-3 times slower
                 than `torch-best`, kept because it is the form usually shown
    torch-compile  W1, W2, W4: `torch-best` with its loss in `torch.compile`; the divergence of W4 by forward mode
                 written out, as neither a backward that is differentiated again nor `torch.func.jvp` compiles.
                 W3: one compiled step, its numbers in tensors, so that one program serves all steps

Both versions of W1 share network and loss. Variants that were tried and were no faster: `nn.Linear`,
`addmm`, one product over [h, e], and one product for the embeddings of all three layers.
"""

from math import log

import torch
import workloads as w


def tensors(params):
    """The network's weights as torch tensors of their own."""
    return {name: torch.tensor(value) for name, value in params.items()}


FREQUENCIES = torch.tensor(w.FREQUENCIES, dtype=torch.float32)
MEANS, STDS, WEIGHTS = (torch.tensor(a, dtype=torch.float32) for a in (w.MEANS, w.STDS, w.WEIGHTS))


def embed(level):
    """log σ/α (B, 1) -> (B, EMBEDDING)."""
    angles = level * FREQUENCIES
    return w.GAIN * torch.cat([angles.sin(), angles.cos()], dim=1)


def network(params, x, e):
    """x (B, 2) and its embedding e (B or 1, EMBEDDING) -> (B, 2), minus the predicted noise."""
    h = x
    for layer in range(w.DEPTH):
        z = h @ params[f"W{layer}"] + e @ params[f"T{layer}"] + params[f"b{layer}"]
        h = torch.nn.functional.silu(z)
    return h @ params["head"] + params["bias"]


# ---- W1 -----------------------------------------------------------------------------------------


def loss(params, x0, log_sigma, noise):
    """½ |f + ε|², mean over the batch; log σ is (B, 1)."""
    sigma = log_sigma.exp()
    scaled = (x0 + sigma * noise) / (w.DATA_STD**2 + sigma.square()).sqrt()
    return 0.5 * (network(params, scaled, embed(log_sigma)) + noise).square().sum(dim=1).mean()


def draw(pool):
    """A batch: data, log σ and noise."""
    x0 = pool[torch.randint(len(pool), (w.BATCH,))]
    log_sigma = torch.empty(w.BATCH, 1).uniform_(log(w.SIGMA_MIN), log(w.SIGMA_MAX))
    return x0, log_sigma, torch.randn(w.BATCH, w.DIMENSION)


def average_each(mean, params):
    """The moving average, tensor by tensor."""
    for m, p in zip(mean, params, strict=True):
        m.mul_(w.EMA_DECAY).add_(p, alpha=1 - w.EMA_DECAY)


def average_together(mean, params):
    """The moving average of all tensors in one call."""
    torch._foreach_lerp_(mean, params, 1 - w.EMA_DECAY)


def training(fused, average, objective=None, draw=draw):
    """One training step of W1, or of W4; returns the loss as a tensor that nobody waits for."""
    pool = torch.tensor(w.pool())
    params = {name: p.requires_grad_() for name, p in tensors(w.parameters()).items()}
    leaves = list(params.values())
    mean = [p.detach().clone() for p in leaves]
    adam = torch.optim.Adam(leaves, lr=w.LEARNING_RATE, betas=(w.BETA1, w.BETA2), eps=w.EPSILON, fused=fused)
    objective = objective or loss

    def step():
        adam.zero_grad(set_to_none=True)
        value = objective(params, *draw(pool))
        value.backward()
        adam.step()
        with torch.no_grad():
            average(mean, leaves)
        return value.detach()

    return step


def training_plain():
    """W1 with the defaults of torch.optim.Adam."""
    return training(None, average_each)


def training_best():
    """W1 with the fused Adam."""
    return training(True, average_together)


def training_compiled():
    """The same, loss and gradient compiled."""
    return training(True, average_together, torch.compile(loss))


# ---- W2 -----------------------------------------------------------------------------------------


def unet_tensors(layout):
    """The U-Net's weights; kernels are (out, in, 3, 3) in torch."""
    params = {}
    for name, value in w.unet_parameters().items():
        p = torch.tensor(value.transpose(3, 2, 0, 1) if value.ndim == 4 else value)
        params[name] = p.contiguous(memory_format=layout) if value.ndim == 4 else p
    return params


def convolved(p, name, x):
    """Convolution with zeros beyond the edge."""
    W = p[f"{name}.W"]
    return torch.nn.functional.conv2d(x, W, p[f"{name}.b"], padding=W.shape[2] // 2)


def normed(p, name, x):
    """Group norm."""
    return torch.nn.functional.group_norm(x, w.GROUPS, p[f"{name}.g"], p[f"{name}.b"], w.NORM_EPSILON)


def block(p, name, x, e):
    """One residual block."""
    silu = torch.nn.functional.silu
    h = convolved(p, f"{name}.conv1", silu(normed(p, f"{name}.norm1", x)))
    h = h + (e @ p[f"{name}.conv1.T"])[:, :, None, None]
    h = convolved(p, f"{name}.conv2", silu(normed(p, f"{name}.norm2", h)))
    return h + (convolved(p, f"{name}.skip", x) if f"{name}.skip.W" in p else x)


def attended(p, name, x):
    """Attention of one head."""
    qkv = convolved(p, f"{name}.qkv", normed(p, f"{name}.norm3", x)).flatten(2).transpose(1, 2)
    o = torch.nn.functional.scaled_dot_product_attention(*qkv.chunk(3, dim=2))
    return x + convolved(p, f"{name}.out", o.transpose(1, 2).reshape(x.shape))


def unet(p, x, level):
    """W2's network: images (B, 1, H, W), levels (B, 1) -> (B, 1, H, W)."""
    silu, halved = torch.nn.functional.silu, torch.nn.functional.avg_pool2d
    e = embed(level)
    for name in ("level1", "level2"):
        e = silu(e @ p[f"{name}.W"] + p[f"{name}.b"])

    def doubled(x):
        return torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")

    high = block(p, "down0.0", convolved(p, "first", x), e)
    middle = block(p, "down1.0", halved(high, 2), e)
    low = attended(p, "down2.0", block(p, "down2.0", halved(middle, 2), e))
    low = block(p, "up2.0", low, e)
    middle = block(p, "up1.0", torch.cat([doubled(low), middle], dim=1), e)
    high = block(p, "up0.0", torch.cat([doubled(middle), high], dim=1), e)
    return convolved(p, "last", silu(normed(p, "norm", high)))


def unet_loss(params, x0, log_sigma, noise):
    """½ |f + ε|², mean over the batch; log σ is (B, 1), images (B, 1, H, W)."""
    sigma = log_sigma.exp()[:, :, None, None]
    scaled = (x0 + sigma * noise) / (w.DATA_STD**2 + sigma.square()).sqrt()
    return 0.5 * (unet(params, scaled, log_sigma) + noise).square().sum(dim=(1, 2, 3)).mean()


def unet_training(fused, average, layout=torch.contiguous_format, objective=unet_loss):
    """One training step of W2; returns the loss as a tensor that nobody waits for."""
    pool = torch.tensor(w.images()).permute(0, 3, 1, 2)
    params = {name: p.requires_grad_() for name, p in unet_tensors(layout).items()}
    leaves = list(params.values())
    mean = [p.detach().clone() for p in leaves]
    adam = torch.optim.Adam(leaves, lr=w.LEARNING_RATE, betas=(w.BETA1, w.BETA2), eps=w.EPSILON, fused=fused)

    def step():
        adam.zero_grad(set_to_none=True)
        x0 = pool[torch.randint(len(pool), (w.UNET_BATCH,))].contiguous(memory_format=layout)
        log_sigma = torch.empty(w.UNET_BATCH, 1).uniform_(log(w.SIGMA_MIN), log(w.SIGMA_MAX))
        value = objective(params, x0, log_sigma, torch.randn_like(x0))
        value.backward()
        adam.step()
        with torch.no_grad():
            average(mean, leaves)
        return value.detach()

    return step


# ---- W4 -----------------------------------------------------------------------------------------


def sliced_loss(params, x0, log_sigma, noise, v):
    """σ² (vᵀ∇s v + ½ |s|²), s = f/σ, mean over the batch; the divergence by a backward that is differentiated again."""
    sigma = log_sigma.exp()
    c = 1 / (w.DATA_STD**2 + sigma.square()).sqrt()
    x = (c * (x0 + sigma * noise)).requires_grad_()
    f = network(params, x, embed(log_sigma))
    (pulled,) = torch.autograd.grad((f * v).sum(), x, create_graph=True)
    return ((sigma * c)[:, 0] * (pulled * v).sum(dim=1) + 0.5 * f.square().sum(dim=1)).mean()


def sliced_loss_forward(params, x0, log_sigma, noise, v):
    """The same, the divergence by forward mode, written out."""
    sigma = log_sigma.exp()
    c, e = 1 / (w.DATA_STD**2 + sigma.square()).sqrt(), embed(log_sigma)
    h, dot = c * (x0 + sigma * noise), v
    for layer in range(w.DEPTH):
        z = h @ params[f"W{layer}"] + e @ params[f"T{layer}"] + params[f"b{layer}"]
        s = torch.sigmoid(z)
        h, dot = z * s, (s + z * s * (1 - s)) * (dot @ params[f"W{layer}"])
    f, dot = h @ params["head"] + params["bias"], dot @ params["head"]
    return ((sigma * c)[:, 0] * (dot * v).sum(dim=1) + 0.5 * f.square().sum(dim=1)).mean()


def draw_with_probe(pool):
    """W1's inputs, and a probe."""
    return (*draw(pool), torch.randint(2, (w.BATCH, w.DIMENSION)).float().mul_(2).sub_(1))


def sliced_training(fused, average, objective=sliced_loss):
    """W4: one step."""
    return training(fused, average, objective, draw_with_probe)


# ---- W3 -----------------------------------------------------------------------------------------


def network_plain(path=w.TIMED):
    """W3-net as first written: every sample carries its own conditioning row."""
    params, start, steps = tensors(w.parameters()), torch.tensor(w.prior()), path.steps()

    @torch.no_grad()
    def unit():
        x = start
        for s in steps:
            e = embed(torch.full((len(x), 1), s.level))
            score = network(params, x, e) / s.sigma
            x = s.keep * x + s.push * score + s.noise * torch.randn_like(x)
        return x

    return unit


def network_best(path=w.TIMED, chunk=512):
    """W3-net: conditioning once for all steps, then 512 samples at a time through all steps.

    The conditioning table is made inside the unit, since it belongs to the work.
    """
    params, start, steps = tensors(w.parameters()), torch.tensor(w.prior()), path.steps()
    levels = torch.tensor([[s.level] for s in steps], dtype=torch.float32)

    def run(x, table):
        h, other = torch.empty(len(x), w.WIDTH), torch.empty(len(x), w.WIDTH)
        f, z = torch.empty_like(x), torch.empty_like(x)
        for i, s in enumerate(steps):
            torch.addmm(table[0][i], x, params["W0"], out=h)
            torch.nn.functional.silu(h, inplace=True)
            for layer in range(1, w.DEPTH):
                torch.addmm(table[layer][i], h, params[f"W{layer}"], out=other)
                torch.nn.functional.silu(other, inplace=True)
                h, other = other, h
            torch.addmm(params["bias"], h, params["head"], out=f)
            x.mul_(s.keep).add_(f, alpha=s.push / s.sigma).add_(z.normal_(), alpha=s.noise)
        return x

    @torch.inference_mode()
    def unit():
        e = embed(levels)
        table = [torch.addmm(params[f"b{k}"], e, params[f"T{k}"]) for k in range(w.DEPTH)]
        return torch.cat([run(x.clone(), table) for x in start.split(chunk)])

    return unit


def network_compiled(path=w.TIMED):
    """W3-net: one step compiled; the steps' numbers and conditioning rows are tensors."""
    params, start, steps = tensors(w.parameters()), torch.tensor(w.prior()), path.steps()
    levels, numbers = torch.tensor([[s.level] for s in steps]), columns(steps, "keep", "push", "noise", "sigma")

    @torch.compile
    def step(x, rows, at, z):
        keep, push, noise, sigma = at.unbind()
        h = x
        for layer in range(w.DEPTH):
            h = torch.nn.functional.silu(h @ params[f"W{layer}"] + rows[layer])
        return keep * x + push / sigma * (h @ params["head"] + params["bias"]) + noise * z

    @torch.inference_mode()
    def unit():
        x, e = start.clone(), embed(levels)
        table = torch.stack([torch.addmm(params[f"b{k}"], e, params[f"T{k}"]) for k in range(w.DEPTH)], dim=1)
        for rows, at in zip(table, numbers, strict=True):
            x = step(x, rows, at, torch.randn_like(x))
        return x

    return unit


def columns(steps, *names):
    """Numbers of the steps as a tensor, a row a step."""
    return torch.tensor([[getattr(s, name) for name in names] for s in steps])


def mixture_plain(path=w.TIMED):
    """W3-mixture as first written: all differences x - μ at once, (B, 8, 2)."""
    start, steps = torch.tensor(w.prior()), path.steps()

    def score(x, s):
        variances = (s.alpha * STDS).square() + s.sigma**2
        difference = s.alpha * MEANS - x[:, None, :]
        logits = torch.log(WEIGHTS / variances) - 0.5 * difference.square().sum(dim=2) / variances
        r = torch.softmax(logits, dim=1)
        return ((r / variances)[:, :, None] * difference).sum(dim=1)

    @torch.no_grad()
    def unit():
        x = start
        for s in steps:
            x = s.keep * x + s.push * score(x, s) + s.noise * torch.randn_like(x)
        return x

    return unit


def coefficients(steps):
    """For each step A (8, 3), c (8, 1), M (3, 8), with which the score is two matrix products.

    With μ_k = α m_k and v_k = α² s_k² + σ², up to a constant log r = A [x; |x|²] + c, and the score is
    Σ r μ/v - x Σ r/v: the rows of M are μ/v and 1/v.
    """
    alpha, sigma = torch.tensor([[s.alpha, s.sigma] for s in steps]).T[:, :, None]
    precision = 1 / ((alpha * STDS).square() + sigma.square())
    scaled = (alpha * precision)[:, :, None] * MEANS
    A = torch.cat([scaled, -0.5 * precision[:, :, None]], dim=2)
    M = torch.cat([scaled, precision[:, :, None]], dim=2).transpose(1, 2).contiguous()
    c = torch.log(WEIGHTS * precision) - 0.5 * alpha.square() * precision * MEANS.square().sum(dim=1)
    return zip(A, c[:, :, None], M, strict=True)


def mixture_best(path=w.TIMED):
    """W3-mixture by matrix products, samples on the last axis: x is (2, B), softmax along rows."""
    start, steps = torch.tensor(w.prior().T.copy()), path.steps()

    @torch.inference_mode()
    def unit():
        x = start
        for s, (A, c, M) in zip(steps, coefficients(steps), strict=True):
            logits = torch.addmm(c, A, torch.cat([x, x.square().sum(dim=0, keepdim=True)]))
            sums = M @ torch.softmax(logits, dim=0)
            score = torch.addcmul(sums[:2], x, sums[2:], value=-1)
            x = (s.keep * x).add_(score, alpha=s.push).add_(torch.randn_like(x), alpha=s.noise)
        return x.T

    return unit


def mixture_compiled(path=w.TIMED):
    """The same, one step compiled."""
    start, steps = torch.tensor(w.prior().T.copy()), path.steps()
    numbers = columns(steps, "keep", "push", "noise")

    @torch.compile
    def step(x, A, c, M, at, z):
        keep, push, noise = at.unbind()
        logits = A @ torch.cat([x, x.square().sum(dim=0, keepdim=True)]) + c
        sums = M @ torch.softmax(logits, dim=0)
        return keep * x + push * (sums[:2] - x * sums[2:]) + noise * z

    @torch.inference_mode()
    def unit():
        x = start.clone()
        for at, (A, c, M) in zip(numbers, coefficients(steps), strict=True):
            x = step(x, A, c, M, at, torch.randn_like(x))
        return x.T

    return unit


def mixture_gemm(path=w.TIMED):
    """The same two products with x as (B, 2): torch's softmax over 8 neighbours is the slow part."""
    start, steps = torch.tensor(w.prior()), path.steps()

    @torch.inference_mode()
    def unit():
        x = start
        for s, (A, c, M) in zip(steps, coefficients(steps), strict=True):
            logits = torch.addmm(c.T, torch.cat([x, x.square().sum(dim=1, keepdim=True)], dim=1), A.T)
            sums = torch.softmax(logits, dim=1) @ M.T
            score = torch.addcmul(sums[:, :2], x, sums[:, 2:], value=-1)
            x = (s.keep * x).add_(score, alpha=s.push).add_(torch.randn_like(x), alpha=s.noise)
        return x

    return unit


VARIANTS = {
    "torch": {
        "W1": training_plain,
        "W2": lambda: unet_training(None, average_each),
        "W3-net": network_plain,
        "W3-mixture": mixture_plain,
        "W4": lambda: sliced_training(None, average_each),
    },
    "torch-best": {
        "W1": training_best,
        "W2": lambda: unet_training(True, average_together, torch.channels_last),
        "W3-net": network_best,
        "W3-mixture": mixture_best,
        "W4": lambda: sliced_training(True, average_together),
    },
    "torch-gemm": {"W3-mixture": mixture_gemm},
    "torch-compile": {
        "W1": training_compiled,
        "W2": lambda: unet_training(True, average_together, torch.channels_last, torch.compile(unet_loss)),
        "W3-net": network_compiled,
        "W3-mixture": mixture_compiled,
        "W4": lambda: sliced_training(True, average_together, torch.compile(sliced_loss_forward)),
    },
}


def describe():
    """Version, what does the matrix products, and the instructions of torch's own loops."""
    mkl = "MKL" if torch.backends.mkl.is_available() else "no MKL"
    return f"torch {torch.__version__}, {mkl}, {torch.backends.cpu.get_cpu_capability()}"


def set_threads(threads):
    """Threads inside one operation."""
    torch.set_num_threads(threads)


def wait(result):
    """Nothing to wait for: eager torch on a CPU has finished when it returns."""


def gradient(x0, log_sigma, noise):
    """W1's loss and gradient at the initial weights, for comparison with the reference."""
    params = {name: p.requires_grad_() for name, p in tensors(w.parameters()).items()}
    value = loss(params, torch.tensor(x0), torch.tensor(log_sigma)[:, None], torch.tensor(noise))
    return _named(value, params)


def unet_gradient(x0, log_sigma, noise):
    """W2's loss and gradient, under the names and in the layout of `workloads`."""
    params = {name: p.requires_grad_() for name, p in unet_tensors(torch.channels_last).items()}
    x0, noise = (torch.tensor(a).permute(0, 3, 1, 2) for a in (x0, noise))
    value, grads = _named(unet_loss(params, x0, torch.tensor(log_sigma)[:, None], noise), params)
    return value, {name: g.transpose(2, 3, 1, 0) if g.ndim == 4 else g for name, g in grads.items()}


def sliced_gradient(x0, log_sigma, noise, v):
    """W4's loss and gradient, likewise."""
    params = {name: p.requires_grad_() for name, p in tensors(w.parameters()).items()}
    x0, log_sigma, noise, v = (torch.tensor(a) for a in (x0, log_sigma, noise, v))
    return _named(sliced_loss(params, x0, log_sigma[:, None], noise, v), params)


def _named(value, params):
    value.backward()
    return value.item(), {name: p.grad.numpy() for name, p in params.items() if p.grad is not None}
